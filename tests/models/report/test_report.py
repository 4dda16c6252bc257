"""The page of an evaluation: whole, safe, and with the very figures that were measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.relevance import Gain, Qrels, Run, evaluate, random_order
from models.report import Measurement, page
from models.report.markup import element, foreign
from tests.models.report.reading import Page, outside

HOSTILE = (
    "</title></style><script>alert(1)</script>\"'><img src=http://evil.test/x onerror=alert(2)> &amp; \x00\x1b\u202e"
)
METRICS = ("ndcg@10", "mrr@10", "recall@100")


def measurement(queries: int = 24, profile: str = "default", *, hostile: bool = False, seed: int = 0) -> Measurement:
    """A profile that is mostly, not always, better than two legs."""
    rng = np.random.default_rng(seed)
    products = [f"p{i:02d}" for i in range(30)]
    ids = [f"q{i:03d}" for i in range(queries)]
    grades = {q: {p: float(rng.integers(0, 4)) for p in products[:20]} | {"p00": 3.0, "p01": 0.0} for q in ids}
    qrels = Qrels(grades)
    noise = {"lexical": 2.5, "dense": 3.0, profile: 1.0}
    runs = [random_order(qrels, products)]
    for name, spread in noise.items():
        scored = {q: [(p, grades[q].get(p, 0.0) + rng.normal(0, spread)) for p in products] for q in ids}
        runs.append(Run(scored, name))
    gain = Gain()
    labels = np.array([grade >= gain.relevant_at for q in ids for grade in grades[q].values()], dtype=np.float64)
    texts = {q: f"query {number} {HOSTILE}" if hostile else f"query {number}" for number, q in enumerate(ids)}
    return Measurement(
        version="20260101-0123abcd",
        profile=profile,
        out_of_fold=False,
        note="not fitted to any",
        texts=texts,
        qrels=qrels,
        runs=tuple(runs),
        evaluations=tuple(evaluate(qrels, one, METRICS, gain=gain) for one in runs),
        probabilities=np.clip(labels * 0.4 + rng.uniform(0.1, 0.5, len(labels)), 0, 1),
        labels=labels,
        pair_queries=tuple(q for q in ids for _ in grades[q]),
    )


def _title(product_id: str) -> str:
    return f"Title of {product_id}"


def test_the_page_is_well_formed_accessible_and_loads_nothing() -> None:
    """Balanced tags; a caption and scopes for every table, a title and a description for every drawing that speaks."""
    text = page(measurement(), _title, {"version": "1"})
    read = Page(text)
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert outside(read) == []
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text
    assert read.count("table") == read.count("caption") >= 10
    assert all(attributes.get("scope") in ("col", "row", "rowgroup") for tag, attributes in read.tags if tag == "th")
    drawings = [attributes for tag, attributes in read.tags if tag == "svg"]
    speaking = [one for one in drawings if one.get("role") == "img"]
    ids = {attributes["id"] for _, attributes in read.tags if "id" in attributes}
    assert len(speaking) == 3 and read.count("desc") == 3
    assert all(set(str(one["aria-labelledby"]).split()) <= ids for one in speaking)
    assert all("aria-hidden" in one for one in drawings if one not in speaking)


def test_hostile_words_are_shown_and_never_obeyed() -> None:
    """Queries, titles, a profile's name and the footer may hold anything; control characters become the replacement."""
    measured = measurement(profile=f"p{HOSTILE}", hostile=True)
    text = page(measured, lambda product_id: HOSTILE + product_id, {HOSTILE: HOSTILE + "\udcff"})
    read = Page(text)
    assert outside(read) == []
    assert "<script>alert(1)</script>" in read.text
    assert not any(character in text for character in "\x00\x1b\udcff")
    text.encode("utf-8")
    # The same tags as with harmless words: nothing was opened by what was shown.
    harmless = Page(page(measurement(profile="p"), _title, {"a": "b"}))
    assert {tag for tag, _ in read.tags} == {tag for tag, _ in harmless.tags}


def test_markup_escapes_whatever_it_did_not_make() -> None:
    """Formatting or adding to markup makes it text again, which errs on the safe side."""
    bold = element("b", "a<b")
    assert element("p", bold, " & ", None, class_='x"y') == '<p class="x&quot;y"><b>a&lt;b</b> &amp; </p>'
    assert element("p", f"{bold}") == "<p>&lt;b&gt;a&amp;lt;b&lt;/b&gt;</p>"
    assert foreign("\u202eabc") == "<bdi>\u202eabc</bdi>"


def test_the_figures_of_the_page_are_the_measured_ones() -> None:
    """Every run's mean, every comparison, the calibration: all with three decimals."""
    measured = measurement()
    text = Page(page(measured, _title, {})).text
    for evaluation in measured.evaluations:
        for metric in METRICS:
            assert f"{evaluation.mean(metric):.3f}" in text
    for one in measured.comparisons:
        low, high = (f"{end:+.3f}".replace("-", "−") for end in (one.difference.low, one.difference.high))
        assert f"[{low}, {high}]" in text
        assert f"{one.wins} {one.ties} {one.losses}" in text
    assert measured.pairs is not None
    assert f"Calibration error {measured.pairs.ece_width:.3f}" in text


@pytest.mark.parametrize(
    ("order", "verdict"),
    [
        (("good", "poor", "poor"), "default ranks better than lexical and dense."),
        (("poor", "good", "poor"), "default ranks worse than lexical and cannot be told apart from dense."),
        (("good", "poor", "good"), "default ranks better than lexical and cannot be told apart from dense."),
    ],
)
def test_the_verdict_follows_the_paired_tests(order: tuple[str, str, str], verdict: str) -> None:
    """Better, worse, or not to be told apart: never "better" for a mere larger mean."""
    qrels = Qrels({f"q{i}": {"a": 3.0, "b": 0.0} for i in range(12)})
    orders = {"good": ["a", "b"], "poor": ["b", "a"]}
    names = ("default", "lexical", "dense")
    runs = [random_order(qrels, ["a", "b"])]
    runs += [Run.from_order(dict.fromkeys(qrels, orders[how]), name) for name, how in zip(names, order, strict=True)]
    evaluations = tuple(evaluate(qrels, one, METRICS) for one in runs)
    pairs = tuple(q for q in qrels for _ in range(2))
    labels = np.tile([1.0, 0.0], 12)
    measured = Measurement(
        "v", "default", False, "", dict.fromkeys(qrels, "x"), qrels, tuple(runs), evaluations, labels, labels, pairs
    )
    assert measured.verdict == verdict
    Page(page(measured, _title, {}))  # also where every difference is 0, or all are gains


def test_the_worst_and_the_best_queries_show_both_rankings_with_grades() -> None:
    """Ten each at most, the greatest loss first; a query that gains nothing is in neither list."""
    measured = measurement(queries=40)
    read = Page(page(measured, _title, {}))
    values = measured.candidate.values["ndcg@10"] - measured.better_leg.values["ndcg@10"]
    worst = measured.candidate.query_ids[int(np.argmin(values))]
    listed = read.text[read.text.index("The worst queries") :]
    first = listed[listed.index("−0.") :]
    assert first.startswith(f"{values.min():+.3f} {measured.texts[worst]} ".replace("-", "−"))
    product = measured.runs[-1][worst][0][0]
    grade = measured.qrels[worst].get(product)
    assert f"{'–' if grade is None else f'{grade:g}'} {_title(product)}" in first
    assert read.count("summary") == 2 + min(10, int(np.sum(values < 0))) + min(10, int(np.sum(values > 0)))


def test_many_queries_are_thinned_in_the_drawing_and_said_to_be() -> None:
    """A thousand bars would be a smear and a large file."""
    bars: Callable[[Page], int] = lambda read: sum(a.get("class") in ("gain", "loss") for _, a in read.tags)  # noqa: E731
    read = Page(page(measurement(queries=1000), _title, {}))
    assert bars(read) == 400
    assert "400 of 1,000 queries" in read.text
    assert bars(Page(page(measurement(queries=30), _title, {}))) == 30
