"""Figures of a velocity field on images: known answers, two networks side by side, speed and straightness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fm_core.plotting import ink_arrows, model_style, plot_state, plot_velocity

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from fm_core import Trajectory

__all__ = ["draw_beside", "draw_known", "draw_speeds"]

UNIT = "grey levels\nper unit time"


def draw_known(state: np.ndarray, fields: Mapping[str, np.ndarray], limit: float = 2.0) -> Figure:
    """One state with the arrows of several fields above, the fields below; one scale for all.

    Args:
        state: ``(H, W)``, pixels in [-1, 1].
        fields: ``{title: (H, W)}``, grey levels per unit time.
        limit: end of the colour scale.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(fields), figsize=(7, 4.6), layout="compressed")
    reference = max(float(np.hypot(*ink_arrows(field)[2:]).max()) for field in fields.values())
    for (name, field), above, below in zip(fields.items(), axes[0], axes[1], strict=True):
        plot_state(above, state, field, reference=reference)
        plot_velocity(below, field, limit=limit, colorbar=False)
        above.set_title(name, loc="center")
    figure.colorbar(axes[1, -1].images[0], ax=list(axes[1]), label=UNIT)
    return figure


def draw_beside(flows: Mapping[str, Trajectory], index: int, times: Sequence[float]) -> Figure:
    """States and velocities of two networks from the same noise, and the difference of their velocities.

    Args:
        flows: ``{network: trajectory}``, two of them with the same times.
        index: which sample.
        times: times to show; each is replaced by the nearest one of the trajectory.

    Raises:
        ValueError: a trajectory without velocities.
    """
    import matplotlib.pyplot as plt

    t = next(iter(flows.values())).t
    chosen = [int((t - time).abs().argmin()) for time in times]
    fields = {name: _velocity(name, path)[chosen, index, 0].numpy() for name, path in flows.items()}
    limit = max(float(np.abs(field).max()) for field in fields.values())
    reference = max(float(np.hypot(*ink_arrows(field)[2:]).max()) for field in fields.values())
    figure, axes = plt.subplots(5, len(chosen), figsize=(8, 8), layout="compressed")
    for row, (name, path) in enumerate(flows.items()):
        for column, k in enumerate(chosen):
            plot_state(axes[2 * row, column], path.x[k, index], fields[name][column], reference=reference)
            plot_velocity(axes[2 * row + 1, column], fields[name][column], limit=limit, colorbar=False)
        axes[2 * row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
        axes[2 * row + 1, 0].set_ylabel("velocity", rotation=0, ha="right", va="center")
    first, second = fields.values()
    for column, k in enumerate(chosen):
        plot_velocity(axes[4, column], second[column] - first[column], limit=limit, colorbar=False)
        axes[0, column].set_title(f"t = {t[k]:.2f}", loc="center")
    axes[4, 0].set_ylabel("difference of\nvelocities", rotation=0, ha="right", va="center")
    figure.colorbar(axes[4, 0].images[0], ax=axes, fraction=0.03, label=UNIT.replace("\n", " "))
    return figure


def draw_speeds(t: Tensor, speeds: Mapping[str, Tensor], bends: Mapping[str, Tensor]) -> Figure:
    """Speed and distance from a straight line over time; bars are one standard deviation across samples.

    Args:
        t: ``(T,)``.
        speeds, bends: ``{network: (T, B)}``.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for ax, curves in zip(axes, (speeds, bends), strict=True):
        for first, (name, curve) in enumerate(curves.items()):
            every = slice(2 * first, None, max(1, len(t) // 10))  # bars side by side
            style = model_style(name)
            ax.plot(t, curve.mean(1), **style)
            ax.errorbar(
                t[every], curve.mean(1)[every], curve.std(1)[every],
                fmt="none", capsize=3, ecolor=style["color"], elinewidth=1.2,
            )  # fmt: skip
        ax.set(xlabel="time t", ylim=(0, None))
    axes[0].set_ylabel("speed (grey levels\nper unit time, rms)")
    axes[1].set_ylabel("squared distance from\na straight line (share)")
    axes[0].legend(loc="lower center")
    return figure


def _velocity(name: str, path: Trajectory) -> Tensor:
    if path.velocity is None:
        raise ValueError(
            f"flows[{name!r}]: expected a trajectory with velocities, got velocity=None. Make it with solve(...)."
        )
    return path.velocity
