"""The built book on a server of its own, and one Chromium, for all browser tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer

import pytest
from built_book import FLAGS, HTML, Quiet, chromium, lacking
from playwright.sync_api import Browser, sync_playwright


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
    found = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()
