"""What a film's frames are put together from: the palette, words, and a bank of ready-drawn arrows.

Frames are drawn as palette indices from the start, so there is no colour to reduce when the file is written. Arrows are
not drawn one by one: each direction and length is rasterised once, anti-aliased, and then stamped.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from fm_core.plotting.style import ARROW_COLOR

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

__all__ = [
    "CARD_INDEX",
    "DIM",
    "FULL",
    "GREYS",
    "INK",
    "MARKERS",
    "TRACK",
    "arrow_bank",
    "film_palette",
    "stamp",
    "text",
    "tint",
]

GREYS = 32  # grey levels of the digits: palette entries 0 … 31
_TINTED = 8  # greys that lie under a half covered arrow
_LEVELS = 4  # how much of a pixel an arrow covers: 0, 1/3, 2/3, 1
_FIRST_TINT = GREYS
FULL = _FIRST_TINT + 2 * _TINTED  # the arrows' own colour
CARD_INDEX = FULL + 1
INK = CARD_INDEX + 1  # bright words: three shades from faint to full
DIM = INK + 3  # quiet words: three shades
TRACK = DIM + 3  # the part of the progress bar that is still to come
MARKERS = TRACK + 1  # four colours that mark the rows: Base, Residual, two others

_CARD_RGB = (22, 25, 31)
_INK_RGB = (240, 242, 245)
_DIM_RGB = (150, 158, 170)
_TRACK_RGB = (58, 64, 74)
_MARKER_RGB = ((86, 180, 233), (240, 120, 60), (60, 190, 145), (214, 140, 180))


@functools.cache
def film_palette() -> np.ndarray:
    """The colours of every frame, ``(61, 3)`` bytes: greys, greys under arrows, card, words, bar, markers."""
    arrow = np.array([int(ARROW_COLOR[i : i + 2], 16) for i in (1, 3, 5)], dtype=float)
    card = np.array(_CARD_RGB, dtype=float)
    under = np.linspace(0, 255, _TINTED)[:, None]
    parts = [
        np.repeat(np.linspace(0, 255, GREYS)[:, None], 3, axis=1),
        *[under + (arrow - under) * cover for cover in (1 / 3, 2 / 3)],
        arrow[None],
        card[None],
        *[card + (np.array(rgb) - card) * np.array([[1 / 3], [2 / 3], [1]]) for rgb in (_INK_RGB, _DIM_RGB)],
        np.array([_TRACK_RGB, *_MARKER_RGB], dtype=float),
    ]
    return np.rint(np.concatenate(parts)).astype(np.uint8)


@functools.cache
def tint(strength: float) -> np.ndarray:
    """Palette index for each (arrow cover, grey), flat: entry ``cover * GREYS + grey``, ``(4 * GREYS,)``.

    Args:
        strength: 1 draws arrows in full, 0 not at all; between them they fade.
    """
    grey = np.arange(GREYS)
    under = np.rint(grey * (_TINTED - 1) / (GREYS - 1)).astype(int)
    by_cover = [grey, _FIRST_TINT + under, _FIRST_TINT + _TINTED + under, np.full(GREYS, FULL)]
    faded = np.rint(np.arange(_LEVELS) * strength).astype(int)
    return np.concatenate([by_cover[cover] for cover in faded]).astype(np.uint8)


@functools.cache
def arrow_bank(block: int, directions: int = 64, lengths: int = 16, reach: float = 1.45) -> np.ndarray:
    """Arrows of every direction and length, ``(directions, lengths + 1, 2 block, 2 block)``, cover 0 … 3.

    Direction ``k`` points at the angle ``2 π k / directions``, clockwise on the screen from the right, because y points
    down. Length ``n`` is ``n / lengths`` of the longest; length 0 is empty.

    Args:
        block: side of a block on the screen, in pixels.
        directions: how many angles.
        lengths: how many lengths besides 0.
        reach: the longest arrow, in blocks, below 2.
    """
    size = 2 * block
    middle = block / 2 + block // 2  # a window starts block // 2 before its block
    y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5 - middle
    half = (reach * block / 2) * (np.arange(lengths + 1, dtype=np.float32) / lengths).reshape(-1, 1, 1)
    head = np.minimum(0.42 * block, 1.1 * half)  # short arrows have short heads
    slope = 0.58  # half width of the head over its length
    thick = max(0.7, 0.055 * block)
    bank = np.empty((directions, lengths + 1, size, size), dtype=np.uint8)
    for k, angle in enumerate(np.arange(directions) * (2 * np.pi / directions)):
        along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
        across = np.abs(y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle)))
        shaft = np.maximum(np.abs(along + head / 2) - (half - head / 2), across - thick)
        sides = (across - slope * (half - along)) / np.hypot(1, slope)
        point = np.maximum(sides, (half - head) - along)
        cover = np.clip(0.5 - np.minimum(shaft, point), 0, 1)  # from the distance to the outline, in pixels
        bank[k] = np.rint(cover * (_LEVELS - 1))
    bank[:, 0] = 0
    return bank


def stamp(dx: np.ndarray, dy: np.ndarray, bank: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Put one arrow on every block of a batch of images, ``(N, *shape)``, cover 0 … 3.

    Neighbouring arrows may overlap, so the blocks are stamped in four rounds, every other row and column each time.

    Args:
        dx: ``(N, rows, columns)``, 1 is the longest arrow; longer ones are cut to it, and those below 0.12 left out.
        dy: same shape, down is positive.
        bank: from ``arrow_bank``.
        shape: height and width of the images on the screen.
    """
    directions, lengths, size = bank.shape[0], bank.shape[1] - 1, bank.shape[2]
    block = size // 2
    strength = np.hypot(dx, dy)
    length = np.where(strength < 0.12, 0, np.rint(np.minimum(strength, 1) * lengths)).astype(np.intp)
    direction = np.rint(np.arctan2(dy, dx) * (directions / (2 * np.pi))).astype(np.intp) % directions
    stamps = bank[direction, length]  # (N, rows, columns, size, size)
    canvas = np.zeros((len(dx), shape[0] + 3 * block, shape[1] + 3 * block), dtype=np.uint8)
    for p in (0, 1):
        for q in (0, 1):
            part = stamps[:, p::2, q::2]
            down, right = part.shape[1:3]
            top, left = block - block // 2 + p * block, block - block // 2 + q * block
            window = canvas[:, top : top + down * size, left : left + right * size]
            np.maximum(window, part.transpose(0, 1, 3, 2, 4).reshape(window.shape), out=window)
    return canvas[:, block : block + shape[0], block : block + shape[1]]


def text(words: str, size: int, *, bold: bool = False, shades: int = INK) -> np.ndarray:
    """A line of words as palette indices, ``(height, width)``, on the card's colour; the height depends on size only.

    Args:
        words: one line.
        size: of the type, in pixels.
        bold: heavy type.
        shades: first of three palette entries, ``INK`` or ``DIM``.
    """
    from PIL import Image, ImageDraw

    font = _font(size, bold)
    ascent, descent = font.getmetrics()
    picture = Image.new("L", (max(1, int(np.ceil(font.getlength(words))) + 1), ascent + descent))
    ImageDraw.Draw(picture).text((0, 0), words, fill=255, font=font)
    cover = np.rint(np.asarray(picture) * (3 / 255)).astype(np.uint8)
    return np.array([CARD_INDEX, shades, shades + 1, shades + 2], dtype=np.uint8)[cover]


@functools.cache
def _font(size: int, bold: bool) -> FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"  # shipped with matplotlib
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", size)
