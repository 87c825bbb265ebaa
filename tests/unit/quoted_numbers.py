"""Numbers in prose that name their record: ``97.5 %<!-- record: compare/networks/residual/share * 100 -->``.

A unit or a word may stand between number and comment, and ``* FACTOR`` may follow the path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Quotation", "quoted_numbers", "value_at"]

NUMBER = r"[-−+]?\d[\d,\u202f]*(?:\.\d+)?(?:e[-+]?\d+)?"
QUOTATION = re.compile(
    rf"(?P<number>{NUMBER})(?P<unit>[^\d<]{{0,24}})"
    r"<!--\s*record:\s*(?P<record>[\w-]+)/(?P<path>[^*>]+?)\s*(?:\*\s*(?P<factor>[-+.e\d]+)\s*)?-->"
)
MARKER = re.compile(r"<!--\s*record:[^>]*-->")


def value_at(record: Mapping[str, Any], path: str) -> Any:
    """The entry of a record at a path such as ``networks/residual/parameters``; whole numbers index lists.

    Raises:
        KeyError: no such entry; the message lists what there is.
    """
    here: Any = record
    for part in path.split("/"):
        try:
            here = here[int(part)] if isinstance(here, list) else here[part]
        except (KeyError, IndexError, ValueError, TypeError):
            there = (
                list(here) if isinstance(here, Mapping) else f"{len(here)} entries" if isinstance(here, list) else here
            )
            raise KeyError(f"{path!r} stops at {part!r}; there is {there}.") from None
    return here


@dataclass(frozen=True)
class Quotation:
    """A number in prose that names its record.

    Attributes:
        text: the number as it stands in the prose.
        record: name of the record.
        path: entry in the record.
        factor: what the entry is multiplied with, 100 for a percentage.
    """

    text: str
    record: str
    path: str
    factor: float = 1.0

    def holds(self, record: Mapping[str, Any]) -> bool:
        """Whether the record's entry, rounded to the digits of the text, is the text's number.

        Args:
            record: as :func:`load_record` gives it.
        """
        plain = re.sub(r"[,\u202f]", "", self.text).replace("−", "-")
        decimals = len(plain.partition("e")[0].partition(".")[2])
        exponent = int(plain.partition("e")[2] or 0)
        half = 0.5 * 10.0 ** (exponent - decimals)
        return abs(float(value_at(record, self.path)) * self.factor - float(plain)) <= half * (1 + 1e-9)


def quoted_numbers(text: str) -> list[Quotation]:
    """The numbers of a page that name their record: ``NUMBER<!-- record: NAME/PATH -->``.

    A unit or a word may stand between the two, and ``* FACTOR`` may follow the path.

    Args:
        text: Markdown.

    Raises:
        ValueError: a marker without a number before it.
    """
    found = [Quotation(m["number"], m["record"], m["path"], float(m["factor"] or 1)) for m in QUOTATION.finditer(text)]
    markers = MARKER.findall(text)
    if len(found) != len(markers):
        raise ValueError(
            f"{len(markers)} markers but {len(found)} numbers: write NUMBER<!-- record: NAME/PATH --> with the "
            f"number right before the marker. The markers are {markers}."
        )
    return found
