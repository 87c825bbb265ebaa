"""Couplings, pairs of a flow, and average velocities, on flows whose average velocity is known."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch

from fm_core import GaussianVelocity, ResidualUNet, TrainConfig, flow_matching_loss, load_model, sample, train
from fm_core.checkpoints import CheckpointError
from fm_core.few_steps import (
    GivenPairs,
    draw_pairs,
    load_pairs,
    mean_flow_loss,
    mean_flow_network,
    mean_flow_sample,
    optimal_coupling,
)
from fm_core.models import BaseUNet, MeanFlowUNet

SMALL = {"widths": (8, 16), "time_dim": 16}
GENERATOR = torch.Generator().manual_seed(0)
FIELD = GaussianVelocity(torch.tensor([1.0, -2.0]), torch.tensor([[0.5, 0.2], [0.2, 1.5]]))


def average(x, t, s):
    """The exact average velocity of the flow of ``FIELD`` over [t, s], for its own states."""
    m, values, vectors = FIELD.mean.to(x), FIELD._values.to(x), FIELD._vectors.to(x)
    t, s = (torch.as_tensor(a, dtype=x.dtype).expand(len(x))[:, None] for a in (t, s))
    spread = [((1 - a) ** 2 + a**2 * values).sqrt() for a in (t, s)]
    z = (x - t * m) @ vectors / spread[0]  # x_0 in the eigenvectors
    moved = (s - t) * m + (z * (spread[1] - spread[0])) @ vectors.T
    velocity = FIELD(x, t[:, 0])
    return torch.where((s - t).abs() < 1e-9, velocity, moved / (s - t).clamp(min=1e-12))


def jvp(*arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own use of torch.jit.script
        return torch.func.jvp(*arguments)


def draw(count):
    return FIELD.flow(torch.randn(count, 2, generator=GENERATOR, dtype=torch.float64), 1.0)


def test_the_optimal_pairs_cost_no_more_than_any_permutation():
    x_0, x_1 = torch.randn(6, 1, 2, 2, generator=GENERATOR), torch.randn(6, 1, 2, 2, generator=GENERATOR)
    a, b = optimal_coupling(x_0, x_1)
    assert torch.equal(b, x_1)  # labels stay with their data
    best = (a - b).square().sum()
    for _ in range(200):
        assert best <= (x_0[torch.randperm(6, generator=GENERATOR)] - x_1).square().sum() + 1e-5
    assert torch.equal(a.flatten().sort().values, x_0.flatten().sort().values)


def test_the_optimal_coupling_refuses_batches_that_differ():
    with pytest.raises(ValueError, match="x_0: expected"):
        optimal_coupling(torch.randn(5, 2), torch.randn(6, 2))


@torch.no_grad()
def test_one_step_of_the_exact_average_velocity_ends_where_the_flow_does():
    x_0 = torch.randn(50, 2, generator=GENERATOR, dtype=torch.float64)
    for steps in (1, 3):
        torch.testing.assert_close(mean_flow_sample(average, x_0, steps), FIELD.flow(x_0, 1.0))


def test_the_loss_is_least_for_the_exact_average_velocity():
    x_1 = draw(4000)

    def loss(velocity, **options):
        return float(mean_flow_loss(velocity, x_1, generator=torch.Generator().manual_seed(1), **options))

    for share in (0.0, 0.5, 1.0):
        exact = loss(average, share=share, power=0)
        for wrong in (lambda x, t, s: average(x, t, s) + 0.3, lambda x, t, s: FIELD(x, t) + 0.8 * (s - t)[:, None]):
            if share or wrong(x_1, torch.ones(4000) * 0.5, torch.ones(4000) * 0.5).sub(FIELD(x_1, 0.5)).any():
                assert loss(wrong, share=share, power=0) > exact + 0.02


def test_the_exact_average_velocity_satisfies_the_identity_of_the_loss():
    """With the conditional velocity replaced by its mean, the marginal one, the loss of the exact field is zero."""
    t, s = torch.rand(2, 64, generator=GENERATOR, dtype=torch.float64).sort(dim=0).values
    x = FIELD.flow(torch.randn(64, 2, generator=GENERATOR, dtype=torch.float64), t)
    v = FIELD(x, t)
    u, slope = jvp(lambda x, t: average(x, t, s), (x, t), (v, torch.ones_like(t)))
    torch.testing.assert_close(u, v + (s - t)[:, None] * slope)


def test_without_longer_spans_it_is_the_flow_matching_loss():
    network = ResidualUNet(**SMALL)
    x_1 = torch.randn(8, 1, 8, 8, generator=GENERATOR)
    mine = mean_flow_loss(
        lambda x, t, s: network(x, t), x_1, share=0, power=0, generator=torch.Generator().manual_seed(3)
    )
    g = torch.Generator().manual_seed(3)
    x_0 = torch.randn(x_1.shape, generator=g)
    t = torch.rand(2, 8, generator=g)[0]
    torch.testing.assert_close(mine, flow_matching_loss(network, x_1, x_0=x_0, t=t))


def test_the_target_gets_no_gradient_and_the_weight_makes_every_item_count_alike():
    x_1, shift = draw(16).float(), torch.zeros((), requires_grad=True)
    value = mean_flow_loss(lambda x, t, s: average(x, t, s) + shift, x_1, generator=torch.Generator().manual_seed(0))
    value.backward()
    assert torch.isfinite(shift.grad)
    assert 0.5 < value.item() <= 1  # error / (error + 0.001)


@pytest.mark.parametrize(
    ("options", "words"), [({"share": 1.5}, "share"), ({"power": -1}, "power"), ({"floor": 0}, "floor")]
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=f"{words}: expected"):
        mean_flow_loss(average, draw(4), **options)


def test_a_velocity_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="expected the shape of x"):
        mean_flow_loss(lambda x, t, s: x[:, :1], draw(4), share=0)


@torch.no_grad()
def test_the_network_starts_as_the_velocity_it_is_made_of():
    torch.manual_seed(0)
    velocity = ResidualUNet(**SMALL).eval()
    for p in velocity.parameters():
        p.add_(0.2 * torch.randn_like(p))
    x, t = torch.randn(4, 1, 8, 8), torch.rand(4)
    network = mean_flow_network(velocity, fastest=1000.0).eval()
    for end in (None, 1.0, (1 + t) / 2):
        torch.testing.assert_close(network(x, t, end), velocity(x, t))
    slow = mean_flow_network(velocity, fastest=5.0).eval()
    assert not torch.allclose(slow(x, t), velocity(x, t))
    angle = jvp(slow.embed, (t,), (torch.ones(4),))[1]
    assert angle.abs().max() < jvp(velocity.embed, (t,), (torch.ones(4),))[1].abs().max()
    for wrong in (BaseUNet(**SMALL), ResidualUNet(**SMALL, classes=3)):
        with pytest.raises(ValueError, match="velocity: expected a ResidualUNet without classes"):
            mean_flow_network(wrong)


def test_it_trains_and_loads(tmp_path):
    data = torch.randn(64, 1, 8, 8, generator=GENERATOR).clamp(-1, 1)
    torch.manual_seed(0)
    network = MeanFlowUNet(**SMALL)
    result = train(
        network, TrainConfig(images=320, batch_size=16), data=(data, data), out=tmp_path, loss=mean_flow_loss,
        progress=False,
    )  # fmt: skip
    loaded = load_model(tmp_path)
    x = torch.randn(4, 1, 8, 8, generator=GENERATOR)
    torch.testing.assert_close(loaded(x, 0.2, 0.9), result.model(x, 0.2, 0.9))
    assert not torch.allclose(loaded(x, 0.2, 0.9), loaded(x, 0.2))  # the span has an effect


def test_given_pairs_bring_each_item_its_noise():
    x_0, x_1 = torch.randn(50, 1, 4, 4, generator=GENERATOR), torch.randn(50, 1, 4, 4, generator=GENERATOR)
    x_1[7] = x_1[8]  # the same data twice: either noise is right
    coupling = GivenPairs(x_0, x_1)
    rows = torch.randperm(50, generator=GENERATOR)[:20]
    a, b = coupling(torch.zeros(20, 1, 4, 4), x_1[rows])
    assert torch.equal(b, x_1[rows])
    for row, noise in zip(rows.tolist(), a, strict=True):
        assert torch.equal(noise, x_0[row]) or row in (7, 8)
    with pytest.raises(ValueError, match="x_1: expected items of the pairs"):
        coupling(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))


def test_pairs_are_drawn_in_parts_and_go_on_after_an_interruption(tmp_path):
    calls = []

    def velocity(x, t):
        calls.append(len(x))
        if len(calls) == 12:
            raise KeyboardInterrupt
        return FIELD(x, t)

    draw_all = partial(draw_pairs, velocity, tmp_path, count=250, shape=(2,), steps=5, part=100, name="gauss")
    with pytest.raises(KeyboardInterrupt):
        draw_all()
    assert len(list(tmp_path.glob("pairs-*.safetensors"))) == 2
    draw_all()
    assert sum(calls) == 100 * 10 + 50 * 2 + 50 * 5  # the second call of the third part failed
    x_0, x_1 = load_pairs(tmp_path)
    assert x_0.shape == x_1.shape == (250, 2)
    expected = sample(FIELD, x_0, 5, progress=False)
    torch.testing.assert_close(x_1, expected, atol=2e-3, rtol=2e-3)  # half precision on disk
    assert draw_all() == 250
    with pytest.raises(CheckpointError, match=r"steps: 5 there, 6 here"):
        draw_pairs(velocity, tmp_path, count=250, shape=(2,), steps=6, part=100, name="gauss")


def test_there_have_to_be_pairs(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected files pairs-"):
        load_pairs(tmp_path)


def test_pairs_straighten_the_flow(tmp_path):
    """Reflow on a Gaussian: the pairs of its own flow make straight paths, so one Euler step is nearly exact."""
    x_0 = torch.randn(512, 2, generator=GENERATOR)
    x_1 = FIELD.flow(x_0, 1.0)
    coupling = GivenPairs(x_0, x_1)

    class Affine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.GELU(), torch.nn.Linear(64, 2))

        def forward(self, x, t):
            return self.net(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], dim=1))

    errors = []
    for options in ({}, {"coupling": coupling}):
        torch.manual_seed(0)
        result = train(
            Affine(), TrainConfig(images=64 * 1500, batch_size=64, lr=3e-3), data=(x_1, x_1),
            out=tmp_path / str(len(options)), loss=partial(flow_matching_loss, **options), progress=False,
        )  # fmt: skip
        one = sample(result.model, x_0, 1, progress=False)
        errors.append(float((one - x_1).square().mean().sqrt()))
    assert errors[1] < 0.12
    assert errors[0] > 4 * errors[1]
