"""The least a FastAPI service can do: one POST route with a pydantic body that returns ready bytes."""

from __future__ import annotations

import argparse

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel


class Body(BaseModel):
    """The body that the bench sends."""

    query: str
    k: int = 10


def create(answer: bytes) -> FastAPI:
    """An application that answers every POST /v1/search with the same bytes."""
    app = FastAPI(openapi_url=None)

    @app.post("/v1/search")
    async def search(body: Body) -> Response:
        return Response(answer, media_type="application/json")

    return app


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        print(f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bytes", type=int, required=True, help="length of the answer")
    size = parser.parse_args().bytes
    _Server(
        uvicorn.Config(
            create(b"x" * size),
            port=0,
            loop="uvloop",
            http="httptools",
            access_log=False,
            log_level="warning",
            ws="none",
        )
    ).run()
