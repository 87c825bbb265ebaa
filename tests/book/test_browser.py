"""Every page of the built book in Chromium, with no network but the book itself."""

from __future__ import annotations

import re

import pytest
from browsing import CONTENTS, HTML, OTHER_PAGES, PAGES, ROOT, Visit, on, on_a_phone, unfold, visit
from playwright.sync_api import Browser
from theme_settings import repository

pytestmark = pytest.mark.browser
ADDRESS = repository(ROOT / "pyproject.toml")


@on([*PAGES, *OTHER_PAGES])
def test_the_page_needs_no_network_and_makes_no_error(opened: Visit) -> None:
    unfold(opened.page)
    assert opened.troubles == []


@on([PAGES[0], PAGES[-1]], "dark")
def test_the_dark_theme_makes_no_error(opened: Visit) -> None:
    unfold(opened.page)
    assert opened.troubles == []


@on(PAGES)
def test_formulas_are_set(opened: Visit) -> None:
    formulas = opened.page.locator(".math").count()
    assert opened.page.locator("mjx-container").count() >= formulas
    assert opened.page.locator("mjx-merror, [data-mjx-error]").all_inner_texts() == []
    raw = opened.page.locator(".math").filter(has_text=re.compile(r"\\[(\[]"))
    assert raw.count() == 0, "a formula was left as TeX"


@on(PAGES)
def test_images_are_there_and_described(opened: Visit) -> None:
    unfold(opened.page)
    images = opened.page.locator("article img").evaluate_all(
        "all => all.map(one => ({source: one.currentSrc.slice(0, 200), width: one.naturalWidth, text: one.alt}))"
    )
    assert [image["source"] for image in images if image["width"] == 0] == []
    nameless = [image for image in images if not image["text"] or re.search(r"\.\w{3,4}$", image["text"].strip())]
    assert nameless == [], "an alt text is missing or is the name of a file"
    texts = [image["text"] for image in images]
    assert len(texts) == len(set(texts)), "two images of a page have the same alt text"


@on(PAGES)
def test_no_image_is_distorted_on_a_phone(opened: Visit) -> None:
    unfold(opened.page)
    with on_a_phone(opened.page):
        shapes = opened.page.locator("article img").evaluate_all(
            """all => all.filter(one => one.naturalWidth && one.clientWidth).map(one => {
              const style = getComputedStyle(one);
              const width = one.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
              const height = one.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
              return [one.alt.slice(0, 60), height / width, one.naturalHeight / one.naturalWidth];
            })"""
        )
    assert [shape for shape in shapes if abs(shape[1] / shape[2] - 1) > 0.03] == []


@on(PAGES)
def test_a_phone_does_not_scroll_sideways(opened: Visit) -> None:
    unfold(opened.page)
    with on_a_phone(opened.page):
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


def test_the_start_page_leads_to_the_book(browser: Browser, address: str) -> None:
    seen = visit(browser, address, "index")
    seen.page.wait_for_url(f"**/{CONTENTS['root']}.html")
    links = seen.page.locator("nav a[href$='.html']").evaluate_all("all => all.map((one) => one.href)")
    assert {f"{address}/{page}.html" for page in PAGES[1:]} <= set(links)
    seen.page.close()


@pytest.mark.parametrize("page", [page for page in PAGES if (ROOT / f"{page}.ipynb").is_file()])
def test_the_colab_button_opens_the_notebook(address: str, page: str) -> None:
    html = (HTML / f"{page}.html").read_text(encoding="utf-8")
    links = set(re.findall(r"https://colab\.research\.google\.com/github/([^\"]+)", html))
    expected = {f"{ADDRESS.removeprefix('https://github.com/')}/blob/main/{page}.ipynb"}
    assert links == (expected if ADDRESS.startswith("https://github.com/") else set())
