"""What the browser tests share: the book's pages, and a visit to one of them that notes every trouble."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from playwright.sync_api import Browser, Page, Request, Route

ROOT = Path(__file__).resolve().parent.parent.parent
HTML = Path(os.environ.get("FM_BOOK_HTML", ROOT / "_build" / "html"))
CONTENTS = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [CONTENTS["root"], *(entry["file"] for part in CONTENTS["parts"] for entry in part["chapters"])]
OTHER_PAGES = ["search", "genindex"]
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
PATIENCE = 180_000  # milliseconds
LOOKS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": DESKTOP, "color_scheme": "light"},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light"},
    "without scripts": {"viewport": DESKTOP, "java_script_enabled": False},
    "still": {"viewport": DESKTOP, "color_scheme": "light", "reduced_motion": "reduce"},
    "print": {"viewport": DESKTOP, "color_scheme": "light"},
}


def lacking(reason: str) -> None:
    """Skip and say why, or fail where a browser is required."""
    if os.environ.get("FM_REQUIRE_BROWSER") == "1":
        pytest.fail(f"FM_REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


@dataclass
class Visit:
    """A page and all that went wrong while it was open."""

    page: Page
    troubles: list[str] = field(default_factory=list)


def visit(browser: Browser, address: str, name: str, look: str = "desktop") -> Visit:
    """Open a page, refuse whatever does not come from the book itself, and note every trouble."""
    page = browser.new_page(**LOOKS[look])
    page.set_default_timeout(PATIENCE)
    if look == "print":
        page.emulate_media(media="print")
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


def on(pages: list[str], look: str = "desktop") -> pytest.MarkDecorator:
    """Run a test on each of the pages, which its argument `opened` is then a visit to."""
    return pytest.mark.parametrize("opened", [(page, look) for page in pages], ids=pages, indirect=True)
