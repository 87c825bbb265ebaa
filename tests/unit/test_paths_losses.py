"""The straight path and the loss on it."""

import math

import numpy as np
import pytest
import torch

from fm_core.losses import flow_matching_loss, validation_loss
from fm_core.paths import batch_times, draw_noise, expand_as, straight_path


@pytest.mark.parametrize("shape", [(5, 2), (5, 1, 28, 28), (5,)])
def test_path_meets_both_ends_and_moves_at_constant_speed(shape):
    x_0, x_1 = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    at = {t: straight_path(x_0, x_1, torch.full((5,), t, dtype=torch.float64)) for t in (0.0, 0.25, 1.0)}
    assert torch.equal(at[0.0].x_t, x_0)
    assert torch.equal(at[1.0].x_t, x_1)
    torch.testing.assert_close(at[0.25].x_t, 0.75 * x_0 + 0.25 * x_1)
    assert all(torch.equal(p.dx_t, x_1 - x_0) for p in at.values())


def test_velocity_is_the_derivative_of_the_path():
    x_0, x_1 = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    _, derivative = torch.autograd.functional.jvp(lambda s: straight_path(x_0, x_1, s).x_t, t, torch.ones_like(t))
    torch.testing.assert_close(derivative, straight_path(x_0, x_1, t).dx_t)


def test_path_sample_is_frozen():
    sample = straight_path(torch.zeros(2, 2), torch.ones(2, 2), torch.tensor(0.5))
    assert sample.t.tolist() == [0.5, 0.5]
    with pytest.raises(AttributeError):
        sample.t = torch.zeros(2)


def test_scalar_times_may_be_numbers():
    x_0, x_1 = torch.zeros(2, 2), torch.ones(2, 2)
    assert torch.equal(straight_path(x_0, x_1, 0.25).x_t, straight_path(x_0, x_1, torch.tensor([0.25, 0.25])).x_t)
    assert expand_as(torch.rand(2), torch.zeros(2, 1, 4, 4)).shape == (2, 1, 1, 1)


def test_noise_follows_its_seed_and_leaves_the_global_state():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(draw_noise((3, 2), 5), draw_noise((3, 2), 5))
    assert torch.equal(torch.rand(1), expected)


def test_path_errors_name_both_shapes():
    x = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"x_0: expected the shape of x_1, \(3, 2\), got \(2, 2\)"):
        straight_path(x, torch.zeros(3, 2), 0.5)
    with pytest.raises(ValueError, match=r"t: expected .*shape \(2,\), got shape \(3,\)"):
        batch_times(torch.rand(3), torch.zeros(2, 1, 4, 4))
    for t in (torch.tensor([-0.5, 0.5]), 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"t: expected times in \[0, 1\]"):
            straight_path(x, x, t)


def test_loss_of_the_true_conditional_velocity_is_zero():
    x_1, x_0, t = torch.randn(6, 3), torch.randn(6, 3), torch.rand(6)
    assert flow_matching_loss(lambda x, s: x_1 - x_0, x_1, x_0=x_0, t=t) == 0


def test_loss_agrees_with_its_definition_and_its_parts():
    x_1, x_0, t = torch.randn(6, 1, 4, 4), torch.randn(6, 1, 4, 4), torch.rand(6)

    def velocity(x, s):
        return x * s[:, None, None, None]

    s = t[:, None, None, None]
    error = (((1 - s) * x_0 + s * x_1) * s - (x_1 - x_0)).square()
    torch.testing.assert_close(flow_matching_loss(velocity, x_1, x_0=x_0, t=t), error.mean())
    each = flow_matching_loss(velocity, x_1, x_0=x_0, t=t, reduction="none")
    torch.testing.assert_close(each, error.mean(dim=(1, 2, 3)))


def test_minimum_of_the_loss_is_known_for_one_data_point():
    """All lines end in one point a, so v*(x, t) = (a - x) / (1 - t) is exact and its loss is zero."""
    a = torch.tensor([[2.0, -1.0]])
    loss = flow_matching_loss(lambda x, t: (a - x) / (1 - t)[:, None], a.expand(64, 2), t=torch.linspace(0, 0.9, 64))
    assert loss.item() < 1e-9


def test_draws_follow_the_generator():
    x_1 = torch.randn(8, 2)
    losses = [
        flow_matching_loss(lambda x, t: x, x_1, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_coupling_is_applied_before_the_path():
    x_1, x_0, t = torch.randn(4, 2), torch.randn(4, 2), torch.rand(4)
    seen = {}

    def velocity(x, s):
        seen["x"] = x
        return torch.zeros_like(x)

    flow_matching_loss(velocity, x_1, x_0=x_0, t=t, coupling=lambda a, b: (a.flip(0), b))
    torch.testing.assert_close(seen["x"], straight_path(x_0.flip(0), x_1, t).x_t)


def test_loss_errors():
    with pytest.raises(ValueError, match="reduction: expected one of 'mean', 'none', got 'sum'"):
        flow_matching_loss(lambda x, t: x, torch.zeros(2, 2), reduction="sum")
    with pytest.raises(ValueError, match=r"velocity\(x, t\): expected the shape of x, \(2, 2\), got shape \(2, 1\)"):
        flow_matching_loss(lambda x, t: x[:, :1], torch.zeros(2, 2))


@pytest.mark.parametrize("kind", [list, np.asarray, lambda x: torch.tensor(x, dtype=torch.float64)])
@pytest.mark.parametrize("t", [0.5, np.float32(0.5), np.array([0.5, 0.5]), [0.5, 0.5], torch.tensor(0.5)])
def test_a_path_takes_numbers_lists_and_arrays(kind, t):
    x_0, x_1 = [[0.25, 1.0], [2.0, 3.0]], [[1.0, 0.0], [0.0, 1.0]]
    path = straight_path(kind(x_0), kind(x_1), t)
    torch.testing.assert_close(path.x_t.float(), (torch.tensor(x_0) + torch.tensor(x_1)) / 2)
    assert path.x_t.dtype == path.t.dtype and path.t.shape == (2,)


@pytest.mark.parametrize(
    ("x_0", "x_1", "t", "message"),
    [
        (None, torch.ones(2, 2), 0.5, "x_0: expected a floating-point tensor .*got None"),
        (torch.ones(2, 2), "noise", 0.5, "x_1: expected .*got 'noise'"),
        (torch.ones(2, 2), torch.ones(2, 2).byte(), 0.5, r"x_1: expected .*torch.uint8 .*x_1.float\(\)"),
        (torch.ones(2, 2), torch.ones(2, 2, dtype=torch.complex64), 0.5, "x_1: expected .*torch.complex64"),
        (torch.ones(2, 2), torch.ones(2, 2, device="meta"), 0.5, "x_1: expected .*on the device meta"),
        (torch.ones(2, 2), torch.ones(2, 2).to_sparse(), 0.5, "x_1: expected .*sparse"),
        (torch.ones(2, 2), [[1.0], [1.0, 2.0]], 0.5, r"x_1: expected .*got \[\[1.0\]"),
        (torch.ones(0, 2), torch.ones(0, 2), 0.5, r"x_1: expected .*got shape \(0, 2\)"),
        (torch.tensor([[1.0], [math.nan]]), torch.ones(2, 1), 0.5, "x_0: expected finite .*1 of 2, the first is 1"),
        (
            torch.ones(2, 1),
            torch.tensor([[-math.inf], [math.inf]]),
            0.5,
            "x_1: expected finite .*2 of 2, the first is 0",
        ),
        (torch.ones(2, 2), torch.ones(2, 2), None, "t: expected .*got None"),
        (torch.ones(2, 2), torch.ones(2, 2), "half", "t: expected .*got 'half'"),
        (torch.ones(2, 2), torch.ones(2, 2), torch.tensor(1j), "t: expected .*got 1j"),
    ],
)
def test_a_path_refuses_the_rest_by_name(x_0, x_1, t, message):
    with pytest.raises(ValueError, match=message):
        straight_path(x_0, x_1, t)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flow_matching_loss(None, torch.ones(2, 2)), "velocity: expected a function .*got None"),
        (lambda: flow_matching_loss(lambda x, t: None, torch.ones(2, 2)), r"velocity\(x, t\): expected .*got None"),
        (lambda: flow_matching_loss(lambda x, t: x, torch.ones(0, 2)), "x_1: expected"),
        (lambda: flow_matching_loss(lambda x, t: x, torch.ones(2, 2), generator=3), "generator: expected"),
        (lambda: flow_matching_loss(lambda x, t: x, torch.ones(2, 2), coupling="ot"), "coupling: expected"),
        (lambda: validation_loss(lambda x, t: x, torch.ones(0, 2)), "x_1: expected"),
        (lambda: validation_loss(lambda x, t: x, torch.full((2, 2), math.nan)), "x_1: expected finite values"),
        (lambda: validation_loss(lambda x, t: x, torch.ones(2, 2), batch_size=-1), "batch_size: expected"),
        (lambda: draw_noise((-1, 2)), "shape: expected a whole number of at least 1, got -1"),
        (lambda: draw_noise((10**6, 10**6)), "shape: expected a whole number from 1 to 1,000,000,000"),
        (lambda: draw_noise((2, 2), seed=10**30), "seed: expected"),
    ],
)
def test_losses_and_noise_refuse_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
