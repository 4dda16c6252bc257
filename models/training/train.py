"""From a recipe and a catalogue to an encoder folder, with its curve and what was done."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer

import models
from app import __version__
from app.index.schema import Schema
from app.types import Product
from models.bert import BertEncoder
from models.fetch_base import BASE, fetch_base
from models.relevance import Qrels, Queries
from models.towers import Towers, lstm_towers, word_towers
from models.training.checkpoint import State
from models.training.curve import write_csv, write_page
from models.training.data import Corpus, Pair, epoch_pairs, hold_out, judged_pairs
from models.training.folder import write_bert, write_towers
from models.training.loop import Outcome, Trainer
from models.training.recipe import Recipe, RecipeError
from models.training.soup import soup
from models.training.vocabulary import prune

WORK = "training"  # beside the encoder's own files: checkpoint, curve, report
_WORDPIECES = Path(models.__file__).parent / "weights" / "all-MiniLM-L6-v2-int8" / "tokenizer.json"
_UNJUDGED_HELD_OUT = 200


@dataclass(frozen=True)
class Trained:
    """What `aisle train` tells: figures as in report.json, and the learning curve."""

    report: dict[str, Any]
    outcome: Outcome


def read_judged(recipe: Recipe, corpus: Corpus) -> tuple[list[Pair], list[Pair]]:
    """(pairs to learn, held-out pairs) of the recipe's judgements; without any, spans of some titles are held out.

    Raises JudgementError, OSError, or RecipeError where no judged product is in the catalogue.
    """
    data = recipe.data
    queries, qrels = recipe.path(data.queries), recipe.path(data.qrels)
    if queries is None or qrels is None:
        spans = epoch_pairs(corpus, [], recipe.pairs, recipe.seed, epoch=1_000_000)  # no epoch that is trained on
        return [], spans[: min(_UNJUDGED_HELD_OUT, len(spans) // 5)]
    pairs = judged_pairs(Queries.load(queries), Qrels.load(qrels, "max"), corpus, data.relevant_at)
    if not pairs:
        raise RecipeError(f"{qrels}: no pair of grade {data.relevant_at:g} or better is of a product in the catalogue")
    return hold_out(pairs, data.held_out, recipe.seed)


def train(
    recipe: Recipe,
    products: Iterable[Product],
    schema: Schema,
    out: Path,
    *,
    device: torch.device | None = None,
    resume: bool = False,
    begin: Callable[[int], None] = lambda _: None,
    on_step: Callable[[State], None] = lambda _: None,
) -> Trained:
    """Train, average, export to `out`, and write checkpoint, curve and report to `out`/training. `begin` is told the
    number of steps. Raises RecipeError, ExportError, OSError, ValueError."""
    corpus = Corpus.of(products, schema)
    judged, held_out = read_judged(recipe, corpus)
    torch.manual_seed(recipe.seed)
    tokenizer, towers, base = _towers(recipe, corpus, judged, out / WORK)
    first = copy.deepcopy(towers.state_dict()) if recipe.training.soup < 1.0 else None
    trainer = Trainer(recipe, towers, tokenizer, corpus, judged, held_out, device=device)
    begin(trainer.steps)
    outcome = trainer.run(out / WORK / "checkpoint.pt", resume=resume, on_step=on_step)
    towers = outcome.towers.cpu()
    if first is not None:
        towers.load_state_dict(soup(first, towers.state_dict(), recipe.training.soup))
    if recipe.kind == "bert":
        encoder = cast(BertEncoder, towers.query)
        description = write_bert(encoder, tokenizer, recipe, base, out / WORK / "checkpoint", out)
    else:
        description = write_towers(towers, tokenizer, recipe, out)
    report = _report(recipe, corpus, judged, held_out, outcome, description)
    write_csv(outcome.curve, out / WORK / "curve.csv")
    facts = {name: str(report[name]) for name in ("kind", "seed", "steps", "best_step", "stopped", "minutes")}
    write_page(outcome.curve, out / WORK / "curve.html", f"Training of {recipe.name}", facts)
    (out / WORK / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return Trained(report, outcome)


def _towers(recipe: Recipe, corpus: Corpus, judged: list[Pair], work: Path) -> tuple[Tokenizer, Towers, dict[str, str]]:
    """Tokenizer, untrained (or base) towers, and what the base is called."""
    network = recipe.network
    if recipe.kind == "bert":
        folder = recipe.path(network.base) or fetch_base(work / "base")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        encoder = _base_encoder(folder, network.dropout, network.frozen_layers)
        stated = folder / "base.json"
        base = (
            json.loads(stated.read_text("utf-8")) if stated.is_file() else {"name": folder.name, "licence": "unknown"}
        )
        return tokenizer, Towers(encoder), base
    texts = (*corpus.titles, *corpus.wholes, *(pair.query for pair in judged))
    tokenizer, old = prune(Tokenizer.from_file(str(_WORDPIECES)), texts)
    if recipe.kind == "words":
        return tokenizer, word_towers(len(old), network.dimension, network.dropout), BASE
    return tokenizer, lstm_towers(len(old), network.dimension, network.hidden, network.dropout), BASE


def _base_encoder(folder: Path, dropout: float, frozen_layers: int) -> BertEncoder:
    encoder = BertEncoder.from_checkpoint(folder)
    layers = cast(torch.nn.ModuleList, encoder.encoder["layer"])
    if not 0 <= frozen_layers <= len(layers):
        raise RecipeError(f"[network] frozen_layers must lie between 0 and {len(layers)}, not {frozen_layers}")
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    if frozen_layers:
        encoder.embeddings.requires_grad_(False)
    for layer in layers[:frozen_layers]:
        layer.requires_grad_(False)
    return encoder


def _report(
    recipe: Recipe,
    corpus: Corpus,
    judged: list[Pair],
    held_out: list[Pair],
    outcome: Outcome,
    description: Mapping[str, Any],
) -> dict[str, Any]:
    measured = [point for point in outcome.curve if point.recall == point.recall]
    best = max(measured, key=lambda point: point.recall + point.mrr, default=None)
    return {
        "name": recipe.name,
        "kind": recipe.kind,
        "aisle": __version__,
        "torch": torch.__version__,
        "seed": recipe.seed,
        "products": len(corpus),
        "judged_pairs": len(judged),
        "held_out_pairs": len(held_out),
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "stopped": outcome.stopped,
        "minutes": round(outcome.minutes, 2),
        "held_out": {
            "untrained_recall@10": measured[0].recall if measured else None,
            "recall@10": best.recall if best else None,
            "mrr@10": best.mrr if best else None,
        },
        "encoder": dict(description),
        "recipe": {**recipe.to_json(), "digest": recipe.digest},
    }
