"""The built book, served on this machine, and a browser to read it with.

The pages come from `_build/html` (or the folder in FM_BOOK_HTML). Where there is no built book or no Chromium, the
tests are skipped and say why; with FM_REQUIRE_BROWSER=1, as in CI, they fail instead.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from browsing import HTML, Visit, lacking, visit
from playwright.sync_api import Browser, sync_playwright

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


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        lacking("no Chromium was found: `apt install chromium` brings it on Debian and Ubuntu")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A page in one of its looks, opened once for all the tests of a file that look at it so."""
    seen = visit(browser, address, *request.param)
    yield seen
    seen.page.close()
