"""Figures of *Two U-Nets*: the network to scale, its blocks, their cost by level, signal and gradient by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fm_book.figures.common import check_texts, check_width
from fm_core._checks import check_count, check_text, described
from fm_core.plotting.style import BLUE, CARD, INK, PALE, PINK, QUIET, VERMILION, draws_figure, model_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from fm_core.models import UNet

__all__ = ["INPUT", "TIME", "cost_by_level", "draw_blocks", "draw_costs", "draw_signal", "draw_unet"]

TIME = "+ W e(t)"
"""Step of a block that adds the projected time embedding."""

INPUT = "+ x"
"""Step of a block that adds the block's own input: the identity path."""

_STEPS = {"conv": PALE["sky"], "Norm": PALE["green"]}  # colour of a step by a word in it
_ARROW = 9.0  # length of an arrow between two maps, in pixels of the drawn image
_PER_CHANNEL = 0.11  # drawn width of one channel, same unit
_ROW = 9.0  # distance between two levels, same unit
_LINES: dict[str, dict[str, Any]] = {
    "block": {"color": INK, "linewidth": 2.4, "linestyle": "-"},
    "conv": {"color": QUIET, "linewidth": 1.2, "linestyle": "-"},
    "pool": {"color": BLUE, "linewidth": 1.8, "linestyle": "-"},
    "up": {"color": VERMILION, "linewidth": 1.8, "linestyle": "-"},
    "skip": {"color": QUIET, "linewidth": 1.3, "linestyle": (0, (4, 3))},
}  # of an operation


@draws_figure
def draw_unet(
    widths: Sequence[int], *, size: int = 28, channels: int = 1, block: str = "block", width: float = 8.0
) -> Figure:
    """Draw the U-Net skeleton with its feature maps to scale.

    A rectangle is a feature map, as high as its side in pixels, as wide as its number of channels. In concatenated
    maps the skip's part has another colour.

    Args:
        widths: channels of each level, from full resolution down; every level halves the side, rounded down.
        size: side of the image, pixels.
        channels: of the image.
        block: name of the block in the legend.
        width: of the figure, inches.

    Raises:
        ValueError: no widths, a width below 1, or an image too small to be halved so often.

    Explained in the chapter *Two U-Nets*.
    """
    import matplotlib.pyplot as plt

    if not isinstance(widths, Sequence) or isinstance(widths, str) or not widths or len(widths) > 16:
        raise ValueError(f"widths: expected the channels of at least one level, got {described(widths)}.")
    widths = tuple(check_count("widths", w, most=10_000) for w in widths)
    size = check_count("size", size, 2 ** (len(widths) - 1), 10_000)  # halved at every level
    channels, width = check_count("channels", channels, most=10_000), check_width(width)
    check_text("block", block)
    figure, ax = plt.subplots(facecolor=CARD, layout="none")
    sides = [size >> level for level in range(len(widths))]
    middles, y = [], 0.0
    for side in sides:
        middles.append(y - side / 2)
        y -= side + _ROW
    right = _encoder(ax, widths, channels, sides, middles)
    x, edges = _decoder(ax, widths, sides, middles, right)
    _arrow(ax, (x, middles[0]), (x + _ARROW, middles[0]), "conv")
    end = _map(ax, x + _ARROW, middles[0], sides[0], channels)
    for left, over, middle in zip(right, edges, middles, strict=False):
        _arrow(ax, (left, middle), (over, middle), "skip")
    for edge, symbol in ((0.0, "x"), (end, "v")):
        ax.text(edge, -sides[0] - 0.8, symbol, ha="center", va="top", size=11, style="italic", color=INK)
    _frame(figure, ax, (-16.0, end + 6.0), (y - 4.0, 6.0), width)
    _legend(ax, block)
    figure.subplots_adjust(0, 0, 1, 1)
    return figure


@draws_figure
def draw_blocks(blocks: Mapping[str, Sequence[str]], *, width: float = 6.4) -> Figure:
    """Draw blocks side by side, each as a column of steps from x to y.

    Args:
        blocks: ``{name: steps}``; a step is a text, :data:`TIME` or :data:`INPUT`.
        width: of the figure, inches.

    Raises:
        ValueError: no blocks, or a block without steps.

    Explained in the chapter *Two U-Nets*.
    """
    import matplotlib.pyplot as plt

    width = check_width(width)
    if blocks != {}:
        check_texts("blocks", blocks)
    for name, steps in blocks.items():
        if steps or not isinstance(steps, Sequence):
            check_texts(f"blocks[{name!r}]", steps, Sequence)
    empty = [name for name, steps in blocks.items() if not steps]
    if not blocks or empty:
        raise ValueError(f"blocks: expected at least one, with at least one step in each, got {dict(blocks)!r}.")
    figure, ax = plt.subplots(facecolor=CARD, layout="none")
    longest = max(len(steps) for steps in blocks.values())
    for column, (name, steps) in enumerate(blocks.items()):
        _block(ax, 6.4 * column, name, steps)
    _frame(figure, ax, (-2.9, 6.4 * len(blocks) - 3.2), (-0.86 * longest - 1.05, 1.5), width)
    figure.subplots_adjust(0, 0, 1, 1)
    return figure


def cost_by_level(model: UNet, size: int = 28) -> dict[str, tuple[int, int]]:
    """Parameters and floating-point operations of each part: ``{"time": (p, f), "level 0": ...}``.

    The middle counts as part of the deepest level, stem and head as part of level 0.

    Args:
        model: on the processor.
        size: side of the image, pixels.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    deepest = len(model.widths) - 1
    parts = {"time": ["embed"]}
    for level in range(deepest):
        k = deepest - 1 - level
        parts[f"level {level}"] = [f"encoder.{level}", f"up.{k}", f"decoder.{k}"]
    parts.setdefault("level 0", []).extend(["stem", "head"])
    parts.setdefault(f"level {deepest}", []).extend([f"encoder.{deepest}", "middle", "after_middle"])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, size, size), 0.5)
    flops = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    costs = {}
    for part, names in parts.items():
        parameters = sum(p.numel() for name in names for p in model.get_submodule(name).parameters())
        costs[part] = parameters, sum(flops.get(f"{type(model).__name__}.{name}", 0) for name in names)
    return costs


@draws_figure
def draw_costs(costs: Mapping[str, Mapping[str, tuple[int, int]]]) -> Figure:
    """Bars of parameters and operations by level.

    Args:
        costs: ``{network: cost_by_level(network)}``, two of them.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
    for ax, what, unit in zip(axes, (0, 1), (1e3, 1e6), strict=True):
        for shift, hatch, (name, cost) in zip((-0.2, 0.2), ("", "//"), costs.items(), strict=True):
            y = [row + shift for row in range(len(cost))]
            look = {"color": model_style(name)["color"], "edgecolor": "w", "label": name.title(), "hatch": hatch}
            ax.barh(y, [c[what] / unit for c in cost.values()], 0.38, **look)
    levels = list(next(iter(costs.values())))
    axes[0].set_yticks(range(len(levels)), levels)
    axes[0].invert_yaxis()
    axes[0].set(xlabel="parameters (thousands)")
    axes[1].set(xlabel="operations per image (millions)")
    axes[0].legend(loc="upper right")
    return figure


@draws_figure
def draw_signal(measured: Mapping[str, Tensor], styles: Sequence[dict[str, Any]], blocks: Sequence[str]) -> Figure:
    """Signal and gradient by block on logarithmic axes: geometric means, bars of one standard deviation over seeds.

    Args:
        measured: ``{network: (seeds, 2, blocks)}``, standard deviation of the output and norm of its gradient.
        styles: of the networks.
        blocks: their names, in the order of the data.
    """
    import matplotlib.pyplot as plt
    import torch

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.3))
    for runs, style in zip(measured.values(), styles, strict=True):
        for ax, values in zip(axes, runs.unbind(dim=1), strict=True):
            log = values.log()
            mean, spread = log.mean(dim=0).exp(), log.std(dim=0).exp()
            bars = torch.stack([mean - mean / spread, mean * spread - mean])
            ax.errorbar(range(len(blocks)), mean, bars, **style, capsize=3, marker="o", markersize=4)
    for ax, label in zip(axes, ("std of the block's output", "norm of ∂loss/∂output"), strict=True):
        ax.set(xlabel="block", ylabel=label, yscale="log")
        ax.set_xticks(range(len(blocks)), blocks, rotation=45, ha="right")
    axes[1].legend(loc="upper center", fontsize=9)
    return figure


def _encoder(ax: Axes, widths: tuple[int, ...], channels: int, sides: list[int], middles: list[float]) -> list[float]:
    """Draw encoder and middle; return the right edge of each level's last map."""
    for level, (side, middle) in enumerate(zip(sides, middles, strict=True)):
        ax.text(-3.5, middle, f"level {level}\n{side}×{side}", ha="right", va="center", size=9, color=QUIET)
    x = _map(ax, 0.0, middles[0], sides[0], channels)
    _arrow(ax, (x, middles[0]), (x + _ARROW, middles[0]), "conv")
    x = _map(ax, x + _ARROW, middles[0], sides[0], widths[0])
    edges = []
    for level, (c_out, side, middle) in enumerate(zip(widths, sides, middles, strict=True)):
        if level:
            centre = x - widths[level - 1] * _PER_CHANNEL / 2
            _arrow(ax, (centre, middles[level - 1] - sides[level - 1] / 2), (centre, middle + side / 2), "pool")
            x = _map(ax, centre - widths[level - 1] * _PER_CHANNEL / 2, middle, side, widths[level - 1], below=True)
        _arrow(ax, (x, middle), (x + _ARROW, middle), "block")
        x = _map(ax, x + _ARROW, middle, side, c_out, below=level == len(widths) - 1)
        edges.append(x)
    _arrow(ax, (x, middles[-1]), (x + _ARROW, middles[-1]), "block")
    return [*edges[:-1], _map(ax, x + _ARROW, middles[-1], sides[-1], widths[-1], below=True)]


def _decoder(
    ax: Axes, widths: tuple[int, ...], sides: list[int], middles: list[float], right: list[float]
) -> tuple[float, list[float]]:
    """Draw the decoder; return the last right edge and, from level 0 down, where each skip ends."""
    x, arrivals = right[-1], []
    for level in range(len(widths) - 2, -1, -1):
        c, deep = widths[level] * _PER_CHANNEL, widths[level + 1] * _PER_CHANNEL
        centre = x - deep / 2  # the map from below stands over the one it was made from
        left = centre - c / 2
        top, bottom = middles[level + 1] + sides[level + 1] / 2, middles[level] - sides[level] / 2
        _arrow(ax, (centre, top), (centre, bottom), "up")
        _map(ax, left - c, middles[level], sides[level], widths[level], color=PALE["orange"], label="")
        x = _map(ax, left, middles[level], sides[level], widths[level], label="")
        words = f"{widths[level]}+{widths[level]}"
        ax.text(left, middles[level] + sides[level] / 2 + 0.8, words, ha="center", va="bottom", size=9, color=INK)
        arrivals.insert(0, left - c)
        _arrow(ax, (x, middles[level]), (x + _ARROW, middles[level]), "block")
        x = _map(ax, x + _ARROW, middles[level], sides[level], widths[level], below=level > 0)
    return x, arrivals


def _map(
    ax: Axes,
    left: float,
    middle: float,
    side: int,
    channels: int,
    *,
    color: str = PALE["blue"],
    label: str | None = None,
    below: bool = False,
) -> float:
    from matplotlib.patches import Rectangle

    across = channels * _PER_CHANNEL
    ax.add_patch(
        Rectangle((left, middle - side / 2), across, side, facecolor=color, edgecolor=INK, linewidth=0.8, zorder=2)
    )
    y, va = (middle - side / 2 - 0.8, "top") if below else (middle + side / 2 + 0.8, "bottom")
    ax.text(left + across / 2, y, str(channels) if label is None else label, ha="center", va=va, size=9, color=INK)
    return left + across


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], kind: str) -> None:
    shape = {"arrowstyle": "-|>", "shrinkA": 2, "shrinkB": 2, "mutation_scale": 10, **_LINES[kind]}
    ax.annotate("", end, start, arrowprops=shape, zorder=3)
    if kind == "block":
        middle = ((start[0] + end[0]) / 2 - 0.6, start[1])
        ax.plot(*middle, "o", color=PINK, markersize=8.5, markeredgecolor=CARD, zorder=4)


def _legend(ax: Axes, block: str) -> None:
    from matplotlib.lines import Line2D

    labels = {"conv": "stem, head", "pool": "max-pooling", "up": "transposed convolution", "skip": "skip connection"}
    dot = {"marker": "o", "markersize": 8.5, "markerfacecolor": PINK, "markeredgecolor": CARD}
    entries = [Line2D([], [], **_LINES["block"], **dot, label=f"{block} with time embedding")]
    entries += [Line2D([], [], **_LINES[kind], label=label) for kind, label in labels.items()]
    ax.legend(
        handles=entries, loc="lower center", ncols=3, fontsize=9, frameon=False, handlelength=2.4, borderaxespad=0.2
    )


def _block(ax: Axes, x: float, name: str, steps: Sequence[str]) -> None:
    from matplotlib.patches import Circle, FancyBboxPatch

    line = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 10}
    ax.text(x, 1.15, name, ha="center", va="center", size=11.5, weight="bold", color=INK)
    ax.text(x, 0.25, "x", ha="center", va="center", size=11, style="italic", color=INK)
    ends = [0.02]  # where the arrow to the next step begins
    for row, step in enumerate(steps):
        y = -0.86 * row - 0.8
        if step in (TIME, INPUT):
            ax.add_patch(Circle((x, y), 0.23, facecolor=CARD, edgecolor=INK, linewidth=1.4, zorder=3))
            ax.text(x, y - 0.02, "+", ha="center", va="center", size=12, color=INK, zorder=4)
            reach = 0.23
        else:
            color = next((c for word, c in _STEPS.items() if word in step), PALE["grey"])
            box = FancyBboxPatch((x - 1.5, y - 0.26), 3.0, 0.52, boxstyle="round,pad=0,rounding_size=0.1")
            box.set(facecolor=color, edgecolor=INK, linewidth=1.0, zorder=3)
            ax.add_patch(box)
            ax.text(x, y - 0.01, step, ha="center", va="center", size=10.5, color=INK, zorder=4)
            reach = 0.26
        if step == TIME:
            ax.annotate("", (x + 0.23, y), (x + 1.65, y), arrowprops={**line, "color": PINK})
            ax.text(x + 1.75, y, "W e(t)", ha="left", va="center", size=10.5, color=INK)
        if step == INPUT:
            side = x - 1.95
            ax.plot([x - 0.18, side, side], [0.25, 0.25, y], color=VERMILION, linewidth=2.2, linestyle="-")
            ax.annotate("", (x - 0.23, y), (side, y), arrowprops={**line, "color": VERMILION, "linewidth": 2.2})
            ax.text(side - 0.15, (0.25 + y) / 2, "identity", rotation=90, ha="right", va="center", size=10.5,
                    color=INK)  # fmt: skip
        ax.annotate("", (x, y + reach), (x, ends[-1]), arrowprops=line)
        ends.append(y - reach)
    ax.annotate("", (x, ends[-1] - 0.35), (x, ends[-1]), arrowprops=line)
    ax.text(x, ends[-1] - 0.55, "y", ha="center", va="center", size=11, style="italic", color=INK)


def _frame(figure: Figure, ax: Axes, x: tuple[float, float], y: tuple[float, float], width: float) -> None:
    ax.set(xlim=x, ylim=y, aspect="equal")
    ax.set_axis_off()
    figure.set_size_inches(width, width * (y[1] - y[0]) / (x[1] - x[0]))
