"""The deeper rerankers: they learn, no query is scored by what learnt from it, and padding changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests import tiny

torch = pytest.importorskip("torch", reason="needs the train extra")

from models.bert import BertEncoder  # noqa: E402
from models.deep import fit  # noqa: E402
from models.deep.__main__ import compare  # noqa: E402
from models.deep.lists import List, Work  # noqa: E402
from models.deep.networks import CrossEncoder, LateInteraction, padded  # noqa: E402
from tests.models.checkpoints import tiny_checkpoint  # noqa: E402

TITLES = [str(row["title"]).lower() for row in tiny.products(40)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A three-layer BERT with seeded random weights over the words of the tiny catalogue."""
    return tiny_checkpoint(tmp_path_factory.mktemp("base"), TITLES)


def _work() -> Work:
    """Each query is a title, its product the only one that is right."""
    lists = [
        List(f"q{at}", title, "train" if at < 20 else "dev", list(range(40)), [0.0] * 40, [(at, 3.0)])
        for at, title in enumerate(TITLES)
    ]
    return Work(TITLES, TITLES, lists, len(TITLES))


def test_a_longer_neighbour_changes_no_score(checkpoint: Path) -> None:
    """Padding is masked in both networks."""
    trunk = BertEncoder.from_checkpoint(checkpoint)
    short, long = [2, 50, 60, 3], [2, *range(45, 65), 3]
    with torch.no_grad():
        cross = CrossEncoder(trunk).eval()
        alone, beside = cross(*padded([short], torch.device("cpu"))), cross(*padded([short, long], torch.device("cpu")))
        assert torch.allclose(alone[0], beside[0], atol=1e-5) and not torch.allclose(beside[0], beside[1], atol=1e-4)
        late = LateInteraction(trunk, 8).eval()
        alone, beside = late.meet([short], [short]), late.meet([short], [short, long])
        assert torch.allclose(alone[0, 0], beside[0, 0], atol=1e-5)
        assert float(late.meet([short], [short])) == pytest.approx(10.0, abs=1e-4)  # every token meets itself


@pytest.mark.parametrize("name", ["late interaction", "cross-encoder, judgements alone"])
def test_training_lowers_the_loss(checkpoint: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the lists it is shown, from the first steps to the last."""
    monkeypatch.setattr(fit, "_RATE", 2e-3)
    make, _ = fit.MODELS[name]
    tokens = fit.Tokens(Tokenizer.from_file(str(checkpoint / "tokenizer.json")), TITLES)
    told: list[str] = []
    torch.manual_seed(0)
    tasks = list(fit._judged(_work(), "train"))
    fit._fit(make(BertEncoder.from_checkpoint(checkpoint)), tasks, tokens, 60, told.append, name)
    before, after = (float(word) for word in told[0].rsplit("loss ", 1)[1].split(" to "))
    assert after < 0.8 * before, told


def test_no_query_is_scored_by_a_model_that_learnt_from_it(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every measured query is scored once, and not after a fit on its own judgements."""
    learnt: list[set[str]] = []
    seen: dict[str, int] = {}
    monkeypatch.setattr(fit, "_fit", lambda model, tasks, *_: learnt.append({task.query for task in tasks}))

    def score(model: object, lists: list[List], tokens: object, rows: np.ndarray, wanted: set[str]) -> None:
        for one in lists:
            if one.query_id in wanted:
                assert one.text not in learnt[-1]
                seen[one.query_id] = seen.get(one.query_id, 0) + 1

    monkeypatch.setattr(fit, "_score", score)
    work = _work()
    stored = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    fit.scored(work, stored, checkpoint, "cross-encoder, judgements alone", torch.device("cpu"), lambda _: None)
    assert seen == {one.query_id: 1 for one in work.measured}
    assert any(learnt[0] & {one.text} for one in work.measured)  # the control: others' judgements are learnt from


def test_scores_that_know_the_answer_win(tmp_path: Path) -> None:
    """The table of a model that puts the right product first shows it above the default's order, which does not."""
    work = _work()
    work.save(tmp_path)
    told = np.zeros((len(work.measured), 100), dtype=np.float32)
    for at, one in enumerate(work.measured):
        told[at, one.judged[0][0]] = 1.0
    np.savez(tmp_path / "scores.npz", oracle=told)
    ((part, table),) = compare(tmp_path)
    assert part == "dev" and "oracle × 1" in table.text() and "1.000" in table.text().splitlines()[-1]
