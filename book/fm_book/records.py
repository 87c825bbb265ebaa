"""Recorded results: ``book/fm_book/results/NAME.json``, one file per experiment, with provenance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from fm_core._files import read_json, to_json
from fm_core.checkpoints import write_atomically
from fm_core.environment import provenance, resolve_device

__all__ = ["RESULTS", "load_record", "write_record"]

RESULTS = Path(str(files("fm_book") / "results"))


def load_record(name: str) -> dict[str, Any]:
    """A recorded experiment: its values, configuration, seeds, versions, device and commit.

    Args:
        name: of the experiment, such as ``"compare"``; ``python -m fm_book.experiments --list`` names them.

    Raises:
        FileNotFoundError: no such record; the message says what makes it.
        ValueError: a damaged file.
    """
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in RESULTS.glob("*.json")))
        raise FileNotFoundError(
            f"name: expected one of {there}, got {name!r}. `python -m fm_book.experiments {name}` writes it."
        )
    record = read_json(path)
    if not isinstance(record, dict):
        raise ValueError(
            f"{path}: expected JSON, got a damaged file. `python -m fm_book.experiments {name}` writes it."
        )
    return record


def write_record(
    name: str,
    values: dict[str, Any],
    *,
    config: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> Path:
    """Write the values with date, commit, versions and device; numbers keep six significant digits.

    Args:
        name: of the experiment.
        values: JSON-ready.
        config: everything that decides the values, as the experiment's ``settings()`` gives it; a test compares them.
        device: where the values were computed.
    """
    record = {
        "experiment": name,
        "date": datetime.now(UTC).date().isoformat(),
        **provenance(resolve_device(device)),
        **({"config": dict(config)} if config is not None else {}),
        **_rounded(values),
    }
    text = to_json(record, indent=1)
    text = re.sub(r"\[[^][{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)  # short lists on one line
    path = RESULTS / f"{name}.json"
    write_atomically(path, (text + "\n").encode())
    return path


def _rounded(value: Any) -> Any:
    """Numbers to six significant digits, so that a record reads and compares well."""
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
