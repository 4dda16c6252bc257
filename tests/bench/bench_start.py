"""Starts and replicas: is a service warm when it says it is ready, and what does one more replica bring and cost?

    python -m tests.bench.bench_start --bundles bundles [--starts 5] [--json]

*First*: p99 of the first hundred searches after ready, uncached, one keep-alive client; *steady*: of a thousand later
ones. Replicas are processes of one machine over the same bundles; memory a replica is its proportional set size (PSS),
in which pages that replicas share count in parts.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from app.runtime.cores import usable_cores
from tests.bench.queries import distinct_texts
from tests.bench.wire import Client, server

ROOT = Path(__file__).parents[2]
_FIRST, _STEADY = 100, 1_000
_CLIENTS, _LOAD_S = 8, 4.0
Figures = dict[str, Any]


def _milliseconds(client: Client, texts: Iterator[str], count: int) -> list[float]:
    spent = []
    for text in islice(texts, count):
        request = client.request("/v1/search", {"query": text, "k": 10})
        started = perf_counter()
        client.exchange(request)
        spent.append((perf_counter() - started) * 1e3)
    return spent


def start(bundles: Path, texts: Iterator[str]) -> Figures:
    """One start: seconds to ready, p99 of the first and of the steady searches, and their ratio."""
    began = perf_counter()
    with server("scripts.cli", "serve", "--bundles", str(bundles), "--port", "0") as address:
        ready_s = perf_counter() - began
        client = Client(address)
        first = float(np.percentile(_milliseconds(client, texts, _FIRST), 99))
        _milliseconds(client, texts, _FIRST)
        steady = float(np.percentile(_milliseconds(client, texts, _STEADY), 99))
        client.close()
    return {"ready s": ready_s, "first p99 ms": first, "steady p99 ms": steady, "ratio": first / steady}


def replicas(bundles: Path, texts: Iterator[str], count: int) -> Figures:
    """Searches a second of so many replicas that share the machine, closed loop, and the memory of each."""
    with ExitStack() as stack:
        command = ("scripts.cli", "serve", "--bundles", str(bundles), "--port", "0")
        addresses = [stack.enter_context(server(*command)) for _ in range(count)]
        prepared = [list(islice(texts, 4_000)) for _ in range(_CLIENTS)]
        with ThreadPoolExecutor(_CLIENTS) as pool:
            jobs = [pool.submit(_closed, addresses[at % count], own) for at, own in enumerate(prepared)]
            done = sum(job.result() for job in jobs)
        return {"replicas": count, "searches/s": done / _LOAD_S, "PSS MB": [_pss_mb(one) for one in addresses]}


def _closed(address: str, texts: list[str]) -> int:
    client, done, until = Client(address), 0, perf_counter() + _LOAD_S
    for text in texts:
        if perf_counter() > until:
            break
        client.exchange(client.request("/v1/search", {"query": text, "k": 10}))
        done += 1
    client.close()
    return done


def _pss_mb(address: str) -> float:
    """Of the process that listens there."""
    port = f":{int(address.rsplit(':', 1)[1]):04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(port) and fields[3] == "0A":
            return _of_inode(fields[9])
    raise LookupError(address)


def _of_inode(inode: str) -> float:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = [link.readlink().name for link in (process / "fd").iterdir()]
        except OSError:
            continue
        if f"socket:[{inode}]" in held:
            rollup = (process / "smaps_rollup").read_text()
            return int(re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[0]) / 1024
    raise LookupError(inode)


def measure(bundles: Path, starts: int) -> Figures:
    """All figures; the ratio is the median of the starts."""
    texts = distinct_texts()
    began = [start(bundles, texts) for _ in range(starts)]
    counts = sorted({1, usable_cores()})
    return {
        "starts": began,
        "ratio": float(np.median([one["ratio"] for one in began])),
        "replicas": [replicas(bundles, texts, count) for count in counts],
    }


def report(figures: Figures) -> str:
    """The figures for a person."""
    lines = [f"{'start':>6}{'ready s':>9}{'first 100, p99 ms':>19}{'steady p99 ms':>15}{'ratio':>7}"]
    for number, one in enumerate(figures["starts"], 1):
        lines.append(
            f"{number:6}{one['ready s']:9.1f}{one['first p99 ms']:19.2f}{one['steady p99 ms']:15.2f}{one['ratio']:7.2f}"
        )
    lines.append(f"median ratio {figures['ratio']:.2f} (bar 1.5)\n")
    for one in figures["replicas"]:
        memory = ", ".join(f"{mb:.0f}" for mb in one["PSS MB"])
        lines.append(f"{one['replicas']} replica(s): {one['searches/s']:.0f} searches/s, PSS {memory} MB")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.bundles, arguments.starts)
    print(json.dumps(figures) if arguments.json else report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
