"""Gaussian paths: conversions, other paths, DDIM, stochastic sampling; against formulas for Gaussian data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fm_core import ExactVelocity, GaussianVelocity, sample, uniform_grid
from fm_core.diffusion import (
    COSINE,
    LINEAR,
    STRAIGHT,
    GaussianPath,
    on_path,
    predictions,
    sample_ddim,
    sample_sde,
)

pytestmark = pytest.mark.usefixtures("one_thread")
PATHS = (STRAIGHT, COSINE, LINEAR)
each_path = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
MEAN = torch.tensor([0.6, -0.3]).double()
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]]).double()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 2, generator=seeded(seed), dtype=torch.float64)


def known_velocity(path: GaussianPath, x: Tensor, t: Tensor) -> Tensor:
    """Of Gaussian data, from E[x_1 | x] and E[x_0 | x]."""
    a, b = path.alpha(t), path.sigma(t)
    rest = torch.linalg.solve(a**2 * COVARIANCE + b**2 * torch.eye(2).double(), (x - a * MEAN).T).T
    return path.d_alpha(t) * (MEAN + a * rest @ COVARIANCE) + path.d_sigma(t) * b * rest


@each_path
def test_paths_go_from_noise_to_data_and_know_their_slopes(path: GaussianPath) -> None:
    t = torch.linspace(0, 1, 101).double()
    assert 0 <= path.alpha(t[:1]).item() < 0.01
    assert path.sigma(t[:1]).item() > 0.9999
    assert path.alpha(t[-1:]).item() == pytest.approx(1)
    assert path.sigma(t[-1:]).item() == pytest.approx(0, abs=1e-7)
    inside, h = t[1:-1], 1e-6
    for value, slope in ((path.alpha, path.d_alpha), (path.sigma, path.d_sigma)):
        measured = (value(inside + h) - value(inside - h)) / (2 * h)
        torch.testing.assert_close(slope(inside), measured, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(path.time(path.alpha(inside) / path.sigma(inside)), inside, rtol=0, atol=1e-12)
    if path is not STRAIGHT:
        torch.testing.assert_close(path.alpha(t) ** 2 + path.sigma(t) ** 2, torch.ones_like(t))


@each_path
def test_each_prediction_gives_all_others(path: GaussianPath) -> None:
    x_0, x_1, t = noise(50), noise(50, 1), torch.linspace(0.05, 0.95, 50).double()
    a, b = path.alpha(t)[:, None], path.sigma(t)[:, None]
    x = a * x_1 + b * x_0
    wanted = {
        "data": x_1,
        "noise": x_0,
        "velocity": path.d_alpha(t)[:, None] * x_1 + path.d_sigma(t)[:, None] * x_0,
        "score": -x_0 / b,
    }
    for kind, value in wanted.items():
        found = predictions(kind, value, x, t, path)
        for name, expected in wanted.items():
            torch.testing.assert_close(getattr(found, name), expected, rtol=1e-10, atol=1e-10)


def test_the_score_of_the_exact_field_is_the_gradient_of_its_log_density() -> None:
    field, x, t, h = ExactVelocity(noise(5, 2), std=0.3), noise(20, 3), 0.4, 1e-5
    score = predictions("velocity", field(x, t), x, t).score
    for i, step in enumerate(h * torch.eye(2).double()):
        slope = (field.log_density(x + step, t) - field.log_density(x - step, t)) / (2 * h)
        torch.testing.assert_close(score[:, i], slope, rtol=1e-6, atol=1e-6)


@each_path
def test_a_field_on_another_path_is_that_of_the_data_there(path: GaussianPath) -> None:
    field, x = GaussianVelocity(MEAN, COVARIANCE), noise(30)
    for t in torch.tensor([0.02, 0.3, 0.7, 0.98]).double():
        moved = on_path(field, path)(x, t)
        torch.testing.assert_close(moved, known_velocity(path, x, t), rtol=1e-9, atol=1e-9)
        back = on_path(on_path(field, path), STRAIGHT, path)(x, t)
        torch.testing.assert_close(back, field(x, t), rtol=1e-7, atol=1e-7)


def test_flows_on_all_paths_end_at_the_same_data() -> None:
    field, x = GaussianVelocity(MEAN, COVARIANCE), noise(30)
    for path in (STRAIGHT, COSINE):
        end = sample(on_path(field, path), x, 200, method="midpoint", progress=False)
        torch.testing.assert_close(end, field.flow(x, 1.0), rtol=0, atol=1e-4)


def test_ddim_is_eulers_method_in_other_coordinates() -> None:
    field, x, grid = ExactVelocity(noise(5, 2), std=0.3), noise(20), uniform_grid(10)
    for path in (COSINE, LINEAR):
        a, b = path.alpha(grid), path.sigma(grid)
        straight = sample(field, x / (a[0] + b[0]), a / (a + b), progress=False)
        ddim = sample_ddim(on_path(field, path), x, grid, path=path)
        torch.testing.assert_close(ddim, straight, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("strength", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("path", [STRAIGHT, COSINE], ids=lambda path: path.name)
def test_the_stochastic_sampler_keeps_the_densities(path: GaussianPath, strength: float) -> None:
    """Means and covariances of 40,000 samples. Standard errors are below 0.005, the error of 200 steps is below 0.015:
    a deviation of 0.04 comes by chance less than once in a million."""
    field = on_path(GaussianVelocity(MEAN, COVARIANCE), path)
    end = sample_sde(field, noise(40_000), 200, strength=strength, path=path, generator=seeded(4))
    torch.testing.assert_close(end.mean(dim=0), MEAN, rtol=0, atol=0.04)
    torch.testing.assert_close(end.T.cov(), COVARIANCE, rtol=0, atol=0.04)


def test_strength_zero_is_euler_and_noise_comes_from_the_generator() -> None:
    field, x = GaussianVelocity(MEAN, COVARIANCE), noise(10)
    torch.testing.assert_close(sample_sde(field, x, 7, strength=0), sample(field, x, 7, progress=False))
    one, again, other = (sample_sde(field, x, 7, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_images_and_float32_pass_and_every_time_is_met() -> None:
    def toward(x: Tensor, t: Tensor | float) -> Tensor:
        return -x

    x = torch.randn(3, 1, 4, 4, generator=seeded(5))
    for path in (STRAIGHT, COSINE):
        assert on_path(toward, path)(x, 1.0).isfinite().all()
        assert on_path(toward, path)(x, torch.tensor([0.0, 0.5, 1.0])).shape == x.shape
    assert sample_sde(toward, x, 3).dtype == sample_ddim(toward, x, 3).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: predictions("energy", noise(2), noise(2), 0.5), "kind: expected one of 'velocity', 'score'"),
        (lambda: predictions("data", noise(3), noise(2), 0.5), "value: expected the shape of x"),
        (lambda: predictions("data", noise(2), noise(2), 1.5), r"t: expected times in \[0, 1\]"),
        (lambda: predictions("data", noise(2), noise(2), 0.5, "cosine"), "path: expected a GaussianPath"),  # type: ignore
        (lambda: on_path(lambda x, t: x, "cosine"), "target: expected a GaussianPath"),  # type: ignore
        (lambda: sample_sde(lambda x, t: x, noise(2), strength=-1), "strength: expected"),
        (lambda: sample_sde(lambda x, t: x, noise(2), [1.0, 0.0]), "steps: expected times that rise"),
    ],
)
def test_what_cannot_be_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
