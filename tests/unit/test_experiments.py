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

from fm_core.checkpoints import load_model
from fm_core.data import Digits, load_sample
from fm_book.experiments import ablation, compare, runs
from fm_book.experiments.__main__ import main
from fm_book.experiments.ablation import CHANGES, TIME_DIM, WIDTHS, Ablation
from fm_book.experiments.compare import NETWORKS, Compare, Network
from fm_book.experiments.evaluation import (
    cached,
    draw_samples,
    loss_over_time,
    paired_noise,
    speed,
    spent,
    straightness,
)
from fm_book.experiments.intervals import seed_difference, seed_interval
from fm_book.experiments.variants import GROUPS, VARIANTS, VariantConfig, VariantUNet, build_variant
from fm_book.experiments.matching import flops, matched_widths, parameters
from fm_book.experiments.runs import GradientNorms, curves, depths, finished, train_all
from fm_core.models import BaseUNet, PlainBlock, ResidualBlock, UNet, build_model, summary
from fm_core.tracking import MLflowTracker
from fm_core.training import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data():
    sample = load_sample("train")
    return tuple(Digits(sample.images[i : i + 300], sample.labels[i : i + 300], "300 digits") for i in (0, 300))


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A store without runs: making one takes MLflow seconds, copying it none."""
    folder = tmp_path_factory.mktemp("store")
    MLflowTracker(f"sqlite:///{folder}/mlflow.db", system_metrics=False).close()
    return folder / "mlflow.db"


# Matching


def test_the_matched_base_network_has_the_residuals_parameters_and_operations():
    whole, matched = (build_model(NETWORKS[n].model, widths=NETWORKS[n].widths) for n in ("residual", "base-matched"))
    assert parameters(matched) == pytest.approx(parameters(whole), rel=0.02)
    assert flops(matched) == pytest.approx(flops(whole), rel=0.02)
    small = BaseUNet((4, 8), 8)
    assert (parameters(small), flops(small)) == (summary(small).parameters, summary(small).flops)


@pytest.mark.parametrize("name", WIDTHS)
def test_every_rung_has_the_residuals_parameters(name):
    rung, whole = (VariantUNet(n, WIDTHS[n], TIME_DIM) for n in (name, "residual"))
    assert parameters(rung) == pytest.approx(parameters(whole), rel=0.02)


def test_every_change_joins_two_rungs_that_are_trained():
    assert set(WIDTHS) == set(VARIANTS) == {rung for ends in CHANGES.values() for rung in ends}


def test_matched_widths_meet_both_targets_or_say_that_none_do():
    target = BaseUNet((8, 16), 16)
    widths = matched_widths(
        lambda w: BaseUNet(w, 16), (4, 8), parameters(target), target_flops=flops(target), reach=0.2, tolerance=0.01
    )
    assert widths == (8, 16)
    with pytest.raises(ValueError, match=r"no widths near .* × \(4, 8\) meet .* parameters within 0.0%; raise reach"):
        matched_widths(lambda w: BaseUNet(w, 16), (4, 8), parameters(target) + 1, tolerance=1e-5)


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
    with pytest.raises(ValueError, match="variant='bas': the rungs are 'base', 'two-convolutions'"):
        VariantUNet("bas", (8,), 16)


# Runs


def tiny(out, **changes):
    fields = {
        "model": "residual",
        "widths": (8, 16),
        "time_dim": 16,
        "images": 6 * 16,
        "batch_size": 16,
        "eval_images": 32,
        "eval_every": 0,
        "checkpoint_every": 2,
        "log_every": 2,
        "track": False,
        "device": "cpu",
        "precision": "float32",
    }
    return VariantConfig(out=str(out), **{**fields, **changes})


def test_a_rung_resumes_bit_for_bit_and_loads_again(tmp_path, data):
    def stop(step, _):
        if step == 3:
            raise KeyboardInterrupt

    whole = train(tiny(tmp_path / "whole"), data=data, progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(tmp_path / "cut"), data=data, progress=False, callback=stop)
    cut = train(tiny(tmp_path / "cut"), data=data, progress=False)
    assert cut.resumed_at == 2
    again = load_model(tmp_path / "cut", build=build_variant)
    for model in (cut.model, again):
        assert all(torch.equal(p, q) for p, q in zip(whole.model.parameters(), model.parameters(), strict=True))


def test_a_finished_run_is_not_trained_again_and_a_changed_one_is_not_taken_for_it(tmp_path, data, monkeypatch):
    config = tiny(tmp_path)
    assert finished(config) is None
    train_all([config], data, say=lambda _: None)
    assert finished(config)["images"] == config.images
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("it trained again"))
    train_all([config], data, say=lambda _: None)
    assert finished(dataclasses.replace(config, lr=1e-4)) is None


def test_a_training_that_diverges_is_recorded_and_does_not_stop_the_others(tmp_path, data, monkeypatch):
    def diverge(config, **_):
        if config.seed == 0:
            raise FloatingPointError("step 3: loss nan")
        return train(config, data=data, progress=False)

    monkeypatch.setattr(runs, "train", diverge)
    configs = [tiny(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    said = []
    train_all(configs, data, say=said.append)
    assert finished(configs[0])["diverged"] == "step 3: loss nan"
    assert finished(configs[1])["steps"] == 6
    assert "diverged, step 3: loss nan" in said[0]


def test_gradient_norms_cover_every_weight_and_are_logged_before_clipping(tmp_path, data, empty_store):
    shutil.copy(empty_store, tmp_path)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    config = tiny(tmp_path / "run", track=True, tracking_uri=store, grad_clip=1e-3)  # every step is clipped
    model = config.build()
    covered = [p for part in depths(model).values() for p in part.parameters()]
    assert {id(p) for p in covered} == {id(p) for p in model.parameters()}
    assert len(covered) == len(list(model.parameters()))

    train(config, data=data, progress=False, callback=GradientNorms(config.log_every))
    found = curves(config)
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
    (tmp_path / "config.json").write_text('{"seconds": 5}')  # a run's, not a part's
    assert spent(tmp_path) == {"wall": 0, "processor": 0}
    for name in ("one", "deep/two"):
        cached(tmp_path / f"{name}.json", {}, lambda: {"slept": time.sleep(0.05)})
        cached(tmp_path / f"{name}.json", {}, lambda: pytest.fail("it is there"))
    found = spent(tmp_path)
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
    with pytest.raises(ValueError, match="nfe=6, count=250: rk4 takes 4 evaluations a step"):
        draw_samples(Straight, tmp_path, "a" * 64, count=250, **{**options, "nfe": 6})


def test_speed_is_measured_in_images_per_second():
    found = speed({"small": BaseUNet((4,), 8)}, torch.device("cpu"), rounds=2, batch=4)
    assert found["clock"] == "process"
    for what in ("training", "evaluation"):
        assert 0 < found["small"][what]["low"] <= found["small"][what]["median"] <= found["small"][what]["high"]


# Intervals


def test_the_interval_over_seeds_is_students():
    found = seed_interval([1.0, 2.0, 3.0])
    assert found["mean"] == 2
    assert found["high"] - 2 == 2 - found["low"] == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found["values"] == [1, 2, 3]
    assert seed_interval([5.0]) == {"mean": 5, "low": None, "high": None, "values": [5]}
    with pytest.raises(ValueError, match="values is empty"):
        seed_interval([])


def test_differences_are_paired_by_seed():
    found = seed_difference([1.1, 5.1, 9.1], [1.0, 5.0, 9.0])
    assert found["low"] == pytest.approx(found["high"]) == pytest.approx(0.1)  # the seeds' spread cancels
    with pytest.raises(ValueError, match="a holds 2 seeds and b 1"):
        seed_difference([1.0, 2.0], [1.0])


# The experiments from end to end, small


def small_score(images, training=None, only=""):
    names = ["neighbour"] if only else ["ink", "frechet"]
    return {name: [images.mean().item(), images.min().item(), images.max().item()] for name in names}


def test_compare_trains_judges_and_goes_on_from_its_caches(tmp_path, data, monkeypatch, empty_store):
    shutil.copy(empty_store, tmp_path)
    small = {n: Network(n, network.model, (8,)) for n, network in NETWORKS.items()}
    monkeypatch.setattr(compare, "NETWORKS", small)
    monkeypatch.setattr(compare, "CELLS", [("euler", 2), ("rk4", 4)])
    monkeypatch.setattr(compare, "PUBLISHED", {"published-base": "base"})
    monkeypatch.setattr(compare, "LOSS_IMAGES", 20)
    monkeypatch.setattr(compare, "loss_over_time", partial(loss_over_time, bins=2))
    monkeypatch.setattr(compare, "straightness", partial(straightness, steps=2))
    monkeypatch.setattr(compare, "score", small_score)
    monkeypatch.setattr(runs, "digits", lambda *_: data)
    monkeypatch.setattr(runs, "write_record", lambda name, values, **_: record.update(values) or name)
    record: dict = {}
    experiment = Compare(images=256, seeds=(0, 1), samples=250, out=tmp_path, data="sample", device="cpu")
    monkeypatch.setattr(compare, "speed", lambda models, device: {name: {} for name in models})
    with pytest.raises(FileNotFoundError, match=r"not trained yet: .*Run the stage 'train' first"):
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
    assert len(record["loss_over_time"]["networks"]["base"]["mean"]) == len(record["loss_over_time"]["t"])
    json.dumps(record)

    again = dict(record)
    monkeypatch.setattr(compare, "score", lambda *_, **__: pytest.fail("it judged again"))
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("it trained again"))
    experiment.run()
    assert record == again


def test_ablation_trains_judges_and_compares_the_rungs(tmp_path, data, monkeypatch, empty_store):
    shutil.copy(empty_store, tmp_path)
    names = ("base", "two-convolutions", "residual")
    monkeypatch.setattr(ablation, "WIDTHS", dict.fromkeys(names, (8,)))
    monkeypatch.setattr(ablation, "CHANGES", {"all": ("base", "residual")})
    monkeypatch.setattr(ablation, "LADDER", ("base", "residual"))
    monkeypatch.setattr(ablation, "RATES", (VariantConfig.lr, 1e-2))
    monkeypatch.setattr(ablation, "LOGGED", 1)
    monkeypatch.setattr(ablation, "NFE", 2)
    monkeypatch.setattr(ablation, "score", small_score)
    monkeypatch.setattr(runs, "digits", lambda *_: data)
    monkeypatch.setattr(runs, "write_record", lambda name, values, **_: record.update(values) or name)
    record: dict = {}
    Ablation(images=128, seeds=(0, 1), samples=250, out=tmp_path, device="cpu").run()
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
    assert listed == ["train-published", "classifier", "compare", "ablation", "likelihood", "export", "benchmark"]
