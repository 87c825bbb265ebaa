"""Benchmarks report ratios, and with ``--record`` they write them to ``book/fm_book/results/benchmark.json``.

    python -m pytest tests/benchmarks --record

The table speaks of one machine: results from another one are dropped when a new one is recorded. Every result carries
the commit and the date it was taken at, because a run may record only some of them.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cpuinfo
import pytest
import torch

from fm_core.environment import git_commit

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "book" / "fm_book" / "results" / "benchmark.json"
PACKAGES = ("torch", "numpy", "torchdiffeq", "flow_matching", "torchcfm", "matplotlib", "pillow", "torchvision")
TAKEN = pytest.StashKey[dict[str, dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help=f"write the benchmarks' results to {TABLE.name}")


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest) -> Callable[[str, dict[str, Any]], None]:
    """``record(name, result)`` shows a result at the end of the run and, with ``--record``, writes it to the table."""
    taken = request.config.stash.setdefault(TAKEN, {})
    write = request.config.getoption("--record", default=False)
    machine, commit = (_machine(), git_commit()) if write else ({}, None)

    def _record(name: str, result: dict[str, Any]) -> None:
        taken[name] = result
        if write:
            _merge(name, result, machine, commit)

    return _record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    taken = terminalreporter.config.stash.get(TAKEN, {})
    if not taken:
        return
    terminalreporter.section("ratios (median of the rounds, quartiles, median in CPU time, goal)")
    for name, result in taken.items():
        numbers = [f"{key} {result[key]:.3f}" for key in ("ratio", "lo", "hi", "cpu_ratio", "goal") if key in result]
        ends = [text for key, text in ((True, "met"), (False, "missed")) if result.get("met") is key]
        terminalreporter.write_line("  ".join([f"{name:<44}", *numbers, *ends, result.get("note", "")]).rstrip())


def _merge(name: str, result: dict[str, Any], machine: dict[str, Any], commit: str | None) -> None:
    date = datetime.now(UTC).isoformat(timespec="seconds")
    old = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    place = ("cpu", "cores", "gpu")
    same = all(old.get("machine", {}).get(key) == machine[key] for key in place)
    results = old.get("results", {}) if same else {}
    results[name] = {**_rounded(result), "git_commit": commit, "date": date}
    table = {"machine": machine, "git_commit": commit, "date": date, "results": dict(sorted(results.items()))}
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    fresh = TABLE.with_suffix(".tmp")
    fresh.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n")
    fresh.replace(TABLE)


def _rounded(result: dict[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in result.items()}


def _machine() -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpuinfo.get_cpu_info().get("brand_raw", platform.machine()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch_threads": torch.get_num_threads(),
        "versions": versions,
    }
