"""Figures of *Integrating the flow*: one look per method, and the stages of one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from fm_core import TABLEAUX, solve
from fm_core.plotting.style import BLUE, GREEN, INK, PINK, QUIET, VERMILION, draws_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from fm_core.solvers import Velocity

__all__ = ["LOOK", "draw_stages"]

LOOK: dict[str, dict[str, Any]] = {
    "euler": {"color": INK, "linestyle": "-", "marker": "o"},
    "midpoint": {"color": GREEN, "linestyle": "-.", "marker": "s"},
    "heun": {"color": PINK, "linestyle": ":", "marker": "^"},
    "rk4": {"color": BLUE, "linestyle": "--", "marker": "D"},
    "dopri5": {"color": "#E69F00", "linestyle": (0, (6, 2)), "marker": "v"},
}
"""Colour, line and marker of each method, the same in all plots."""


@draws_figure
def draw_stages(velocity: Velocity, exact: Tensor, t: float, h: float) -> Figure:
    """One step of each method of ``TABLEAUX``: points and velocities of its stages, its end and its error.

    Args:
        velocity: the field.
        exact: the exact trajectory, ``(T, 2)``, from time t to t + h.
        t, h: start of the step, and its length.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(TABLEAUX), figsize=(9, 2.9), sharex=True, sharey=True)
    for ax, (method, tableau) in zip(axes, TABLEAUX.items(), strict=True):
        seen: list[tuple[Tensor, Tensor]] = []

        def watched(x: Tensor, time: Tensor, seen: list[tuple[Tensor, Tensor]] = seen) -> Tensor:
            seen.append((x[0], velocity(x, time)[0]))
            return velocity(x, time)

        end = solve(watched, exact[:1], [t, t + h], method=method, progress=False).x[-1, 0]
        at, slopes = (torch.stack(part) for part in zip(*seen[: tableau.stages], strict=True))
        ax.plot(*exact.T, color=QUIET, linestyle="-", linewidth=5, alpha=0.5)
        ax.plot(*torch.stack([exact[0], end]).T, color=VERMILION, linestyle="--")
        ax.quiver(*at.T, *slopes.T, color=INK, angles="xy", scale_units="xy", scale=3.5, width=0.012, zorder=3)
        ax.plot(*at.T, "o", color=INK, markersize=5)
        ax.plot(*end, "o", color=VERMILION, markersize=8)
        ax.set_title(f"{method}, error {(end - exact[-1]).norm():.2f}", loc="center", size=11)
        ax.set(xticks=[], yticks=[], aspect="equal")
        ax.spines[:].set_visible(False)
    axes[0].margins(0.2)
    return figure
