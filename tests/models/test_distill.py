"""Distilling: what the student starts as, what it is trained on, that it learns, and that a killed run goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from app.search.embed import Encoder
from scripts.cli import main as aisle
from tests import tiny

torch = pytest.importorskip("torch", reason="needs the train extra")

from safetensors.torch import load_file  # noqa: E402

from models import distill  # noqa: E402
from models.bert import BertEncoder  # noqa: E402
from models.distill import Recipe, Sources  # noqa: E402
from tests.models.checkpoints import tiny_checkpoint  # noqa: E402

TITLES = [str(row["title"]).lower() for row in tiny.products(40)]
SOURCES = Sources([(title, title) for title in TITLES])
STORED = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
RECIPE = Recipe(layers=(0, 2), epochs=3, batch=16, rate=2e-3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A three-layer BERT with seeded random weights over the words of the tiny catalogue."""
    return tiny_checkpoint(tmp_path_factory.mktemp("teacher"), TITLES)


def _train(checkpoint: Path, work: Path, recipe: Recipe = RECIPE) -> tuple[BertEncoder, list[float]]:
    texts = distill.training_texts(SOURCES, 200, 0)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    return distill.distill(BertEncoder.from_checkpoint(checkpoint), tokenizer, texts, STORED, recipe, work)


def _same(one: BertEncoder, other: BertEncoder) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_student_of_all_layers_is_the_teacher(checkpoint: Path) -> None:
    """Copied, not only shaped alike; one of fewer layers gives other vectors (control)."""
    teacher = BertEncoder.from_checkpoint(checkpoint)
    ids = torch.tensor([[2, 50, 60, 3]])
    with torch.no_grad():
        expected = teacher(ids, torch.ones_like(ids))
        whole = distill.student_of(teacher, (0, 1, 2))(ids, torch.ones_like(ids))
        part = distill.student_of(teacher, (0, 2))(ids, torch.ones_like(ids))
    assert torch.equal(whole, expected) and not torch.allclose(part, expected, atol=1e-2)


@pytest.mark.parametrize(("count", "expected"), [(1, (5,)), (2, (0, 5)), (3, (0, 2, 5)), (6, (0, 1, 2, 3, 4, 5))])
def test_the_layers_taken_are_spread_evenly(count: int, expected: tuple[int, ...]) -> None:
    """First and last among them, as far as there are two."""
    assert distill.layers_of(6, count) == expected


def test_more_layers_than_the_teacher_has_are_refused() -> None:
    """And none at all."""
    for count in (0, 7):
        with pytest.raises(ValueError, match=f"{count} layers"):
            distill.layers_of(6, count)


def test_training_texts_are_short_different_and_the_same_again() -> None:
    """Spans of the sources, queries among them, some with a slip; another seed gives others."""
    sources = Sources([*SOURCES.products, ("", " ".join(TITLES))], ["quiet kettle for two"])
    drawn = distill.training_texts(sources, 300, 0)
    texts = drawn.texts
    assert len(texts) == len(set(texts)) == len(drawn.owners) == 300
    assert "quiet kettle for two" in texts and all(1 <= len(text.split()) <= 20 for text in texts)
    assert drawn == distill.training_texts(sources, 300, 0) != distill.training_texts(sources, 300, 1)
    assert drawn.owners[texts.index("quiet kettle for two")] == -1
    whole = [" ".join(part) for part in sources.products]
    taken = [text in whole[owner] for text, owner in zip(texts, drawn.owners, strict=True) if owner >= 0]
    assert 0.6 < np.mean(taken) < 1.0  # the others have a slip
    known = {word for title in TITLES for word in title.split()}
    unknown = [text for text in texts if not set(text.split()) <= known | {"quiet", "kettle", "for", "two"}]
    assert 0 < len(unknown) < 100


def test_the_loss_is_nothing_for_the_teachers_own_vectors() -> None:
    """And grows with every turn away from them; the order of the products counts beside the cosine."""
    random = torch.Generator().manual_seed(0)
    wanted = torch.nn.functional.normalize(torch.randn(8, 16, generator=random), dim=1)
    assert abs(float(distill.distillation_loss(wanted, wanted, wanted[:5], 0.5))) < 1e-5
    turned = torch.nn.functional.normalize(wanted + 0.1 * torch.randn(8, 16, generator=random), dim=1)
    cosine_alone = float(distill.distillation_loss(turned, wanted, wanted[:5], 0.0))
    assert 0 < cosine_alone < float(distill.distillation_loss(turned, wanted, wanted[:5], 0.5))
    assert cosine_alone == pytest.approx(1 - float((turned * wanted).sum(1).mean()), abs=1e-6)


def test_a_student_comes_nearer_to_its_teacher(checkpoint: Path, tmp_path: Path) -> None:
    """On texts that it was not trained on: the cosine rises over that of the untrained student."""
    student, losses = _train(checkpoint, tmp_path)
    teacher = BertEncoder.from_checkpoint(checkpoint)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ids = distill.token_ids(tokenizer, ["wireless wooden mug", "small steel backpack", "dunmore lamp"])
    wanted = distill.encode(teacher, ids)
    before = (distill.encode(distill.student_of(teacher, (0, 2)), ids) * wanted).sum(1).mean()
    after = (distill.encode(student, ids) * wanted).sum(1).mean()
    assert losses[-1] < 0.7 * losses[0] and after > before


def test_a_text_is_drawn_towards_the_product_it_was_taken_from(checkpoint: Path, tmp_path: Path) -> None:
    """By the recipe's weight, at unit length; a text of no product keeps the teacher's vector, and weight changes what
    is learnt."""
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    drawn = distill._drawn(targets, [0, -1], torch.tensor([[0.0, 5.0]]), 1.0)
    assert torch.allclose(drawn, torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0]]))
    students = [_train(checkpoint, tmp_path / str(w), replace(RECIPE, catalogue_weight=w))[0] for w in (0.0, 1.0)]
    assert not _same(*students)


def test_a_killed_run_goes_on_to_the_same_student(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off after the second epoch and called again, it ends with the weights of a run that nothing disturbed."""
    whole, losses = _train(checkpoint, tmp_path / "whole")
    real = distill._Training.keep

    def killed(training: distill._Training, work: Path, told: list[float]) -> None:
        real(training, work, told)
        if len(told) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(distill._Training, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        _train(checkpoint, tmp_path / "cut")
    monkeypatch.setattr(distill._Training, "keep", real)
    monkeypatch.setattr(distill, "encode", lambda *_: pytest.fail("the teacher's vectors were kept"))
    again, told = _train(checkpoint, tmp_path / "cut")
    assert _same(again, whole) and told == losses


def test_the_work_of_another_recipe_is_not_gone_on_with(checkpoint: Path, tmp_path: Path) -> None:
    """A folder belongs to one teacher, list of texts and recipe."""
    _train(checkpoint, tmp_path)
    with pytest.raises(ValueError, match="another recipe, teacher or list of texts"):
        _train(checkpoint, tmp_path, Recipe(layers=(0, 2), epochs=4, batch=16))


def test_the_command_makes_an_encoder_of_two_towers(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Queries by the student, products by the teacher's export, and the description names both files."""
    assert aisle(["export", str(checkpoint), str(tmp_path / "teacher"), "--precision", "fp32"]) == 0
    catalogue = tiny.write_catalogue(tmp_path / "products.jsonl", tiny.products(40))
    queries = tmp_path / "queries.tsv"
    queries.write_text("q1\tquiet kettle\n", "utf-8")
    command = ["distill", str(catalogue), "--teacher", str(checkpoint), "--out", str(tmp_path / "student")]
    command += ["--product-encoder", str(tmp_path / "teacher"), "--queries", str(queries), "--precision", "fp32"]
    assert aisle([*command, "--texts", "150", "--epochs", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert told["distilled"]["layers"] == [0, 2] and len(told["losses"]) == 2
    again = [
        *command,
        "--texts",
        "150",
        "--epochs",
        "1",
        "--student",
        str(tmp_path / "student.training" / "checkpoint"),
    ]
    again[again.index(str(tmp_path / "student"))] = str(tmp_path / "further")
    assert aisle([*again, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["losses"][0] < told["losses"][0]
    student, teacher = Encoder(tmp_path / "student", "cpu"), Encoder(tmp_path / "teacher", "cpu")
    assert np.array_equal(student.products(["wooden lamp"]), teacher.products(["wooden lamp"]))
    assert not np.allclose(student.queries(["wooden lamp"]), teacher.queries(["wooden lamp"]), atol=1e-3)
    weights = load_file(tmp_path / "student.training" / "checkpoint" / "model.safetensors")
    assert "encoder.layer.1.output.dense.weight" in weights and "encoder.layer.2.output.dense.weight" not in weights
