"""Colours, colour maps and matplotlib settings of every figure.

Figures have an opaque near-white background, readable on light and on dark pages. Colours are those of Okabe and Ito;
networks differ in colour and in line style.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

from fm_core._checks import check_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "ARROW_COLOR",
    "BLUE",
    "CARD",
    "COLORS",
    "DIGIT_CMAP",
    "FILM_COLORS",
    "GREEN",
    "INK",
    "LINE_STYLES",
    "PALE",
    "PINK",
    "QUIET",
    "VELOCITY_CMAP",
    "VERMILION",
    "draws_figure",
    "model_style",
    "use_style",
]

BLUE, VERMILION, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"

COLORS: dict[str, str] = {"base": BLUE, "residual": VERMILION}
"""Colour of each network in line plots."""

LINE_STYLES: dict[str, str] = {"base": "-", "residual": "--"}
"""Line style of each network."""

CARD, INK, QUIET = "#FBFBF8", "#22262B", "#626972"
"""Background of every figure; text, axes and neutral lines; secondary text and lines."""

PALE: dict[str, str] = {
    "grey": "#DFE1E0", "blue": "#9CC3DE", "sky": "#CFE3F1", "green": "#CDEBDD", "orange": "#F3CFA6"
}  # fmt: skip
"""Fills and grid lines under dark text."""

ARROW_COLOR = "#FF9E1B"
"""Arrows over a digit."""

DIGIT_CMAP = "gray"
"""Colour map of digits: -1 is black, 1 is white."""

VELOCITY_CMAP = "RdBu_r"
"""Colour map of signed velocity, centred at 0: red where ink arrives, blue where it leaves."""

FILM_COLORS: dict[str, str] = {
    "card": "#16191F", "bright": "#F0F2F5", "dim": "#969EAA", "track": "#3A404A",
    "base": "#56B4E9", "residual": "#F0783C", "third": "#3CBE91", "fourth": "#D68CB4",
}  # fmt: skip
"""Colours of an animation, which has a dark background."""


P = ParamSpec("P")


def draws_figure(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """For functions that make a figure: pyplot keeps none of a call that fails, and outside notebooks none at all.

    In a notebook pyplot keeps the figure until the cell has ended, when it is shown and closed. Elsewhere it lives as
    long as the caller holds it; ``figure.savefig`` writes it.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib.pyplot as plt

        before, keep = set(plt.get_fignums()), any(word in plt.get_backend() for word in ("inline", "ipympl", "nbagg"))
        try:
            return function(*args, **kwargs)
        except BaseException:
            keep = False
            raise
        finally:
            for number in set() if keep else set(plt.get_fignums()) - before:
                plt.close(number)

    return wrapper


def use_style() -> None:
    """Set matplotlib's defaults for the book; line colours and line styles cycle together, first Base's.

    In a notebook, figures are also drawn for screens of twice the usual resolution.
    """
    import matplotlib
    from cycler import cycler

    colors = [*COLORS.values(), GREEN, PINK, "#56B4E9", "#E69F00"]
    styles = [*LINE_STYLES.values(), "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2))]
    matplotlib.rcParams.update(
        {
            "axes.axisbelow": True,
            "axes.edgecolor": QUIET,
            "axes.facecolor": CARD,
            "axes.grid": True,
            "axes.labelcolor": INK,
            "axes.labelsize": 12,
            "axes.prop_cycle": cycler(color=colors, linestyle=styles),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 12,
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.facecolor": CARD,
            "figure.figsize": (6.4, 3.6),
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 11,
            "grid.color": PALE["grey"],
            "grid.linewidth": 0.8,
            "image.cmap": DIGIT_CMAP,
            "image.interpolation": "nearest",
            "legend.facecolor": CARD,
            "legend.fontsize": 11,
            "legend.framealpha": 0.9,
            "lines.linewidth": 2,
            "lines.markersize": 6,
            "savefig.dpi": 150,
            "savefig.facecolor": CARD,
            "savefig.transparent": False,
            "svg.hashsalt": "fm_core",
            "text.color": INK,
            "xtick.color": INK,
            "xtick.labelsize": 10.5,
            "ytick.color": INK,
            "ytick.labelsize": 10.5,
        }
    )
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and hasattr(shell, "kernel"):
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")


def model_style(name: str) -> dict[str, Any]:
    """Keyword arguments for ``ax.plot`` that draw a network the same way in every chapter.

    Args:
        name: ``"base"`` or ``"residual"``, or a longer label that holds one of the two, such as ``"Residual U-Net"``.

    Raises:
        ValueError: a name that holds neither or both.
    """
    found = [key for key in COLORS if key in check_text("name", name).lower()]
    if len(found) != 1:
        raise ValueError(f"name: expected a label that holds one of {', '.join(COLORS)}, got {name!r}.")
    return {"color": COLORS[found[0]], "linestyle": LINE_STYLES[found[0]], "label": name}
