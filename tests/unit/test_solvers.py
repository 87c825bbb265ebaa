"""Solvers against exact solutions, against two independent implementations, and their error messages."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from flow_matching.solver import ODESolver
from flow_matching.utils import ModelWrapper
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchdiffeq import odeint

from fm_core import solvers
from fm_core.models import BaseUNet, ResidualUNet
from fm_core.solvers import (
    TABLEAUX,
    Tableau,
    integrate,
    paced_grid,
    sample,
    solve,
    uniform_grid,
)

FIXED = tuple(TABLEAUX)
METHODS = (*FIXED, "dopri5")

# What torchdiffeq calls "rk4" is Kutta's other method of order 4, the 3/8 rule.
THREE_EIGHTHS = Tableau(
    a=((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    c=(0.0, 1 / 3, 2 / 3, 1.0),
    order=4,
)


pytestmark = pytest.mark.usefixtures("one_thread")


def pull(x, t):
    """dx/dt = -2 t x + cos(t), an equation that depends on both x and t."""
    return -2 * t * x + torch.cos(t)


def growth(x, t):
    """dx/dt = x cos(t), whose solution is x(0) exp(sin t)."""
    return x * torch.cos(t)


def turn(x, t):
    """Rotation of the plane, one radian per unit of time."""
    return torch.stack([-x[:, 1], x[:, 0]], dim=1)


class Counted:
    """A velocity that remembers the times and states it was asked for."""

    def __init__(self, velocity):
        self.velocity, self.times, self.states = velocity, [], []

    def __call__(self, x, t):
        self.times.append(t)
        self.states.append(x.clone())
        return self.velocity(x, t)


@pytest.fixture(scope="module", params=["base", "residual"])
def network(request):
    torch.manual_seed(0)
    return {"base": BaseUNet, "residual": ResidualUNet}[request.param](widths=(8, 16), time_dim=32).eval()


@pytest.fixture(scope="module")
def noise():
    return torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))


# --- tableaux ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIXED)
def test_tableau_meets_the_order_conditions(name):
    tableau = TABLEAUX[name]
    s = tableau.stages
    a = np.zeros((s, s))
    for i, row in enumerate(tableau.a):
        a[i, : len(row)] = row
    b, c = np.array(tableau.b), np.array(tableau.c)
    np.testing.assert_allclose(a.sum(axis=1), c, atol=1e-15)
    conditions = {  # order: pairs of a sum and its value
        1: [(b.sum(), 1)],
        2: [(b @ c, 1 / 2)],
        3: [(b @ c**2, 1 / 3), (b @ a @ c, 1 / 6)],
        4: [(b @ c**3, 1 / 4), (b @ (c * (a @ c)), 1 / 8), (b @ a @ c**2, 1 / 12), (b @ a @ a @ c, 1 / 24)],
    }
    for order, pairs in conditions.items():
        for got, wanted in pairs:
            if order <= tableau.order:
                assert got == pytest.approx(wanted, abs=1e-15)
    if tableau.order < 4:  # and no better than it says
        assert any(got != pytest.approx(wanted) for got, wanted in conditions[tableau.order + 1])


def test_tableau_refuses_what_is_not_explicit():
    with pytest.raises(ValueError, match=r"rows a of 0, 1, \.\.\., s - 1 numbers.*got rows of \[1\]"):
        Tableau(a=((0.5,),), b=(1.0,), c=(0.5,), order=2)
    with pytest.raises(ValueError, match=r"b: expected weights .*which add up to 0\.75"):
        Tableau(a=((), (1.0,)), b=(0.5, 0.25), c=(0.0, 1.0), order=2)


# --- exact solutions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("ends", [(0.0, 2.0), (2.0, 0.0)], ids=["forward", "backward"])
def test_fitted_order(name, ends):
    start, end = ends
    x = torch.tensor([0.5, 1.0, -2.0], dtype=torch.float64) * math.exp(math.sin(start))
    exact = x * math.exp(math.sin(end) - math.sin(start))
    counts = [40, 80, 160, 320]
    errors = [
        (solve(growth, x, uniform_grid(n, start=start, end=end), method=name).x[-1] - exact).abs().max() for n in counts
    ]
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -slope == pytest.approx(TABLEAUX[name].order, abs=0.1)


@pytest.mark.parametrize("name", FIXED)
def test_fitted_order_on_a_grid_that_is_not_uniform(name):
    x = torch.ones(1, 2, dtype=torch.float64)
    exact = torch.full_like(x, math.exp(math.sin(1)))
    counts = [40, 80, 160, 320]
    errors = [
        (solve(growth, x, paced_grid(n, lambda s: (s + s**2) / 2), method=name).x[-1] - exact).abs().max()
        for n in counts
    ]
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -slope == pytest.approx(TABLEAUX[name].order, abs=0.1)


@pytest.mark.parametrize(("name", "degree"), [("euler", 0), ("midpoint", 1), ("heun", 1), ("rk4", 3)])
def test_polynomials_in_t_are_met_exactly(name, degree):
    x = torch.zeros(4, dtype=torch.float64)
    grid = torch.tensor([0.0, 0.1, 0.15, 0.7, 1.0], dtype=torch.float64)
    trajectory = solve(lambda x, t: (degree + 1) * t**degree * torch.ones_like(x), x, grid, method=name)
    torch.testing.assert_close(trajectory.x[:, 0], grid ** (degree + 1), atol=1e-14, rtol=0)
    worse = solve(lambda x, t: (degree + 2) * t ** (degree + 1) * torch.ones_like(x), x, grid, method=name)
    assert (worse.x[-1] - 1).abs().max() > 1e-4


def test_every_state_lies_on_the_circle():
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    trajectory = solve(turn, x, uniform_grid(200, end=2 * math.pi), method="rk4")
    circle = torch.stack([trajectory.t.cos(), trajectory.t.sin()], dim=1)[:, None]
    torch.testing.assert_close(trajectory.x, circle, atol=1e-7, rtol=0)
    torch.testing.assert_close(
        trajectory.velocity, torch.stack([-circle[..., 1], circle[..., 0]], -1), atol=1e-7, rtol=0
    )


@pytest.mark.parametrize(("name", "steps", "error"), [("midpoint", 400, 1e-5), ("heun", 400, 1e-5), ("rk4", 100, 1e-8)])
def test_reverse_time_returns_to_the_start(name, steps, error):
    x = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    there = solve(pull, x, uniform_grid(steps), method=name)
    back = solve(pull, there.x[-1], uniform_grid(steps, start=1.0, end=0.0), method=name)
    assert (there.x[-1] - x).abs().max() > 0.1
    torch.testing.assert_close(back.x[-1], x, atol=error, rtol=0)


def test_dopri5_meets_its_tolerance():
    x = torch.tensor([0.5, 1.0, -2.0], dtype=torch.float64)
    exact = x * math.exp(math.sin(2.0))
    found = {}
    for tolerance in (1e-4, 1e-7, 1e-10):
        run = solve(growth, x, uniform_grid(1, end=2.0), method="dopri5", rtol=tolerance, atol=tolerance)
        found[tolerance] = ((run.x[-1] - exact).abs().max().item(), run.nfe)
        assert found[tolerance][0] < 20 * tolerance
    assert found[1e-4][1] < found[1e-7][1] < found[1e-10][1]
    back = solve(growth, exact, [2.0, 1.0, 0.0], method="dopri5", rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(back.x[-1], x, atol=1e-9, rtol=0)
    torch.testing.assert_close(back.x[1], x * math.exp(math.sin(1.0)), atol=1e-8, rtol=0)


# --- independent implementations --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("euler", "euler"), ("midpoint", "midpoint"), ("heun", "heun2"), (THREE_EIGHTHS, "rk4"), ("dopri5", "dopri5")],
    ids=["euler", "midpoint", "heun", "three-eighths", "dopri5"],
)
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "backward"])
def test_agrees_with_torchdiffeq_and_flow_matching(network, noise, ours, theirs, ends):
    grid = uniform_grid(8, start=ends[0], end=ends[1])
    times = grid.float()
    options = {"step_t": times[-1:].double()} if ours == "dopri5" else None  # else their last step asks for t > 1
    tolerances = {"rtol": 1e-3, "atol": 1e-3}
    mine = solve(network, noise, grid, method=ours, **tolerances).x
    with torch.no_grad():
        diffeq = odeint(lambda t, x: network(x, t), noise, times, method=theirs, options=options, **tolerances)
    torch.testing.assert_close(mine, diffeq, atol=1e-5, rtol=0)
    assert (mine[-1] - noise).abs().max() > 0.01  # the network does move the images
    if ours != "dopri5":
        solver = ODESolver(ModelWrapperOf(network))
        matching = solver.sample(noise, None, method=theirs, time_grid=times, return_intermediates=True)
        torch.testing.assert_close(mine, matching, atol=1e-5, rtol=0)


def test_classical_rk4_agrees_with_theirs_where_both_have_converged():
    x = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    coarse, fine = [
        (
            solve(pull, x, uniform_grid(n), method="rk4").x[-1],
            ODESolver(pull).sample(x, None, method="rk4", time_grid=uniform_grid(n)),
        )
        for n in (4, 40)
    ]
    torch.testing.assert_close(*fine, atol=1e-7, rtol=0)
    assert (coarse[0] - coarse[1]).abs().max() > 1e-6  # two methods, not one


class ModelWrapperOf(ModelWrapper):
    """flow_matching's wrapper as its users write it."""

    def forward(self, x, t, **extras):
        return self.model(x, t)


def test_takes_any_callable(network, noise):
    grid = uniform_grid(3)
    wanted = solve(network, noise, grid).x
    for velocity in (ModelWrapperOf(network), network.forward, lambda x, t: network(x, t)):
        torch.testing.assert_close(solve(velocity, noise, grid).x, wanted, atol=0, rtol=0)

    class Func(nn.Module):
        def forward(self, t, y):
            return network(y, t)

    func = Func()

    torch.testing.assert_close(solve(lambda x, t: func(t, x), noise, grid).x, wanted, atol=0, rtol=0)


# --- what a trajectory holds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(5,), (4, 2), (2, 1, 7, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trajectory(name, shape, dtype):
    x = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(4))
    start = x.clone()
    grid = torch.tensor([0.0, 0.3, 0.4, 1.0], dtype=torch.float64)
    trajectory = solve(pull, x, grid, method=name)
    assert trajectory.t.dtype == trajectory.x.dtype == trajectory.velocity.dtype == dtype
    assert trajectory.x.shape == trajectory.velocity.shape == (4, *shape)
    torch.testing.assert_close(trajectory.t, grid.to(dtype), atol=0, rtol=0)
    assert torch.equal(x, start)
    assert torch.equal(trajectory.x[0], start)
    for k in range(4):
        torch.testing.assert_close(trajectory.velocity[k], pull(trajectory.x[k], trajectory.t[k]), atol=0, rtol=0)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "backward"])
def test_sample_and_integrate_give_the_end_of_solve(name, ends):
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    start, grid = x.clone(), uniform_grid(6, start=ends[0], end=ends[1])
    kept = solve(pull, x, grid, method=name)
    end, nfe = integrate(pull, x, grid, method=name)
    assert nfe == kept.nfe
    assert torch.equal(end, sample(pull, x, grid, method=name))
    torch.testing.assert_close(end, kept.x[-1], atol=1e-12 if name == "dopri5" else 0, rtol=0)
    assert torch.equal(x, start)


def test_sample_takes_a_number_of_steps():
    x = torch.ones(2, 2)
    assert torch.equal(sample(pull, x, 7), solve(pull, x, uniform_grid(7)).x[-1])


@pytest.mark.parametrize("name", METHODS)
def test_nfe_counts_evaluations(name):
    velocity = Counted(pull)
    trajectory = solve(velocity, torch.ones(2, 2), uniform_grid(7), method=name)
    assert len(velocity.times) == trajectory.nfe + (8 if name == "dopri5" else 1)
    if name != "dopri5":
        assert trajectory.nfe == 7 * TABLEAUX[name].stages


# --- times ------------------------------------------------------------------------------------------------------------


@given(
    steps=st.integers(1, 60),
    power=st.floats(0.3, 3.0),
    name=st.sampled_from(FIXED),
    ends=st.sampled_from([(0.0, 1.0), (1.0, 0.0), (0.1, 0.7), (0.9, 1.0)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_times_stay_within_their_step(steps, power, name, ends, dtype):
    velocity = Counted(lambda x, t: x)
    grid = paced_grid(steps, lambda s: s**power, start=ends[0], end=ends[1])
    trajectory = solve(velocity, torch.ones(1, dtype=dtype), grid, method=name)
    asked = torch.stack(velocity.times)
    assert asked.dtype == dtype
    assert asked.min() >= trajectory.t.min()
    assert asked.max() <= trajectory.t.max()
    low, high = torch.sort(torch.stack([trajectory.t[:-1], trajectory.t[1:]]), dim=0).values
    inner = asked[:-1].view(steps, -1)  # (T - 1, stages)
    assert bool(((inner >= low[:, None]) & (inner <= high[:, None])).all())
    assert torch.equal(inner[:, 0], trajectory.t[:-1])
    if TABLEAUX[name].c[-1] == 1:
        assert torch.equal(inner[:, -1], trajectory.t[1:])  # exactly the end of the step


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "backward"])
def test_dopri5_asks_for_no_time_outside(ends):
    velocity = Counted(lambda x, t: 1e-3 * x)  # so slow that a free step would pass the end
    solve(velocity, torch.ones(2), uniform_grid(3, start=ends[0], end=ends[1]), method="dopri5")
    asked = torch.stack(velocity.times)
    assert asked.min() >= 0
    assert asked.max() <= 1
    free = Counted(lambda x, t: 1e-3 * x)
    odeint(lambda t, x: free(x, t), torch.ones(2), torch.tensor([0.0, 1.0]), method="dopri5")
    assert torch.stack(free.times).max() > 1  # the guard is needed


def test_velocity_gets_scalar_times_on_the_states_device():
    """The meta device holds no numbers: any look at one, which on a GPU would stall the stream, raises there."""
    for name in FIXED:
        velocity = Counted(lambda x, t: x * t)
        trajectory = solve(velocity, torch.ones(3, 2, device="meta"), uniform_grid(4), method=name)
        assert all(t.shape == () and t.device.type == "meta" and t.dtype == torch.float32 for t in velocity.times)
        assert trajectory.x.device.type == trajectory.t.device.type == trajectory.velocity.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", METHODS)
def test_gpu_agrees_with_cpu(name):
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(6))
    here = solve(pull, x, uniform_grid(10), method=name)
    there = solve(pull, x.cuda(), uniform_grid(10), method=name)
    assert there.x.is_cuda and there.t.is_cuda
    torch.testing.assert_close(there.x.cpu(), here.x, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "grid",
    [
        [1.0, 0.5, 0.0],
        (1, 0.5, 0),
        np.linspace(0, 1, 3)[::-1],
        torch.tensor([1.0, 0.5, 0.0]),
        torch.tensor([1.0, 0.5, 0.0], requires_grad=True),
    ],
    ids=["list", "tuple", "reversed array", "tensor", "tensor with gradient"],
)
def test_grid_may_come_as_anything(grid):
    assert solve(lambda x, t: t * torch.ones_like(x), torch.zeros(1), grid).x[-1].item() == pytest.approx(-0.75)


def test_grid_of_whole_numbers_and_of_exact_decimals():
    assert solve(lambda x, t: x, torch.ones(1), torch.tensor([0, 1])).x[-1].item() == 2.0
    assert solve(lambda x, t: x, torch.ones(1, dtype=torch.float64), [0.1, 0.2]).t.tolist() == [0.1, 0.2]


# --- velocities with habits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIXED)
def test_velocity_may_return_the_same_memory_each_time(name):
    """As a captured CUDA graph does."""
    memory = torch.empty(3, 2, dtype=torch.float64)
    x = torch.ones(3, 2, dtype=torch.float64)
    wanted = solve(pull, x, uniform_grid(5), method=name)
    got = solve(lambda x, t: memory.copy_(pull(x, t)), x, uniform_grid(5), method=name)
    assert torch.equal(got.x, wanted.x)
    assert torch.equal(got.velocity, wanted.velocity)


@pytest.mark.parametrize("name", FIXED)
def test_velocity_may_return_its_input(name):
    x = torch.ones(2, dtype=torch.float64)
    end = solve(lambda x, t: x, x, uniform_grid(50), method=name).x[-1]
    torch.testing.assert_close(
        end, solve(lambda x, t: x.clone(), x, uniform_grid(50), method=name).x[-1], atol=0, rtol=0
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("other", [torch.bfloat16, torch.float64])
def test_velocity_may_compute_in_another_precision(name, other):
    """As under autocast."""
    trajectory = solve(lambda x, t: x.to(other), torch.ones(2), uniform_grid(40), method=name, rtol=1e-2)
    assert trajectory.x.dtype == torch.float32
    assert trajectory.velocity.dtype == torch.float32
    assert trajectory.x[-1, 0].item() == pytest.approx(math.e, rel=0.02)


@pytest.mark.parametrize("name", METHODS)
def test_grad_mode_is_off_inside_and_restored(name):
    modes = []
    weight = torch.ones(2, requires_grad=True)

    def velocity(x, t):
        modes.append(torch.is_grad_enabled())
        return weight * x

    x = torch.ones(3, 2, requires_grad=True)
    trajectory = solve(velocity, x, uniform_grid(3), method=name)
    assert not any(modes)
    assert not trajectory.x.requires_grad
    assert not trajectory.velocity.requires_grad
    assert torch.is_grad_enabled()
    with pytest.raises(ValueError, match="expected a tensor of the shape of x"):
        solve(lambda x, t: x[:1], x, uniform_grid(3), method=name)
    assert torch.is_grad_enabled()
    with torch.no_grad():
        solve(velocity, x, uniform_grid(3), method=name)
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("progress", [False, None, True])
def test_adaptive_evaluations_are_counted_whether_a_bar_is_shown_or_not(progress):
    calls = []

    def velocity(x, t):
        calls.append(t)
        return -x

    _, nfe = integrate(velocity, torch.ones(2), [0.0, 1.0], method="dopri5", progress=progress)
    assert nfe == len(calls) > 5


# --- grids ------------------------------------------------------------------------------------------------------------


def test_uniform_grid():
    assert uniform_grid(4).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert uniform_grid(2, start=1.0, end=0.0).tolist() == [1.0, 0.5, 0.0]
    for steps in (1, 3, 7, 1000):
        grid = uniform_grid(steps, start=0.1, end=0.7)
        assert (grid[0].item(), grid[-1].item(), len(grid), grid.dtype) == (0.1, 0.7, steps + 1, torch.float64)


@pytest.mark.parametrize(
    "pacing",
    [lambda s: s**2, np.sqrt, lambda s: np.log1p(9 * s) / np.log(10), "quadratic"],
    ids=["square", "numpy", "logarithm", "name"],
)
def test_paced_grid(pacing):
    grid = paced_grid(10, pacing, start=1.0, end=0.2)
    assert (grid[0].item(), grid[-1].item(), len(grid)) == (1.0, 0.2, 11)
    assert bool((grid.diff() < 0).all())
    assert paced_grid(2, lambda s: s**2).tolist() == [0.0, 0.25, 1.0]


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "rk45"}, "method: expected one of 'euler', 'midpoint', 'heun', 'rk4', 'dopri5', got 'rk45'"),
        (
            {"x": torch.ones(2, dtype=torch.int64)},
            "x: expected a floating-point tensor of shape (B, ...), got torch.int64",
        ),
        ({"x": {"x": 1}}, "x: expected a floating-point tensor of shape (B, ...), got {'x': 1}"),
        (
            {"x": torch.tensor([1.0, math.nan])},
            "x: expected finite values, got NaN or infinity in 1 of 2, the first is 1",
        ),
        ({"velocity": None}, "velocity: expected a function velocity(x, t), got None"),
        ({"t": "0 to 1"}, "t: expected at least 2 finite times, strictly rising or falling, got '0 to 1'"),
        (
            {"t": np.linspace(0, 1, 100_002)},
            "t: number of steps: expected a whole number from 1 to 100,000, got 100001",
        ),
        *(
            ({"t": t}, "t: expected at least 2 finite times, strictly rising or falling")
            for t in (torch.tensor(1.0), [0.5], torch.zeros(2, 2), [0, 0.5, 0.4, 1], [1, 0.5, 0.5, 0], [0, math.nan, 1])
        ),
        ({"velocity": lambda x, t: x[:1]}, "expected a tensor of the shape of x, (2,), got shape (1,)"),
        ({"velocity": lambda x, t: (x, x)}, "expected a tensor of the shape of x, (2,), got (tensor("),
        ({"velocity": lambda t, x: x}, "lambda x, t: func(t, x)"),
        ({"method": "dopri5", "rtol": 0.0}, "rtol: expected a number above 0, got 0.0"),
        ({"method": "dopri5", "velocity": lambda x, t: x[:1]}, "got shape (1,)"),
    ],
)
def test_messages(arguments, message):
    call = {"velocity": lambda x, t: x, "x": torch.ones(2), "t": uniform_grid(2)} | arguments
    with pytest.raises(ValueError, match=re.escape(message)):
        solve(**call)


def test_dopri5_says_when_it_is_stuck():
    with pytest.raises(RuntimeError, match=r"dopri5: expected a step .*Check that the velocity is finite"):
        solve(lambda x, t: x * float("nan"), torch.ones(2), uniform_grid(2), method="dopri5")


@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_fixed_step_method_names_the_step_that_diverged(method, bad):
    def velocity(x, t):
        v = -x
        v[2] = torch.where((t > 0.5) & (t < 0.9), bad, v[2])
        return v

    message = r"velocity\(x, t\): expected finite values, .* in step 3 of 4, t = 0.6 to 0.8, first in sample 2"
    grid = [0.0, 0.3, 0.6, 0.8, 1.0]
    call = {"t": grid, "method": method, "progress": False}
    if method != "euler":  # these look at the end of the second step too
        message = message.replace("step 3 of 4, t = 0.6 to 0.8", "step 2 of 4, t = 0.3 to 0.6")
    for function in (solve, integrate):
        with pytest.raises(FloatingPointError, match=message):
            function(velocity, torch.ones(4, 3), **call)
    with pytest.raises(FloatingPointError, match="in step 2 of 2"):
        sample(lambda x, t: x if t < 0.5 else x * bad, torch.ones(2), 2)


def test_a_finite_flow_is_looked_at_once():
    """What looks for NaN costs no evaluation, and nothing per step that waits for the device."""
    seen = []

    def velocity(x, t):
        seen.append(t)
        return -x

    sample(velocity, torch.ones(2), 50)
    assert len(seen) == 50


def test_dopri5_has_a_limit_of_evaluations(monkeypatch):
    monkeypatch.setattr(solvers, "MAX_EVALUATIONS", 200)
    with pytest.raises(RuntimeError, match="dopri5: expected an end within 200 evaluations, got to t = "):
        solve(lambda x, t: -1e6 * x, torch.ones(2), uniform_grid(2), method="dopri5", progress=False)


def test_dopri5_uses_single_precision_where_the_device_has_no_other(monkeypatch):
    class Float64(TorchDispatchMode):
        made = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.dtype == torch.float64:
                Float64.made += 1
            return out

    monkeypatch.setattr(solvers, "_time_precision", lambda device: torch.float32)
    monkeypatch.setattr(solvers, "as_grid", lambda name, t: torch.tensor(t))  # the grid itself lives on the CPU
    with Float64():
        end = integrate(lambda x, t: -x, torch.ones(3), (0.0, 1.0), method="dopri5", progress=False)[0]
    assert Float64.made == 0
    torch.testing.assert_close(end, torch.full((3,), math.exp(-1)), rtol=1e-4, atol=0)


def test_time_precision():
    assert solvers._time_precision(torch.device("cpu")) == torch.float64
    assert solvers._time_precision(torch.device("mps")) == torch.float32


@pytest.mark.parametrize("numbers", [{"b": (math.nan, 0.5)}, {"c": (0.0, math.inf)}, {"a": ((), (math.nan,))}])
def test_a_tableau_holds_numbers(numbers):
    (name,) = numbers
    with pytest.raises(ValueError, match=f"{name}: expected a number that is finite"):
        Tableau(**({"a": ((), (1.0,)), "b": (0.5, 0.5), "c": (0.0, 1.0), "order": 2} | numbers))


def test_a_state_may_be_an_array_and_steps_a_list():
    end = sample(lambda x, t: -x, np.ones((2, 3)), [0.0, 0.5, 1.0])
    torch.testing.assert_close(end, sample(lambda x, t: -x, torch.ones(2, 3), 2), rtol=0, atol=0)
    for steps, words in ((None, "got None"), ("ten", "got 'ten'"), ([1.0], "steps: expected at least 2")):
        with pytest.raises(ValueError, match=f"steps: .*{words}" if "steps" not in words else words):
            sample(lambda x, t: -x, torch.ones(2), steps)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uniform_grid(0), "steps: expected a whole number from 1 to 100,000, got 0"),
        (lambda: uniform_grid(2.5), "steps: expected a whole number from 1 to 100,000, got 2.5"),
        (lambda: uniform_grid(3, start=1.0), "start, end: expected two different times"),
        (lambda: uniform_grid(3, end=math.inf), "end: expected a number that is finite, got inf"),
        (lambda: paced_grid(3, lambda s: s[:2]), "pacing: expected a function of an array that rises strictly"),
        (lambda: paced_grid(3, lambda s: 2 * s), "rises strictly from 0 to 1"),
        (lambda: paced_grid(3, lambda s: s + 0.1), "rises strictly from 0 to 1"),
        (lambda: paced_grid(4, lambda s: np.round(s)), "rises strictly from 0 to 1"),
        (lambda: paced_grid(4, lambda s: s * np.nan), "rises strictly from 0 to 1"),
    ],
)
def test_grid_messages(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


# --- progress ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "shown"), [("euler", "20/20"), ("dopri5", "evaluation")])
def test_progress_bar(name, shown, capsys):
    for progress in (None, False, True):  # by default only a slow solution shows one
        solve(lambda x, t: -x, torch.ones(2), uniform_grid(20), method=name, progress=progress)
        assert (shown in capsys.readouterr().err) == bool(progress)
