"""All training runs of the experiments, two at a time: one process and one thread each, at the lowest priority.

Started again, it goes on where it was: finished runs are skipped, interrupted ones resume from their checkpoint.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from tyro.conf import Suppress

from fm_book.experiments.ablation import Ablation
from fm_book.experiments.base import Experiment
from fm_book.experiments.bits import Likelihood
from fm_book.experiments.compare import Compare
from fm_book.experiments.density import Density
from fm_book.experiments.few_steps import FewSteps
from fm_book.experiments.publish import TrainPublished
from fm_book.experiments.recipes import Recipes

__all__ = ["Queue"]


def _experiments() -> tuple[Experiment, ...]:
    return Recipes(), Density(), FewSteps(), TrainPublished(), Compare(), Ablation(), Likelihood()


@dataclass(frozen=True, kw_only=True)
class Queue:
    """Train whatever run of the experiments is not finished.

    Attributes:
        only: names of experiments; all if left out.
        processes: runs at a time, each with one thread.
        nice: what is added to the processes' niceness, which lowers their priority; not on Windows.
        experiments: in the order in which their runs are taken.
    """

    name: ClassVar[str] = "queue"
    only: tuple[str, ...] = ()
    processes: int = 2
    nice: int = 19
    experiments: Annotated[Sequence[Experiment], Suppress] = field(default_factory=_experiments)

    def pending(self) -> Mapping[tuple[int, Hashable], Experiment]:
        """The unfinished runs, in order: the experiment's place and the run's key, with the experiment."""
        return {
            (place, key): experiment
            for place, experiment in enumerate(self.experiments)
            if not self.only or experiment.name in self.only
            for key, run in experiment.runs().items()
            if run.record() is None
        }

    def run(self) -> str:
        """Train, print one line per run, and return one about all."""
        pending, failed = self.pending(), 0
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            self.processes, mp_context=context, initializer=_one_thread, initargs=(self.nice,)
        ) as pool:
            jobs = {
                pool.submit(_train, experiment, key): (experiment.name, key) for (_, key), experiment in pending.items()
            }
            for done in as_completed(jobs):
                if (error := done.exception()) is not None:
                    failed += 1
                    print(f"{jobs[done]}: {type(error).__name__}: {error}", flush=True)
        return f"{len(pending) - failed} of {len(pending)} runs trained"


def _one_thread(nice: int) -> None:
    torch.set_num_threads(1)
    if hasattr(os, "nice"):
        os.nice(nice)


def _train(experiment: Experiment, key: Hashable) -> None:
    """Train one run of an experiment, in a process of its own."""
    experiment.train(experiment.splits(), {key: experiment.runs()[key]})
