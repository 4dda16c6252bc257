"""The same products and queries through what people usually write and through txtai's API, beside aisle, in one run.

    python -m tests.bench.bench_peers --bundles bundles [--seconds 6] [--json]

The peers get an environment of their own under build/peers (made here: sentence-transformers, txtai and PyTorch, some
gigabytes), the same model (all-MiniLM-L6-v2, as its authors publish it) and the very texts that aisle embeds. All three
services run for the whole time and are asked in turns, aisle by its default profile, which runs the network, and by
`fast`, which looks vectors up. *p50*: one keep-alive client, no query asked twice; throughput:
sixteen, closed loop, by the generator of `make load` on the same cores; nDCG@10 of the ESCI dev queries through each
API.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from app.index.product_text import dense_texts
from models.relevance import Gain, Qrels, Queries, Run, evaluate
from scripts.readers import open_catalogue
from tests.bench.open_loop import Plan, offer_apart
from tests.bench.queries import distinct_texts
from tests.bench.wire import Client, server

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "build" / "peers"
BASE = ROOT / "build" / "base"
ESCI = ROOT / "data" / "esci"
PACKAGES = ("torch==2.13.*", "sentence-transformers>=5", "txtai[api]>=9", "faiss-cpu>=1.15.1", "fastapi", "uvicorn")
_CLIENTS, _QUERIES, _K = 16, 300, 10
_OURS = ("aisle", "aisle, profile fast")
_GRACE_S = 120.0
_START_S = 1800.0  # embedding the products for the first time
Figures = dict[str, Any]


@dataclass(frozen=True)
class Service:
    """A name, an address, how a search is written, and where the ids are in its answer."""

    name: str
    address: str
    request: Callable[[Client, str], bytes]
    ids: Callable[[bytes], list[str]]


def install() -> Path:
    """The peers' interpreter; their environment is made where it is not there."""
    python = PEERS / "bin" / "python"
    done = PEERS / ".done"
    if not done.exists():
        print(f"installing the peers into {PEERS}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        for packages in (PACKAGES[:1], PACKAGES[1:]):  # PyTorch first, lest another build of it is drawn in
            subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        done.touch()
    if not (BASE / "model.safetensors").exists():
        subprocess.run([sys.executable, "-m", "models.fetch_base", str(BASE)], check=True, cwd=ROOT)
    return python


def products(path: Path) -> None:
    """Ids, titles and the texts that aisle embeds, one JSON object a line."""
    reader = open_catalogue(ESCI / "products.jsonl.gz", ESCI / "mapping.toml")
    rows = [
        {"id": one.id, "title": str(one.fields["title"]), "text": dense_texts(one, reader.schema)[1]}
        for one in reader.products()
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")


@contextmanager
def running(command: list[str], port: int, more: dict[str, str]) -> Iterator[str]:
    """A peer's server, from when it listens; stopped by its process."""
    process = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1", **more}, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[1]} does not listen, exit code {process.poll()}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _post(client: Client, text: str) -> bytes:
    return client.request("/v1/search", {"query": text, "k": _K})


def _post_fast(client: Client, text: str) -> bytes:
    return client.request("/v1/search", {"query": text, "k": _K, "profile": "fast"})


def _get(client: Client, text: str) -> bytes:
    return f"GET /search?query={quote(text)}&limit={_K} HTTP/1.1\r\nhost: {client._host}\r\n\r\n".encode()


def _hit_ids(body: bytes) -> list[str]:
    return [hit["id"] for hit in json.loads(body)["hits"]]


def _row_ids(body: bytes) -> list[str]:
    return [row["id"] for row in json.loads(body)]


_INDEX = """
import json, sys
from txtai import Embeddings
base, rows, out = sys.argv[1:]
texts = [json.loads(line) for line in open(rows, encoding="utf-8")]
embeddings = Embeddings({"path": base, "content": True})
embeddings.index([(one["id"], one["text"], None) for one in texts])
embeddings.save(out)
"""


def txtai_index(python: Path) -> Path:
    """txtai's index of the products, made once and kept: its network takes minutes for them."""
    index = PEERS / "txtai-index"
    if not (index / "config").exists() and not (index / "config.json").exists():
        print("txtai embeds the products, some minutes", file=sys.stderr)
        command = [str(python), "-c", _INDEX, str(BASE), str(PEERS / "products.jsonl"), str(index)]
        subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return index


def latencies(service: Service, texts: Iterator[str], count: int) -> list[float]:
    """Milliseconds of so many searches, one after the other."""
    client, spent = Client(service.address), []
    for text in islice(texts, count):
        request = service.request(client, text)
        started = perf_counter()
        client.exchange(request)
        spent.append((perf_counter() - started) * 1e3)
    client.close()
    return spent


def throughput(service: Service, texts: Iterator[str], seconds: float) -> float:
    """Answers a second to sixteen clients that ask as soon as they are answered: all is due at once, and a connection
    has one request under way. First a few, to know how many will do for so long. Raises RuntimeError for a refusal."""
    client, parts = Client(service.address), urlsplit(service.address)
    greeting = service.request(client, next(texts))

    def rate(count: int) -> float:
        requests = [service.request(client, text) for text in islice(texts, count)]
        due = np.zeros(count)
        plan = Plan(parts.hostname or "", parts.port or 0, requests, due, greeting, _CLIENTS, grace_s=_GRACE_S)
        outcome = offer_apart(plan)
        if outcome.answered < 1.0:
            raise RuntimeError(f"{service.name}: {outcome.statuses}")
        return outcome.rate

    found = rate(round(seconds * rate(_CLIENTS * 8)))
    client.close()
    return found


def relevance(service: Service) -> float:
    """nDCG@10 of the ESCI dev queries."""
    qrels, client = Qrels.load(ESCI / "dev.qrels.tsv"), Client(service.address)
    ranked = {}
    for query_id, text in Queries.load(ESCI / "dev.queries.tsv").items():
        if query_id in qrels:
            ids = service.ids(client.exchange(service.request(client, text))[1])
            ranked[query_id] = [(product, -float(place)) for place, product in enumerate(ids)]
    client.close()
    found = evaluate(qrels, Run(ranked, service.name), ("ndcg@10",), gain=Gain("exp", 0.0, 2.0))
    return float(np.mean(found.values["ndcg@10"]))


def measure(bundles: Path, seconds: float) -> Figures:
    """Figures by service."""
    python = install()
    products(PEERS / "products.jsonl")
    config = PEERS / "txtai.yml"
    kept = f"path: {txtai_index(python)}\nwritable: false\n"
    config.write_text(f"{kept}embeddings:\n  path: {BASE}\n", "utf-8")  # without that member it has no /search
    texts = distinct_texts()
    with ExitStack() as stack:
        ours = stack.enter_context(server("scripts.cli", "serve", "--bundles", str(bundles), "--port", "0"))
        port = free_port()
        script = str(ROOT / "tests" / "bench" / "plain_peer.py")
        command = [str(python), script, str(BASE), str(PEERS / "products.jsonl"), str(port)]
        plain = stack.enter_context(running(command, port, {}))
        port = free_port()
        command = [str(python), "-m", "uvicorn", "txtai.api:app", "--port", str(port), "--log-level", "warning"]
        txtai = stack.enter_context(running(command, port, {"CONFIG": str(config)}))
        services = [
            Service(_OURS[0], ours, _post, _hit_ids),
            Service(_OURS[1], ours, _post_fast, _hit_ids),
            Service("FastAPI + sentence-transformers + FAISS", plain, _post, _hit_ids),
            Service("txtai", txtai, _get, _row_ids),
        ]
        spent: dict[str, list[float]] = {one.name: [] for one in services}
        for one in services:
            latencies(one, texts, 30)
        for _ in range(_QUERIES // 20):
            for one in services:
                spent[one.name] += latencies(one, texts, 20)
        return {
            one.name: {
                "p50 ms": float(np.median(spent[one.name])),
                "p99 ms": float(np.percentile(spent[one.name], 99)),
                "searches/s": throughput(one, texts, seconds),
                "nDCG@10": relevance(one),
            }
            for one in services
        }


def report(figures: Figures) -> str:
    """The figures for a person, and aisle's ratio to each peer."""
    lines = [f"{'service':42}{'p50 ms':>8}{'p99 ms':>8}{'searches/s':>12}{'nDCG@10':>9}"]
    for name, one in figures.items():
        lines.append(f"{name:42}{one['p50 ms']:8.2f}{one['p99 ms']:8.2f}{one['searches/s']:12.0f}{one['nDCG@10']:9.3f}")
    for name, peer in figures.items():
        for our_name in _OURS if name not in _OURS else ():
            ours = figures[our_name]
            quicker, more = peer["p50 ms"] / ours["p50 ms"], ours["searches/s"] / peer["searches/s"]
            lines.append(
                f"{our_name} beside {name}: p50 {quicker:.1f} times lower (bar 8), throughput {more:.1f} × (bar 15)"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.bundles, arguments.seconds)
    print(json.dumps(figures) if arguments.json else report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
