"""The built book, opened in Chromium: what the browser tests share."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from playwright.sync_api import Browser, Page, Request, Route

__all__ = [
    "CONTENTS",
    "DESKTOP",
    "HTML",
    "PAGES",
    "PATIENCE",
    "PHONE",
    "ROOT",
    "Quiet",
    "Visit",
    "chromium",
    "lacking",
    "visit",
]

ROOT = Path(__file__).resolve().parent.parent.parent
HTML = Path(os.environ.get("FM_BOOK_HTML", ROOT / "_build" / "html"))
CONTENTS = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [CONTENTS["root"], *(entry["file"] for part in CONTENTS["parts"] for entry in part["chapters"])]
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


def chromium() -> str:
    """Address of an installed Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        lacking("no Chromium was found: `apt install chromium` brings it on Debian and Ubuntu")
    return found


@dataclass
class Visit:
    """A page and all that went wrong while it was open."""

    page: Page
    troubles: list[str] = field(default_factory=list)


def visit(
    browser: Browser,
    address: str,
    name: str,
    viewport: dict[str, int] = DESKTOP,
    theme: str = "light",
    motion: str = "no-preference",
) -> Visit:
    """Open a page, refuse whatever does not come from the book itself, and note every trouble."""
    page = browser.new_page(viewport=viewport, color_scheme=theme, reduced_motion=motion)
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
