"""The search page in a real browser: what a person types, clicks, sees and hears of."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

pytest.importorskip("selenium", reason="needs selenium")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from app.api import keyfile
from tests.app.server import served

ARTIFACTS = Path(__file__).parents[2] / "artifacts" / "page"
QUERY = "wireless headphones"
_DRAWN = ("#start", "#none", "#hits .card", "#refusal", "#outage", "#key-form")


class Page:
    """The page as its reader meets it."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser, self.url = browser, url

    def open(self, **params: str) -> None:
        """Open the page with this state in its address and wait until it has drawn a state."""
        self.browser.get(self.url + ("?" + urlencode(params) if params else ""))
        self.until(lambda: any(self.shows(part) for part in _DRAWN))

    def until(self, happens: Callable[[], Any]) -> Any:
        return WebDriverWait(self.browser, 20, poll_frequency=0.05).until(lambda _: happens())

    def all(self, selector: str) -> list[Any]:
        return list(self.browser.find_elements(By.CSS_SELECTOR, selector))

    def one(self, selector: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def shows(self, selector: str) -> bool:
        """Whether something that matches has a box on the page."""
        script = "return [...document.querySelectorAll(arguments[0])].some(e => e.getClientRects().length > 0)"
        return bool(self.browser.execute_script(script, selector))

    def texts(self, selector: str) -> list[str]:
        """The texts of what matches, read in one step so that no redraw falls between."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        return list(self.browser.execute_script(script, selector))

    def titles(self) -> list[str]:
        return self.texts("#hits .title")

    def total(self) -> int:
        return int("".join(letter for letter in self.texts("#status strong")[0] if letter.isdigit()))

    def type(self, text: str) -> None:
        """Type in place of what stands in the search box."""
        self.one("#query").send_keys(Keys.CONTROL, "a", Keys.NULL, text)

    def press(self, *keys: str) -> None:
        """Press keys wherever the focus is."""
        self.browser.switch_to.active_element.send_keys(*keys)

    def focused(self) -> str:
        """The focused element as #id or .first-class."""
        script = "const e = document.activeElement; return e.id ? '#' + e.id : '.' + e.className.split(' ')[0]"
        return str(self.browser.execute_script(script))

    def resize(self, width: int, height: int = 760, scheme: str = "light") -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def keep(self, name: str) -> None:
        """Keep a picture of the page as it is."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.browser.save_screenshot(str(ARTIFACTS / f"{name}.png"))

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window, scroll bar excluded."""
        return int(
            self.browser.execute_script(
                "return document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"
            )
        )

    def complaints(self) -> list[str]:
        """What the console was told since the last look, errors and broken policies among it."""
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] != "INFO"]


@pytest.fixture
def page(chromium: Any, page_server: Any) -> Iterator[Page]:
    """The page of the main scenarios, in a desktop window."""
    yield from opened(chromium, page_server)


@pytest.fixture
def stub_page(chromium: Any, stub: Any) -> Iterator[Page]:
    """The page over the stand-in, for tests that need its faults or its canned products."""
    yield from opened(chromium, stub)


def opened(chromium: Any, server: Any) -> Iterator[Page]:
    page = Page(chromium, server.url)
    page.resize(1280, 860)
    page.complaints()
    yield page
    chromium.get("about:blank")


def impossible(page: Page) -> dict[str, str]:
    """A state in which nothing can match: a facet value that no product has."""
    fields = httpx.get(f"{page.url}v1/collections", timeout=30).json()["collections"][0]["fields"]
    facet = next(field["name"] for field in fields if field["type"] == "keyword" and field.get("facet"))
    return {"q": QUERY, "f": f"{facet}:no such value"}


# ---------------------------------------------------------------- main scenarios


def test_results_appear_while_typing(page: Page) -> None:
    """Typing alone brings results, puts the words into the address and tells a screen reader how many there are."""
    page.open()
    assert page.shows("#start .pill")
    page.keep("start")
    page.type(QUERY)
    page.until(lambda: any("headphones" in title.lower() for title in page.titles()))
    page.until(lambda: "q=wireless+headphones" in page.browser.current_url)
    page.until(lambda: page.texts("#live")[0].endswith(("product", "products")))
    assert "tier" in page.texts("#status")[0]
    assert " ms" in page.texts("#status")[0]
    assert page.texts("#hits .score")[0].startswith("relevance ")
    page.keep("results")


def test_back_returns_to_where_typing_began(page: Page) -> None:
    """A burst of typing is one step in the history."""
    page.open()
    page.type(QUERY)
    page.until(lambda: page.titles() and "wireless" in page.browser.current_url)
    page.browser.back()
    page.until(lambda: page.shows("#start"))
    assert page.one("#query").get_property("value") == ""
    page.browser.forward()
    page.until(lambda: page.titles())
    assert page.one("#query").get_property("value") == QUERY


def test_why_shows_contributions_whose_sum_is_the_raw_score(page: Page) -> None:
    """The disclosure opens, lists the contributions and closes the sum with the raw score, bit for bit."""
    page.open(q=QUERY)
    button = page.one("#hits .card .actions button")
    button.click()
    page.until(lambda: page.shows(".why"))
    assert button.get_attribute("aria-expanded") == "true"
    assert len(page.texts(".why tbody tr")) > 0
    assert page.texts(".why tfoot td:last-child") == ["= the raw score"]
    words = page.texts(".terms li")
    assert [word.split()[0] for word in words] == QUERY.split()
    assert all(word.endswith(", in the title") for word in words)
    added = [float(text.replace("−", "-")) for text in page.texts(".why tbody td:nth-child(4)")]
    total = float(page.texts(".why .sum")[0].replace("−", "-"))
    assert total == pytest.approx(sum(added), abs=0.0005 * (len(added) + 1))
    page.keep("why")
    button.click()
    assert not page.shows(".why")


def test_similar_products_open_in_the_details(page: Page) -> None:
    """The neighbours of a hit are listed, and one of them can be looked at."""
    page.open(q=QUERY)
    page.all("#hits .card .actions button")[1].click()
    page.until(lambda: page.shows(".shelf .small"))
    page.keep("similar")
    page.one(".shelf .small").click()
    page.until(lambda: page.shows("dialog .details-head h2"))
    assert page.texts("#details-title")[0] in page.texts(".shelf .small")[0]
    page.keep("details")
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.shows("dialog"))
    assert page.focused() == ".small"


def test_a_facet_click_narrows_and_its_chip_takes_it_back(page: Page) -> None:
    """Checking a value leaves as many products as its count said (at least, where the retrieval's depth cut the set it
    was counted over: under the filter the depth reaches further); removing the chip restores them."""
    page.open(q="headphones backpack")
    before = page.total()
    cut = page.texts("#status strong")[0].startswith("at least")
    counts = [int(text.replace(",", "")) for text in page.texts("#filters .count")]
    chosen = next(i for i, count in enumerate(counts) if count < before)
    page.all("#filters fieldset .choice input")[chosen].click()
    page.until(
        lambda: page.total() >= counts[chosen] if cut and page.total() < before else page.total() == counts[chosen]
    )
    assert page.focused().startswith("#f-"), "the redrawn box keeps the focus"
    assert len(page.texts("#chips .chip")) == 1
    assert "f=" in page.browser.current_url
    page.keep("facet")
    page.one("#chips .chip").click()
    page.until(lambda: page.total() == before)
    assert not page.shows("#chips")


def test_no_results_offers_the_way_out(page: Page) -> None:
    """Nothing found says so, names the filter in the way and removes it on request."""
    page.open(**impossible(page))
    assert page.shows("#none")
    assert page.titles() == []
    page.keep("none")
    page.one("#none .pill").click()
    page.until(lambda: page.titles())
    assert not page.shows("#none")


def test_the_keyboard_reaches_everything(page: Page) -> None:
    """Slash searches, arrows walk the results, Enter opens details, Escape closes them, then clears."""
    page.open(q=QUERY)
    page.browser.execute_script("document.activeElement.blur()")
    page.press("/")
    assert page.focused() == "#query"
    first, second = page.titles()[:2]
    page.press(Keys.ARROW_DOWN)
    assert page.browser.switch_to.active_element.text == first
    page.press(Keys.ARROW_DOWN)
    assert page.browser.switch_to.active_element.text == second
    page.keep("focus")
    page.press(Keys.ENTER)
    page.until(lambda: page.texts("dialog[open] h2") == [second])
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.shows("dialog"))
    assert page.browser.switch_to.active_element.text == second
    page.press(Keys.ARROW_UP)
    page.press(Keys.ARROW_UP)
    assert page.focused() == "#query"
    page.press(Keys.ESCAPE)
    page.until(lambda: page.shows("#start"))
    assert page.one("#query").get_property("value") == ""
    assert page.focused() == "#query"


def test_tab_follows_the_reading_order(page: Page) -> None:
    """Skip link, search, filters, status, then the first card from its title to its disclosures."""
    page.open(q=QUERY)
    page.one("#query").click()
    page.press(Keys.SHIFT, Keys.TAB)
    assert page.focused() == ".skip"
    seen = []
    while len(seen) < 200 and seen[-3:] != [".title", ".quiet", ".quiet"]:
        page.press(Keys.TAB)
        seen.append(page.focused())
    anchors = [stop for stop in seen if stop in ("#query", "#timings-toggle", ".title")]
    assert anchors == ["#query", "#timings-toggle", ".title"]
    filters = [i for i, stop in enumerate(seen) if stop.startswith("#f-")]
    assert filters
    assert seen.index("#query") < filters[0] <= filters[-1] < seen.index("#timings-toggle")


def test_every_control_has_a_name(page: Page) -> None:
    """Whatever can be operated says what it is."""
    page.open(q=QUERY)
    page.one("#timings-toggle").click()
    page.keep("timings")
    controls = [control for control in page.all("input, select, button, a[href], summary") if control.is_displayed()]
    assert len(controls) > 10
    assert [control.get_attribute("outerHTML") for control in controls if not control.accessible_name.strip()] == []


@pytest.mark.parametrize("width", [320, 360, 768])
def test_a_narrow_window_never_scrolls_sideways(page: Page, width: int) -> None:
    """Start, results with a panel open, and no results all fit; an element too wide would be noticed."""
    page.resize(width)
    for name, params in {"start": {}, "none": impossible(page), "results": {"q": QUERY}}.items():
        page.open(**params)
        assert page.overflow() <= 0, name
        page.keep(f"{name}-{width}")
    page.one("#hits .card .actions button").click()
    page.until(lambda: page.shows(".why"))
    if width < 760:
        page.browser.execute_script("document.querySelector('.panel').scrollIntoView({block: 'center'})")
        page.keep(f"why-{width}")
        page.browser.execute_script("scrollTo(0, 0)")
        page.one("summary").click()
    assert page.shows("#filters")
    assert page.overflow() <= 0
    page.keep(f"filters-{width}")
    wide = f"document.body.append(Object.assign(document.createElement('pre'), {{textContent: '{'x' * 400}'}}))"
    page.browser.execute_script(wide)
    assert page.overflow() > 0, "the measure must notice a page that is too wide"


def test_the_console_stays_quiet(page: Page) -> None:
    """A walk through the page breaks no policy and raises no error; an error would be noticed."""
    page.resize(1280, 860, scheme="dark")
    page.open()
    page.type(QUERY)
    page.until(lambda: page.titles())
    page.one("#hits .card .actions button").click()
    page.until(lambda: page.shows(".why"))
    page.one("#timings-toggle").click()
    page.keep("dark")
    page.one("#hits .title").click()
    page.until(lambda: page.shows("dialog .details-body"))
    assert page.complaints() == []
    page.browser.execute_script("console.error('noticed')")
    assert len(page.complaints()) == 1


# ---------------------------------------------------------------- the collection's shape and texts


def test_price_stock_and_order_hold_in_the_address(stub_page: Page) -> None:
    """A range, a switch and an order are taken from the controls, kept in the address and survive a reload."""
    stub_page.open(q=QUERY)
    stub_page.one("#f-price-gte").send_keys("50")
    stub_page.one("#f-price-lte").send_keys("150")
    stub_page.until(lambda: "price%3A50..150" in stub_page.browser.current_url)
    stub_page.one("#f-in_stock").click()
    stub_page.one("#sort option[value='price:asc']").click()
    stub_page.until(lambda: "sort=price" in stub_page.browser.current_url)
    expected = ["Sleek Wireless Over-Ear Headphones", "Vibrant Beats Fusion Headphones"]
    stub_page.until(lambda: stub_page.titles()[:2] == expected)
    stub_page.browser.refresh()
    stub_page.until(lambda: stub_page.titles()[:2] == expected)
    assert stub_page.one("#f-price-gte").get_property("value") == "50"
    assert stub_page.texts("#chips .chip") == ["Price 50–150", "In stock"]
    stub_page.keep("price")


def test_a_crossed_range_is_pointed_out_and_not_asked(stub_page: Page, stub: Any) -> None:
    """A lower bound above the upper one is marked as invalid; nothing is sent."""
    stub_page.open(q=QUERY, f="price:..40")
    asked = len(stub.log())
    stub_page.one("#f-price-gte").send_keys("90")
    stub_page.until(lambda: stub_page.shows("#f-price-fault"))
    assert stub_page.one("#f-price-gte").get_attribute("aria-invalid") == "true"
    assert len(stub.log()) == asked


def test_a_collection_shows_only_the_controls_it_has(stub_page: Page) -> None:
    """Without numbers and stock there is no range, no switch and no order to choose."""
    stub_page.open(q="bolt")
    stub_page.one("#collection option[value='workshop']").click()
    stub_page.until(lambda: "Wing bolt" in stub_page.titles())
    assert stub_page.texts("#filters legend") == ["Brand", "Color"]
    assert not stub_page.shows(".range")
    assert not stub_page.shows(".switch")
    assert not stub_page.shows("#sort")


def test_show_more_continues_the_list(stub_page: Page) -> None:
    """Each page is appended, the focus moves to its first product, and the button leaves with the last one."""
    stub_page.open(q="bolt", collection="workshop")
    assert len(stub_page.titles()) == 20
    for shown in (40, 60):
        stub_page.one("#more").click()
        stub_page.until(lambda shown=shown: len(stub_page.titles()) == shown)
        assert stub_page.browser.switch_to.active_element.text == stub_page.titles()[shown - 20]
    assert len(set(stub_page.titles())) == 60
    assert not stub_page.shows("#more")


def test_catalogue_text_never_becomes_markup(stub_page: Page) -> None:
    """Tags are shown as text, a script address is no link, and a plain web address is."""
    for query, begins, links in (("wing", "Wing", ["https://example.com/wing-bolt"]), ("onerror", "<img src=x", [])):
        stub_page.open(q=query, collection="workshop")
        (title,) = stub_page.titles()
        assert title.startswith(begins)
        stub_page.one("#hits .title").click()
        stub_page.until(lambda title=title: stub_page.texts("#details-title") == [title])
        hrefs = "return [...document.querySelectorAll('dialog a')].map(e => e.href)"
        assert stub_page.browser.execute_script(hrefs) == links
    assert stub_page.all("#hits img, #hits script, dialog img, dialog script, #filters b") == []
    assert "owned" not in stub_page.browser.title
    assert stub_page.complaints() == []


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("guarded", [True, False])
def test_a_stale_answer_is_never_shown(stub_page: Page, stub: Any, guarded: bool) -> None:
    """An answer that arrives after a newer one is dropped; with the guards taken out, the same test sees it."""
    stub.fault(hold=["sofa"], unguarded=not guarded)
    stub_page.open()
    stub_page.type("sofa")
    stub_page.until(lambda: ["asked", "sofa"] in stub.log())
    stub_page.type("headphones")
    stub_page.until(lambda: stub_page.titles() and "Headphones" in stub_page.titles()[0])
    stub.release()
    stub_page.until(lambda: ["answered", "sofa"] in stub.log())
    assert stub.log().index(["answered", "headphones"]) < stub.log().index(["answered", "sofa"])
    if guarded:
        later = "const done = arguments[0]; fetch('stub/log').then(() => setTimeout(done, 300))"
        stub_page.browser.execute_async_script(later)
        assert "Headphones" in stub_page.titles()[0]
    else:
        stub_page.until(lambda: stub_page.titles() == ["Emerald Oasis Velvet Sofa"])


def test_an_outage_keeps_what_is_shown_and_heals_by_itself(stub_page: Page, stub: Any) -> None:
    """With the server killed the last answer stays under a clear message; once it is back, the search goes on."""
    stub_page.open(q=QUERY)
    before = stub_page.titles()
    stub.kill()
    with pytest.raises(httpx.ConnectError):
        httpx.get(stub.url)
    stub_page.type("sofa")
    stub_page.until(lambda: stub_page.shows("#outage"))
    assert "does not answer" in stub_page.texts("#outage-text")[0]
    assert stub_page.titles() == before
    assert stub_page.overflow() <= 0
    stub_page.keep("outage")
    stub.start()
    stub_page.until(lambda: any("Sofa" in title for title in stub_page.titles()))
    assert not stub_page.shows("#outage")


def test_a_service_that_is_not_ready_yet_is_waited_for(stub_page: Page, stub: Any) -> None:
    """A page opened too early says so and begins by itself, with the words typed meanwhile."""
    stub.fault(status=503)
    stub_page.open()
    assert "not ready" in stub_page.texts("#outage-text")[0]
    stub_page.type("sofa")
    stub.fault()
    stub_page.until(lambda: stub_page.titles() == ["Emerald Oasis Velvet Sofa"])
    assert not stub_page.shows("#outage")


@pytest.mark.parametrize("status", [429, 503, 504])
def test_a_passing_refusal_is_tried_again(stub_page: Page, stub: Any, status: int) -> None:
    """Busy, not ready and too late are waited out."""
    stub_page.open()
    stub.fault(status=status)
    stub_page.type("sofa")
    stub_page.until(lambda: stub_page.shows("#outage"))
    stub.fault()
    stub_page.until(lambda: stub_page.titles())
    assert not stub_page.shows("#outage")


def test_a_lasting_refusal_is_said_and_not_repeated(stub_page: Page, stub: Any) -> None:
    """What the service will not answer is told in its own words, without an older answer beneath."""
    stub_page.open(q=QUERY)
    stub.fault(status=422)
    stub_page.type("sofa")
    stub_page.until(lambda: stub_page.shows("#refusal"))
    assert stub_page.texts("#refusal") == ["The stand-in was told to refuse."]
    assert stub_page.titles() == []
    assert not stub_page.shows("#outage")


def test_a_degraded_answer_says_so(stub_page: Page, stub: Any) -> None:
    """The notice names the reason, and leaves with the next full answer."""
    stub.fault(degraded=True)
    stub_page.open(q=QUERY)
    assert "dense retrieval was skipped" in stub_page.texts("#degraded")[0]
    assert stub_page.shows("#degraded")
    stub_page.keep("degraded")
    stub.fault()
    stub_page.type("sofa")
    stub_page.until(lambda: stub_page.titles() and not stub_page.shows("#degraded"))


def test_it_says_so_where_no_product_has_the_words(stub_page: Page, stub: Any) -> None:
    """What is found by meaning alone, and a query too long to be read whole, are told; an ordinary one has no note."""
    stub.fault(reading={"word_matches": 0, "truncated": True})
    stub_page.open(q=QUERY)
    assert stub_page.shows("#reading")
    assert "No product has any of these words" in stub_page.texts("#reading")[0]
    assert "only the beginning" in stub_page.texts("#reading")[0]
    stub_page.keep("reading")
    stub.fault(reading={"word_matches": 3, "truncated": False})
    stub_page.type("sofa")
    stub_page.until(lambda: stub_page.titles() and not stub_page.shows("#reading"))


def test_an_address_that_asks_for_what_is_not_here_is_told(stub_page: Page) -> None:
    """The collection, the order and the filter that this service does not have; gone with the next search."""
    stub_page.open(q=QUERY, collection="nowhere", sort="colour:asc", f="flavour:mint")
    told = stub_page.texts("#ignored")[0]
    assert stub_page.shows("#ignored")
    assert all(name in told for name in ("nowhere", "colour:asc", "flavour"))
    stub_page.keep("ignored")
    stub_page.type("sofa")
    stub_page.until(lambda: not stub_page.shows("#ignored"))


def test_the_page_loads_nothing_from_elsewhere(stub_page: Page) -> None:
    """Every request of the page goes to its own origin."""
    stub_page.open(q=QUERY)
    names = "return JSON.stringify(performance.getEntriesByType('resource').map(e => e.name))"
    requested = json.loads(stub_page.browser.execute_script(names))
    assert len(requested) >= 4
    assert all(name.startswith(stub_page.url) for name in requested)


@pytest.fixture
def fresh_page(stub_page: Page) -> Iterator[Page]:
    """A page whose tab has no key yet, and leaves none."""
    yield stub_page
    stub_page.browser.get(stub_page.url)
    stub_page.browser.execute_script("sessionStorage.clear()")
    stub_page.complaints()


def test_a_key_is_asked_for_only_where_it_is_needed(fresh_page: Page, stub: Any) -> None:
    """Not before a 401; a wrong one is said to be, the right one brings the answer that was asked for and is kept over
    a reload of the tab, out of the address and out of the field."""
    page = fresh_page
    page.open(q=QUERY)
    assert page.titles() and not page.shows("#key-form")
    stub.fault(key="aisle_right")
    page.open(q=QUERY)
    page.until(lambda: page.shows("#key-form"))
    assert page.titles() == [] and page.focused() == "#key"
    assert page.texts("#key-text") == ["This service answers to those who have a key."]
    page.keep("key")
    page.press("two words", Keys.ENTER)
    page.until(lambda: "no spaces" in page.texts("#key-text")[0])
    page.press(Keys.CONTROL, "a", Keys.NULL, "aisle_wrong", Keys.ENTER)
    page.until(lambda: "did not take" in page.texts("#key-text")[0])
    page.press("  aisle_right ", Keys.ENTER)
    page.until(lambda: page.titles())
    assert not page.shows("#key-form") and page.focused() == "#query"
    assert "aisle_right" not in page.browser.current_url
    assert page.one("#key").get_property("value") == ""
    page.type("sofa")
    page.until(lambda: page.titles() == ["Emerald Oasis Velvet Sofa"])
    page.browser.refresh()
    page.until(lambda: page.titles())
    page.one("#hits .title").click()
    page.until(lambda: page.shows("dialog .details-body"))
    assert not page.shows("#key-form")


def test_a_key_that_ends_while_searching_is_asked_for_again(fresh_page: Page, stub: Any) -> None:
    """The answer of the key before goes, the words stay, and the next key brings the answer to them."""
    page = fresh_page
    page.open(q=QUERY)
    stub.fault(key="aisle_new")
    page.type("sofa")
    page.until(lambda: page.shows("#key-form"))
    assert page.titles() == [] and page.one("#query").get_property("value") == "sofa"
    assert page.one("#key").accessible_name == "API key"
    for width in (320, 1280):
        page.resize(width)
        assert page.overflow() <= 0
    page.press("aisle_new", Keys.ENTER)
    page.until(lambda: page.titles() == ["Emerald Oasis Velvet Sofa"])


def test_the_page_of_a_service_with_keys_works_once_it_has_one(
    chromium: Any, tiny_bundles: Path, tmp_path: Path
) -> None:
    """The real service: the page loads without a key, asks for one, and searches with it; a key of another scope is
    said to lack it."""
    search, write = keyfile.new_key(), keyfile.new_key()
    lines = [keyfile.line_of(scope, frozenset((scope,)), key) for scope, key in (("search", search), ("write", write))]
    (tmp_path / "keys").write_text("\n".join(lines))
    with served(tiny_bundles, AISLE_API_KEYS_FILE=str(tmp_path / "keys")) as service:
        page = Page(chromium, service.address + "/")
        page.open(q="steel mug")
        assert page.shows("#key-form")
        page.press(write, Keys.ENTER)
        page.until(lambda: "scope search" in page.texts("#key-text")[0])
        page.press(search, Keys.ENTER)
        page.until(lambda: page.titles())
        blocked = [one for one in page.complaints() if "401" not in one and "403" not in one]
        assert blocked == []
        chromium.get("about:blank")


@pytest.mark.parametrize("page_server", ["service"], indirect=True)
def test_a_mended_query_is_said(page: Page) -> None:
    """What was searched for instead of what was typed; a query that is spelt well brings no word (control)."""
    page.open(q="wirelss headphones")
    page.until(lambda: "for “wireless headphones”" in page.texts("#status")[0])
    page.open(q="wireless headphones")
    page.until(lambda: page.total() > 0)
    assert "for “" not in page.texts("#status")[0]
