"""Every relevance figure of BENCHMARKS.md from hashed inputs: `make relevance` writes its tables, `--check` compares.

The shipped catalogue is always measured. Others, which may not be shipped, are where AISLE_TEST_DATA points; without it
their tables stay as they are, and a line says so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.index.analysis import normalize_text
from app.index.bundle import BundleStore, file_digest
from app.index.lexical import LexicalIndex
from app.search.embed import PRODUCT_MODEL, TOKENIZER
from models.relevance import Gain, Qrels, Queries, Run, evaluate, evaluation_table
from scripts.readers import open_catalogue

BUNDLES = Path("build/relevance")
BENCHMARKS = Path("BENCHMARKS.md")
ENCODER = Path("models/weights/MiniLM-L2-distilled-int8")
_GRADED = ("--relevant-at", "2")
_RATED = ("--gain", "linear", "--shift", "1", "--relevant-at", "2.33", "--judged-only")


@dataclass(frozen=True)
class Judged:
    """A catalogue with judgements: files under `folder`, and how its grades are read. `fitted` fits the ranking to the
    judgements, which are then measured out-of-fold."""

    name: str
    folder: Path
    about: str
    reading: Sequence[str]
    mapping: str | None = None
    fitted: bool = False

    def files(self) -> list[Path]:
        names = ["products.jsonl.gz", "dev.queries.tsv", "dev.qrels.tsv", *([self.mapping] if self.mapping else [])]
        return [self.folder / name for name in names]


def sets(data: Path | None) -> Iterator[Judged]:
    """The shipped catalogue, and those of AISLE_TEST_DATA."""
    about = "84 queries, 6,764 products, grades 0 to 3, gain 2^grade − 1, relevant from grade 2; unjudged = 0"
    yield Judged("esci", Path("data/esci"), about, _GRADED, "mapping.toml", fitted=True)
    if data is not None:
        about = "titles, 40 queries, grades 0 to 3; nothing learned from it"
        yield Judged("crowdflower", data / "crowdflower", about, (*_GRADED, "--duplicates", "max"))
        about = (
            "titles, 1,069 queries, raters' mean 1 to 3, linear gain, judged products only; nothing was learned from it"
        )
        yield Judged("homedepot", data / "homedepot", about, (*_RATED, "--duplicates", "max"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="make relevance", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where BENCHMARKS.md holds others")
    parser.add_argument("--only", choices=("esci", "crowdflower", "homedepot", "zh"), help="measure one set")
    parser.add_argument("--latency", action="store_true", help="time the tiers, too: needs a quiet machine")
    arguments = parser.parse_args()
    data = Path(os.environ["AISLE_TEST_DATA"]) if os.environ.get("AISLE_TEST_DATA") else None
    if data is None and arguments.only not in (None, "esci"):
        parser.error(f"--only {arguments.only}: AISLE_TEST_DATA is not set")
    if data is None:
        print("AISLE_TEST_DATA is not set: the shipped catalogue alone is measured", file=sys.stderr)
    written = before = BENCHMARKS.read_text(encoding="utf-8")
    for one in sets(data):
        if arguments.only in (None, one.name):
            written = _replaced(written, one.name, _measured(one, latency=arguments.latency))
    if data is not None and arguments.only in (None, "zh"):
        written = _replaced(written, "zh", _chinese(data / "zh_multicpr250"))
    if arguments.check:
        same = written == before
        print("BENCHMARKS.md holds these figures" if same else "BENCHMARKS.md holds other figures: `make relevance`")
        return 0 if same else 1
    BENCHMARKS.write_text(written, encoding="utf-8")
    return 0


def _measured(one: Judged, *, latency: bool) -> str:
    _build(one)
    queries, qrels = one.folder / "dev.queries.tsv", one.folder / "dev.qrels.tsv"
    place = ["--bundles", str(BUNDLES), "--collection", one.name]
    judged = ["--queries", str(queries), "--qrels", str(qrels), *one.reading]
    ladder = _aisle("ladder", *place, *judged, *([] if latency else ["--no-latency"]))
    tables = [f"{title[0].upper()}{title[1:]}:\n\n{table}" for title, table in ladder["markdown"].items()]
    parts = [f"{one.about}. {_inputs(one.files())}", *tables]
    if one.fitted:
        found = _aisle("evaluate", *place, *judged)["calibration"]
        parts.append(
            f"Calibration of the default over {found['pairs']:,} judged pairs, out-of-fold under five partitions: "
            f"error {found['calibration_error']:.3f}, Brier score {found['brier']:.3f}, skill over the base rate "
            f"{found['brier_skill']:.3f}."
        )
    return "\n\n".join(parts)


def _build(one: Judged) -> None:
    """Unless the folder holds a version of these very files, made by this encoder and code."""
    store = BundleStore(BUNDLES, one.name)
    stamp = BUNDLES / f"{one.name}.inputs.json"
    # All of it: the ranking is fitted through app/search, and to judgements that models/relevance reads.
    code = [path for folder in ("app", "models", "scripts") for path in sorted(Path(folder).rglob("*.py"))]
    weights = {str(path): file_digest(path) for path in sorted(ENCODER.glob("*.*"))}
    products = {path: digest for path, digest in weights.items() if Path(path).name in (PRODUCT_MODEL, TOKENIZER)}
    inputs = {str(path): file_digest(path) for path in (*one.files(), *code)} | weights
    before = json.loads(stamp.read_text()) if store.current() is not None and stamp.exists() else {}
    if before == inputs:
        return
    words = [str(one.folder / "products.jsonl.gz"), "--bundles", str(BUNDLES), "--collection", one.name]
    words += ["--mapping", str(one.folder / one.mapping)] if one.mapping else []
    if one.fitted:
        words += ["--queries", str(one.folder / "dev.queries.tsv"), "--qrels", str(one.folder / "dev.qrels.tsv")]
    if products.items() <= before.items():  # vectors of another product encoder cannot be reused
        words += ["--reuse", "current"]
    words += ["--force", "measured anew"]
    _aisle("build", *words)
    stamp.write_text(json.dumps(inputs, indent=1))


def _aisle(*words: str) -> dict[str, Any]:
    started = time.perf_counter()
    command = [sys.executable, "-m", "scripts.cli", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603  (our own command)
    if done.returncode != 0:
        raise SystemExit(f"aisle {' '.join(words)} failed:\n{done.stderr}")
    print(f"aisle {words[0]} {words[-1]}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _chinese(folder: Path) -> str:
    """The lexical leg alone: MiniLM knows no Chinese."""
    files = [folder / name for name in ("products.jsonl.gz", "dev.queries.tsv", "dev.qrels.tsv")]
    products = sorted(open_catalogue(files[0], None).products(), key=lambda product: product.id)
    titles = [normalize_text(product.text("title")) for product in products]
    index = LexicalIndex.build((title, title) for title in titles)
    ranked = {}
    for query_id, text in Queries.load(files[1]).items():
        hits = index.search(index.parse(normalize_text(text)), 100)
        ranked[query_id] = [products[row].id for row in hits.rows]
    run = Run.from_order(ranked, "lexical")
    found = evaluate(Qrels.load(files[2]), run, metrics=("mrr@10", "recall@100"), gain=Gain(relevant_at=1))
    head = "Chinese titles, 107 queries with one gold title each, the lexical leg alone."
    return f"{head} {_inputs(files)}\n\n{evaluation_table([found]).markdown()}"


def _inputs(files: Sequence[Path]) -> str:
    named = ", ".join(f"{path.name} {file_digest(path)[:12]}" for path in files)
    return f"Inputs (sha256): {named}."


def _replaced(text: str, name: str, body: str) -> str:
    begin, end = f"<!-- relevance {name}: begin -->", f"<!-- relevance {name}: end -->"
    if begin not in text or end not in text:
        raise SystemExit(f"{BENCHMARKS} has no place for {name}: {begin} … {end}")
    return re.sub(rf"{begin}.*?{end}", lambda _: f"{begin}\n\n{body}\n\n{end}", text, flags=re.DOTALL)


if __name__ == "__main__":
    sys.exit(main())
