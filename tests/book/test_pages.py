"""What surrounds the chapters: weight, search, the way on, links to the repository, and what a page says of itself."""

from __future__ import annotations

import gzip
import os
import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import notebooks
import pytest
import theme_settings
from browsing import HTML, LOOKS, PAGES, ROOT, Visit, on
from PIL import Image
from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

HEAVIEST = 3_000_000  # bytes of a page before its reader presses anything
COMPRESSED = {".html", ".js", ".css", ".svg", ".json"}
ADDRESS = theme_settings.repository(notebooks.ROOT / "pyproject.toml")


def text_of(name: str) -> str:
    return (HTML / f"{name}.html").read_text(encoding="utf-8")


def meta(name: str) -> dict[str, str]:
    found = re.findall(r'<meta (?:name|property)="([\w:]+)" content="([^"]*)"', text_of(name))
    return dict(found)


def sent(file: Path) -> int:
    """Bytes that travel for a file: text is compressed on the way, by GitHub Pages as by most servers."""
    content = file.read_bytes()
    return len(gzip.compress(content, 6)) if file.suffix in COMPRESSED else len(content)


@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_heavy(browser: Browser, address: str, name: str) -> None:
    asked: set[Path] = set()
    page = browser.new_page(**LOOKS["desktop"])
    page.on("response", lambda one: asked.add(HTML / urlsplit(one.url).path.lstrip("/")))
    page.goto(f"{address}/{name}.html", wait_until="load")
    page.wait_for_load_state("networkidle")
    page.close()
    weights = {file.name: sent(file) for file in asked if file.is_file()}
    assert f"{Path(name).name}.html" in weights
    total, plain = sum(weights.values()), sum(file.stat().st_size for file in asked if file.is_file())
    largest = sorted(weights.items(), key=lambda one: -one[1])[:4]
    words = ", ".join(f"{file[-24:]} {size / 1e6:.2f}" for file, size in largest)
    print(f"{name}: {total / 1e6:.2f} MB sent, {plain / 1e6:.2f} MB unpacked; {words}")
    assert total < HEAVIEST, largest


@pytest.mark.parametrize(("words", "name"), [("receptive field", "05_two_unets"), ("pacing", "07_velocity_field")])
def test_the_search_finds_the_chapter(browser: Browser, address: str, words: str, name: str) -> None:
    page = browser.new_page(**LOOKS["desktop"])
    page.goto(f"{address}/search.html?q={words.replace(' ', '+')}", wait_until="load")
    page.wait_for_selector("#search-results li a")
    page.wait_for_load_state("networkidle")
    links = page.locator("#search-results li a").evaluate_all("all => all.map((one) => one.href)")
    page.close()
    assert any(f"/book/{name}.html" in link for link in links)


def test_one_page_leads_to_the_next_and_back() -> None:
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
    if not ADDRESS:
        assert edits == issues == []
        return
    ending = ".ipynb" if (ROOT / f"{name}.ipynb").is_file() else ".md"
    assert edits == [f"{ADDRESS}/edit/main/{name}{ending}"]
    assert [link.split("?")[0] for link in issues] == [f"{ADDRESS}/issues/new"]


def test_every_page_says_what_it_is(address: str) -> None:
    said = {name: meta(name) for name in PAGES}
    titles = {name: re.search("<title>(.*?)</title>", text_of(name), flags=re.DOTALL)[1].strip() for name in PAGES}
    assert len(set(titles.values())) == len(PAGES)
    for one in said.values():
        assert 60 <= len(one["description"]) <= 210
        assert one["og:description"] == one["description"]
        assert one["og:title"]
    assert len({one["description"] for one in said.values()}) == len(PAGES)
    assert meta("index")["og:description"] == said[PAGES[0]]["description"], "the address people pass on says nothing"


def test_addresses_of_pictures_are_complete_or_left_out(address: str) -> None:
    for name in [*PAGES, "index"]:
        where = meta(name).get("og:image")
        if where is None:
            assert not os.environ.get("FM_SITE")
        else:
            assert re.fullmatch(r"https://[^/]+/(\S+/)?_static/card\.png", where)
    with Image.open(HTML / "_static" / "card.png") as card:
        assert card.size == (1200, 630)


@on(PAGES[:1])
def test_logo_and_favicon_are_the_book_s_own(opened: Visit) -> None:
    logo = opened.page.locator(".navbar-brand img:visible").first
    assert logo.get_attribute("src").endswith("_static/logo.svg")
    assert logo.evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
    assert opened.page.locator("link[rel~=icon]").first.get_attribute("href").endswith("_static/logo.svg")
