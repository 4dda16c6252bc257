"""A stand-in for the service behind the search page: canned products, and faults on demand.

Run as a script it serves on a loopback port and prints that port. `POST /stub/faults` sets the faults of `Faults`,
`POST /stub/release` lets held answers go and `GET /stub/log` tells which queries arrived and which were answered.
Products: `retail_slice.tsv` (title, category, style, price, stock, description), 40 products of the Retail Demo Store
catalogue (MIT-0), a few of them set out of stock.
"""

import argparse
import asyncio
import math
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

PAGE = Path(__file__).parents[2] / "app" / "api" / "page"
POLICY = (
    "; ".join(f"{what} 'self'" for what in ("script-src", "style-src", "img-src", "connect-src", "form-action"))
    + "; default-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
SLICE = Path(__file__).with_name("retail_slice.tsv")
DEPTH = 200
STAGES = "normalize;dur=0.02, cache;dur=0.03, queue;dur=0.05, lexical;dur=0.31, embed;dur=0.52, dense;dur=0.24"
VERSION = "20260101-5ab0c0de"


Product = dict[str, Any]


def retail_products() -> dict[str, Product]:
    """The canned products by id, most popular first."""
    products = {}
    for i, line in enumerate(SLICE.read_text(encoding="utf-8").splitlines()):
        title, category, style, price, stock, description = line.split("\t")
        products[f"R{i:03}"] = {
            "title": title, "category": category, "style": style, "price": float(price),
            "in_stock": int(stock) > 0, "description": description,
        }  # fmt: skip
    return products


def workshop_products() -> dict[str, Product]:
    """A small collection without numbers or stock, and with texts that try to be markup."""
    bolt = {"title": "Hex bolt M8", "brand": "Fasten & Sons", "color": "zinc", "bullets": ["40 mm", "Grade 8.8"]}
    hostile = {
        "title": "<img src=x onerror =\"document.title='owned'\"> bolt",
        "brand": "<b>Bold</b>",
        "color": "red",
        "description": "<script>document.title='owned'</script>",
        "url": "javascript:document.title='owned'",
    }
    linked = {"title": "Wing bolt", "brand": "Fasten & Sons", "color": "black", "url": "https://example.com/wing-bolt"}
    many = {f"W{i:03}": {"title": f"Bolt size {i}", "brand": f"Maker {i:02}", "color": "steel"} for i in range(3, 60)}
    return {"W000": bolt, "W001": hostile, "W002": linked, **many}


def keyword(name: str) -> dict[str, Any]:
    return {"name": name, "type": "keyword", "facet": True}


COLLECTIONS: dict[str, dict[str, Any]] = {
    "default": {
        "title": "Retail demo store",
        "attribution": "Products: Retail Demo Store, MIT-0.",
        "fields": [
            keyword("category"), keyword("style"),
            {"name": "price", "type": "number"}, {"name": "in_stock", "type": "boolean"},
        ],
        "examples": ["wireless headphones", "leather backpack", "velvet sofa", "breakfast bowl"],
        "rows": retail_products(),
    },
    "workshop": {
        "title": "Workshop", "attribution": "", "fields": [keyword("brand"), keyword("color")],
        "examples": ["bolt"], "rows": workshop_products(),
    },
}  # fmt: skip


@dataclass
class Faults:
    """What goes wrong. `hold`: queries answered only after a release. `unguarded`: page without its stale guards.
    `key`: what every question must bring."""

    hold: list[str] = field(default_factory=list)
    status: int = 0
    degraded: bool = False
    unguarded: bool = False
    reading: dict[str, Any] = field(default_factory=dict)
    key: str = ""


def words(text: str) -> list[str]:
    return [word.strip("<>\"'.,!").lower() for word in text.split() if word.strip("<>\"'.,!")]


def contributions(query: str, prefix: bool, product: Product) -> list[dict[str, Any]]:
    """A toy additive score: exact words, words begun, price standing. Empty when no word of the query is met."""
    asked, title = words(query), words(product["title"])
    exact = sum(word in title for word in asked)
    begun = sum(any(word.startswith(last) for word in title) for last in asked[-1:]) if prefix else 0
    if not exact and not begun:
        return []
    known = len(product.get("description", "")) / 400
    signals = [
        ("title_words", exact / len(asked), 3.1), ("prefix", float(begun), 0.35),
        ("title_length", len(title) / 10, -1.3), ("description_length", known, 0.7),
    ]  # fmt: skip
    return [{"name": name, "value": v, "weight": w, "contribution": v * w} for name, v, w in signals]


def met(query: str, product: Product) -> dict[str, Any]:
    """Which words of the query the title has, as the service tells it."""
    asked, title = words(query), words(product["title"])
    found = [{"query": one, "product": [one], "field": "title", "kind": "exact"} for one in asked if one in title]
    return {"evidence": found, "missing": [one for one in asked if one not in title]}


def matches(clause: dict[str, Any], product: Product) -> bool:
    value = product.get(clause["field"])
    if "in" in clause:
        return value in clause["in"]
    return value is not None and clause.get("gte", -math.inf) <= value <= clause.get("lte", math.inf)


def scored(request: dict[str, Any], rows: dict[str, Product]) -> list[dict[str, Any]]:
    hits = []
    for key, product in rows.items():
        parts = contributions(request["query"], request.get("prefix", False), product) if request.get("query") else []
        if request.get("query") and not parts:
            continue
        raw = sum(part["contribution"] for part in parts)
        explanation = {"raw": raw, "contributions": parts, **met(request.get("query", ""), product)}
        hits.append({"id": key, "score": 1 / (1 + math.exp(-raw)), "product": product, "explanation": explanation})
    return sorted(hits, key=lambda hit: (-hit["score"], hit["id"]))


def facets(names: list[str], clauses: list[dict[str, Any]], hits: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts per value; a facet's own filter does not narrow it."""
    counted: dict[str, dict[str, int]] = {}
    for name in names:
        others = [clause for clause in clauses if clause["field"] != name]
        tally = counted.setdefault(name, {})
        for hit in hits:
            if name in hit["product"] and all(matches(clause, hit["product"]) for clause in others):
                tally[hit["product"][name]] = tally.get(hit["product"][name], 0) + 1
    return {
        name: [{"value": v, "count": n} for v, n in sorted(tally.items(), key=lambda item: (-item[1], item[0]))]
        for name, tally in counted.items()
    }


def search(request: dict[str, Any], degraded: bool) -> dict[str, Any]:
    """One answer in the shape of `POST /v1/search`."""
    clauses = request.get("filter", {}).get("all", [])
    every = scored(request, COLLECTIONS[request["collection"]]["rows"])
    hits = [hit for hit in every if all(matches(clause, hit["product"]) for clause in clauses)]
    for order in request.get("sort") or []:
        hits.sort(key=lambda hit: hit["product"][order["field"]], reverse=order["order"] == "desc")
    page = hits[request["offset"] : request["offset"] + request["k"]]
    if not request.get("explain"):
        page = [{**hit, "explanation": None} for hit in page]
    return {
        "request_id": "stub", "took_ms": 1.42, "cached": False, "version": VERSION, "tier": "hybrid",
        "degraded": {"is": degraded, "reasons": ["dense retrieval was skipped"] if degraded else []},
        "total": {"value": len(hits), "relation": "eq"}, "hits": page,
        "facets": facets(request.get("facets", []), clauses, every),
    }  # fmt: skip


def problem(status: int, detail: str) -> JSONResponse:
    body = {"type": "about:blank", "title": "Refused", "status": status, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")


def create_stub() -> FastAPI:
    """The stand-in service, with its faults and log as its own state."""
    app = FastAPI()
    app.state.faults, app.state.released, app.state.log = Faults(), asyncio.Event(), []
    add_page(app)
    add_service(app)
    add_controls(app)
    return app


def add_page(app: FastAPI) -> None:
    """The page's own files, under the policy that a careful service would set."""

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": POLICY})

    @app.get("/page/page.js")
    async def script() -> Response:
        source = (PAGE / "page.js").read_text(encoding="utf-8")
        for guard in ("inFlight?.abort();", "if (ticket !== latest) return;") if app.state.faults.unguarded else ():
            assert guard in source, f"the page no longer has the guard {guard!r}"
            source = source.replace(guard, "")
        return Response(source, media_type="text/javascript", headers={"Cache-Control": "no-store"})

    app.mount("/page", StaticFiles(directory=PAGE))


def add_service(app: FastAPI) -> None:
    """The routes of the service that the page uses."""

    @app.middleware("http")
    async def door(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        wanted = app.state.faults.key
        if wanted and request.url.path.startswith("/v1/"):
            given = request.headers.get("Authorization")
            if given != f"Bearer {wanted}":
                return problem(401, "the key is not known here" if given else "this route needs a key")
        return await answer(request)

    @app.get("/v1/collections")
    async def collections() -> Response:
        if app.state.faults.status:
            return problem(app.state.faults.status, "The stand-in was told to refuse.")
        shown = []
        for name, described in COLLECTIONS.items():
            facts = {key: value for key, value in described.items() if key != "rows"}
            shown.append({"name": name, "version": VERSION, "products": len(described["rows"]), **facts})
        return JSONResponse({"collections": shown})

    @app.post("/v1/search")
    async def run_search(request: Request) -> Response:
        asked = await request.json()
        faults: Faults = app.state.faults
        app.state.log.append(["asked", asked.get("query")])
        if faults.status:
            return problem(faults.status, "The stand-in was told to refuse.")
        if asked["offset"] + asked["k"] > DEPTH:
            return problem(422, "offset + k is beyond the depth")
        if asked.get("query") in faults.hold:
            await app.state.released.wait()
        app.state.log.append(["answered", asked.get("query")])
        return JSONResponse({**search(asked, faults.degraded), **faults.reading}, headers={"Server-Timing": STAGES})

    @app.get("/v1/products/{key}")
    async def product(key: str, collection: str) -> Response:
        found = COLLECTIONS[collection]["rows"].get(key)
        return JSONResponse({"id": key, "product": found}) if found else problem(404, "No such product.")

    @app.get("/v1/products/{key}/similar")
    async def similar(key: str, collection: str, k: int) -> dict[str, Any]:
        rows = COLLECTIONS[collection]["rows"]
        near = [hit for hit in scored({"query": rows[key]["title"]}, rows) if hit["id"] != key]
        return {"hits": near[:k]}


def add_controls(app: FastAPI) -> None:
    """What tests steer the stand-in by."""

    @app.post("/stub/faults")
    async def set_faults(request: Request) -> None:
        app.state.faults, app.state.log[:] = Faults(**await request.json()), []
        app.state.released.clear()

    @app.post("/stub/release")
    async def release() -> None:
        app.state.released.set()

    @app.get("/stub/log")
    async def log() -> list[list[str | None]]:
        return list(app.state.log)


def main() -> None:
    """Listen on a loopback port (0 picks a free one), print it, serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", parser.parse_args().port))
    listener.listen()
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(create_stub(), log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
