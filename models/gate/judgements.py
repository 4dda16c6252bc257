"""The judgements that a version is gated on: given, or those that a build left in the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import CorruptPart
from app.index.bundle import Manifest
from models.relevance import Gain, JudgementError, Qrels, Queries

QUERIES, QRELS = "gate.queries.tsv", "gate.qrels.tsv"
KEY = "gate"


@dataclass(frozen=True)
class Judgements:
    """Judged queries, their grades, what counts as relevant, and in a few words where they come from."""

    queries: Queries
    qrels: Qrels
    gain: Gain
    source: str = "given"

    def save(self, folder: Path) -> dict[str, Any]:
        """Write them as parts of a bundle; what is returned belongs under `KEY` of its manifest's content."""
        self.queries.save(folder / QUERIES)
        self.qrels.save(folder / QRELS)
        return self.about()

    def about(self) -> dict[str, Any]:
        """Digests and numbers, by which the judgements can be told apart."""
        return {
            "queries": self.queries.digest,
            "qrels": self.qrels.digest,
            "pairs": self.qrels.pairs,
            "relevant_at": self.gain.relevant_at,
        }

    def fitted_by(self, content: Mapping[str, Any]) -> bool:
        """Whether a version's ranking was fitted to these very judgements."""
        about = content.get("judgements")
        return isinstance(about, dict) and about.get("qrels") == self.qrels.digest

    @classmethod
    def kept(cls, folder: Path, manifest: Manifest, source: str) -> Judgements | None:
        """Those of a version, None where it has none. Raises CorruptPart where they are not what the manifest says."""
        about = manifest.content.get(KEY)
        if about is None:
            return None
        try:
            gain = Gain(relevant_at=float(about["relevant_at"]))
            return cls(Queries.load(folder / QUERIES), Qrels.load(folder / QRELS), gain, source)
        except (OSError, JudgementError, KeyError, TypeError, ValueError) as error:
            raise CorruptPart(f"{QRELS}: judgements of the gate ({error})") from error
