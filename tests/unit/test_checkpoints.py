"""Weights and checkpoints on disk: atomic, checked, never a pickle."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fm_core.checkpoints import (
    CheckpointError,
    load_checkpoint,
    load_model,
    load_pretrained,
    pretrained_card,
    pretrained_history,
    save_checkpoint,
    save_model,
    write_atomically,
)
from fm_core.models import BaseUNet, ResidualUNet

TENSORS = {"model.w": torch.arange(6.0).reshape(2, 3), "random.state": torch.arange(4, dtype=torch.uint8)}


def test_checkpoint_round_trip(tmp_path):
    file = tmp_path / "run" / "checkpoint.safetensors"
    save_checkpoint(file, TENSORS, {"step": 7, "recipe": {"lr": 0.1}})
    tensors, state = load_checkpoint(file)
    assert state == {"step": 7, "recipe": {"lr": 0.1}}
    assert all(torch.equal(tensors[k], v) and tensors[k].dtype == v.dtype for k, v in TENSORS.items())
    assert [f.name for f in file.parent.iterdir()] == ["checkpoint.safetensors"]  # no parts left behind


def test_nan_is_never_written_over_a_good_checkpoint(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    save_checkpoint(file, TENSORS, {"step": 1})
    before = file.read_bytes()
    with pytest.raises(CheckpointError, match=r"got NaN or infinity in 1, the first is 'model.w'"):
        save_checkpoint(file, {"model.w": torch.tensor([1.0, float("nan")])}, {"step": 2})
    assert file.read_bytes() == before


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "x.json"
    write_atomically(file, b"old")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, b"new, but only half writ")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_one_flipped_bit_anywhere_is_noticed_and_the_file_left_alone(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    save_checkpoint(file, TENSORS, {"step": 1})
    good = file.read_bytes()
    for where in range(len(good)):
        content = bytearray(good)
        content[where] ^= 4
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match="left untouched"):
            load_checkpoint(file)
        assert file.read_bytes() == content


def test_truncated_and_foreign_files_are_refused(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    save_checkpoint(file, TENSORS, {"step": 1})
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="expected a readable safetensors file"):
        load_checkpoint(file)
    file.write_bytes(b"PK\x03\x04 a pickle in a zip")
    with pytest.raises(CheckpointError, match="expected a readable safetensors file"):
        load_checkpoint(file)
    save_file({"w": torch.zeros(2)}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match="expected format"):
        load_checkpoint(file)
    with pytest.raises(FileNotFoundError, match="expected a safetensors file, got no such file"):
        load_checkpoint(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("model", [BaseUNet((8, 16), 16), ResidualUNet((8, 16), 16, attention=True)])
@pytest.mark.parametrize("half", [False, True])
def test_model_round_trip(tmp_path, model, half):
    save_model(tmp_path, model, half=half, images=12)
    again = load_model(tmp_path)
    assert type(again) is type(model)
    assert again.config == model.config
    assert not again.training
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        assert q.dtype == torch.float32
        assert torch.equal(q, p.half().float() if half else p)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["training"] == {"images": 12}


def test_swapped_weights_are_noticed(tmp_path):
    save_model(tmp_path / "a", BaseUNet((8,), 16))
    save_model(tmp_path / "b", BaseUNet((8,), 16))
    (tmp_path / "a/model.safetensors").write_bytes((tmp_path / "b/model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="expected SHA-256"):
        load_model(tmp_path / "a")


def test_weights_that_do_not_fit_are_explained(tmp_path):
    save_model(tmp_path, BaseUNet((8,), 16))
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config["model"]["widths"] = [16]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match="expected weights of a BaseUNet"):
        load_model(tmp_path)


def test_any_module_is_saved_and_takes_its_weights_back(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    save_model(tmp_path, model)
    own = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    assert load_model(tmp_path, model=own) is own
    assert all(torch.equal(p, q) for p, q in zip(model.state_dict().values(), own.state_dict().values(), strict=True))
    with pytest.raises(CheckpointError, match=r"got 'Sequential'. Pass the network"):
        load_model(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_reading_leaves_no_file_mapped(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    save_checkpoint(file, TENSORS, {})
    tensors, _ = load_checkpoint(file)
    assert str(file) not in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert len(tensors) == 2


@pytest.mark.parametrize("name", ["base", "residual"])
def test_published_networks_are_whole_and_small(name):
    model, card = load_pretrained(name), pretrained_card(name)  # load_pretrained checks the hash
    assert card["name"] == name
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    assert card["training"]["images"] >= 1_200_000
    assert card["training"]["half_precision_change"] < 16  # grey levels of 255, the worst of 50,176 pixels
    with torch.no_grad():
        assert torch.isfinite(model(torch.randn(2, 1, 28, 28), 0.5)).all()


@pytest.mark.parametrize("name", ["base", "residual"])
def test_published_curves_end_where_the_card_says(name):
    history, training = pretrained_history(name), pretrained_card(name)["training"]
    assert set(history) == {"loss", "validation_loss", "grad_norm", "lr", "images_per_second"}
    assert history["loss"]["step"][-1] == training["steps"]
    assert history["validation_loss"]["value"][-1] == pytest.approx(training["validation_loss"], rel=1e-4)


def test_both_published_networks_had_the_same_recipe():
    base, residual = (pretrained_card(name)["training"] for name in ("base", "residual"))
    assert base["recipe"] | {"model": ""} == residual["recipe"] | {"model": ""}
    assert base["data"] == residual["data"]
    assert base["images"] == residual["images"]


@pytest.mark.parametrize("load", [load_pretrained, pretrained_card, pretrained_history])
def test_unknown_published_network(load):
    with pytest.raises(ValueError, match="'base', 'residual'"):
        load("resnet50")


@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"model": {"widths": 8}},
        {"model": {"widths": [8], "time_dim": 8, "evil": 1}},
        {"model": {"widths": [1_000_000, 1_000_000], "time_dim": 8}},
        {"model": {"widths": [8], "time_dim": 10**9}},
        {"name": ["base"]},
        {"name": None},
    ],
    ids=str,
)
def test_a_changed_config_is_a_checkpoint_error_and_takes_no_memory(tmp_path, change):
    save_model(tmp_path, BaseUNet((8,), 8))
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(CheckpointError, match="expected"):
        load_model(tmp_path)


def test_weights_that_half_precision_cannot_hold_are_refused(tmp_path):
    model = torch.nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1e6)
    with pytest.raises(ValueError, match="model: expected finite weights, got 'weight'"):
        save_model(tmp_path, model, half=True)
    assert not list(tmp_path.iterdir())
    save_model(tmp_path, model)
