"""Animations: the content of their frames and of the files that are written."""

import subprocess
import sys
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from fm_core import plotting
from fm_core.solvers import Trajectory

from .trajectories import clip

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
    state = torch.full((2, 1, 1, 28, 28), -1.0)

    def drawn(field):
        film = plotting.render_frames(
            Trajectory(torch.arange(2), state, torch.from_numpy(field).expand_as(state), 1), frames=2, scale=6
        )
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
    backward = Trajectory(trajectory.t.flip(0), trajectory.x.flip(0), trajectory.velocity.flip(0), 10)
    film = plotting.render_frames(backward, samples=1, frames=4, scale=2)
    assert film.times[0].tolist() == pytest.approx([1, 0.7, 0.3, 0])
    top, left = film.tiles[""][0]
    tile = film[-1][top : top + 56, left : left + 56, 0]
    np.testing.assert_array_equal(tile, greys(trajectory.x[0, 0, 0], 2))


def test_words_stay_inside_the_frame():
    label = "a label that is much wider than one small digit"
    film = plotting.render_frames({label: clip()}, samples=1, frames=1, scale=2)
    frame = film.indices[0]
    card = frame[0, 0]
    assert (frame[:, [0, 1, -2, -1]] == card).all()
    assert (frame[[0, -1]] == card).all()


def test_half_precision_is_accepted():
    full = clip(snapshots=3)
    options = {"frames": 2, "scale": 2, "arrows": False}
    for half in (torch.float16, torch.bfloat16):
        one, other = (plotting.render_frames(c, **options) for c in (full, replace(full, x=full.x.to(half))))
        assert (one.indices != other.indices).mean() < 0.01


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
    assert loop == 0  # forever
    assert len(frames) == 30
    assert sum(times) == 2500  # 30 frames at 30 frames/s, then 1.5 s
    assert times[:3] == [30, 40, 30]
    assert times[-1] == 1530
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
    _, frames, times = read(plotting.save_gif(tmp_path / "plain.gif", film, fps=10, hold=0.25))
    assert times == [100, 100, 100, 350]
    rgb = film if film.ndim == 4 else np.repeat(film[..., None], 3, axis=-1)
    assert np.abs(np.stack(frames).astype(int) - rgb).mean() < (4 if film.ndim == 3 else 40)


@pytest.mark.parametrize(
    ("n", "fps", "hold"),
    [
        (1, 20, 0),
        (100, 20, 1.5),
        (100, 30, 1.5),
        (7, 12.5, 0.3),
        (90, 45, 0),
        (77, 24, 0.123),
        (50, 23.976, 1),
        (3, 0.7, 2),
    ],
)
def test_durations_follow_any_rate_to_a_hundredth_of_a_second(n, fps, hold):
    times = np.array(plotting.frame_durations(n, fps=fps, hold=hold))
    assert len(times) == n
    assert (times % 10 == 0).all() and (times >= 20).all()
    np.testing.assert_allclose(np.cumsum(times)[:-1], 1000 * np.arange(1, n) / fps, atol=5.001)  # errors do not add up
    assert times.sum() == pytest.approx(1000 * (n / fps + hold), abs=10.001)


def test_rates_that_browsers_slow_down_become_50_frames_per_second():
    assert plotting.frame_durations(4, fps=120, hold=0) == plotting.frame_durations(4, fps=50, hold=0) == [20] * 4


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


# ---- frames of figures


def test_frames_show_what_was_drawn_and_do_not_jump():
    def draw(figure, k):
        left, right = figure.subplots(1, 2)
        left.set_facecolor(["red", "lime", "blue"][k])
        left.set_ylabel("y" * (1 + 4 * k) + "\n" * k)  # would move the axes in a new layout
        right.set_facecolor("black")
        assert len(figure.axes) == 2

    with matplotlib.rc_context({"figure.constrained_layout.use": True}):
        frames = plotting.figure_frames(draw, 3, figsize=(3, 2), dpi=40)
    assert frames.shape == (3, 80, 120, 3)
    assert frames.dtype == np.uint8
    for k in range(3):
        assert (frames[k] == 255 * np.eye(3)[k]).all(-1).sum() > 500
    black = (frames == 0).all(-1)
    assert (black[:, :, 80:] == black[0, :, 80:]).all()


def test_frames_leave_pyplot_alone():
    before = plt.get_fignums()
    plotting.figure_frames(lambda figure, k: plotting.plot_particles(figure.subplots(), np.eye(2)), 2, figsize=(2, 2))
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "count: expected a whole number from 1 to 100,000, got 0"),
        ({"figsize": (0, 2)}, "figsize: expected a number above 0 .*got 0"),
        ({"dpi": -1}, "dpi: .* got -1"),
    ],
)
def test_invalid_figure_frames_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        plotting.figure_frames(lambda figure, k: None, **({"count": 1, "figsize": (2, 2)} | wrong))


# ---- errors

ONE = clip(snapshots=3)
BYTES = np.zeros((2, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plotting.render_frames({}), "trajectories: expected at least one label"),
        (lambda: plotting.render_frames(ONE, scale=0), "scale: expected a whole number from 1 to 100, got 0"),
        (lambda: plotting.render_frames(ONE, factor=0), "factor: expected a whole number of at least 1, got 0"),
        (lambda: plotting.render_frames(ONE, samples=[7]), r"samples: .* within a batch of 3, got \[7\]"),
        (lambda: plotting.render_frames(ONE, pacing="cubic"), "pacing: expected one of 'linear', .* got 'cubic'"),
        (
            lambda: plotting.render_frames({"a": ONE}, pacing={"b": "linear"}),
            r"pacing: expected the labels \['a'\], got",
        ),
        (
            lambda: plotting.render_frames(replace(ONE, velocity=None)),
            "velocity: expected an array, got None.*arrows=False",
        ),
        (lambda: plotting.render_frames(replace(ONE, velocity=ONE.x[:2])), "velocity: expected the shape of x"),
        (lambda: plotting.render_frames(replace(ONE, x=ONE.x[:, 0])), r"trajectories: expected x of \(T, B, 1, H, W\)"),
        (lambda: plotting.render_frames({"a": ONE, "b": clip(size=20)}), "expected the same image size in every row"),
        (
            lambda: plotting.render_frames({"a": ONE, "b": replace(ONE, t=ONE.t / 2)}),
            "expected the same first and last t",
        ),
        (lambda: plotting.frame_durations(10, fps=0), "fps: expected a number above 0, got 0"),
        (lambda: plotting.frame_durations(10, hold=-1), "hold: expected a number at least 0 and at most 600, got -1"),
        (lambda: plotting.frame_durations(0), "n_frames: expected a whole number from 1 to 100,000, got 0"),
        (
            lambda: plotting.save_gif("x.gif", np.zeros((2, 4, 4))),
            r"frames: expected bytes, .* got float64, \(2, 4, 4\)",
        ),
        (lambda: plotting.save_mp4("x.mp4", BYTES, fps=0), "fps: expected a number above 0 .*got 0"),
        (lambda: plotting.save_mp4("x.mp4", BYTES, quality=0), "quality: expected a number at least 1 and at most 10"),
        (lambda: plotting.save_mp4("x.mp4", BYTES, hold=1e9), "hold: expected a number at least 0 and at most 600"),
        (lambda: plotting.save_gif("a\0b.gif", BYTES), "path: expected a path"),
        (lambda: plotting.save_gif("x.gif", None), "frames: expected an array of numbers, got None"),
        (lambda: plotting.render_frames({"two\nlines": ONE}), "trajectories: expected labels of one line"),
        (lambda: plotting.render_frames({"x" * 101: ONE}), "trajectories: expected labels of one line"),
        (lambda: plotting.render_frames({"a": None}), r"trajectories\['a'\]: expected a Trajectory, .*got None"),
        (lambda: plotting.render_frames(ONE, frames=90_000), "frames: pixels in all: expected"),
        (lambda: plotting.render_frames(ONE, samples="all"), "samples: expected a whole number"),
    ],
)
def test_invalid_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
