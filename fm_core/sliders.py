"""Sliders over t: frames that a reader moves, in a notebook and, without a kernel, in a built page.

The browser joins slider, Play button and frames by ``jslink``. A filmstrip of five frames stands in on paper, without
scripts and where no widgets are shown. Works with ipywidgets 8, and with 7.7 (Colab), where the kernel exchanges the
frames. A frame is an ``HTML`` widget with an ``img``: an ``Image`` widget has no alt text and flickers.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fm_core._checks import check_count, check_number, check_text, missing_extra
from fm_core.plotting import (
    VELOCITY_CMAP,
    Frames,
    figure_frames,
    plot_density,
    plot_field,
    plot_particles,
    render_frames,
)
from fm_core.plotting._arrays import ArrayLike, as_array, as_states, as_velocities, part, pick_samples
from fm_core.plotting.style import BLUE

try:
    import ipywidgets
except ImportError as error:
    raise missing_extra("fm_core.sliders", "sliders") from error

if TYPE_CHECKING:
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    from fm_core.solvers import Trajectory

__all__ = [
    "TimeSlider",
    "compare_slider",
    "particles_slider",
    "round_levels",
    "tile_frames",
    "time_slider",
    "trajectory_slider",
]

MAX_BYTES = 1_500_000  # that one slider may add to a page, filmstrip included
TARGET_BYTES = 600_000  # frames that weigh more without loss are compressed with loss
_STRIP = 5  # frames of the filmstrip
_CSS = (
    "<style>@media print{.fm-filmstrip{display:block!important}.fm-time-slider{display:none!important}}</style>"
    "<noscript><style>.fm-filmstrip{display:block!important}</style></noscript>"
)


class TimeSlider(ipywidgets.VBox):
    """A slider over t with a Play button, above the frames; made by :func:`time_slider`.

    Attributes:
        slider: SelectionSlider; its value is t, its index the frame.
        play: Play button, linked to the slider.
        picture: Stack of frames; with ipywidgets 7 one HTML widget.
        pictures: HTML of each frame, an ``img`` with alt text.
        filmstrip: HTML of five frames.
    """

    def __init__(self, pictures: Sequence[str], times: Sequence[float], *, label: str, fps: float, filmstrip: str):
        self.pictures, self.filmstrip = list(pictures), filmstrip
        self.slider = ipywidgets.SelectionSlider(
            options=[(f"t = {word}", t) for word, t in zip(time_words(times), times, strict=True)], index=0,
            description=label, continuous_update=True, style={"description_width": "initial"},
            layout=ipywidgets.Layout(flex="1 1 16rem", width="auto", min_width="0"),
        )  # fmt: skip
        if hasattr(self.slider, "tooltip"):  # ipywidgets 8, which would write "null"
            self.slider.tooltip, self.slider.style.handle_color = "drag, or use the arrow keys", BLUE
        self.play = ipywidgets.Play(
            min=0, max=len(times) - 1, value=0, step=1, interval=round(1000 / fps), show_repeat=False,
            layout=ipywidgets.Layout(width="96px"),
        )  # fmt: skip
        layout = ipywidgets.Layout(width="100%", margin="2px 0 0", overflow="hidden")
        self._links = [ipywidgets.jslink((self.play, "value"), (self.slider, "index"))]
        first = ipywidgets.HTML(pictures[0], layout=layout)
        self.picture: Any
        if hasattr(ipywidgets, "Stack"):
            rest = [ipywidgets.HTML(picture, layout=layout, style=first.style) for picture in pictures[1:]]
            self.picture = ipywidgets.Stack([first, *rest], selected_index=0, layout=layout)
            self._links.append(ipywidgets.jslink((self.slider, "index"), (self.picture, "selected_index")))
        else:  # ipywidgets 7
            self.picture = first
            self.slider.observe(self._exchange, "index")
        row = ipywidgets.Layout(flex_flow="row wrap", align_items="center", width="100%")
        bar = ipywidgets.HBox([self.play, self.slider], layout=row)
        super().__init__([bar, self.picture], layout=ipywidgets.Layout(width="100%"))
        self.add_class("fm-time-slider")

    def close(self) -> None:
        """Close the slider with all of its widgets, layouts and links."""
        found: list[Any] = [self, *self._links]
        for one in found:  # grows while it is read
            found += [value for value in one.trait_values().values() if isinstance(value, ipywidgets.Widget)]
            found += [child for child in getattr(one, "children", ()) if child not in found]
        for one in dict.fromkeys(found[1:]):
            one.close()
        super().close()

    def _exchange(self, change: dict[str, Any]) -> None:
        self.picture.value = self.pictures[change["new"]]

    @property
    def weight(self) -> int:
        """Bytes that the slider adds to a page."""
        return sum(map(len, self.pictures)) + len(self.filmstrip)

    def _ipython_display_(self, **kwargs: Any) -> None:
        from IPython.display import display

        if hasattr(ipywidgets.VBox, "_ipython_display_"):  # ipywidgets 7
            ipywidgets.VBox._ipython_display_(self, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]  # 8 has none
        else:
            display(self._repr_mimebundle_(), raw=True)
        display({"text/html": self.filmstrip, "text/plain": "filmstrip of the slider above"}, raw=True)


def time_slider(
    frames: Frames | ArrayLike,
    times: ArrayLike,
    *,
    alt: str,
    label: str = "time t",
    fps: float = 15,
    width: int | None = None,
    max_bytes: int = MAX_BYTES,
) -> TimeSlider:
    """A slider and a Play button over frames; show it as the last expression of a cell.

    Args:
        frames: ``(T, H, W)`` or ``(T, H, W, 3)`` bytes, or :class:`~fm_core.plotting.Frames`; T >= 2.
        times: ``(T,)``, the t of each frame, strictly rising or falling.
        alt: what is to be seen and how it changes with t; each frame adds its t.
        label: of the slider.
        fps: frames per second while playing, 0.1 to 30.
        width: of the frames on the page, pixels; default: their own.
        max_bytes: limit of the weight in a page.

    Raises:
        ValueError: frames of another type or shape, times that do not fit, no alt text or label, another ``fps``, or
            frames above ``max_bytes``.
    """
    film, t = as_array(frames if not isinstance(frames, Frames) else frames[:], "frames"), as_array(times, "times")
    t = t.astype(float)
    if film.dtype != np.uint8 or film.ndim not in (3, 4) or (film.ndim == 4 and film.shape[3] != 3) or 0 in film.shape:
        raise ValueError(
            f"frames: expected bytes, (T, H, W) or (T, H, W, 3), got {film.dtype}, {film.shape}. Use to_uint8."
        )
    if len(film) < 2 or t.shape != film.shape[:1]:
        raise ValueError(f"times: expected one per frame and at least 2, got {t.shape} for {len(film)} frames.")
    if not (np.isfinite(t).all() and ((np.diff(t) > 0).all() or (np.diff(t) < 0).all())):
        raise ValueError(f"times: expected strictly rising or falling times, got {np.array2string(t, threshold=6)}.")
    for name, text in (("alt", alt), ("label", label)):
        check_text(name, text, "a text for readers who cannot see the frames")
    fps = check_number("fps", fps, least=0.1, most=30)
    max_bytes = check_count("max_bytes", max_bytes)
    shown = film.shape[2] if width is None else check_count("width", width, most=10_000)
    sources = [f"data:image/webp;base64,{base64.b64encode(data).decode()}" for data in encode(film)]
    words = time_words(t)
    size = f'width="{shown}" height="{round(shown * film.shape[1] / film.shape[2])}"'
    pictures = [_image(src, f"{alt} Here t = {word}.", size, shown) for src, word in zip(sources, words, strict=True)]
    strip = _filmstrip(sources, words, alt.strip(), size, shown)
    slider = TimeSlider(pictures, t.tolist(), label=label, fps=fps, filmstrip=strip)
    if slider.weight > max_bytes:
        raise ValueError(
            f"frames: expected at most {max_bytes / 1e6:.2f} MB in a page, got {slider.weight / 1e6:.2f} MB. Give "
            "fewer or smaller frames, or raise max_bytes."
        )
    return slider


def trajectory_slider(
    trajectory: Trajectory,
    *,
    samples: int | Sequence[int] = 4,
    alt: str,
    frames: int = 31,
    factor: int = 4,
    **options: Any,
) -> TimeSlider:
    """States of a flow with their ink arrows, and below each its exact velocity.

    Arrow lengths and colours share one scale over all samples and times.

    Args:
        trajectory: of grey images, with velocities.
        samples: how many of the batch, or their indices.
        alt, options: see :func:`time_slider`.
        frames: snapshots shown, at most.
        factor: side of an arrow's block, pixels.

    Raises:
        ValueError: no velocities, samples outside the batch, and the errors of :func:`time_slider`.

    Explained in the chapter *Seeing the velocity field*.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    (t, x), velocity = as_states(trajectory), as_velocities(trajectory)
    chosen, picked = thin(len(t), frames), pick_samples(samples, x.shape[1])
    film = _snapshot_frames({"": trajectory}, chosen, samples=picked, factor=factor, scale=4)
    height, width = 4 * x.shape[2], 4 * x.shape[3]
    states = np.stack([film[:][:, top : top + height, left : left + width] for top, left in film.tiles[""]], axis=1)
    fields = velocity[chosen][:, picked]
    limit = float(np.percentile(np.abs(fields), 99.5)) or 1.0
    colors = ScalarMappable(Normalize(-limit, limit), VELOCITY_CMAP)
    levels = round_levels(fields, limit, 21)  # an odd number: the middle is white
    colored = np.asarray(colors.cmap(colors.norm(levels), bytes=True))[..., :3]
    rows = {"state and\nink arrows": states, "velocity,\npixel by pixel": colored}
    return time_slider(tile_frames(rows, side=height, colors=colors), t[chosen], alt=alt, **options)


def compare_slider(
    trajectories: Mapping[str, Trajectory],
    *,
    samples: int | Sequence[int] = 5,
    alt: str,
    frames: int = 51,
    arrows: bool = False,
    scale: int = 4,
    **options: Any,
) -> TimeSlider:
    """Flows of several networks below each other, at the same t in every row.

    Args:
        trajectories: ``{label: Trajectory}`` of grey images, one row each, with the same times.
        samples: how many of the batch, or their indices.
        alt, options: see :func:`time_slider`.
        frames: snapshots shown, at most.
        arrows: draw ink arrows over the states.
        scale: pixels of the frame per pixel of the digit.

    Raises:
        ValueError: different times, and the errors of ``render_frames`` and :func:`time_slider`.

    Explained in the chapter *Residual vs. Base*.
    """
    if not isinstance(trajectories, Mapping) or not trajectories:
        raise ValueError("trajectories: expected {label: Trajectory} with at least one row, got none.")
    times = {}
    for label, trajectory in trajectories.items():
        times[label], _ = as_states(trajectory, f"trajectories[{label!r}]")
        if trajectory.velocity is not None:
            as_velocities(trajectory, f"trajectories[{label!r}]")
    t = next(iter(times.values()))
    for label, other in times.items():
        if other.shape != t.shape or not np.allclose(other, t):
            raise ValueError(f"trajectories: expected the same times in all, got others in {label!r}. Use one grid.")
    chosen = thin(len(t), frames)
    film = _snapshot_frames(trajectories, chosen, samples=samples, arrows=arrows, scale=scale)
    return time_slider(film, t[chosen], alt=alt, **options)


def particles_slider(
    trajectory: Trajectory,
    *,
    field: ArrayLike | None = None,
    density: ArrayLike | None = None,
    mesh: ArrayLike | None = None,
    alt: str,
    frames: int = 41,
    particles: int = 400,
    size: float = 6,
    **options: Any,
) -> TimeSlider:
    """Particles in the plane over t, with velocity field and density.

    Arrows share one scale over all times; the colours of the density do not, since its maximum grows many times.

    Args:
        trajectory: ``x`` of shape ``(T, B, 2)``.
        field: velocities on the mesh, ``(T, n * n, 2)``.
        density: on the mesh, ``(T, n * n)``; shown in a panel of its own.
        mesh: ``(n * n, 2)``, see ``plane_mesh``; it sets the limits of the axes.
        alt, options: see :func:`time_slider`.
        frames: times shown, at most.
        particles: drawn, at most; the first of the batch.
        size: area of a dot, square points, at most 10,000.

    Raises:
        ValueError: shapes that do not fit each other, a field or a density without mesh, and the errors of
            :func:`time_slider`, ``plot_field`` and ``plot_density``.

    Explained in the chapter *From noise to data along a flow*.
    """
    from matplotlib import colormaps

    t, x = (as_array(part(trajectory, which, "trajectory"), f"trajectory.{which}") for which in ("t", "x"))
    if x.ndim != 3 or x.shape[2] != 2 or t.shape != x.shape[:1]:
        raise ValueError(f"trajectory: expected x of (T, B, 2) and t of (T,), got {x.shape} and {t.shape}.")
    points = np.empty((0, 2)) if mesh is None else as_array(mesh, "mesh")
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"mesh: expected (n * n, 2), got {points.shape}. Use plane_mesh(limit, n).")
    particles = check_count("particles", particles)
    layers = {name: as_array(a, name) for name, a in (("field", field), ("density", density)) if a is not None}
    if layers and mesh is None:
        raise ValueError(f"mesh: expected that of {' and '.join(layers)}, got None. Use plane_mesh(limit, n).")
    for name, values in layers.items():
        shape = (len(t), len(points), 2)[: 3 if name == "field" else 2]
        if values.shape != shape:
            raise ValueError(f"{name}: expected {shape} with these times and this mesh, got {values.shape}.")
    limit = float(np.abs(points).max()) if len(points) else 1.05 * float(np.percentile(np.abs(x), 99.8))
    chosen, panels, dpi = thin(len(t), frames), 1 + ("density" in layers), 120
    speed = np.hypot(*np.moveaxis(layers["field"][chosen], -1, 0)) if "field" in layers else np.ones(1)
    reference = float(np.percentile(speed, 98)) or 1.0
    cmap = colormaps["cividis"].resampled(14)  # few levels weigh little, and their edges are lines of equal density

    def draw(figure: Figure, k: int) -> None:
        axes = list(figure.subplots(1, panels, squeeze=False)[0])
        for ax in axes:
            ax.set(xlim=(-limit, limit), ylim=(-limit, limit))
        if "density" in layers:
            plot_density(axes[0], points, layers["density"][chosen[k]], cmap=cmap)
            axes[0].set_title("density")
        if "field" in layers:
            plot_field(axes[-1], points, layers["field"][chosen[k]], reference=reference)
        plot_particles(axes[-1], x[chosen[k], :particles], size=size)
        axes[-1].set_title("particles and velocity" if "field" in layers else "particles")

    film = figure_frames(draw, len(chosen), figsize=(6.6, 3.5) if panels == 2 else (3.6, 3.8), dpi=dpi)
    options.setdefault("width", round(film.shape[2] * 110 / dpi))
    return time_slider(film, t[chosen], alt=alt, **options)


def tile_frames(rows: Mapping[str, np.ndarray], *, side: int, colors: ScalarMappable | None = None) -> np.ndarray:
    """Rows of images with their labels on the left, ``(T, H, W, 3)`` bytes; images are enlarged by whole pixels.

    Args:
        rows: ``{label: (T, N, h, w) or (T, N, h, w, 3)}``, bytes.
        side: height of an image in the frame, pixels; a multiple of each h.
        colors: colour map of the last row, drawn as a colour bar beside it.
    """
    dpi, edge, gap, left, right = 100, 8, 8, 112, 92 if colors is not None else 8
    first = next(iter(rows.values()))
    count, across = len(first), first.shape[3] * side // first.shape[2]
    width = left + first.shape[1] * (across + gap) - gap + right
    height = 2 * edge + len(rows) * (side + gap) - gap
    tops = [edge + row * (side + gap) for row in range(len(rows))]

    def label(figure: Figure, _: int) -> None:
        figure.set_layout_engine("none")
        size = 10.5 if any("\n" in text for text in rows) else 12
        for text, top in zip(rows, tops, strict=True):
            figure.text(left / 2 / width, 1 - (top + side / 2) / height, text, ha="center", va="center", fontsize=size)
        if colors is not None:
            box = ((width - right + gap) / width, 1 - (tops[-1] + side) / height, 12 / width, side / height)
            bar = figure.colorbar(colors, cax=figure.add_axes(box))
            bar.set_label("grey levels\nper unit time", fontsize=10)
            bar.ax.tick_params(labelsize=9)
            bar.outline.set_visible(False)

    film = figure_frames(label, 1, figsize=(width / dpi, height / dpi), dpi=dpi).repeat(count, axis=0)
    for images, top in zip(rows.values(), tops, strict=True):
        scale = side // images.shape[2]
        for i, tile in enumerate(images.swapaxes(0, 1)):  # (T, h, w) or (T, h, w, 3)
            tile = (tile if tile.ndim == 4 else tile[..., None]).repeat(scale, axis=1).repeat(scale, axis=2)
            film[:, top : top + side, left + i * (across + gap) : left + i * (across + gap) + across] = tile
    return film


def round_levels(values: np.ndarray, limit: float = 1.0, levels: int = 16) -> np.ndarray:
    """Values clipped to ``[-limit, limit]`` and rounded to so many even levels, which compress well."""
    step = 2 * limit / (levels - 1)
    return np.rint((np.clip(values, -limit, limit) + limit) / step) * step - limit


def thin(count: int, frames: int) -> np.ndarray:
    """At most ``frames`` of ``count`` indices, evenly spaced, first and last among them; ValueError below two."""
    if count < 2:
        raise ValueError(f"trajectory: expected at least 2 snapshots, got {count}. Use solve(..., keep=True).")
    picks = np.arange(0, count, -(-(count - 1) // (check_count("frames", frames, 2) - 1)))
    return picks if picks[-1] == count - 1 else np.append(picks, count - 1)


def time_words(times: ArrayLike) -> list[str]:
    """The times as text, with 2 to 6 decimals, as few as distinguish them."""
    words: list[str] = []
    for decimals in range(2, 7):
        words = [f"{float(t):.{decimals}f}" for t in as_array(times)]
        if len(set(words)) == len(words):
            break
    return words


def encode(film: np.ndarray) -> list[bytes]:
    """Frames as lossless WebP; as lossy WebP where that is smaller and lossless ones exceed ``TARGET_BYTES``."""
    lossless = [_webp(frame, lossless=True) for frame in film]
    if sum(map(len, lossless)) * 4 / 3 <= TARGET_BYTES:  # base64
        return lossless
    return min(lossless, [_webp(frame, quality=65) for frame in film], key=lambda files: sum(map(len, files)))


def _webp(frame: np.ndarray, **options: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame).save(file, "WEBP", method=4, **options)
    return file.getvalue()


def _snapshot_frames(trajectories: Mapping[str, Trajectory], chosen: np.ndarray, **options: Any) -> Frames:
    """One frame for each chosen snapshot, whatever the spacing of the times."""
    rows = {}
    for label, trajectory in trajectories.items():
        parts = {"t": as_array(trajectory.t)[chosen].astype(float), "x": round_levels(as_array(trajectory.x)[chosen])}
        if trajectory.velocity is not None:
            parts["velocity"] = as_array(trajectory.velocity)[chosen]
        rows[label] = replace(trajectory, **parts)
    t = as_array(next(iter(rows.values())).t)
    share = (t - t[0]) / (t[-1] - t[0])
    return render_frames(rows, frames=len(chosen), pacing=lambda _: share, **options)


def _image(source: str, alt: str, size: str, width: int) -> str:
    style = f"display:block;width:100%;max-width:{width}px;height:auto;margin:0;border-radius:6px"
    return f'<img class="dark-light" src="{source}" alt="{html.escape(alt)}" {size} decoding="sync" style="{style}">'


def _filmstrip(sources: Sequence[str], words: Sequence[str], alt: str, size: str, width: int) -> str:
    picks = sorted({int(k) for k in np.linspace(0, len(sources) - 1, _STRIP).round()})
    side = max(120, min(width, 230) if width > 420 else 120)
    images = [_image(sources[k], f"Filmstrip at t = {words[k]}: {alt}", size, width) for k in picks]
    figures = "".join(
        f'<figure style="margin:0">{image}'
        f'<figcaption style="text-align:left;color:inherit">t = {words[k]}</figcaption></figure>'
        for k, image in zip(picks, images, strict=True)
    )
    grid = f"display:grid;grid-template-columns:repeat(auto-fit,minmax({side}px,1fr));gap:8px"
    return f'<div class="fm-filmstrip" style="display:none">{_CSS}<div style="{grid}">{figures}</div></div>'
