"""The real service with a leak: every search leaves so many bytes behind.

python -m tests.app.leaking_app BUNDLES BYTES
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from app.main import serve
from app.search.service import SearchService
from app.settings import Settings


def main() -> int:
    bundles, size = Path(sys.argv[1]), int(sys.argv[2])
    real, kept = SearchService.search, []

    async def leak(self: SearchService, *arguments: Any, **more: Any) -> Any:
        kept.append(bytearray(b"x" * size))
        return await real(self, *arguments, **more)

    SearchService.search = leak  # type: ignore[method-assign]
    return serve(Settings(bundles=bundles, port=0, workers=1, processes=1, cache_mb=1))


if __name__ == "__main__":
    sys.exit(main())
