"""Accessibility: axe-core on every page in both themes, order of headings, visible focus, less motion.

axe-core comes from the npm registry like the pages' own scripts, checked against the hash noted here.
"""

from __future__ import annotations

import tarfile
from itertools import pairwise
from typing import Any

import offline
import pytest
from browsing import HTML, OTHER_PAGES, PAGES, Visit, in_the_dark, on, stand_still, unavailable, unfold
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

AXE = offline.Package(
    name="axe-core",
    version="4.14.1",
    sha512="FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    folder="axe-core",
    script="axe.min.js",
    files=("axe.min.js",),
)
GRAVE = {"serious", "critical"}
EVERYWHERE = [*PAGES, *OTHER_PAGES]
FILMS = [
    name for name in PAGES if (page := HTML / f"{name}.html").is_file() and "-still.png" in page.read_text("utf-8")
]


@pytest.fixture(scope="session")
def axe() -> str:
    """The text of axe-core's script."""
    try:
        archive = offline.fetch(AXE, HTML.parent / ".offline")
    except offline.Unavailable as reason:
        unavailable(f"axe-core is missing: {reason}")
    with tarfile.open(archive) as content:
        return content.extractfile(f"package/{AXE.script}").read().decode()


def violations(page: Page, axe: str, *rules: str) -> list[dict[str, Any]]:
    """axe-core's findings by all or some rules: rule, impact, number of places, and messages for the first of them."""
    unfold(page)
    page.evaluate(f"window.axe || (() => {{ {axe} }})()")
    return page.evaluate(
        """async (rules) => {
          const { violations } = await axe.run({resultTypes: ['violations'], ...(rules.length && {runOnly: rules})});
          const message = (node) => node.any.concat(node.all, node.none).map((check) => check.message).join('; ');
          const example = (node) => `${node.html.slice(0, 160)} | ${message(node).slice(0, 220)}`;
          return violations.map(({ id, impact, nodes }) =>
            ({ rule: id, impact, places: nodes.length, examples: nodes.slice(0, 4).map(example) }));
        }""",
        rules,
    )


@on(EVERYWHERE)
def test_axe_finds_nothing_grave(opened: Visit, axe: str) -> None:
    assert [one for one in violations(opened.page, axe) if one["impact"] in GRAVE] == []


@on(EVERYWHERE)
def test_colours_have_contrast_in_the_dark_theme(opened: Visit, axe: str) -> None:
    with in_the_dark(opened.page):  # the theme changes colours only
        assert violations(opened.page, axe, "color-contrast") == []


def test_axe_sees_a_mistake(browser: Browser, axe: str) -> None:
    page = browser.new_page()
    page.set_content('<html lang="en"><title>a</title><main><img src="a.png"><p style="color:#bbb">pale</p></main>')
    assert {"image-alt", "color-contrast"} <= {one["rule"] for one in violations(page, axe)}
    page.close()


@on(PAGES)
def test_headings_come_in_order(opened: Visit) -> None:
    levels = opened.page.locator("main :is(h1, h2, h3, h4, h5, h6)").evaluate_all(
        "all => all.filter(one => one.checkVisibility()).map(one => Number(one.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels)), "a level is skipped"


FOCUS = """() => {
  const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
  const ring = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
  return {what: one.outerHTML.slice(0, 120), body: one === document.body, shown: box.width > 0 && box.height > 0,
    seen: ring || style.boxShadow !== 'none' || style.textDecorationLine !== 'none'};
}"""


def check_focus(page: Page) -> None:
    """The focus is visible on each of the first 40 stops of the tab key."""
    page.evaluate("document.activeElement.blur(), window.getSelection().collapse(document.body, 0), scrollTo(0, 0)")
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        stand_still(page)
        seen.append(page.evaluate(FOCUS))
    assert len({one["what"] for one in seen}) > 20
    assert [one["what"] for one in seen if one["shown"] and not one["body"] and not one["seen"]] == []


@on([PAGES[0], PAGES[-1]])
def test_the_focus_is_visible(opened: Visit) -> None:
    check_focus(opened.page)


@on([PAGES[0], PAGES[-1]], "dark")
def test_the_focus_is_visible_in_the_dark_theme(opened: Visit) -> None:
    check_focus(opened.page)


def test_some_page_has_a_film(address: str) -> None:
    assert FILMS, "no page has a film, so the next test sees nothing"


@on(FILMS, "still")
def test_films_stand_still_for_who_prefers_less_motion(opened: Visit) -> None:
    unfold(opened.page)
    shown = opened.page.locator("article img").evaluate_all(
        "all => all.map((one) => [one.getAttribute('src'), one.currentSrc])"
    )
    films = [current for source, current in shown if source.endswith(".gif")]
    assert films and all(current.endswith("-still.png") for current in films)
