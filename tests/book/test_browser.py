"""The built book as its reader sees it: every page opened in Chromium, with no network but the book itself."""

from __future__ import annotations

import re

import pytest
from browsing import CONTENTS, HTML, OTHER_PAGES, PAGES, ROOT, Visit, on, visit
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


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


@pytest.mark.parametrize("page", [page for page in PAGES if (ROOT / f"{page}.ipynb").is_file()])
def test_the_colab_button_points_at_the_notebook(address: str, page: str) -> None:
    html = (HTML / f"{page}.html").read_text(encoding="utf-8")
    links = re.findall(r"https://colab\.research\.google\.com/github/([^\"]+)", html)
    from theme_settings import repository

    if not repository(ROOT / "pyproject.toml"):
        assert links == [], "the address is unknown, so a Colab button leads nowhere"
        return
    assert links, "the page has no Colab button"
    assert all(re.fullmatch(rf"[\w.-]+/[\w.-]+/blob/main/{page}\.ipynb", link) for link in links)
