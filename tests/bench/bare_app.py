"""The least a FastAPI service can do: one POST route with a pydantic body that returns ready bytes."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

from app.runtime.member import bind


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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bytes", type=int, required=True, help="length of the answer")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="that share the port, as aisle's do")
    arguments = parser.parse_args()
    config = uvicorn.Config(
        create(b"x" * arguments.bytes),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        ws="none",
    )
    sockets = bind("127.0.0.1", arguments.port)
    port = sockets[0].getsockname()[1]
    command = [sys.executable, "-m", "tests.bench.bare_app", "--bytes", str(arguments.bytes), "--port", str(port)]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(arguments.processes - 1)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again at the end, past what follows
    try:
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        _Server(config).run(sockets)
    finally:
        for other in others:
            other.terminate()
            other.wait()


if __name__ == "__main__":
    main()
