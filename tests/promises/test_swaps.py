"""D1: a swap of versions is invisible but for its effect."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace

import orjson
import pytest

from tests.app.server import Served, served
from tests.bench.wire import Client
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.promises.load import Answer, Load, capacity, failed, p99_ms, searches
from tests.promises.running import metric, rss_mb
from tests.promises.versions import Pair

PROCESSES = 2
_LOOK_S = 0.05
_LETTING_GO_S = 0.2


@dataclass(frozen=True)
class Size:
    """`rate` 0: half of what the machine can do; before each swap it is quiet for `quiet_s`."""

    swaps: int
    rounds: int
    rate: float
    quiet_s: float


class Watch:
    """Looks at every answer: which process gave it from which version, and whether a hit is another version's."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.seen: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.mixed: list[str] = []

    def look(self, answer: Answer) -> None:
        if answer.status != 200:
            return
        found = orjson.loads(answer.body)
        version = found["version"]
        self.seen[found["request_id"][:12]] = version
        self.counts[version] = self.counts.get(version, 0) + 1
        if self.is_mixed(found):
            self.mixed.append(f"{version}: {[hit['id'] for hit in found['hits']]}")

    def is_mixed(self, found: dict[str, object]) -> bool:
        hits = found["hits"]
        assert isinstance(hits, list)
        return not hits or any(hit["id"][0] != self._pair.letter(str(found["version"])) for hit in hits)

    def everywhere(self, version: str, address: str) -> bool:
        """Asks over a connection of its own as well: those of the load may all be one process's. With little effort,
        as it shares an interpreter with the load's clock."""
        client = Client(address)
        found = orjson.loads(client.exchange(client.request("/v1/search", searches(0)))[1])
        client.close()
        self.seen[found["request_id"][:12]] = found["version"]
        return len(self.seen) == PROCESSES and set(self.seen.values()) == {version}


def _round(service: Served, pair: Pair, watch: Watch, size: Size, rate: float) -> tuple[list[Answer], list[Answer]]:
    """Quiet and swaps in turns, under one load and looked at as often: the machine's speed does not stay for longer. A
    swap's time ends a little after the new version is everywhere, as the old one is let go then."""
    watch.seen.clear()
    swapping: list[tuple[float, float]] = []
    with Load(service.address, rate, look=watch.look) as load:
        for _ in range(size.swaps // size.rounds):
            until = time.monotonic() + size.quiet_s
            load.until(lambda until=until: _later(watch, service, until), every_s=_LOOK_S)
            version = pair.second if pair.store.current() == pair.first else pair.first
            begun = time.monotonic()
            pair.store.publish(version)
            load.until(lambda version=version: watch.everywhere(version, service.address), every_s=_LOOK_S)
            until = time.monotonic() + _LETTING_GO_S
            load.until(lambda until=until: _later(watch, service, until), every_s=_LOOK_S)
            swapping.append((begun, until))
    beside = [answer for answer in load.answers if any(begun <= answer.due < end for begun, end in swapping)]
    others = set(map(id, beside))
    return [answer for answer in load.answers if id(answer) not in others], beside


def _later(watch: Watch, service: Served, until: float) -> bool:
    return not watch.everywhere("none", service.address) and time.monotonic() > until


@pytest.mark.parametrize("size", forms(Size(8, 1, 150, 0.1), Size(100, 5, 0, 0.8)))
def test_no_answer_fails_or_mixes_versions_while_they_are_swapped(pair: Pair, promise: Promise, size: Size) -> None:
    """Two versions with disjoint ids take turns in two processes, whose caches are soon full and grow no further."""
    with (
        promise("D1", f"{size.swaps} swaps: 0 failed, 0 mixed, memory back within 5 %") as found,
        served(pair.root, AISLE_PROCESSES=str(PROCESSES), AISLE_PROVIDER="cpu", AISLE_CACHE_MB="2") as service,
    ):
        watch = Watch(pair)
        rate = size.rate or capacity(service.address) / 2
        _round(service, pair, watch, replace(size, swaps=4, rounds=1), rate)  # both versions have been there
        before = rss_mb(service)
        served_before = metric(service.address, "aisle_bundle_reloads_total", outcome="served")
        rounds = [_round(service, pair, watch, size, rate) for _ in range(size.rounds)]
        time.sleep(0.5)
        after = rss_mb(service)
        moved = metric(service.address, "aisle_bundle_reloads_total", outcome="served") - served_before
        answers = [answer for both in rounds for part in both for answer in part]
        ratios = [p99_ms(swapping) / p99_ms(quiet) for quiet, swapping in rounds]
        found.figure = (
            f"{size.swaps} swaps under {rate:.0f}/s: {len(answers):,} answers, {len(failed(answers))} failed, "
            f"{len(watch.mixed)} mixed, memory {before:.0f} → {after:.0f} MB, p99 × {statistics.median(ratios):.2f}"
        )
        found.metric = f"aisle_bundle_reloads_total{{outcome=served}} +{moved:.0f}"
        assert not failed(answers), failed(answers)
        assert not watch.mixed, watch.mixed[:3]
        assert moved == PROCESSES * size.swaps
        assert min(watch.counts.values()) > size.swaps and len(watch.counts) == 2, "one of them was hardly seen"
        planted = {"version": pair.first, "hits": [{"id": "a001"}, {"id": "b001"}]}
        assert watch.is_mixed(planted)
        found.control = f"answers by version: {sorted(watch.counts.values())}; a planted mixture is seen"
        assert after <= 1.05 * before
        if size.rounds > 1:
            assert statistics.median(ratios) <= 1.5, ratios
