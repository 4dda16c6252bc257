"""The reranking shapes of other services: their requests, their answers, their errors."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import pytest

from app.api.schemas import MAX_DOCUMENTS
from app.errors import Overloaded
from tests.api.stub_service import StubService, score_of

TEXTS = ["abc", "eee", "bed"]
BY_SCORE = [1, 2, 0]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
async def test_documents_come_back_by_relevance(client: httpx.AsyncClient, path: str) -> None:
    """Index and score, the best first; the documents themselves only on request."""
    response = await client.post(path, json={"query": "q", "documents": TEXTS, "model": "any", "max_chunks_per_doc": 3})
    answer = response.json()
    assert response.status_code == 200
    assert answer["results"] == [{"index": i, "relevance_score": score_of(TEXTS[i])} for i in BY_SCORE]
    assert answer["id"]
    assert answer["meta"]["api_version"]["version"] == path[2]


async def test_documents_may_be_objects_and_are_returned_when_asked_for(client: httpx.AsyncClient) -> None:
    """`{text}` counts like a string, `top_n` cuts, `return_documents` repeats the text."""
    documents: list[Any] = ["abc", {"text": "eee", "id": "ignored"}]
    response = await client.post(
        "/v1/rerank", json={"query": "q", "documents": documents, "top_n": 1, "return_documents": True}
    )
    assert response.json()["results"] == [{"index": 1, "relevance_score": score_of("eee"), "document": {"text": "eee"}}]


async def test_a_top_n_beyond_the_documents_is_no_fault(client: httpx.AsyncClient) -> None:
    """Clients ask for ten of whatever they have."""
    response = await client.post("/v1/rerank", json={"query": "q", "documents": TEXTS, "top_n": 10})
    assert len(response.json()["results"]) == 3


async def test_texts_come_back_in_the_shape_of_text_embeddings_inference(client: httpx.AsyncClient) -> None:
    """A bare list, the best first."""
    response = await client.post("/rerank", json={"query": "q", "texts": TEXTS, "truncate": True, "return_text": True})
    assert response.json() == [{"index": i, "score": score_of(TEXTS[i]), "text": TEXTS[i]} for i in BY_SCORE]


async def test_raw_scores_are_the_log_odds_of_the_scores(client: httpx.AsyncClient) -> None:
    """Their scores are the sigmoid of their raw scores; so are these."""
    response = await client.post("/rerank", json={"query": "q", "texts": TEXTS, "raw_scores": True})
    for result in response.json():
        assert 1 / (1 + math.exp(-result["score"])) == pytest.approx(score_of(TEXTS[result["index"]]))
        assert "text" not in result


@pytest.mark.parametrize(
    ("path", "name"), [("/v1/rerank", "documents"), ("/v2/rerank", "documents"), ("/rerank", "texts")]
)
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 422),
        ({"given": []}, 422),
        ({"given": "text"}, 422),
        ({"given": [1]}, 422),
        ({"given": ["a"], "query": ""}, 422),
        ({"given": ["a"] * (MAX_DOCUMENTS + 1)}, 413),
        ({"given": ["a"] * MAX_DOCUMENTS}, 200),
        ({"given": ["\ud800"]}, 400),
        ({"given": [""]}, 200),
    ],
)
async def test_faults_are_answered_in_the_client_s_own_form(
    client: httpx.AsyncClient, path: str, name: str, change: dict[str, Any], status: int
) -> None:
    """`{"message"}` and `{"error", "error_type"}`, with the statuses of this service."""
    body = {"query": "q"} | {name if key == "given" else key: value for key, value in change.items()}
    response = await client.post(path, content=json.dumps(body))
    assert response.status_code == status, response.text
    if status != 200:
        _holds_an_error(path, response, "Validation")


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
async def test_other_failures_keep_the_form(client: httpx.AsyncClient, service: StubService, path: str) -> None:
    """Overload, a wrong method and an unexpected failure too."""
    body = {"query": "q", "documents": ["a"], "texts": ["a"]}
    service.fail = Overloaded("full")
    refused = await client.post(path, json=body)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    _holds_an_error(path, refused, "Overloaded")
    service.fail = RuntimeError("secret-of-the-house")
    failed = await client.post(path, json=body)
    assert failed.status_code == 500
    assert "secret" not in failed.text
    _holds_an_error(path, failed, "Backend")
    wrong = await client.get(path)
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "POST")
    _holds_an_error(path, wrong, "Validation")


def _holds_an_error(path: str, response: httpx.Response, kind: str) -> None:
    assert response.headers["Content-Type"] == "application/json"
    if path == "/rerank":
        assert set(response.json()) == {"error", "error_type"}
        assert response.json()["error_type"] == kind
    else:
        assert isinstance(response.json()["message"], str)
