"""What the tests of the promises found: one line a promise, for the screen and for artifacts/promises.*.

tests/conftest.py loads this as a plugin, so a test in any folder enters its finding, in one of two ways. With the
fixture, where there are figures to tell:

    with promise("D4", "the bar") as found: ...

With the marker, where a test is one case of many and the figure is how many of them held:

    @pytest.mark.promise("S3", "the bar", control="how it is known that the fault happened", metric="what moved")

Tests with the fixture get the marker, too, so that `-m promise` selects both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

FORMS = ("fast", "deep")


@dataclass
class Entry:
    """One test's finding. `figure` is what was seen, `control` how it is known that the fault happened, `metric` what
    the service itself said of it."""

    promise: str
    bar: str
    form: str
    test: str
    seed: int
    figure: str = ""
    control: str = ""
    metric: str = ""
    passed: bool = False
    cases: int = 0
    kept: int = 0
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


class Ledger:
    """The entries of one run."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    @contextmanager
    def entry(self, promise: str, bar: str, *, form: str, test: str, seed: int) -> Iterator[Entry]:
        """An entry that has passed where the block ends without an error."""
        found = Entry(promise, bar, form, test, seed)
        self.entries.append(found)
        yield found
        found.passed = True

    def case(
        self,
        promise: str,
        bar: str,
        *,
        form: str,
        test: str,
        seed: int,
        kept: bool,
        control: str = "",
        metric: str = "",
    ) -> None:
        """One case more of a test's entry, which has passed where all of its cases were kept."""
        key = (promise, form, test)
        found = next((one for one in self.entries if one.cases and (one.promise, one.form, one.test) == key), None)
        if found is None:
            found = Entry(promise, bar, form, test, seed, control=control, metric=metric)
            self.entries.append(found)
        found.cases += 1
        found.kept += kept
        found.passed = found.kept == found.cases
        found.figure = f"{found.kept} of {found.cases}: {_words(test)}"

    def write(self, folder: Path) -> None:
        """promises.json and promises.md, together with what earlier runs of other tests left there."""
        folder.mkdir(parents=True, exist_ok=True)
        both = [*_read(folder / "promises.json"), *self.entries]
        merged = {(one.test, one.promise, one.form): one for one in both}
        entries = sorted(merged.values(), key=lambda one: (_place(one.promise), one.form != "fast", one.test))
        (folder / "promises.json").write_text(json.dumps([asdict(one) for one in entries], indent=1) + "\n")
        (folder / "promises.md").write_text(table(entries))


def lines(entries: Sequence[Entry]) -> list[str]:
    """A line for each promise and form, the findings of its tests behind each other."""
    told = []
    for promise in sorted({one.promise for one in entries}, key=_place):
        for form in FORMS:
            found = [one for one in entries if (one.promise, one.form) == (promise, form)]
            if found:
                verdict = "kept  " if all(one.passed for one in found) else "BROKEN"
                figures = "; ".join(one.figure or "nothing was measured" for one in found)
                told.append(f"{promise:4}{form:5}{verdict} {figures}")
    return told


def table(entries: Sequence[Entry]) -> str:
    """The same in Markdown, with bars, controls and metrics."""
    rows = ["| promise | form | bar | figure | kept | control | metric | seed | run |", "|" + "---|" * 9]
    for one in entries:
        kept = "yes" if one.passed else "**no**"
        cells = (one.promise, one.form, one.bar, one.figure, kept, one.control, one.metric, one.seed, one.at)
        rows.append("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _place(promise: str) -> tuple[str, int]:
    """S10 comes after S9."""
    return promise[:1], int(promise[1:])


def _words(test: str) -> str:
    return test.rpartition("::")[2].removeprefix("test_").replace("_", " ")


def _read(path: Path) -> list[Entry]:
    try:
        return [Entry(**one) for one in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []


# ------------------------------------------------------------------------------------------- the plugin

_LEDGER = Ledger()
Promise = Callable[[str, str], AbstractContextManager[Entry]]


def _seed() -> int:
    return int(os.environ.get("AISLE_TEST_SEED", "1"))


def _form(item: pytest.Item) -> str:
    return "deep" if item.get_closest_marker("deep") else "fast"


@pytest.fixture
def seed() -> int:
    """What every draw of a test depends on; AISLE_TEST_SEED names another."""
    return _seed()


@pytest.fixture
def promise(request: pytest.FixtureRequest, seed: int) -> Promise:
    """`with promise("D4", "the bar") as found:` enters the test's finding in the table."""
    print(f"seed {seed}")
    form, test = _form(request.node), request.node.nodeid
    return lambda name, bar: _LEDGER.entry(name, bar, form=form, test=test, seed=seed)


@pytest.hookimpl(tryfirst=True)  # before -m deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "promise" in getattr(item, "fixturenames", ()):
            item.add_marker("promise")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.skipped or (report.when != "call" and report.passed):
        return report  # type: ignore[return-value]
    for marker in item.iter_markers("promise"):
        if marker.args:
            name, bar = marker.args
            test = item.nodeid.partition("[")[0]
            more = {"form": _form(item), "test": test, "seed": _seed(), "kept": report.passed}
            _LEDGER.case(name, bar, **more, **marker.kwargs)
    return report  # type: ignore[return-value]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _LEDGER.entries:
        terminalreporter.section("promises")
        for line in lines(_LEDGER.entries):
            terminalreporter.line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _LEDGER.entries:
        _LEDGER.write(session.config.rootpath / "artifacts")
