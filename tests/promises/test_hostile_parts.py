"""D6: a hostile version can neither run code, nor reach out of its folder, nor take the service with it."""

from __future__ import annotations

import pickle
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.ledger import Promise
from tests.promises.faults import Fault, offered_version
from tests.promises.forms import forms
from tests.promises.hostile import CPU_S, MEMORY_BYTES, opener
from tests.promises.hostile_parts import Bomb, not_plain, pickles, reaching
from tests.promises.offered import Offered, reloads
from tests.promises.versions import Pair


async def _refusals(pair: Pair, offered: Offered, faults: list[Fault], whole: Path) -> list[str]:
    """What went otherwise than it must: a version was served, or refused without naming the part."""
    wrong = []
    for fault in faults:
        version = offered_version(pair, fault)
        why = await offered.refusal(version)
        if why is None or fault.named not in why:
            wrong.append(f"{fault.name}: {why}")
        shutil.rmtree(pair.store.path(version))
        if version == pair.second:
            shutil.copytree(whole, pair.root / pair.second)
    return wrong


@pytest.mark.parametrize("share", forms(0.2, 1.0))
async def test_no_part_runs_code_or_reaches_out_of_its_version(
    pair: Pair, promise: Promise, seed: int, share: float, tmp_path: Path
) -> None:
    """Pickles, links, pipes, devices, and weights that lie elsewhere."""
    folder, aside, canary = pair.store.path(pair.second), tmp_path / "aside", tmp_path / "canary"
    aside.mkdir()
    whole = Path(shutil.copytree(folder, tmp_path / "whole"))
    unread = {"embeddings.npy", "hashes.npy"}
    faults = [fault for fault in pickles(folder, canary) if fault.name.split()[0] not in unread]
    links = list(not_plain(folder, aside))
    faults += [*random.Random(seed).sample(links, round(share * len(links))), *reaching(folder, aside)]
    before = reloads("refused")
    with promise("D6", "all refused, no code run") as found, Offered(pair.store) as offered:
        wrong = await _refusals(pair, offered, faults, whole)
        found.figure = f"{len(faults) - len(wrong)} of {len(faults)} hostile parts refused, canary untouched"
        moved = reloads("refused") - before
        found.metric = f"aisle_bundle_reloads_total{{outcome=refused}} +{moved:.0f}"
        assert not wrong, wrong
        assert not canary.exists()
        assert moved == len(faults)
        pickle.loads(pickle.dumps(Bomb(str(canary))))
        assert canary.exists()
        found.control = "unpickled by hand, the same bytes make the canary"
        assert await offered.refusal(pair.second) is None, "whole it is served"


async def test_arrays_for_the_next_build_are_read_without_pickles(pair: Pair, promise: Promise, tmp_path: Path) -> None:
    """The service opens some of them, for products that change; whoever opens one, refuses, and names it."""
    import numpy as np

    canary = tmp_path / "canary"
    faults = [one for one in pickles(pair.store.path(pair.second), canary) if not one.named]
    with promise("D6", "what the service does not read runs nothing either") as found, Offered(pair.store) as offered:
        for fault in faults:
            version = offered_version(pair, fault)
            refusal = await offered.refusal(version)
            assert refusal is None or fault.name.split()[0] in refusal
            with pytest.raises(ValueError):
                np.load(pair.store.path(version) / fault.name.split()[0], allow_pickle=False)
        assert not canary.exists()
        found.figure = f"{len(faults)} of {len(faults)} without a canary"
        found.control = "whoever reads them without pickles is told so"


@pytest.mark.parametrize("mutations", forms(50, 10_000))
def test_an_index_that_may_be_anything_takes_nobody_with_it(
    pair: Pair, promise: Promise, seed: int, mutations: int, tmp_path: Path
) -> None:
    """Bytes of dense.faiss changed, cut, doubled and mixed, as if signed: each is opened in a child with limits."""
    draw = random.Random(seed)
    folder = pair.store.path(pair.second)
    raw = (folder / "dense.faiss").read_bytes()
    other = (pair.store.path(pair.first) / "dense.faiss").read_bytes()
    ends: Counter[str] = Counter()
    slowest = largest = 0.0
    bar = f"the parent lives; a child takes at most {MEMORY_BYTES >> 30} GiB and {CPU_S} s"
    with promise("D6", bar) as found, opener(folder, "loader") as children:
        for _ in range(mutations):
            (tmp_path / "dense.faiss").write_bytes(mutated(raw, other, draw))
            fate = children.fate(tmp_path)  # raises where the parent has died
            ends[fate.end] += 1
            slowest, largest = max(slowest, fate.seconds), max(largest, fate.megabytes)
        told = ", ".join(f"{count:,} {end}" for end, count in sorted(ends.items()))
        found.figure = f"{mutations:,} mutated indexes: {told}; slowest {slowest:.2f} s, largest {largest:.0f} MB"
        found.control = f"unchanged it is taken; {ends['wrong']} would have answered otherwise"
        (tmp_path / "dense.faiss").write_bytes(raw)
        assert children.fate(tmp_path).end == "taken"
        assert slowest < CPU_S and largest < MEMORY_BYTES / 2**20
        assert ends["refused"] and ends["wrong"], "the mutations did no harm"
        assert not ends["died"]


def mutated(raw: bytes, other: bytes, draw: random.Random) -> bytes:
    """One to eight bytes changed, most of them in the head, where the sizes are; or cut, doubled, mixed, zeroed."""
    kind = draw.randrange(10)
    changed = bytearray(raw)
    if kind < 7:
        for _ in range(draw.randint(1, 8)):
            at = draw.randrange(min(160, len(raw))) if draw.random() < 0.7 else draw.randrange(len(raw))
            changed[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
    elif kind == 7:
        del changed[draw.randrange(len(raw)) :]
    elif kind == 8:
        at = draw.randrange(len(raw))
        changed[at : at + 64] = other[at : at + 64]
    else:
        at, length = draw.randrange(len(raw)), draw.choice((4, 8, 64))
        changed[at : at + length] = draw.choice((b"\0", b"\xff")) * length
    return bytes(changed)
