"""The speed benchmarks of ``tests/benchmarks``, recorded in ``book/results/benchmark.json``; for an idle machine."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from fm_core.experiments.records import results_folder

__all__ = ["Benchmark"]


@dataclass(frozen=True)
class Benchmark:
    """Measure the ratios of the benchmarks and record them.

    Attributes:
        only: pytest's ``-k`` expression for some of them; all if left out.
    """

    only: str | None = None

    def run(self) -> str:
        root = results_folder().parents[1]
        some = ["-k", self.only] if self.only else []
        command = [sys.executable, "-m", "pytest", "tests/benchmarks", "--record", *some]
        subprocess.run(command, cwd=root, check=True)
        return f"recorded in {results_folder() / 'benchmark.json'}"
