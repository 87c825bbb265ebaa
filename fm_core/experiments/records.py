"""Where published numbers are kept: ``book/results/NAME.json``, each with what it was made with.

Pages read them with :func:`load_record`. Where prose has to hold a number itself, a comment that no reader sees says
which entry it is, ``97.5 %<!-- record: compare/networks/residual/share * 100 -->``, and a test compares the two in
the digits that the prose shows (:func:`quoted_numbers`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import fm_core
from fm_core.checkpoints import write_atomically
from fm_core.provenance import provenance, resolve_device

__all__ = ["Quotation", "load_record", "quoted_numbers", "results_folder", "value_at", "write_result"]

NUMBER = r"[-−+]?\d[\d,\u202f]*(?:\.\d+)?(?:e[-+]?\d+)?"
QUOTATION = re.compile(
    rf"(?P<number>{NUMBER})(?P<unit>[^\d<]{{0,24}})"
    r"<!--\s*record:\s*(?P<record>[\w-]+)/(?P<path>[^*>]+?)\s*(?:\*\s*(?P<factor>[-+.e\d]+)\s*)?-->"
)
MARKER = re.compile(r"<!--\s*record:[^>]*-->")


def results_folder() -> Path:
    """``book/results`` of the checkout that this package runs from.

    Raises:
        FileNotFoundError: the package was installed without a checkout.
    """
    folder = Path(fm_core.__file__).resolve().parent.parent / "book" / "results"
    if not folder.parent.is_dir():
        raise FileNotFoundError(
            f"{folder.parent} does not exist: results are recorded in a checkout of the repository. Clone it "
            "and install it with `pip install -e .`."
        )
    return folder


def load_record(name: str) -> dict[str, Any]:
    """A recorded experiment: the numbers that the pages show, with configuration, seeds, versions and commit.

    Args:
        name: of the experiment, such as ``"compare"``; ``python -m fm_core.experiments --list`` names them.

    Raises:
        FileNotFoundError: no such record; the message says what makes it.
    """
    path = Path(fm_core.__file__).resolve().parent.parent / "book" / "results" / f"{name}.json"
    if not path.is_file():  # installed without a checkout: the records came along as data files
        files = metadata.files("fm-core") or []
        path = next((Path(f.locate()) for f in files if f.parts[-2:] == ("results", path.name)), path)
    if not path.is_file():
        raise FileNotFoundError(
            f"name={name!r}: there is no record of that name. `python -m fm_core.experiments {name}` writes it."
        )
    return json.loads(path.read_text())


def write_result(
    name: str, values: dict[str, Any], *, config: Mapping[str, Any] | None = None, device: str = "auto"
) -> Path:
    """Write ``book/results/NAME.json``: the values, the date, commit, versions and device.

    Args:
        name: of the experiment.
        values: what was found, JSON-ready.
        config: everything that decides the values, as the experiment's ``config()`` gives it; a test compares the two.
        device: where it was computed.
    """
    record = {
        "experiment": name,
        "date": datetime.now(UTC).date().isoformat(),
        **provenance(resolve_device(device)),
        **({"config": dict(config)} if config is not None else {}),
        **_rounded(values),
    }
    path = results_folder() / f"{name}.json"
    text = json.dumps(record, indent=1)
    text = re.sub(r"\[[^][{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)  # short lists on one line
    write_atomically(path, (text + "\n").encode())
    return path


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


def _rounded(value: Any) -> Any:
    """Numbers to six significant digits, so that a record reads and compares well."""
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
