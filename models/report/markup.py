"""HTML that cannot be broken by what it shows: every text is escaped unless it was made by `element`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_VOID = frozenset({"meta", "br"})
# Control characters, lone surrogates and non-characters: no parser agrees with another on what they mean.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class Markup(str):
    """Text that is HTML already. Formatting or adding to it gives a plain str, which is escaped again."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """`element("p", "a < b", class_="x")` → `<p class="x">a &lt; b</p>`. An attribute of None is left out; `_` in its
    name stands for `-`, and a trailing one keeps it from being a keyword."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{told}>" if name in _VOID else f"<{name}{told}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Markup:
    """Children one after the other, None left out, all but Markup escaped."""
    return Markup(
        "".join(child if isinstance(child, Markup) else _escaped(str(child)) for child in children if child is not None)
    )


def foreign(text: str) -> Markup:
    """A shopper's or a shop's words, whose writing direction must not reach the text around them."""
    return element("bdi", text)


def _escaped(text: str) -> str:
    return html.escape(_UNFIT.sub("\ufffd", text), quote=True)
