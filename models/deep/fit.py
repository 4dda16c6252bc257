"""Training and scoring, every query by a model that did not learn from it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from models.bert import BertEncoder
from models.deep.lists import DEPTH, List, Scores, Work
from models.deep.networks import CrossEncoder, LateInteraction, Model, padded
from models.relevance import query_folds

QUERY_TOKENS, PRODUCT_TOKENS = 24, 96
_LIST = 16  # products a training list
_LISTS_A_STEP = 8
_SPANS = 8_000
_EPOCHS = 3
_RATE = 4e-5
_SEED = 0


@dataclass(frozen=True)
class Task:
    """One training list: a query, products, and what each is worth (Σ > 0)."""

    query: str
    rows: list[int]
    gains: list[float]


class Tokens:
    """Ids of queries and of products, made once."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(PRODUCT_TOKENS)
        self.products = [one.ids for one in tokenizer.encode_batch(list(texts))]
        self._tokenizer = tokenizer

    def query(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids if len(ids) <= QUERY_TOKENS else [*ids[: QUERY_TOKENS - 1], ids[-1]]


MODELS: dict[str, tuple[Callable[[BertEncoder], Model], bool]] = {
    "cross-encoder": (CrossEncoder, True),
    "cross-encoder, judgements alone": (CrossEncoder, False),
    "late interaction": (lambda trunk: LateInteraction(trunk, 64), True),
    "late interaction, untrained": (lambda trunk: LateInteraction(trunk, 0), False),
}
"""By name: how it is made, and whether spans of titles are learnt before the judgements."""
UNTRAINED = "late interaction, untrained"


def scored(
    work: Work, stored: Scores, base: Path, name: str, device: torch.device, tell: Callable[[str], None]
) -> Scores:
    """[lists that are measured, DEPTH]: what a model makes of each list; of a dev list the model whose fold left it
    out, of another shop's the one that learnt from all of dev. Places beyond a list's end are NaN."""
    tokens = Tokens(Tokenizer.from_file(str(base / "tokenizer.json")), work.texts)
    measured = work.measured
    rows = np.full((len(measured), DEPTH), np.nan, dtype=np.float32)
    torch.manual_seed(_SEED)
    make, pretrained = MODELS[name]
    model = make(BertEncoder.from_checkpoint(base)).to(device)
    if name == UNTRAINED:
        _score(model, measured, tokens, rows, {one.query_id for one in measured})
        return rows
    if pretrained:
        _fit(model, list(_spans(work, stored)), tokens, 1, tell, f"{name}: spans")
    dev = {one.query_id: one.text for one in work.lists if one.part == "dev"}
    others = {one.query_id for one in measured if one.part != "dev"}
    parts = [(set(fold.train), set(fold.test)) for fold in query_folds(dev, 5, _SEED)]
    for number, (learnt, test) in enumerate([*parts, (set(dev), others)]):
        tuned = copy.deepcopy(model)
        tasks = [*_judged(work, "train"), *_judged(work, "dev", learnt)]
        _fit(tuned, tasks, tokens, _EPOCHS, tell, f"{name}: {number}")
        _score(tuned, measured, tokens, rows, test)
    return rows


def _fit(
    model: Model, tasks: Sequence[Task], tokens: Tokens, epochs: int, tell: Callable[[str], None], name: str
) -> None:
    """Listwise cross-entropy towards the gains (ListNet, Cao et al. 2007)."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.01)
    steps, done, losses = epochs * (len(tasks) // _LISTS_A_STEP), 0, []
    device = next(model.parameters()).device
    for epoch in range(epochs):
        order = np.random.default_rng((_SEED, epoch)).permutation(len(tasks))
        for start in range(0, len(order) - _LISTS_A_STEP + 1, _LISTS_A_STEP):
            batch = [tasks[at] for at in order[start : start + _LISTS_A_STEP]]
            with torch.autocast(device.type, dtype=torch.bfloat16):
                scores = _batch_scores(model, batch, tokens)
            wanted = torch.tensor([task.gains for task in batch], device=device)
            wanted = wanted / wanted.sum(dim=1, keepdim=True)
            loss = -(wanted * functional.log_softmax(scores.float(), dim=1)).sum(dim=1).mean()
            for group in optimizer.param_groups:
                group["lr"] = _RATE * min((done + 1) / 50, max(0.05, 1 - done / steps))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            done += 1
    model.eval()
    tell(f"{name}: {done} steps, loss {np.mean(losses[:20]):.3f} to {np.mean(losses[-20:]):.3f}")


def _batch_scores(model: Model, batch: Sequence[Task], tokens: Tokens) -> Tensor:
    """[lists, products]; all lists of one length."""
    if isinstance(model, CrossEncoder):
        pairs = [tokens.query(task.query) + tokens.products[row][1:] for task in batch for row in task.rows]
        flat: Tensor = model(*padded(pairs, model.head.weight.device))
        return flat.view(len(batch), -1)
    return model.meet(
        [tokens.query(task.query) for task in batch], [tokens.products[row] for task in batch for row in task.rows]
    )


def _score(model: Model, lists: Sequence[List], tokens: Tokens, rows: Scores, wanted: set[str]) -> None:
    model.eval()
    with torch.inference_mode():
        for at, one in enumerate(lists):
            if one.query_id in wanted:
                scores = _batch_scores(model, [Task(one.text, one.rows, [])], tokens)
                rows[at, : len(one.rows)] = scores[0].float().cpu().numpy()


def _spans(work: Work, stored: Scores) -> Iterator[Task]:
    """Words that stand together in a title, the title's product, near ones and any ones; the words are taken out of
    the title in half of them, so that more than the same words must be seen."""
    random = np.random.default_rng(_SEED)
    directions = stored / np.maximum(np.linalg.norm(stored, axis=1, keepdims=True), 1e-9)
    for _ in range(_SPANS):
        own = int(random.integers(work.own))
        words = work.titles[own].split()
        count = min(int(random.integers(2, 6)), len(words))
        if not count:
            continue
        start = int(random.integers(0, len(words) - count + 1))
        near = np.argpartition(-(directions[: work.own] @ directions[own]), 120)[:120]
        near = near[near != own]
        others = [*random.choice(near, 9, replace=False), *random.integers(0, work.own, 6)]
        yield Task(" ".join(words[start : start + count]), [own, *map(int, others)], [1.0] + [0.0] * 15)


def _judged(work: Work, part: str, only: set[str] | None = None) -> Iterator[Task]:
    """Lists of `_LIST` products: of the judged ones as many as fit, the others from far down the ranking and from
    anywhere. Products near the top that nobody judged are no negatives."""
    random = np.random.default_rng(_SEED)
    for one in work.lists:
        if one.part != part or (only is not None and one.query_id not in only):
            continue
        grades = dict(one.judged)
        for _ in range(4 if len(grades) > _LIST else 1):
            judged = list(grades)
            random.shuffle(judged)
            taken = judged[: _LIST - 3]
            far = [row for row in one.rows[40:] if row not in grades]
            count = min(len(far), (_LIST - len(taken)) // 2)
            taken += [int(row) for row in random.choice(far, count, replace=False)] if count else []
            taken += [int(row) for row in random.integers(0, work.own, _LIST - len(taken))]
            gains = [2.0 ** grades.get(row, 0.0) - 1.0 for row in taken]
            if sum(gains):
                yield Task(one.text, taken, gains)
