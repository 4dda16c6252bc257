"""Reading a page as a browser would, strictly: every tag must close where it should."""

from __future__ import annotations

from html.parser import HTMLParser

_VOID = {"meta", "br"}


class Page(HTMLParser):
    """The page's text by element, its attributes, and any tag that does not balance (AssertionError)."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append((self.open[-1] if self.open else "", data))

    @property
    def text(self) -> str:
        """Everything that is shown, one space between pieces."""
        return " ".join(" ".join(data for tag, data in self.words if tag != "style").split())

    def count(self, tag: str) -> int:
        """How many elements of a kind there are."""
        return sum(name == tag for name, _ in self.tags)


def outside(page: Page) -> list[str]:
    """Every attribute through which a page loads something or runs it."""
    loading = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "background"}
    return [
        f"{tag} {name}={value}"
        for tag, attributes in page.tags
        for name, value in attributes.items()
        if name in loading or name.startswith("on") or tag in ("script", "link", "iframe", "object", "img", "base")
    ]
