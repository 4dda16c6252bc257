"""aisle serve: the published versions over HTTP."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from app.processes import serve
from app.settings import Settings, SettingsError
from scripts.output import Output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundles", type=Path, help="folder of versions (AISLE_BUNDLES)")
    parser.add_argument("--host", help="address to listen on (AISLE_HOST, default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 takes a free one (AISLE_PORT, default: 8000)")
    listed = "\n".join(
        f"  AISLE_{name.upper():18} {field.description} (default: {field.default})"
        for name, field in Settings.model_fields.items()
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"Environment:\n{listed}"


def run(arguments: argparse.Namespace, output: Output) -> int:
    environment = dict(os.environ)
    for name in ("bundles", "host", "port"):
        value = getattr(arguments, name)
        if value is not None:
            environment[f"AISLE_{name.upper()}"] = str(value)
    try:
        settings = Settings.from_environment(environment)
    except SettingsError as error:
        output.warn(str(error))
        return 2
    return serve(settings)
