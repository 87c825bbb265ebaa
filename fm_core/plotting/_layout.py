"""Where everything stands in a film's frame: labels, digits, the clock that shows t, the progress bar."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from fm_core.plotting._drawing import CARD_INDEX, DIM, FULL, INK, MARKERS, TRACK, text
from fm_core.plotting.style import COLORS

__all__ = ["Layout"]


class Layout:
    """Places for every part of a frame, wide enough that no word is cut.

    Args:
        rows: label → (NFE or None, samples in this row).
        tile: height and width of one enlarged digit.
        scale: pixels of the frame per pixel of the digit; gaps and type follow it.
        one_clock: one t and one bar for all rows, or one per row.

    Attributes:
        size: height and width of the frame, both even, as video wants them.
        tiles: label → (top, left) of each digit.
    """

    def __init__(
        self, rows: Mapping[str, tuple[int | None, int]], tile: tuple[int, int], scale: int, *, one_clock: bool
    ) -> None:
        type_size = int(np.clip(round(4.2 * scale), 12, 18))
        self._type_size = type_size
        pad, gap = max(10, 4 * scale), max(3, 2 * scale)
        most = max(n for _, n in rows.values())
        inner = most * (tile[1] + gap) - gap
        clock = self._clock_text(0.0)
        room = 2 * type_size + clock.shape[1]
        colors = _row_colors(list(rows))
        headings = {
            label: self._heading(label, nfe, inner - room, color)
            for (label, (nfe, _)), color in zip(rows.items(), colors, strict=True)
        }
        width = max([inner] + [heading.shape[1] + room for heading in headings.values()])
        self._left, self._right = pad, pad + width
        self._bar_height = max(3, scale)
        self._clocks: dict[int, int] = {}  # row -> top of its clock
        self._bars: dict[int, int] = {}  # row -> top of its bar
        self.tiles: dict[str, list[tuple[int, int]]] = {}
        lines, y = [], pad * 3 // 4
        for row, (label, (_, n)) in enumerate(rows.items()):
            lines.append((y, headings[label]))
            if row == 0 or not one_clock:
                self._clocks[row] = y
            y += clock.shape[0] + max(3, scale)
            start = pad + (width - inner) // 2
            self.tiles[label] = [(y, start + i * (tile[1] + gap)) for i in range(n)]
            y += tile[0] + 2 * gap
            if row == len(rows) - 1 or not one_clock:
                self._bars[row] = y
                y += self._bar_height + gap
        y += pad - gap
        self.size = (y + y % 2, self._right + pad + (self._right + pad) % 2)
        self._lines = lines

    def background(self) -> np.ndarray:
        """The parts that never change, as palette indices, ``size``."""
        canvas = np.full(self.size, CARD_INDEX, dtype=np.uint8)
        for top, heading in self._lines:
            canvas[top : top + heading.shape[0], self._left : self._left + heading.shape[1]] = heading
        for top in self._bars.values():
            canvas[top : top + self._bar_height, self._left : self._right] = TRACK
        return canvas

    def clock(self, canvas: np.ndarray, row: int, t: float, done: float) -> None:
        """Write t and advance the bar of a row, where it has them.

        Args:
            canvas: the frame, changed in place.
            row: which one.
            t: the time to show.
            done: share of the way, from 0 to 1.
        """
        if row in self._clocks:
            words, top = self._clock_text(t), self._clocks[row]
            canvas[top : top + words.shape[0], self._right - words.shape[1] : self._right] = words
        if row in self._bars:
            top, end = self._bars[row], self._left + round(done * (self._right - self._left))
            canvas[top : top + self._bar_height, self._left : end] = FULL

    def _clock_text(self, t: float) -> np.ndarray:
        return text(f"t = {abs(t):.2f}", self._type_size, shades=INK)

    def _heading(self, label: str, nfe: int | None, room: int, color: int) -> np.ndarray:
        size = self._type_size
        name = text(label, size, bold=True)
        parts = []
        if label:
            marker = np.full((name.shape[0], round(0.9 * size)), CARD_INDEX, dtype=np.uint8)
            marker[round(0.2 * size) : round(1.05 * size), : max(3, size // 4)] = color
            parts = [marker, name]
        if nfe is not None:
            used = sum(part.shape[1] for part in parts)
            blank = np.full((name.shape[0], round(0.8 * size) if label else 0), CARD_INDEX, dtype=np.uint8)
            detail = text(f"{nfe} network evaluations", size, shades=DIM)
            if used + blank.shape[1] + detail.shape[1] > room:
                detail = text(f"NFE {nfe}", size, shades=DIM)
            parts += [blank, detail]
        return np.concatenate(parts or [name], axis=1)


def _row_colors(labels: list[str]) -> list[int]:
    """Palette index of each row's mark: the networks have their own colour in every chapter, others take turns."""
    named = [[i for i, key in enumerate(COLORS) if key in label.lower()] for label in labels]
    others = [i for i in (2, 3, 0, 1) if [i] not in named]
    turns = itertools.cycle(others or [0])
    return [MARKERS + (found[0] if len(found) == 1 else next(turns)) for found in named]
