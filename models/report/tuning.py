"""The page of `aisle tune`: what moved, and what it is worth out-of-fold."""

from __future__ import annotations

from collections.abc import Mapping

from models.out_of_fold import FOLDS, SEED
from models.report.markup import Markup, element
from models.report.page import STYLE
from models.report.tables import figure, metric_name, signed, signed_ends, table
from models.tuning import Tuned

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def tuning_page(tuned: Tuned, present: str, version: str | None, facts: Mapping[str, object]) -> str:
    """The whole file, which loads nothing. `version` is None where nothing was gained; `facts` name the judgements."""
    title = f"Tuned: {present} → {version}" if version else f"Nothing to gain: {present} stays"
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("style", Markup(STYLE.read_text(encoding="utf-8"))),
    ]
    compared = [
        (
            metric_name(one.metric),
            figure(one.baseline_mean),
            figure(one.candidate_mean),
            f"{signed(one.difference.estimate)} {signed_ends(one.difference)}",
            figure(one.p_holm),
            f"{one.wins} / {one.ties} / {one.losses}",
        )
        for one in tuned.comparisons
    ]
    columns = ("Metric", "Present", "Tuned", "Difference [95 %]", "p (Holm)", "Better / same / worse")
    moved = [(move.what, f"{move.before:g}", f"{move.after:g}") for move in tuned.moves]
    body = [
        element("h1", title),
        element("p", f"Out-of-fold over {FOLDS} folds (seed {SEED}); intervals and tests are paired by query."),
        table("Tuned against present", columns, compared),
        table("What moved", ("Number", "Before", "After"), moved) if moved else element("p", "Nothing moved."),
        element("footer", element("dl", *(_fact(name, value) for name, value in facts.items()))),
    ]
    document = element("html", element("head", *head), element("body", element("main", *body)), lang="en")
    return f"<!doctype html>\n{document}\n"


def _fact(name: str, value: object) -> Markup:
    return element("div", element("dt", name), element("dd", value))
