"""The published bundle: the one thing in which offline and online meet. This module owns its format both ways.

    DIR/
    ├── CURRENT               text: the version that is served
    ├── HISTORY               text: published versions, oldest first; roll back reads it
    ├── GATE/VERSION.json     what the gate last said of a version: outcome, reason where it was forced, every check;
    │                         beside the versions, because a version is sealed before it is judged
    ├── 20261123-ab12cd34/    a version: date + first 8 hex digits of its manifest's sha256; never changed once there
    │   ├── manifest.json     sha256 and size of every other file, and the ranking configuration
    │   ├── encoder.onnx tokenizer.json encoder.json
    │   ├── static.npy        rows of the static query encoder, where it passed its check
    │   ├── dense.faiss embeddings.npy hashes.npy    what is searched; what the next build may reuse
    │   ├── dense.codes.npy      stored vectors, where dense.faiss holds only what chooses among them
    │   ├── lexical.* catalog.*
    │   ├── golden.json       queries and their expected answers, re-run at every start and every minute
    │   └── gate.*.tsv        judgements that this version and its successors are gated on, where there are any
    └── collections/NAME/     the same again for every collection but "default"

Publishing writes and fsyncs every file in a temporary folder, renames it to its version, fsyncs the parent, and only
then replaces CURRENT (again by temporary file, fsync, rename). Whatever is killed in between, CURRENT names a whole
version.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.errors import BundleError, CorruptPart, NotFound
from app.index.files import fsync, make_folder
from app.pace import give_way, is_aside

MANIFEST = "manifest.json"
FORMAT = 1
DEFAULT_COLLECTION = "default"
_CURRENT = "CURRENT"
_HISTORY = "HISTORY"
_GATE = "GATE"
_VERSION = re.compile(r"\d{8}-[0-9a-f]{8}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_LARGEST_MANIFEST_BYTES = 4 << 20
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
EMBEDDINGS, HASHES = "embeddings.npy", "hashes.npy"
_TEMPORARY = ".building-"
_HASHED_AT_ONCE = 4  # files


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version says of itself. `parts` maps file name to (sha256, bytes)."""

    collection: str
    created: str
    parts: dict[str, tuple[str, int]]
    content: dict[str, Any]
    sha256: str

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        """Raises CorruptPart for anything that is not a manifest of this format."""
        try:
            value = json.loads(raw)
            if value["format"] != FORMAT:
                raise CorruptPart(f"{MANIFEST}: format {value['format']!r}, this aisle reads {FORMAT}")
            parts = {name: (part["sha256"], part["bytes"]) for name, part in value["parts"].items()}
            for name, (digest, size) in parts.items():
                if not _PART.fullmatch(name) or name == MANIFEST:
                    raise CorruptPart(f"{MANIFEST}: part name {name!r}")
                if not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) and isinstance(size, int)):
                    raise CorruptPart(f"{MANIFEST}: digest of {name}")
            content = value["content"]
            if not isinstance(content, dict):
                raise CorruptPart(f"{MANIFEST}: content is not an object")
            collection, created = check_collection(value["collection"]), str(value["created"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptPart(f"{MANIFEST}: not a manifest ({type(error).__name__})") from error
        return cls(collection, created, parts, content, hashlib.sha256(raw).hexdigest())


class BundleStore:
    """The versions of one collection in one folder."""

    def __init__(self, root: Path, collection: str = DEFAULT_COLLECTION) -> None:
        self.collection = check_collection(collection)
        self.folder = root if collection == DEFAULT_COLLECTION else root / "collections" / collection

    def current(self) -> str | None:
        """The version that CURRENT names, or None before the first publish. Raises CorruptPart for other content."""
        try:
            name = (self.folder / _CURRENT).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise CorruptPart(f"{_CURRENT}: unreadable ({type(error).__name__})") from error
        if not _VERSION.fullmatch(name):
            raise CorruptPart(f"{_CURRENT}: {name[:40]!r} is not a version")
        return name

    def versions(self) -> list[str]:
        """Every version that is there, in order of their dates."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if _VERSION.fullmatch(path.name) and path.is_dir())

    def history(self) -> list[str]:
        """Published versions, oldest first; the last one is served."""
        try:
            lines = (self.folder / _HISTORY).read_text(encoding="ascii", errors="replace").split()
        except FileNotFoundError:
            return []
        return [line for line in lines if _VERSION.fullmatch(line)]

    def path(self, version: str) -> Path:
        """The folder of a version. Raises NotFound when it is not there."""
        folder = self.folder / version
        if not _VERSION.fullmatch(version) or not folder.is_dir():
            raise NotFound(f"no version {version!r} in {self.folder.name}")
        return folder

    @contextmanager
    def building(self) -> Iterator[Path]:
        """A temporary folder to write a version's parts into; gone afterwards unless `seal` took it.

        What killed builds left behind goes, too: a living build holds the lock of its folder."""
        make_folder(self.folder)
        with ExitStack() as held:
            with _locked(self.folder):  # else another build could meet this one's folder before it is locked
                for left in self.folder.glob(f"{_TEMPORARY}*"):
                    with suppress(OSError), _locked(left, wait=False):
                        shutil.rmtree(left)
                folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.folder))
                held.enter_context(_locked(folder))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def seal(self, folder: Path, content: dict[str, Any], created: datetime | None = None) -> str:
        """Write the manifest over the parts in `folder`, make all of it durable, rename it to its version."""
        created = created or datetime.now(UTC)
        names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
        parts = {
            name: {"sha256": file_digest(folder / name), "bytes": (folder / name).stat().st_size} for name in names
        }
        raw = json.dumps(
            {
                "format": FORMAT,
                "collection": self.collection,
                "created": created.isoformat(timespec="seconds"),
                "parts": parts,
                "content": content,
            },
            indent=1,
            sort_keys=True,
            ensure_ascii=False,
        ).encode()
        (folder / MANIFEST).write_bytes(raw)
        for name in [*names, MANIFEST]:
            (folder / name).chmod(0o644)
            fsync(folder / name)
        folder.chmod(0o755)
        fsync(folder)
        version = f"{created:%Y%m%d}-{hashlib.sha256(raw).hexdigest()[:8]}"
        target = self.folder / version
        if not target.exists():
            folder.rename(target)
            fsync(self.folder)
        return version

    def publish(self, version: str) -> None:
        """Make a verified version the served one. Raises NotFound or CorruptPart and changes nothing then."""
        self.verify(version)
        with _locked(self.folder):
            self._serve(version, [*self._history_to_current(), version])

    def keep_gate_record(self, version: str, record: dict[str, Any]) -> None:
        """Write down, durably, what the gate said of a version. Raises NotFound for a version that is not there."""
        self.path(version)
        folder = self.folder / _GATE
        make_folder(folder)
        with _locked(folder):
            _replace(folder / f"{version}.json", json.dumps(record, indent=1) + "\n")

    def gate_record(self, version: str) -> dict[str, Any] | None:
        """What the gate last said of a version; None where it was never asked, or what it said cannot be read."""
        try:
            record = json.loads((self.folder / _GATE / f"{version}.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) else None

    def earlier(self) -> str:
        """The version published before the current one. Raises NotFound when there is none."""
        return self._earlier_history()[-1]

    def roll_back(self) -> str:
        """Serve the version published before the current one. Raises NotFound when there is none."""
        with _locked(self.folder):
            history = self._earlier_history()
            self.verify(history[-1])
            self._serve(history[-1], history)
            return history[-1]

    def _earlier_history(self) -> list[str]:
        current = self.current()
        history = self._history_to_current()
        while history and (history[-1] == current or not (self.folder / history[-1]).is_dir()):
            history.pop()
        if not history:
            raise NotFound("there is no earlier version to roll back to")
        return history

    def _history_to_current(self) -> list[str]:
        """History up to the version that CURRENT names: a crash between the two writes can leave either one ahead."""
        history = self.history()
        current = self.current()
        if current not in history:
            return [*history, current] if current else history
        return history[: len(history) - history[::-1].index(current)]

    def _serve(self, version: str, history: list[str]) -> None:
        _replace(self.folder / _CURRENT, version + "\n")
        _replace(self.folder / _HISTORY, "\n".join(history) + "\n")

    def verify(self, version: str) -> Manifest:
        """Check every byte of a version against its manifest, and the manifest against the version's name.

        Raises CorruptPart naming the part, with expected and found digest; NotFound for a version that is not there."""
        try:
            return self._verify(version)
        except OSError as error:
            raise CorruptPart(f"{Path(error.filename or version).name}: unreadable ({error.strerror})") from error

    def _verify(self, version: str) -> Manifest:
        folder = self.path(version)
        manifest = read_manifest(folder)
        if version.split("-")[1] != manifest.sha256[:8]:
            raise CorruptPart(f"{MANIFEST}: sha256 begins {manifest.sha256[:8]}, the version's name says {version[9:]}")
        if manifest.collection != self.collection:
            raise CorruptPart(f"{MANIFEST}: made for collection {manifest.collection!r}, not {self.collection!r}")
        found = {path.name for path in folder.iterdir()} - {MANIFEST}
        for name in sorted(found - manifest.parts.keys()):
            raise CorruptPart(f"{name}: not in the manifest")
        if is_aside():
            for name, part in manifest.parts.items():
                _check_part(folder / name, *part)
                give_way()
            return manifest
        with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:  # hashing lets go of the interpreter
            checks = [pool.submit(_check_part, folder / name, *part) for name, part in manifest.parts.items()]
            try:
                for check in checks:  # in the manifest's order, so that the same part is named every time
                    check.result()
            finally:
                pool.shutdown(cancel_futures=True)
        return manifest


def check_collection(name: Any) -> str:
    """The name, if it may be a collection's. Raises BundleError otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BundleError("a collection's name is 1 to 64 of a-z, 0-9, _ and -, and begins with a letter or digit")
    return name


def collections_in(root: Path) -> list[str]:
    """Names of the collections with a published version under `root`, "default" first. Raises BundleError for a folder
    that cannot be read."""
    others = root / "collections"
    try:
        names = {path.name for path in others.iterdir() if _NAME.fullmatch(path.name)} if others.is_dir() else set()
        first = [DEFAULT_COLLECTION] if (root / _CURRENT).exists() else []
        return first + sorted(name for name in names - {DEFAULT_COLLECTION} if (others / name / _CURRENT).exists())
    except OSError as error:
        raise BundleError(f"{root}: cannot be read ({error.strerror})") from error


def read_manifest(folder: Path) -> Manifest:
    """Parse a version's manifest; a regular file of sane size, or CorruptPart."""
    path = folder / MANIFEST
    _check_regular(path)
    if path.stat().st_size > _LARGEST_MANIFEST_BYTES:
        raise CorruptPart(f"{MANIFEST}: larger than {_LARGEST_MANIFEST_BYTES} bytes")
    return Manifest.parse(path.read_bytes())


def file_digest(path: Path) -> str:
    """sha256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_part(path: Path, digest: str, size: int) -> None:
    _check_regular(path)
    actual_size = path.stat().st_size
    if actual_size != size:
        raise CorruptPart(f"{path.name}: {actual_size} bytes, expected {size}")
    actual = file_digest(path)
    if actual != digest:
        raise CorruptPart(f"{path.name}: sha256 {actual}, expected {digest}")


def _check_regular(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError as error:
        raise CorruptPart(f"{path.name}: missing") from error
    # A link could be pointed elsewhere after its digest was checked; ONNX Runtime, too, follows hard links.
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise CorruptPart(f"{path.name}: not a plain file of its own")


def _replace(path: Path, text: str) -> None:
    """Durably, and wholly or not at all. The caller holds the folder's lock: what lies there half-written is a killed
    process's, and goes."""
    for left in path.parent.glob(f".{path.name}-*"):
        left.unlink()
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    fsync(path.parent)


@contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder's lock, which ends with the process at the latest. BlockingIOError where another has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)
