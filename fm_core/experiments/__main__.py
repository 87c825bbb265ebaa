"""``python -m fm_core.experiments NAME``: run an experiment and record what it finds."""

from __future__ import annotations

from fm_core.experiments.export import Export
from fm_core.experiments.train_published import TrainPublished


def main() -> None:
    """Run one experiment and print one line about what it recorded."""
    import tyro

    experiments = {"export": Export, "train-published": TrainPublished}
    print(tyro.extras.subcommand_cli_from_dict(experiments, prog="python -m fm_core.experiments").run())


if __name__ == "__main__":
    main()
