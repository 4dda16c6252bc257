"""What the quality ladder is worth when more is asked than the default tier can answer in time.

    python -m tests.bench.bench_ladder --bundles bundles [--seconds 8] [--sleep-ms 10] [--json]

Poisson arrivals at 0.5, 1, 2 and 4 times the capacity of the default tier, every search with the same deadline, latency
from the intended time of sending. The ladder beside every tier held fixed. The encoder sleeps (`--sleep-ms 0`: the real
one alone), so that the load, not the machine, decides. *Goodput*: answers within the deadline and 5 ms, a second;
*weighted*: each by its tier's nDCG@10 on ESCI dev (BENCHMARKS.md).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np

from tests.bench.open_loop import Outcome, Plan, constant, offer_apart, poisson
from tests.bench.queries import distinct_texts
from tests.bench.wire import Client, server

ROOT = Path(__file__).parents[2]
WEIGHTS = {"hybrid": 0.748, "fast": 0.738, "lexical": 0.718}
LOADS = (0.5, 1.0, 2.0, 4.0)
SERVICES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("ladder", "default", ()),
    ("default", "default", ("--fixed",)),
    ("fast", "fast", ("--fixed",)),
    ("lexical", "lexical", ("--fixed",)),
)
_GRACE_MS = 5.0
_CONNECTIONS = 512
_PROBE_S = 3.0
_COUNTERS = {
    "tiers": r'aisle_searches_total\{collection="default",tier="(\w+)"\} (\S+)',
    "expired work": r"(?m)^aisle_work_after_expiry_total (\S+)",
}
Figures = dict[str, Any]


def _requests(address: str, texts: Iterator[str], profile: str, count: int, deadline_ms: float) -> list[bytes]:
    client = Client(address)
    try:
        asked = {"k": 10, "profile": profile, "timeout_ms": deadline_ms}
        return [client.request("/v1/search", {"query": text, **asked}) for text in islice(texts, count)]
    finally:
        client.close()


def _counters(address: str) -> tuple[dict[str, float], float]:
    """Searches by tier, and runs of the encoder that were begun too late."""
    text = urlopen(f"{address}/metrics", timeout=10).read().decode()
    tiers = {tier: float(value) for tier, value in re.findall(_COUNTERS["tiers"], text)}
    late = re.search(_COUNTERS["expired work"], text)
    return tiers, float(late[1]) if late else 0.0


def _offer(address: str, requests: list[bytes], due: Any) -> Outcome:
    parts = urlsplit(address)
    greeting = requests[0]
    return offer_apart(Plan(parts.hostname or "", parts.port or 0, requests, due, greeting, _CONNECTIONS))


def _run(address: str, texts: Iterator[str], profile: str, rate: float, seconds: float, deadline_ms: float) -> Figures:
    due = poisson(rate, seconds)
    requests = _requests(address, texts, profile, len(due) + 1, deadline_ms)
    _offer(address, requests[:1], constant(50.0, 0.1))  # the connections' greetings and their cache entry
    tiers, late = _counters(address)
    outcome = _offer(address, [*requests[1:]], due)
    time.sleep(0.3)
    after, late_after = _counters(address)
    answered = outcome.status == 200
    in_time = answered & (outcome.latency_us <= (deadline_ms + _GRACE_MS) * 1e3)
    served = {tier: after.get(tier, 0.0) - tiers.get(tier, 0.0) for tier in WEIGHTS}
    total = sum(served.values()) or 1.0
    goodput = float(in_time.sum()) / seconds
    weight = sum(WEIGHTS[tier] * count for tier, count in served.items()) / total
    latency = outcome.latency_us[answered] / 1e3
    return {
        "offered": rate,
        "statuses": outcome.statuses,
        "in time, of answered": float(in_time.sum() / max(1, answered.sum())),
        "goodput": goodput,
        "weighted": goodput * weight,
        "tiers": {tier: count / total for tier, count in served.items()},
        "p50 ms": float(np.percentile(latency, 50)) if len(latency) else None,
        "p99 ms": float(np.percentile(latency, 99)) if len(latency) else None,
        "work after expiry": late_after - late,
        "generator late": outcome.late,
    }


def _capacity(address: str, texts: Iterator[str], deadline_ms: float) -> float:
    """Answers a second of the default tier held fixed, with more offered than it can take and time enough."""
    due = constant(2_000.0, _PROBE_S / 4)
    outcome = _offer(address, _requests(address, texts, "default", len(due), 20_000.0), due[: 200 * int(_PROBE_S)])
    return outcome.rate


def measure(bundles: Path, seconds: float, sleep_ms: float, deadline_ms: float) -> Figures:
    """Figures by service and load; C is the capacity of the default tier."""
    texts = distinct_texts()
    command = ["tests.bench.sleeping_app", "--bundles", str(bundles), "--sleep-ms", str(sleep_ms)]
    with server(*command, "--fixed") as address:
        capacity = _capacity(address, texts, deadline_ms)
    runs: dict[str, dict[str, Figures]] = {}
    for name, profile, more in SERVICES:
        with server(*command, *more) as address:
            _run(address, texts, profile, capacity / 4, 2.0, 1000.0)  # warms up
            for load in LOADS:
                runs.setdefault(name, {})[f"{load:g}"] = _run(
                    address, texts, profile, capacity * load, seconds, deadline_ms
                )
                print(f"{name} at {load:g} C done", file=sys.stderr)
    return {"capacity": capacity, "deadline ms": deadline_ms, "sleep ms": sleep_ms, "runs": runs}


def report(figures: Figures) -> str:
    """The figures for a person, and what they say of the bars."""
    lines = [
        f"C = {figures['capacity']:.0f}/s (default tier held fixed), deadline {figures['deadline ms']:g} ms, "
        f"encoder sleeps {figures['sleep ms']:g} ms",
        "",
        f"{'service':9}{'load':>6}{'goodput/s':>11}{'weighted':>10}{'in time':>9}{'p50 ms':>8}{'p99 ms':>8}  tiers",
    ]
    for name, loads in figures["runs"].items():
        for load, one in loads.items():
            tiers = " ".join(f"{tier} {share:.0%}" for tier, share in one["tiers"].items() if share)
            refused = {status: count for status, count in one["statuses"].items() if status != 200}
            lines.append(
                f"{name:9}{load + ' C':>6}{one['goodput']:11.0f}{one['weighted']:10.1f}"
                f"{one['in time, of answered']:9.2%}{one['p50 ms'] or 0:8.1f}{one['p99 ms'] or 0:8.1f}  "
                f"{tiers} {refused or ''}"
            )
    runs = figures["runs"]
    fixed = runs["default"]["2"]
    at_two = runs["ladder"]["2"]["goodput"] / max(1e-9, fixed["goodput"])
    # At the deadline the words answer for the default, too; what it is held to is its own tier.
    in_tier = runs["ladder"]["2"]["goodput"] / max(1e-9, fixed["goodput"] * fixed["tiers"]["hybrid"])
    above = {
        load: runs["ladder"][load]["weighted"]
        / max(one[load]["weighted"] for name, one in runs.items() if name != "ladder")
        for load in runs["ladder"]
    }
    least = min(one["in time, of answered"] for one in runs["ladder"].values())
    late = sum(one["work after expiry"] for one in runs["ladder"].values())
    lines += [
        "",
        f"accepted answers in time: {least:.2%} at least (bar 99 %)",
        f"goodput at 2 C, ladder / default held fixed: {in_tier:.2f} counting what it answers in its own tier (bar 2), "
        f"{at_two:.2f} with the words that answer for it at the deadline",
        "weighted goodput, ladder / best fixed tier: "
        + ", ".join(f"{load} C {ratio:.3f}" for load, ratio in above.items()),
        f"runs of the encoder begun after expiry: {late:.0f} (bar 0)",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--sleep-ms", type=float, default=10.0)
    parser.add_argument("--deadline-ms", type=float, default=100.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.bundles, arguments.seconds, arguments.sleep_ms, arguments.deadline_ms)
    print(json.dumps(figures) if arguments.json else report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
