"""The experiments: matched sizes, the ladder's ends, runs that resume, intervals, caches that know their weights."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
import time
from functools import partial

import pytest
import torch

from fm_book.experiments import base
from fm_book.experiments.__main__ import EXPERIMENTS, main
from fm_book.experiments.ablation import CHANGES, WIDTHS, Ablation
from fm_book.experiments.base import GradientNorms, Run, curves, depths, train_all
from fm_book.experiments.compare import NETWORKS, Compare, Network
from fm_book.experiments.evaluation import (
    cached,
    draw_samples,
    elapsed,
    loss_over_time,
    paired_noise,
    speed,
    straightness,
)
from fm_book.experiments.matching import matched_widths
from fm_book.experiments.variants import GROUPS, VARIANTS, VariantUNet
from fm_book.metrics import Estimate, seed_difference, seed_interval
from fm_core.data import Digits, load_sample
from fm_core.models import BaseUNet, PlainBlock, ResidualBlock, UNet, build_model, count_flops, count_parameters
from fm_core.tracking import MLflowTracker
from fm_core.training import TrainConfig, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data():
    sample = load_sample("train")
    return tuple(Digits(sample.images[i : i + 300], sample.labels[i : i + 300], "300 digits") for i in (0, 300))


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A store without runs: making one takes MLflow seconds, copying it none."""
    folder = tmp_path_factory.mktemp("store")
    tracker = MLflowTracker(f"sqlite:///{folder}/mlflow.db", system_metrics=False)
    tracker.start()
    tracker.close()
    return folder / "mlflow.db"


# Matching


def test_the_matched_base_network_has_the_residuals_parameters_and_operations():
    whole, matched = (build_model(NETWORKS[n].model, widths=NETWORKS[n].widths) for n in ("residual", "base-matched"))
    assert count_parameters(matched) == pytest.approx(count_parameters(whole), rel=0.02)
    assert count_flops(matched) == pytest.approx(count_flops(whole), rel=0.02)


@pytest.mark.parametrize("name", WIDTHS)
def test_every_rung_has_the_residuals_parameters(name):
    rung, whole = (VariantUNet(n, WIDTHS[n], Ablation.time_dim) for n in (name, "residual"))
    assert count_parameters(rung) == pytest.approx(count_parameters(whole), rel=0.02)


def test_every_change_joins_two_rungs_that_are_trained():
    assert set(WIDTHS) == set(VARIANTS) == {rung for ends in CHANGES.values() for rung in ends}


def test_matched_widths_meet_both_targets_or_say_that_none_do():
    target = BaseUNet((8, 16), 16)
    widths = matched_widths(
        lambda w: BaseUNet(w, 16),
        (4, 8),
        count_parameters(target),
        target_flops=count_flops(target),
        reach=0.2,
        tolerance=0.01,
    )
    assert widths == (8, 16)
    with pytest.raises(
        ValueError, match=r"target: expected .* parameters within 0.0% at widths near .* × \(4, 8\), got no such widths"
    ):
        matched_widths(lambda w: BaseUNet(w, 16), (4, 8), count_parameters(target) + 1, tolerance=1e-5)


# The ladder


@pytest.mark.parametrize(("name", "block"), [("base", PlainBlock), ("residual", ResidualBlock)])
def test_the_ladders_ends_are_the_two_networks_of_the_book(name, block):
    def published(c_in, c_out, time_dim):
        return block(c_in, c_out, time_dim) if block is PlainBlock else block(c_in, c_out, time_dim, groups=GROUPS)

    networks = []
    for build in (lambda: VariantUNet(name, (8, 16), 16), lambda: UNet(published, (8, 16), 16)):
        torch.manual_seed(0)
        networks.append(build())
    ladder, book = networks
    weights = list(ladder.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(weights, book.state_dict().values(), strict=True))
    with torch.no_grad():
        for p, q in zip(ladder.parameters(), book.parameters(), strict=True):  # zero starts would hide the second half
            p.add_(0.1 * torch.randn(p.shape))
            q.copy_(p)
    x, t = torch.randn(3, 1, 28, 28), torch.rand(3)
    assert torch.equal(ladder(x, t), book(x, t))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_rung_learns_with_all_its_weights_and_knows_the_time(name):
    torch.manual_seed(0)
    model = VariantUNet(name, (8, 16), 16)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    x = torch.randn(2, 1, 28, 28)
    assert not torch.allclose(model(x, 0.1), model(x, 0.9))
    model(x, torch.tensor([0.1, 0.9])).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", ["base-input-time", "residual-input-time"])
def test_time_at_the_input_enters_the_first_block_only(name):
    model = VariantUNet(name, (8, 16), 16)
    assert [k for k in model.state_dict() if ".time." in k] == ["encoder.0.time.weight", "encoder.0.time.bias"]


def test_an_unknown_rung_is_refused():
    with pytest.raises(ValueError, match=r"variant: expected one of 'base', 'two-convolutions', .*got 'bas'"):
        VariantUNet("bas", (8,), 16)


# Runs


def tiny(out, **changes):
    config = TrainConfig(**{"images": 6 * 16, "batch_size": 16, "precision": "float32", **changes})
    return Run(out, partial(VariantUNet, "residual", (8, 16), 16), config, log_every=2, checkpoint_every=2)


def train_run(run, data, uri=None, **options):
    train_all([run], data, uri=uri, device="cpu", log=lambda _: None, **options)


def test_a_variant_resumes_bit_for_bit_and_loads_again(tmp_path, data):
    def stop(_):
        def callback(step, _):
            if step == 3:
                raise KeyboardInterrupt

        return callback

    whole, cut = tiny(tmp_path / "whole"), tiny(tmp_path / "cut")
    train_run(whole, data)
    with pytest.raises(KeyboardInterrupt):
        train_run(cut, data, callback=stop)
    assert cut.record() is None
    train_run(cut, data)
    assert len(cut.finished().sessions) == 2
    models = [run.load(torch.device("cpu")) for run in (whole, cut)]
    assert all(torch.equal(p, q) for p, q in zip(*(m.parameters() for m in models), strict=True))


def test_a_finished_run_is_not_trained_again_and_a_changed_one_is_not_taken_for_it(tmp_path, data, monkeypatch):
    run = tiny(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a finished run, got none"):
        run.finished()
    train_run(run, data)
    assert run.finished().facts["images"] == run.config.images
    monkeypatch.setattr(base, "train", lambda *_, **__: pytest.fail("it trained again"))
    train_run(run, data)
    assert tiny(tmp_path, lr=1e-4).record() is None


def test_a_run_that_diverges_is_recorded_and_does_not_stop_the_others(tmp_path, data, monkeypatch):
    def diverge(model, config, **options):
        if config.seed == 0:
            raise FloatingPointError("step 3: loss nan")
        return train(model, config, **options)

    monkeypatch.setattr(base, "train", diverge)
    runs, lines = [tiny(tmp_path / str(seed), seed=seed) for seed in (0, 1)], []
    train_all(runs, data, device="cpu", log=lines.append)
    assert runs[0].finished().diverged == "step 3: loss nan"
    assert runs[1].finished().facts["steps"] == 6
    assert "diverged, step 3: loss nan" in lines[0]


def test_gradient_norms_cover_every_weight_and_are_logged_before_clipping(tmp_path, data, empty_store):
    shutil.copy(empty_store, tmp_path)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    run = tiny(tmp_path / "run", grad_clip=1e-3)  # every step is clipped
    model = run.model()
    covered = [p for part in depths(model).values() for p in part.parameters()]
    assert {id(p) for p in covered} == {id(p) for p in model.parameters()}
    assert len(covered) == len(list(model.parameters()))

    train_run(run, data, uri=store, callback=lambda run: GradientNorms(run.log_every))
    found = curves(run, store)
    steps, total = found["grad_norm"]
    assert steps == [2, 4, 6]
    parts = [found[name][1] for name in found if name.startswith("gradient/")]
    assert len(parts) == len(depths(model))
    for k, norm in enumerate(total):
        assert math.hypot(*(part[k] for part in parts)) == pytest.approx(norm, rel=1e-4)
        assert norm > 0.01


# What is measured on a network


class Straight(torch.nn.Module):
    """Carries every x straight to one image, at constant speed."""

    def forward(self, x, t):
        t = torch.as_tensor(t).reshape(-1, 1, 1, 1)
        return (torch.full_like(x, 0.5) - x) / (1 - t).clamp(min=1e-6)


def test_straight_paths_are_found_to_be_straight():
    result = straightness(Straight(), torch.device("cpu"), steps=8)
    assert result["departure"] == pytest.approx(0, abs=1e-8)
    assert result["length"] == pytest.approx(1, abs=1e-5)


def test_a_circle_is_not_straight():
    def turn(x, t):  # half a turn in the plane of the image's two halves
        left, right = x.chunk(2, dim=-1)
        return math.pi * torch.cat([-right, left], dim=-1)

    result = straightness(turn, torch.device("cpu"), steps=128)
    assert result["length"] == pytest.approx(math.pi / 2, rel=0.02)
    # chord -2x, speed π|x|: |chord - v|² = 4 + π² - 4π sin(π t), on average 4 + π² - 8; over |chord|² = 4
    assert result["departure"] == pytest.approx((math.pi**2 - 4) / 4, rel=0.02)


def test_loss_over_time_knows_its_errors(data):
    def noise_only(x, t):  # for x_1 = 0 the velocity is -x_0 = -x_t / (1 - t): exact
        return -x / (1 - t).reshape(-1, 1, 1, 1)

    found = loss_over_time(noise_only, torch.zeros(40, 1, 28, 28), bins=4)
    assert found["t"] == [0.125, 0.375, 0.625, 0.875]
    assert max(found["loss"]) < 1e-8
    nothing = loss_over_time(lambda x, t: torch.zeros_like(x), torch.zeros(40, 1, 28, 28), bins=4)
    assert nothing["loss"] == pytest.approx([1.0] * 4, abs=5 * max(nothing["standard_error"]))


def test_a_cache_is_used_for_its_key_only(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"n": len(calls)}

    path = tmp_path / "deep" / "part.json"
    assert [cached(path, {"weights": w}, compute)["n"] for w in ("a", "a", "b", "b")] == [1, 1, 2, 2]


def test_the_time_that_cached_parts_took_adds_up(tmp_path):
    (tmp_path / "config.json").write_text('{"seconds": 5}', encoding="utf-8")  # a run's, not a part's
    assert elapsed(tmp_path) == {"wall": 0, "processor": 0}
    for name in ("one", "deep/two"):
        cached(tmp_path / f"{name}.json", {}, lambda: {"slept": time.sleep(0.05)})
        cached(tmp_path / f"{name}.json", {}, lambda: pytest.fail("it is there"))
    found = elapsed(tmp_path)
    assert 0.1 <= found["wall"] < 5
    assert 0 <= found["processor"] < found["wall"]


def test_samples_are_drawn_once_from_paired_noise_and_grow_by_blocks(tmp_path):
    assert torch.equal(paired_noise(0), paired_noise(0))
    assert not torch.equal(paired_noise(0), paired_noise(1))
    options = dict(method="rk4", nfe=4, device=torch.device("cpu"))
    first = draw_samples(Straight, tmp_path, "a" * 64, count=250, **options)
    assert first.shape == (250, 1, 28, 28)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    same = draw_samples(lambda: pytest.fail("it drew again"), tmp_path, "a" * 64, count=250, **options)
    assert torch.equal(first, same)
    more = draw_samples(Straight, tmp_path, "a" * 64, count=500, **options)
    assert torch.equal(more[:250], first)
    with pytest.raises(ValueError, match="expected a multiple of 4"):
        draw_samples(Straight, tmp_path, "a" * 64, count=250, **{**options, "nfe": 6})


def test_speed_is_measured_in_images_per_second():
    found = speed({"small": BaseUNet((4,), 8)}, torch.device("cpu"), rounds=2, batch=4)
    assert found["clock"] == "process"
    for what in ("training", "evaluation"):
        assert 0 < found["small"][what]["low"] <= found["small"][what]["median"] <= found["small"][what]["high"]


# Intervals


def test_the_interval_over_seeds_is_students():
    found = seed_interval([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.high - 2 == 2 - found.low == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.values == (1, 2, 3)
    assert seed_interval([5.0]).entry() == {"mean": 5, "low": None, "high": None, "values": [5]}
    assert Estimate.read(found.entry()) == found
    with pytest.raises(ValueError, match="values: expected one number a seed, got none"):
        seed_interval([])


def test_differences_are_paired_by_seed():
    found = seed_difference([1.1, 5.1, 9.1], [1.0, 5.0, 9.0])
    assert found.low == pytest.approx(found.high) == pytest.approx(0.1)  # the seeds' spread cancels
    with pytest.raises(ValueError, match="a, b: expected the same seeds in both, got 2 and 1"):
        seed_difference([1.0, 2.0], [1.0])


# The experiments from end to end, small


def small_score(images, training=None, only=""):
    names, low, high = ["neighbour"] if only else ["ink", "frechet"], images.min().item(), images.max().item()
    return {name: {"mean": images.mean().item(), "low": low, "high": high} for name in names}


def recorded(monkeypatch, cls, data):
    """Records go to a dictionary, digits come from the fixture."""
    record: dict = {}
    monkeypatch.setattr(cls, "splits", lambda self: data)
    monkeypatch.setattr(cls, "record", lambda self, values: record.update(values) or self.name)
    return record


def test_compare_trains_evaluates_and_resumes_from_its_caches(tmp_path, data, monkeypatch, empty_store):
    shutil.copy(empty_store, tmp_path)
    small = {n: Network(n, network.model, (8,)) for n, network in NETWORKS.items()}
    record = recorded(monkeypatch, Compare, data)
    experiment = Compare(
        images=256, seeds=(0, 1), samples=250, out=tmp_path, data="sample", device="cpu", networks=small,
        cells=(("euler", 2), ("rk4", 4)), published=("base",), loss_images=20, loss_bins=2, straightness_steps=2,
        metrics=small_score,
    )  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r"expected a finished run, got none.*Run the stage 'train' first"):
        dataclasses.replace(experiment, stage="evaluate").run()
    assert experiment.run() == "recorded in compare"

    assert set(record["networks"]) == {*small, "published-base"}
    facts = record["networks"]["residual"]
    assert facts["images"] == 256
    assert facts["seeds"] == [0, 1]
    assert len(facts["validation_loss"]["values"]) == 2
    cell = record["cells"]["base"]["rk4-4"]["frechet"]
    assert cell["low"] <= cell["mean"] <= cell["high"]
    assert len(cell["samples"]) == 2
    difference = record["differences"]["base minus residual"]["euler-2"]["ink"]
    pairs = zip(*(record["cells"][n]["euler-2"]["ink"]["values"] for n in ("base", "residual")), strict=True)
    assert difference["values"] == pytest.approx([a - b for a, b in pairs])
    assert record["cells"]["published-base"]["euler-2"]["ink"]["low"] is None
    assert record["seconds"]["training"] > 0 < record["seconds"]["evaluation"]["wall"]
    assert len(record["loss_over_time"]["networks"]["base"]["mean"]) == len(record["loss_over_time"]["t"]) == 2
    assert record["speed"]["base"]["training"]["median"] > 0
    json.dumps(record)

    again = dict(record)
    monkeypatch.setattr(base, "train", lambda *_, **__: pytest.fail("it trained again"))
    dataclasses.replace(experiment, metrics=lambda *_: pytest.fail("it evaluated again")).run()
    assert record == again


def test_ablation_trains_evaluates_and_compares_the_variants(tmp_path, data, monkeypatch, empty_store):
    shutil.copy(empty_store, tmp_path)
    names = ("base", "two-convolutions", "residual")
    record = recorded(monkeypatch, Ablation, data)
    Ablation(
        images=128, seeds=(0, 1), samples=250, out=tmp_path, device="cpu", widths=dict.fromkeys(names, (8,)),
        changes={"all": ("base", "residual")}, gradients=("base", "residual"), rates=(TrainConfig.lr, 1e-2),
        log_every=1, sampling=("euler", 2), metrics=small_score,
    ).run()  # fmt: skip
    assert set(record["rungs"]) == set(names)
    assert len(record["rungs"]["residual"]["frechet"]["values"]) == 2
    losses = {name: record["rungs"][name]["validation_loss"]["values"] for name in names}
    change = record["changes"]["all"]["validation_loss"]["values"]
    assert change == pytest.approx([b - a for a, b in zip(losses["base"], losses["residual"], strict=True)])
    assert set(record["rates"]["base"]) == {"0.003", "0.01"}
    assert record["rates"]["base"]["0.01"]["diverged"] == 0
    gradients = record["gradients"]["residual"]
    assert all(len(norms) == len(gradients["step"]) for norms in gradients["norm"].values())
    json.dumps(record)


def test_the_command_line_lists_the_experiments(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fm_book.experiments", "--list"])
    main()
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(EXPERIMENTS)
