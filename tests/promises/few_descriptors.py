"""The service in one process with 256 descriptors.

python -m tests.promises.few_descriptors --bundles DIR
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from app.main import serve
from app.settings import Settings

LIMIT = 256


def main() -> int:
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    return serve(Settings(bundles=Path(sys.argv[2]), port=0, provider="cpu"))


if __name__ == "__main__":
    sys.exit(main())
