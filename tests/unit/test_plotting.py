"""Block averages, arrows, grids, and the content of the films that are written."""

import subprocess
import sys
from dataclasses import dataclass, replace

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from fm_core import plotting

matplotlib.use("agg")
import matplotlib.pyplot as plt


@dataclass(frozen=True)
class Clip:
    """What plotting needs of a Trajectory."""

    t: object
    x: object
    velocity: object
    nfe: int


def clip(snapshots=11, batch=3, size=28, seed=0):
    """Straight lines from noise to a bright blob on black."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    blob = 2 * np.exp(-((x - size / 2) ** 2 + (y - size / 3) ** 2) / 18) - 1
    x_1 = np.broadcast_to(blob, (batch, 1, size, size)).astype(np.float32)
    x_0 = rng.standard_normal(x_1.shape).astype(np.float32)
    t = np.linspace(0, 1, snapshots)
    s = t[:, None, None, None, None].astype(np.float32)
    return Clip(t, (1 - s) * x_0 + s * x_1, np.broadcast_to(x_1 - x_0, (snapshots, *x_1.shape)), snapshots - 1)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


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
        "print([m for m in ('matplotlib', 'PIL', 'imageio', 'torch', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- frames


def greys(x, scale):
    """What a digit becomes in a frame: one of 32 greys per pixel, enlarged."""
    levels = np.rint(np.linspace(0, 255, 32)).astype(np.uint8)
    image = levels[np.rint(plotting.to_uint8(x) * (31 / 255)).astype(int)]
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize("arrows", [True, False])
def test_the_last_frame_is_the_sample(arrows):
    rows = {"Residual U-Net": clip(seed=1), "Base U-Net": clip(seed=2)}
    film = plotting.render_frames(rows, samples=2, frames=9, scale=3, arrows=arrows)
    assert np.asarray(film).shape == (9, *film.indices.shape[1:], 3)
    for label, trajectory in rows.items():
        assert len(film.tiles[label]) == 2
        for i, (top, left) in enumerate(film.tiles[label]):
            tile = film[-1][top : top + 84, left : left + 84]
            np.testing.assert_array_equal(tile, np.repeat(greys(trajectory.x[-1, i, 0], 3)[..., None], 3, axis=-1))


def test_arrows_in_a_frame_point_to_where_ink_arrives():
    y, x = np.mgrid[:28, :28].astype(np.float32)
    state = np.full((2, 1, 1, 28, 28), -1, dtype=np.float32)

    def drawn(field):
        film = plotting.render_frames(Clip([0, 1], state, np.broadcast_to(field, state.shape), 1), frames=2, scale=6)
        ((top, left),) = film.tiles[""]
        tile = film[0][top : top + 168, left : left + 168]
        return (tile[..., 0] > 40).reshape(7, 24, 7, 24)[1:-1, :, 1:-1]  # blocks inside, pixels on an arrow

    # The head is wider than the shaft, so more pixels of an arrow lie in the half that it points to.
    for field, axis, sign in [(x, 3, 1), (-x, 3, -1), (y, 1, 1), (-y, 1, -1)]:
        marks = drawn(field)
        assert marks.any()
        first, second = np.split(marks.sum(axis=(0, 2)), 2, axis=0 if axis == 1 else 1)
        assert np.sign(int(second.sum()) - int(first.sum())) == sign


def test_frames_follow_the_pacing_and_each_row_may_have_its_own():
    trajectory = clip(snapshots=41)
    film = plotting.render_frames(
        {"linear": trajectory, "quadratic": trajectory},
        frames=21,
        scale=2,
        pacing={"linear": "linear", "quadratic": "quadratic"},
    )
    np.testing.assert_allclose(film.times[0], np.linspace(0, 1, 21))
    np.testing.assert_allclose(film.times[1], np.linspace(0, 1, 21) ** 2, atol=0.0126)
    assert film.times[1][[0, -1]].tolist() == [0, 1]


def test_interpolated_frames_lie_on_the_line_between_snapshots():
    trajectory = clip(snapshots=3)
    film = plotting.render_frames(trajectory, frames=5, scale=2, arrows=False, interpolate=True)
    np.testing.assert_allclose(film.times[0], [0, 0.25, 0.5, 0.75, 1])
    top, left = film.tiles[""][2]
    want = greys((trajectory.x[0, 2, 0] + trajectory.x[1, 2, 0]) / 2, 2)
    np.testing.assert_array_equal(film[1][top : top + 56, left : left + 56, 0], want)


def test_frames_run_backward_in_time_too():
    trajectory = clip()
    backward = Clip(trajectory.t[::-1].copy(), trajectory.x[::-1], trajectory.velocity[::-1], 10)
    film = plotting.render_frames(backward, samples=1, frames=4, scale=2)
    assert film.times[0].tolist() == pytest.approx([1, 0.7, 0.3, 0])
    top, left = film.tiles[""][0]
    tile = film[-1][top : top + 56, left : left + 56, 0]
    np.testing.assert_array_equal(tile, greys(trajectory.x[0, 0, 0], 2))


def test_words_stay_inside_the_frame():
    from fm_core.plotting._drawing import CARD_INDEX

    label = "a label that is much wider than one small digit"
    film = plotting.render_frames({label: clip()}, samples=1, frames=1, scale=2)
    frame = film.indices[0]
    assert (frame[:, [0, 1, -2, -1]] == CARD_INDEX).all()
    assert (frame[[0, -1]] == CARD_INDEX).all()


def test_tensors_and_half_precision_are_taken():
    trajectory = clip(snapshots=3)
    tensors = Clip(*(torch.tensor(np.asarray(a), dtype=torch.float32) for a in (trajectory.t, trajectory.x)), None, 2)
    halves = Clip(trajectory.t, trajectory.x.astype(np.float16), None, 2)
    one, other = (plotting.render_frames(c, frames=2, scale=2, arrows=False) for c in (tensors, halves))
    assert (one.indices != other.indices).mean() < 0.001


# ---- files


def blocks(data):
    """Colour tables and frames of a GIF: (bits of the shared table, [whether each frame brings its own table])."""
    flags = data[10]
    own, at = [], 13 + 3 * (2 << (flags & 7)) * (flags >> 7)
    while data[at] != 0x3B:
        if data[at] == 0x21:
            at += 2
        else:
            local = data[at + 9]
            own.append(bool(local >> 7))
            at += 11 + 3 * (2 << (local & 7)) * (local >> 7)
        while data[at]:
            at += data[at] + 1
        at += 1
    return ((flags & 7) + 1 if flags >> 7 else 0), own


def read(path):
    with Image.open(path) as picture:
        loop, frames, times = picture.info.get("loop"), [], []
        for k in range(picture.n_frames):
            picture.seek(k)
            times.append(picture.info["duration"])
            frames.append(np.asarray(picture.convert("RGB")))
    return loop, frames, times


def test_gif_holds_every_frame_and_the_exact_time(tmp_path):
    rows = {"Residual U-Net": clip(31, seed=1), "Base U-Net": clip(31, seed=2)}
    film = plotting.render_frames(rows, samples=3, frames=30, scale=3)
    path = plotting.save_gif(tmp_path / "film.gif", film, fps=30, hold=1.5)
    loop, frames, times = read(path)
    assert loop == 0  # for ever
    assert len(frames) == 30
    assert sum(times) == 2500  # 30 frames at 30 frames/s, then 1.5 s
    assert times[:3] == [30, 30, 40]
    assert times[-1] == 1540
    assert film.palette.shape[0] <= 64
    assert len(np.unique(film.palette, axis=0)) == len(film.palette)
    assert blocks(path.read_bytes()) == (6, [False] * 30)  # one table of 64 colours, no frame brings its own
    for frame, want in zip(frames, film, strict=True):
        np.testing.assert_array_equal(frame, want)


def test_gif_in_one_call_ends_on_the_sample(tmp_path):
    trajectory = clip(21)
    path = plotting.render_gif(tmp_path / "one.gif", trajectory, samples=1, frames=10, scale=4, fps=25, hold=0.5)
    _, frames, times = read(path)
    assert times == [40] * 9 + [540]
    want = greys(trajectory.x[-1, 0, 0], 4)
    places = np.lib.stride_tricks.sliding_window_view(frames[-1][..., 0], want.shape)
    assert (places == want).all(axis=(2, 3)).sum() == 1


def test_a_repeated_frame_lasts_longer_instead(tmp_path):
    film = plotting.render_frames(clip(snapshots=3), frames=9, scale=2)
    _, frames, times = read(plotting.save_gif(tmp_path / "few.gif", film, fps=20, hold=1))
    assert len(frames) == 3
    assert sum(times) == 9 * 50 + 1000


@pytest.mark.parametrize("shape", [(4, 20, 21), (4, 20, 21, 3)])
def test_plain_arrays_become_a_gif(tmp_path, shape):
    film = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    _, frames, times = read(plotting.save_gif(tmp_path / "plain.gif", film, durations=[100, 20, 30, 40]))
    assert times == [100, 20, 30, 40]
    rgb = film if film.ndim == 4 else np.repeat(film[..., None], 3, axis=-1)
    assert np.abs(np.stack(frames).astype(int) - rgb).mean() < (3 if film.ndim == 3 else 40)


@pytest.mark.parametrize(("n", "fps", "hold"), [(1, 20, 0), (100, 20, 1.5), (60, 30, 1.5), (7, 12.5, 0.3), (90, 45, 0)])
def test_durations_add_up(n, fps, hold):
    times = plotting.frame_durations(n, fps=fps, hold=hold)
    assert len(times) == n
    assert all(ms % 10 == 0 and ms >= 20 for ms in times)
    assert sum(times) == pytest.approx(1000 * (n / fps + hold), abs=1e-6)


def test_mp4_repeats_the_last_frame(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    film = plotting.render_frames(clip(), samples=2, frames=10, scale=3)
    path = plotting.save_mp4(tmp_path / "film.mp4", film, fps=10, hold=0.5)
    call = [ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(call, capture_output=True, check=True)
    assert b"Duration: 00:00:01.50" in done.stderr
    shown = np.frombuffer(done.stdout, np.uint8).reshape(-1, *film.indices.shape[1:], 3)
    assert len(shown) == 15
    assert np.abs(shown[-1].astype(int) - film[-1]).mean() < 4  # lossy, and colour at half resolution
    assert np.abs(shown[-1].astype(int) - shown[-6]).mean() < 2


def test_without_ffmpeg_mp4_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r"pip install 'imageio\[ffmpeg\]'"):
        plotting.save_mp4(tmp_path / "film.mp4", np.zeros((2, 8, 8), np.uint8))


# ---- what is refused

ONE = clip(snapshots=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plotting.block_average(np.zeros((28, 28)), 29), r"factor=29 fits no block into an image of 28 × 28"),
        (lambda: plotting.block_average(np.zeros((28, 28)), 0), r"choose a whole number from 1 to 28"),
        (lambda: plotting.block_average(np.zeros(28)), r"shape \(28,\); it needs the axes"),
        (lambda: plotting.ink_arrows(np.zeros((28, 28)), 15), r"factor=15 leaves 1 × 1 blocks .* at least 2 × 2"),
        (
            lambda: plotting.plot_state(None, np.zeros((28, 28)), np.zeros((14, 14))),
            r"\(28, 28\) and velocity \(14, 14\)",
        ),
        (lambda: plotting.plot_velocity(None, np.zeros((2, 1, 28, 28))), r"one grey image is wanted.*velocity\[0\]"),
        (lambda: plotting.plot_velocity(None, np.zeros((28, 28)), limit=-1), r"limit=-1; .* must be positive"),
        (lambda: plotting.plot_trajectory(ONE, index=5), "index=5 is outside the batch of 3 samples"),
        (lambda: plotting.plot_trajectory(ONE, times=[]), "times is empty"),
        (lambda: plotting.to_uint8(np.array([np.nan])), "images hold NaN"),
        (lambda: plotting.image_grid({}), "rows is empty"),
        (lambda: plotting.image_grid(np.zeros((2, 3, 8, 8))), r"rows has shape \(2, 3, 8, 8\); grey images are wanted"),
        (lambda: plotting.image_grid(np.zeros((2, 8, 8)), column_labels=["a"]), "1 texts for 2 columns"),
        (lambda: plotting.image_grid({"x" * 99: np.zeros((2, 8, 8))}), "width=7.0 inches leaves no room for 2 images"),
        (lambda: plotting.model_style("U-Net"), "name='U-Net' must hold exactly one of base, residual"),
        (lambda: plotting.render_frames({}), "trajectories is empty"),
        (lambda: plotting.render_frames(ONE, scale=0), "scale=0; it is the whole number of screen pixels"),
        (lambda: plotting.render_frames(ONE, samples=[7]), r"samples=\[7\] does not fit the 3 samples"),
        (lambda: plotting.render_frames(ONE, pacing="cubic"), "pacing='cubic' is not known; choose one of linear"),
        (lambda: plotting.render_frames({"a": ONE}, pacing={"b": "linear"}), r"pacing has the labels \['b'\]"),
        (lambda: plotting.render_frames(replace(ONE, velocity=None)), "velocity is None.*arrows=False"),
        (lambda: plotting.render_frames(replace(ONE, velocity=ONE.x[:2])), "must have that of trajectory.x"),
        (lambda: plotting.render_frames(replace(ONE, x=ONE.x[:, 0])), r"x of shape \(T, B, 1, H, W\)"),
        (lambda: plotting.render_frames({"a": ONE, "b": clip(size=20)}), "unlike image sizes"),
        (lambda: plotting.render_frames({"a": ONE, "b": replace(ONE, t=ONE.t / 2)}), "unlike first and last t"),
        (lambda: plotting.frame_durations(100, fps=30), "n_frames=100 at fps=30 last 3.33333 s.*fps=20, 25 or 50"),
        (lambda: plotting.frame_durations(10, fps=60), "fps=60.*up to 50 frames/s"),
        (lambda: plotting.frame_durations(10, hold=0.123), "hold=0.123 s is not a whole number.*hold=0.12"),
        (lambda: plotting.save_gif("x.gif", np.zeros((2, 4, 4))), "has shape .* and type float64; bytes are wanted"),
        (lambda: plotting.save_gif("x.gif", np.zeros((2, 4, 4), np.uint8), durations=[33, 40]), "multiples of 10"),
        (lambda: plotting.save_mp4("x.mp4", np.zeros((2, 4, 4), np.uint8), fps=0), "fps=0, hold=1.5; the rate"),
    ],
)
def test_errors_say_what_is_wrong_and_what_helps(call, message):
    with pytest.raises(ValueError, match=message):
        call()
