"""Where published numbers are kept: ``book/results/NAME.json``, each with what it was made with."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fm_core
from fm_core.checkpoints import write_atomically
from fm_core.provenance import provenance, resolve_device

__all__ = ["results_folder", "write_result"]


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


def write_result(name: str, values: dict[str, Any], *, device: str = "auto") -> Path:
    """Write ``book/results/NAME.json``: the values, the date, commit, versions and device.

    Args:
        name: of the experiment.
        values: what was found and with what configuration, JSON-ready.
        device: where it was computed.
    """
    record = {
        "experiment": name,
        "date": datetime.now(UTC).date().isoformat(),
        **provenance(resolve_device(device)),
        **values,
    }
    path = results_folder() / f"{name}.json"
    write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())
    return path
