"""Time per frame of the GIF renderer beside a matplotlib ``FuncAnimation``, from arrays to the file.

Both draw 2 models × 5 samples with 7 × 7 arrows each, the labels and t, at the same size in pixels. The reference does
what tutorials do: each frame clears every axes and draws it again with ``imshow`` and ``quiver``, and ``PillowWriter``
writes the file. It is timed on fewer frames, so both are expressed per frame; its figure is made outside the timing.
"""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from fm_core.plotting import ink_arrows, render_frames, render_gif
from fm_core.solvers import Trajectory

from ._ratio import interleaved_ratio

FRAMES, REFERENCE_FRAMES = 100, 10
SAMPLES = 5
ROUNDS = 5
GOAL = 0.1  # of the reference's time per frame
LABELS = ("Residual U-Net", "Base U-Net")


@pytest.fixture(scope="module")
def trajectories(digits):
    """Straight lines from noise to digits, so that early frames are noise, the hardest to store."""
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, FRAMES, dtype=np.float32)
    s = t[:, None, None, None, None]
    rows = {}
    for label, x_1 in zip(LABELS, digits, strict=True):
        x_0 = rng.standard_normal(x_1.shape, dtype=np.float32)
        velocity = np.broadcast_to(x_1 - x_0, (FRAMES, *x_1.shape))
        arrays = (t, (1 - s) * x_0 + s * x_1, velocity.copy())
        rows[label] = Trajectory(*map(torch.from_numpy, arrays), FRAMES - 1)
    return rows


@pytest.fixture(scope="module")
def digits():
    from fm_core.data import load_sample

    return load_sample("test").images[: len(LABELS) * SAMPLES].numpy().reshape(len(LABELS), SAMPLES, 1, 28, 28)


def _redrawn(trajectories, path, size):
    """The usual animation; returns a function that writes it."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.animation import FuncAnimation, PillowWriter

    figure, axes = plt.subplots(
        len(trajectories), SAMPLES, figsize=(size[1] / 100, size[0] / 100), dpi=100, layout="none"
    )
    arrays = {label: (row.x.numpy(), row.velocity.numpy(), row.t.numpy()) for label, row in trajectories.items()}

    def draw(k):
        for row, (label, (x, velocity, t)) in zip(axes, arrays.items(), strict=True):
            for i, ax in enumerate(row):
                ax.clear()
                ax.imshow(x[k, i, 0], cmap="gray", vmin=-1, vmax=1)
                ax.quiver(*ink_arrows(velocity[k, i, 0]), color="orange", angles="xy")
                ax.axis("off")
            row[0].set_title(f"{label}  NFE {FRAMES - 1}  t = {t[k]:.2f}", loc="left")

    def write():
        shown = np.linspace(0, FRAMES - 1, REFERENCE_FRAMES).astype(int)
        animation = FuncAnimation(figure, draw, frames=shown, init_func=lambda: None)
        animation.save(path, writer=PillowWriter(fps=20))

    return write


def test_gif_renderer_beside_funcanimation(benchmark, trajectories, tmp_path, record):
    ours, theirs = tmp_path / "ours.gif", tmp_path / "theirs.gif"
    size = render_frames(trajectories, samples=SAMPLES, frames=1).indices.shape[1:]

    def render():
        return render_gif(ours, trajectories, samples=SAMPLES, frames=FRAMES)

    benchmark.pedantic(render, rounds=3, warmup_rounds=1)
    result = interleaved_ratio(render, _redrawn(trajectories, theirs, size), ROUNDS)
    for path, frames in ((ours, FRAMES), (theirs, REFERENCE_FRAMES)):
        with Image.open(path) as film:
            assert film.size == size[::-1]
            assert film.n_frames == frames
    per_frame = REFERENCE_FRAMES / FRAMES  # the two films have different lengths
    result |= {key: result[key] * per_frame for key in ("ratio", "lo", "hi", "cpu_ratio")}
    result |= {
        "goal": GOAL,
        "met": result["ratio"] <= GOAL,
        "frames": FRAMES,
        "reference_frames": REFERENCE_FRAMES,
        "frames_per_second": FRAMES / result["seconds"],
        "reference_frames_per_second": REFERENCE_FRAMES / result["reference_seconds"],
        "megabytes": ours.stat().st_size / 1e6,
        "what": f"render_gif over FuncAnimation with imshow and quiver, time per frame, {len(LABELS)} models "
        f"× {SAMPLES} samples, {size[1]} × {size[0]} pixels",
    }
    benchmark.extra_info.update(result)
    record("gif/renderer_vs_funcanimation", result)
    assert result["cpu_ratio"] <= GOAL, result


def test_hero_sized_gif_stays_below_three_megabytes(trajectories, tmp_path):
    wide = {
        label: Trajectory(clip.t, *(torch.cat([a, a[:, :3]], dim=1) for a in (clip.x, clip.velocity)), clip.nfe)
        for label, clip in trajectories.items()
    }
    path = render_gif(tmp_path / "hero.gif", wide, samples=8, frames=FRAMES, scale=3)
    assert path.stat().st_size < 3e6
