"""Labels in the networks and in training, and classifier-free guidance."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from fm_core import (
    BaseUNet,
    Digits,
    ExactLabelledVelocity,
    ExactVelocity,
    ResidualUNet,
    TrainConfig,
    flow_matching_loss,
    guided,
    sample,
    train,
    validation_loss,
)
from fm_core.checkpoints import CheckpointError, load_model

SMALL = {"widths": (8, 16), "time_dim": 16}
GENERATOR = torch.Generator().manual_seed(0)
X, T, Y = (
    torch.randn(6, 1, 8, 8, generator=GENERATOR),
    torch.rand(6, generator=GENERATOR),
    torch.tensor([0, 1, 2, 0, 1, 2]),
)
NETWORKS = [BaseUNet, ResidualUNet]


def labelled(kind=ResidualUNet, classes=3, seed=0):
    """A small network whose labels and last layers matter from the start."""
    torch.manual_seed(seed)
    network = kind(**SMALL, classes=classes)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return network.eval()


def digits(count=64, classes=3):
    y = torch.arange(count) % classes
    images = (y / classes - 0.5)[:, None, None, None] + 0.1 * torch.randn(count, 1, 8, 8, generator=GENERATOR)
    return Digits(images.clamp(-1, 1), y, "stripes")


@pytest.mark.parametrize("kind", NETWORKS)
def test_without_labels_nothing_changes(kind):
    networks = []
    for classes in (None, 3):
        torch.manual_seed(0)
        networks.append(kind(**SMALL, classes=classes))
    plain, labels = networks
    theirs = labels.state_dict()
    assert all(torch.equal(w, theirs[name]) for name, w in plain.state_dict().items())
    assert theirs.keys() - plain.state_dict().keys() == {"label.weight"}
    assert "classes" not in plain.config
    assert kind(**labels.config).classes == 3


@pytest.mark.parametrize("kind", NETWORKS)
@torch.no_grad()
def test_a_label_changes_the_velocity_of_its_item_only(kind):
    network = labelled(kind)
    v = network(X, T, Y)
    torch.testing.assert_close(network(X, T, 1)[1], v[1])
    other = Y.clone()
    other[0] = 2
    changed = (network(X, T, other) - v).flatten(1).abs().amax(dim=1) > 1e-4
    assert changed.tolist() == [True] + [False] * 5
    torch.testing.assert_close(network(X, T), network(X, T, 3))


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (4, "from 0 to 2, or 3 for no label"),
        (-1, "from 0 to 2"),
        (torch.tensor([0, 1]), "shape"),
        (torch.zeros(6), "whole numbers"),
        (torch.zeros(6, dtype=torch.bool), "whole numbers"),
        (1.0, "whole numbers"),
        ("one", "whole numbers"),
    ],
)
def test_wrong_labels_are_refused(y, words):
    network = labelled()
    for call in (lambda: network(X, T, y), lambda: guided(network, y)(X, 0.5)):
        with pytest.raises(ValueError, match=f"y: expected.*{words}"):
            call()


def test_a_network_without_classes_refuses_labels():
    with pytest.raises(ValueError, match="y: expected None for a network without classes"):
        ResidualUNet(**SMALL)(X, T, Y)
    with pytest.raises(ValueError, match="model: expected one with classes"):
        guided(ResidualUNet(**SMALL), 3)


@torch.no_grad()
def test_guidance_is_linear_in_its_scale():
    network = labelled()
    free, asked = network(X, T), network(X, T, Y)
    for scale in (0, 1, 2.5):
        torch.testing.assert_close(guided(network, Y, scale)(X, T), free + scale * (asked - free), atol=1e-5, rtol=1e-5)
    assert torch.equal(guided(network, Y, 1)(X, 0.3), network(torch.cat([X, X]), 0.3, torch.cat([Y, 0 * Y + 3]))[:6])


@torch.no_grad()
def test_guidance_makes_one_doubled_batch_per_call():
    network, sizes = labelled(), []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    sample(guided(network, Y, 2), X, 4, progress=False)
    assert sizes == [12] * 4


@torch.no_grad()
def test_outside_its_interval_guidance_is_the_field_of_the_label():
    network, t = labelled(), torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    v, asked = guided(network, Y, 3, interval=(0.3, 0.7))(X, t), network(X, t, Y)
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(v, asked, strict=True)]
    assert same == [True, True, False, False, True, True]


@torch.no_grad()
def test_zero_star_projects_the_field_without_a_label():
    network = labelled()
    free, asked = network(X, T), network(X, T, Y)
    along = (free * asked).sum(dim=(1, 2, 3), keepdim=True) / free.square().sum(dim=(1, 2, 3), keepdim=True)
    expected = along * free + 2.5 * (asked - along * free)
    torch.testing.assert_close(guided(network, Y, 2.5, zero_star=True)(X, T), expected, atol=1e-5, rtol=1e-5)
    assert not guided(network, Y, 2.5, zero_star=True)(X, 0.0).any()


@pytest.mark.parametrize("interval", [(0.8, 0.2, 0.1), (-0.1, 1), 0.5, (0, math.nan)])
def test_an_interval_is_two_times(interval):
    with pytest.raises(ValueError, match="interval: expected"):
        guided(labelled(), 0, interval=interval)


@pytest.mark.parametrize("scale", [math.inf, math.nan, "two"])
def test_a_scale_is_a_finite_number(scale):
    with pytest.raises(ValueError, match="scale: expected a number"):
        guided(labelled(), 0, scale)


def test_the_exact_field_of_a_label_is_that_of_its_points():
    points, labels = torch.randn(40, 2, generator=GENERATOR), torch.arange(40) % 4
    field, x = ExactLabelledVelocity(points, labels), torch.randn(8, 2, generator=GENERATOR)
    y = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    v = field(x, 0.6, y)
    for row, label in enumerate(y.tolist()):
        own = ExactVelocity(points if label == 4 else points[labels == label])
        torch.testing.assert_close(v[row : row + 1], own(x[row : row + 1], 0.6))
    torch.testing.assert_close(field(x, 0.6), ExactVelocity(points)(x, 0.6))
    drawn = sample(guided(field, 1, 1.0), x, 200, method="heun", progress=False)
    assert torch.cdist(drawn, points[labels == 1]).min(dim=1).values.max() < 0.02


@pytest.mark.parametrize("labels", [torch.zeros(5), torch.tensor([0, 1]), torch.tensor([0, 0, 2, 2, 2])])
def test_exact_fields_need_a_label_per_point_and_points_per_label(labels):
    with pytest.raises(ValueError, match="labels: expected"):
        ExactLabelledVelocity(torch.randn(5, 2), labels)


def test_validation_uses_the_labels():
    network, data = labelled(), digits()
    by_label = validation_loss(network, data.images, y=data.labels, batch_size=7)
    assert by_label == pytest.approx(validation_loss(network, data.images, y=data.labels), rel=1e-5)
    assert by_label != pytest.approx(validation_loss(network, data.images), rel=1e-5)


def test_training_learns_labels_and_resumes_to_the_same_weights(tmp_path):
    data = digits()
    config = TrainConfig(images=16 * 160, batch_size=16, lr=1e-2)

    def run(out, **options):
        torch.manual_seed(0)
        return train(
            ResidualUNet(**SMALL, classes=3), config, data=(data, data), out=out, progress=False, checkpoint_every=10,
            **options,
        )  # fmt: skip

    def stop(step, _):
        if step == 25:
            raise RuntimeError

    whole = run(tmp_path / "whole")
    with pytest.raises(RuntimeError):
        run(tmp_path / "parts", callback=stop)
    resumed = run(tmp_path / "parts")
    assert resumed.resumed_at == 20
    assert all(torch.equal(w, resumed.model.state_dict()[k]) for k, w in whole.model.state_dict().items())

    noise = torch.randn(3, 1, 8, 8, generator=GENERATOR)
    shades = sample(guided(whole.model, [0, 1, 2], 1.5), noise, 10, progress=False).mean(dim=(1, 2, 3))
    assert shades.diff().min() > 0.1  # the labels differ in brightness, -0.5, -0.17, 0.17
    loaded = load_model(tmp_path / "whole")
    torch.testing.assert_close(loaded(X, T, Y), whole.model(X, T, Y))
    with pytest.raises(CheckpointError, match=r"label_dropout: 0\.1 there, 0\.2 here"):
        run(tmp_path / "parts", label_dropout=0.2)


def test_dropped_labels_are_null_labels(tmp_path):
    seen = []

    def watching(velocity, x_1, *, generator=None):
        seen.append(velocity.keywords["y"])
        return flow_matching_loss(velocity, x_1, generator=generator)

    data = digits(256)
    config = TrainConfig(images=256 * 8, batch_size=64)
    train(
        ResidualUNet(**SMALL, classes=3), config, data=(data, data), out=tmp_path, progress=False, loss=watching,
        label_dropout=0.25,
    )  # fmt: skip
    y = torch.cat(seen)
    share = (y == 3).float().mean()
    assert abs(share - 0.25) < 4.5 * math.sqrt(0.25 * 0.75 / len(y))  # fails in less than 1 of 100,000 seeds; fixed
    assert y.max() == 3


def test_a_network_with_classes_needs_labelled_data(tmp_path):
    data, network = digits(), ResidualUNet(**SMALL, classes=2)
    fit = partial(train, network, TrainConfig(images=64, batch_size=16), out=tmp_path, progress=False)
    with pytest.raises(ValueError, match="data: expected a label from 0 to 1 for each"):
        fit(data=(data, data))
    with pytest.raises(ValueError, match=r"data: expected a label.*got none"):
        fit(data=(data.images, data.images))
    with pytest.raises(ValueError, match="label_dropout: expected"):
        fit(data=(data, data), label_dropout=1.5)
    assert not list(tmp_path.iterdir())
