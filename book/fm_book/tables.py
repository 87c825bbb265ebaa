"""Results of the chapters as tables that every page shows alike."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

__all__ = ["table"]


def table(
    columns: Mapping[str, Sequence[object]], *, caption: str = "", formats: Mapping[str, str] | None = None
) -> Styler:
    """An HTML table of equally long columns, numbers to the right and text to the left.

    Args:
        columns: header of each column and its cells.
        caption: one line above the table.
        formats: format string of a column, for example ``{"NFE": "{:,}", "error": "{:.1e}"}``. Floats without one are
            shown with three significant digits.

    Raises:
        ValueError: columns of different lengths, or a format for a column that is not there.

    Example:
        >>> table({"solver": ["Euler", "RK4"], "error": [0.021, 3e-6]}, formats={"error": "{:.0e}"})
    """
    import pandas

    lengths = {name: len(cells) for name, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"expected columns of one length, got {lengths}; fill empty cells with an empty string")
    unknown = set(formats or {}) - set(columns)
    if unknown:
        raise ValueError(f"expected formats for the columns {list(columns)}, got one for {sorted(unknown)}")
    frame = pandas.DataFrame({name: [_plain(cell) for cell in cells] for name, cells in columns.items()})
    numeric = [name for name in frame if pandas.api.types.is_numeric_dtype(frame[name])]
    shown = {name: "{:.3g}" for name in numeric if frame[name].dtype.kind == "f"} | dict(formats or {})
    sides = {name: "right" if name in numeric or name in (formats or {}) else "left" for name in frame}
    styles: Any = {name: [{"selector": "", "props": [("text-align", side)]}] for name, side in sides.items()}
    name = hashlib.sha256(frame.to_csv().encode()).hexdigest()[:8]  # the same table has the same HTML in every build
    styled = frame.style.set_uuid(name).hide(axis="index").set_table_attributes('class="fm-table"')
    styled = styled.set_table_styles(styles)
    styled.format(shown)
    return styled.set_caption(caption) if caption else styled


def _plain(cell: object) -> object:
    """A tensor or array of one number as a number."""
    return cell.item() if isinstance(cell, torch.Tensor | np.generic | np.ndarray) else cell
