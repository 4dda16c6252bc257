"""Counters are exact: what two processes counted together is what their clients were told, to the last request."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.app.server import Served, served
from tests.ledger import Promise
from tests.promises.forms import forms
from tests.promises.keep_alive import KeepAlive, abandoned, request

_CONNECTIONS = 32
_LEAVERS = 0.02
Tally = Counter[tuple[str, str, str]]  # route, method, status

_ASKED: tuple[tuple[str, str, bytes], ...] = (
    ("/v1/search", "POST", b""),  # made anew each time
    ("/v1/search", "GET", request("GET", "/v1/search?q=mug&k=2")),
    ("/v1/search", "POST", request("POST", "/v1/search", {"query": "mug", "nope": 1})),
    ("/v1/search", "POST", request("POST", "/v1/search", b"{")),
    ("/v1/search", "DELETE", request("DELETE", "/v1/search")),
    ("/v1/products/{id}", "GET", request("GET", "/v1/products/p001")),
    ("/v1/products/{id}", "GET", request("GET", "/v1/products/none")),
    ("/livez", "HEAD", request("HEAD", "/livez")),
    ("unmatched", "GET", request("GET", "/nothing/here")),
    ("unmatched", "other", request("BREW", "/nothing/here")),
    (
        "/v1/rescore",
        "POST",
        request("POST", "/v1/rescore", {"items": [{"query": "mug", "candidates": [{"id": "p1"}]}]}),
    ),
)


def _counted(service: Served) -> tuple[Tally, dict[str, float]]:
    """Requests by route, method and status, and the sums of some other metrics, in one scrape."""
    requests: Tally = Counter()
    sums: Counter[str] = Counter()
    for line in httpx.get(f"{service.address}/metrics").text.splitlines():
        name, _, value = line.rpartition(" ")
        labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
        if name.startswith("aisle_http_requests_total{") and labels["route"] != "/metrics":
            requests[labels["route"], labels["method"], labels["status"]] += int(float(value))
        elif not line.startswith("#") and labels.get("route") != "/metrics":
            sums[name.partition("{")[0]] += float(value)
    return requests, dict(sums)


async def _load(port: int, count: int) -> tuple[Tally, int]:
    """What the clients were told, and how many requests nobody stayed to hear about."""
    told: Tally = Counter()
    left = 0
    numbers = iter(range(count))

    async def client(seed: int) -> None:
        nonlocal left
        draw, line = random.Random(seed), KeepAlive(port)
        for number in numbers:
            if draw.random() < _LEAVERS:
                await abandoned(port, request("POST", "/v1/classify", {"query": f"mug {number}"}))
                left += 1
                continue
            route, method, sent = draw.choice(_ASKED)
            sent = sent or request("POST", "/v1/search", {"query": f"steel mug {number}", "timeout_ms": 5000})
            status, _ = await line.ask(sent)
            told[route, method, str(status)] += 1
        line.close()

    await asyncio.gather(*(client(seed) for seed in range(_CONNECTIONS)))
    return told, left


async def _exactly(bundles: Path, count: int) -> tuple[Tally, int]:
    """What the clients were told, which is what was counted, and how many left."""
    with served(bundles, AISLE_PROCESSES="2", AISLE_WORKERS="1", AISLE_MAX_WAITING="4") as service:
        port = int(service.address.rpartition(":")[2])
        told, left = await _load(port, count)
        assert left > 0 and sum(told.values()) + left == count
        assert told["/v1/search", "POST", "200"] and told["/v1/search", "POST", "429"], "nobody was refused"
        for _ in range(100):  # those who left are still being counted
            counted, sums = await asyncio.to_thread(_counted, service)
            if sum(counted.values()) >= count:
                break
            await asyncio.sleep(0.05)
        classified = Counter({key: counted.pop(key) for key in list(counted) if key[0] == "/v1/classify"})
        assert sum(classified.values()) == left
        assert counted == told
        found = sum(n for (route, _, status), n in told.items() if (route, status) == ("/v1/search", "200"))
        assert sums["aisle_searches_total"] == found
        no_http = told["unmatched", "other", "400"]  # refused before it was a request, so nothing was timed
        assert no_http and sums["aisle_http_request_duration_seconds_count"] == count - no_http
        assert sums["aisle_refused_total"] >= sum(n for (*_, status), n in told.items() if status == "429")
        # Scrapes count themselves, and one is under way while it is read.
        assert sums["aisle_http_requests_in_flight"] == 1
    return told, left


@pytest.mark.parametrize("count", forms(5_000, 100_000))
async def test_counters_equal_what_clients_were_told(tiny_bundles: Path, promise: Promise, count: int) -> None:
    """Requests of eleven kinds over 32 connections, with refusals and clients who leave."""
    with promise("M2", f"{count:,} requests over two processes: counters equal the clients' tally") as found:
        told, left = await _exactly(tiny_bundles, count)
        refused = sum(many for (*_, status), many in told.items() if status == "429")
        found.figure = f"{count:,} requests of two processes, counted exactly"
        found.control = f"{refused:,} were refused, {left:,} left before they were answered"
        found.metric = "aisle_http_requests_total, by route, method and status, equals the tally"
