"""How the edge behaves: the part of the settings that concerns it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastapi import Request


@dataclass(frozen=True, slots=True)
class EdgeOptions:
    """Units are in the names. `show_images` lets the search page load pictures from other hosts; `serve_metrics` is off
    where metrics have a port of their own; `keys_file` and `is_open` are what app/api/keys.py makes of them."""

    timeout_ms: float = 1000.0
    max_body_bytes: int = 1024 * 1024
    docs: bool = False
    serve_metrics: bool = True
    show_images: bool = False
    log_queries: bool = False
    keys_file: Path | None = None
    is_open: bool = False


def options(request: Request) -> EdgeOptions:
    """The options that the application was installed with."""
    found: EdgeOptions = request.app.state.edge
    return found
