"""The live field as a notebook's output in Chromium: mouse, keyboard, slider, and PyTorch's states to compare with.

The output needs no server, so these tests open it as a file; they need no built book.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from browsing import DESKTOP
from playwright.sync_api import Browser, Page, expect
from torch import nn

from fm_book.live_field import live_field
from fm_core import solve, toy_2d, uniform_grid

pytestmark = pytest.mark.browser

LAST = "document.querySelector('.fm-field').field.drops.at(-1)"


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2)).requires_grad_(
        False
    )


@pytest.fixture(params=["no-preference", "reduce"])
def page(browser: Browser, network: nn.Sequential, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    data = toy_2d("eight_gaussians", 300, generator=torch.Generator().manual_seed(0))
    file = tmp_path / "output.html"
    body = live_field(network, data, alt="A small field.")._repr_html_()
    file.write_text(f"<!doctype html><meta charset='utf-8'>{body}", encoding="utf-8")
    troubles: list[str] = []
    page = browser.new_page(viewport=DESKTOP, reduced_motion=request.param)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: message.type != "error" or troubles.append(message.text))
    page.goto(file.as_uri())
    yield page
    page.close()
    assert troubles == []


def test_clicked_particles_flow_where_pytorch_takes_them(page: Page, network: nn.Sequential) -> None:
    box = page.locator("canvas").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.25)  # x = y = 1.5
    expect(page.locator("output")).to_have_text("t = 1.00", timeout=20_000)
    states = torch.tensor(page.evaluate(f"{LAST}.states.map((one) => [...one])")).reshape(25, -1, 2)
    torch.testing.assert_close(states[0].mean(dim=0), torch.tensor([1.5, 1.5]), atol=0.05, rtol=0)
    expected = solve(
        lambda x, t: network(torch.cat([x, t.expand(len(x), 1)], dim=1)), states[0], uniform_grid(24), method="rk4"
    )
    torch.testing.assert_close(states, expected.x, atol=1e-5, rtol=0)


def test_the_keyboard_does_it_too(page: Page) -> None:
    page.keyboard.press("Tab")
    for key in ("ArrowRight", "ArrowUp", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    assert page.evaluate(f"[...{LAST}.states[0].subarray(0, 2)]") == [0.25, 0.5]
    expect(page.locator("output")).to_have_text("t = 1.00", timeout=20_000)
    expect(page.locator("canvas")).to_have_attribute(
        "aria-label",
        "A small field. 1 times particles were dropped. Click, or press arrow keys and Enter, to drop some.",
    )


def test_the_slider_goes_back_and_the_buttons_work(page: Page) -> None:
    blank = page.locator("canvas").evaluate("one => one.toDataURL()")
    page.get_by_role("button", name="drop noise").click()
    expect(page.locator("output")).to_have_text("t = 1.00", timeout=20_000)
    ended = page.locator("canvas").evaluate("one => one.toDataURL()")
    page.get_by_role("slider", name="time t").fill("12")
    assert page.get_by_role("slider").get_attribute("aria-valuetext") == "t = 0.50"
    assert page.locator("canvas").evaluate("one => one.toDataURL()") != ended
    assert page.evaluate(f"{LAST}.states[0].length") == 200
    page.get_by_role("button", name="clear").click()
    assert page.locator("canvas").evaluate("one => one.toDataURL()") == blank
