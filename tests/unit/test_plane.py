"""Distributions in the plane: orientation of the mesh, layers on axes."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.quiver import Quiver

from fm_core import plotting


@pytest.fixture
def ax():
    return plt.subplots(figsize=(4, 4), dpi=50)[1]


def pixels(ax):
    ax.figure.canvas.draw()
    return np.asarray(ax.figure.canvas.buffer_rgba())[..., :3].astype(int)


# ---- the mesh


def test_the_mesh_runs_row_by_row_from_the_bottom():
    mesh = plotting.plane_mesh(2.0, 5)
    assert mesh.shape == (25, 2)
    assert mesh.dtype == np.float32
    image = mesh.reshape(5, 5, 2)
    for i, y in enumerate([-2, -1, 0, 1, 2]):
        for j, x in enumerate([-2, -1, 0, 1, 2]):
            assert image[i, j].tolist() == [x, y]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"limit": 0.0}, "limit: expected a number above 0, got 0.0"),
        ({"limit": float("inf")}, "limit: .* got inf"),
        ({"n": 1}, "n: expected a whole number from 2 to 10,000, got 1"),
        ({"n": 2.5}, "n: .* got 2.5"),
    ],
)
def test_invalid_meshes_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        plotting.plane_mesh(**wrong)


# ---- layers


def test_density_stands_where_it_belongs(ax):
    mesh = plotting.plane_mesh(3, 31)
    peak = np.array([1.5, 0.6])
    density = np.exp(-((mesh - peak) ** 2).sum(1) / 0.02)
    plotting.plot_density(ax, mesh, torch.from_numpy(density), cmap="gray")
    light = pixels(ax).sum(-1)
    inside = ax.get_window_extent()
    rows = light.shape[0] - np.arange(light.shape[0])  # window coordinates start at the bottom
    within = (rows[:, None] < inside.y1 - 3) & (rows[:, None] > inside.y0 + 3)  # not the axes' soft edges
    x = np.arange(light.shape[1])
    weight = np.where(within & (x > inside.x0 + 3) & (x < inside.x1 - 3), light, 0.0)
    found = ax.transData.inverted().transform(
        [(weight * x).sum() / weight.sum(), (weight * rows[:, None]).sum() / weight.sum()]
    )
    np.testing.assert_allclose(found, peak, atol=0.1)
    assert ax.get_aspect() == 1


def test_density_on_one_scale(ax):
    mesh = plotting.plane_mesh(1, 3)
    assert plotting.plot_density(ax, mesh, np.arange(9.0)).get_clim() == (0, 8)
    assert plotting.plot_density(ax, mesh, np.arange(9.0), limit=20).get_clim() == (0, 20)
    assert plotting.plot_density(ax, mesh, np.zeros(9)).get_clim() == (0, 1)


def test_arrows_stand_on_the_mesh_and_share_one_scale(ax):
    mesh = plotting.plane_mesh(2, 9)
    rotation = np.stack([-mesh[:, 1], mesh[:, 0]], axis=1)
    plotting.plot_field(ax, mesh, rotation, reference=4.0)
    (arrows,) = [c for c in ax.collections if isinstance(c, Quiver)]
    np.testing.assert_allclose(arrows.XY, mesh, atol=1e-6)
    np.testing.assert_allclose(np.stack([arrows.U, arrows.V], 1), rotation, atol=1e-6)
    assert arrows.scale == pytest.approx(4.0 / (0.9 * 0.5))  # a speed of 4 is 0.9 of the distance between two arrows


def test_long_arrows_are_cut_and_dense_meshes_thinned(ax):
    mesh = plotting.plane_mesh(2, 61)
    velocity = np.tile([1.0, 0.0], (61 * 61, 1))
    velocity[::2] *= 50
    plotting.plot_field(ax, mesh, velocity, reference=2.0)
    (arrows,) = [c for c in ax.collections if isinstance(c, Quiver)]
    assert 100 < len(arrows.XY) <= 13**2
    np.testing.assert_allclose(arrows.XY.mean(0), 0, atol=1e-6)  # the thinned arrows stand in the middle
    assert np.hypot(arrows.U, arrows.V).max() == pytest.approx(2.0)


def test_streamlines_follow_the_field(ax):
    mesh = plotting.plane_mesh(2, 21)
    plotting.plot_field(ax, mesh, np.tile([1.0, 0.0], (441, 1)), kind="stream")
    (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    segments = np.array(lines.get_segments())
    assert len(segments) > 50
    assert np.ptp(segments[..., 1], axis=1).max() < 1e-6


def test_a_field_that_stands_still_draws(ax):
    mesh = plotting.plane_mesh(2, 9)
    plotting.plot_field(ax, mesh, np.zeros((81, 2)))
    pixels(ax)
    (arrows,) = [c for c in ax.collections if isinstance(c, Quiver)]
    assert not np.any([arrows.U, arrows.V])
    assert np.isfinite(arrows.scale) and arrows.scale > 0


def test_particles_and_paths_turn_white_over_a_density(ax):
    x = np.random.default_rng(0).standard_normal((20, 2))
    on_card = plotting.plot_particles(ax, torch.from_numpy(x), label="noise")
    np.testing.assert_allclose(on_card.get_offsets(), x)
    assert ax.get_legend_handles_labels()[1] == ["noise"]
    plotting.plot_density(ax, plotting.plane_mesh(3, 5), np.ones(25))
    over = plotting.plot_particles(ax, x)
    assert over.get_facecolor()[0, :3].tolist() == [1, 1, 1] != on_card.get_facecolor()[0, :3].tolist()
    plotting.plot_paths(ax, np.stack([x, x + 1]))
    (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    np.testing.assert_allclose(lines.get_segments()[3], [x[3], x[3] + 1])
    np.testing.assert_allclose(lines.get_colors()[0][:3], to_rgba("white")[:3])
    ends = [c for c in ax.collections if isinstance(c, PathCollection)][-1]
    np.testing.assert_allclose(ends.get_offsets(), x + 1)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda ax, m: plotting.plot_density(ax, m, np.ones(8)),
            r"density: expected one number per point, \(9,\), got \(8,\)",
        ),
        (lambda ax, m: plotting.plot_density(ax, m, -np.ones(9)), "density: expected numbers of at least 0"),
        (lambda ax, m: plotting.plot_density(ax, m, np.ones(9), limit=0), "limit: expected a number above 0, got 0"),
        (lambda ax, m: plotting.plot_density(ax, m[:8], np.ones(8)), r"mesh: expected \(n \* n, 2\), got \(8, 2\)"),
        (
            lambda ax, m: plotting.plot_density(ax, m[::-1], np.ones(9)),
            "mesh: expected a grid with rows from bottom to top",
        ),
        (
            lambda ax, m: plotting.plot_field(ax, m, np.ones((9, 3))),
            r"velocity: expected one vector per point, \(9, 2\), got \(9, 3\)",
        ),
        (lambda ax, m: plotting.plot_field(ax, m, np.full((9, 2), np.nan)), "velocity: expected finite values"),
        (
            lambda ax, m: plotting.plot_field(ax, m, np.ones((9, 2)), kind="dots"),
            "kind: expected one of 'arrows', 'stream', got 'dots'",
        ),
        (
            lambda ax, m: plotting.plot_field(ax, m, np.ones((9, 2)), reference=-1),
            "reference: expected a number above 0, got -1",
        ),
        (
            lambda ax, m: plotting.plot_particles(ax, np.ones((3, 3))),
            r"x: expected particles in the plane, \(N, 2\), got \(3, 3\)",
        ),
        (
            lambda ax, m: plotting.plot_paths(ax, np.ones((3, 2))),
            r"states: expected paths in the plane, \(T, N, 2\), got \(3, 2\)",
        ),
    ],
)
def test_invalid_layers_are_refused(ax, draw, message):
    with pytest.raises(ValueError, match=message):
        draw(ax, plotting.plane_mesh(1, 3))


def test_every_particle_may_have_its_own_colour(ax):
    dots = plotting.plot_particles(ax, np.eye(2), color=["red", (0.0, 0.0, 1.0, 1.0)])
    assert dots.get_facecolor()[:, :3].tolist() == [[1, 0, 0], [0, 0, 1]]
    for wrong in ("reddish", 3j, object()):
        with pytest.raises(ValueError, match="color: expected a colour of matplotlib"):
            plotting.plot_particles(ax, np.eye(2), color=wrong)
