"""One look for every figure: colours, colour maps and matplotlib's settings.

Figures stand on an opaque near-white card, so that they read the same on a light and on a dark page. The two networks
differ in colour and in line style, and the colours (Okabe and Ito's) stay apart for colour-blind eyes.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ARROW_COLOR",
    "CARD",
    "COLORS",
    "DIGIT_CMAP",
    "INK",
    "LINE_STYLES",
    "VELOCITY_CMAP",
    "model_style",
    "use_style",
]

COLORS: dict[str, str] = {"base": "#0072B2", "residual": "#D55E00"}
"""Colour of each network in line plots."""

LINE_STYLES: dict[str, str] = {"base": "-", "residual": "--"}
"""Line style of each network, so that colour is never the only difference."""

CARD = "#FBFBF8"
"""Background of every figure."""

INK = "#22262B"
"""Text, axes and neutral lines."""

ARROW_COLOR = "#FF9E1B"
"""Arrows over a digit: bright on black, still seen on white ink."""

DIGIT_CMAP = "gray"
"""Colour map of digits: -1 is black, 1 is white."""

VELOCITY_CMAP = "RdBu_r"
"""Colour map of signed velocity, centred at 0: red where ink arrives, blue where it leaves."""

_OTHERS = ["#009E73", "#CC79A7", "#56B4E9", "#E69F00"]
_OTHER_STYLES = ["-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2))]


def use_style() -> None:
    """Set matplotlib's defaults for the book: near-white card, line width 2, readable type, quiet axes.

    Line colours and line styles change together, first Base's, then Residual's.
    """
    import matplotlib
    from cycler import cycler

    colors = [*COLORS.values(), *_OTHERS]
    styles = [*LINE_STYLES.values(), *_OTHER_STYLES]
    matplotlib.rcParams.update(
        {
            "axes.axisbelow": True,
            "axes.edgecolor": "#6A7078",
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
            "grid.color": "#DFE1E0",
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


def model_style(name: str) -> dict[str, Any]:
    """Keyword arguments for ``ax.plot`` that draw a network the same way in every chapter.

    Args:
        name: ``"base"`` or ``"residual"``, or a longer label that holds one of the two, such as ``"Residual U-Net"``.

    Raises:
        ValueError: a name that holds neither or both.
    """
    found = [key for key in COLORS if key in name.lower()]
    if len(found) != 1:
        raise ValueError(f"name={name!r} must hold exactly one of {', '.join(COLORS)}.")
    return {"color": COLORS[found[0]], "linestyle": LINE_STYLES[found[0]], "label": name}
