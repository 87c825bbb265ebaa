"""The playground in the built book: the networks run in Chromium, and what they draw is what PyTorch draws.

Everything here happens as it does for a reader: the page's own scripts, worker and files, on a server that knows
nothing special. PyTorch gets the noise that the browser made and has to reach the same digits.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browsing import HTML, PAGES, Visit, on, visit
from playwright.sync_api import Browser, Locator, Page, expect
from torch import Tensor

from fm_core import ResidualUNet, UNet, build_model, load_pretrained, paced_grid, solve, uniform_grid
from fm_book.experiments.export import export_onnx
from fm_core.plotting import PACINGS

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)

PLAYGROUND = "book/playground"
INDEX = PAGES[0]
STEPS = 20
FILES = "**/_static/local/networks/*.onnx"

# Runs networks with the page's own engine. Arguments as in engine.js; answers with the last state of each network.
RUN = """async ({ networks, digits, seed, steps, method, pacing, start }) => {
  const module = (name) => import(new URL(`../_static/playground/${name}.js`, location.href).href);
  const [{ Engine }, { pacedGrid }, { normals }, { PACINGS }] =
    await Promise.all(["engine", "solvers", "noise", "pacing"].map(module));
  window.engine ??= new Engine(new URL("../_static/local/playground.json", location.href));
  await engine.load(networks);
  const x = normals(digits * 784, seed);
  const last = {};
  const begin = performance.now();
  const grid = pacedGrid(steps, PACINGS[pacing], start, 1);
  await engine.run({ networks, x, grid, method }, (state) => { last[state.network] = state; });
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
    grid = paced_grid(5, PACINGS[pacing], start=0.25)
    assert error(found, "residual", load_pretrained("residual"), grid, method) < 1e-4


def test_both_networks_start_from_the_same_noise(lab: Page) -> None:
    found = run(lab, "residual", "base", digits=1, steps=2)
    for name in ("residual", "base"):
        assert error(found, name, load_pretrained(name), uniform_grid(2)) < 1e-4


def rough(network: UNet) -> UNet:
    """The network with every parameter moved a little, so that none is a half-precision number any more."""
    rough = build_model("residual", **network.config).eval()
    rough.load_state_dict(network.state_dict())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in rough.parameters():
            parameter.mul_(1 + 1e-3 * torch.randn(parameter.shape, generator=generator))
    return rough


@pytest.mark.parametrize("half", [False, True], ids=["full precision", "half precision"])
def test_weights_that_half_precision_would_round(browser: Browser, address: str, half: bool, tmp_path: Path) -> None:
    network = rough(load_pretrained("residual"))
    file = tmp_path / "residual.onnx"
    file.write_bytes(export_onnx(network, half=half))
    if half:  # what the file holds is compared, not what was there before
        network = rounded(network)
    seen = visit(browser, address, PLAYGROUND)
    serve_instead(seen.page, file)
    try:
        assert error(run(seen.page, "residual"), "residual", network, uniform_grid(STEPS)) < (1e-3 if half else 1e-4)
    finally:
        seen.page.close()


def rounded(network: UNet) -> UNet:
    """The network as `export_onnx` stores it in half precision: scales and shifts of norms are kept as they are."""
    half = ResidualUNet(**network.config).eval()
    kept = {name for name in network.state_dict() if "norm" in name}
    half.load_state_dict({k: v if k in kept else v.half().float() for k, v in network.state_dict().items()})
    return half


def serve_instead(page: Page, file: Path) -> None:
    """Let the page find another network, and another hash of it in the list of files."""
    import playground

    def listed(route: Any) -> None:
        files = route.fetch().json()
        files["networks"]["residual"]["integrity"] = playground.integrity(file.read_bytes())
        route.fulfill(json=files)

    page.route("**/playground.json", listed)
    page.route(FILES, lambda route: route.fulfill(path=file))


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


def test_the_page_loads_the_runtime_only_when_asked(seen: Visit) -> None:
    asked: list[str] = []
    seen.page.on("request", lambda request: asked.append(request.url))
    seen.page.reload(wait_until="networkidle")
    assert not [url for url in asked if re.search(r"onnx|\.wasm|worker", url)]
    expect(part(seen.page, "go")).to_have_text(re.compile(r"Load the networks \(\d\.\d MB\)"))
    assert "Four digits" not in part(seen.page, "status").inner_text()


def test_a_reader_generates_and_looks_back(seen: Visit) -> None:
    page = seen.page
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
    assert seen.troubles == []


def test_new_noise_gives_new_digits(seen: Visit) -> None:
    page = seen.page
    part(page, "go").click()
    expect(part(page, "status")).to_contain_text("NFE 20")
    first = pixels(section(page).locator("canvas").first)
    part(page, "go").click()
    expect(part(page, "status")).to_have_text("Running.")
    expect(part(page, "status")).to_contain_text("NFE 20")
    assert pixels(section(page).locator("canvas").first) != first


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


def test_a_run_can_be_stopped(seen: Visit) -> None:
    page = seen.page
    for name in ("9", "RK4"):
        section(page).get_by_role("radio", name=name).check(force=True)
    section(page).get_by_role("slider", name="Steps").fill("64")
    part(page, "go").click()
    expect(section(page).locator(".playground-numbers").last).to_contain_text("NFE")  # both have made a step
    expect(part(page, "progress")).to_be_visible()
    pressed = time.monotonic()
    part(page, "stop").click()
    expect(part(page, "status")).to_contain_text("Stopped")
    assert time.monotonic() - pressed < 10
    assert 0 < int(moment(page).get_attribute("max")) < 64
    expect(part(page, "stop")).to_be_hidden()
    expect(part(page, "progress")).to_be_hidden()
    standing = page.evaluate("document.querySelectorAll('.playground-numbers')[0].textContent")
    page.wait_for_timeout(1000)
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


def test_the_keyboard_keeps_its_place_when_the_stop_button_goes(seen: Visit) -> None:
    page = seen.page
    section(page).get_by_role("slider", name="Steps").fill("64")
    part(page, "go").click()
    expect(part(page, "stop")).to_be_visible()
    part(page, "stop").focus()
    page.keyboard.press("Enter")
    expect(part(page, "status")).to_contain_text("Stopped")
    expect(part(page, "go")).to_be_focused()


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
    try:
        expect(part(seen.page, "go", "first")).to_have_text(re.compile(r"Load the network \(\d\.\d MB\)"))
        part(seen.page, "go", "first").click()
        expect(part(seen.page, "status", "first")).to_contain_text("20 Euler steps, NFE 20")
        expect(part(seen.page, "go", "first")).to_have_text("Four new digits")
        assert seen.troubles == []
    finally:
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


@pytest.mark.parametrize(
    ("script", "reason"),
    [("delete window.WebAssembly", "has no WebAssembly"), ("delete window.Worker", "has no web workers")],
)
def test_a_browser_that_lacks_something_is_told(browser: Browser, address: str, script: str, reason: str) -> None:
    page = browser.new_page()
    page.add_init_script(script)
    try:
        page.goto(f"{address}/{PLAYGROUND}.html")
        expect(part(page, "why")).to_contain_text(reason)
        expect(part(page, "why").locator("img")).to_be_visible()
    finally:
        page.close()


def test_a_build_without_networks_says_so(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.route("**/playground.json", lambda route: route.fulfill(status=404))
    try:
        page.goto(f"{address}/{PLAYGROUND}.html")
        expect(part(page, "why")).to_contain_text("playground.json could not be fetched: the server answered 404")
    finally:
        page.close()


def test_a_page_opened_as_a_file_says_how_to_serve_it(browser: Browser, address: str, tmp_path: Path) -> None:
    copied = tmp_path / "html"
    shutil.copytree(HTML, copied, ignore=shutil.ignore_patterns("mathjax", "_images", "*.ipynb"))
    page = browser.new_page()
    try:
        page.goto((copied / f"{PLAYGROUND}.html").as_uri())
        expect(part(page, "why")).to_contain_text("opened as a file")
        expect(part(page, "why")).to_contain_text("http.server")
        assert part(page, "why").locator("img").evaluate("one => one.decode().then(() => one.naturalWidth)") > 100
        expect(part(page, "why", "drawing")).to_be_visible()
    finally:
        page.close()
