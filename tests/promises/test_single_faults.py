"""D5: a version with any single fault is refused before it is served."""

from __future__ import annotations

import random
import shutil
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from scripts.cli import main as aisle
from tests.ledger import Promise
from tests.promises.faults import offered_version, single_faults
from tests.promises.forms import forms
from tests.promises.offered import Offered, reloads
from tests.promises.versions import Pair, signed_anew


@pytest.mark.parametrize("size", forms((40, 40), (200, None)))
async def test_a_version_with_any_single_fault_is_refused(
    pair: Pair, promise: Promise, seed: int, size: tuple[int, int | None], other_encoder: Path, tmp_path: Path
) -> None:
    """Cut, swapped, missing, additional and foreign files, and whole ones that do not fit each other. What only a look
    at the texts can tell (words or an encoder of another version, under digests that fit) is refused by the gate before
    it is published; the service alone sees what its golden queries see."""
    faults = single_faults(pair, other_encoder, random.Random(seed), *size)
    whole = Path(shutil.copytree(pair.store.path(pair.second), tmp_path / "whole"))
    accepted, gated, unnamed, before = [], [], [], reloads("refused")
    with promise("D5", "every one refused before it is served") as found, Offered(pair.store) as offered:
        for fault in faults:
            version = offered_version(pair, fault)
            why = await offered.refusal(version)
            if why is None and fault.signed and not _passes_the_gate(pair, version):
                gated.append(fault.name)
            elif why is None:
                accepted.append(fault.name)
            elif fault.named not in why:
                unnamed.append((fault.name, why))
            shutil.rmtree(pair.store.path(version))
            if version == pair.second:
                shutil.copytree(whole, pair.root / pair.second)
            if why is None:
                await offered.refusal(pair.first)
        refused = len(faults) - len(accepted)
        signed = sum(fault.signed for fault in faults)
        found.figure = (
            f"{refused:,} of {len(faults):,} refused ({signed} with digests that fit, {len(gated)} of them by the gate)"
        )
        moved = reloads("refused") - before
        found.metric = f"aisle_bundle_reloads_total{{outcome=refused}} +{moved:.0f}"
        served = await offered.refusal(pair.second) is None
        passes = _passes_the_gate(pair, signed_anew(pair.store, pair.second, lambda _: None, {"note": "whole"}))
        found.control = "without a fault the same version passes both"
        assert not accepted and not unnamed, (accepted, unnamed)
        assert moved == len(faults) - len(gated)
        assert served and passes


def _passes_the_gate(pair: Pair, version: str) -> bool:
    """Whether `aisle publish` takes a version in the place of the whole one that it was made from."""
    named = (pair.root / "CURRENT").read_text()
    pair.store.publish(pair.second)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        code = aisle(["publish", version, "--bundles", str(pair.root)])
    (pair.root / "CURRENT").write_text(named)
    return code == 0


async def test_a_flipped_bit_in_current_never_serves_another_version(pair: Pair, promise: Promise) -> None:
    """Every bit of CURRENT: what it names then is nothing, nowhere, or still the same version."""
    named = (pair.root / "CURRENT").read_bytes()
    before = reloads("refused")
    with promise("D5", "no flip of CURRENT changes what is served") as found, Offered(pair.store) as offered:
        for bit in range(8 * len(named)):
            flipped = bytearray(named)
            flipped[bit // 8] ^= 1 << (bit % 8)
            (pair.root / "CURRENT").write_bytes(flipped)
            await offered.collections._catch_up("default")
            assert offered.version == pair.first, bytes(flipped)
            (pair.root / "CURRENT").write_bytes(named)
            await offered.collections._catch_up("default")
        moved = reloads("refused") - before
        found.figure = f"{8 * len(named)} flips of CURRENT: the version stayed each time"
        found.control = found.metric = f"aisle_bundle_reloads_total{{outcome=refused}} +{moved:.0f}"
        assert moved > 7 * len(named)
