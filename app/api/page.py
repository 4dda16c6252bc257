"""The search page: three static files beside this one, under a policy that lets nothing else run."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import Request, Response
from starlette.routing import Route

from app.api.access import OPEN
from app.api.endpoint import Bytes, Handler, Header, route
from app.errors import NotFound

_FOLDER = Path(__file__).parent / "page"
_MEDIA_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}


def routes(*, show_images: bool) -> list[Route]:
    files = {file.name: _serve(file, show_images) for file in _FOLDER.iterdir() if file.suffix in _MEDIA_TYPES}

    async def asset(request: Request) -> Response:
        handler = files.get(request.path_params["name"])
        if handler is None:
            raise NotFound("there is nothing at this path")
        return await handler(request)

    return [route("/", OPEN, get=files["index.html"]), route("/page/{name}", OPEN, get=asset)]


def page_headers(*, show_images: bool = False) -> list[Header]:
    """Nothing from elsewhere, nothing inline, no frames; pictures from other hosts only where they may be shown."""
    images = "'self' https:" if show_images else "'self'"
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {images}; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    return [
        (b"content-security-policy", policy.encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    ]


def _serve(file: Path, show_images: bool) -> Handler:
    # Read once: the files ship with the code and are some 60 kB together.
    body = file.read_bytes()
    tag = b'"' + hashlib.blake2b(body, digest_size=8).hexdigest().encode() + b'"'
    headers = [*page_headers(show_images=show_images), (b"etag", tag)]
    media_type = _MEDIA_TYPES[file.suffix]

    async def serve(request: Request) -> Response:
        if request.headers.get("if-none-match", "").encode("latin-1") == tag:
            return Bytes(b"", 304, media_type, headers, cache=b"no-cache")
        return Bytes(body, 200, media_type, headers, cache=b"no-cache")

    return serve
