"""``python -m fm_book.experiments NAME``: run an experiment and record what it finds."""

from __future__ import annotations

import sys

import tyro

from fm_book.experiments.ablation import Ablation
from fm_book.experiments.bits import Likelihood
from fm_book.experiments.classifier import TrainClassifier
from fm_book.experiments.compare import Compare
from fm_book.experiments.density import Density
from fm_book.experiments.export import Export
from fm_book.experiments.few_steps import FewSteps
from fm_book.experiments.guidance import Guidance
from fm_book.experiments.publish import TrainPublished
from fm_book.experiments.queue import Queue
from fm_book.experiments.recipes import Recipes
from fm_core.__main__ import run_command

EXPERIMENTS = {
    "train-published": TrainPublished,
    "classifier": TrainClassifier,
    "compare": Compare,
    "ablation": Ablation,
    "likelihood": Likelihood,
    "density": Density,
    "guidance": Guidance,
    "few-steps": FewSteps,
    "recipes": Recipes,
    "queue": Queue,
    "export": Export,
}


def main() -> int:
    """Run one experiment and print one line about what it recorded; ``--list`` names them all."""
    if sys.argv[1:] == ["--list"]:
        for name, experiment in EXPERIMENTS.items():
            print(f"{name:<18}{(experiment.__doc__ or '').splitlines()[0]}")
        return 0
    prog = "python -m fm_book.experiments"
    return run_command(prog, lambda: tyro.extras.subcommand_cli_from_dict(EXPERIMENTS, prog=prog).run())


if __name__ == "__main__":
    raise SystemExit(main())
