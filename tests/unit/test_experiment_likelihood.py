"""The likelihood experiment: changes of variables that keep probabilities, paired noise, snapshots of the average."""

from __future__ import annotations

import json
import math

import pytest
import torch

from fm_book.experiments import density
from fm_book.experiments.base import Run
from fm_book.experiments.bits import (
    BLOCK,
    NOISE_SEED,
    VIEWS,
    Likelihood,
    Snapshots,
    mean_interval,
    measure,
    mix_with_uniform,
    preprocess,
)
from fm_book.experiments.losses import fresh_logit, likelihood_logit_loss, logit_loss
from fm_core import ResidualUNet, TrainConfig, bits_per_dimension, load_model, train
from fm_core.data import Digits, dequantize, load_sample
from fm_core.likelihood import LOGIT_EDGE, LOGIT_SCALE, to_logit

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = {"tolerance": 1e-4, "euler": None, "probes": 1}


def at_rest(x, t):
    """A field without motion: its density is that of the noise, N(0, I)."""
    return 0 * x


def levels(n: int = 256) -> torch.Tensor:
    return (torch.arange(n) / 127.5 - 1).reshape(n, 1, 1, 1)


def test_the_logit_and_its_slope_belong_together():
    y = torch.linspace(-1, 0.999, 41, dtype=torch.float64).reshape(-1, 1).requires_grad_()
    z, slope = to_logit(y)
    (derivative,) = torch.autograd.grad(z.sum(), y)
    assert torch.allclose(slope, derivative[:, 0].log())
    assert z[0].item() == pytest.approx(math.log(LOGIT_EDGE) / LOGIT_SCALE, rel=1e-4)
    two = y.detach()[:40].reshape(20, 2)
    assert torch.allclose(to_logit(two)[1], slope.detach()[:40].reshape(20, 2).sum(dim=1))


@pytest.mark.parametrize(
    ("bins", "mass"),
    [("even", math.erf(1 / math.sqrt(2))), ("centred", math.erf(256 / 255 / math.sqrt(2))), ("logit", 1.0)],
)
def test_the_levels_together_get_the_mass_that_lies_in_their_bins(bins, mass):
    found = measure(at_rest, levels(), bins=bins, **OPTIONS)
    total = sum(2**-b for b in found["bits"])
    # each level's bits are a bound from above, up to the place within the bin that one draw chose
    assert total == pytest.approx(mass, abs=0.02 if bins != "logit" else 0.15)


@pytest.mark.filterwarnings("ignore:.*expected at most 8 bits per dimension:RuntimeWarning")
def test_the_even_bins_are_those_of_bits_per_dimension_and_every_block_has_its_own_noise():
    x = levels()[:60]
    found = measure(at_rest, x, bins="even", **OPTIONS)
    parts = [
        bits_per_dimension(
            at_rest, part, generator=torch.Generator().manual_seed(NOISE_SEED + k), rtol=1e-4, atol=1e-4
        ).bits
        for k, part in enumerate(x.split(BLOCK))
    ]
    assert found["bits"] == pytest.approx(torch.cat(parts).tolist(), abs=1e-5)
    assert len(found["nfe"]) == 2
    assert found["standard_error"] is None
    assert measure(at_rest, x, bins="even", **OPTIONS | {"euler": 3})["nfe"] == [3, 3]
    assert len(measure(at_rest, x, bins="even", **OPTIONS | {"probes": 2})["standard_error"]) == 60


def test_the_density_at_the_bare_levels_is_what_it_says():
    found = measure(at_rest, levels()[:3], bins="none", **OPTIONS)
    density = -levels()[:3].flatten().square() / 2 - math.log(2 * math.pi) / 2
    assert found["bits"] == pytest.approx((7 - density / math.log(2)).tolist(), abs=1e-4)


def test_all_views_of_the_digits_share_their_noise():
    sample = load_sample("test")
    few = Digits(sample.images[:5], sample.labels[:5], "five")
    seen = {variant: preprocess(variant, few) for variant in VIEWS}
    assert torch.equal(seen["levels"].images, few.images)
    assert torch.equal(seen["logit"].images, to_logit(seen["dequantised"].images)[0])
    level = ((seen["dequantised"].images + 1) * 128).floor()
    assert torch.equal(level, ((few.images + 1) * 127.5).round())
    assert torch.equal(preprocess("dequantised", few).images, seen["dequantised"].images)
    assert seen["logit"].source == "five, logit"


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def few_steps(folder):
    config = TrainConfig(images=24, batch_size=8, precision="float32")
    return Run(folder, lambda: ResidualUNet((8, 16), 16), config, checkpoint_every=1)


def few_digits():
    sample = load_sample("test")
    return (Digits(sample.images[:24], sample.labels[:24], "few"),) * 2


def trained(run, **options):
    return train(
        run.model(), run.config, data=few_digits(), out=run.folder, device="cpu", checkpoint_every=1, progress=False,
        **options,
    )  # fmt: skip


def test_snapshots_hold_the_average_of_their_moment(tmp_path):
    run, averages = few_steps(tmp_path / "run"), {}

    class Watching(Snapshots):
        def __call__(self, step, model):
            averages.setdefault(0, {k: v.clone() for k, v in run.model().state_dict().items()})
            n = step - 1  # updates before this one; the first copies the weights
            rate = 1 if n == 0 else 1 - min(run.config.ema_decay, (1 + n) / (10 + n))
            last = averages[step - 1]
            averages[step] = {k: torch.lerp(last[k], v.detach(), rate) for k, v in model.state_dict().items()}
            return super().__call__(step, model)

    trained(run, callback=Watching(run, at=(8, 16)))
    for seen, step in ((8, 1), (16, 2)):
        folder = tmp_path / "run" / f"images-{seen}"
        kept = load_model(folder).state_dict()
        assert all(torch.allclose(kept[k], v, atol=1e-6) for k, v in averages[step].items())
        assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["training"]["images"] == seen
    assert not (tmp_path / "run" / "images-24").exists()


def test_a_snapshot_without_its_checkpoint_says_what_to_change(tmp_path):
    run = few_steps(tmp_path / "run")
    trained(run)
    with pytest.raises(ValueError, match="checkpoint_every: expected a checkpoint at step 2"):
        Snapshots(run, at=(16,))(3, run.model())


def test_the_settings_are_plain_and_the_snapshots_are_reached(tmp_path):
    experiment = Likelihood(out=tmp_path)
    assert json.loads(json.dumps(experiment.settings())) == experiment.settings()
    runs = experiment.runs()
    assert list(runs) == list(VIEWS)
    for run in runs.values():
        for seen in experiment.snapshots:
            assert seen % (run.config.batch_size * run.checkpoint_every) == 0
            assert seen < run.config.images


def test_the_interval_over_images_is_that_of_a_mean():
    found = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert (found["mean"], found["n"]) == (2.5, 4)
    assert found["high"] - found["mean"] == pytest.approx(1.96 * math.sqrt(5 / 3) / 2)


def test_a_lost_digit_costs_what_a_uniform_guess_costs_and_the_others_nothing():
    found = mix_with_uniform([-5.0, 1.5, 7.9, 8.0, 1e18])
    assert found[:3] == pytest.approx([-5.0, 1.5, 7.9], abs=2e-6)
    assert found[4] == pytest.approx(8 + 10 / 784)
    assert found[3] == pytest.approx(8, abs=1e-9)
    # of all images with one pixel of 256 levels, the mixture gives away no more than everything
    bits = [-math.log2(0.9 / 16)] * 16 + [30.0] * 240
    assert sum(2**-b for b in mix_with_uniform(bits, dimension=1, cost=3.0)) == pytest.approx(
        0.9 * 7 / 8 + 1 / 8, abs=1e-6
    )


def test_fresh_bins_keep_the_levels_and_change_the_noise():
    level = torch.arange(256).reshape(1, 256) / 127.5 - 1
    z = to_logit(dequantize(level, seeded(1)))[0]
    again = fresh_logit(z, seeded(2))
    found = ((again.double() * LOGIT_SCALE).sigmoid() * 256).floor()
    assert (found != torch.arange(256)).sum() <= 1  # rounding may carry noise at a border into the next bin
    assert (again != z).float().mean() > 0.9


def test_the_likelihood_loss_has_the_weight_t_over_one_minus_t():
    """With a velocity of 0 the squared error does not depend on t, so the weight's integral is left: log 1000 - 0.999.
    Weights are below 14; with 40,000 draws the mean is within five standard errors but once in a million."""
    x_1 = torch.zeros(40_000, 4)
    plain = logit_loss(lambda x, t: torch.zeros_like(x), x_1, generator=seeded(3))
    weighted = likelihood_logit_loss(lambda x, t: torch.zeros_like(x), x_1, generator=seeded(4))
    assert (weighted / plain).item() == pytest.approx(math.log(1000) - 0.999, abs=5 * 6 / 200)


def test_density_trains_evaluates_and_records_differences(tmp_path, monkeypatch):
    monkeypatch.setattr(density.Density, "uri", None)  # without MLflow
    monkeypatch.setattr(density, "ResidualUNet", lambda: ResidualUNet((8, 16), 16))
    experiment = density.Density(
        out=tmp_path, device="cpu", images=128, digits=2, taus=(1.0, 1.5), tolerance=0.1, data="sample"
    )
    few = (Digits(load_sample("train").images[:256], load_sample("train").labels[:256], "few"), few_digits()[0])
    experiment.train(few)
    found = experiment.evaluate(few)
    assert found["best"] in ("logit", "logit-likelihood")
    assert set(found["networks"]["residual"]) == {
        "uniform", "truncated normal, tau 1", "truncated normal, tau 1.5",
    }  # fmt: skip
    assert found["networks"][found["best"]]["logit, all test digits"]["bits"]["n"] == 24
    assert found["gain"]["n"] == 2
    assert json.loads(json.dumps(experiment.settings())) == experiment.settings()
