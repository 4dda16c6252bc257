"""A version of the same parts under other numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import Any

from app import __version__
from app.index.bundle import BundleStore, read_manifest
from app.search.golden import GOLDEN, golden_answers
from app.search.searcher import Searcher
from models.gate import Judgements


def reseal(
    store: BundleStore, searcher: Searcher, told: Mapping[str, Any], judgements: Judgements | None = None
) -> str:
    """Seal and verify the parts of the searcher's version, copied byte for byte (a version's files are its own), under
    the searcher's ranking as it is now, its golden answers, and `told` in the manifest's content. Judgements that the
    version keeps for the gate stay; where it has none, it gets `judgements`. Returns the new version."""
    source = store.path(searcher.version)
    manifest = read_manifest(source)
    with store.building() as folder:
        for name in manifest.parts:
            shutil.copyfile(source / name, folder / name)
        asked = [str(one["query"]) for one in json.loads((source / GOLDEN).read_bytes())]
        golden = golden_answers(searcher, asked)
        (folder / GOLDEN).write_text(json.dumps(golden, ensure_ascii=False, indent=0), encoding="utf-8")
        content = {**manifest.content, **told, "aisle": __version__, "ranking": searcher.ranking.to_json()}
        if content.get("gate") is None and judgements is not None:
            content["gate"] = judgements.save(folder)
        version = store.seal(folder, content)
    store.verify(version)
    return version
