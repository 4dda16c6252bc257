"""aisle distill: a small query encoder from a large one; needs the `train` extra.

Trained on texts of the given catalogues and queries alone. OUT becomes an encoder folder: `encoder.onnx` is the
student, for queries; `product_encoder.onnx` stays the encoder that it was taught to follow.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import models
from app.index.analysis import normalize_text
from app.index.bundle import file_digest
from app.index.product_text import dense_texts
from app.search.embed import DESCRIPTION, MODEL, PRODUCT_MODEL, Encoder
from app.types import Floats
from models.encode import product_vectors
from models.relevance import Queries
from models.smooth import smoothed
from scripts.output import Output
from scripts.readers import open_catalogue
from scripts.train import thread_count

if TYPE_CHECKING:
    from models.distill import Sources

TEACHER = Path(models.__file__).parent / "weights" / "all-MiniLM-L6-v2-int8"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("catalogues", type=Path, nargs="+", help="catalogues to take texts from; a mapping.toml beside")
    parser.add_argument("--teacher", type=Path, required=True, help="checkpoint folder of the encoder to follow")
    parser.add_argument("--student", type=Path, help="checkpoint of an earlier student to go on from")
    parser.add_argument("--out", type=Path, required=True, help="encoder folder to make; OUT.training holds the work")
    parser.add_argument("--queries", type=Path, help="queries to train on, query_id<TAB>text: none that you report on")
    parser.add_argument("--layers", type=int, choices=(1, 2, 3, 4), default=2, help="layers to keep (default: 2)")
    parser.add_argument("--texts", type=int, default=40_000, help="training texts (default: 40,000)")
    parser.add_argument("--epochs", type=int, default=5, help="times over the texts (default: 5)")
    parser.add_argument("--batch", type=int, default=128, help="texts a step (default: 128; more on a GPU)")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate at its highest (default: 5e-4)")
    parser.add_argument(
        "--catalogue-weight",
        type=float,
        default=0.0,
        help="draw a text towards the vector of the product it was taken from, by so much (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of texts and batches (default: 0)")
    parser.add_argument("--threads", type=thread_count, default=1, help="threads of a CPU (default: 1)")
    parser.add_argument("--precision", choices=("int8", "fp32", "fp16"), default="int8", help="default: int8")
    parser.add_argument(
        "--product-encoder",
        type=Path,
        default=TEACHER,
        help="encoder folder exported from the teacher, for the products (default: the shipped one)",
    )


def run(arguments: argparse.Namespace, output: Output) -> int:
    try:
        import torch
        from tokenizers import Tokenizer

        from models.bert import BertEncoder, weights_file
        from models.distill import Recipe, distill, layers_of, training_texts, write_checkpoint
        from models.export import export
        from models.graph import ExportError
    except ImportError as error:
        output.warn(f"distill needs the train extra: pip install 'aisle[cpu,train]' ({error.name} is missing)")
        return 1
    torch.set_num_threads(arguments.threads)
    teacher = BertEncoder.from_checkpoint(arguments.teacher)
    recipe = Recipe(
        layers=layers_of(teacher.config.num_hidden_layers, arguments.layers),
        epochs=arguments.epochs,
        batch=arguments.batch,
        rate=arguments.rate,
        catalogue_weight=arguments.catalogue_weight,
        seed=arguments.seed,
    )
    start = BertEncoder.from_checkpoint(arguments.student) if arguments.student else None
    if start and start.config.num_hidden_layers != arguments.layers:
        raise ValueError(f"{arguments.student} has {start.config.num_hidden_layers} layers, not {arguments.layers}")
    sources, stored = _read(arguments.catalogues, arguments.queries, Encoder(arguments.product_encoder), output)
    texts = training_texts(sources, arguments.texts, arguments.seed)
    tokenizer = Tokenizer.from_file(str(arguments.teacher / "tokenizer.json"))
    work = arguments.out.with_name(f"{arguments.out.name}.training")
    with output.progress("distilling", unit="texts", total=(1 + recipe.epochs) * len(texts)) as tick:
        student, losses = distill(teacher, tokenizer, texts, stored, recipe, work, tick, start)
    write_checkpoint(student, arguments.teacher, work / "checkpoint")
    try:
        report = export(work / "checkpoint", arguments.out, name=arguments.out.name, precision=arguments.precision)
    except ExportError as error:
        output.warn(str(error))
        return 1
    about: dict[str, Any] = {
        "teacher": file_digest(weights_file(arguments.teacher)),
        **asdict(recipe),
        "texts": len(texts),
    }
    if start:
        about["start"] = file_digest(weights_file(arguments.student))
    description = _two_towers(arguments.out, arguments.product_encoder, about)
    output.result({**description, "losses": losses, "size_bytes": report.size_bytes}, f"{report}\nlosses {losses}")
    return 0


def _read(catalogues: Iterable[Path], queries: Path | None, encoder: Encoder, output: Output) -> tuple[Sources, Floats]:
    """Texts normalised as they are when they are searched, and the products' vectors as a build stores them."""
    from models.distill import Sources

    products: list[tuple[str, str]] = []
    stored: list[Floats] = []
    for path in catalogues:
        mapping = path.parent / "mapping.toml"
        reader = open_catalogue(path, mapping if mapping.exists() else None)
        texts = [dense_texts(product, reader.schema) for product in reader.products()]
        with output.progress(f"embedding {path.parent.name}", unit="products", total=len(texts)) as tick:
            stored.append(smoothed(product_vectors(encoder, texts, tick))[0])
        products += texts
    typed = [normalize_text(text) for text in Queries.load(queries).values()] if queries else []
    return Sources(products, typed), np.concatenate(stored)


def _two_towers(out: Path, products: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Adds the teacher's exported encoder for the products, and describes both."""
    shutil.copyfile(products / MODEL, out / PRODUCT_MODEL)
    description: dict[str, Any] = json.loads((out / DESCRIPTION).read_bytes())
    description["sha256"][PRODUCT_MODEL] = file_digest(out / PRODUCT_MODEL)
    description["distilled"] = about
    (out / DESCRIPTION).write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return description
