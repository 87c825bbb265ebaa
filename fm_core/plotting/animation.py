"""Films as files: GIF with exact durations and one palette, MP4 where ffmpeg is at hand.

GIF counts time in hundredths of a second, so a frame rate is met on the average: 30 frames/s become frames of 3, 3 and
4 hundredths. What cannot be met exactly is refused rather than rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fm_core.plotting._arrays import as_array
from fm_core.plotting.frames import Frames, render_frames

__all__ = ["frame_durations", "render_gif", "save_gif", "save_mp4"]


def frame_durations(n_frames: int, *, fps: float = 20, hold: float = 1.5) -> list[int]:
    """Milliseconds of each frame, multiples of 10, whose sum is exactly ``n_frames / fps + hold`` seconds.

    Args:
        n_frames: at least 1.
        fps: frames per second on the average, at most 50: browsers slow down frames shorter than 20 ms.
        hold: seconds that the last frame stays on top of its own time.

    Raises:
        ValueError: a total that is no whole number of hundredths of a second, a frame rate above 50, a negative hold.
    """
    if n_frames < 1 or not 0 < fps <= 50 or not 0 <= hold <= 600:
        raise ValueError(
            f"n_frames={n_frames}, fps={fps}, hold={hold}; a GIF needs at least 1 frame, a rate above 0 and up to 50 "
            "frames/s, and a hold between 0 and 600 seconds."
        )
    moving, still = 100 * n_frames / Fraction(str(fps)), 100 * Fraction(str(hold))  # hundredths of a second
    if moving.denominator != 1:
        raise ValueError(
            f"n_frames={n_frames} at fps={fps} last {float(moving) / 100:.6g} s; a GIF counts hundredths of a second, "
            "and this is not a whole number of them. Any number of frames fits with fps=20, 25 or 50."
        )
    if still.denominator != 1:
        raise ValueError(
            f"hold={hold} s is not a whole number of hundredths of a second, which is what a GIF counts; try "
            f"hold={round(still) / 100:g}."
        )
    ends = [int(moving * k / n_frames) for k in range(n_frames + 1)]
    durations = [10 * (b - a) for a, b in pairwise(ends)]
    durations[-1] += 10 * int(still)
    return durations


def save_gif(
    path: str | Path,
    frames: Frames | Any,
    *,
    fps: float = 20,
    hold: float = 1.5,
    durations: Sequence[int] | None = None,
) -> Path:
    """Write a GIF that loops forever: one palette for all frames, changed pixels only, no dithering.

    A frame equal to the one before it is not stored again; the stored one lasts longer, and the total stays exact.

    Args:
        path: where to write; the folder must exist.
        frames: from ``render_frames``, or bytes ``(F, H, W)`` in grey or ``(F, H, W, 3)`` in colour, which are brought
            to one palette of 63 colours.
        fps: frames per second on the average.
        hold: seconds that the last frame stays on top of its own time.
        durations: milliseconds of each frame, multiples of 10, in place of ``fps`` and ``hold``.

    Returns:
        The path.

    Raises:
        ValueError: durations that a GIF cannot hold, or frames of another shape or type.
    """
    indices, palette = _indexed(frames)
    times = frame_durations(len(indices), fps=fps, hold=hold) if durations is None else list(durations)
    if len(times) != len(indices) or any(ms % 10 or not 20 <= ms <= 655350 for ms in times):
        raise ValueError(
            f"durations={times[:6]}{'…' if len(times) > 6 else ''} for {len(indices)} frames; give one per frame, in "
            "milliseconds, multiples of 10 from 20 to 655350."
        )
    from PIL import Image

    colors = palette.tobytes()
    clear = len(palette)  # the index that leaves a pixel as it was
    pictures = []
    for frame in indices:
        picture = Image.fromarray(frame)
        picture.putpalette(colors)
        pictures.append(picture)
    path = Path(path)
    pictures[0].save(
        path, format="GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0, palette=colors,
        optimize=True, transparency=clear, disposal=1, interlace=0,
    )  # fmt: skip
    return path


def save_mp4(path: str | Path, frames: Frames | Any, *, fps: float = 20, hold: float = 1.5, quality: float = 8) -> Path:
    """Write an MP4 (H.264, as every browser plays it); the hold repeats the last frame.

    Args:
        path: where to write; the folder must exist.
        frames: from ``render_frames``, or bytes ``(F, H, W)`` in grey or ``(F, H, W, 3)`` in colour. An odd height or
            width loses its last line, since H.264 wants even ones.
        fps: frames per second.
        hold: seconds that the last frame stays on top of its own time, rounded to whole frames.
        quality: of imageio's ffmpeg writer, from 0 to 10, the best.

    Returns:
        The path.

    Raises:
        ImportError: imageio's ffmpeg is not installed.
        ValueError: frames of another shape or type, a rate that is not positive, or a negative hold.
    """
    if not fps > 0 or hold < 0:
        raise ValueError(f"fps={fps}, hold={hold}; the rate must be above 0 and the hold not below it.")
    film = frames if isinstance(frames, Frames) else _checked(frames)
    try:
        import imageio_ffmpeg  # noqa: F401
        from imageio import v2 as imageio
    except ImportError as error:
        raise ImportError(
            "MP4 needs imageio's ffmpeg, which is not installed: pip install 'imageio[ffmpeg]'. A GIF needs no more "
            "than Pillow: save_gif."
        ) from error
    path = Path(path)
    still = round(hold * fps)
    with imageio.get_writer(
        path, format="FFMPEG", fps=fps, codec="libx264", quality=quality, pixelformat="yuv420p", macro_block_size=2
    ) as writer:
        for i in [*range(len(film)), *[len(film) - 1] * still]:
            frame = film[i]
            frame = frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=-1)
            writer.append_data(np.ascontiguousarray(frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2]))
    return path


def render_gif(
    path: str | Path, trajectories: Mapping[str, Any] | Any, *, fps: float = 20, hold: float = 1.5, **options: Any
) -> Path:
    """Draw a film of one trajectory or of several, one above the other, and write it as a GIF.

    Args:
        path: where to write; the folder must exist.
        trajectories: ``{label: Trajectory}`` of grey images, or one Trajectory.
        fps: frames per second on the average.
        hold: seconds that the last frame stays on top of its own time.
        options: for ``render_frames``: ``samples``, ``frames``, ``pacing``, ``arrows``, ``factor``, ``scale``,
            ``interpolate``.

    Returns:
        The path.

    Raises:
        ValueError: what ``render_frames`` and ``frame_durations`` refuse.

    Explained in the chapter *Residual vs. Base*.
    """
    film = render_frames(trajectories, **options)
    return save_gif(path, film, fps=fps, hold=hold)


def _checked(frames: Any) -> np.ndarray:
    film = as_array(frames)
    if film.dtype != np.uint8 or film.ndim not in (3, 4) or (film.ndim == 4 and film.shape[3] != 3) or film.size == 0:
        raise ValueError(
            f"frames has shape {film.shape} and type {film.dtype}; bytes are wanted, (F, H, W) in grey or (F, H, W, 3) "
            "in colour. to_uint8 turns pixels in [-1, 1] into bytes."
        )
    return film


def _indexed(frames: Frames | Any) -> tuple[np.ndarray, np.ndarray]:
    """Palette indices ``(F, H, W)`` and one palette ``(K, 3)`` for all frames, K at most 63."""
    if isinstance(frames, Frames):
        return frames.indices, frames.palette
    from PIL import Image

    film = _checked(frames)
    if film.ndim == 3:
        levels = np.rint(np.linspace(0, 255, 63)).astype(np.uint8)
        return np.rint(film * (62 / 255)).astype(np.uint8), np.repeat(levels[:, None], 3, axis=1)
    shown = film[np.unique(np.linspace(0, len(film) - 1, 16).astype(int))]  # the palette is chosen on up to 16 frames
    chosen = Image.fromarray(shown.reshape(-1, *film.shape[2:])).quantize(63, dither=Image.Dither.NONE)
    pictures = [Image.fromarray(frame).quantize(palette=chosen, dither=Image.Dither.NONE) for frame in film]
    palette = np.array(chosen.getpalette(), dtype=np.uint8).reshape(-1, 3)[:63]
    return np.stack([np.asarray(picture) for picture in pictures]), palette
