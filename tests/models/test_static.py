"""The static query encoder: what it is fitted to, what its check sees, and that a query's company does not matter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from app.errors import CorruptPart
from app.index.bundle import BundleStore
from app.search.embed import Encoder
from app.search.job import SearchJob
from app.search.searcher import RescoreJob
from app.search.static import TABLE, StaticEncoder
from app.types import Floats, RescoreCandidate, SearchRequest
from models import static
from models.encode import product_vectors
from models.static import Bags, StaticCheck, fit_static
from scripts.cli import main as aisle
from tests import tiny
from tests.conftest import open_current

TITLES = [str(row["title"]).lower() for row in tiny.products(300)]


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path) -> Encoder:
    """The tiny random encoder, opened."""
    return Encoder(tiny_encoder, "cpu")


@pytest.fixture(scope="module")
def vectors(encoder: Encoder) -> Floats:
    """Stored vectors of the titles."""
    return product_vectors(encoder, [(title, title) for title in TITLES])


@pytest.fixture(scope="module")
def fitted(encoder: Encoder, vectors: Floats) -> tuple[StaticEncoder, StaticCheck]:
    """A table fitted to the titles, and its check."""
    return fit_static(encoder, TITLES, vectors)


def test_a_fitted_table_finds_what_the_encoder_finds(
    encoder: Encoder, vectors: Floats, fitted: tuple[StaticEncoder, StaticCheck]
) -> None:
    """The fit brings its queries nearer to the full encoder's ranking than the piece vectors that it started from."""
    table, check = fitted
    assert check.passed and check.recall > 0.9 and check.texts == 60
    pieces = encoder.piece_vectors(range(encoder.vocabulary))
    queries = ["wireless quiet speaker", "wooden lamp", "borealis mug"]
    full = encoder.queries(queries) @ vectors.T
    summed = np.stack([pieces[encoder.pieces(text)].sum(axis=0) for text in queries])
    unfitted = (summed / np.linalg.norm(summed, axis=1, keepdims=True)) @ vectors.T
    looked_up = table.queries(queries) @ vectors.T
    assert np.abs(looked_up - full).mean() < np.abs(unfitted - full).mean()


def test_titles_that_belong_to_other_products_fail_the_check(encoder: Encoder, vectors: Floats) -> None:
    """A fit to shuffled vectors learns nothing of what the words mean, and the check says so."""
    shuffled = vectors[np.random.default_rng(0).permutation(len(vectors))]
    _, check = fit_static(encoder, TITLES, shuffled)
    assert not check.passed and check.recall < 0.5


def test_a_check_without_a_figure_does_not_pass() -> None:
    """Not-a-number is below every bar."""
    assert not StaticCheck(10, float("nan"), 0.9).passed
    assert StaticCheck(10, 0.9, 0.9).passed


def test_a_query_alone_has_the_vector_that_it_has_in_company(fitted: tuple[StaticEncoder, StaticCheck]) -> None:
    """Bit for bit, whatever stands beside it and wherever."""
    table, _ = fitted
    texts = [*TITLES[:40], "x", "a much longer query " * 20, "mug"]
    together = table.queries(texts)
    for place in (0, 7, 40, 41, 42):
        assert np.array_equal(table.queries([texts[place]])[0], together[place])
    assert np.array_equal(table.queries(texts[::-1])[::-1], together)
    assert np.allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)


def test_a_text_of_no_pieces_is_near_nothing(fitted: tuple[StaticEncoder, StaticCheck]) -> None:
    """What the tokenizer drops gives the zero vector, not a division by zero."""
    assert not fitted[0].queries(["\u200b"]).any()


def test_the_same_catalogue_gives_the_same_table(
    encoder: Encoder, vectors: Floats, fitted: tuple[StaticEncoder, StaticCheck], tmp_path: Path
) -> None:
    """No step depends on chance or on the order of threads."""
    again, check = fit_static(encoder, TITLES, vectors)
    for name, one in (("a", fitted[0]), ("b", again)):
        (tmp_path / name).mkdir()
        one.save(tmp_path / name)
    assert (tmp_path / "a" / TABLE).read_bytes() == (tmp_path / "b" / TABLE).read_bytes()
    assert check == fitted[1]


def test_the_regression_solves_its_normal_equations() -> None:
    """Conjugate gradients over sparse bags arrive where a dense solver does."""
    random = np.random.default_rng(1)
    counts = random.integers(1, 4, 50)
    columns = random.integers(0, 8, counts.sum())
    values = random.uniform(0.2, 1.0, counts.sum()).astype(np.float32)
    bags = Bags(np.concatenate(([0], np.cumsum(counts))), columns, values)
    prior = random.standard_normal((8, 4)).astype(np.float32)
    wanted = random.standard_normal((50, 4)).astype(np.float32)
    dense = np.zeros((50, 8))
    np.add.at(dense, (np.repeat(np.arange(50), counts), columns), values)
    assert np.allclose(bags.times(prior), dense @ prior, atol=1e-5)
    assert np.allclose(bags.transposed(8).times(wanted), dense.T @ wanted, atol=1e-5)
    lengths = np.linalg.norm(dense @ prior, axis=1, keepdims=True)
    scaled = dense / lengths
    exact = np.linalg.solve(scaled.T @ scaled + np.eye(8), scaled.T @ wanted + prior)
    assert np.allclose(static._ridge(bags, wanted, prior), exact, atol=1e-3)


def test_piece_vectors_stand_where_a_query_of_that_piece_stands(encoder: Encoder) -> None:
    """A piece between the encoder's marks is what a query of that one piece would be."""
    for text in ("mu", "q"):
        piece = encoder.pieces(text)
        assert len(piece) == 1
        assert np.array_equal(encoder.piece_vectors(piece), encoder.queries([text]))


@pytest.mark.parametrize("fault", ["cut", "other type", "not finite"])
def test_a_table_that_does_not_fit_is_refused_by_name(
    fault: str, encoder: Encoder, fitted: tuple[StaticEncoder, StaticCheck], tmp_path: Path
) -> None:
    """Rows, type and values are checked when the table is opened; the sound one opens."""
    fitted[0].save(tmp_path)
    StaticEncoder.load(tmp_path, encoder)
    table = np.load(tmp_path / TABLE)
    if fault == "cut":
        table = table[:-1]
    elif fault == "other type":
        table = table.astype(np.float32)
    else:
        table[5, 3] = np.inf
    np.save(tmp_path / TABLE, table)
    with pytest.raises(CorruptPart, match=TABLE):
        StaticEncoder.load(tmp_path, encoder)


def test_too_few_products_are_not_fitted(encoder: Encoder, vectors: Floats) -> None:
    """Nothing could be held out, and the message says how many it takes."""
    with pytest.raises(ValueError, match="19 products"):
        fit_static(encoder, TITLES[:19], vectors[:19])


def test_a_build_writes_the_table_and_its_check(tiny_bundles: Path) -> None:
    """The manifest holds the figures, and the profile that needs the table is there."""
    store = BundleStore(tiny_bundles)
    manifest = store.verify(store.current() or "")
    assert TABLE in manifest.parts and manifest.content["static"]["passed"]
    assert manifest.content["ranking"]["profiles"]["fast"]["static"] == 1.0
    assert 0 < manifest.content["ranking"]["profiles"]["default"]["static"] < 1


@pytest.mark.parametrize("way", ["off", "failed"])
def test_without_a_sound_table_there_is_no_fast_profile(
    way: str, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Switched off or failed, the version says why, and serves without it."""
    catalogue = tiny.write_catalogue(tmp_path / "products.jsonl", tiny.products())
    command = ["build", str(catalogue), "--encoder", str(tiny_encoder), "--bundles", str(tmp_path / "b")]
    if way == "failed":
        monkeypatch.setattr(StaticCheck, "passed", property(lambda check: check.recall >= 1.01))
    assert aisle([*command, *(["--static", "off"] if way == "off" else [])]) == 0
    searcher = open_current(tmp_path / "b")
    store = BundleStore(tmp_path / "b")
    content = store.verify(store.current() or "").content
    assert "fast" not in searcher.ranking.profiles and searcher.static is None
    assert not (store.path(store.current() or "") / TABLE).exists()
    assert content["static"]["passed"] is False
    assert "reason" in content["static"] if way == "off" else content["static"]["recall"] < 1.01


def test_a_version_that_lost_its_table_is_refused(tiny_bundles: Path, tmp_path: Path) -> None:
    """A ranking that asks for the table does not open without it."""
    shutil.copytree(tiny_bundles, tmp_path / "b")
    store = BundleStore(tmp_path / "b")
    folder = store.path(store.current() or "")
    (folder / TABLE).unlink()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["parts"][TABLE]
    sealed = store.seal(folder, manifest["content"])
    store.publish(sealed)
    with pytest.raises(CorruptPart, match=TABLE):
        open_current(tmp_path / "b")


def test_the_fast_profile_asks_the_table_and_no_network(tiny_bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its searches and rescorings never run the encoder; the default profile's do (control)."""
    searcher = open_current(tiny_bundles)
    asked: list[str] = []
    real = searcher.encoder.queries
    monkeypatch.setattr(searcher.encoder, "queries", lambda texts: asked.extend(texts) or real(texts))
    for profile, expected in (("fast", []), ("default", ["wooden lamp"])):
        query = searcher.query(SearchRequest("wooden lamp", profile=profile))
        job = SearchJob(searcher, query, perf_counter())
        searcher.search([job])
        assert job.error is None and job.answer is not None and job.vector is not None
        assert asked == expected
        rescored = RescoreJob(searcher, "wooden lamp", query.profile, [RescoreCandidate(id="p004")])
        rescored.run()
        assert asked == expected * 2 and rescored.results[0].score is not None
