"""Live changes: a history of them ranks like a catalogue that was built so, under the same statistics."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from app.errors import BadInput, CorruptPart, EncoderUnavailable
from app.index.bundle import BundleStore
from app.index.catalog import Catalog
from app.index.changes import ChangeLog, Edit
from app.index.dense import FewVectors
from app.index.edits import patch, puts
from app.index.product_text import dense_texts, lexical_texts, text_hash
from app.search.job import SearchJob
from app.search.live import LiveVersion
from app.search.searcher import Searcher
from app.search.versions import Encoders, load
from app.search.whynot import why_not
from app.types import Product, SearchRequest, Sort
from tests import tiny
from tests.ledger import Promise

_TEXTS = ("wireless headphones", "steel mug", "acme lamp", "soft backpack", "quiet kettle borealis", "zebra")
_FILTERS: tuple[Any, ...] = (
    None,
    {"field": "brand", "in": ["Acme", "Zeta"]},
    {"all": [{"field": "price", "gte": 20, "lt": 120}, {"not": {"field": "color", "in": ["red"]}}]},
    {"any": [{"field": "in_stock", "eq": True}, {"field": "category", "in": ["Kitchen"]}]},
    {"field": "price", "exists": False},
)
_SORTS: tuple[tuple[Sort, ...], ...] = (
    (),
    (Sort("price"),),
    (Sort("brand", True),),
    (Sort("color"), Sort("price", True)),
    (Sort("popularity", True),),
)


@pytest.fixture
def live(tiny_bundles: Path, tmp_path: Path) -> LiveVersion:
    """The tiny version with an empty log."""
    return _open(tiny_bundles, tmp_path / "changes")


def _open(bundles: Path, log: Path) -> LiveVersion:
    store = BundleStore(bundles)
    version = store.current() or ""
    return LiveVersion(load(store, version, Encoders("cpu")), store.path(version), log)


def _catch_up(live: LiveVersion) -> Searcher:
    while live.listen():
        live.step()
    return live.served.searcher


def _keep(tmp_path: Path, *edits: Edit) -> None:
    ChangeLog(tmp_path / "changes").append([list(edits)])


def _put(searcher: Searcher, **record: Any) -> Edit:
    return puts([record], searcher.catalog.schema)[0]


def _patch(live: LiveVersion, id: str, **fields: Any) -> Edit:
    product = live.product(id)
    assert product is not None
    return patch((product, live.served.searcher.catalog.schema), fields)


def _answer(searcher: Searcher, request: SearchRequest) -> dict[str, Any]:
    job = SearchJob(searcher, searcher.query(request), perf_counter())
    searcher.search([job])
    assert job.error is None and job.answer is not None
    answer: dict[str, Any] = json.loads(b"{" + job.answer.tail)
    return answer


def _ids(searcher: Searcher, text: str, **more: Any) -> list[str]:
    return [hit["id"] for hit in _answer(searcher, SearchRequest(text, **more))["hits"]]


def _rebuilt(live: LiveVersion) -> Searcher:
    """One part of all products under the version's statistics, by the verbs that build a version's own."""
    searcher = live.served.searcher
    schema, products = searcher.catalog.schema, list(live.products())
    vectors = []
    for product in products:
        texts = dense_texts(product, schema)
        vectors.append(live._maker.vector(product.id, texts, text_hash(texts)))
    words = live._words.extend(lexical_texts(product, schema) for product in products)
    return searcher.changed(Catalog.build(products, schema), words, FewVectors(np.stack(vectors)), "rebuilt")


def _requests(generator: random.Random, count: int) -> Iterator[SearchRequest]:
    for _ in range(count):
        text = generator.choice((None, *_TEXTS, *_TEXTS))
        condition = generator.choice(_FILTERS) if text else generator.choice(_FILTERS[1:])
        yield SearchRequest(
            text,
            k=generator.choice((3, 10, 60)),
            offset=generator.choice((0, 0, 2)),
            filter=condition,
            facets=generator.choice(((), ("brand", "color", "in_stock", "category"))),
            sort=generator.choice(_SORTS),
            profile=generator.choice(("default", "lexical")),
            explain=generator.random() < 0.3,
        )


def _operation(generator: random.Random, live: LiveVersion) -> Edit:
    searcher = live.served.searcher
    known = [product.id for product in live.products()]
    kind = generator.random()
    if kind < 0.4 and known:
        id = generator.choice(known)
        fields = generator.choice(
            ({"price": round(generator.uniform(1, 200), 2)}, {"stock": generator.randint(0, 2)}, {"price": None},
             {"color": generator.choice(("red", "azure", "violet"))}, {"title": f"Zeta zebra mug {id}"})
        )  # fmt: skip
        return _patch(live, id, **fields)
    if kind < 0.6 and len(known) > 20:
        return Edit("delete", generator.choice(known), {})
    record = dict(generator.choice(tiny.products()))
    record["popularity"] = record.pop("rating_count")
    others = f"n{generator.randint(0, 80):03}", f"p{generator.randint(0, 70):03}x"
    record["id"] = generator.choice((record["id"], *others))
    record["brand"] = generator.choice((record["brand"], "Zeta", "Aaa", None))
    return _put(searcher, **{name: value for name, value in record.items() if value is not None})


@pytest.mark.parametrize(
    ("seed", "operations"), [(1, 200), *(pytest.param(seed, 1000, marks=pytest.mark.deep) for seed in (2, 3, 4))]
)
def test_a_random_history_answers_as_a_rebuild_with_the_same_statistics(
    live: LiveVersion, tmp_path: Path, seed: int, operations: int, promise: Promise
) -> None:
    """Hits, scores, order, totals, facets, sorts, pages, explanations, neighbours and why-not, after every twentieth
    operation; taken in by batches of any size."""
    generator = random.Random(seed)
    compared = changed = 0
    with promise("L2", f"{operations:,} random operations answer as a rebuild") as found:
        first = _answer(_catch_up(live), SearchRequest("steel mug", k=60))
        for number in range(operations):
            _keep(tmp_path, _operation(generator, live))
            if generator.random() < 0.5 or number % 20 == 19:
                _catch_up(live)
            if number % 20 != 19:
                continue
            ours, other = live.served.searcher, _rebuilt(live)
            for request in _requests(generator, 12):
                assert _answer(ours, request) == _answer(other, request), request
                compared += 1
            for product in generator.sample(list(live.products()), 3):
                assert json.loads(ours.product(product.id)) == json.loads(other.product(product.id))
                near = [json.loads(b"{" + one.similar(product.id, 10).tail)["hits"] for one in (ours, other)]
                assert near[0] == near[1]
                request = SearchRequest("steel mug", k=3)
                told = [why_not(one, one.query(request), one.catalog.row(product.id) or 0) for one in (ours, other)]
                assert told[0] == told[1]
            changed += _answer(ours, SearchRequest("steel mug", k=60))["hits"] != first["hits"]
        assert compared == operations // 20 * 12 and changed > operations // 30
        again = _open_again(live, tmp_path)  # a process that starts now and reads the whole log at once
        for request in _requests(generator, 30):
            assert _answer(again, request) == _answer(live.served.searcher, request)
        found.figure = f"a history of {operations:,} operations: {compared:,} searches answered as by a rebuild"
        found.control = f"the answers had changed at {changed} of {operations // 20} looks"


def _open_again(live: LiveVersion, tmp_path: Path) -> Searcher:
    """The same version and log, from the beginning."""
    fresh = LiveVersion.__new__(LiveVersion)
    base = live.served.searcher.changed(live._catalog, live._words, live._vectors, live.served.searcher.version)
    from dataclasses import replace

    LiveVersion.__init__(fresh, replace(live.served, searcher=base), live._folder, tmp_path / "changes")
    return _catch_up(fresh)


def test_a_price_is_seen_in_filters_facets_sorts_and_hits(live: LiveVersion, tmp_path: Path) -> None:
    """And a stock count in what is derived of it."""
    before = _catch_up(live)
    cheap = SearchRequest("mug", k=60, filter={"field": "price", "lt": 1})
    assert not _answer(before, cheap)["hits"]
    _keep(tmp_path, _patch(live, "p005", price=0.5, stock=0))
    after = _catch_up(live)
    assert [hit["id"] for hit in _answer(after, cheap)["hits"]] == ["p005"]
    assert _ids(after, "mug", k=60, sort=(Sort("price"),))[0] == "p005"
    hit = _answer(after, cheap)["hits"][0]["product"]
    assert (hit["price"], hit["stock"], hit.get("in_stock")) == (0.5, 0, False)
    browsed = SearchRequest(None, filter={"field": "in_stock", "eq": False}, k=60)
    assert "p005" in [one["id"] for one in _answer(after, browsed)["hits"]]
    assert not _answer(before, cheap)["hits"]  # what was served is as it was


def test_a_new_product_is_found_a_deleted_one_is_not(live: LiveVersion, tmp_path: Path) -> None:
    """By words and by meaning; and one that comes back is there once."""
    searcher = _catch_up(live)
    target = _ids(searcher, "steel mug")[0]
    _keep(tmp_path, Edit("delete", target, {}), _put(searcher, id="new", title="wooden steel mug of Acme", price=5))
    after = _catch_up(live)
    assert "new" in _ids(after, "steel mug", k=60) and target not in _ids(after, "steel mug", k=60)
    assert after.catalog.row(target) is None and after.catalog.products == 60
    _keep(tmp_path, _put(searcher, id=target, title="steel mug again"))
    assert _ids(_catch_up(live), "steel mug", k=60).count(target) == 1


def test_many_small_changes_keep_few_parts(live: LiveVersion, tmp_path: Path) -> None:
    """Each search asks every part, so they grow into each other."""
    searcher = _catch_up(live)
    for number in range(100):
        _keep(tmp_path, _put(searcher, id=f"n{number:03}", title=f"steel lamp number {number}"))
        _catch_up(live)
    assert len(live._parts) <= 7
    assert live.served.searcher.catalog.products == 160
    assert live.changed == 100


def test_a_text_that_cannot_be_embedded_waits(
    live: LiveVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder fails: nothing is lost, the lag tells, and all is taken in once it works."""
    searcher = _catch_up(live)
    _keep(tmp_path, _put(searcher, id="new", title="zebra lamp"), _patch(live, "p001", price=1.25))

    def broken(texts: Any) -> Any:
        raise EncoderUnavailable("broken")

    with monkeypatch.context() as patched:
        patched.setattr(searcher.encoder, "products", broken)
        assert live.listen()
        with pytest.raises(EncoderUnavailable):
            live.step()
        assert live.lag_s > 0 and live.served.searcher.catalog.row("new") is None
    after = _catch_up(live)
    assert live.lag_s == 0 and after.catalog.row("new") is not None
    assert json.loads(after.product("p001"))["product"]["price"] == 1.25


def test_a_product_whose_text_did_not_change_keeps_its_vector(
    live: LiveVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new price needs no encoder, nor does a text that comes back."""
    searcher = _catch_up(live)
    title = json.loads(searcher.product("p002"))["product"]["title"]
    monkeypatch.setattr(searcher.encoder, "products", lambda texts: pytest.fail(f"embedded {texts}"))
    _keep(tmp_path, _patch(live, "p002", price=3.5), _patch(live, "p002", title=title))
    after = _catch_up(live)
    rows = [one.catalog.row("p002") or 0 for one in (searcher, after)]
    np.testing.assert_array_equal(searcher.vectors.vector(rows[0]), after.vectors.vector(rows[1]))


def test_a_changed_vector_is_drawn_to_its_neighbours_as_a_build_draws_it(shipped_bundles: Path, tmp_path: Path) -> None:
    """Of a catalogue large enough for that: a product put again under another id gets nearly the vector that the build
    gave it; without the drawing it would not (the control)."""
    store = BundleStore(shipped_bundles, "retail")
    version = store.current() or ""
    live = LiveVersion(load(store, version, Encoders("cpu")), store.path(version), tmp_path / "changes")
    catalog, maker = live._catalog, live._maker
    assert maker._neighbours > 5
    drawn, plain = [], []
    for row in range(0, len(catalog), 300):
        texts = dense_texts(Product("x", catalog.fields(row)), catalog.schema)
        stored = live._vectors.vector(row)
        made = maker.vector("elsewhere", texts, text_hash(texts)).view(np.float16).astype(np.float32)
        own = maker._encoder.products(list(texts)).mean(axis=0)
        for found, vector in ((drawn, made), (plain, own)):
            found.append(float(stored @ vector / np.linalg.norm(stored) / np.linalg.norm(vector)))
    assert np.mean(drawn) > 0.985 and np.mean(drawn) > np.mean(plain) + 0.02


def test_a_log_that_does_not_read_leaves_what_is_served(live: LiveVersion, tmp_path: Path) -> None:
    """And says where it is damaged."""
    searcher = _catch_up(live)
    _keep(tmp_path, _put(searcher, id="new", title="zebra lamp"))
    segment = next((tmp_path / "changes").glob("*.log"))
    segment.write_bytes(segment.read_bytes()[:20] + b"!" + segment.read_bytes()[21:])
    with pytest.raises(CorruptPart, match="at byte 0"):
        live.listen()
    assert live.served.searcher is searcher


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"id": "x"}, "no title"),
        ({"title": "y"}, "no id"),
        ({"id": "x", "title": "y", "price": "dear"}, "must be a finite number"),
        ({"id": "x", "title": "y", "prize": 3}, "did you mean 'price'"),
        ({"id": "x", "title": "y" * 70_000}, "longer than"),
        (["x"], "is an object"),
    ],
)
def test_a_record_that_is_no_product_is_refused_by_its_position(
    tiny_searcher: Searcher, record: Any, said: str
) -> None:
    """And nothing of its batch is kept."""
    with pytest.raises(BadInput, match="1 of 2 products cannot be kept; none was") as caught:
        puts([{"id": "good", "title": "good"}, record], tiny_searcher.catalog.schema)
    assert caught.value.errors[0]["field"] == "[1]" and said in caught.value.errors[0]["message"]


def test_a_copy_of_a_version_without_its_log_begins_another(tiny_bundles: Path, tmp_path: Path) -> None:
    """Places in one log mean nothing in another."""
    copied = tmp_path / "bundles"
    shutil.copytree(tiny_bundles, copied)
    live = _open(copied, tmp_path / "changes")
    _keep(tmp_path, _put(live.served.searcher, id="new", title="zebra lamp"))
    assert _catch_up(live).catalog.row("new") is not None


def test_what_follows_from_a_stock_follows_from_the_last(live: LiveVersion, tmp_path: Path) -> None:
    """Two patches that were both made before either is seen: a shop sells out and is supplied."""
    searcher = _catch_up(live)
    _keep(tmp_path, _patch(live, "p005", stock=5))
    _catch_up(live)
    _keep(tmp_path, _patch(live, "p005", stock=0), _patch(live, "p005", stock=7))
    assert json.loads(_catch_up(live).product("p005"))["product"]["in_stock"] is True
    assert searcher.catalog.row("p005") is not None


def test_a_keyword_before_all_of_the_version_sorts_as_one(live: LiveVersion, tmp_path: Path) -> None:
    """It is not taken for a missing one, which comes last either way."""
    searcher = _catch_up(live)
    _keep(tmp_path, _put(searcher, id="new", title="zebra lamp", brand="Aaa"))
    after = _catch_up(live)
    browsed = {"filter": {"any": [{"field": "brand", "exists": True}, {"field": "brand", "exists": False}]}, "k": 200}
    orders = [
        [hit["product"].get("brand") for hit in _answer(after, SearchRequest(None, sort=one, **browsed))["hits"]]
        for one in ((Sort("brand"),), (Sort("brand", True),))
    ]
    held = [brand for brand in orders[0] if brand is not None]
    assert held[0] == "Aaa" and held == sorted(held)
    assert [brand for brand in orders[1] if brand is not None] == held[::-1]
    assert orders[0][len(held) :] == orders[1][len(held) :] == [None] * (61 - len(held))
