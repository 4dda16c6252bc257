"""D4: one flipped bit anywhere in a version is found before it is served."""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from app.index import bundle
from app.index.bundle import MANIFEST
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.promises.hostile import opener
from tests.promises.offered import Offered, reloads
from tests.promises.versions import Pair, parts

_DIGESTS = re.compile(r"sha256 [0-9a-f]{64}, expected [0-9a-f]{64}")


@pytest.mark.parametrize("flips", forms(100, 1000))
async def test_every_flipped_bit_is_refused_and_its_part_named(
    pair: Pair, promise: Promise, seed: int, flips: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parts in turn, any bit of each; the old version goes on being served."""
    draw = random.Random(seed)
    folder = pair.store.path(pair.second)
    refused, unnamed, before = 0, [], reloads("refused")
    hit: Counter[str] = Counter()
    with (
        promise("D4", f"{flips:,} of {flips:,} flips refused, the part named with both digests") as found,
        Offered(pair.store) as offered,
    ):
        for number in range(flips):
            part = (everything := parts(folder))[number % len(everything)]
            bit = draw.randrange(8 * part.stat().st_size)
            _flip(part, bit)
            why = await offered.refusal(pair.second)
            _flip(part, bit)
            hit[part.name] += 1
            refused += why is not None
            if why is None or part.name not in why or (part.name != MANIFEST and not _DIGESTS.search(why)):
                unnamed.append((part.name, bit, why))
        found.figure = f"{refused:,} of {flips:,} flips over {len(hit)} files refused, {len(unnamed)} not named"
        moved = reloads("refused") - before
        found.metric = f"aisle_bundle_reloads_total{{outcome=refused}} +{moved:.0f}"
        tried = max(40, flips // 3)
        accepted, wrong = _by_faiss_alone(folder, tmp_path / "aside", draw, tried)
        with monkeypatch.context() as patched:
            patched.setattr(bundle, "_check_part", lambda *_: None)
            loaded = await _loaded(offered, folder / "dense.faiss", pair.second, draw, max(20, flips // 20))
        found.control = (
            f"without digests: FAISS alone took {accepted} of {tried} flips of dense.faiss, {wrong} of them to "
            f"crash or answer otherwise; the loader took {loaded} of {max(20, flips // 20)}"
        )
        assert await offered.refusal(pair.second) is None, "unflipped it is served"
        assert refused == flips and not unnamed, unnamed[:5]
        assert moved == flips
        assert accepted > tried // 4 and wrong and loaded, "the flips did no harm"


async def _loaded(offered: Offered, part: Path, version: str, draw: random.Random, tries: int) -> int:
    """How many flips of a part the service's loader takes."""
    taken, served = 0, offered.version
    bits = 8 * part.stat().st_size  # noqa: ASYNC240  (nobody else waits for this loop)
    for _ in range(tries):
        bit = draw.randrange(bits)
        _flip(part, bit)
        if await offered.refusal(version) is None:
            taken += 1
        _flip(part, bit)
        await offered.refusal(served)
    return taken


def _by_faiss_alone(folder: Path, aside: Path, draw: random.Random, tries: int) -> tuple[int, int]:
    """Of so many flips of dense.faiss: how many FAISS reads, and how many of those then answer otherwise or crash."""
    ends: Counter[str] = Counter()
    aside.mkdir()
    with opener(folder, "faiss") as children:
        for _ in range(tries):
            copy = Path(shutil.copy(folder / "dense.faiss", aside))
            _flip(copy, draw.randrange(8 * copy.stat().st_size))
            ends[children.fate(aside).end] += 1
    return tries - ends["refused"], ends["wrong"] + ends["died"]


def _flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ (1 << (bit % 8))]))
