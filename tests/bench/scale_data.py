"""The catalogue that the scale figures are measured on: 818,775 packaged foods with seeded fields to filter by.

    AISLE_TEST_DATA=DIR python -m tests.bench.scale_data [--out build/scale-data] [--rows N]

writes `products.jsonl.gz` and `mapping.toml`. The names and ingredients are real (Open Food Facts 2019, ODbL 1.0: to
measure with, not to ship). They have no field to filter by, so `bucket` and `aisle` are **seeded, not real**: drawn
from a generator with a fixed seed, independent of the product. `bucket < n` lets n rows in ten thousand through, which
gives every selectivity from 100 % down to 0.01 %.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
from pathlib import Path

import numpy as np
import orjson

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "scale-data"
BUCKETS = 10_000
_AISLES = 24
_SEED = 20_191
_MAPPING = """\
# The fields `bucket` and `aisle` are seeded, not real: see tests/bench/scale_data.py.
[catalogue]
title = "Packaged foods, for scale tests"
attribution = "Open Food Facts contributors, ODbL 1.0"

[fields]
id = "id"
title = {type = "text"}
description = {type = "text"}
image = {type = "text"}
bucket = {type = "number"}
aisle = {type = "keyword"}
"""


def write(source: Path, folder: Path, rows: int | None = None) -> int:
    """Write the catalogue and its mapping, at most `rows` products evenly spaced; gives how many there are."""
    lines = gzip.decompress(source.read_bytes()).splitlines()
    random = np.random.default_rng(_SEED)
    buckets, aisles = random.integers(0, BUCKETS, len(lines)), random.integers(0, _AISLES, len(lines))
    step = 1 if rows is None else max(1, len(lines) // rows)
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    with gzip.open(folder / "products.jsonl.gz", "wb", compresslevel=3) as out:
        for at in range(0, len(lines), step):
            product = {**orjson.loads(lines[at]), "bucket": int(buckets[at]), "aisle": f"aisle {aisles[at]:02d}"}
            out.write(orjson.dumps(product, option=orjson.OPT_APPEND_NEWLINE))
            written += 1
    (folder / "mapping.toml").write_text(_MAPPING, encoding="utf-8")
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AISLE_TEST_DATA"), help="or AISLE_TEST_DATA")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--rows", type=int, help="a smaller catalogue, evenly spaced (default: all)")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("needs AISLE_TEST_DATA, a folder of larger catalogues")
    count = write(arguments.data / "foods" / "products.jsonl.gz", arguments.out, arguments.rows)
    print(f"{count:,} products in {arguments.out}; the fields bucket and aisle are seeded, not real")
    return 0


if __name__ == "__main__":
    sys.exit(main())
