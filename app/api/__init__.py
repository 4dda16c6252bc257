"""The edge: everything that speaks HTTP. Below it nobody knows of requests, headers or status codes.

middleware.Edge (ids, counts, body limit, 500) → router → endpoint.Endpoint → a handler of search, rescore, rerank,
products, health, page or docs → the service at `app.state.service`. Errors of every layer end in problems.respond.
"""

from app.api.install import install
from app.api.options import EdgeOptions

__all__ = ["EdgeOptions", "install"]
