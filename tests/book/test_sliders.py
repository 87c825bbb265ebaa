"""Sliders over t in the built book, without a kernel: moved, played and read on every page that has one.

Without scripts and on paper, five frames with their t replace each slider.
"""

from __future__ import annotations

import ast
import html
import json
import re
from typing import Any

import nbformat
import pytest
from browsing import HTML, PAGES, PHONE, ROOT, Visit, in_the_dark, on, on_a_phone, on_paper, stand_still
from playwright.sync_api import Locator

pytestmark = pytest.mark.browser

MAX_BYTES = 1_500_000  # of a page for one slider
STATE = r'<script type="application/vnd\.jupyter\.widget-state\+json">(.*?)</script>'


def cells_with_sliders(page: str) -> int:
    """How many cells of the page's notebook call one of the functions that make a slider."""
    file = ROOT / f"{page}.ipynb"
    if not file.is_file():
        return 0
    cells = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    trees = [ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.MULTILINE)) for cell in cells]
    return sum(any(makes_slider(node) for node in ast.walk(tree)) for tree in trees)


def makes_slider(node: ast.AST) -> bool:
    called = getattr(node, "func", None)
    return getattr(called, "id", getattr(called, "attr", "")).endswith("_slider")


SLIDERS = {page: count for page in PAGES if (count := cells_with_sliders(page))}


def test_some_page_has_a_slider() -> None:
    assert SLIDERS, "no page of the book has a slider, so the tests below see nothing"


def sliders(opened: Visit) -> list[Locator]:
    """The sliders of a page, once all of them show their picture and nothing moves."""
    opened.page.wait_for_function(
        "count => document.querySelectorAll('.fm-time-slider img').length >= count", arg=SLIDERS[opened.name]
    )
    opened.page.mouse.move(0, 0)
    stand_still(opened.page)
    return opened.page.locator(".fm-time-slider").all()


def look(slider: Locator) -> dict[str, Any]:
    """What a reader, or a screen reader, finds at this moment."""
    return slider.evaluate(
        """box => {
          const image = box.querySelector("img"), handle = box.querySelector("[role=slider]");
          return {
            picture: image.src, alt: image.alt, there: image.complete && image.naturalWidth > 0,
            readout: box.querySelector(".widget-readout").textContent,
            label: box.querySelector(".widget-slider .widget-label").textContent,
            name: handle.getAttribute("aria-label"), value: handle.getAttribute("aria-valuetext"),
            buttons: [...box.querySelectorAll("button")].filter(one => one.offsetWidth).map(one => one.ariaLabel),
          };
        }"""
    )


def time_of(readout: str) -> float:
    found = re.fullmatch(r"t = (\d+\.\d+)", readout)
    assert found, f"{readout!r} is no readout of t"
    return float(found[1])


def change(slider: Locator, before: str) -> None:
    """Wait until the picture is another one."""
    slider.page.wait_for_function(
        "([box, before]) => box.querySelector('img').src !== before", arg=[slider.element_handle(), before]
    )


def rest(slider: Locator) -> None:
    """Wait until nothing plays."""
    slider.page.wait_for_function("box => !box.querySelector('.fa-pause')", arg=slider.element_handle())


@on(list(SLIDERS))
def test_every_slider_is_there_and_says_what_it_is(opened: Visit) -> None:
    found = sliders(opened)
    assert len(found) >= SLIDERS[opened.name]
    for slider in found:
        now = look(slider)
        assert now["there"]
        assert "t" in now["label"].split()
        assert now["name"] == now["label"]
        assert now["value"] == now["readout"]
        assert now["buttons"] == ["Play", "Back to the start"]
        assert len(now["alt"]) > 40
        assert now["readout"] in now["alt"]


@on(list(SLIDERS))
def test_the_keyboard_moves_the_picture(opened: Visit) -> None:
    for slider in sliders(opened):
        slider.locator("[role=slider]").focus()
        shown = slider.locator("img").screenshot()
        times, pictures = [], []
        for key in ["Home", "ArrowRight", "ArrowRight", "PageUp", "End", "ArrowLeft", "Home"]:
            opened.page.keyboard.press(key)
            now = look(slider)
            assert now["readout"] in now["alt"] and now["value"] == now["readout"]
            times.append(time_of(now["readout"]))
            pictures.append(now["picture"])
            if key == "End":
                stand_still(opened.page)
                assert slider.locator("img").screenshot() != shown
        assert times[0] < times[1] < times[2] <= times[3] <= times[4] > times[5] > times[6] == times[0]
        assert len(set(pictures)) == len(set(times)), "one picture for each t"


@on(list(SLIDERS))
def test_dragging_moves_the_picture(opened: Visit) -> None:
    for slider in sliders(opened):
        slider.scroll_into_view_if_needed()
        before = look(slider)
        handle, track = (slider.locator(part).bounding_box() for part in (".noUi-handle", ".noUi-target"))
        mouse = opened.page.mouse
        mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
        mouse.down()
        mouse.move(track["x"] + 0.3 * track["width"], handle["y"] + 5, steps=4)
        change(slider, before["picture"])
        between = look(slider)
        mouse.move(track["x"] + 0.7 * track["width"], handle["y"] + 5, steps=4)
        change(slider, between["picture"])
        mouse.up()
        after = look(slider)
        assert time_of(before["readout"]) < time_of(between["readout"]) < time_of(after["readout"])
        opened.page.keyboard.press("Home")


@on(list(SLIDERS))
def test_play_moves_the_picture_and_stops_at_the_end(opened: Visit) -> None:
    for slider in sliders(opened):
        handle = slider.locator("[role=slider]")
        handle.press("End")
        last = look(slider)
        for _ in range(6):
            handle.press("ArrowLeft")
        first = look(slider)
        slider.evaluate(
            """box => {
              box.pictures = new Set();
              const see = () => { box.pictures.add(box.querySelector("img")?.src); };
              box.observer = new MutationObserver(see);
              box.observer.observe(box, { childList: true, subtree: true });
            }"""
        )
        slider.get_by_role("button", name="Play").click()
        change(slider, first["picture"])
        rest(slider)
        assert look(slider) == last
        assert slider.evaluate("box => { box.observer.disconnect(); return box.pictures.size; }") >= 5


@on(list(SLIDERS))
def test_play_starts_again_at_the_end_and_can_be_paused(opened: Visit) -> None:
    for slider in sliders(opened):
        slider.locator("[role=slider]").press("End")
        last = look(slider)
        slider.get_by_role("button", name="Play").click()
        change(slider, last["picture"])
        slider.get_by_role("button", name="Pause").click()
        rest(slider)
        held = look(slider)
        assert held["picture"] != last["picture"]
        opened.page.wait_for_timeout(300)  # nothing to wait for: the picture must not change
        assert look(slider) == held
        slider.locator("[role=slider]").press("End")
        slider.get_by_role("button", name="Back to the start").click()
        change(slider, last["picture"])
        first = look(slider)
        slider.locator("[role=slider]").press("Home")
        assert look(slider) == first


@on(list(SLIDERS))
def test_moving_makes_no_error_and_leaves_the_formulas(opened: Visit) -> None:
    for slider in sliders(opened):
        for key in ["End", "Home"]:
            slider.locator("[role=slider]").press(key)
    raw = opened.page.locator("article").filter(has_text=re.compile(r"\\[(\[]")).locator(".math")
    assert opened.page.locator("mjx-container").count() >= opened.page.locator(".math").count()
    assert [text for text in raw.all_inner_texts() if "\\" in text] == []
    assert opened.troubles == []


@on(list(SLIDERS))
def test_a_slider_fits_a_phone(opened: Visit) -> None:
    with on_a_phone(opened.page):
        for slider in sliders(opened):
            for part in (".widget-play", ".widget-slider", ".widget-readout", "img"):
                box = slider.locator(part).first.bounding_box()
                assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"] + 0.5, part
            assert slider.locator(".noUi-target").bounding_box()["width"] > 120
            assert slider.locator(".noUi-handle").bounding_box()["width"] >= 20
        wide = opened.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1]


def check_contrasts(opened: Visit) -> None:
    """Texts of 4.5 and graphics of 3, as WCAG 2.2 asks."""
    for slider in sliders(opened):
        contrasts = slider.evaluate(
            """box => {
              const rgb = text => text.match(/[\\d.]+/g).map(Number);
              const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
                .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
              const under = one => {
                for (let up = one.parentElement; up; up = up.parentElement) {
                  const found = rgb(getComputedStyle(up).backgroundColor);
                  if (found.length === 3 || found[3] === 1) return found;
                }
              };
              const contrast = (a, b) => {
                const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
                return (light + 0.05) / (dark + 0.05);
              };
              const of = (part, what) => {
                const one = box.querySelector(part);
                return contrast(rgb(getComputedStyle(one)[what]), under(one));
              };
              return {
                label: of(".widget-slider .widget-label", "color"), readout: of(".widget-readout", "color"),
                play: of("button i", "color"),
                handle: contrast(rgb(getComputedStyle(box.querySelector(".noUi-handle")).backgroundColor),
                                 under(box)),
                track: contrast(rgb(getComputedStyle(box.querySelector(".noUi-target")).backgroundColor),
                                under(box)),
              };
            }"""
        )
        assert min(contrasts["label"], contrasts["readout"]) >= 4.5, contrasts
        assert min(contrasts.values()) >= 3, contrasts


@on(list(SLIDERS))
def test_label_readout_and_handle_have_contrast(opened: Visit) -> None:
    check_contrasts(opened)


@on(list(SLIDERS))
def test_label_readout_and_handle_have_contrast_in_the_dark_theme(opened: Visit) -> None:
    with in_the_dark(opened.page):
        check_contrasts(opened)


@on(list(SLIDERS))
def test_no_filmstrip_beside_a_slider_that_moves(opened: Visit) -> None:
    assert opened.page.locator(".fm-filmstrip").count() == len(sliders(opened))
    assert not any(strip.is_visible() for strip in opened.page.locator(".fm-filmstrip").all())


def check_filmstrips(opened: Visit) -> None:
    strips = opened.page.locator(".fm-filmstrip").all()
    assert len(strips) >= SLIDERS[opened.name]
    for strip in strips:
        images, captions = strip.locator("img").all(), strip.locator("figcaption").all_inner_texts()
        assert 2 <= len(images) == len(captions) <= 5
        times = [time_of(caption) for caption in captions]
        assert times == sorted(set(times)) and times[-1] - times[0] > 0.5
        for image, caption in zip(images, captions, strict=True):
            assert image.is_visible() and image.evaluate("one => one.naturalWidth") > 0
            assert caption in image.get_attribute("alt")
            box = image.bounding_box()
            assert box["width"] >= 100 and box["height"] >= 40
    assert not any(slider.is_visible() for slider in opened.page.locator(".fm-time-slider").all())


@on(list(SLIDERS), "without scripts")
def test_without_scripts_a_filmstrip_stands_there(opened: Visit) -> None:
    check_filmstrips(opened)


@on(list(SLIDERS))
def test_on_paper_a_filmstrip_stands_there(opened: Visit) -> None:
    sliders(opened)
    with on_paper(opened.page):
        check_filmstrips(opened)


def weights(text: str) -> list[int]:
    """Bytes that each slider adds to a page: its widgets' state and its filmstrip."""
    states = [json.loads(html.unescape(found)) for found in re.findall(STATE, text, flags=re.DOTALL)]
    models = {name: model for state in states for name, model in state["state"].items()}

    def family(name: str, known: set[str]) -> set[str]:
        if name in models and name not in known:
            known.add(name)
            for child in re.findall(r"IPY_MODEL_(\w+)", json.dumps(models[name]["state"])):
                family(child, known)
        return known

    shown = re.findall(r'<script type="application/vnd\.jupyter\.widget-view\+json">.*?"model_id": "(\w+)"', text)
    tops = [name for name in shown if "fm-time-slider" in models[name]["state"].get("_dom_classes", [])]
    strips = [len(part) for part in re.findall(r'<div class="fm-filmstrip".*?</div></div>', text, flags=re.DOTALL)]
    assert len(strips) == len(tops)
    bodies = [sum(len(json.dumps(models[name])) for name in family(top, set())) for top in tops]
    return [body + strip for body, strip in zip(bodies, strips, strict=True)]


@pytest.mark.parametrize("page", SLIDERS)
def test_no_slider_is_heavy(address: str, page: str) -> None:
    found = weights((HTML / f"{page}.html").read_text(encoding="utf-8"))
    print(f"{page}: " + ", ".join(f"{weight / 1000:.0f} kB" for weight in found))
    assert len(found) >= SLIDERS[page]
    assert all(50_000 < weight < MAX_BYTES for weight in found)
