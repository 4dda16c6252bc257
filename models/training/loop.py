"""The training loop: the same for every kind of encoder, on a CPU or CUDA, resumable to the bit.

A step's batch, noise and dropout are drawn from (seed, step) alone and one thread adds up in one order, so a run that
was killed and resumed ends with the weights of one that was not (on one CPU thread; CUDA kernels and several threads
add in any order).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from models.towers import Towers
from models.training.checkpoint import Point, State, load, save
from models.training.data import Corpus, Pair, batch_texts, epoch_pairs, same_products
from models.training.encode import Texts, encode, vectors
from models.training.held_out import HeldOut
from models.training.losses import embedding_distillation, in_batch_softmax
from models.training.mining import hard_negatives
from models.training.recipe import Recipe

_CLIP = 1.0
_LEAST_RATE = 0.05  # of the learning rate, at the end of its linear descent


@dataclass(frozen=True)
class Outcome:
    """The trained towers (the best of the held-out evaluations where there were any) and how they got there."""

    towers: Towers
    steps: int
    best_step: int
    stopped: str  # "done", "early" or "time"
    minutes: float
    curve: tuple[Point, ...]


class Trainer:
    """One run of one recipe. `judged` are the pairs to learn, `held_out` those to stop by."""

    def __init__(
        self,
        recipe: Recipe,
        towers: Towers,
        tokenizer: Tokenizer,
        corpus: Corpus,
        judged: Sequence[Pair],
        held_out: Sequence[Pair],
        *,
        device: torch.device | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recipe, self._settings = recipe, recipe.training
        self._device = device or torch.device("cpu")
        self._towers = towers.to(self._device).train()
        self._base = copy.deepcopy(towers).eval().requires_grad_(False) if self._settings.distillation else None
        self._corpus, self._judged = corpus, tuple(judged)
        self._query_texts = Texts(tokenizer, min(recipe.network.max_query_tokens, self._settings.train_tokens))
        self._product_texts = Texts(tokenizer, min(recipe.network.max_product_tokens, self._settings.train_tokens))
        self._held_out = HeldOut.of(held_out, corpus, self._settings.pool, recipe.seed)
        answers: dict[str, set[int]] = {}
        for pair in (*judged, *held_out):
            answers.setdefault(pair.query, set()).add(pair.row)
        self._answers = {query: frozenset(rows) for query, rows in answers.items()}
        trained = [weight for weight in self._towers.parameters() if weight.requires_grad]
        self._trained = trained
        self._optimizer = torch.optim.AdamW(
            trained, lr=self._settings.learning_rate, weight_decay=self._settings.weight_decay
        )
        self._clock = clock
        self._epoch: tuple[int, list[Pair]] = (-1, [])
        pairs = len(self._pairs(0))
        if pairs < 2:
            raise ValueError(f"{pairs} pair(s) to learn from: nothing to tell apart")
        self._per_epoch = max(1, pairs // self._settings.batch)
        self.steps = self._settings.steps or self._settings.epochs * self._per_epoch
        self._evaluate_every = self._settings.evaluate_every or self._per_epoch

    def run(
        self, checkpoint: Path, *, resume: bool = False, on_step: Callable[[State], None] = lambda _: None
    ) -> Outcome:
        """Train to the end, to `max_minutes` or until the held-out queries stop getting better. `on_step` is called
        after every step. Raises RecipeError where `checkpoint` is of another recipe, OSError where it cannot be
        written."""
        state = self._restored(checkpoint) if resume and checkpoint.exists() else self._begun()
        begun = self._clock() - 60 * state.minutes
        stopped = "done"
        while state.step < self.steps:
            if 0 < self._settings.patience <= state.since_best:
                stopped = "early"
                break
            if state.minutes >= self._settings.max_minutes:
                stopped = "time"
                break
            if self._settings.mined and state.step % self._per_epoch == 0:
                state.mined = self._mined(state.step)
            state.losses.append(self._step(state.step, state.mined))
            state.step += 1
            state.minutes = (self._clock() - begun) / 60
            if state.step % self._evaluate_every == 0 or state.step == self.steps:
                self._evaluated(state)
            on_step(state)
            if state.step % self._settings.checkpoint_every == 0:
                self._saved(state, checkpoint)
        if state.losses:
            self._evaluated(state)
        self._saved(state, checkpoint)
        if state.best:
            self._towers.load_state_dict(state.best)
        best_step = state.best_step if state.best else state.step
        self._towers.eval()
        return Outcome(self._towers, state.step, best_step, stopped, state.minutes, tuple(state.curve))

    def _step(self, step: int, mined: Tensor | None) -> float:
        """One update; returns the loss. Raises ValueError when the loss is no number any more."""
        settings, seed = self._settings, self._recipe.seed
        pairs = self._batch(step)
        queries, products = batch_texts(pairs, self._corpus, self._recipe.noise, seed, step)
        torch.manual_seed((seed << 32) + step)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate(step, self.steps, settings.warmup)
        q = self._encoded(self._towers.query, self._query_texts, queries)
        p = self._encoded(self._towers.product, self._product_texts, products)
        negatives = None
        if mined is not None:
            first = step % self._per_epoch * settings.batch
            rows = mined[first : first + len(pairs)].flatten().tolist()
            titles = [self._corpus.titles[row] for row in rows]
            negatives = self._encoded(self._towers.product, self._product_texts, titles)
        known = torch.from_numpy(same_products(pairs, self._answers, self._corpus.titles)).to(self._device)
        loss = in_batch_softmax(
            q,
            p,
            known,
            temperature=settings.temperature,
            negatives=negatives,
            symmetric=settings.symmetric,
            duplicate_cosine=settings.duplicate_cosine,
        )
        if self._base is not None:
            with torch.no_grad():
                base_q = self._encoded(self._base.query, self._query_texts, queries)
                base_p = self._encoded(self._base.product, self._product_texts, products)
            kept = embedding_distillation(q, base_q) + embedding_distillation(p, base_p)
            loss = loss + settings.distillation * kept
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(f"step {step}: the loss is {value}; try a lower learning rate")
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._trained, _CLIP)
        self._optimizer.step()
        return value

    def _encoded(self, model: torch.nn.Module, texts: Texts, batch: Sequence[str]) -> Tensor:
        return encode(model, texts, batch, self._device, bfloat16=self._settings.bfloat16)

    def _pairs(self, epoch: int) -> list[Pair]:
        if self._epoch[0] != epoch:
            recipe = self._recipe
            self._epoch = (epoch, epoch_pairs(self._corpus, self._judged, recipe.pairs, recipe.seed, epoch))
        return self._epoch[1]

    def _batch(self, step: int) -> list[Pair]:
        epoch, place = divmod(step, self._per_epoch)
        first = place * self._settings.batch
        return self._pairs(epoch)[first : first + self._settings.batch]

    def _mined(self, step: int) -> Tensor:
        """[pairs of the epoch, mined] rows, hard for the weights at the epoch's beginning."""
        pairs = self._pairs(step // self._per_epoch)
        bfloat16 = self._settings.bfloat16
        queries = vectors(
            self._towers.query, self._query_texts, [p.query for p in pairs], self._device, bfloat16=bfloat16
        )
        titles = vectors(
            self._towers.product, self._product_texts, self._corpus.titles, self._device, bfloat16=bfloat16
        )
        rows = hard_negatives(
            queries,
            titles,
            [self._answers.get(pair.query, frozenset()) | {pair.row} for pair in pairs],
            count=self._settings.mined,
            skip=self._settings.skip,
            seed=self._recipe.seed + step,
        )
        return torch.from_numpy(rows)

    def _evaluated(self, state: State) -> None:
        """Adds a point to the curve, and keeps the weights if they are the best so far. The first of equals is kept."""
        loss = float(np.mean(state.losses))
        state.losses = []
        if not self._held_out.queries:
            state.curve.append(Point(state.step, loss, math.nan, math.nan, state.minutes))
            return
        recall, mrr = self.held_out_scores()
        state.curve.append(Point(state.step, loss, recall, mrr, state.minutes))
        if recall + mrr > state.best_score:
            state.best_score, state.best_step, state.since_best = recall + mrr, state.step, 0
            state.best = copy.deepcopy(_cpu(self._towers.state_dict()))
        else:
            state.since_best += 1

    def held_out_scores(self) -> tuple[float, float]:
        """(recall@10, MRR@10) of the held-out queries over the titles of their pool, with the present weights."""
        held, bfloat16 = self._held_out, self._settings.bfloat16
        titles = [self._corpus.titles[row] for row in held.rows]
        queries = vectors(self._towers.query, self._query_texts, held.queries, self._device, bfloat16=bfloat16)
        products = vectors(self._towers.product, self._product_texts, titles, self._device, bfloat16=bfloat16)
        return held.recall_and_mrr(queries, products)

    def _begun(self) -> State:
        state = State()
        if self._held_out.queries:
            recall, mrr = self.held_out_scores()
            state.curve.append(Point(0, math.nan, recall, mrr, 0.0))
        return state

    def _restored(self, checkpoint: Path) -> State:
        state = load(checkpoint, self._recipe.digest)
        self._towers.load_state_dict(state.weights)
        self._optimizer.load_state_dict(state.optimizer)
        return state

    def _saved(self, state: State, checkpoint: Path) -> None:
        state.weights, state.optimizer = _cpu(self._towers.state_dict()), self._optimizer.state_dict()
        save(state, checkpoint, self._recipe.digest)


def rate(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate at a step: up over `warmup` steps, then down in a line to 5 % at the last."""
    up = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return up * max(_LEAST_RATE, 1.0 - step / max(1, steps))


def _cpu(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in weights.items()}
