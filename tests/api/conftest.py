"""The edge around the stand-in service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.api import EdgeOptions, install
from tests.api.stub_service import StubService


def edge_app(service: StubService, **options: Any) -> FastAPI:
    """An application with the whole edge and nothing behind it but the stand-in."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    install(app, service, EdgeOptions(**options))  # type: ignore[arg-type]
    return app


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """A client that drives the application in this process."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://edge")


@pytest.fixture
def service() -> StubService:
    """The stand-in, fresh."""
    return StubService()


@pytest.fixture
def make_app(service: StubService) -> Callable[..., FastAPI]:
    """Makes the application, with options."""
    return lambda **options: edge_app(service, **options)


@pytest.fixture
async def client(service: StubService) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with default options and documents."""
    async with client_of(edge_app(service, docs=True)) as client:
        yield client
