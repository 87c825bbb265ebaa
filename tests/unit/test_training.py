"""Training: resume bit for bit, refuse what does not belong, track with a real store."""

import math
import re
from itertools import pairwise

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fm_core import tracking
from fm_core.checkpoints import CheckpointError, load_model
from fm_core.data import Digits, load_sample, toy_2d
from fm_core.losses import flow_matching_loss, validation_loss
from fm_core.models import PlainBlock, UNet, build_model
from fm_core.tracking import MemoryTracker, MLflowTracker, NullTracker, load_history, load_snapshots, snapshot_steps
from fm_core.training import TrainConfig, learning_rate, train

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = {"images": 12 * 16, "batch_size": 16, "precision": "float32"}


@pytest.fixture(scope="module")
def data():
    sample = load_sample("train")
    return tuple(Digits(sample.images[i : i + 80], sample.labels[i : i + 80], "80 digits") for i in (0, 80))


@pytest.fixture
def store(tmp_path):
    return f"sqlite:///{tmp_path}/mlflow.db"


def run(out, data, *, model="residual", **changes):
    """A short run: changes go to TrainConfig where it has the field, else to train()."""
    fields = {name: changes.pop(name) for name in list(changes) if name in TrainConfig.__dataclass_fields__}
    if isinstance(model, str):
        torch.manual_seed(fields.get("seed", 0))
        model = build_model(model, widths=(8, 16), time_dim=16)
    often = {"eval_images": 32, "eval_every": 4, "checkpoint_every": 4, "log_every": 2}
    options = {**often, "device": "cpu", "progress": False, **changes}
    return train(model, TrainConfig(**{**RECIPE, **fields}), data=data, out=out, **options)


def tracked(store):
    return MLflowTracker(store, run_name="a run", system_metrics=False)


class Mlp(nn.Module):
    """A velocity in the plane."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 32), nn.GELU(), nn.Linear(32, 2))

    def forward(self, x, t):
        return self.net(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], dim=1))


def stop_at(step):
    def callback(now, _):
        if now == step:
            raise KeyboardInterrupt

    return callback


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("model", ["base", "residual"])
def test_resumed_run_ends_with_the_same_weights_bit_for_bit(tmp_path, data, model):
    whole = run(tmp_path / "whole", data, model=model)
    for stop in (3, 6, 11):  # before the first checkpoint, after it, across an epoch's end (80 digits, batches of 16)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", data, model=model, callback=stop_at(stop))
    resumed = run(tmp_path / "cut", data, model=model)
    assert resumed.resumed_at == 8
    assert same_weights(whole.model, resumed.model)
    assert whole.validation_loss == resumed.validation_loss


def test_finished_run_is_only_loaded_again(tmp_path, data):
    first = run(tmp_path, data)
    again = run(tmp_path, data, callback=lambda *_: pytest.fail("it trained again"))
    assert again.resumed_at == first.steps == 12
    assert same_weights(first.model, again.model)


def test_same_seed_same_run_other_seed_other_run(tmp_path, data):
    runs = [run(tmp_path / str(i), data, seed=seed) for i, seed in enumerate((1, 1, 2))]
    assert same_weights(runs[0].model, runs[1].model)
    assert not same_weights(runs[0].model, runs[2].model)


def test_two_networks_see_the_same_images_in_the_same_order(tmp_path, data):
    seen = {"base": [], "residual": []}
    for name, batches in seen.items():

        def loss(model, x_1, *, generator, batches=batches):
            batches.append(x_1.sum().item())
            return flow_matching_loss(model, x_1, generator=generator)

        run(tmp_path / name, data, model=name, images=6 * 16, loss=loss)
    assert len(seen["base"]) == 6
    assert seen["base"] == seen["residual"]
    assert sum(seen["base"][:5]) == pytest.approx(data[0].images.sum().item(), rel=1e-4)  # an epoch is every image once


def test_own_network_on_points_in_the_plane(tmp_path):
    torch.manual_seed(0)
    points = toy_2d("two_moons", 1024, generator=torch.Generator().manual_seed(0))
    before = validation_loss(Mlp(), points[512:])
    tracker = MemoryTracker()
    result = run(tmp_path, (points[:512], points[512:]), model=Mlp(), images=200 * 16, tracker=tracker, lr=1e-2)
    assert result.validation_loss < 0.9 * before
    assert tracker.curves["validation_loss"][1][-1] == result.validation_loss
    assert same_weights(load_model(tmp_path, model=Mlp()), result.model)


def test_unet_with_a_block_of_ones_own(tmp_path, data):
    class Block(PlainBlock):
        pass

    result = run(tmp_path, data, model=UNet(Block, (8, 16), 16))
    assert math.isfinite(result.validation_loss)
    assert same_weights(load_model(tmp_path, model=UNet(Block, (8, 16), 16)), result.model)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            UNet(PlainBlock, (8,), 16, channels=3),
            "expected a velocity model(x, t) for x of shape (B, 1, 28, 28)",
        ),
        (nn.Linear(28, 28), "model: expected a velocity model(x, t)"),
        (nn.Identity(), "model: expected an nn.Module with parameters to train, got Identity"),
        (lambda x, t: x, "model: expected an nn.Module with parameters to train, got function"),
    ],
    ids=["channels", "one argument", "no parameters", "function"],
)
def test_what_is_no_velocity_is_refused_before_the_first_step(tmp_path, data, model, message):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=re.escape(message)):
        run(out, data, model=model, callback=lambda *_: pytest.fail("it trained"))
    assert not out.exists()


def test_wrong_output_shape_is_refused_before_the_first_step(tmp_path, data):
    class Score(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x, t):
            return self.weight * x.mean(dim=(2, 3))

    with pytest.raises(ValueError, match=r"model\(x, t\) of the shape of x, \(2, 1, 28, 28\), got shape \(2, 1\)"):
        run(tmp_path / "run", data, model=Score())
    assert not (tmp_path / "run").exists()


def test_training_learns(tmp_path, data):
    """Predicting zero costs the mean of (x_1 - x_0)², about 1.9; a hundred steps come far below."""
    nothing = validation_loss(lambda x, t: torch.zeros_like(x), data[1].images)
    result = run(tmp_path, data, images=100 * 16, eval_every=0)
    assert nothing > 1.5
    assert result.validation_loss < 0.5 * nothing
    assert not result.model.training


def test_validation_draws_are_fixed(data):
    def model(x, t):
        return x

    assert validation_loss(model, data[1].images) == validation_loss(model, data[1].images)
    assert validation_loss(model, data[1].images, batch_size=7) == pytest.approx(
        validation_loss(model, data[1].images, batch_size=80), rel=1e-5
    )


def test_checkpoint_of_another_recipe_is_refused_and_untouched(tmp_path, data):
    run(tmp_path, data)
    file = tmp_path / "checkpoint.safetensors"
    before = file.read_bytes()
    with pytest.raises(CheckpointError, match=r"lr"):
        run(tmp_path, data, lr=0.1)
    with pytest.raises(CheckpointError, match="model"):
        run(tmp_path, data, model="base")
    with pytest.raises(CheckpointError, match="data_sha256"):
        run(tmp_path, data[::-1])
    assert file.read_bytes() == before
    run(tmp_path, data, log_every=1)  # how often to look is no part of the recipe


def test_damaged_checkpoint_is_refused_and_untouched(tmp_path, data):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, data, callback=stop_at(5))
    file = tmp_path / "checkpoint.safetensors"
    damaged = file.read_bytes()[:-1] + b"!"
    file.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="damaged"):
        run(tmp_path, data)
    assert file.read_bytes() == damaged


def test_a_run_that_diverges_stops_and_keeps_the_checkpoint(tmp_path, data):
    with pytest.raises((FloatingPointError, CheckpointError), match="untouched"):
        run(tmp_path, data, log_every=1, lr=1e30, warmup=0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: torch.where(torch.arange(80).reshape(-1, 1, 1, 1) == 60, math.nan, x),
            "in 1 of 80, the first is 60",
        ),
        (lambda x: (x + 1) / 2, r"expected pixels in \[-1, 1\], got \[0, 1\]. Use 2 \* x - 1"),
        (lambda x: (x + 1) * 127.5, r"expected pixels in \[-1, 1\], got \[0, 255\]"),
    ],
    ids=["NaN", "[0, 1]", "[0, 255]"],
)
def test_wrong_pixels_are_refused_before_the_first_step(tmp_path, data, change, message):
    for place, name in enumerate(("train", "test")):
        sets = list(data)
        sets[place] = Digits(change(data[place].images), data[place].labels, "bad")
        with pytest.raises(ValueError, match=f"data, {name} set: .*{message}"):
            run(tmp_path / "run", tuple(sets), callback=lambda *_: pytest.fail("it trained"))


@pytest.mark.parametrize("wrong", [{"data": 3}, {"data": (3, 4)}, {"out": None}, {"eval_images": 1.5}], ids=str)
def test_wrong_types_are_refused_by_name(tmp_path, data, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        train(Mlp(), TrainConfig(**RECIPE), **{"data": data, "out": tmp_path, **wrong})
    with pytest.raises(ValueError, match="config: expected a TrainConfig"):
        train(Mlp(), {"images": 3}, data=data, out=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, got 0"),
        ({"images": 3}, "images: expected at least one batch of 16, got 3"),
        ({"lr": -1.0}, "lr: expected a number above 0, got -1.0"),
        ({"lr": math.nan}, "lr: expected a number above 0, got nan"),
        ({"ema_decay": 1.0}, "ema_decay: expected a number at least 0 and below 1, got 1.0"),
        ({"precision": "fp8"}, "precision: expected one of"),
    ],
)
def test_wrong_configurations_are_explained(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{**RECIPE, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 96}, "batch_size: expected at most the 80 training items, got 96"),
        ({"eval_every": -1}, "eval_every: expected a whole number of at least 0, got -1"),
        ({"log_every": 0}, "log_every: expected a whole number of at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_explained(tmp_path, data, changes, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, data, **changes)


def test_learning_rate_warms_up_and_falls_to_zero():
    config = TrainConfig(images=1000 * 16, batch_size=16, warmup=0.1)
    rates = [learning_rate(step, config) for step in range(1000)]
    assert rates[99] == pytest.approx(config.lr) == max(rates)
    assert all(a < b for a, b in pairwise(rates[:100]))
    assert all(a > b for a, b in pairwise(rates[100:]))
    assert 0 < rates[-1] < 1e-5 * config.lr
    assert rates[550] == pytest.approx(config.lr / 2)


# Tracking


def only_run(store):
    client = mlflow.MlflowClient(tracking_uri=store)
    [found] = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return client, found


def test_run_is_recorded_interrupted_and_continued_in_one_mlflow_run(tmp_path, data, store):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", data, tracker=tracked(store), callback=stop_at(7))
    assert only_run(store)[1].info.status == "KILLED"
    result = run(tmp_path / "run", data, tracker=tracked(store))
    client, found = only_run(store)
    assert found.info.run_id == result.run_id
    assert found.info.status == "FINISHED"
    assert tracking.run_name(result.run_id, uri=store) == "a run"

    params = found.data.params
    assert {name: params[name] for name in RECIPE} == {name: str(value) for name, value in RECIPE.items()}
    assert {"git_commit", "device", "data_sha256", "version.torch", "parameters"} <= params.keys()

    history = load_history(result.run_id, uri=store)
    assert history["loss"][0].tolist() == [2, 4, 6, 8, 10, 12]
    assert history["validation_loss"][0].tolist() == [4, 8, 12]
    assert history["validation_loss"][1][-1] == result.validation_loss
    assert {"grad_norm", "lr", "images_per_second"} <= history.keys()

    artifacts = {f.path for f in client.list_artifacts(result.run_id)}
    assert {"config.json", "model.safetensors", "samples", "snapshots", "samples.gif"} <= artifacts
    assert len(client.list_artifacts(result.run_id, "samples")) == 3


def test_snapshots_come_back_as_the_trajectory(tmp_path, data, store):
    result = run(tmp_path / "run", data, tracker=tracked(store))
    assert snapshot_steps(result.run_id, uri=store) == [4, 8, 12]
    last = load_snapshots(result.run_id, uri=store)
    assert last.x.shape == last.velocity.shape == (21, 8, 1, 28, 28)
    assert last.nfe == 20
    with torch.no_grad():
        torch.testing.assert_close(last.velocity[10], result.model(last.x[10], last.t[10]), atol=0.02, rtol=0.02)
    first = load_snapshots(result.run_id, step=4, uri=store)
    torch.testing.assert_close(first.x[0], last.x[0])  # the same noise every time
    assert not torch.allclose(first.x[-1], last.x[-1])
    client, _ = only_run(store)
    with Image.open(client.download_artifacts(result.run_id, "samples/step-00000012.png")) as grid:
        assert np.asarray(grid).std() > 0
    with pytest.raises(ValueError, match=r"step: expected one of \[4, 8, 12\].*got 5"):
        load_snapshots(result.run_id, step=5, uri=store)


def test_missing_runs_and_snapshots_are_explained(tmp_path, store):
    with pytest.raises(ValueError, match=r"run_id: expected a run in the store.*'nope'.*mlflow ui"):
        load_history("nope", uri=store)
    assert not (tmp_path / "mlflow.db").exists()  # reading makes nothing
    tracker = tracked(store)
    run_id = tracker.start("lost")
    tracker.close()
    assert only_run(store)[1].data.tags["fm_core.lost_run"] == "lost"
    with pytest.raises(ValueError, match="expected a run with snapshots"):
        load_snapshots(run_id, uri=store)


def test_store_is_the_argument_else_the_environment_else_sqlite(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.tracking_uri() == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://example.org")
    assert tracking.tracking_uri() == "http://example.org"
    assert tracking.tracking_uri("sqlite:///a.db") == "sqlite:///a.db"


def test_null_tracker_has_every_method_of_the_tracker():
    public = {name for name, thing in vars(MLflowTracker).items() if not name.startswith("_") and callable(thing)}
    assert {"start", "log_metrics", "close"} <= public <= set(dir(NullTracker))


def test_failed_run_is_marked_failed(tmp_path, data, store):
    def fail(*_):
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        run(tmp_path, data, tracker=tracked(store), callback=fail)
    assert only_run(store)[1].info.status == "FAILED"
