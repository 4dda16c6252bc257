"""What makes written files last."""

from __future__ import annotations

import os
from pathlib import Path


def fsync(path: Path) -> None:
    """Put a file, or a folder's entries, on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """A folder, with those above it, that a loss of power does not take away again. Raises OSError."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync(folder.parent)
