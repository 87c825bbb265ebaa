"""The experiment on few steps, in small."""

from __future__ import annotations

import pytest
import torch

from fm_book.experiments.few_steps import METHODS, FewSteps
from fm_core import ResidualUNet, load_sample
from fm_core.few_steps import load_pairs

pytestmark = pytest.mark.usefixtures("one_thread")


def start():
    torch.manual_seed(0)
    return ResidualUNet((8, 8), 8).eval()


def test_it_trains_every_method_and_measures_it_once(tmp_path, monkeypatch):
    train, test = load_sample(), load_sample("test")
    few = FewSteps(
        out=tmp_path, images=128, seeds=(0, 1), samples=250, pairs=70, pair_steps=2, nfes=(1, 2), start=start
    )
    assert {method for method, _ in few.runs()} == {"coupled", "mean-flow"}  # reflow has no pairs yet
    few.train((train, test))
    assert {method for method, _ in few.runs()} == set(METHODS)
    assert all(run.record() is not None for run in few.runs().values())
    noise, samples = load_pairs(few.pair_folder)
    assert len(noise) == len(samples) == 70
    recipe = few.runs()["reflow", 0].finished().facts["recipe"]["loss"]
    assert recipe.startswith("flow_matching_loss, coupling=GivenPairs(70, ")

    first = few.evaluate((train, test))
    assert set(first["cells"]) == {"euler", "heun", *METHODS}
    assert set(first["cells"]["heun"]) == {"2"}
    for method in METHODS:
        assert set(first["cells"][method]) == {"1", "2"}
        for cell in first["cells"][method].values():
            assert cell.keys() == {"frechet", "precision", "recall", "pieces"}
            assert len(cell["frechet"]["values"]) == 2
    assert first["real"]["frechet"] < 0.2 * first["cells"]["euler"]["2"]["frechet"]["mean"]
    monkeypatch.setattr("fm_book.experiments.few_steps._judged", lambda _: pytest.fail("measured again"))
    assert few.evaluate((train, test)) == first
