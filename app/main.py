"""The service, put together: settings → collections → cache → queue → service → edge."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from app import __version__, metrics
from app.api.install import entrance, install
from app.api.options import EdgeOptions
from app.api.protocol import TimedHttpProtocol
from app.api.rehearsal import rehearse
from app.api.scrape import Scrapes
from app.errors import AisleError
from app.pace import end_all
from app.runtime.batcher import Batcher
from app.runtime.cores import Home, anywhere, worker_threads
from app.runtime.interpreter import settle
from app.runtime.member import METRICS_FOLDER, Membership, bind
from app.search.cache import Cache
from app.search.collections import Collections
from app.search.searcher import Job, process
from app.search.service import SearchService
from app.settings import Settings

_log = logging.getLogger("aisle")


def create_app(settings: Settings) -> FastAPI:
    """An application that loads, verifies and warms every collection before it is ready."""
    fold = partial(_fold, settings) if settings.fold_after else None
    collections = Collections(
        settings.bundles, settings.provider, settings.changes, fold=fold, after=settings.fold_after
    )
    cache = Cache(
        round(settings.cache_mb * 2**20),
        settings.redis_url,
        settings.cache_ttl_s,
        redis_timeout_s=settings.redis_timeout_ms / 1e3,
    )
    batcher: Batcher[Job] = Batcher(
        lambda jobs: process(jobs, batcher.load()),
        workers=settings.workers or worker_threads(),
        max_batch=settings.max_batch,
        max_waiting=settings.max_waiting,
    )
    service = SearchService(collections, cache, batcher, show_images=settings.show_images)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.open()
        provider = next(iter(collections.all().values())).searcher.encoder.provider
        metrics.STARTS.inc()
        metrics.BUILD.labels(__version__, provider).set(1)
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="aisle",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looked up on every request otherwise
    )
    options = EdgeOptions(
        timeout_ms=settings.timeout_ms,
        max_body_bytes=settings.max_body_kb * 1024,
        docs=settings.docs,
        serve_metrics=settings.metrics_port is None,
        show_images=settings.show_images,
        log_queries=settings.log_queries,
        keys_file=settings.api_keys_file,
        is_open=settings.open,
    )
    install(app, service, options)
    return app


async def _fold(settings: Settings, collection: str) -> None:
    """`aisle fold` in a process of its own, which gives way to searches."""
    command = ["nice", "-n", "15", sys.executable, "-m", "scripts.cli", "fold", "--bundles", str(settings.bundles)]
    command += ["--collection", collection, *(["--changes", str(settings.changes)] if settings.changes else [])]
    environment = {name: value for name, value in os.environ.items() if name != METRICS_FOLDER}  # it serves nobody
    _log.info("collection %s: making a version of its changes", collection)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=pipe, stderr=pipe, preexec_fn=anywhere
    )
    try:
        told, complaints = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        raise
    if process.returncode:
        _log.error("collection %s: no version was made of its changes:\n%s", collection, (told + complaints).decode())


class _Server(uvicorn.Server):
    """Drains before it stops: on the first signal it says "not ready" and goes on serving for a while, so that a load
    balancer sends nothing new; a second signal stops at once. (uvicorn alone resets what is under way: behind HAProxy
    12 restarts lost 1,290 of 21,358 requests, with a drain of a second none of 32,259.)"""

    def __init__(
        self, config: uvicorn.Config, service: SearchService, drain_s: float, membership: Membership | None
    ) -> None:
        super().__init__(config)
        self._service = service
        self._drain_s = drain_s
        self._told = False  # to stop
        self._membership = membership
        self._life: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not uvicorn's own: that raises the signal again at the end, and a stop in good order would exit with 143.
        # And nothing that takes a lock, such as a metric: the loop may have been interrupted while it held it.
        if self._told:
            self.force_exit = self.should_exit
            self.should_exit = True
            return
        self._told = True
        asyncio.get_event_loop().call_soon_threadsafe(self.drain_and_stop)

    def drain_and_stop(self) -> None:
        """Not ready from now on; the end comes later."""
        self._told = True
        self._service.drain()
        asyncio.get_running_loop().call_later(self._drain_s, self._stop)

    def _stop(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self._life is not None:
            self._life.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._membership is not None:  # its first sign of life says that it listens
            self._life = asyncio.create_task(self._membership.live(self.drain_and_stop))
            return
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"aisle {__version__} serves http://{shown}:{port}", flush=True)


def serve(settings: Settings, membership: Membership | None = None) -> int:
    """Load, verify, warm up, then listen until told to stop; as one process of several where there is a `membership`.
    Returns the exit code: 0, or 1 when start-up failed, with one line that says why."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        app = create_app(settings)
        config = _uvicorn_config(entrance(app), settings.host, settings.port)
        server = _Server(config, app.state.service, settings.drain_s, membership)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(app, server, settings, membership))
    except AisleError as error:
        _log.error("%s", error.detail)
        return 1
    except SystemExit:  # uvicorn's, when it cannot listen; it has said why
        return 1
    finally:
        end_all()  # a version that is being loaded will serve nobody
    return 0


async def _run(app: FastAPI, server: _Server, settings: Settings, membership: Membership | None) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(initializer=anywhere))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        settle()
        await rehearse(app, server.config, app.state.service.golden())
        if membership is None:
            if settings.metrics_port is not None:
                await stack.enter_async_context(_metrics_beside(settings))
            await server.serve()
            return
        await membership.loaded()
        if membership.core >= 0:
            stack.enter_context(Home(membership.core).kept())
        if settings.metrics_port is not None:
            await stack.enter_async_context(_metrics_beside(settings, bind(settings.host, settings.metrics_port)))
        await server.serve(bind(settings.host, settings.port))


@asynccontextmanager
async def _metrics_beside(settings: Settings, sockets: list[socket.socket] | None = None) -> AsyncIterator[None]:
    """/metrics on a port of its own."""
    server = uvicorn.Server(_uvicorn_config(Scrapes(), settings.host, settings.metrics_port or 0))
    task = asyncio.create_task(server._serve(sockets))  # serve() would take the signals
    try:
        yield
    finally:
        server.should_exit = True
        await task


def _uvicorn_config(app: Any, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=TimedHttpProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        log_config=None,
        log_level="warning",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=30,
    )
