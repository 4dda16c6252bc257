"""Who may call a route, declared where the route is."""

from __future__ import annotations

from dataclasses import dataclass

SCOPES = ("search", "write", "admin")


@dataclass(frozen=True, slots=True)
class Access:
    """A key with any of `scopes` is let in; without scopes nobody is asked for one. `guarded`: closed, too, where the
    service knows no keys."""

    scopes: frozenset[str] = frozenset()
    guarded: bool = False

    @property
    def wanted(self) -> str:
        """The scopes, for a sentence."""
        return " or ".join(scope for scope in SCOPES if scope in self.scopes)


OPEN = Access()
SEARCH = Access(frozenset(("search",)))
WRITE = Access(frozenset(("write",)), guarded=True)
ADMIN = Access(frozenset(("admin",)), guarded=True)
LISTING = Access(frozenset(("search", "admin")))  # what is served: for whoever searches it, and for whoever changes it
SCRAPE = Access(frozenset(("admin",)))
