"""The package as a whole: light to import, every public name where it says, the command line."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fm_core
from fm_core import load_pretrained, sample
from fm_core.__main__ import main
from fm_core.few_steps import load_pairs


def in_fresh_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_nothing_heavy():
    """Beyond what torch loads itself."""
    heavy = [
        "torchvision",
        "mlflow",
        "matplotlib",
        "ipywidgets",
        "IPython",
        "tyro",
        "PIL",
        "imageio",
        "scipy",
        "torchdiffeq",
    ]
    code = (
        "import sys, torch; before = set(sys.modules); import fm_core; print(*(set({}) & (set(sys.modules) - before)))"
    )
    assert in_fresh_python(code.format(heavy)) == ""


def test_every_public_name_loads():
    for name in fm_core.__all__:
        assert getattr(fm_core, name) is not None


@pytest.mark.parametrize(
    ("package", "code", "extra"),
    [
        (
            "torchdiffeq",
            "import torch, fm_core; fm_core.sample(lambda x, t: x, torch.ones(2), method='dopri5')",
            "adaptive",
        ),
        ("mlflow", "from fm_core.tracking import MLflowTracker; MLflowTracker()", "tracking"),
        ("tyro", "from fm_core.__main__ import main; main(['sample'])", "cli"),
    ],
)
def test_missing_extra_is_named(package, code, extra):
    caught = f"""
import sys
from pathlib import Path
sys.modules[{package!r}] = None
try:
    {code.replace("; ", chr(10) + "    ")}
except ImportError as error:
    print(error)
"""
    assert f"fm-core[{extra}]" in in_fresh_python(caught)


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
    assert "4 digits of residual, heun, 2 steps" in capsys.readouterr().out
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
        assert main(["train", "--model", model, *small, "--tracking-uri", store]) == 0
        said = capsys.readouterr().out.strip().splitlines()[-1]
        assert f"network in runs/{model}" in said
        ids.append(said.rsplit("run ", 1)[1])
    assert main(["sample", "--model", "runs/base", "--digits", "1", "--steps", "1", "--out", "one.png"]) == 0
    assert (
        main(["gif", "--runs", *ids, "--tracking-uri", store, "--samples", "2", "--frames", "3", "--out", "r.gif"]) == 0
    )
    assert "base U-Net above residual U-Net" in capsys.readouterr().out


def test_labels_from_training_to_a_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--widths", "8", "--time-dim", "8", "--images", "64", "--batch-size", "32", "--data", "sample"]
    assert main(["train", *small, "--classes", "10", "--label-dropout", "0.2", "--out", "run", "--no-track"]) == 0
    asked = ["--labels", "3", "7", "--guidance", "1.5", "--digits", "5", "--steps", "1"]
    assert main(["sample", "--model", "run", *asked, "--out", "asked.png"]) == 0
    assert "asked for 3, 7, guidance 1.5" in capsys.readouterr().out
    assert Path("asked.png").exists()


def test_pairs_command_writes_noise_and_samples(tmp_path, capsys):
    out = tmp_path / "pairs"
    for _ in range(2):  # the second call finds them there
        assert main(["pairs", "--count", "3", "--steps", "2", "--out", str(out)]) == 0
        assert "3 pairs of residual, euler, 2 steps" in capsys.readouterr().out
    noise, images = load_pairs(out)
    drawn = sample(load_pretrained("residual"), noise, 2, progress=False)
    assert (drawn - images).abs().max() < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--model", "nonsense"], "or the folder of a run"),
        (["sample", "--labels", "3"], "model: expected one with classes"),
        (["pairs", "--count", "0"], "count: expected a whole number of at least 1"),
        (["gif", "--runs", "nope", "--tracking-uri", "sqlite:///{tmp}/x.db"], "expected a run in the store"),
        (["train", "--batch-size", "0"], "batch_size: expected a whole number of at least 1"),
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
