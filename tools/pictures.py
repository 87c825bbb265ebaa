"""Draw the book's logo, and the card shown where the book is linked.

    python tools/pictures.py           writes book/_static/logo.svg and book/_static/card.png

The logo is the exact flow of `05_exact_velocity` in one dimension: six particles from the quantiles of a Gaussian, on
the left, to a data set of two points, on the right. Its ground is dark in both themes. The card shows the last frame
of `book/_static/hero.gif`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fm_core import ExactVelocity, solve, uniform_grid

__all__ = ["ROOT", "card", "logo", "paths"]

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "book" / "_static"
GROUND, INK, QUIET = "#171a21", "#ffffff", "#b8bec9"
UP, DOWN = "#ff9e64", "#6ab7f5"  # paths that end in the upper point, and in the lower
SIDE, LEFT, RIGHT, SCALE = 64, 10, 50, 13.5  # of the logo, in its own units
DATA = 1.35  # the two points are at plus and minus this
TITLE, LINE = "Flow Matching by Doing", "Noise becomes handwriting, one small step at a time."


def paths(count: int = 6, steps: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Times ``(T,)`` and states ``(T, count)`` of particles that flow from a Gaussian to two points."""
    share = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    noise = torch.distributions.Normal(0.0, 1.0).icdf(share)[:, None]
    velocity = ExactVelocity(torch.tensor([[DATA], [-DATA]], dtype=torch.float64), std=0.03)
    flow = solve(velocity, noise, uniform_grid(steps), method="heun", progress=False)
    return flow.t.numpy(), flow.x[..., 0].numpy()


def logo() -> str:
    """The logo as SVG."""
    times, states = paths()
    lines = []
    for path in states.T:
        color = UP if path[-1] > 0 else DOWN
        positions = zip(LEFT + (RIGHT - LEFT) * times[::10], SIDE / 2 - SCALE * path[::10], strict=True)
        lines.append(f'<polyline stroke="{color}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in positions)}"/>')
    ends = "".join(
        f'<circle cx="{RIGHT}" cy="{SIDE / 2 - sign * SCALE * DATA:.1f}" r="6.5" fill="{color}"/>'
        for sign, color in ((1, UP), (-1, DOWN))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}" width="{SIDE}" height="{SIDE}">\n'
        f'<rect width="{SIDE}" height="{SIDE}" rx="13" fill="{GROUND}"/>\n'
        '<g fill="none" stroke-width="3.2" stroke-linecap="round" stroke-linejoin="round">\n'
        + "\n".join(lines)
        + f"\n</g>\n{ends}\n</svg>\n"
    )


def card(film: Path = STATIC / "hero.gif") -> Image.Image:
    """1200 by 630 pixels: logo, title, and the last frame of the first page's film."""
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("agg")
    with Image.open(film) as frames:
        frames.seek(frames.n_frames - 1)
        last = frames.convert("RGB")
    figure = plt.figure(figsize=(12, 6.3), dpi=100, facecolor=GROUND)
    times, states = paths()
    small = figure.add_axes((0.04, 0.72, 0.1, 0.2))
    for path in states.T:
        color = UP if path[-1] > 0 else DOWN
        small.plot(times, path, color=color, linewidth=3.2, solid_capstyle="round")
    small.scatter([1, 1], [DATA, -DATA], s=150, color=[UP, DOWN], zorder=3, clip_on=False)
    small.axis("off")
    figure.text(0.175, 0.845, TITLE, color=INK, fontsize=43, fontweight="bold", va="center")
    figure.text(0.177, 0.745, LINE, color=QUIET, fontsize=21, va="center")
    figure.canvas.draw()
    whole = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    plt.close(figure)
    width = 1120
    shown = last.resize((width, round(last.height * width / last.width)), Image.Resampling.LANCZOS)
    whole.paste(shown, ((whole.width - width) // 2, 210))
    return whole


def main(words: list[str]) -> int:
    if words:
        print(__doc__)
        return 2
    (STATIC / "logo.svg").write_text(logo(), encoding="utf-8")
    card().quantize(128, dither=Image.Dither.NONE).save(STATIC / "card.png", optimize=True)
    for name in ("logo.svg", "card.png"):
        print(f"{name}: {(STATIC / name).stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
