"""Sliders: what they show at each t, links without a kernel, encoding, errors."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from dataclasses import replace

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

from fm_book.figures.path_grid import path_slider
from fm_core import plotting
from fm_core.sliders import (
    compare_slider,
    encode,
    particles_slider,
    time_slider,
    time_words,
    trajectory_slider,
)
from fm_core.solvers import Trajectory

from .trajectories import clip

ALT = "A square turns from black to white."

needs_stack = pytest.mark.skipif(not hasattr(ipywidgets, "Stack"), reason="ipywidgets 7 has no Stack")


def digits(snapshots=11, batch=3, seed=0):
    return clip(snapshots, batch, seed=seed)


def plain(count=6, height=20, width=30):
    """Frame k has one shade, 40 k."""
    return np.arange(0, 40 * count, 40, dtype=np.uint8)[:, None, None].repeat(height, 1).repeat(width, 2)


def pixels(picture):
    source = re.search(r'src="data:image/webp;base64,([^"]+)"', picture)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB"))


def alt(picture):
    return re.search(r'alt="([^"]*)"', picture)[1]


# ---- one slider


@needs_stack
def test_each_position_shows_its_frame_and_says_its_time():
    film, times = plain(), np.linspace(0, 1, 6)
    slider = time_slider(film, times, alt=ALT, label="time t (s)")
    assert slider.slider.description == "time t (s)"
    for k, t in enumerate(times):
        assert (pixels(slider.picture.children[k].value) == film[k, 0, 0]).all()
        assert alt(slider.pictures[k]) == f"{ALT} Here t = {t:.2f}."
        slider.slider.index = k
        assert (slider.slider.label, slider.slider.value) == (f"t = {t:.2f}", pytest.approx(t))


@needs_stack
def test_the_parts_are_joined_in_the_browser_and_not_in_python():
    slider = time_slider(plain(), range(6), alt=ALT)
    joined = {(link.source[0], link.source[1], link.target[0], link.target[1]) for link in slider._links}
    assert joined == {
        (slider.slider, "index", slider.picture, "selected_index"),
        (slider.play, "value", slider.slider, "index"),
    }
    assert all(type(link).__name__ == "Link" and link._model_module for link in slider._links)  # a model of the browser
    assert (slider.play.min, slider.play.max, slider.play.interval) == (0, 5, 67)
    assert isinstance(slider.picture, ipywidgets.Stack)
    assert slider.slider.continuous_update


def test_without_stack_the_kernel_exchanges_the_picture(monkeypatch):
    monkeypatch.delattr(ipywidgets, "Stack", raising=False)  # as in ipywidgets 7, which Colab has
    slider = time_slider(plain(), range(6), alt=ALT)
    assert isinstance(slider.picture, ipywidgets.HTML)
    for k in (3, 0, 5):
        slider.slider.index = k
        assert slider.picture.value == slider.pictures[k]
    assert [(link.source[0], link.target[0]) for link in slider._links] == [(slider.play, slider.slider)]


@needs_stack
def test_a_cell_shows_the_slider_and_hides_the_filmstrip(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    slider = time_slider(plain(), range(6), alt=ALT)
    slider._ipython_display_()
    assert [sorted(bundle) for bundle in shown] == [
        ["application/vnd.jupyter.widget-view+json", "text/plain"],
        ["text/html", "text/plain"],
    ]
    strip = shown[1]["text/html"]
    assert strip.startswith('<div class="fm-filmstrip" style="display:none">')
    assert "<noscript><style>.fm-filmstrip{display:block!important}" in strip


def test_the_filmstrip_holds_five_frames_with_their_times():
    slider = time_slider(plain(6), [0, 0.1, 0.4, 0.6, 0.9, 1], alt=ALT)
    figures = re.findall("<figure.*?</figure>", slider.filmstrip)
    assert [re.search("<figcaption[^>]*>(.*?)<", one)[1] for one in figures] == [
        f"t = {t}" for t in ("0.00", "0.10", "0.40", "0.90", "1.00")
    ]
    assert [pixels(one)[0, 0, 0] for one in figures] == [0, 40, 80, 160, 200]
    texts = [alt(one) for one in figures] + [alt(one) for one in slider.pictures]
    assert len(set(texts)) == len(texts)
    assert len(re.findall("<figure", time_slider(plain(2), [0, 1], alt=ALT).filmstrip)) == 2


def test_words_are_escaped():
    slider = time_slider(plain(2), [0, 1], alt='"<b>" & more')
    assert alt(slider.pictures[0]) == "&quot;&lt;b&gt;&quot; &amp; more Here t = 0.00."


def test_times_are_written_so_that_each_is_another():
    assert time_words([0, 0.5, 1]) == ["0.00", "0.50", "1.00"]
    assert time_words([0.1, 0.1004, 0.102]) == ["0.1000", "0.1004", "0.1020"]
    slider = time_slider(plain(3), [1, 0.999, 0.998], alt=ALT)  # backwards, and finer than two decimals
    slider.slider.index = 1
    assert slider.slider.label == "t = 0.999"


def test_frames_of_the_film_go_in_as_they_are():
    film = plotting.render_frames(digits(), samples=2, frames=4)
    slider = time_slider(film, film.times[0], alt=ALT)
    np.testing.assert_array_equal(pixels(slider.pictures[2]), film[2])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"frames": plain().astype(float)}, r"frames: expected bytes, .* got float64, \(6, 20, 30\)\. Use to_uint8"),
        ({"frames": plain()[..., None]}, r"frames: .* got uint8, \(6, 20, 30, 1\)"),
        ({"frames": plain(1), "times": [0]}, r"times: expected one per frame and at least 2, got \(1,\) for 1 frames"),
        ({"times": [0, 1]}, r"times: .* got \(2,\) for 6 frames"),
        ({"times": [0, 1, 2, 2, 3, 4]}, "strictly rising or falling"),
        ({"times": [0, 1, 2, 3, 4, np.nan]}, "times: expected finite values"),
        ({"times": np.zeros((6, 1))}, r"times: .* got \(6, 1\) for 6 frames"),
        ({"alt": " "}, "alt: expected a text .* got ' '"),
        ({"label": ""}, "label: expected a text .* got ''"),
        ({"fps": 60}, "fps: expected a number at least 0.1 and at most 30, got 60"),
        ({"fps": 0}, "fps: expected a number at least 0.1 and at most 30, got 0"),
        ({"width": 0}, "width: expected a whole number from 1 to 10,000, got 0"),
        ({"max_bytes": 100}, "frames: expected at most 0.00 MB in a page, got 0.00 MB. Give fewer or smaller frames"),
    ],
)
def test_invalid_frames_and_options_are_refused(wrong, message):
    arguments = {"frames": plain(), "times": range(6), "alt": ALT} | wrong
    with pytest.raises(ValueError, match=message):
        time_slider(arguments.pop("frames"), arguments.pop("times"), **arguments)


# ---- how frames are written


def decoded(files):
    return np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in files]).astype(int)


def test_flat_frames_lose_nothing():
    rng = np.random.default_rng(0)
    film = np.kron(rng.integers(0, 4, (3, 12, 12)), np.ones((8, 8), int)).astype(np.uint8)[..., None] * np.uint8(
        [60, 9, 80]
    )
    assert (decoded(encode(film)) == film).all()


def test_heavy_frames_are_compressed_with_loss_and_look_the_same():
    x, y = np.meshgrid(*[np.linspace(0, 6, 400)] * 2)
    soft = np.stack([np.sin(x + k) * np.cos(y - k) for k in range(4)])[..., None] * [90, 60, 100] + 128
    film = (soft + np.random.default_rng(0).normal(0, 2, soft.shape)).astype(np.uint8)
    files = encode(film)
    assert sum(map(len, files)) < 0.3 * film.size / 3
    assert np.abs(decoded(files) - film).mean() < 4


def test_frames_stay_lossless_where_loss_would_not_make_them_lighter():
    flat = np.kron(np.random.default_rng(1).integers(0, 2, (40, 150, 150)), np.ones((4, 4), int)).astype(np.uint8) * 255
    files = encode(flat)
    assert sum(map(len, files)) * 4 / 3 > 100_000
    assert (decoded(files)[..., 0] == flat).all()


# ---- four kinds of sliders


def tile(picture, left, top, side):
    return pixels(picture)[top : top + side, left : left + side]


def test_the_path_stands_between_its_ends():
    x_0, x_1 = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.full((1, 1, 28, 28), -0.2)
    slider = path_slider(x_0, x_1, alt=ALT, frames=5)
    assert slider.slider.label == "t = 0.00" and len(slider.pictures) == 5
    start, mix, end = ([tile(p, 112, 8 + 120 * row, 112) for p in slider.pictures] for row in range(3))
    assert all((one == start[0]).all() for one in start) and all((one == end[0]).all() for one in end)
    assert (mix[0] == start[0]).all() and (mix[4] == end[0]).all()
    want = plotting.to_uint8(0.5 * x_0 + 0.5 * x_1)[0, 0].astype(int)
    assert np.abs(mix[2][2::4, 2::4, 0] - want).max() <= 255 / 15 / 2 + 1  # 16 grey levels


def test_paths_of_several_digits_stand_side_by_side():
    x_0, x_1 = torch.zeros(3, 1, 28, 28), torch.ones(3, 1, 28, 28)
    slider = path_slider(x_0, x_1, alt=ALT, frames=3)
    assert (tile(slider.pictures[1], 112, 8 + 120, 112) > 170).all()
    assert (tile(slider.pictures[2], 112 + 240, 8 + 120, 112) == 255).all()


def test_a_trajectory_shows_states_and_signed_velocity():
    flow = digits(batch=2)
    one = torch.zeros_like(flow.x)
    one[:, :, :, 5:9, 5:9], one[:, :, :, 15:19, 15:19] = 2, -2
    slider = trajectory_slider(replace(flow, velocity=one), samples=[1, 0], alt=ALT)
    assert len(slider.pictures) == 11
    below = tile(slider.pictures[0], 112, 8 + 120, 112)[2::4, 2::4].astype(int)
    red, blue, rest = below[6, 6], below[16, 16], below[25, 3]
    assert red[0] > red[2] + 60 and blue[2] > blue[0] + 60
    assert np.ptp(rest) < 10 and rest.min() > 230
    above = tile(slider.pictures[-1], 112, 8, 112)[2::4, 2::4, 0].astype(int)  # no arrows at the end
    want = plotting.to_uint8(flow.x[-1, 1])[0].astype(int)
    assert np.abs(above - want).max() <= 255 / 15 / 2 + 5


def test_two_networks_stand_below_each_other_at_the_same_time():
    slider = compare_slider({"Residual U-Net": digits(seed=1), "Base U-Net": digits(seed=2)}, samples=2, alt=ALT)
    assert [slider.slider.options[k][0] for k in (0, 5, 10)] == ["t = 0.00", "t = 0.50", "t = 1.00"]
    film = plotting.render_frames(
        {"Residual U-Net": digits(seed=1), "Base U-Net": digits(seed=2)}, samples=2, frames=11, arrows=False
    )
    assert np.abs(pixels(slider.pictures[5]).astype(int) - film[5]).max() <= 255 / 15 / 2 + 5


def test_uneven_times_are_shown_one_by_one():
    flow = digits()
    uneven = replace(flow, t=flow.t**3)
    slider = compare_slider({"a": uneven}, alt=ALT)
    film = plotting.render_frames({"a": flow}, samples=3, frames=11, arrows=False)
    for k in (1, 4):
        assert slider.slider.options[k][1] == pytest.approx(float(uneven.t[k]))
        tiles = [pixels(slider.pictures[k])[y : y + 112, x : x + 112].astype(int) for y, x in film.tiles["a"]]
        wanted = [film[k][y : y + 112, x : x + 112] for y, x in film.tiles["a"]]
        assert np.abs(np.stack(tiles) - np.stack(wanted)).max() <= 255 / 15 / 2 + 5


def test_many_moments_are_thinned_evenly_and_keep_both_ends():
    slider = compare_slider({"a": digits(snapshots=101)}, samples=1, alt=ALT, frames=51)
    times = [t for _, t in slider.slider.options]
    assert len(times) == 51
    np.testing.assert_allclose(times, np.linspace(0, 1, 51), atol=1e-6)
    times = [t for _, t in compare_slider({"a": digits(snapshots=12)}, samples=1, alt=ALT, frames=5).slider.options]
    assert times[0] == 0 and times[-1] == 1 and len(times) == 5


def test_particles_move_with_density_and_field():
    mesh = plotting.plane_mesh(2, 9)
    t = np.linspace(0, 1, 3)
    x = torch.from_numpy(np.stack([np.full((50, 2), [-1.5 + 3 * s, 0.0]) for s in t]))
    flow = Trajectory(torch.from_numpy(t), x, None, 2)
    field, density = np.tile([1.0, 0.0], (3, 81, 1)), np.ones((3, 81))
    slider = particles_slider(flow, alt=ALT, particles=10)
    blue = [np.argwhere((pixels(p)[..., 2].astype(int) - pixels(p)[..., 0]) > 90)[:, 1].mean() for p in slider.pictures]
    assert blue[0] < blue[1] < blue[2]
    widths = [
        pixels(particles_slider(flow, mesh=mesh, alt=ALT, **layers).pictures[0]).shape[1]
        for layers in ({"field": field}, {"density": density}, {"field": field, "density": density})
    ]
    assert widths[0] < widths[1] == widths[2]


def test_a_velocity_is_needed_for_arrows_only():
    flow = replace(digits(), velocity=None)
    compare_slider({"a": flow}, alt=ALT)
    with pytest.raises(ValueError, match=r"trajectory.velocity: expected an array, got None"):
        trajectory_slider(flow, alt=ALT)


def test_without_ipywidgets_the_import_says_what_to_install():
    code = "import sys; sys.modules['ipywidgets'] = None; import fm_core.sliders"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError" in done.stderr
    assert "pip install 'fm-core[sliders]'" in done.stderr


x_0, x_1, mesh = torch.zeros(9, 1, 28, 28), torch.zeros(9, 1, 28, 28), plotting.plane_mesh(1, 3)
plane = Trajectory(torch.linspace(0, 1, 4), torch.zeros(4, 5, 2), None, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: path_slider(x_0[:2], x_1[:3], alt=ALT),
            r"x_1: expected the shape of x_0, .* got \(3, 28, 28\) for \(2, 28, 28\)",
        ),
        (lambda: path_slider(x_0, x_1, alt=ALT), "at most 8 images, got"),
        (lambda: path_slider(x_0[:1], x_1[:1], alt=ALT, frames=1), "frames: expected a whole number .*2"),
        (lambda: trajectory_slider(digits(), samples=[5], alt=ALT), r"samples: .* within a batch of 3, got \[5\]"),
        (lambda: trajectory_slider(digits(snapshots=1), alt=ALT), "trajectory: expected at least 2 snapshots, got 1"),
        (lambda: compare_slider({}, alt=ALT), "trajectories: expected .* with at least one row"),
        (lambda: compare_slider(digits(), alt=ALT), "trajectories: expected {label: Trajectory}"),
        (
            lambda: compare_slider({"a": digits(11), "b": digits(6)}, alt=ALT),
            "trajectories: expected the same times in all, got others in 'b'",
        ),
        (
            lambda: compare_slider({"a": digits()}, alt=ALT, frames=1),
            "frames: expected a whole number .*2, got 1",
        ),
        (
            lambda: particles_slider(digits(), alt=ALT),
            r"trajectory: expected x of \(T, B, 2\) .* got \(11, 3, 1, 28, 28\)",
        ),
        (lambda: particles_slider(plane, alt=ALT, density=np.ones((4, 9))), "mesh: expected that of density, got None"),
        (
            lambda: particles_slider(plane, alt=ALT, mesh=mesh, field=np.ones((3, 9, 2))),
            r"field: expected \(4, 9, 2\) .* got \(3, 9, 2\)",
        ),
        (
            lambda: particles_slider(plane, alt=ALT, mesh=mesh, density=np.ones((4, 8))),
            r"density: expected \(4, 9\) .* got \(4, 8\)",
        ),
    ],
)
def test_invalid_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@needs_stack
def test_close_closes_every_widget_of_a_slider():
    """Layouts, styles and links too; those of another slider stay."""
    from ipywidgets.widgets.widget import _instances

    other = time_slider(plain(), np.linspace(0, 1, 6), alt=ALT)
    before = set(_instances)
    slider = time_slider(plain(), np.linspace(0, 1, 6), alt=ALT)
    assert len(set(_instances) - before) > 20
    slider.close()
    assert set(_instances) == before and other.slider.model_id in before
