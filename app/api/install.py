"""Puts the edge on an application, in running order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import classify, docs, health, page, problems, products, rerank, rescore, search, versions, whynot
from app.api.endpoint import Endpoint
from app.api.keys import Keys
from app.api.middleware import Edge
from app.api.openapi import document
from app.api.options import EdgeOptions
from app.errors import AisleError

if TYPE_CHECKING:
    from app.search.service import SearchService


def install(app: FastAPI, service: SearchService, options: EdgeOptions) -> None:
    """Give `app` its routes, its one error handler, its OpenAPI document and its outermost layer.

    `app` is best made with `openapi_url=None` and `redirect_slashes=False`: the documents are served here, and a
    redirect would trust the Host header. Raises KeyFileError."""
    app.state.service = service
    app.state.keys = Keys(options.keys_file, is_open=options.is_open)
    app.state.edge = options
    routes = _routes(options)
    app.router.routes.extend(routes)
    app.add_exception_handler(AisleError, problems.handle)
    app.add_exception_handler(HTTPException, problems.handle)
    plain = {one.path: one.endpoint for one in routes if isinstance(one.endpoint, Endpoint) and "{" not in one.path}
    within = app.build_middleware_stack  # around Starlette's own layers, which `add_middleware` would leave outside

    def stack() -> Edge:
        return Edge(within(), service=service, max_body_bytes=options.max_body_bytes, direct=plain)

    app.build_middleware_stack = stack  # type: ignore[method-assign]  # Starlette calls it once, at the first request
    app.openapi = lambda: document(app.routes, keyed=app.state.keys.required)  # type: ignore[method-assign]  # as FastAPI says


def entrance(app: FastAPI) -> ASGIApp:
    """The outermost layer of an installed application, which FastAPI and Starlette would pass every request on to."""
    app.middleware_stack = stack = app.build_middleware_stack()

    async def enter(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = app
        await stack(scope, receive, send)

    return enter


def _routes(options: EdgeOptions) -> list[Route]:
    # The router tries them in turn, so the busiest comes first.
    return [
        *search.routes(),
        *rescore.routes(),
        *rerank.routes(),
        *classify.routes(),
        *whynot.routes(),
        *products.routes(),
        *versions.routes(),
        *health.routes(serve_metrics=options.serve_metrics),
        *page.routes(show_images=options.show_images),
        *(docs.routes() if options.docs else []),
    ]
