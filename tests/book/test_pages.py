"""What surrounds the chapters: size, search, the next page, links to the repository, and cards in messages."""

from __future__ import annotations

import gzip
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
import theme_settings
from browsing import HTML, PAGES, ROOT, Visit, on, visit
from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

MAX_BYTES = 3_000_000  # of a page before its reader presses anything
COMPRESSED = {".html", ".js", ".css", ".svg", ".json"}
ADDRESS = theme_settings.repository(ROOT / "pyproject.toml")


def text_of(name: str) -> str:
    return (HTML / f"{name}.html").read_text(encoding="utf-8")


def meta(name: str) -> dict[str, str]:
    return dict(re.findall(r'<meta (?:name|property)="([\w:]+)" content="([^"]*)"', text_of(name)))


def sent_bytes(file: Path) -> int:
    """Bytes sent for a file; GitHub Pages, as most servers, compresses text."""
    content = file.read_bytes()
    return len(gzip.compress(content, 6)) if file.suffix in COMPRESSED else len(content)


@on(PAGES)
def test_no_page_is_heavy(opened: Visit) -> None:
    sizes = {file.name: sent_bytes(file) for file in set(opened.files) if file.is_file()}
    assert f"{Path(opened.name).name}.html" in sizes
    assert sum(sizes.values()) < MAX_BYTES, sorted(sizes.items(), key=lambda one: -one[1])[:4]


@pytest.mark.parametrize(("words", "name"), [("receptive field", "06_unets"), ("pacing", "08_velocity_field")])
def test_the_search_finds_the_chapter(browser: Browser, address: str, words: str, name: str) -> None:
    seen = visit(browser, address, "search")
    seen.page.goto(f"{address}/search.html?q={words.replace(' ', '+')}")
    seen.page.locator(f"#search-results li a[href*='book/{name}.html']").first.wait_for()
    seen.page.close()


def test_one_page_leads_to_the_next_and_back(address: str) -> None:
    for here, there in pairwise(PAGES):
        onward = re.search(r'<a class="right-next"[^>]*href="([^"]+)"', text_of(here), flags=re.DOTALL)
        back = re.search(r'<a class="left-prev"[^>]*href="([^"]+)"', text_of(there), flags=re.DOTALL)
        assert Path(onward[1]).name == f"{Path(there).name}.html"
        assert Path(back[1]).name == f"{Path(here).name}.html"


@pytest.mark.parametrize("name", PAGES)
def test_edit_and_issue_links_point_at_the_repository(address: str, name: str) -> None:
    links = re.findall(r'href="([^"]+)"', text_of(name))
    edits = [link for link in links if "/edit/" in link]
    issues = [link for link in links if "/issues/new" in link]
    ending = ".ipynb" if (ROOT / f"{name}.ipynb").is_file() else ".md"
    assert edits == ([f"{ADDRESS}/edit/main/{name}{ending}"] if ADDRESS else [])
    assert [link.split("?")[0] for link in issues] == ([f"{ADDRESS}/issues/new"] if ADDRESS else [])


def test_every_page_has_a_card_of_its_own(address: str) -> None:
    cards = {name: meta(name) for name in PAGES}
    for card in cards.values():
        assert 60 <= len(card["description"]) <= 300
        assert card["og:description"] == card["description"]
        assert "$" not in card["description"] and "\\" not in card["description"]
        where = card.get("og:image")
        assert re.fullmatch(r"https://\S+/_static/card\.png", where) if os.environ.get("FM_SITE") else where is None
    assert len({card["og:title"] for card in cards.values()}) == len(PAGES)
    assert len({card["description"] for card in cards.values()}) == len(PAGES)
    assert meta("index")["og:description"] == cards[PAGES[0]]["description"], "this address is the one passed on"


@on(PAGES[:1])
def test_logo_and_favicon_are_the_book_s_own(opened: Visit) -> None:
    logo = opened.page.locator(".navbar-brand img:visible").first
    assert logo.get_attribute("src").endswith("_static/logo.svg")
    assert logo.evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
    assert opened.page.locator("link[rel~=icon]").first.get_attribute("href").endswith("_static/logo.svg")
