"""The state of a run on disk, whole or not at all: a kill at any moment leaves the last complete one."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from models.training.recipe import RecipeError


@dataclass(frozen=True)
class Point:
    """One row of the learning curve. `loss` is the mean since the last row; the others are of the held-out queries and
    nan between evaluations. `minutes` is a measurement and no part of what is reproducible."""

    step: int
    loss: float
    recall: float
    mrr: float
    minutes: float


@dataclass
class State:
    """Everything that a resumed run needs: no generator's state, for every draw is made from (seed, step)."""

    step: int = 0
    minutes: float = 0.0
    weights: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    best_score: float = -1.0
    best_step: int = 0
    since_best: int = 0
    losses: list[float] = field(default_factory=list)
    curve: list[Point] = field(default_factory=list)
    mined: Any = None


def save(state: State, path: Path, digest: str) -> None:
    """Writes beside `path` and renames, with both on disk before the old one is given up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    value = {name: getattr(state, name) for name in State.__dataclass_fields__}
    value["curve"] = [asdict(point) for point in state.curve]
    with fresh.open("wb") as file:
        torch.save({"recipe": digest, "state": value}, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def load(path: Path, digest: str) -> State:
    """Raises RecipeError where the checkpoint is of another recipe, OSError where it cannot be read."""
    value = torch.load(path, map_location="cpu", weights_only=True)
    if value["recipe"] != digest:
        raise RecipeError(f"{path} belongs to another recipe: train without --resume, or into another folder")
    state = value["state"]
    state["curve"] = [Point(**point) for point in state["curve"]]
    return State(**state)
