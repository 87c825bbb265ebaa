"""Direct measures of artefacts on images whose faults are known, and the losses and the queue of the experiments."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fm_book.experiments.base import without_sample
from fm_book.experiments.losses import shaped_times, times_loss
from fm_book.experiments.queue import Queue
from fm_book.experiments.recipes import RECIPES, Preconditioned, Recipe, Recipes
from fm_book.metrics.artefacts import artefacts
from fm_core import BaseUNet, Digits, ExactVelocity, ResidualUNet, load_sample, sample


def paper() -> Tensor:
    return torch.full((1, 1, 28, 28), -1.0)


def ring() -> Tensor:
    image = paper()
    image[..., 8:20, 8:20] = 1
    image[..., 11:17, 11:17] = -1
    return image


def found(image: Tensor) -> dict[str, float]:
    return {name: float(value) for name, value in artefacts(image).items()}


def test_each_planted_fault_is_counted() -> None:
    whole = found(ring())
    assert (whole["pieces"], whole["outside"], whole["specks"], whole["holes"]) == (0, 0, 0, 1)
    speck = ring()
    speck[..., 2:4, 2] = 1
    told = found(speck)
    assert (told["pieces"], told["specks"], told["holes"]) == (1, 1, 1)
    assert told["outside"] == pytest.approx(2 / (108 + 2))
    broken = ring()
    broken[..., 13:15, :] = -1  # the ring falls into two halves and is open
    assert [found(broken)[name] for name in ("pieces", "specks", "holes")] == [1, 0, 0]
    corner = paper()
    corner[..., 5:8, 5:8] = corner[..., 8:11, 8:11] = 1  # touching at a corner is not touching
    assert found(corner)["pieces"] == 1
    assert found(paper())["pieces"] == 1


def test_blur_lowers_the_edges_and_raises_the_grey() -> None:
    blurred = torch.nn.functional.avg_pool2d(ring() + 1, 3, stride=1, padding=1) - 1
    sharp, soft = found(ring()), found(blurred)
    assert soft["edge"] < 0.7 * sharp["edge"]
    assert sharp["grey"] == 0 < soft["grey"]


def test_real_digits_are_nearly_all_whole() -> None:
    values = artefacts(load_sample("test").images)
    assert values["pieces"].mean() < 0.06
    assert 0.3 < values["holes"].mean() < 0.6  # 0, 6, 9 and 8 have some


def test_artefacts_refuse_another_shape() -> None:
    with pytest.raises(ValueError, match=r"images: expected shape \(N, 1, H, W\)"):
        artefacts(torch.zeros(3, 28, 28))


def test_shaped_times_have_their_distribution() -> None:
    draw = partial(shaped_times, 200_000, like=torch.zeros(1), generator=torch.Generator().manual_seed(0))
    uniform, normal = draw(share=0.0, mean=-0.9, scale=0.9), draw(share=1.0, mean=-0.9, scale=0.9)
    assert abs(uniform.mean() - 0.5) < 0.004  # five standard errors
    assert abs(torch.logit(normal).mean() + 0.9) < 0.011
    assert abs(torch.logit(normal).std() - 0.9) < 0.008
    mixed = draw(share=0.5, mean=-0.9, scale=0.9).mean()
    assert abs(mixed - (uniform.mean() + normal.mean()) / 2) < 0.004


def test_the_loss_at_shaped_times_is_least_for_the_exact_velocity() -> None:
    data = torch.tensor([[-1.0, 0.0], [1.0, 0.5]])
    exact, x_1 = ExactVelocity(data, std=0.1), data.repeat(2000, 1)

    def loss(velocity: Any) -> float:
        return float(times_loss(velocity, x_1, generator=torch.Generator().manual_seed(0)))

    assert loss(exact) < loss(lambda x, t: exact(x, t) + 0.3) - 0.05


@pytest.mark.parametrize("head", ["scaled", "data"])
def test_preconditioned_networks_are_velocities(head: str) -> None:
    torch.manual_seed(0)
    model = Preconditioned(ResidualUNet((8, 16), 16), head)
    x = torch.randn(3, 1, 28, 28)
    assert model(x, torch.rand(3)).shape == x.shape
    assert sample(model, x, 2, progress=False).isfinite().all()
    for p in model.network.head.parameters():
        torch.nn.init.zeros_(p)
    t = 0.75
    n = t**2 + (1 - t) ** 2
    expected = (2 * t - 1) / n * x if head == "scaled" else -x / (1 - t)
    torch.testing.assert_close(model(x, t), expected)


def test_the_bundled_test_digits_are_taken_out_of_a_recovered_copy() -> None:
    held_out, rest = load_sample("test"), load_sample("train")
    noisy = held_out.images + torch.randn_like(held_out.images) * 0.005  # copies differ by a grey level here and there
    images, labels = torch.cat([rest.images, noisy]), torch.cat([rest.labels, held_out.labels])
    kept = without_sample(Digits(images, labels, "all"))
    assert torch.equal(kept.images, rest.images)
    assert kept.source == "all, 4,500 without the bundled test digits"


def test_the_queue_trains_what_is_not_finished(tmp_path: Path) -> None:
    tiny = Recipe("tiny", partial(BaseUNet, (4, 8), 8), changes={"batch_size": 32})
    experiment = Recipes(out=tmp_path, data="sample", device="cpu", images=64, recipes={"a": tiny, "b": tiny})
    experiment.train(experiment.splits(), {("a", 0): experiment.runs()["a", 0]})
    queue = Queue(experiments=(experiment,), processes=1, nice=0)
    assert list(queue.pending()) == [(0, ("b", 0))]
    assert queue.run() == "1 of 1 runs trained"
    assert not queue.pending()
    assert not Queue(experiments=(experiment,), only=("compare",)).pending()


def test_every_recipe_builds_a_network_and_a_loss() -> None:
    for name, recipe in RECIPES.items():
        torch.manual_seed(0)
        loss = recipe.loss(recipe.build(), load_sample("test").images[:4], generator=torch.Generator().manual_seed(0))
        assert loss.isfinite(), name
