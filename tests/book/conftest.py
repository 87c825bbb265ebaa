"""The built book, served on this machine, and a browser to read it with.

The pages come from `_build/html` or the folder in FM_BOOK_HTML. Without a built book or Chromium the tests are skipped;
with FM_REQUIRE_BROWSER=1, as in CI, they fail.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer

import pytest
from browsing import HTML, Visit, unavailable, visit
from playwright.sync_api import Browser, sync_playwright

import run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
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


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The built book, served as `run.py serve` does."""
    if not (HTML / "index.html").is_file():
        unavailable("the book is not built: `python3 run.py book` builds it")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(run.Handler, directory=HTML)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        unavailable("no Chromium was found: `apt install chromium` installs it on Debian and Ubuntu")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def opened(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A page in one of its looks, opened once for all tests of it; the browser shows one page at a time."""
    seen = visit(browser, address, *request.param.split(", "))
    yield seen
    seen.page.close()
