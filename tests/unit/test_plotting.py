"""Block averages, ink arrows, grids of images and the style of figures."""

import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from fm_core import plotting

from .trajectories import clip

# ---- block averages and arrows


@pytest.mark.parametrize(("shape", "factor"), [((28, 28), 4), ((2, 3, 28, 28), 7), ((29, 31), 4), ((5, 9, 7), 2)])
def test_block_average_is_the_mean_of_each_block_and_crops_what_is_left(shape, factor):
    image = np.random.default_rng(0).standard_normal(shape)
    rows, columns = shape[-2] // factor, shape[-1] // factor
    want = np.empty((*shape[:-2], rows, columns))
    for i in range(rows):
        for j in range(columns):
            block = image[..., i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
            want[..., i, j] = block.sum(axis=(-2, -1)) / factor**2
    np.testing.assert_allclose(plotting.block_average(image, factor), want, rtol=1e-12, atol=1e-12)


def test_arrows_on_a_ramp_are_its_slope():
    y, x = np.mgrid[:28, :28].astype(float)
    xs, ys, dx, dy = plotting.ink_arrows(3 * x - 2 * y)
    np.testing.assert_allclose(dx, 3)
    np.testing.assert_allclose(dy, -2)  # velocity rises upwards, and y points down
    assert xs.shape == ys.shape == dx.shape == (7, 7)
    assert xs[0].tolist() == ys[:, 0].tolist() == [1.5 + 4 * k for k in range(7)]


@pytest.mark.parametrize("size", [28, 30])
def test_arrows_point_to_where_ink_arrives(size):
    y, x = np.mgrid[:size, :size].astype(float)
    centre = 13.5  # the middle of 7 blocks of 4 pixels
    xs, ys, dx, dy = plotting.ink_arrows(np.exp(-((x - centre) ** 2 + (y - centre) ** 2) / 60))
    away = np.hypot(xs - centre, ys - centre) > 1
    towards = (centre - xs) * dx + (centre - ys) * dy
    assert (towards[away] > 0).all()
    assert dy[0, 3] > 0  # above the blob: downwards
    assert dy[-1, 3] < 0


def test_arrows_of_a_batch_are_those_of_each_image():
    fields = np.random.default_rng(1).standard_normal((2, 3, 12, 16))
    _, _, dx, dy = plotting.ink_arrows(fields, 2)
    _, _, dx_one, dy_one = plotting.ink_arrows(fields[1, 2], 2)
    np.testing.assert_array_equal(dx[1, 2], dx_one)
    np.testing.assert_array_equal(dy[1, 2], dy_one)


def test_drawn_arrows_point_down_where_dy_is_positive():
    y, _ = np.mgrid[:28, :28].astype(float)
    figure, ax = plt.subplots()
    arrows = plotting.plot_state(ax, np.zeros((28, 28)), y)
    assert (arrows.V > 0).all()
    assert arrows.angles == "xy"
    bottom, top = ax.get_ylim()
    assert bottom > top  # row 0 is at the top, so a positive V goes down the page
    figure.canvas.draw()


def test_velocity_map_is_centred_at_zero():
    _, ax = plt.subplots()
    picture = plotting.plot_velocity(ax, torch.linspace(-1, 3, 784).reshape(1, 28, 28))
    assert picture.get_clim() == (-3, 3)
    assert picture.colorbar.ax.get_ylabel().replace("\n", " ") == "grey levels per unit time"


def test_trajectory_figure_shows_the_nearest_times_on_one_scale():
    figure = plotting.plot_trajectory(clip(), index=1, times=(0, 0.52, 1))
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ["t = 0.00", "t = 0.50", "t = 1.00"]
    limits = {ax.images[0].get_clim() for ax in figure.axes[3:6]}
    assert len(limits) == 1
    figure.canvas.draw()


# ---- grids, bytes, style


def test_to_uint8_clips_and_rounds():
    x = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 7.0], dtype=torch.bfloat16)
    assert plotting.to_uint8(x).tolist() == [0, 0, 128, 191, 255, 255]


def test_image_grid_cuts_no_label():
    images = torch.zeros(6, 1, 28, 28)
    rows = {"Residual U-Net, a label that is long": images, "Base": images[:4]}
    figure = plotting.image_grid(rows, column_labels=list("abcdef"), title="same noise")
    width, height = figure.get_size_inches() * figure.dpi
    figure.canvas.draw()
    texts = {text.get_text(): text.get_window_extent() for text in figure.texts}
    assert {*rows, *"abcdef", "same noise"} == set(texts)
    for box in texts.values():
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    assert all(texts[label].x1 <= figure.axes[0].get_window_extent().x0 for label in rows)
    assert all(texts["a"].y0 >= ax.get_window_extent().y1 for ax in figure.axes)
    assert texts["same noise"].y0 >= texts["a"].y1


def test_image_grid_puts_pixels_where_they_belong():
    images = np.random.default_rng(0).uniform(-1, 1, (7, 1, 5, 6)).astype(np.float32)
    figure = plotting.image_grid(images, columns=3)
    strips = [ax.images[0].get_array() for ax in figure.axes]
    assert len(strips) == 3
    np.testing.assert_array_equal(strips[1][:, 7:13], images[4, 0])
    assert np.ma.getmaskarray(strips[2])[:, 7:].all()  # two places stay empty


def test_a_saved_grid_holds_its_images(tmp_path):
    images = torch.linspace(-1, 1, 5 * 6 * 7).reshape(5, 1, 6, 7)
    path = plotting.save_image_grid(tmp_path / "grid.png", images, columns=3)
    assert path == tmp_path / "grid.png"
    assert [file.name for file in tmp_path.iterdir()] == ["grid.png"]  # no temporary file is left
    grid = np.asarray(Image.open(path))
    assert grid.shape == (2 * 8 + 2, 3 * 9 + 2)
    for i, image in enumerate(plotting.to_uint8(images[:, 0])):
        top, left = 2 + 8 * (i // 3), 2 + 9 * (i % 3)
        np.testing.assert_array_equal(grid[top : top + 6, left : left + 7], image)
    assert not grid[:2].any()
    assert not grid[10:, 20:].any()  # the sixth tile is empty


def test_a_failed_grid_leaves_the_old_file(tmp_path):
    path = plotting.save_image_grid(tmp_path / "grid.png", torch.zeros(2, 1, 4, 4))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="images: expected finite values, got NaN"):
        plotting.save_image_grid(path, torch.full((2, 1, 4, 4), torch.nan))
    with pytest.raises(ValueError, match="unknown file extension"):
        plotting.save_image_grid(tmp_path / "grid.what", torch.zeros(2, 1, 4, 4))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["grid.png"]


def test_style_gives_an_opaque_card_and_lines_that_differ_twice():
    with matplotlib.rc_context():
        plotting.use_style()
        rc = matplotlib.rcParams
        assert rc["lines.linewidth"] == 2
        assert rc["figure.facecolor"] == rc["savefig.facecolor"] == plotting.CARD
        cycle = list(rc["axes.prop_cycle"])
        assert len({c["color"] for c in cycle}) == len({str(c["linestyle"]) for c in cycle}) == len(cycle)
    base, residual = plotting.model_style("base"), plotting.model_style("Residual U-Net")
    assert base["color"] != residual["color"]
    assert base["linestyle"] != residual["linestyle"]


def test_importing_plotting_loads_no_plotting_library():
    code = (
        "import sys, fm_core.plotting; "
        "print([m for m in ('matplotlib', 'imageio', 'mlflow', 'ipywidgets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- errors

ONE = clip(snapshots=3)
AX = Figure().add_subplot()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: plotting.block_average(np.zeros((28, 28)), 29),
            "factor: expected a whole number from 1 to 28, got 29",
        ),
        (lambda: plotting.block_average(np.zeros((28, 28)), 0), "factor: .* got 0"),
        (lambda: plotting.block_average(np.zeros(28)), r"image: expected the axes .* got \(28,\)"),
        (lambda: plotting.ink_arrows(np.zeros((28, 28)), 15), "factor: expected at least 2 × 2 blocks, got 1 × 1"),
        (
            lambda: plotting.plot_state(AX, np.zeros((28, 28)), np.zeros((14, 14))),
            r"velocity: expected the shape of x, \(28, 28\), got \(14, 14\)",
        ),
        (
            lambda: plotting.plot_velocity(AX, np.zeros((2, 1, 28, 28))),
            r"velocity: expected one grey image.*velocity\[0\]",
        ),
        (
            lambda: plotting.plot_velocity(AX, np.zeros((28, 28)), limit=-1),
            "limit: expected a number above 0, got -1",
        ),
        (lambda: plotting.plot_trajectory(ONE, index=5), "index: expected one of the 3 samples, got 5"),
        (lambda: plotting.plot_trajectory(ONE, times=[]), r"times: expected 1 to 100 times, got \[\]"),
        (
            lambda: plotting.to_uint8(np.array([np.nan])),
            "images: expected finite values, got NaN or infinity in 1 of 1, the first is 0",
        ),
        (lambda: plotting.plot_state(AX, np.zeros((28, 28)), np.full((28, 28), np.nan)), "velocity: expected finite"),
        (lambda: plotting.plot_velocity("ax", np.zeros((28, 28))), "ax: expected matplotlib Axes"),
        (lambda: plotting.image_grid({"a": np.full((1, 8, 8), np.nan)}), r"rows\['a'\]: expected finite"),
        (lambda: plotting.image_grid(np.zeros((2, 8, 8)), width=np.inf), "width: expected a number above 0"),
        (lambda: plotting.image_grid({}), "rows: expected at least one label"),
        (lambda: plotting.image_grid(np.zeros((2, 3, 8, 8))), r"rows: expected grey images, .* got \(2, 3, 8, 8\)"),
        (
            lambda: plotting.image_grid(np.zeros((2, 8, 8)), column_labels=["a"]),
            r"column_labels: expected 2 texts.* got \['a'\]",
        ),
        (lambda: plotting.image_grid({"x" * 99: np.zeros((2, 8, 8))}), "width: expected room for 2 images .* got 7.0"),
        (
            lambda: plotting.image_grid({"a": np.zeros((1, 8, 8)), "b": np.zeros((1, 9, 9))}),
            "rows: expected images of one",
        ),
        (lambda: plotting.model_style("U-Net"), "name: expected a label that holds one of base, residual, got 'U-Net'"),
    ],
)
def test_invalid_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


FIGURES = {
    "image_grid": lambda: plotting.image_grid(np.zeros((2, 8, 8))),
    "plot_trajectory": lambda: plotting.plot_trajectory(ONE, times=[0.0, 1.0]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_pyplot_keeps_no_figure_outside_notebooks(name, tmp_path):
    plt.close("all")
    figure = FIGURES[name]()
    assert plt.get_fignums() == []
    figure.savefig(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.size[0] > 100


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_shows_a_figure_at_the_end_of_its_cell(name, monkeypatch):
    plt.close("all")
    monkeypatch.setattr(plt, "get_backend", lambda: "module://matplotlib_inline.backend_inline")
    figure = FIGURES[name]()
    assert [plt.figure(n) for n in plt.get_fignums()] == [figure]


def test_a_call_that_fails_leaves_no_figure(monkeypatch):
    plt.close("all")
    monkeypatch.setattr(plt, "get_backend", lambda: "inline")
    with pytest.raises(ValueError, match="width: expected room"):
        plotting.image_grid({"x" * 99: np.zeros((2, 8, 8))})
    assert plt.get_fignums() == []
