"""What the tests of the promises found: one line a promise, for the screen and for artifacts/promises.*."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

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

    def write(self, folder: Path) -> None:
        """promises.json and promises.md, together with what earlier runs of other tests left there."""
        folder.mkdir(parents=True, exist_ok=True)
        merged = {(one.test, one.promise): one for one in [*_read(folder / "promises.json"), *self.entries]}
        entries = sorted(merged.values(), key=lambda one: (one.promise, one.form != "fast", one.test))
        (folder / "promises.json").write_text(json.dumps([asdict(one) for one in entries], indent=1) + "\n")
        (folder / "promises.md").write_text(table(entries))


def lines(entries: Sequence[Entry]) -> list[str]:
    """A line for each promise and form, the findings of its tests behind each other."""
    told = []
    for promise in sorted({one.promise for one in entries}):
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
        rows.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _read(path: Path) -> list[Entry]:
    try:
        return [Entry(**one) for one in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []
