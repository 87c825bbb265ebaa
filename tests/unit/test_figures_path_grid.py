"""The grid of a conditional path above the marginal one."""

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.quiver import Quiver

from fm_book.figures.path_grid import PathView, draw_path_grid
from fm_core.exact import ExactVelocity
from fm_core.plotting import plane_mesh

MESH, ARROWS = plane_mesh(3.0, 31), plane_mesh(2.5, 9)
DATA = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0]])


def view(points, t=0.5, **changes):
    exact, x_0 = ExactVelocity(points, std=0.2), torch.linspace(-1, 1, 10).reshape(5, 2)
    states = torch.stack([(1 - s) * x_0 + s * points[0] for s in torch.linspace(0, 1, 7)])  # (7, 5, 2)
    parts = {
        "states": states,
        "density": exact.log_density(torch.from_numpy(MESH), t).exp(),
        "velocity": exact(torch.from_numpy(ARROWS), t),
        "data": points,
        "formulas": ("$x_t$", "$p_t$", "$u_t$"),
    }
    return PathView(**(parts | changes))


def test_each_row_shows_samples_density_and_velocity_of_its_own_path():
    rows = {"conditional\none data point": view(DATA[:1]), "marginal": view(DATA)}
    figure = draw_path_grid(rows, mesh=MESH, arrows=ARROWS, t=0.5)
    assert len(figure.axes) == 6
    for line, row, points in ((figure.axes[:3], rows["conditional\none data point"], DATA[:1]),
                              (figure.axes[3:], rows["marginal"], DATA)):  # fmt: skip
        ways = next(c for c in line[0].collections if isinstance(c, LineCollection))
        np.testing.assert_allclose(np.stack(ways.get_segments(), 1), row.states, rtol=1e-6)
        np.testing.assert_allclose(line[1].images[0].get_array().ravel(), row.density, rtol=1e-6)
        quiver = next(c for c in line[2].collections if isinstance(c, Quiver))
        want = row.velocity.numpy().astype(float)
        along = (quiver.U * want[:, 0] + quiver.V * want[:, 1]) / np.hypot(*want.T) / np.hypot(quiver.U, quiver.V)
        np.testing.assert_allclose(along, 1, rtol=1e-6)  # every arrow points where the velocity does
        for ax in line:
            np.testing.assert_allclose(ax.collections[-1].get_offsets(), points)  # the data, marked on top
            np.testing.assert_allclose([*ax.get_xlim(), *ax.get_ylim()], [-3, 3, -3, 3])


def test_it_says_the_moment_the_rows_and_the_formulas():
    figure = draw_path_grid({"marginal\nall data": view(DATA)}, mesh=MESH, arrows=ARROWS, t=0.65)
    assert [ax.get_title(loc="center") for ax in figure.axes] == [
        "trajectories", "density, t = 0.65", "velocity, t = 0.65"
    ]  # fmt: skip
    assert [ax.get_xlabel() for ax in figure.axes] == ["$x_t$", "$p_t$", "$u_t$"]
    assert figure.axes[0].get_ylabel() == "all data"
    assert [text.get_text() for text in figure.axes[0].texts] == ["marginal"]


def test_a_field_that_stands_still_can_be_drawn():
    figure = draw_path_grid({"still": view(DATA, velocity=np.zeros((81, 2)))}, mesh=MESH, arrows=ARROWS, t=0.5)
    figure.draw_without_rendering()
    (quiver,) = (c for c in figure.axes[2].collections if isinstance(c, Quiver))
    assert not np.any([quiver.U, quiver.V])
    assert np.isfinite(quiver.scale) and quiver.scale > 0


def test_errors_say_what_is_wanted():
    with pytest.raises(ValueError, match="rows: expected at least one text"):
        draw_path_grid({}, mesh=MESH, arrows=ARROWS, t=0.5)
    with pytest.raises(ValueError, match=r"t: expected a number at least 0 and at most 1, got 2"):
        draw_path_grid({"a": view(DATA)}, mesh=MESH, arrows=ARROWS, t=2)
    with pytest.raises(ValueError, match="density: expected one number per point"):
        draw_path_grid({"a": view(DATA, density=np.ones(5))}, mesh=MESH, arrows=ARROWS, t=0.5)
