"""Figures of a training run: its curves, and the losses of networks with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from fm_core.plotting import model_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "draw_intervals"]

PANELS = {
    "loss": "training loss",
    "validation_loss": "validation loss",
    "grad_norm": "gradient norm",
    "lr": "learning rate",
    "images_per_second": "images per second",
}
Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]
Interval = tuple[float, float]


def draw_curves(histories: Mapping[str, Curves], batch_size: int) -> Figure:
    """Five panels over images seen, one line for each network.

    Args:
        histories: ``{network: {curve: (steps, values)}}``, as ``load_history`` gives them.
        batch_size: images of a step.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = plt.subplots(2, 3, figsize=(9.0, 5.0), layout="constrained")
    for ax, (curve, title) in zip(axes.flat, PANELS.items(), strict=False):
        for name, history in histories.items():
            step, value = history[curve]
            ax.plot(np.array(step) * batch_size / 1000, value, **model_style(name))
        ax.set(title=title, xlabel="thousands of images seen")
    for ax in axes.flat[:3]:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    axes[1, 2].axis("off")
    axes[1, 2].legend(*axes[0, 0].get_legend_handles_labels(), loc="center")
    return figure


def draw_intervals(
    losses: Mapping[str, Interval], difference: float, halves: Mapping[str, float], label: str
) -> Figure:
    """Losses of networks with intervals on the left; one difference with several intervals on the right.

    Args:
        losses: ``{network: (mean, half width)}``.
        difference: of the two losses.
        halves: ``{how it was computed: half width}`` of the difference.
        label: says which loss is subtracted from which.
    """
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 2.6), sharey=True)
    for y, (name, (value, half)) in enumerate(losses.items()):
        left.errorbar(value, y, xerr=half, fmt="o", capsize=5, color=model_style(name)["color"])
        left.annotate(name, (value, y + 0.2), ha="center")
    for y, (name, half) in enumerate(halves.items()):
        right.errorbar(difference, y, xerr=half, fmt="o", capsize=5, color="#22262B")
        right.annotate(name, (difference, y + 0.2), ha="center")
    right.axvline(0, color="#6A7078", linewidth=1, linestyle=":")
    left.set(title="each network", xlabel="loss", yticks=[], ylim=(-0.6, 1.7))
    right.set(title=label, xlabel="difference of losses")
    return figure
