"""`/docs` and `/openapi.json`: a reference page drawn from the OpenAPI document, without scripts or other hosts."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any

import orjson
from fastapi import Request, Response
from starlette.routing import Route

from app.api.access import OPEN
from app.api.endpoint import Bytes, route

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "pre{padding:.75rem;overflow-x:auto;border:1px solid #8884;border-radius:6px}"
    "code,pre{font:14px/1.5 ui-monospace,monospace}h2{margin-top:3rem;border-top:1px solid #8884;padding-top:1.5rem}"
    "td,th{text-align:left;vertical-align:top;padding:.2rem 1.5rem .2rem 0}b{text-transform:uppercase}"
)
_STYLE_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    b"content-security-policy",
    f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none'; frame-ancestors 'none'".encode(),
)


def routes() -> list[Route]:
    return [route("/docs", OPEN, get=page), route("/openapi.json", OPEN, get=openapi)]


async def openapi(request: Request) -> Response:
    """The document itself."""
    return Bytes(orjson.dumps(request.app.openapi()))


async def page(request: Request) -> Response:
    """The document, for reading."""
    return Bytes(_page(request.app.openapi()).encode(), media_type=b"text/html; charset=utf-8", headers=[_POLICY])


def _page(document: dict[str, Any]) -> str:
    info, schemas = document["info"], document["components"]["schemas"]
    operations = [
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    shapes = [_shape(name, schema) for name, schema in sorted(schemas.items())]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])} reference</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])} "
        f'<a href="openapi.json">openapi.json</a></p>{"".join(operations)}'
        f"<h2>Shapes</h2>{''.join(shapes)}</body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(one['name'])}</code><td>{_type(one['schema'])}"
        f"<td>{escape(one.get('description', ''))}</tr>"
        for one in operation["parameters"]
    )
    statuses = "".join(
        f"<tr><td>{status}<td>{escape(answer['description'])}<td>{_answer_type(answer)}</tr>"
        for status, answer in operation["responses"].items()
    )
    return (
        f'<h2 id="{escape(operation["operationId"])}"><b>{method}</b> <code>{escape(path)}</code></h2>'
        f"<p>{escape(operation['summary'])}. {escape(operation.get('description', ''))}</p>"
        f"<table>{rows}</table>{_request(path, method, operation)}<table>{statuses}</table>"
    )


def _request(path: str, method: str, operation: dict[str, Any]) -> str:
    body = operation.get("requestBody")
    if body is None:
        query = "?q=headphones" if any(one["name"] == "q" for one in operation["parameters"]) else ""
        return f"<pre>curl 'http://localhost:8000{escape(path)}{query}'</pre>"
    content = body["content"]["application/json"]
    example = json.dumps(content["example"], ensure_ascii=False)
    return (
        f"<p>Body: {_type(content['schema'])}</p><pre>curl http://localhost:8000{escape(path)} \\\n"
        f"  -H 'Content-Type: application/json' \\\n  -d '{escape(example)}'</pre>"
    )


def _answer_type(answer: dict[str, Any]) -> str:
    return " or ".join(
        f"{_type(content['schema'])} <code>{escape(kind)}</code>" for kind, content in answer["content"].items()
    )


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#shape-{name}">{name}</a>'
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(_type(one) for one in schema.get("anyOf", schema.get("oneOf", [])))
    kind = schema.get("type", "any")
    name = " or ".join(kind) if isinstance(kind, list) else kind
    if name == "array" and "items" in schema:
        return f"list of {_type(schema['items'])}"
    limits = {"minimum": "≥ ", "maximum": "≤ ", "maxLength": "at most ", "default": "default "}
    said = [f"{words}{escape(json.dumps(schema[key]))}" for key, words in limits.items() if key in schema]
    return ", ".join([escape(name), *said])


def _shape(name: str, schema: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code><td>{_type(of)}<td>{escape(of.get('description', ''))}</tr>"
        for field, of in schema.get("properties", {}).items()
    )
    forms = "".join(f"<pre>{escape(json.dumps(one['properties']))}</pre>" for one in schema.get("oneOf", []))
    about = escape(schema.get("description", ""))
    return f'<h3 id="shape-{escape(name)}">{escape(name)}</h3><p>{about}</p><table>{rows}</table>{forms}'
