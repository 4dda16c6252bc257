"""How the service runs, read once from the environment. What it serves (model, weights, depths) is in the bundle."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_PREFIX = "AISLE_"
_NOT_OURS = ("AISLE_TEST_", "AISLE_BENCH_")


class SettingsError(ValueError):
    """A setting that cannot be meant; the message names the variable and what it takes."""


class Settings(BaseModel):
    """One field a variable: `redis_url` is AISLE_REDIS_URL. Units are in the names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundles: Path = Field(Path("bundles"), description="folder of published versions")
    changes: Path | None = Field(
        None, description="folder of the change logs; unset: beside each collection's versions"
    )
    fold_after: int = Field(0, ge=0, description="changed products after which a version is made of them; 0: never")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    processes: int = Field(0, ge=0, le=256, description="processes that serve; 0: one a core, with a GPU at most four")
    workers: int = Field(
        0, ge=0, le=256, description="worker threads a process; 0: its share of the cores, at most four"
    )
    max_batch: int = Field(0, ge=0, le=256, description="most tickets a worker takes at once; 0 chooses by provider")
    max_waiting: int = Field(256, ge=1, le=100_000, description="searches that may wait before 429")
    redis_url: str | None = Field(None, description="redis://… or unix://…; unset: first cache level alone")
    redis_timeout_ms: float = Field(15.0, gt=0, le=1000, description="longest wait for one Redis call")
    cache_mb: float = Field(64.0, ge=0, le=65536, description="first cache level, MiB; 0 switches it off")
    cache_ttl_s: float = Field(300.0, gt=0, le=86400, description="how long a cache keeps what nobody asks for")
    timeout_ms: float = Field(1000.0, ge=1, le=60000, description="deadline of a search that names none")
    max_body_kb: int = Field(1024, ge=1, le=1_048_576, description="largest request body, KiB (NDJSON streams apart)")
    metrics_port: int | None = Field(None, ge=1, le=65535, description="serve /metrics on a port of its own")
    api_keys_file: Path | None = Field(
        None, description="file of API keys, which every request then needs; see `aisle key`"
    )
    open: bool = Field(False, description="without a file of keys: writing and administration are open, too")
    docs: bool = Field(False, description="serve /docs and /openapi.json")
    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where the encoder runs and vectors are searched"
    )
    show_images: bool = Field(False, description="the search page shows the catalogue's image links")
    log_queries: bool = Field(False, description="query text may appear in logs")
    drain_s: float = Field(1.0, ge=0, le=300, description="not ready but still serving, this long after SIGTERM")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read AISLE_* variables. Raises SettingsError for an unknown name or a value out of range; an empty value
        counts as unset (compose files pass those)."""
        given: dict[str, str] = {}
        for name, value in (os.environ if environment is None else environment).items():
            if not name.startswith(_PREFIX) or name.startswith(_NOT_OURS) or value == "":
                continue
            field = name.removeprefix(_PREFIX).lower()
            if field not in cls.model_fields:
                near = difflib.get_close_matches(field, cls.model_fields, n=1)
                hint = f"; did you mean {_PREFIX}{near[0].upper()}?" if near else ""
                raise SettingsError(f"unknown setting {name}{hint}")
            given[field] = value
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            name = _PREFIX + str(first["loc"][0]).upper()
            raise SettingsError(f"{name}={given.get(str(first['loc'][0]))!r}: {first['msg'].lower()}") from None
