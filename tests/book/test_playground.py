"""The playground in the built book: the networks run in Chromium and make the digits that PyTorch makes.

The page's own scripts, worker and files run as they do for a reader. PyTorch gets the browser's noise.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from browsing import HTML, PAGES, Visit, on, stand_still, visit
from playwright.sync_api import Browser, Locator, Page, expect
from torch import Tensor

from fm_core import UNet, load_pretrained, paced_grid, solve, uniform_grid

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)

PLAYGROUND = "book/playground"
INDEX = PAGES[0]
STEPS = 20
FILES = "**/_static/local/networks/*.onnx"

# Runs networks with the page's own engine. Arguments as in engine.js; answers with the last state of each network.
RUN = """async ({ networks, digits, seed, steps, method, pacing, start }) => {
  const module = (name) => import(new URL(`../_static/playground/${name}.js`, location.href).href);
  const [{ Engine }, { interpolate, pacedGrid }, { normals }] =
    await Promise.all(["engine", "rungekutta", "noise"].map(module));
  window.engine ??= new Engine(new URL("../_static/local/playground.json", location.href));
  const { tableaux, pacings } = await engine.files();
  await engine.load(networks);
  const x = normals(digits * 784, seed);
  const last = {};
  const begin = performance.now();
  const grid = pacedGrid(steps, interpolate(pacings[pacing]), start, 1);
  await engine.run({ networks, x, grid, tableau: tableaux[method] }, (state) => { last[state.network] = state; });
  const seconds = (performance.now() - begin) / 1000;
  const drawn = Object.entries(last).map(([name, { x, velocity, nfe, milliseconds }]) =>
    [name, { x: [...x], velocity: [...velocity], nfe, milliseconds }]);
  return { noise: [...x], seconds, drawn: Object.fromEntries(drawn) };
}"""


def images(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers).reshape(-1, 1, 28, 28)


def run(page: Page, *networks: str, **options: Any) -> dict[str, Any]:
    setting = {"digits": 4, "seed": 13, "steps": STEPS, "method": "euler", "pacing": "linear", "start": 0}
    return page.evaluate(RUN, {"networks": networks, **setting, **options})


def error(found: dict[str, Any], name: str, network: UNet, grid: Tensor, method: str = "euler") -> float:
    """The largest difference of any pixel between the browser's digits and PyTorch's."""
    expected = solve(network, images(found["noise"]), grid, method=method, progress=False)
    drawn = found["drawn"][name]
    assert drawn["nfe"] == expected.nfe
    assert images(drawn["x"]).std() > 0.3  # there is something to compare
    return float((images(drawn["x"]) - expected.x[-1]).abs().max())


@pytest.fixture(scope="module")
def lab(browser: Browser, address: str) -> Iterator[Page]:
    """A page on which tests run the engine directly."""
    seen = visit(browser, address, PLAYGROUND)
    yield seen.page
    assert seen.troubles == []
    seen.page.close()


@pytest.mark.parametrize("name", ["residual", "base"])
def test_the_browser_draws_what_pytorch_draws(lab: Page, name: str, record_property: Any) -> None:
    found = error(run(lab, name), name, load_pretrained(name), uniform_grid(STEPS))
    record_property("largest difference", found)
    assert found < 1e-4  # the published weights are half-precision numbers, so nothing is lost where 1e-3 would do


@pytest.mark.parametrize(("method", "pacing"), [("heun", "quadratic"), ("rk4", "logarithmic")])
def test_solvers_and_paced_grids_agree_too(lab: Page, method: str, pacing: str) -> None:
    found = run(lab, "residual", method=method, pacing=pacing, steps=5, digits=2, start=0.25)
    grid = paced_grid(5, pacing, start=0.25)
    assert error(found, "residual", load_pretrained("residual"), grid, method) < 1e-4


def test_both_networks_start_from_the_same_noise(lab: Page) -> None:
    found = run(lab, "residual", "base", digits=1, steps=2)
    for name in ("residual", "base"):
        assert error(found, name, load_pretrained(name), uniform_grid(2)) < 1e-4


def test_four_digits_take_seconds_on_one_thread(lab: Page, record_property: Any) -> None:
    run(lab, "residual", steps=1)
    found = run(lab, "residual")
    record_property("seconds", found["seconds"])
    assert found["seconds"] < 20  # about 1 s on two idle cores, and CI's are not idle


@pytest.fixture
def seen(browser: Browser, address: str) -> Iterator[Visit]:
    seen = visit(browser, address, PLAYGROUND)
    yield seen
    seen.page.close()


@pytest.fixture(scope="module")
def opened_once(browser: Browser, address: str) -> Iterator[Page]:
    """A page whose networks are never loaded."""
    seen = visit(browser, address, PLAYGROUND)
    yield seen.page
    assert seen.troubles == []
    seen.page.close()


def section(page: Page, name: str = "digits") -> Locator:
    return page.locator(f"[data-playground={name}]")


def part(page: Page, name: str, of: str = "digits") -> Locator:
    return section(page, of).locator(f"[data-part={name}]")


def moment(page: Page, of: str = "digits") -> Locator:
    return section(page, of).get_by_role("slider", name="time t")


def pixels(canvas: Locator) -> list[int]:
    """A coarse picture of a canvas: its grey levels at 14 × 14 places."""
    return canvas.evaluate(
        """one => {
          const small = new OffscreenCanvas(14, 14), pen = small.getContext("2d");
          pen.drawImage(one, 0, 0, 14, 14);
          return [...pen.getImageData(0, 0, 14, 14).data].filter((_, i) => i % 4 === 0);
        }"""
    )


def test_a_reader_generates_and_looks_back(seen: Visit) -> None:
    page = seen.page
    assert not [file for file in seen.files if re.search(r"onnx|\.wasm|worker", file.name)], (
        "loaded before it is asked for"
    )
    expect(part(page, "go")).to_have_text(re.compile(r"Load the networks \(\d\.\d MB\)"))
    canvas = section(page).locator("canvas").first
    noise = pixels(canvas)
    expect(moment(page)).to_be_disabled()
    part(page, "go").click()
    expect(part(page, "status")).to_contain_text("Four digits, Euler, NFE 20")
    expect(section(page).locator(".playground-numbers").first).to_have_text(
        re.compile(r"^NFE 20 · .* a step · .* m?s$")
    )
    digits = pixels(canvas)
    assert digits != noise
    assert sorted(digits)[len(digits) // 2] < 30  # black paper
    assert canvas.get_attribute("aria-label") == "Residual U-Net, state at t = 1.00: four digits from noise number 0"
    moment(page).fill("0")
    assert pixels(canvas) == noise
    moment(page).fill("10")
    assert moment(page).get_attribute("aria-valuetext") == "t = 0.50, step 10 of 20"
    for view in ("with arrows", "velocity"):
        before = pixels(canvas)
        section(page).get_by_role("radio", name=view).check(force=True)
        assert pixels(canvas) != before
    expect(section(page).locator(".playground-note")).to_contain_text("Red: ink arrives.")
    section(page).get_by_role("radio", name="digits").check(force=True)
    part(page, "go").click()
    expect(part(page, "status")).to_have_text("Running.")
    expect(part(page, "status")).to_contain_text("NFE 20")
    assert pixels(canvas) != digits, "other noise gives other digits"
    assert seen.troubles == []


def test_settings_are_shown_at_once_and_run_once_the_networks_are_there(seen: Visit) -> None:
    page = seen.page
    section(page).get_by_role("radio", name="9").check(force=True)
    expect(section(page).locator("canvas").first).to_have_attribute("aria-label", re.compile("nine digits"))
    assert part(page, "stop").is_hidden()
    section(page).get_by_role("radio", name="1", exact=True).check(force=True)
    section(page).get_by_role("slider", name="Steps").fill("3")
    expect(section(page).get_by_text("3 (NFE 3)")).to_be_visible()
    part(page, "go").click()
    expect(part(page, "status")).to_contain_text("One digit, Euler, NFE 3, the same noise")
    section(page).get_by_role("radio", name="RK4").check(force=True)
    expect(part(page, "status")).to_contain_text("One digit, RK4, NFE 12")
    section(page).get_by_role("radio", name="Base").check(force=True)
    expect(section(page).locator("canvas")).to_have_count(1)
    expect(part(page, "status")).to_have_text("One digit, RK4, NFE 12.")
    section(page).get_by_label("Steps in time").select_option("quadratic")
    expect(part(page, "status")).to_have_text("One digit, RK4, NFE 12.")
    moment(page).fill("1")
    assert moment(page).get_attribute("aria-valuetext") == "t = 0.11, step 1 of 3"
    assert seen.troubles == []


def test_a_double_click_is_one_click(seen: Visit) -> None:
    page = seen.page
    part(page, "go").dblclick()
    expect(part(page, "status")).to_contain_text("NFE 20")
    assert section(page).get_by_role("spinbutton", name="Noise number").input_value() == "0"
    part(page, "go").click()
    expect(section(page).get_by_role("spinbutton", name="Noise number")).not_to_have_value("0")


@pytest.mark.parametrize(
    ("typed", "used"), [("-1", "0"), ("3.7", "4"), ("1e20", "9999"), ("12", "12"), ("", "0"), ("1e999", "0")]
)
def test_the_noise_number_in_the_field_is_the_one_in_use(opened_once: Page, typed: str, used: str) -> None:
    page = opened_once
    field = section(page).get_by_role("spinbutton", name="Noise number")
    for text in ("0", typed):
        field.fill(text)
        field.blur()
    expect(field).to_have_value(used)
    expect(section(page).locator("canvas").first).to_have_attribute(
        "aria-label", re.compile(f"from noise number {used}$")
    )
    said = section(page).locator(".playground-settings small")
    expect(said).to_have_text("" if typed == used else f"Whole numbers from 0 to 9999: took {used}.")


def test_the_address_holds_the_settings(fresh: Page, address: str) -> None:
    fresh.goto(f"{address}/{PLAYGROUND}.html?noise=298&steps=8&solver=heun&digits=9&spacing=nonsense&other=1")
    expect(section(fresh).get_by_role("spinbutton", name="Noise number")).to_have_value("298")
    expect(section(fresh).get_by_text("8 (NFE 16)")).to_be_visible()
    expect(section(fresh).locator("canvas").first).to_have_attribute(
        "aria-label", re.compile("nine digits from noise number 298$")
    )
    assert section(fresh).get_by_label("Steps in time").input_value() == "linear"
    section(fresh).get_by_role("slider", name="Steps").fill("5")
    section(fresh).get_by_role("radio", name="Base").check(force=True)
    section(fresh).get_by_role("radio", name="Euler").check(force=True)
    assert fresh.url.split("?")[1] == "noise=298&steps=5&digits=9&other=1&networks=base"
    fresh.reload()
    expect(section(fresh).locator("canvas")).to_have_count(1)


def test_a_run_stopped_before_its_first_step_says_so(seen: Visit) -> None:
    page = seen.page
    part(page, "go").click()
    expect(part(page, "status")).to_contain_text("NFE 20")
    for name in ("9", "RK4"):
        section(page).get_by_role("radio", name=name).check(force=True)
    expect(part(page, "status")).to_have_text("Running.")
    page.evaluate(
        """() => {
          const part = (name) => document.querySelector(`[data-playground=digits] [data-part=${name}]`);
          part("go").click();
          setTimeout(() => part("stop").click());
        }"""
    )
    expect(part(page, "status")).to_have_text("Stopped before the first step.")
    expect(moment(page)).to_be_disabled()
    assert seen.troubles == []


def test_a_run_can_be_stopped(seen: Visit) -> None:
    page = seen.page
    for name in ("9", "RK4"):
        section(page).get_by_role("radio", name=name).check(force=True)
    section(page).get_by_role("slider", name="Steps").fill("64")
    part(page, "go").click()
    expect(section(page).locator(".playground-numbers").last).to_contain_text("NFE")  # both have made a step
    expect(part(page, "progress")).to_be_visible()
    pressed = time.monotonic()
    part(page, "stop").focus()
    page.keyboard.press("Enter")
    expect(part(page, "status")).to_contain_text("Stopped")
    assert time.monotonic() - pressed < 10
    assert 0 < int(moment(page).get_attribute("max")) < 64
    expect(part(page, "stop")).to_be_hidden()
    expect(part(page, "progress")).to_be_hidden()
    standing = page.evaluate("document.querySelectorAll('.playground-numbers')[0].textContent")
    expect(part(page, "go")).to_be_focused()  # a hidden button cannot keep the focus
    page.wait_for_timeout(500)  # nothing to wait for: no further state may arrive
    assert page.evaluate("document.querySelectorAll('.playground-numbers')[0].textContent") == standing


def test_the_page_answers_while_networks_run(seen: Visit) -> None:
    page = seen.page
    section(page).get_by_role("radio", name="9").check(force=True)
    part(page, "go").click()
    expect(section(page).locator(".playground-numbers").first).to_contain_text("NFE")
    longest = page.evaluate(
        """() => new Promise((done) => {
          let last = performance.now(), longest = 0;
          const end = last + 1500;
          const tick = () => {
            const now = performance.now();
            [longest, last] = [Math.max(longest, now - last), now];
            now < end ? setTimeout(tick) : done(longest);
          };
          tick();
        })"""
    )
    assert longest < 1000  # one evaluation of nine digits takes longer on a busy machine than the page's own work


def test_everything_works_from_the_keyboard(seen: Visit) -> None:
    page = seen.page
    part(page, "go").focus()
    page.keyboard.press("Enter")
    expect(part(page, "status")).to_contain_text("NFE 20")
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        stand_still(page)
        reached.append(
            page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.name")
        )
        ring = page.evaluate(
            """() => {
              const one = document.activeElement;
              const shown = one.type === 'radio' ? one.nextElementSibling : one;
              return getComputedStyle(shown).outlineStyle;
            }"""
        )
        assert ring != "none", f"no focus to be seen on {reached[-1]}"
        if reached[-1] == "time t":
            page.keyboard.press("ArrowLeft")
            assert moment(page).get_attribute("aria-valuetext").startswith("t = 0.95")
        if reached[-1] == "method":
            page.keyboard.press("ArrowRight")
            expect(part(page, "status")).to_contain_text("Heun, NFE 40")
        if reached[-1] == "seed":
            break
    assert [name for name in reached if name in ("networks", "digits", "method", "steps", "spacing", "seed")] == [
        "networks",
        "digits",
        "method",
        "steps",
        "spacing",
        "seed",
    ]


def test_a_drawing_is_finished(seen: Visit) -> None:
    page = seen.page
    canvas = section(page, "drawing").locator(".playground-panels canvas").first
    part(page, "clear", "drawing").click()
    empty = pixels(canvas)
    box = part(page, "pad", "drawing").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 190, steps=10)
    page.mouse.up()
    assert sum(pixels(part(page, "pad", "drawing"))) > 1000
    assert pixels(canvas) != empty  # the state to start from shows the stroke
    part(page, "start", "drawing").fill("60")
    part(page, "go", "drawing").click()
    expect(part(page, "status", "drawing")).to_contain_text("From t₀ = 0.60: Euler, NFE 20")
    lit = pixels(section(page, "drawing").locator(".playground-panels canvas").first)
    columns = [sum(lit[i::14]) for i in range(14)]
    assert max(columns[2:5]) > 5 * columns[0] + 100  # four strokes still stand where they were drawn
    part(page, "samples", "drawing").get_by_role("button", name="triangle").click()
    expect(part(page, "status", "drawing")).to_have_text("Running.")
    expect(part(page, "status", "drawing")).to_contain_text("From t₀ = 0.60")
    assert seen.troubles == []


def test_one_button_on_the_first_page(browser: Browser, address: str) -> None:
    seen = visit(browser, address, INDEX)
    expect(part(seen.page, "go", "first")).to_have_text(re.compile(r"Load the network \(\d\.\d MB\)"))
    part(seen.page, "go", "first").click()
    expect(part(seen.page, "status", "first")).to_contain_text("20 Euler steps, NFE 20")
    expect(part(seen.page, "go", "first")).to_have_text("Four new digits")
    assert seen.troubles == []
    seen.page.close()


@on([PLAYGROUND], "still")
def test_less_motion_shows_the_ends_only(opened: Visit) -> None:
    page = opened.page
    expect(section(page).get_by_role("button", name="Replay")).to_be_hidden()
    page.evaluate(
        """() => {
          window.shown = [];
          const time = document.querySelector("[data-playground=digits] .playground-time output");
          new MutationObserver(() => shown.push(time.textContent)).observe(time, { childList: true });
        }"""
    )
    part(page, "go").click()
    expect(part(page, "status")).to_contain_text("NFE 20")
    assert set(page.evaluate("shown")) == {"t = 0.00", "t = 1.00"}


@on([PLAYGROUND], "phone")
def test_a_phone_shows_the_digits_without_scrolling_sideways(opened: Visit) -> None:
    page = opened.page
    part(page, "go").click()
    expect(part(page, "status")).to_contain_text("NFE 20")
    stand_still(page)
    for view in ("with arrows", "velocity"):
        section(page).get_by_role("radio", name=view).check(force=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    widths = section(page).locator("canvas").evaluate_all("all => all.map(one => one.clientWidth)")
    assert len(widths) == 2
    assert min(widths) > 120


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        (FILES, r"networks/\w+\.onnx could not be fetched: the server answered 404"),
        ("**/*.wasm.gz", r"wasm\.gz could not be fetched: the server answered 404"),
    ],
)
def test_a_missing_file_is_named_and_the_recorded_film_shown(seen: Visit, missing: str, reason: str) -> None:
    page = seen.page
    page.route(missing, lambda route: route.fulfill(status=404))
    part(page, "go").click()
    expect(part(page, "why")).to_contain_text(re.compile(reason))
    film = part(page, "why").locator("img")
    expect(film).to_be_visible()
    assert film.evaluate("one => one.decode().then(() => one.naturalWidth)") > 100
    assert film.get_attribute("alt")
    expect(part(page, "live")).to_be_hidden()
    page.unroute(missing)
    part(page, "why").get_by_role("button", name="Try again").click()
    expect(part(page, "status")).to_contain_text("NFE 20")
    expect(part(page, "why")).to_be_hidden()


def test_a_network_that_is_not_the_one_listed_is_refused(seen: Visit) -> None:
    seen.page.route(FILES, lambda route: route.fulfill(body=b"something else"))
    part(seen.page, "go").click()
    expect(part(seen.page, "why")).to_contain_text("is not the one that belongs here")


def test_a_missing_module_is_named(fresh: Page, address: str) -> None:
    fresh.route("**/stage.js", lambda route: route.fulfill(status=404))
    check_reason(fresh, address, "_static/playground/stage.js could not be fetched: the server answered 404")


@pytest.fixture
def fresh(browser: Browser, address: str) -> Iterator[Page]:
    """A page that has not opened anything."""
    page = browser.new_page()
    yield page
    page.close()


def check_reason(page: Page, address: str, reason: str) -> None:
    """Every part of the playground says why it does not run; the first one shows the recorded film."""
    page.goto(f"{address}/{PLAYGROUND}.html")
    for name in ("digits", "drawing"):
        expect(part(page, "why", name)).to_contain_text(reason)
    assert part(page, "why").locator("img").evaluate("one => one.decode().then(() => one.naturalWidth)") > 100


@pytest.mark.parametrize(
    ("script", "reason"),
    [("delete window.WebAssembly", "has no WebAssembly"), ("delete window.Worker", "has no web workers")],
)
def test_a_browser_that_lacks_something_is_told(fresh: Page, address: str, script: str, reason: str) -> None:
    fresh.add_init_script(script)
    check_reason(fresh, address, reason)


def test_a_build_without_networks_says_so(fresh: Page, address: str) -> None:
    fresh.route("**/playground.json", lambda route: route.fulfill(status=404))
    check_reason(fresh, address, "playground.json could not be fetched: the server answered 404")


def test_a_server_that_sends_scripts_as_text_is_named_with_the_one_that_works(fresh: Page, address: str) -> None:
    fresh.route("**/ui.js", lambda route: route.fulfill(response=route.fetch(), content_type="text/plain"))
    check_reason(fresh, address, "sends scripts as text/plain, and browsers run no such modules")
    expect(part(fresh, "why")).to_contain_text("python3 run.py serve")


def test_a_page_opened_as_a_file_says_how_to_serve_it(fresh: Page, address: str) -> None:
    check_reason(fresh, HTML.as_uri(), "opened as a file")
    expect(part(fresh, "why")).to_contain_text("python3 run.py serve")
