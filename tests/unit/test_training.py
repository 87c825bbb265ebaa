"""Training: resume bit for bit, refuse what does not belong, track with a real store."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from fm_core import tracking
from fm_core.checkpoints import CheckpointError
from fm_core.config import TrainConfig, learning_rate
from fm_core.data import Digits, load_sample
from fm_core.tracking import MLflowTracker, NullTracker, load_history, load_snapshots, run_name, snapshot_steps
from fm_core.training import train, validation_loss

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data():
    sample = load_sample("train")
    return tuple(Digits(sample.images[i : i + 80], sample.labels[i : i + 80], "80 digits") for i in (0, 80))


@pytest.fixture
def store(tmp_path):
    return f"sqlite:///{tmp_path}/mlflow.db"


def tiny(out, **changes):
    fields = {
        "model": "residual",
        "widths": (8, 16),
        "time_dim": 16,
        "images": 12 * 16,
        "batch_size": 16,
        "eval_images": 32,
        "eval_every": 4,
        "checkpoint_every": 4,
        "log_every": 2,
        "track": False,
        "device": "cpu",
        "precision": "float32",
    }
    return TrainConfig(out=str(out), **{**fields, **changes})


def stop_at(step):
    def callback(now, _):
        if now == step:
            raise KeyboardInterrupt

    return callback


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("model", ["base", "residual"])
def test_resumed_run_ends_with_the_same_weights_bit_for_bit(tmp_path, data, model):
    whole = train(tiny(tmp_path / "whole", model=model), data=data, progress=False)
    for stop in (3, 6, 11):  # before the first checkpoint, after it, across an epoch's end (80 digits, batches of 16)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(tmp_path / "cut", model=model), data=data, progress=False, callback=stop_at(stop))
    resumed = train(tiny(tmp_path / "cut", model=model), data=data, progress=False)
    assert resumed.resumed_at == 8
    assert same_weights(whole.model, resumed.model)
    assert whole.validation_loss == resumed.validation_loss


def test_finished_run_is_only_loaded_again(tmp_path, data):
    first = train(tiny(tmp_path), data=data, progress=False)
    again = train(tiny(tmp_path), data=data, progress=False, callback=lambda *_: pytest.fail("it trained again"))
    assert again.resumed_at == first.steps
    assert same_weights(first.model, again.model)


def test_same_seed_same_run_other_seed_other_run(tmp_path, data):
    runs = [train(tiny(tmp_path / str(i), seed=seed), data=data, progress=False) for i, seed in enumerate((1, 1, 2))]
    assert same_weights(runs[0].model, runs[1].model)
    assert not same_weights(runs[0].model, runs[2].model)


def test_two_networks_see_the_same_images_in_the_same_order(tmp_path, data, monkeypatch):
    seen = {"base": [], "residual": []}
    import fm_core.session as session

    loss = session.flow_matching_loss
    for name, batches in seen.items():

        def spy(model, x_1, batches=batches, **options):
            if options.get("generator") is not None:  # training, not validation
                batches.append(x_1.sum().item())
            return loss(model, x_1, **options)

        monkeypatch.setattr(session, "flow_matching_loss", spy)
        train(tiny(tmp_path / name, model=name, images=6 * 16), data=data, progress=False)
    assert len(seen["base"]) == 6
    assert seen["base"] == seen["residual"]
    assert len(set(seen["base"][:5])) == 5
    assert sum(seen["base"][:5]) == pytest.approx(data[0].images.sum().item(), rel=1e-4)  # an epoch is every image once


def test_training_learns(tmp_path, data):
    """Predicting zero costs the mean of (x_1 - x_0)², about 1.9; a hundred steps come far below."""
    nothing = validation_loss(lambda x, t: torch.zeros_like(x), data[1].images)
    result = train(tiny(tmp_path, images=100 * 16, eval_every=0), data=data, progress=False)
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
    train(tiny(tmp_path), data=data, progress=False)
    file = tmp_path / "checkpoint.safetensors"
    before = file.read_bytes()
    with pytest.raises(CheckpointError, match=r"lr: 0.003 there, 0.1 here.*left untouched"):
        train(tiny(tmp_path, lr=0.1), data=data, progress=False)
    with pytest.raises(CheckpointError, match="data_sha256"):
        train(tiny(tmp_path), data=(data[1], data[0]), progress=False)
    assert file.read_bytes() == before
    train(tiny(tmp_path, log_every=1), data=data, progress=False)  # how often to look is no part of the recipe


def test_damaged_checkpoint_is_refused_and_untouched(tmp_path, data):
    with pytest.raises(KeyboardInterrupt):
        train(tiny(tmp_path), data=data, progress=False, callback=stop_at(5))
    file = tmp_path / "checkpoint.safetensors"
    damaged = file.read_bytes()[:-1] + b"!"
    file.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="is damaged"):
        train(tiny(tmp_path), data=data, progress=False)
    assert file.read_bytes() == damaged


def test_nan_in_the_data_stops_the_run_and_keeps_the_checkpoint(tmp_path, data):
    bad = data[0].images.clone()
    bad[60:] = math.nan
    with pytest.raises((FloatingPointError, CheckpointError), match=r"untouched"):
        train(tiny(tmp_path, log_every=1), data=(Digits(bad, data[0].labels, "bad"), data[1]), progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: it must be at least 1"),
        ({"images": 3}, "images=3 is less than one batch of 16"),
        ({"lr": -1.0}, "lr=-1.0: it must be positive"),
        ({"lr": math.nan}, "lr=nan: it must be positive"),
        ({"ema_decay": 1.0}, r"ema_decay=1.0: it must be in \[0, 1\)"),
        ({"data": "cifar"}, "data='cifar': choose 'auto', 'mnist', 'sample'"),
        ({"precision": "fp8"}, "precision='fp8': choose"),
        ({"model": "base", "attention": True}, "only the Residual U-Net has attention"),
        ({"eval_every": -1}, "eval_every=-1: it must be at least 0"),
    ],
)
def test_wrong_configurations_are_explained(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny("runs/x", **changes)


def test_batch_larger_than_the_data(tmp_path, data):
    with pytest.raises(ValueError, match="batch_size=96, but there are only 80 training images"):
        train(tiny(tmp_path, batch_size=96), data=data, progress=False)


def test_learning_rate_warms_up_and_falls_to_zero():
    config = tiny("x", images=1000 * 16, warmup=0.1)
    rates = [learning_rate(step, config) for step in range(1000)]
    assert rates[99] == pytest.approx(config.lr) == max(rates)
    assert all(a < b for a, b in pairwise(rates[:100]))
    assert all(a > b for a, b in pairwise(rates[100:]))
    assert 0 < rates[-1] < 1e-5 * config.lr
    assert rates[550] == pytest.approx(config.lr / 2)


# Tracking


def test_run_is_recorded_interrupted_and_continued_in_one_mlflow_run(tmp_path, data, store):
    config = tiny(tmp_path / "run", track=True, tracking_uri=store)
    with pytest.raises(KeyboardInterrupt):
        train(config, data=data, progress=False, callback=stop_at(7))
    client = tracking._client(store)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "KILLED"
    result = train(config, data=data, progress=False)
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run_name(result.run_id, uri=store) == "residual U-Net"

    params = run.data.params
    for name, value in config.recipe().items():
        assert params[name] == str(value)
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
    result = train(tiny(tmp_path / "run", track=True, tracking_uri=store), data=data, progress=False)
    assert snapshot_steps(result.run_id, uri=store) == [4, 8, 12]
    last = load_snapshots(result.run_id, uri=store)
    assert last.x.shape == last.velocity.shape == (21, 8, 1, 28, 28)
    assert last.nfe == 20
    with torch.no_grad():
        torch.testing.assert_close(last.velocity[10], result.model(last.x[10], last.t[10]), atol=0.02, rtol=0.02)
    first = load_snapshots(result.run_id, step=4, uri=store)
    torch.testing.assert_close(first.x[0], last.x[0])  # the same noise every time
    assert not torch.allclose(first.x[-1], last.x[-1])
    with Image.open(tracking._client(store).download_artifacts(result.run_id, "samples/step-00000012.png")) as grid:
        assert np.asarray(grid).std() > 0


def test_missing_runs_and_steps_are_explained(tmp_path, data, store):
    with pytest.raises(ValueError, match=r"run_id='nope' is not in the store.*mlflow ui --backend-store-uri"):
        load_history("nope", uri=store)
    with pytest.raises(ValueError, match="run_id='nope' is not in the store"):
        MLflowTracker(store, run_id="nope")
    tracker = MLflowTracker(store, system_metrics=False)
    tracker.close()
    with pytest.raises(ValueError, match="kept no snapshots"):
        load_snapshots(tracker.run_id, uri=store)
    result = train(tiny(tmp_path / "run", track=True, tracking_uri=store), data=data, progress=False)
    with pytest.raises(ValueError, match=r"step=5: run .* kept snapshots at steps \[4, 8, 12\]"):
        load_snapshots(result.run_id, step=5, uri=store)


def test_store_is_the_argument_else_the_environment_else_sqlite(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.tracking_uri() == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://example.org")
    assert tracking.tracking_uri() == "http://example.org"
    assert tracking.tracking_uri("sqlite:///a.db") == "sqlite:///a.db"


def test_null_tracker_has_every_method_of_the_tracker():
    public = {name for name in dir(MLflowTracker) if not name.startswith("_")}
    assert public <= set(dir(NullTracker))


def test_failed_run_is_marked_failed(tmp_path, data, store):
    def fail(*_):
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        train(tiny(tmp_path, track=True, tracking_uri=store), data=data, progress=False, callback=fail)
    client = tracking._client(store)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FAILED"


def test_recipe_covers_every_field_that_changes_the_weights():
    free = {"out", "device", "log_every", "checkpoint_every", "track", "tracking_uri", "experiment", "compile"}
    assert set(tiny("x").recipe()) == {f.name for f in dataclasses.fields(TrainConfig)} - free
