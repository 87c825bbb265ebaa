"""Animations of Trajectories: rows are models, columns are samples; written as GIF or MP4.

Frames are composed as palette indices, so nothing is quantised when a GIF is written. The background is dark, which
reads the same on light and on dark pages.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fm_core._checks import check_count, check_number, check_path, check_type, described
from fm_core._files import atomic_file
from fm_core.pacing import MAX_FRAMES, Pacing, frame_indices, paced
from fm_core.plotting._arrays import ArrayLike, as_array, as_states, as_velocities, pick_samples
from fm_core.plotting.images import MAX_INCHES, to_uint8
from fm_core.plotting.style import ARROW_COLOR, CARD, COLORS, FILM_COLORS
from fm_core.plotting.velocity import ink_arrows

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.ImageFont import FreeTypeFont

    from fm_core.solvers import Trajectory

__all__ = ["Frames", "figure_frames", "frame_durations", "render_frames", "render_gif", "save_gif", "save_mp4"]

MAX_HOLD = 600  # seconds
MAX_PIXELS = 10**9  # of an animation, one byte each

_FADE = 0.1  # arrows fade over the last tenth of the time, so that the last frame is the bare sample
_REACH = 1.45  # length of the longest arrow, in blocks
_SUPERSAMPLING = 3  # arrows are drawn larger and averaged

# Palette indices. An arrow covers 0, 1/3, 2/3 or all of a pixel; under a partly covered pixel there are 8 greys.
_GREYS, _UNDER = 32, 8
_ARROW = _GREYS + 2 * _UNDER
_CARD = _ARROW + 1
_BRIGHT = _CARD + 1  # text: three shades from faint to full
_DIM = _BRIGHT + 3
_TRACK = _DIM + 3  # the remaining part of a progress bar
_MARKER = _TRACK + 1  # Base, Residual, two others


@dataclass(frozen=True)
class Frames:
    """An animation in memory; ``frames[i]`` is frame i in RGB, ``np.asarray(frames)`` all of them, ``(F, H, W, 3)``.

    Attributes:
        indices: ``(F, H, W)`` bytes, into the palette.
        palette: ``(K, 3)`` bytes, RGB, at most 63 colours.
        times: ``(rows, F)``, the t that each row shows in each frame.
        tiles: row label → (top, left) of each digit, in pixels of the frame.
        scale: pixels of the frame per pixel of a digit.
    """

    indices: np.ndarray
    palette: np.ndarray
    times: np.ndarray
    tiles: Mapping[str, Sequence[tuple[int, int]]]
    scale: int

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int | slice) -> np.ndarray:
        return self.palette[self.indices[i]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def render_gif(
    path: str | Path,
    trajectories: Mapping[str, Trajectory] | Trajectory,
    *,
    fps: float = 20,
    hold: float = 1.5,
    **options: Any,
) -> Path:
    """Draw trajectories, one row each, and write them as a GIF.

    Args:
        path: file to write; its folder must exist.
        trajectories: ``{label: Trajectory}`` of grey images, or one Trajectory.
        fps, hold: see :func:`save_gif`.
        options: of :func:`render_frames`.

    Returns:
        The path.

    Explained in the chapter *Residual vs. Base*.
    """
    return save_gif(path, render_frames(trajectories, **options), fps=fps, hold=hold)


def render_frames(
    trajectories: Mapping[str, Trajectory] | Trajectory,
    *,
    samples: int | Sequence[int] = 5,
    frames: int = 100,
    pacing: str | Pacing | Mapping[str, str | Pacing] = "linear",
    arrows: bool = True,
    factor: int = 4,
    scale: int = 4,
    interpolate: bool = False,
) -> Frames:
    """Draw the frames of an animation: one row per trajectory, one column per sample.

    Above a row stand its label and NFE, at the right t, below a progress bar. For the arrows see
    :func:`~fm_core.plotting.ink_arrows`; one length scale holds for all rows and frames (the longest is the 98th
    percentile), and they fade over the last tenth of the time.

    Args:
        trajectories: ``{label: Trajectory}`` of grey images with the same first and last t, or one Trajectory. A label
            is one line of at most 100 characters.
        samples: how many of the batch, or their indices; shorter batches show all they have.
        frames: number of frames; all of them together have at most 10⁹ pixels.
        pacing: a name in ``PACINGS`` or a function; or one per label, each row with its own t and bar.
        arrows: draw them; they need the trajectory's velocity.
        factor: side of an arrow's block, pixels of the digit.
        scale: pixels of the frame per pixel of the digit.
        interpolate: show states on the straight line between snapshots; by default the nearest snapshot.

    Raises:
        ValueError: no trajectories, different times or image sizes, samples outside the batch, labels of ``pacing``
            that differ, and the errors of ``paced`` and ``ink_arrows``.

    Explained in the chapter *Seeing the velocity field*.
    """
    if not isinstance(trajectories, Mapping):
        trajectories = {"": trajectories}
    if not trajectories:
        raise ValueError("trajectories: expected at least one label with its Trajectory, got none.")
    for label in trajectories:
        if not isinstance(label, str) or len(label) > 100 or not label.isprintable():
            raise ValueError(
                f"trajectories: expected labels of one line and at most 100 characters, got {described(label)}."
            )
    frames, scale = check_count("frames", frames, most=MAX_FRAMES), check_count("scale", scale, most=100)
    factor = check_count("factor", factor) if arrows else 0
    pacings = pacing if isinstance(pacing, Mapping) else dict.fromkeys(trajectories, pacing)
    if set(pacings) != set(trajectories):
        raise ValueError(f"pacing: expected the labels {sorted(trajectories)}, got {sorted(pacings)}.")
    rows = {
        label: _row(
            trajectory,
            f"trajectories[{label!r}]" if label else "trajectories",
            samples,
            frames,
            pacings[label],
            factor,
            interpolate,
        )
        for label, trajectory in trajectories.items()
    }
    for what, values in (
        ("image size", {label: row.x.shape[2:] for label, row in rows.items()}),
        ("first and last t", {label: row.ends for label, row in rows.items()}),
    ):
        if len(set(values.values())) != 1:
            raise ValueError(f"trajectories: expected the same {what} in every row, got {values}.")
    shared = len({row.t.tobytes() for row in rows.values()}) == 1
    layout = _Layout(rows, scale, one_clock=shared)
    check_count("frames: pixels in all", frames * layout.background.size, most=MAX_PIXELS)
    film = np.broadcast_to(layout.background, (frames, *layout.background.shape)).copy()
    fields = [row.arrows for row in rows.values() if row.arrows is not None]
    lengths = [np.percentile(np.hypot(field[:, 0], field[:, 1]), 98) for field in fields]
    longest = float(max(lengths, default=1.0)) or 1.0
    for number, (label, row) in enumerate(rows.items()):
        greys = np.rint(to_uint8(row.x) * ((_GREYS - 1) / 255)).astype(np.uint8)
        for canvas, k, t, done in zip(film, row.pick, row.t, row.done, strict=True):
            digits = greys[k].repeat(scale, axis=1).repeat(scale, axis=2)
            strength = min(1.0, (1.0 - done) / _FADE)
            if row.arrows is not None and strength > 0:
                cover = _arrow_cover(row.arrows[k] / longest, factor * scale, digits.shape[1:])
                digits = _tint(digits, cover, strength)
            for (top, left), digit in zip(layout.tiles[label], digits, strict=True):
                canvas[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
            layout.show_time(canvas, number, float(t), float(done))
    return Frames(film, _palette(), np.stack([row.t for row in rows.values()]), layout.tiles, scale)


def figure_frames(
    draw: Callable[[Figure, int], Any], count: int, *, figsize: tuple[float, float], dpi: float = 110
) -> np.ndarray:
    """Draw ``count`` matplotlib figures and return their pixels, ``(count, H, W, 3)`` bytes.

    The axes keep the positions of the first frame: nothing jumps, and laying out costs more than drawing.

    Args:
        draw: called as ``draw(figure, k)`` with an empty figure, k = 0, …, count - 1.
        count: number of frames.
        figsize: width and height, inches.
        dpi: pixels per inch.

    Raises:
        ValueError: no frames, or a size that is not positive.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = check_count("count", count, most=MAX_FRAMES)
    check_type("draw", draw, Callable, "a function draw(figure, k)")
    if not isinstance(figsize, Sequence) or isinstance(figsize, str) or len(figsize) != 2:
        raise ValueError(f"figsize: expected width and height in inches, got {described(figsize)}.")
    width, height = (check_number("figsize", side, above=0, most=MAX_INCHES) for side in figsize)
    dpi = check_number("dpi", dpi, least=10, most=2000)
    check_number("dpi: pixels in all", 3 * count * width * height * dpi**2, least=1, most=MAX_PIXELS)
    frames, positions = [], []
    for k in range(count):
        figure = Figure(figsize=figsize, dpi=dpi, facecolor=CARD)
        canvas = FigureCanvasAgg(figure)
        draw(figure, k)
        if k and len(positions) == len(figure.axes):
            figure.set_layout_engine("none")
            for ax, position in zip(figure.axes, positions, strict=True):
                ax.set_position(position, which="original")
        canvas.draw()
        positions = [ax.get_position(original=True) for ax in figure.axes]
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(frames)


def frame_durations(n_frames: int, *, fps: float = 20, hold: float = 1.5) -> list[int]:
    """Milliseconds of each frame in a GIF, multiples of 10: the frames' ends are rounded, errors do not add up.

    Args:
        n_frames: number of frames, at most 100,000.
        fps: frames per second; above 50 counts as 50, since browsers slow down frames shorter than 20 ms.
        hold: seconds that the last frame stays on top of its own time, at most 600.

    Raises:
        ValueError: no frames, a rate that is not positive, or a negative hold.
    """
    step = 100 / min(50.0, check_number("fps", fps, above=0))
    ends = [round(step * k) for k in range(check_count("n_frames", n_frames, most=MAX_FRAMES) + 1)]
    ends[-1] += round(100 * check_number("hold", hold, least=0, most=MAX_HOLD))
    return [min(10 * (end - start), 655_350) for start, end in itertools.pairwise(ends)]


def save_gif(path: str | Path, frames: Frames | ArrayLike, *, fps: float = 20, hold: float = 1.5) -> Path:
    """Write a GIF that loops: one palette for all frames, changed pixels only, no dithering.

    A frame equal to the one before it is stored as a longer duration of that one.

    Args:
        path: file to write; its folder must exist.
        frames: from :func:`render_frames`, or bytes ``(F, H, W)`` or ``(F, H, W, 3)``, quantised to 63 colours.
        fps, hold: see :func:`frame_durations`.

    Returns:
        The path.

    Raises:
        ValueError: frames of another shape or type, and the errors of :func:`frame_durations`.
    """
    from PIL import Image

    path = check_path("path", path)
    indices, palette = (frames.indices, frames.palette) if isinstance(frames, Frames) else _quantised(frames)
    times = frame_durations(len(indices), fps=fps, hold=hold)
    colors, images = palette.tobytes(), [Image.fromarray(frame) for frame in indices]
    for image in images:
        image.putpalette(colors)
    with atomic_file(path) as part:
        images[0].save(
            part, format="GIF", save_all=True, append_images=images[1:], duration=times, loop=0, palette=colors,
            optimize=True, transparency=len(palette), disposal=1, interlace=0,
        )  # fmt: skip
    return Path(path)


def save_mp4(
    path: str | Path, frames: Frames | ArrayLike, *, fps: float = 20, hold: float = 1.5, quality: float = 8
) -> Path:
    """Write an MP4 (H.264); the hold repeats the last frame.

    Args:
        path: file to write; its folder must exist.
        frames: from :func:`render_frames`, or bytes ``(F, H, W)`` or ``(F, H, W, 3)``; an odd side loses its last line.
        fps: frames per second, at most 1,000.
        hold: seconds that the last frame stays on top of its own time, rounded to whole frames, at most 600.
        quality: of imageio's ffmpeg writer, 1 to 10 (best).

    Returns:
        The path.

    Raises:
        ImportError: imageio's ffmpeg is not installed.
        ValueError: frames of another shape or type, a rate that is not positive, a negative hold, or another quality.
    """
    path, fps = check_path("path", path), check_number("fps", fps, above=0, most=1000)
    still = round(check_number("hold", hold, least=0, most=MAX_HOLD) * fps)
    quality = check_number("quality", quality, least=1, most=10)
    film = frames if isinstance(frames, Frames) else _as_rgb(frames)
    try:
        import imageio_ffmpeg  # noqa: F401
        from imageio import v2 as imageio
    except ImportError as error:
        raise ImportError(
            "MP4 needs packages that are not installed: pip install 'imageio[ffmpeg]'. A GIF does not: save_gif."
        ) from error
    get_writer: Any = imageio.get_writer
    coding = {"codec": "libx264", "quality": quality, "pixelformat": "yuv420p", "macro_block_size": 2}
    with atomic_file(path) as part, get_writer(part, format="FFMPEG", fps=fps, **coding) as writer:
        for i in [*range(len(film)), *[len(film) - 1] * still]:
            frame = film[i]
            writer.append_data(np.ascontiguousarray(frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2]))
    return Path(path)


# ---- one row


@dataclass(frozen=True)
class _Row:
    """States (K, N, H, W) and arrows (K, 2, N, rows, columns); for each frame: which state, t, share of the time."""

    x: np.ndarray
    arrows: np.ndarray | None
    nfe: int | None
    pick: np.ndarray
    t: np.ndarray
    done: np.ndarray
    ends: tuple[float, float]


def _row(
    trajectory: Trajectory,
    name: str,
    samples: int | Sequence[int],
    frames: int,
    pacing: str | Pacing,
    factor: int,  # 0: no arrows
    interpolate: bool,
) -> _Row:
    t, x = as_states(trajectory, name)
    chosen = pick_samples(samples, x.shape[1])
    x, t = x[:, chosen], t.astype(np.float64)
    arrows = np.stack(ink_arrows(as_velocities(trajectory, name)[:, chosen], factor)[2:], axis=1) if factor else None
    pick, span = frame_indices(t, frames, pacing), float(t[-1] - t[0])
    time = t[pick]
    done = (time - t[0]) / span if span else np.ones(frames)
    if interpolate and span:
        done = paced(frames, pacing)
        share = (t - t[0]) / span
        right = np.clip(np.searchsorted(share, done), 1, len(t) - 1)
        weight = np.clip((done - share[right - 1]) / (share[right] - share[right - 1]), 0, 1)

        def between(a: np.ndarray) -> np.ndarray:
            w = weight.astype(a.dtype).reshape(-1, *[1] * (a.ndim - 1))
            return (1 - w) * a[right - 1] + w * a[right]

        x, arrows = between(x), None if arrows is None else between(arrows)
        pick, time = np.arange(frames), t[0] + done * span
    return _Row(x, arrows, trajectory.nfe, pick, time, done, (round(float(t[0]), 5), round(float(t[-1]), 5)))


# ---- drawing


def _arrow_cover(arrows: np.ndarray, block: int, shape: tuple[int, ...]) -> np.ndarray:
    """Share of each pixel that an arrow covers, ``(N, *shape)`` bytes.

    Args:
        arrows: ``(2, N, rows, columns)``, y downwards; 1 is the longest, longer ones are cut, below 0.12 omitted.
        block: side of a block, pixels; every block has one arrow at its centre.
        shape: height and width of an image, pixels.
    """
    from PIL import Image, ImageDraw

    edge, s = block // 2, _SUPERSAMPLING  # arrows may leave their image, which has an edge on every side
    high, wide = shape[0] + 2 * edge, shape[1] + 2 * edge
    strength, samples = np.hypot(*arrows), arrows.shape[1]
    n, row, column = np.nonzero(strength >= 0.12)
    length = strength[n, row, column]
    half = np.minimum(length, 1) * (_REACH * block / 2)
    head = np.minimum(0.42 * block, 1.1 * half)
    neck, thick, barb = half - head, np.full_like(half, max(0.7, 0.055 * block)), 0.58 * head
    along = np.stack([-half, neck, neck, half, neck, neck, -half], axis=1)  # (arrows, 7 corners)
    across = np.stack([-thick, -thick, -barb, 0 * half, barb, thick, thick], axis=1)
    cos, sin = ((d[n, row, column] / length)[:, None] for d in arrows)
    x = (column * block + block / 2 + edge)[:, None] + along * cos - across * sin
    y = (n * high + row * block + block / 2 + edge)[:, None] + along * sin + across * cos
    image = Image.new("L", (wide * s, high * samples * s))  # the samples below each other
    polygon = ImageDraw.Draw(image).polygon
    for corners in (np.stack([x, y], axis=2) * s - 0.5).reshape(-1, 14).tolist():
        polygon(corners, fill=255)
    cover = np.asarray(image.reduce(s)).reshape(samples, high, wide)
    return cover[:, edge : edge + shape[0], edge : edge + shape[1]]


def _tint(digits: np.ndarray, cover: np.ndarray, strength: float) -> np.ndarray:
    """Palette indices of grey levels under arrows that are drawn with a strength in [0, 1]."""
    level = np.rint(np.arange(256) * (strength * 3 / 255)).astype(np.uint8)[cover]
    grey = np.arange(_GREYS)
    under = _GREYS + np.rint(grey * ((_UNDER - 1) / (_GREYS - 1))).astype(int)
    table = np.stack([grey, under, under + _UNDER, np.full(_GREYS, _ARROW)]).astype(np.uint8)
    return table.ravel()[level * np.uint8(_GREYS) + digits]


@functools.cache
def _palette() -> np.ndarray:
    """RGB colours of the palette indices, ``(61, 3)`` bytes."""
    rgb = {name: _rgb(color) for name, color in FILM_COLORS.items()}
    under, arrow = np.linspace(0, 255, _UNDER)[:, None], _rgb(ARROW_COLOR)
    shades = np.array([[1], [2], [3]]) / 3
    parts = [
        np.linspace(0, 255, _GREYS)[:, None].repeat(3, axis=1),
        *(under + (arrow - under) * share for share in (1 / 3, 2 / 3)),
        np.stack([arrow, rgb["card"]]),
        *(rgb["card"] + (rgb[name] - rgb["card"]) * shades for name in ("bright", "dim")),
        np.stack([rgb[name] for name in ("track", *COLORS, "third", "fourth")]),
    ]
    return np.rint(np.concatenate(parts)).astype(np.uint8)


def _rgb(color: str) -> np.ndarray:
    return np.array(list(bytes.fromhex(color[1:])), dtype=float)


class _Layout:
    """Positions in a frame, wide enough that no text is cut.

    Attributes:
        background: what never changes, ``(H, W)`` palette indices; both sides even, as H.264 needs them.
        tiles: label → (top, left) of each digit.
    """

    def __init__(self, rows: Mapping[str, _Row], scale: int, *, one_clock: bool) -> None:
        self._size = size = int(np.clip(round(4.2 * scale), 12, 18))  # of the type
        height, width = (scale * side for side in next(iter(rows.values())).x.shape[2:])
        pad, gap, self._bar = max(10, 4 * scale), max(3, 2 * scale), max(3, scale)
        inner = max(row.x.shape[1] for row in rows.values()) * (width + gap) - gap
        clock = _text("t = 0.00", size)
        reserved = 2 * size + clock.shape[1]
        headings = [
            _heading(label, row.nfe, inner - reserved, size, color)
            for (label, row), color in zip(rows.items(), _row_colors(list(rows)), strict=True)
        ]
        outer = max(inner, *(heading.shape[1] + reserved for heading in headings))
        self._left, self._right = pad, pad + outer
        self._clocks: dict[int, int] = {}  # row → top of its clock
        self._bars: dict[int, int] = {}  # row → top of its progress bar
        self.tiles: dict[str, list[tuple[int, int]]] = {}
        lines, y = [], pad * 3 // 4
        for number, (label, row) in enumerate(rows.items()):
            lines.append(y)
            if number == 0 or not one_clock:
                self._clocks[number] = y
            y += clock.shape[0] + max(3, scale)
            start = pad + (outer - inner) // 2
            self.tiles[label] = [(y, start + i * (width + gap)) for i in range(row.x.shape[1])]
            y += height + 2 * gap
            if number == len(rows) - 1 or not one_clock:
                self._bars[number] = y
                y += self._bar + gap
        y, x = y + pad - gap, self._right + pad
        self.background = np.full((y + y % 2, x + x % 2), _CARD, dtype=np.uint8)
        for top, heading in zip(lines, headings, strict=True):
            self.background[top : top + heading.shape[0], pad : pad + heading.shape[1]] = heading
        for top in self._bars.values():
            self.background[top : top + self._bar, pad : self._right] = _TRACK

    def show_time(self, canvas: np.ndarray, number: int, t: float, done: float) -> None:
        """Write t and advance the progress bar on a frame, where this row has them."""
        if number in self._clocks:
            text, top = _text(f"t = {abs(t):.2f}", self._size), self._clocks[number]
            canvas[top : top + text.shape[0], self._right - text.shape[1] : self._right] = text
        if number in self._bars:
            top, end = self._bars[number], self._left + round(done * (self._right - self._left))
            canvas[top : top + self._bar, self._left : end] = _ARROW


def _row_colors(labels: Sequence[str]) -> list[int]:
    """Palette index of each row's marker: the networks' own colours, others in turn."""
    found = [[i for i, key in enumerate(COLORS) if key in label.lower()] for label in labels]
    turns = itertools.cycle([i for i in (2, 3, 0, 1) if [i] not in found] or [0])
    return [_MARKER + (one[0] if len(one) == 1 else next(turns)) for one in found]


def _heading(label: str, nfe: int | None, width: int, size: int, color: int) -> np.ndarray:
    """Marker, label and NFE of a row as palette indices; the NFE is abbreviated if it would exceed ``width``."""
    parts = [_text(label, size, bold=True)]
    if label:
        marker = np.full((parts[0].shape[0], round(0.9 * size)), _CARD, dtype=np.uint8)
        marker[round(0.2 * size) : round(1.05 * size), : max(3, size // 4)] = color
        parts.insert(0, marker)
    if nfe is not None:
        space = np.full((parts[0].shape[0], round(0.8 * size) if label else 0), _CARD, dtype=np.uint8)
        detail = _text(f"{nfe} network evaluations", size, shades=_DIM)
        if sum(part.shape[1] for part in (*parts, space, detail)) > width:
            detail = _text(f"NFE {nfe}", size, shades=_DIM)
        parts += [space, detail]
    return np.concatenate(parts, axis=1)


def _text(words: str, size: int, *, bold: bool = False, shades: int = _BRIGHT) -> np.ndarray:
    """A line of text as palette indices, ``(height, width)``; the height depends on the size only."""
    from PIL import Image, ImageDraw

    font = _font(size, bold)
    ascent, descent = font.getmetrics()
    image = Image.new("L", (max(1, int(np.ceil(font.getlength(words))) + 1), ascent + descent))
    ImageDraw.Draw(image).text((0, 0), words, fill=255, font=font)
    cover = np.rint(np.asarray(image) * (3 / 255)).astype(np.uint8)
    return np.array([_CARD, shades, shades + 1, shades + 2], dtype=np.uint8)[cover]


@functools.cache
def _font(size: int, bold: bool) -> FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"  # shipped with matplotlib
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", size)


# ---- plain arrays


def _as_rgb(frames: ArrayLike) -> np.ndarray:
    film = as_array(frames, "frames")
    if film.dtype != np.uint8 or film.ndim not in (3, 4) or (film.ndim == 4 and film.shape[3] != 3) or film.size == 0:
        raise ValueError(
            f"frames: expected bytes, (F, H, W) or (F, H, W, 3), got {film.dtype}, {film.shape}. Use to_uint8."
        )
    return film if film.ndim == 4 else film[..., None].repeat(3, axis=-1)


def _quantised(frames: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Palette indices ``(F, H, W)`` and one palette ``(K, 3)`` for all frames, K at most 63."""
    from PIL import Image

    film = _as_rgb(frames)
    shown = film[np.unique(np.linspace(0, len(film) - 1, 16).astype(int))]  # the palette is chosen on up to 16 frames
    chosen = Image.fromarray(shown.reshape(-1, *film.shape[2:])).quantize(63, dither=Image.Dither.NONE)
    images = [Image.fromarray(frame).quantize(palette=chosen, dither=Image.Dither.NONE) for frame in film]
    palette = np.array(chosen.getpalette(), dtype=np.uint8).reshape(-1, 3)[:63]
    return np.stack([np.asarray(image) for image in images]), palette
