"""The change log: nothing that was acknowledged is lost, nothing that is damaged is believed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from app.errors import CorruptPart, Unavailable
from app.index import changes
from app.index.changes import ChangeLog, Edit
from tests.conftest import ROOT
from tests.ledger import Promise
from tests.promises.forms import forms


def _put(number: int) -> Edit:
    return Edit("put", f"p{number}", {"title": f"product {number}", "price": number})


def _numbers(log: ChangeLog) -> list[int]:
    return [change.sequence for change in log.news()]


def test_what_is_appended_is_read_once_and_in_order(tmp_path: Path) -> None:
    """By a reader that was there before, by one that comes later, and by one that begins in the middle."""
    early, writer = ChangeLog(tmp_path / "changes"), ChangeLog(tmp_path / "changes")
    assert early.news() == [] and early.id is None
    assert writer.append([[_put(1), _put(2)], [Edit("patch", "p1", {"price": None})]]) == [2, 3]
    first = early.news()
    told = [(one.sequence, one.edit.op, one.edit.id) for one in first]
    assert told == [(1, "put", "p1"), (2, "put", "p2"), (3, "patch", "p1")]
    assert first[2].edit.fields == {"price": None} and abs(first[0].at - time.time()) < 60
    assert early.news() == []
    assert writer.append([[Edit("delete", "p2", {})]]) == [4]
    assert _numbers(early) == [4]
    assert _numbers(ChangeLog(tmp_path / "changes")) == [1, 2, 3, 4]
    assert _numbers(ChangeLog(tmp_path / "changes", after=2)) == [3, 4]
    assert len(early.id or "") == 16


def test_writers_in_turns_go_on_where_the_other_ended(tmp_path: Path) -> None:
    """Two processes of one service share a log; here eight threads with an instance each."""
    logs = [ChangeLog(tmp_path) for _ in range(8)]
    ends: list[int] = []

    def write(log: ChangeLog) -> None:
        for number in range(20):
            ends.extend(log.append([[_put(number)]]))

    threads = [threading.Thread(target=write, args=(log,)) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == _numbers(ChangeLog(tmp_path)) == list(range(1, 161))


def test_a_record_that_was_never_finished_is_cut_off(tmp_path: Path) -> None:
    """At any byte: the changes before it stay, the next one takes its place. Zeros, as a power cut leaves them, too."""
    writer = ChangeLog(tmp_path)
    writer.append([[_put(1)]])
    segment = next(tmp_path.glob("*.log"))
    whole = segment.read_bytes()
    ChangeLog(tmp_path).append([[_put(2)]])
    longer = segment.read_bytes()
    for end in range(len(whole) + 1, len(longer)):
        segment.write_bytes(longer[:end])
        assert _numbers(ChangeLog(tmp_path)) == [1]
    for torn in (longer[:-3], whole + bytes(500)):
        segment.write_bytes(torn)
        reader = ChangeLog(tmp_path)
        assert _numbers(reader) == [1]
        assert ChangeLog(tmp_path).append([[_put(7)]]) == [2]
        assert [change.edit.id for change in reader.news()] == ["p7"]
    segment.write_bytes(longer)  # the control: whole, it counts
    assert _numbers(ChangeLog(tmp_path)) == [1, 2]


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """Wherever it is, the length of a record included: else all that follows would be taken for unfinished."""
    for number in range(6):
        ChangeLog(tmp_path).append([[_put(number)]])
    segment = next(tmp_path.glob("*.log"))
    whole = segment.read_bytes()
    generator = random.Random(7)
    places = generator.sample(range(8 * len(whole)), 400)
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        segment.write_bytes(damaged)
        with pytest.raises(CorruptPart, match=segment.name):
            ChangeLog(tmp_path).news()
        with pytest.raises(CorruptPart):
            ChangeLog(tmp_path).append([[_put(9)]])
        assert len(segment.read_bytes()) == len(whole)
    segment.write_bytes(whole)
    assert _numbers(ChangeLog(tmp_path)) == list(range(1, 7))


def test_segments_follow_each_other_and_old_ones_can_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that would need what is gone is told so."""
    monkeypatch.setattr(changes, "SEGMENT_BYTES", 300)
    writer, reader = ChangeLog(tmp_path), ChangeLog(tmp_path)
    for number in range(30):
        writer.append([[_put(number)]])
        if number == 12:
            assert _numbers(reader) == list(range(1, 14))
    assert len(list(tmp_path.glob("*.log"))) > 5
    assert _numbers(reader) == list(range(14, 31))
    removed = writer.trim(20)
    assert removed > 2
    assert _numbers(ChangeLog(tmp_path, after=20)) == list(range(21, 31))
    with pytest.raises(CorruptPart, match="are gone"):
        ChangeLog(tmp_path).news()
    assert ChangeLog(tmp_path).append([[_put(31)]]) == [31]


def test_a_log_that_is_shorter_than_what_was_built_from_it_is_refused(tmp_path: Path) -> None:
    """Else its next changes would count as known, and be lost."""
    ChangeLog(tmp_path).append([[_put(1)]])
    with pytest.raises(CorruptPart, match="ends at change 1, but 5"):
        ChangeLog(tmp_path, after=5).news()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, in mid-record or at its fsync: the caller is told, no reader sees it, the next one succeeds."""
    log, reader = ChangeLog(tmp_path), ChangeLog(tmp_path)
    log.append([[_put(1)]])
    assert _numbers(reader) == [1]
    real = os.pwrite

    def short(descriptor: int, data: bytes, at: int) -> int:
        if len(data) > 10:
            return real(descriptor, data[:10], at)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", short)
        with pytest.raises(Unavailable, match="no space left on device"):
            log.append([[Edit("put", "x", {"title": "y" * 3})]])
    assert reader.news() == []

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(Unavailable, match="input/output error"):
            log.append([[_put(2)]])
    assert reader.news() == []
    assert log.append([[_put(3)]]) == [2]
    assert [change.edit.id for change in reader.news()] == ["p3"]


def test_a_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    """As where bundles are mounted read-only."""
    (tmp_path / "changes").write_text("a file")
    with pytest.raises(Unavailable, match="cannot be kept"):
        ChangeLog(tmp_path / "changes").append([[_put(1)]])


_WRITER = """
import sys
from pathlib import Path
from app.index.changes import ChangeLog, Edit
log = ChangeLog(Path(sys.argv[1]))
number = int(sys.argv[2])
while True:
    for sequence in log.append([[Edit("put", f"p{number + at}", {"title": "x" * 700}) for at in range(3)]]):
        print(sequence, number + 2, flush=True)
    number += 3
"""


def _killed(folder: Path, generator: random.Random, acknowledged: dict[int, int]) -> None:
    """Start a writer, kill it at some moment, note what it said is kept."""
    number = max(acknowledged.values(), default=-1) + 1000
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(folder), str(number)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(generator.uniform(0.0, 0.03))
    process.send_signal(signal.SIGKILL)
    for line in process.stdout:
        if line.endswith("\n"):
            sequence, last = map(int, line.split())
            acknowledged[sequence] = last
    process.wait()


@pytest.mark.parametrize("kills", forms(10, 500))
def test_no_acknowledged_change_is_lost_to_a_kill(tmp_path: Path, promise: Promise, kills: int) -> None:
    """A writer is killed at random moments; after each, the log reads, and holds what it had acknowledged."""
    generator = random.Random(kills)
    acknowledged: dict[int, int] = {}
    with promise("L1", f"{kills} kills of a writer: no acknowledged change lost, no batch torn") as found:
        for _ in range(kills):
            _killed(tmp_path, generator, acknowledged)
            kept = {change.sequence: change.edit.id for change in ChangeLog(tmp_path).news()}
            assert sorted(kept) == list(range(1, len(kept) + 1))
            assert all(kept[sequence] == f"p{last}" for sequence, last in acknowledged.items())
            assert len(kept) % 3 == 0  # batches are whole
        found.figure = f"{kills} kills of a writer: {len(acknowledged):,} acknowledged batches, 0 lost"
        found.control = (
            f"{len(kept) // 3 - len(acknowledged)} more were kept and not yet acknowledged: killed in between"
        )
        assert len(acknowledged) > kills
