"""What people usually write: FastAPI, sentence-transformers, a flat FAISS index; in the environment of the peers.

    python plain_peer.py CHECKPOINT PRODUCTS.jsonl PORT

One file that imports nothing of aisle: it runs where aisle is not installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer


class Body(BaseModel):
    """The part of a search that both have."""

    query: str
    k: int = 10


def create(checkpoint: str, products: Path) -> FastAPI:
    """Embed the products' texts, index them, answer searches."""
    model = SentenceTransformer(checkpoint, device="cpu")
    rows = [json.loads(line) for line in products.read_text("utf-8").splitlines()]
    kept = products.with_suffix(".vectors.npy")  # made once: it takes minutes
    if not kept.exists():
        np.save(kept, model.encode([row["text"] for row in rows], normalize_embeddings=True, batch_size=64))
    vectors = np.load(kept)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    app = FastAPI()

    @app.post("/v1/search")
    def search(body: Body) -> dict[str, Any]:
        vector = model.encode([body.query], normalize_embeddings=True)
        scores, found = index.search(vector, body.k)
        pairs = zip(found[0].tolist(), scores[0].tolist(), strict=True)
        hits = [
            {"id": rows[row]["id"], "score": score, "product": {"title": rows[row]["title"]}} for row, score in pairs
        ]
        return {"hits": hits}

    return app


if __name__ == "__main__":
    uvicorn.run(create(sys.argv[1], Path(sys.argv[2])), port=int(sys.argv[3]), log_level="warning")
