"""The package as a whole: light to import, every public name where it says, the command line."""

import importlib
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import fm_core
from fm_core.__main__ import main


def test_import_loads_nothing_heavy():
    heavy = ["torch", "torchvision", "mlflow", "matplotlib", "ipywidgets", "IPython", "tyro", "PIL", "imageio"]
    code = f"import fm_core, sys; sys.exit(str([m for m in {heavy} if m in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_every_public_name_loads():
    for name in fm_core.__all__:
        assert getattr(fm_core, name) is not None
    assert set(fm_core.__all__) <= set(dir(fm_core))
    with pytest.raises(AttributeError, match=r"has no attribute 'trian'; it has .*train"):
        fm_core.trian  # noqa: B018


def test_every_module_explains_itself_and_lists_its_names():
    for module in pkgutil.walk_packages(fm_core.__path__, "fm_core."):
        if module.name.endswith("__main__"):
            continue
        loaded = importlib.import_module(module.name)
        assert loaded.__doc__, module.name
        for name in getattr(loaded, "__all__", []):
            thing = getattr(loaded, name)
            if callable(thing) and getattr(thing, "__module__", "").startswith("fm_core"):
                assert thing.__doc__, f"{module.name}.{name} has no docstring"


def test_sample_command_writes_a_picture(tmp_path, capsys):
    out = tmp_path / "new folder" / "digits.png"
    assert main(["sample", "--digits", "4", "--steps", "2", "--method", "heun", "--out", str(out)]) == 0
    assert "4 digits of residual, heun, NFE 4" in capsys.readouterr().out
    with Image.open(out) as picture:
        assert np.asarray(picture).std() > 0


def test_gif_command_writes_a_film_of_both_networks(tmp_path, capsys):
    out = tmp_path / "both.gif"
    assert main(["gif", "--samples", "2", "--steps", "3", "--frames", "4", "--out", str(out)]) == 0
    assert "Residual U-Net above Base U-Net" in capsys.readouterr().out
    with Image.open(out) as film:
        assert film.n_frames == 4


def test_velocity_command_writes_a_figure(tmp_path):
    out = tmp_path / "velocity.png"
    assert main(["velocity", "--model", "base", "--steps", "4", "--times", "0", "0.5", "1", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert np.asarray(picture).std() > 0


def test_train_sample_and_gif_from_two_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    small = ["--widths", "8", "--time-dim", "8", "--images", "64", "--batch-size", "32", "--data", "sample"]
    ids = []
    for model in ("base", "residual"):
        assert main(["train", "--model", model, *small, "--eval-images", "8", "--tracking-uri", store]) == 0
        said = capsys.readouterr().out.strip().splitlines()[-1]
        assert f"network in runs/{model}" in said
        ids.append(said.rsplit("run ", 1)[1])
    assert main(["sample", "--model", "runs/base", "--digits", "1", "--steps", "1", "--out", "one.png"]) == 0
    assert (
        main(["gif", "--runs", *ids, "--tracking-uri", store, "--samples", "2", "--frames", "3", "--out", "r.gif"]) == 0
    )
    assert "base U-Net above residual U-Net" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--model", "nonsense"], "neither a published network"),
        (["gif", "--runs", "nope", "--tracking-uri", "sqlite:///{tmp}/x.db"], "is not in the store"),
        (["train", "--batch-size", "0"], "it must be at least 1"),
        (["sample", "--steps", "0"], "steps"),
    ],
)
def test_mistakes_end_with_a_message_not_a_traceback(arguments, message, capsys, tmp_path):
    try:
        code = main([a.replace("{tmp}", str(tmp_path)) for a in arguments])
    except SystemExit as end:  # tyro explains mistakes in the configuration itself
        code = end.code
    assert code == 2
    assert message in capsys.readouterr().err
