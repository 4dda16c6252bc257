"""In CI a test that is skipped without leave fails the run: a skip nobody reads is a test nobody has.

tests/conftest.py loads this as a plugin. It acts where CI=true; `tests/allowed_skips.txt` lists what may be skipped. A
test that says it needs AISLE_TEST_DATA may be skipped where that variable is not set, and only there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ALLOWED = Path(__file__).with_name("allowed_skips.txt")
_SKIPPED: dict[str, str] = {}


def allowed(listing: str) -> frozenset[str]:
    """The entries of a listing: a node id without its parameters, a file or a folder; words after # say why."""
    return frozenset(entry for line in listing.splitlines() if (entry := line.partition("#")[0].strip()))


def unlisted(skipped: dict[str, str], listing: str, data_is_here: bool) -> dict[str, str]:
    """Of `skipped` (node id → reason), those without leave."""
    entries = allowed(listing)

    def has_leave(node: str, reason: str) -> bool:
        if "AISLE_TEST_DATA" in reason:
            return not data_is_here
        test = node.partition("[")[0]
        return any(test == entry or test.startswith((f"{entry}::", f"{entry.rstrip('/')}/")) for entry in entries)

    return {node: reason for node, reason in skipped.items() if not has_leave(node, reason)}


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)


def _without_leave() -> dict[str, str]:
    if os.environ.get("CI") != "true":
        return {}
    listing = ALLOWED.read_text(encoding="utf-8") if ALLOWED.exists() else ""
    return unlisted(_SKIPPED, listing, bool(os.environ.get("AISLE_TEST_DATA")))


def pytest_sessionstart() -> None:
    _SKIPPED.clear()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _SKIPPED[report.nodeid] = _reason(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _SKIPPED[report.nodeid] = _reason(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if found := _without_leave():
        terminalreporter.section("skipped without leave (tests/allowed_skips.txt)", red=True)
        for node, reason in sorted(found.items()):
            terminalreporter.line(f"{node}: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _without_leave() and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
