"""The built book as its reader sees it: every page opened in Chromium, with no network but the book itself.

The pages come from `_build/html` (or the folder in FM_BOOK_HTML). Where there is no built book or no Chromium, these
tests are skipped and say why; with FM_REQUIRE_BROWSER=1, as in CI, they fail instead.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from playwright.sync_api import Browser, Page, Request, Route, sync_playwright

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parent.parent.parent
HTML = Path(os.environ.get("FM_BOOK_HTML", ROOT / "_build" / "html"))
CONTENTS = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [CONTENTS["root"], *(entry["file"] for part in CONTENTS["parts"] for entry in part["chapters"])]
OTHER_PAGES = ["search", "genindex"]
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
PATIENCE = 180_000  # milliseconds
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def lacking(reason: str) -> None:
    """Skip and say why, or fail where a browser is required."""
    if os.environ.get("FM_REQUIRE_BROWSER") == "1":
        pytest.fail(f"FM_REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The built book, served on this machine."""
    if not (HTML / "index.html").is_file():
        lacking("the book is not built: `python3 run.py book` builds it")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=HTML)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        lacking("no Chromium was found: `apt install chromium` brings it on Debian and Ubuntu")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page and all that went wrong while it was open."""

    page: Page
    troubles: list[str] = field(default_factory=list)


def visit(browser: Browser, address: str, name: str, viewport: dict[str, int] = DESKTOP, theme: str = "light") -> Visit:
    """Open a page, refuse whatever does not come from the book itself, and note every trouble."""
    page = browser.new_page(viewport=viewport, color_scheme=theme)
    page.set_default_timeout(PATIENCE)
    seen = Visit(page)

    def decide(route: Route) -> None:
        if urlsplit(route.request.url).netloc == urlsplit(address).netloc:
            route.continue_()
        else:
            seen.troubles.append(f"asked for {route.request.url}, which is not part of the book")
            route.abort()

    def failed(request: Request) -> None:
        seen.troubles.append(f"failed: {request.url} ({request.failure})")

    page.route(re.compile("^https?://"), decide)
    page.on("requestfailed", failed)
    page.on("response", lambda r: r.status < 400 or seen.troubles.append(f"{r.status}: {r.url}"))
    page.on("console", lambda m: m.type != "error" or seen.troubles.append(f"console: {m.text}"))
    page.on("pageerror", lambda error: seen.troubles.append(f"uncaught: {error}"))
    page.goto(f"{address}/{name}.html", wait_until="load")
    page.wait_for_load_state("networkidle")
    return seen


@pytest.fixture(scope="module")
def opened(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A page in one of its looks, opened once for all the tests that look at it so."""
    name, look = request.param
    seen = visit(browser, address, name, PHONE if look == "phone" else DESKTOP, "dark" if look == "dark" else "light")
    yield seen
    seen.page.close()


def on(pages: list[str], look: str = "desktop") -> pytest.MarkDecorator:
    return pytest.mark.parametrize("opened", [(page, look) for page in pages], ids=pages, indirect=True)


def show_everything(page: Page) -> None:
    """Open what is folded and load what waits for being scrolled to."""
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.evaluate("document.querySelectorAll('img[loading=lazy]').forEach((one) => { one.loading = 'eager'; })")
    page.wait_for_load_state("networkidle")


@on([*PAGES, *OTHER_PAGES])
def test_the_page_needs_no_network_and_makes_no_error(opened: Visit) -> None:
    show_everything(opened.page)
    assert opened.troubles == []


@on(PAGES)
def test_formulas_are_set(opened: Visit) -> None:
    formulas = opened.page.locator(".math").count()
    if formulas == 0:
        return
    opened.page.wait_for_function("window.MathJax?.startup?.promise !== undefined")
    opened.page.evaluate("MathJax.startup.promise")
    assert opened.page.locator("mjx-container").count() >= formulas
    wrong = opened.page.locator("mjx-merror, [data-mjx-error]")
    assert [wrong.nth(i).inner_text() for i in range(wrong.count())] == []
    raw = opened.page.locator(".math").filter(has_text=re.compile(r"\\[(\[]"))
    assert raw.count() == 0, "a formula was left as TeX"


@on(PAGES)
def test_images_are_there_and_described(opened: Visit) -> None:
    show_everything(opened.page)
    images = opened.page.locator("article img").evaluate_all(
        "all => Promise.all(all.map(one => one.decode().catch(() => {}).then(() => "
        "({source: one.currentSrc.slice(0, 200), width: one.naturalWidth, text: one.getAttribute('alt')}))))"
    )
    assert [image["source"] for image in images if image["width"] == 0] == []
    nameless = [image for image in images if not image["text"] or re.search(r"\.\w{3,4}$", image["text"].strip())]
    assert nameless == [], "alt text says what is to be seen, not the name of a file"
    texts = [image["text"] for image in images]
    assert len(texts) == len(set(texts)), "two images of a page have the same alt text"


@on(PAGES, "phone")
def test_no_image_is_distorted(opened: Visit) -> None:
    show_everything(opened.page)
    shapes = opened.page.locator("article img").evaluate_all(
        """all => all.filter(one => one.naturalWidth && one.clientWidth).map(one => {
          const style = getComputedStyle(one);
          const width = one.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
          const height = one.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
          return [one.alt.slice(0, 60), height / width, one.naturalHeight / one.naturalWidth];
        })"""
    )
    distorted = [shape for shape in shapes if abs(shape[1] / shape[2] - 1) > 0.03]
    assert distorted == []


@on(PAGES, "phone")
def test_a_phone_does_not_scroll_sideways(opened: Visit) -> None:
    show_everything(opened.page)
    width, wide = opened.page.evaluate(
        """() => {
          const width = document.documentElement.clientWidth;
          const hidden = (one) => one.closest('.bd-sidebar-primary, .bd-sidebar-secondary') !== null;
          const clipped = (one) => {
            for (let up = one.parentElement; up; up = up.parentElement)
              if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(up).overflowX) && up !== document.body)
                return true;
            return false;
          };
          const wide = [...document.querySelectorAll('article *')].filter((one) =>
            one.getBoundingClientRect().right > width + 1 && !hidden(one) && !clipped(one));
          return [[width, document.documentElement.scrollWidth], wide.map((one) => one.outerHTML.slice(0, 120))];
        }"""
    )
    assert wide == []
    assert width[1] <= width[0]


@on(PAGES, "dark")
def test_the_dark_theme_makes_no_error(opened: Visit) -> None:
    assert opened.page.locator("html").get_attribute("data-theme") == "dark"
    assert opened.troubles == []


def test_the_start_page_leads_to_the_book(browser: Browser, address: str) -> None:
    seen = visit(browser, address, "index")
    try:
        seen.page.wait_for_url(f"**/{CONTENTS['root']}.html")
        links = seen.page.locator("nav a[href$='.html']").evaluate_all("all => all.map((one) => one.href)")
        for page in PAGES[1:]:
            assert f"{address}/{page}.html" in links
    finally:
        seen.page.close()


@pytest.mark.parametrize("page", PAGES[1:])
def test_the_colab_button_points_at_the_notebook(address: str, page: str) -> None:
    html = (HTML / f"{page}.html").read_text(encoding="utf-8")
    links = re.findall(r"https://colab\.research\.google\.com/github/([^\"]+)", html)
    assert links, "the page has no Colab button"
    assert all(re.fullmatch(rf"[\w.-]+/[\w.-]+/blob/main/{page}\.ipynb", link) for link in links)
