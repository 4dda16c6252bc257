"""`make relevance`: when a version is made anew, and what is wrong usage. The figures themselves are the commands'."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.index.bundle import BundleStore
from scripts import relevance


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that building ran, in a checkout of three files with a catalogue beside."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "app/search/features.py",
        "models/relevance/run.py",
        "models/weights/MiniLM-L2-distilled-int8/encoder.onnx",
        "models/weights/MiniLM-L2-distilled-int8/product_encoder.onnx",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("1")
    for name in ("products.jsonl.gz", "dev.queries.tsv", "dev.qrels.tsv"):
        Path(name).write_text("1")
    ran: list[tuple[str, ...]] = []

    def built(*words: str) -> None:
        ran.append(words)
        (BundleStore(relevance.BUNDLES, "shop").folder).mkdir(parents=True, exist_ok=True)
        (BundleStore(relevance.BUNDLES, "shop").folder / "CURRENT").write_text("20260101-00000000")

    monkeypatch.setattr(relevance, "_aisle", built)
    return ran


@pytest.mark.parametrize("changed", ["app/search/features.py", "models/relevance/run.py", "products.jsonl.gz"])
def test_a_version_is_made_anew_when_anything_changed_that_it_was_made_by(
    changed: str, builds: list[tuple[str, ...]]
) -> None:
    """The ranking is fitted through all of them: figures of a version that another code fitted would be nobody's."""
    shop = relevance.Judged("shop", Path(), "a shop", ())
    relevance._build(shop)
    relevance._build(shop)
    assert len(builds) == 1
    Path(changed).write_text("2")
    relevance._build(shop)
    assert len(builds) == 2 and "--reuse" in builds[1]


def test_vectors_of_another_encoder_are_not_asked_for(builds: list[tuple[str, ...]]) -> None:
    """`--reuse` would be refused, and no figure be made until somebody removed the folder."""
    shop = relevance.Judged("shop", Path(), "a shop", ())
    relevance._build(shop)
    (relevance.ENCODER / "encoder.onnx").write_text("2")
    relevance._build(shop)
    assert len(builds) == 2 and "--reuse" in builds[1]  # of queries alone
    (relevance.ENCODER / "product_encoder.onnx").write_text("2")
    relevance._build(shop)
    assert len(builds) == 3 and "--reuse" not in builds[2]


@pytest.mark.parametrize("only", ["ecsi", "zh"])
def test_a_set_that_cannot_be_measured_is_wrong_usage(only: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a run that measures nothing and says that all figures hold."""
    monkeypatch.delenv("AISLE_TEST_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["relevance", "--check", "--only", only])
    with pytest.raises(SystemExit) as ended:
        relevance.main()
    assert ended.value.code == 2
