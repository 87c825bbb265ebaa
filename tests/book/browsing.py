"""What the browser tests share: the pages, visits that record all troubles, and waiting until nothing moves."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from playwright.sync_api import Browser, Page, Request, Response, Route

ROOT = Path(__file__).resolve().parent.parent.parent
HTML = Path(os.environ.get("FM_BOOK_HTML", ROOT / "_build" / "html"))
CONTENTS = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
CHAPTERS = [entry for part in CONTENTS["parts"] for entry in part["chapters"]]
PAGES = [CONTENTS["root"], *(entry["file"] for one in CHAPTERS for entry in (one, *one.get("sections", ())))]
OTHER_PAGES = ["search", "genindex"]
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
TIMEOUT = 180_000  # milliseconds
LOOKS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": DESKTOP, "color_scheme": "light"},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light"},
    "without scripts": {"viewport": DESKTOP, "java_script_enabled": False},
    "still": {"viewport": DESKTOP, "color_scheme": "light", "reduced_motion": "reduce"},
}

# Fonts and formulas are there, animations and transitions are at their end, and two frames pass without a new one.
STILL = """async () => {
  await document.fonts.ready;
  await window.MathJax?.startup?.promise;
  for (let still = 0; still < 2; ) {
    const moving = document.getAnimations().filter((one) => one.playState === "running");
    for (const one of moving) one.effect.getComputedTiming().endTime < Infinity ? one.finish() : one.cancel();
    still = moving.length ? 0 : still + 1;
    await new Promise((done) => { requestAnimationFrame(done); setTimeout(done, 200); });
  }
}"""


def unavailable(reason: str) -> None:
    """Skip with the reason, or fail where a browser is required."""
    if os.environ.get("FM_REQUIRE_BROWSER") == "1":
        pytest.fail(f"FM_REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


def stand_still(page: Page) -> None:
    """Wait until nothing moves; whatever measures a page calls this first."""
    page.evaluate(STILL)


def unfold(page: Page) -> None:
    """Open what is folded, load lazy images, and wait until nothing moves."""
    page.evaluate(
        """() => {
          for (const one of document.querySelectorAll("article details")) one.open = true;
          for (const one of document.querySelectorAll(".toggle-hidden")) one.classList.remove("toggle-hidden");
          const images = [...document.querySelectorAll("article img")];
          for (const one of images) one.loading = "eager";
          return Promise.all(images.map((one) => one.decode().catch(() => {})));
        }"""
    )
    stand_still(page)


@contextmanager
def in_the_dark(page: Page) -> Iterator[None]:
    """The page after the reader's system has changed to its dark theme."""
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    stand_still(page)
    yield
    page.emulate_media(color_scheme="light")
    stand_still(page)


@contextmanager
def on_a_phone(page: Page) -> Iterator[None]:
    """The page in the width of a phone."""
    page.set_viewport_size(PHONE)
    stand_still(page)
    yield
    page.set_viewport_size(DESKTOP)
    stand_still(page)


@contextmanager
def on_paper(page: Page) -> Iterator[None]:
    """The page as it is printed."""
    page.emulate_media(media="print")
    stand_still(page)
    yield
    page.emulate_media(media="screen")
    stand_still(page)


@dataclass
class Visit:
    """A page, the files that it loaded by itself, and all that went wrong while it was open."""

    page: Page
    name: str
    files: list[Path] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


def visit(browser: Browser, address: str, name: str, look: str = "desktop") -> Visit:
    """Open a page, refuse whatever is not part of the book, and record troubles."""
    page = browser.new_page(**LOOKS[look])
    page.set_default_timeout(TIMEOUT)
    seen, files = Visit(page, name), []

    def decide(route: Route) -> None:
        if urlsplit(route.request.url).netloc == urlsplit(address).netloc:
            route.continue_()
        else:
            seen.troubles.append(f"asked for {route.request.url}, which is not part of the book")
            route.abort()

    def failed(request: Request) -> None:
        seen.troubles.append(f"failed: {request.url} ({request.failure})")

    def answered(response: Response) -> None:
        files.append(HTML / urlsplit(response.url).path.lstrip("/"))
        if response.status >= 400:
            seen.troubles.append(f"{response.status}: {response.url}")

    page.route(re.compile("^https?://"), decide)
    page.on("requestfailed", failed)
    page.on("response", answered)
    page.on("console", lambda m: m.type != "error" or seen.troubles.append(f"console: {m.text}"))
    page.on("pageerror", lambda error: seen.troubles.append(f"uncaught: {error}"))
    page.goto(f"{address}/{name}.html", wait_until="networkidle")
    if look != "without scripts":
        stand_still(page)
    seen.files = list(files)  # what follows is asked for by the test or the reader
    return seen


def on(pages: list[str], look: str = "desktop") -> pytest.MarkDecorator:
    """Run a test on each page; its argument `opened` is a visit that all tests of the page in this look share."""
    names = [sys.intern(f"{page}, {look}") for page in pages]  # pytest shares what is asked for by the same object
    values = [pytest.param(name, marks=pytest.mark.xdist_group(name), id=name) for name in names]
    return pytest.mark.parametrize("opened", values, indirect=True)
