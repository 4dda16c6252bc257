"""aisle publish: the gate, then the served version; running services follow within a second."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from app import __version__
from app.errors import BadInput
from app.index.bundle import BundleStore
from models.gate import Judgements, Limits, Verdict, judge
from models.relevance import Gain, Qrels, Queries
from scripts.output import Output
from scripts.stored import add_bundle_arguments, store_of

FORCED = "forced"
_OLDEST_DAYS = 100_000
_REFUSED = 3  # the exit code of whatever was refused


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version_id", metavar="VERSION", help="such as 20261123-ab12cd34")
    add_bundle_arguments(parser, version=False)
    add_gate_arguments(parser)
    parser.add_argument("--relevant-at", type=float, default=2.0, help="least grade that is relevant (default: 2)")


def add_gate_arguments(parser: argparse.ArgumentParser) -> None:
    """What the gate is told: judgements, limits, and the way round it."""
    gate = parser.add_argument_group("the gate", "refuses a version that is worse than the served one (exit code 3)")
    gate.add_argument(
        "--gate-queries", type=Path, help="judged queries (default: those that the version was built with)"
    )
    gate.add_argument(
        "--gate-qrels", type=Path, help="their grades; products that one of the versions lacks are left out"
    )
    margin = Limits.margin
    gate.add_argument(
        "--margin",
        type=float,
        default=margin,
        help=f"most nDCG@10 and recall@100 that may be lost (default: {margin:g})",
    )
    gate.add_argument("--max-age", type=float, metavar="DAYS", help="oldest catalogue to publish (default: any)")
    gate.add_argument(
        "--force", metavar="REASON", help="publish what the gate refuses; the reason is kept with the table"
    )


def run(arguments: argparse.Namespace, output: Output) -> int:
    store = store_of(arguments)
    before = store.current()
    gated = publish_through_gate(store, arguments.version_id, arguments)
    done = f"published {arguments.version_id} (before: {before})" if gated.published else ""
    return gated.tell(output, {"published": arguments.version_id if gated.published else None, "before": before}, done)


@dataclass(frozen=True)
class Gated:
    """What became of a version at the gate; `reason` is why it was let through all the same."""

    verdict: Verdict
    reason: str | None

    @property
    def published(self) -> bool:
        return not self.verdict.refused or self.reason is not None

    @property
    def outcome(self) -> str:
        """passed, ungated, refused or forced."""
        return FORCED if self.verdict.refused and self.reason is not None else self.verdict.outcome

    def record(self) -> dict[str, Any]:
        """What is kept beside the version."""
        return {
            **self.verdict.to_json(),
            "outcome": self.outcome,
            "reason": self.reason,
            "aisle": __version__,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def tell(self, output: Output, value: dict[str, Any], done: str) -> int:
        """The result with the table; returns the exit code. `value` and `done` are what the command itself says."""
        told = {**value, "gate_verdict": self.record()}
        table = self.verdict.table().text()
        if self.published:
            word = f"forced past the gate: {self.reason}" if self.outcome == FORCED else self.verdict.summary
            output.result(told, f"{done}\n\n{table}\n\n{word}")
            return 0
        output.result({**told, "error": self.verdict.summary, "exit_code": _REFUSED}, f"{done}\n\n{table}".strip())
        output.say(f"aisle: refused: {self.verdict.summary}; --force REASON publishes it all the same")
        return _REFUSED


def publish_through_gate(store: BundleStore, version: str, arguments: argparse.Namespace) -> Gated:
    """Judge a version, write down what was found, and publish it if it passes or is forced.

    Raises NotFound, BadInput for judgements that lack their other half, JudgementError; and CorruptPart for a forced
    version that is not intact, which no reason makes servable."""
    check_gate_arguments(arguments)
    max_age = None if arguments.max_age is None else timedelta(days=arguments.max_age)
    limits = Limits(max_age=max_age, margin=arguments.margin)
    gated = Gated(judge(store, version, _given(arguments), limits), arguments.force)
    if gated.outcome == FORCED:
        store.verify(version)
    store.keep_gate_record(version, gated.record())
    if gated.published:
        store.publish(version)
    return gated


def check_gate_arguments(arguments: argparse.Namespace) -> None:
    """What can be wrong with them before there is a version to judge. Raises BadInput."""
    if arguments.force is not None and not arguments.force.strip():
        raise BadInput("--force needs a reason: it is what remains when somebody asks")
    if (arguments.gate_queries is None) != (arguments.gate_qrels is None):
        raise BadInput("--gate-queries and --gate-qrels belong together")
    if not math.isfinite(arguments.margin):  # beside NaN everything would pass
        raise BadInput(f"--margin {arguments.margin:g} is no difference of nDCG")
    if arguments.max_age is not None and not 0 <= arguments.max_age <= _OLDEST_DAYS:
        raise BadInput(f"--max-age {arguments.max_age:g}: a number of days, 0 to {_OLDEST_DAYS:,}")


def moment(text: str) -> datetime:
    """An ISO 8601 time; one without a zone is in UTC."""
    read = datetime.fromisoformat(text)
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def gate_judgements(arguments: argparse.Namespace) -> Judgements | None:
    """What a build leaves in its version for the gate: judgements given for it, else those that it is fitted to."""
    given = _given(arguments)
    if given is not None or arguments.queries is None:
        return given
    qrels = Qrels.load(arguments.qrels, arguments.duplicates)
    return Judgements(Queries.load(arguments.queries), qrels, Gain(relevant_at=arguments.relevant_at))


def _given(arguments: argparse.Namespace) -> Judgements | None:
    if arguments.gate_queries is None:
        return None
    queries, qrels = Queries.load(arguments.gate_queries), Qrels.load(arguments.gate_qrels)
    return Judgements(queries, qrels, Gain(relevant_at=arguments.relevant_at))
