"""Training against a plain loop, against its limit, and against torchcfm's MNIST example.

Every contender does twelve optimizer steps of the same batch size on digits of the bundled sample, taking turns.
"""

import itertools
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

from fm_core.checkpoints import load_pretrained
from fm_core.data import Digits, load_sample
from fm_core.environment import resolve_device
from fm_core.models import build_model
from fm_core.training import TrainConfig, train

from ._ratio import interleaved_ratio

STEPS, ROUNDS = 12, 9
DEVICE = resolve_device("auto")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The bundled digits as the files of a small MNIST, for torchvision's own data set."""
    sample, root = load_sample(), tmp_path_factory.mktemp("mnist")
    pixels = ((sample.images[:, 0] + 1) * 127.5).round().to(torch.uint8).numpy()
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        header = np.array([0x803, *pixels.shape], dtype=">i4").tobytes()
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = np.array([0x801, len(pixels)], dtype=">i4").tobytes()
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(header + sample.labels.numpy().astype(np.uint8).tobytes())
    return root


def wait():
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def our_loop(name, folder, weights=None):
    """STEPS steps inside train(), timed from callback to callback: its start, validation and files are left out."""
    sample = load_sample(device=DEVICE)
    data = sample, Digits(sample.images[:1], sample.labels[:1], "one")
    config = TrainConfig(images=(STEPS + 1) * TrainConfig.batch_size)
    runs = itertools.count()

    def run():
        model, marks = build_model(name), []
        if weights is not None:
            model.load_state_dict(weights)

        def mark(step, _):
            if step in (1, STEPS + 1):
                wait()
                marks.append((time.perf_counter(), time.process_time()))

        options = {"device": DEVICE, "eval_every": 0, "progress": False, "callback": mark}
        train(model, config, data=data, out=folder / f"{name}-{next(runs)}", **options)
        return tuple(end - start for start, end in zip(*marks, strict=True))

    return run


def plain_loop(name, folder, weights=None):
    """What a tutorial writes: DataLoader, ToTensor, float32, one optimizer step after the other."""
    data = MNIST(folder, transform=transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]))
    config = TrainConfig()
    model = build_model(name).to(DEVICE)
    if weights is not None:
        model.load_state_dict(weights)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr)

    def batches():
        while True:
            yield from DataLoader(data, batch_size=config.batch_size, shuffle=True, drop_last=True)

    stream = batches()

    def run():
        for _ in range(STEPS):
            x_1 = next(stream)[0].to(DEVICE)
            x_0, t = torch.randn_like(x_1), torch.rand(len(x_1), device=DEVICE)
            s = t[:, None, None, None]
            loss = (model((1 - s) * x_0 + s * x_1, t) - (x_1 - x_0)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        wait()

    return run


def bare_steps(name):
    """Forward, backward and step on one batch that lies ready: the limit of any loop around this network."""
    config = TrainConfig()
    model = build_model(name).to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, fused=True)
    x, t = torch.randn(config.batch_size, 1, 28, 28, device=DEVICE), torch.rand(config.batch_size, device=DEVICE)
    target = torch.randn_like(x)

    def run():
        for _ in range(STEPS):
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
                loss = (model(x, t) - target).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        loss.item()
        wait()

    return run


def finish(result, goal, record, name, note=""):
    """Goals are stated as speed, so ``speedup`` is the reference's time over ours."""
    result["speedup"] = 1 / result["ratio"]
    result |= {"goal": 1 / goal, "goal_speedup": goal, "met": result["speedup"] >= goal}
    if note and not result["met"]:
        result["note"] = note
    record(name, result)
    return result


@pytest.mark.parametrize("name", ["base", "residual"])
def test_train_against_a_plain_loop(name, folder, tmp_path, record):
    result = interleaved_ratio(our_loop(name, tmp_path), plain_loop(name, folder), ROUNDS)
    goal = 5.0 if DEVICE.type == "cuda" else 1.7
    note = (
        "without matrix units for bfloat16 both loops spend nearly all of their time in the same float32 convolutions"
    )
    finish(result, goal, record, f"training: train() / plain loop, {name}", note)
    assert result["cpu_ratio"] < 1.05


def test_train_against_a_plain_loop_where_denormals_have_come(folder, tmp_path, record):
    """The Base U-Net as trained: its backward pass is full of denormal numbers, which train() flushes to zero."""
    weights = load_pretrained("base").state_dict()
    result = interleaved_ratio(our_loop("base", tmp_path, weights), plain_loop("base", folder, weights), ROUNDS)
    finish(result, 1.7, record, "training: train() / plain loop, base after its training")
    assert result["cpu_ratio"] < 1.05


@pytest.mark.parametrize("name", ["base", "residual"])
def test_train_against_its_limit(name, tmp_path, record):
    result = interleaved_ratio(our_loop(name, tmp_path), bare_steps(name), ROUNDS)
    note = "the rest is drawing noise, gathering the batch, clipping the gradient and the moving average"
    finish(result, 0.95, record, f"training: train() / bare steps, {name}", note)
    assert result["cpu_ratio"] < 1.25


def test_step_per_parameter_against_torchcfm(tmp_path, record):
    """torchcfm's MNIST example trains UNetModel(dim=(1, 28, 28), num_channels=32, num_res_blocks=1)."""
    unet = pytest.importorskip("torchcfm.models.unet")
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    theirs = unet.UNetModel(dim=(1, 28, 28), num_channels=32, num_res_blocks=1).to(DEVICE)
    optimizer = torch.optim.Adam(theirs.parameters())
    matcher, digits, size = ConditionalFlowMatcher(sigma=0.0), load_sample(device=DEVICE).images, 128

    def run():
        for i in range(STEPS):
            x_1 = digits[i * size : (i + 1) * size]
            t, x_t, u_t = matcher.sample_location_and_conditional_flow(torch.randn_like(x_1), x_1)
            loss = (theirs(t, x_t) - u_t).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()
        wait()

    result = interleaved_ratio(our_loop("residual", tmp_path), run, ROUNDS)
    ours = sum(p.numel() for p in load_pretrained("residual").parameters())
    result["parameters"], result["reference_parameters"] = ours, sum(p.numel() for p in theirs.parameters())
    result["ratio_per_parameter"] = result["ratio"] * result["reference_parameters"] / result["parameters"]
    note = "time of a training step, not divided by parameters; ratio_per_parameter divides both sides by them"
    record("training: step of residual / step of torchcfm's example", result | {"note": note})
    assert result["cpu_ratio"] < 2


def test_import_is_light(record):
    """``import fm_core`` on top of ``import torch``, in fresh interpreters."""
    import subprocess
    import sys
    import time

    def start(code):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - begin

    pairs = [(start("import torch, fm_core"), start("import torch")) for _ in range(7)]
    extra = sorted(with_us - without for with_us, without in pairs)
    record("import fm_core", {"seconds": extra[3], "lo": extra[1], "hi": extra[5], "goal": 0.2, "met": extra[3] < 0.2})
    assert extra[3] < 0.4
