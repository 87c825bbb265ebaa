"""A slider over t, made of parts that need no Python once they are drawn.

The slider, its Play button and a Stack of pictures are joined by ``jslink``: the browser itself turns a position into a
picture. So one and the same object moves in a notebook with a kernel and in the built page without one. Where scripts
are off, on paper, and where a page shows no widgets, a filmstrip of five frames stands in for it.

Each picture is an ``HTML`` widget with an ``img`` in it, not an ``Image`` widget: ``Image`` has no alt text, and it
fetches its bytes only after it was put into the page, so that the picture would flicker and the page would jump. The
slider is a ``SelectionSlider``, because its readout can say "t = 0.35" where an ``IntSlider`` could only count frames.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np

__all__ = ["HEAVIEST", "LIGHT", "TimeSlider", "encode", "time_slider"]

HEAVIEST = 1_500_000
"""Bytes that one slider may add to a page, filmstrip included."""

LIGHT = 600_000
"""Bytes that a slider aims at; frames lose quality, within reason, to get there."""

_WAYS = ("lossless", "palette", 80, 65, 50)  # numbers are qualities of a lossy WebP
_SAME = 0.8  # mean distance from the original, in steps of 255, that the eye does not see in a flat plot
_HANDLE = "#0072B2"
_STRIP = 5  # frames of the filmstrip
_CSS = (
    "<style>@media print{.fm-filmstrip{display:block!important}.fm-time-slider{display:none!important}}</style>"
    "<noscript><style>.fm-filmstrip{display:block!important}</style></noscript>"
)


class TimeSlider(ipywidgets.VBox):
    """A slider over t with a Play button above the picture that they move; made by :func:`time_slider`.

    Attributes:
        slider: the SelectionSlider; its value is t, its index the frame.
        play: the Play button, joined to the slider.
        picture: the Stack of pictures, or with ipywidgets 7 the one picture that the kernel exchanges.
        pictures: the content of each frame, an ``img`` with its alt text.
        filmstrip: HTML of five frames, for where the slider cannot move.
    """

    def __init__(self, pictures: Sequence[str], times: Sequence[float], *, label: str, fps: float, filmstrip: str):
        self.pictures, self.filmstrip = list(pictures), filmstrip
        readouts = [f"t = {word}" for word in time_words(times)]
        wide = ipywidgets.Layout(flex="1 1 16rem", width="auto", min_width="0")
        self.slider = ipywidgets.SelectionSlider(
            options=list(zip(readouts, map(float, times), strict=True)), index=0, description=label,
            continuous_update=True, layout=wide, style={"description_width": "initial"},
        )  # fmt: skip
        if hasattr(self.slider, "tooltip"):  # ipywidgets 8, which would write "null"
            self.slider.tooltip, self.slider.style.handle_color = "drag, or use the arrow keys", _HANDLE
        self.play = ipywidgets.Play(
            min=0,
            max=len(times) - 1,
            value=0,
            step=1,
            interval=round(1000 / fps),
            show_repeat=False,
            layout=ipywidgets.Layout(width="96px"),
        )
        layout = ipywidgets.Layout(width="100%", margin="2px 0 0", overflow="hidden")
        if hasattr(ipywidgets, "Stack"):
            first = ipywidgets.HTML(pictures[0], layout=layout)  # the others share its style: fewer models, less weight
            rest = [ipywidgets.HTML(picture, layout=layout, style=first.style) for picture in pictures[1:]]
            self.picture = ipywidgets.Stack([first, *rest], selected_index=0, layout=layout)
            self._links = [ipywidgets.jslink((self.slider, "index"), (self.picture, "selected_index"))]
        else:  # ipywidgets 7, as on Colab: the kernel exchanges the picture
            self.picture = ipywidgets.HTML(pictures[0], layout=layout)
            self.slider.observe(self._exchange, "index")
            self._links = []
        self._links.append(ipywidgets.jslink((self.play, "value"), (self.slider, "index")))
        row = ipywidgets.HBox(
            [self.play, self.slider], layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center", width="100%")
        )
        super().__init__([row, self.picture], layout=ipywidgets.Layout(width="100%"))
        self.add_class("fm-time-slider")

    def _exchange(self, change: dict[str, Any]) -> None:
        self.picture.value = self.pictures[change["new"]]

    @property
    def weight(self) -> int:
        """Bytes that the slider adds to a page: its pictures and its filmstrip."""
        return sum(map(len, self.pictures)) + len(self.filmstrip)

    def _ipython_display_(self, **kwargs: Any) -> None:
        from IPython.display import display

        if hasattr(ipywidgets.VBox, "_ipython_display_"):  # ipywidgets 7
            super()._ipython_display_(**kwargs)
        else:
            display(self._repr_mimebundle_(), raw=True)
        display({"text/html": self.filmstrip, "text/plain": "filmstrip of the slider above"}, raw=True)


def time_slider(
    frames: Any,
    times: Any,
    *,
    alt: str,
    label: str = "time t",
    fps: float = 15,
    width: int | None = None,
    heaviest: int = HEAVIEST,
) -> TimeSlider:
    """A slider and a Play button that move a picture through time; show it as the last expression of a cell.

    Drag the handle, or give it the focus and use the arrow keys, Page Up and Page Down, Home and End. In a built page
    it moves without a kernel.

    Args:
        frames: ``(T, H, W)`` grey or ``(T, H, W, 3)`` colour bytes, or ``Frames`` of ``fm_core.plotting``; at least 2.
        times: ``(T,)``, the t of each frame, strictly rising or falling.
        alt: says what is to be seen, how it changes with t included; each frame adds its own t.
        label: of the slider, with the unit if there is one.
        fps: frames per second while playing, up to 30.
        width: of the picture on the page, in pixels; by default the frames' own. Fewer than that make it crisper on
            fine screens.
        heaviest: bytes allowed in a page.

    Raises:
        ValueError: frames that are not bytes or fewer than two, times that do not match them or do not rise or fall,
            no alt text or label, frames per second outside (0, 30], frames heavier than allowed.
    """
    film, t = _checked_frames(frames), _checked_times(times)
    if len(film) != len(t):
        raise ValueError(f"frames has {len(film)} frames and times {len(t)} times; each frame needs its t.")
    for name, words in (("alt", alt), ("label", label)):
        if not isinstance(words, str) or not words.strip():
            raise ValueError(f"{name}={words!r}; a slider needs words here, for readers who cannot see the picture.")
    if not 0 < fps <= 30:
        raise ValueError(f"fps={fps}; a browser plays up to 30 frames per second, and 15 are smooth.")
    shown = film.shape[2] if width is None else int(width)
    if shown < 1:
        raise ValueError(f"width={width}; it is the width of the picture on the page, in pixels.")
    sources = [f"data:image/webp;base64,{base64.b64encode(data).decode()}" for data in encode(film)]
    words = time_words(t)
    size = f'width="{shown}" height="{round(shown * film.shape[1] / film.shape[2])}"'
    pictures = [
        _image(source, f"{alt} Here t = {word}.", size, shown) for source, word in zip(sources, words, strict=True)
    ]
    strip = _filmstrip(sources, words, alt.strip(), size, shown)
    slider = TimeSlider(pictures, t, label=label, fps=fps, filmstrip=strip)
    if slider.weight > heaviest:
        raise ValueError(
            f"frames weigh {slider.weight / 1e6:.2f} MB in a page, and {heaviest / 1e6:.2f} MB are allowed; give fewer "
            "or smaller frames, or raise heaviest."
        )
    return slider


def time_words(times: Any) -> list[str]:
    """The times as text, with as few decimals, at least two, as tell all of them apart."""
    for decimals in range(2, 7):
        words = [f"{float(t):.{decimals}f}" for t in times]
        if len(set(words)) == len(words):
            break
    return words


def encode(film: np.ndarray) -> list[bytes]:
    """Each frame as WebP, in the best way that keeps a page light.

    In this order: without loss, where that is not much heavier than with; without loss but in 48 colours, where these
    are enough, as for flat plots; with loss, which suits soft shades. Weights are estimated on three frames. All frames
    are then written in the same way, so that the film does not change its grain.
    """
    picks = film[[0, len(film) // 2, -1]]
    palette = _palette(picks)
    trial = {way: [_webp(frame, way, palette) for frame in picks] for way in _WAYS}
    weights = {way: sum(map(len, files)) / 3 * len(film) * 4 / 3 for way, files in trial.items()}
    reduced = np.stack([_reduced(frame, palette) for frame in picks])
    fair = {"lossless": weights["lossless"] <= 1.2 * weights[80], "palette": _apart(reduced, picks) <= _SAME}
    ways = [way for way in _WAYS if fair.get(way, True)]
    way = next((way for way in ways if weights[way] <= LIGHT), min(ways, key=weights.__getitem__))
    return [_webp(frame, way, palette) for frame in film]


def _webp(frame: np.ndarray, way: str | int, palette: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    pixels = _reduced(frame, palette) if way == "palette" else frame
    quality = {"quality": way} if isinstance(way, int) else {"lossless": True}
    Image.fromarray(pixels).save(file, "WEBP", method=4, **quality)
    return file.getvalue()


def _palette(frames: np.ndarray) -> Any:
    """An image whose palette holds 48 colours that fit the frames; of two ways to choose them, the closer one."""
    from PIL import Image

    wide = Image.fromarray(frames.reshape(-1, *frames.shape[2:])).convert("RGB")
    ways = [wide.quantize(48, method, dither=Image.Dither.NONE) for method in Image.Quantize if method <= 1]
    return min(ways, key=lambda palette: _apart(np.stack([_reduced(frame, palette) for frame in frames]), frames))


def _reduced(frame: np.ndarray, palette: Any) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(frame).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    return np.asarray(image.convert("RGB"))


def _apart(one: np.ndarray, two: np.ndarray) -> float:
    """Mean distance of two films, in steps of 255."""
    two = two if two.ndim == one.ndim else two[..., None]
    return float(np.abs(one.astype(int) - two).mean())


def _image(source: str, alt: str, size: str, width: int) -> str:
    style = f"display:block;width:100%;max-width:{width}px;height:auto;margin:0;border-radius:6px"
    return f'<img class="dark-light" src="{source}" alt="{html.escape(alt)}" {size} decoding="sync" style="{style}">'


def _filmstrip(sources: Sequence[str], words: Sequence[str], alt: str, size: str, width: int) -> str:
    picks = sorted({round(k) for k in np.linspace(0, len(sources) - 1, _STRIP)})
    side = max(120, min(width, 230) if width > 420 else 120)
    figures = "".join(
        f'<figure style="margin:0">{_image(sources[k], f"Filmstrip at t = {words[k]}: {alt}", size, width)}'
        f'<figcaption style="text-align:left;color:inherit">t = {words[k]}</figcaption></figure>'
        for k in picks
    )
    grid = f"display:grid;grid-template-columns:repeat(auto-fit,minmax({side}px,1fr));gap:8px"
    return f'<div class="fm-filmstrip" style="display:none">{_CSS}<div style="{grid}">{figures}</div></div>'


def _checked_frames(frames: Any) -> np.ndarray:
    film = np.asarray(frames)
    if film.dtype != np.uint8 or film.ndim not in (3, 4) or (film.ndim == 4 and film.shape[3] != 3):
        raise ValueError(
            f"frames has shape {film.shape} and dtype {film.dtype}; bytes of shape (T, H, W) or (T, H, W, 3) are "
            "wanted. fm_core.plotting.to_uint8 turns pixels in [-1, 1] into bytes."
        )
    if len(film) < 2 or 0 in film.shape:
        raise ValueError(f"frames has shape {film.shape}; a slider needs at least 2 frames that are not empty.")
    return film


def _checked_times(times: Any) -> np.ndarray:
    t = np.asarray(times.detach().cpu() if hasattr(times, "detach") else times, dtype=float)
    steps = np.diff(t) if t.ndim == 1 else np.zeros(1)
    if not (np.isfinite(t).all() and ((steps > 0).all() or (steps < 0).all())):
        raise ValueError(
            f"times={np.array2string(t, threshold=6)}; one row of strictly rising or falling times is wanted."
        )
    return t
