"""Pages for everyone: axe-core on every page in both themes, headings in order, focus that can be seen, less motion.

axe-core comes from the npm registry like the pages' own scripts, checked against the hash noted here.
"""

from __future__ import annotations

import tarfile
from itertools import pairwise
from typing import Any

import local_assets
import pytest
from browsing import HTML, LOOKS, OTHER_PAGES, PAGES, Visit, lacking, on, visit
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

AXE = local_assets.Package(
    name="axe-core",
    version="4.14.1",
    sha512="FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    folder="axe-core",
    script="axe.min.js",
    script_sha384="xt1SFg49QaDwsyt0Xfs2XAyBtYPClXl3X2q5OOLeGAUmq9jZTYIMdztpF99WdhiH",
    files=("axe.min.js",),
)
GRAVE = {"serious", "critical"}
EVERYWHERE = [*PAGES, *OTHER_PAGES]


@pytest.fixture(scope="session")
def axe() -> str:
    """The text of axe-core's script."""
    try:
        archive = local_assets.fetch(AXE, HTML.parent / ".local_assets", local_assets.npm_command())
    except local_assets.Unavailable as reason:
        lacking(f"axe-core is not at hand: {reason}")
    with tarfile.open(archive) as content:
        return content.extractfile(f"package/{AXE.script}").read().decode()


def open_folds(page: Page) -> None:
    """What a reader may unfold has to be right as well."""
    page.evaluate("document.querySelectorAll('article details').forEach((one) => { one.open = true; })")
    page.evaluate("document.querySelectorAll('.toggle-hidden').forEach((one) => one.classList.remove('toggle-hidden'))")


def violations(page: Page, axe: str) -> list[dict[str, Any]]:
    """axe-core's findings: rule, how grave, and where, with what it says about the first places."""
    page.evaluate("() => window.MathJax?.startup?.promise?.then(() => null)")
    open_folds(page)
    page.evaluate(axe)
    return page.evaluate(
        """() => axe.run(document, {resultTypes: ['violations']}).then(({violations}) => violations.map((one) => ({
          rule: one.id, impact: one.impact, places: one.nodes.length,
          examples: one.nodes.slice(0, 4).map((node) => node.html.slice(0, 160) + ' | ' +
            node.any.concat(node.all, node.none).map((check) => check.message).join('; ').slice(0, 220)),
        })))"""
    )


def check(page: Page, axe: str) -> None:
    found = violations(page, axe)
    print(page.url.rsplit("/", 1)[1], "; ".join(f"{one['rule']} ({one['impact']}): {one['places']}" for one in found))
    assert [one for one in found if one["impact"] in GRAVE] == []


@on(EVERYWHERE)
def test_axe_finds_nothing_grave(opened: Visit, axe: str) -> None:
    check(opened.page, axe)


@on(EVERYWHERE, "dark")
def test_axe_finds_nothing_grave_in_the_dark_theme(opened: Visit, axe: str) -> None:
    check(opened.page, axe)


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
    levels = [level for level in levels if level]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels)), "a level is skipped"


FOCUS = """() => {
  const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
  const ring = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
  return {what: one.outerHTML.slice(0, 120), body: one === document.body, shown: box.width > 0 && box.height > 0,
    seen: ring || style.boxShadow !== 'none' || style.textDecorationLine !== 'none'};
}"""


@pytest.mark.parametrize("look", ["desktop", "dark"])
@pytest.mark.parametrize("name", [PAGES[0], PAGES[-1]])
def test_the_focus_is_seen_wherever_the_tab_key_leads(browser: Browser, address: str, name: str, look: str) -> None:
    opened = visit(browser, address, name, look)
    try:
        seen = []
        for _ in range(40):
            opened.page.keyboard.press("Tab")
            seen.append(opened.page.evaluate(FOCUS))
        assert len({one["what"] for one in seen}) > 20
        assert [one["what"] for one in seen if one["shown"] and not one["body"] and not one["seen"]] == []
    finally:
        opened.page.close()


def test_who_asks_for_less_motion_gets_still_pictures(browser: Browser, address: str) -> None:
    films = 0
    for name in PAGES:
        page = browser.new_page(**LOOKS["desktop"], reduced_motion="reduce")
        page.goto(f"{address}/{name}.html", wait_until="load")
        shown = page.locator("article img").evaluate_all(
            "all => Promise.all(all.map((one) => { one.loading = 'eager'; "
            "return one.decode().catch(() => {}).then(() => [one.getAttribute('src'), one.currentSrc]); }))"
        )
        page.close()
        films += sum(source.endswith(".gif") for source, _ in shown)
        assert [current for _, current in shown if current.endswith(".gif")] == []
        assert all(current.endswith("-still.png") for source, current in shown if source.endswith(".gif"))
    assert films > 0, "no page has a film, so nothing was tested"
