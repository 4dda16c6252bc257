"""A recipe: everything that decides a training run, in one TOML file. Needs no torch.

name = "lstm"
kind = "lstm"                      # words, lstm or bert
precision = "fp32"                 # of the encoder that comes out: int8, fp32 or fp16

[data]                             # paths are seen from the recipe's folder
catalogue = "../../data/esci/products.jsonl.gz"
queries = "../../data/esci/train_positives.queries.tsv"    # optional, with qrels

[pairs]                            # models.training.data.Sources
[noise]                            # models.training.data.Noise
[network]                          # Network below
[training]                         # Training below
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from app.index.schema import suggestion
from models.training.data import Noise, Sources

Kind = Literal["words", "lstm", "bert"]
Precision = Literal["int8", "fp32", "fp16"]
Part = TypeVar("Part")


class RecipeError(ValueError):
    """A recipe that cannot be followed; the message names the file and the setting."""


@dataclass(frozen=True)
class Data:
    """Where the texts and the judgements are, and from which grade on a pair is one to learn."""

    catalogue: str = ""
    mapping: str = ""
    queries: str = ""
    qrels: str = ""
    relevant_at: float = 2.0
    held_out: float = 0.15  # share of the judged queries that decide when to stop, and are never learnt from


@dataclass(frozen=True)
class Network:
    """The towers. `base` (bert) is a checkpoint folder, or empty for the fetched all-MiniLM-L6-v2, whose own dropout is
    replaced; `dimension` and `hidden` are of the kinds that start from scratch. The first `frozen_layers` of a BERT,
    and with any its embeddings, are not trained."""

    base: str = ""
    dimension: int = 128
    hidden: int = 128
    dropout: float = 0.1
    frozen_layers: int = 0
    max_query_tokens: int = 64
    max_product_tokens: int = 128


@dataclass(frozen=True)
class Training:
    """The optimisation. Times are in minutes of work (a resumed run goes on counting), counts in steps.

    `soup` is the share of the trained weights in what comes out, the rest being the base's (Wortsman et al. 2022;
    1 = trained weights alone); `distillation` weighs 1 - cosine to the base's vectors; `mined` is the number of hard
    negatives a pair, of which the `skip` nearest are left out as likely answers. `patience` counts evaluations.
    """

    epochs: int = 1
    steps: int = 0  # stop here; 0: the epochs decide
    batch: int = 64
    learning_rate: float = 3e-5
    warmup: int = 20
    weight_decay: float = 0.01
    temperature: float = 0.05
    symmetric: bool = True
    duplicate_cosine: float = 0.95
    distillation: float = 0.0
    mined: int = 0
    skip: int = 5
    train_tokens: int = 64
    bfloat16: bool = False
    soup: float = 1.0
    max_minutes: float = 12.0
    evaluate_every: int = 0  # 0: once an epoch
    checkpoint_every: int = 50
    patience: int = 0  # 0: never stop early
    pool: int = 1000  # products among which a held-out query must find its own


@dataclass(frozen=True)
class Recipe:
    """One training run. `folder` is where its paths are seen from and no part of its digest."""

    name: str
    kind: Kind
    precision: Precision = "fp32"
    seed: int = 0
    data: Data = field(default_factory=Data)
    pairs: Sources = field(default_factory=Sources)
    noise: Noise = field(default_factory=Noise)
    network: Network = field(default_factory=Network)
    training: Training = field(default_factory=Training)
    folder: Path = field(default=Path(), compare=False)

    def path(self, name: str) -> Path | None:
        """A path of the recipe, or None where it is not given."""
        return self.folder / name if name else None

    def to_json(self) -> dict[str, Any]:
        """Every setting, defaults too."""
        value = asdict(self)
        del value["folder"]
        return value

    @property
    def digest(self) -> str:
        """sha256 (hex) of every setting that decides the weights: a checkpoint belongs to one recipe. The time limit is
        none of them, so that a run which it ended can be gone on from with a later one."""
        value = self.to_json()
        del value["training"]["max_minutes"]
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def load_recipe(path: Path, **changes: Any) -> Recipe:
    """Read a recipe; `changes` replace top-level settings, such as `seed`. Raises RecipeError or OSError."""
    try:
        value = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    value |= {name: change for name, change in changes.items() if change is not None}
    try:
        parts: dict[str, Any] = {
            "data": _part(Data, value.pop("data", {}), "data"),
            "pairs": _part(Sources, value.pop("pairs", {}), "pairs"),
            "noise": _part(Noise, value.pop("noise", {}), "noise"),
            "network": _part(Network, value.pop("network", {}), "network"),
            "training": _part(Training, value.pop("training", {}), "training"),
        }
        recipe = _part(Recipe, {**value, **parts, "folder": path.parent}, "")
        _check(recipe)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{path}: {error}") from error
    return recipe


def _part(cls: type[Part], value: Mapping[str, Any], table: str) -> Part:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{table} must be a table")
    known = {one.name: one for one in fields(cls)}  # type: ignore[arg-type]  # every Part is a dataclass
    for name, given in value.items():
        where = f"[{table}] {name}" if table else name
        if name not in known:
            raise RecipeError(f"{where} is not known{suggestion(name, known)}")
        expected = str(known[name].type)
        if expected in _PLAIN and not _fits(given, expected):
            raise RecipeError(f"{where} must be {_PLAIN[expected]}, not {given!r}")
    return cls(**{name: float(v) if known[name].type == "float" else v for name, v in value.items()})


_PLAIN = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


def _fits(value: Any, expected: str) -> bool:
    if expected == "bool" or isinstance(value, bool):
        return expected == "bool" and isinstance(value, bool)
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
    return isinstance(value, kinds[expected])


def _check(recipe: Recipe) -> None:
    if recipe.kind not in get_args(Kind):
        raise RecipeError(f"kind must be one of {', '.join(get_args(Kind))}, not {recipe.kind!r}")
    if recipe.precision not in get_args(Precision):
        raise RecipeError(f"precision must be one of {', '.join(get_args(Precision))}, not {recipe.precision!r}")
    if bool(recipe.data.queries) != bool(recipe.data.qrels):
        raise RecipeError("[data] queries and qrels belong together")
    network, training = recipe.network, recipe.training
    positive = {
        "[network] dimension": network.dimension,
        "[network] hidden": network.hidden,
        "[network] max_query_tokens": network.max_query_tokens,
        "[network] max_product_tokens": network.max_product_tokens,
        "[training] epochs": training.epochs,
        "[training] learning_rate": training.learning_rate,
        "[training] temperature": training.temperature,
        "[training] train_tokens": training.train_tokens,
        "[training] max_minutes": training.max_minutes,
        "[training] checkpoint_every": training.checkpoint_every,
        "[training] pool": training.pool,
    }
    for name, value in positive.items():
        if not value > 0:
            raise RecipeError(f"{name} must be above 0, not {value!r}")
    if training.batch < 2:
        raise RecipeError("[training] batch must be at least 2: the other products are the negatives")
    shares = {
        "[training] soup": training.soup,
        "[data] held_out": recipe.data.held_out,
        "[network] dropout": network.dropout,
    }
    for name, value in shares.items():
        if not 0.0 <= value <= 1.0:
            raise RecipeError(f"{name} must lie between 0 and 1, not {value!r}")
    if recipe.kind != "bert" and (training.soup < 1.0 or training.distillation or network.base):
        raise RecipeError(
            f"[training] soup and distillation and [network] base need a base model: {recipe.kind} has none"
        )
