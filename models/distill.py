"""A small query encoder that gives a large one's vectors: some of the teacher's layers, trained on many short texts.

    short texts → teacher's vectors, once → student = embeddings + chosen layers → train → checkpoint

Initialising from the teacher's own layers follows DistilBERT (Sanh et al. 2019), regressing its sentence vectors
Reimers and Gurevych 2020, and matching the distribution over products RKD (Park et al. 2019) and SEED (Fang et al.
2021). Products keep the teacher's vectors: only queries are encoded by the student. A text that was taken from a
product may be drawn towards that product's stored vector besides: what the text stands for, averaged over the products
that say it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from app.types import Floats
from models.bert import BertEncoder

MAX_TOKENS = 32  # of a training text; a query is shorter
STATE = "training.pt"
VECTORS = "teacher.npy"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TITLE_WORDS = 12  # longer texts cost more and are seldom typed
_TEMPERATURE = 0.05
_PRODUCTS = 1024  # drawn anew for each batch
_ENCODED_AT_ONCE = 128
_NOBODY = -1
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the student besides teacher and texts."""

    layers: tuple[int, ...] = (0, 5)
    epochs: int = 5
    batch: int = 128
    rate: float = 5e-4
    warm_up: float = 0.05
    similarity_weight: float = 1.0
    catalogue_weight: float = 0.0
    """Of the stored vector of the product that a text was taken from, beside the teacher's vector of the text."""
    seed: int = 0


@dataclass(frozen=True)
class Sources:
    """Where training texts come from: products as (title, whole text), and queries that people typed."""

    products: Sequence[tuple[str, str]]
    queries: Sequence[str] = ()


@dataclass(frozen=True)
class Texts:
    """What a student is trained on: different texts, and the position of the product that each was taken from (-1:
    from none)."""

    texts: tuple[str, ...]
    owners: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)


def layers_of(teacher: int, count: int) -> tuple[int, ...]:
    """`count` of the teacher's layers, evenly spaced, first and last among them (the last alone for one)."""
    if not 1 <= count <= teacher:
        raise ValueError(f"{count} layers of a teacher that has {teacher}")
    return tuple(int(layer) for layer in np.linspace(0, teacher - 1, count).round()) if count > 1 else (teacher - 1,)


def training_texts(sources: Sources, count: int, seed: int) -> Texts:
    """`count` different short texts: two to six words that stand together in titles or prose, beginnings of titles,
    queries, and some of all these with a slip of the finger. The same ones for the same seed."""
    random = np.random.default_rng(seed)
    titles = [(title, row) for row, (title, _) in enumerate(sources.products) if title]
    prose = [
        (rest, row)
        for row, (title, whole) in enumerate(sources.products)
        if (rest := whole.removeprefix(title).strip())
    ]
    owners = dict.fromkeys(sources.queries, _NOBODY)
    for title, row in titles:
        owners.setdefault(" ".join(title.split()[:_TITLE_WORDS]), row)
    owners = dict(list(owners.items())[: count // 8])
    pools = [pool for pool in (titles, titles, titles, prose) if pool]
    for _ in range(20 * count):  # bounded: a small catalogue may not have so many
        if len(owners) >= count:
            break
        pool = pools[int(random.integers(len(pools)))]
        text, owner = pool[int(random.integers(len(pool)))]
        text = _span(text, random)
        if len(sources.queries) and random.random() < 0.05:
            text, owner = sources.queries[int(random.integers(len(sources.queries)))], _NOBODY
        owners.setdefault(_slip(text, random) if random.random() < 0.15 else text, owner)
    owners.pop("", None)
    return Texts(tuple(owners), tuple(owners.values()))


def _span(text: str, random: np.random.Generator) -> str:
    words = text.split()
    length = min(int(random.integers(1, 7)), len(words))
    start = int(random.integers(0, len(words) - length + 1))
    return " ".join(words[start : start + length])


def _slip(text: str, random: np.random.Generator) -> str:
    """One letter left out, doubled, replaced or swapped with its neighbour."""
    if len(text) < 4:
        return text
    at = int(random.integers(1, len(text) - 1))
    letter = _LETTERS[int(random.integers(len(_LETTERS)))]
    forms = (
        text[:at] + text[at + 1 :],
        text[:at] + text[at] + text[at:],
        text[:at] + letter + text[at + 1 :],
        text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :],
    )
    return forms[int(random.integers(len(forms)))]


def student_of(teacher: BertEncoder, layers: Sequence[int]) -> BertEncoder:
    """A new encoder with the teacher's embeddings and these of its layers."""
    student = BertEncoder(replace(teacher.config, num_hidden_layers=len(layers)))
    student.embeddings.load_state_dict(teacher.embeddings.state_dict())
    ours, theirs = cast(nn.ModuleList, student.encoder["layer"]), cast(nn.ModuleList, teacher.encoder["layer"])
    for layer, source in zip(ours, layers, strict=True):
        layer.load_state_dict(theirs[source].state_dict())
    student.eval()  # no dropout: the target is a function, not a label to be kept from being learnt by heart
    return student


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text with the marks, cut at `MAX_TOKENS`."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def encode(model: BertEncoder, ids: Sequence[Sequence[int]], progress: Progress = lambda _: None) -> Tensor:
    """Unit vectors [texts, hidden] on the CPU, texts of like length together."""
    device = next(model.parameters()).device
    vectors = torch.empty(len(ids), model.config.hidden_size)
    order = sorted(range(len(ids)), key=lambda text: len(ids[text]))
    with torch.inference_mode(), _fast(device):
        for start in range(0, len(order), _ENCODED_AT_ONCE):
            chunk = order[start : start + _ENCODED_AT_ONCE]
            vectors[chunk] = model(*_padded([ids[text] for text in chunk], device)).float().cpu()
            progress(len(chunk))
    return nn.functional.normalize(vectors, dim=1)


def distill(
    teacher: BertEncoder,
    tokenizer: Tokenizer,
    texts: Texts,
    stored: Floats,
    recipe: Recipe,
    work: Path,
    progress: Progress = lambda _: None,
    start: BertEncoder | None = None,
) -> tuple[BertEncoder, list[float]]:
    """The trained student (on the CPU) and the mean loss of each epoch. `stored` [products, hidden] are the products'
    vectors as an index holds them, in the order that the texts' owners name. The student begins as `start`, an earlier
    one, or else as the teacher's layers; `progress` is told of texts done, first by the teacher, then `epochs` times by
    the student.

    `work` keeps the teacher's vectors and, after each epoch, the state of training: the same call goes on where a
    killed one stopped. Raises ValueError where the folder holds the work of another recipe, teacher or text list."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    work.mkdir(parents=True, exist_ok=True)
    ids = token_ids(tokenizer, texts.texts)
    _claim(work, [teacher, *([start] if start else [])], ids, texts.owners, stored, recipe)
    targets = _targets(teacher.to(device), ids, work, progress)
    if recipe.catalogue_weight:
        targets = _drawn(targets, texts.owners, torch.from_numpy(stored), recipe.catalogue_weight)
    products = torch.from_numpy(stored).to(device)
    student = (start or student_of(teacher.cpu(), recipe.layers)).to(device)
    training = _Training(student, recipe, -(-len(ids) // recipe.batch))
    losses = training.resume(work)
    progress(len(losses) * len(ids))
    for epoch in range(len(losses), recipe.epochs):
        total, random = 0.0, np.random.default_rng((recipe.seed, epoch, 1))
        for batch in _batches(ids, recipe, epoch):
            with _fast(device):
                given = student(*_padded([ids[text] for text in batch], device))
            wanted = targets[batch].to(device)
            some = random.choice(len(products), min(_PRODUCTS, len(products)), replace=False)
            loss = distillation_loss(given.float(), wanted, products[some], recipe.similarity_weight)
            training.step(loss)
            total += float(loss.detach()) * len(batch)
            progress(len(batch))
        losses.append(total / len(ids))
        training.keep(work, losses)
    return student.cpu(), losses


def _drawn(targets: Tensor, owners: Sequence[int], stored: Tensor, weight: float) -> Tensor:
    """Each target and `weight` times the direction of its product's vector, at unit length."""
    own = torch.tensor(owners)
    taken = own != _NOBODY
    drawn = targets.clone()
    drawn[taken] += weight * nn.functional.normalize(stored[own[taken]], dim=1)
    return nn.functional.normalize(drawn, dim=1)


class _Training:
    """Adam (Kingma and Ba 2015) over the student, its state, and how both are kept.

    A step updates only those rows of the word embeddings that its batch uses: the table is two thirds of the student,
    and going over all of it would take as long as the network itself."""

    def __init__(self, student: BertEncoder, recipe: Recipe, steps_an_epoch: int) -> None:
        self._student = student
        student.embeddings.word_embeddings.sparse = True
        words = student.embeddings.word_embeddings.weight
        self._others = [one for one in student.parameters() if one is not words]
        self._optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.SparseAdam([words], lr=recipe.rate),
            torch.optim.Adam(self._others, lr=recipe.rate),
        )
        self._recipe, self._steps_in_all, self._done = recipe, steps_an_epoch * recipe.epochs, 0

    def step(self, loss: Tensor) -> None:
        rate = self._recipe.rate * _rate(self._done, self._steps_in_all, self._recipe.warm_up)
        for optimizer in self._optimizers:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._others, 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        self._done += 1

    def keep(self, work: Path, losses: Sequence[float]) -> None:
        """Write the state as it is after an epoch; a reader sees the old one or the new one whole."""
        state = {
            "student": self._student.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "done": self._done,
            "losses": list(losses),
        }
        torch.save(state, work / f".{STATE}")
        (work / f".{STATE}").replace(work / STATE)

    def resume(self, work: Path) -> list[float]:
        """Take up the kept state, if there is one; the loss of each epoch done."""
        if not (work / STATE).exists():
            return []
        state = torch.load(work / STATE, map_location="cpu", weights_only=True)
        self._student.load_state_dict(state["student"])
        for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self._done = state["done"]
        losses: list[float] = state["losses"]
        return losses


def distillation_loss(given: Tensor, wanted: Tensor, products: Tensor, similarity_weight: float) -> Tensor:
    """1 - cosine, and how far the student's distribution over `products` is from the teacher's own.

    [n, hidden] of unit length both, and products [m, hidden] as an index holds them: what both are compared with."""
    cosine = nn.functional.cosine_similarity(given, wanted).mean()
    own, theirs = ((side @ products.T / _TEMPERATURE).log_softmax(1) for side in (given, wanted))
    divergence = nn.functional.kl_div(own, theirs, log_target=True, reduction="batchmean")
    return 1.0 - cosine + similarity_weight * divergence


def write_checkpoint(student: BertEncoder, teacher: Path, folder: Path) -> None:
    """The student as a checkpoint folder that `models.export` takes: weights, config, the teacher's tokenizer."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((teacher / "config.json").read_text("utf-8"))
    config["num_hidden_layers"] = student.config.num_hidden_layers
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    save_file(
        {name: tensor.contiguous() for name, tensor in student.state_dict().items()}, folder / "model.safetensors"
    )
    shutil.copyfile(teacher / "tokenizer.json", folder / "tokenizer.json")
    if (teacher / "base.json").is_file():
        shutil.copyfile(teacher / "base.json", folder / "base.json")


def _fast(device: torch.device) -> torch.autocast:
    """Matrix products in bfloat16: half the time, where the processor has them."""
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _padded(ids: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(len(one) for one in ids)
    rows = torch.tensor([[*one, *[0] * (longest - len(one))] for one in ids])
    mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids])
    return rows.to(device), mask.to(device)


def _batches(ids: Sequence[Sequence[int]], recipe: Recipe, epoch: int) -> Iterator[list[int]]:
    """Every text once, in an order of its own each epoch; texts of like length together, so that little is padding."""
    random = np.random.default_rng((recipe.seed, epoch))
    lengths = np.array([len(one) for one in ids])
    order = np.argsort(lengths + random.uniform(0, 3, len(ids)), kind="stable")
    starts = np.arange(0, len(order), recipe.batch)
    random.shuffle(starts)
    return (order[start : start + recipe.batch].tolist() for start in starts)


def _rate(step: int, steps: int, warm_up: float) -> float:
    """Share of the full rate: up over the first part, then down along a line to zero."""
    rising = max(1.0, warm_up * steps)
    return min((step + 1) / rising, max(0.0, (steps - step) / max(1.0, steps - rising)))


def _claim(
    work: Path,
    encoders: Sequence[BertEncoder],
    ids: Sequence[Sequence[int]],
    owners: Sequence[int],
    stored: Floats,
    recipe: Recipe,
) -> None:
    digest = hashlib.sha256(json.dumps([asdict(recipe), ids, owners]).encode() + stored.tobytes())
    for encoder in encoders:
        for name, tensor in sorted(encoder.state_dict().items()):
            digest.update(name.encode() + np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    mark = work / "inputs.sha256"
    if mark.exists() and mark.read_text("ascii") != digest.hexdigest():
        raise ValueError(
            f"{work}: holds the work of another recipe, teacher or list of texts; remove it or take another"
        )
    mark.write_text(digest.hexdigest(), "ascii")


def _targets(teacher: BertEncoder, ids: Sequence[Sequence[int]], work: Path, progress: Progress) -> Tensor:
    path = work / VECTORS
    if path.exists():
        progress(len(ids))
    else:
        temporary = path.with_suffix(".part.npy")
        np.save(temporary, encode(teacher, ids, progress).numpy(), allow_pickle=False)
        temporary.replace(path)
    return torch.from_numpy(np.load(path, allow_pickle=False))
