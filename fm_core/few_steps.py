"""Samples in a few steps: couplings and pairs that straighten the paths, and average velocities (MeanFlow)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from tqdm import tqdm

from fm_core._checks import as_tensor, check_count, check_generator, check_number, check_velocity, described
from fm_core.checkpoints import check_recipe, load_checkpoint, save_checkpoint
from fm_core.data import fingerprint
from fm_core.models import MeanFlowUNet, ResidualUNet, UNet
from fm_core.paths import draw_noise, expand_as, straight_path
from fm_core.solvers import Velocity, sample, uniform_grid

__all__ = [
    "GivenPairs",
    "draw_pairs",
    "load_pairs",
    "mean_flow_loss",
    "mean_flow_network",
    "mean_flow_sample",
    "optimal_coupling",
]

AverageVelocity = Callable[..., Tensor]


def optimal_coupling(x_0: Tensor, x_1: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of a batch with the least sum of squared distances; the noise is permuted, the data keep their order.

    A coupling for :func:`fm_core.flow_matching_loss`. Pairs within a batch only: the velocity that is learned is that
    of optimal transport in the limit of large batches, and biased for small ones. The cost grows with the cube of B.

    Args:
        x_0: noise, ``(B, ...)``.
        x_1: data, same shape.

    Source: Tong et al. 2024, section 3.2; Pooladian et al. 2023.
    """
    x_1 = as_tensor("x_1", x_1, ("B", ...), finite=True)
    x_0 = as_tensor("x_0", x_0, tuple(x_1.shape), like=x_1, finite=True)
    cost = torch.cdist(x_1.flatten(1), x_0.flatten(1)).square().cpu().numpy()
    return x_0[linear_sum_assignment(cost)[1]], x_1


class GivenPairs:
    """A coupling that gives every item of the data its own noise, for training on pairs of a flow (reflow).

    Items are found by a random projection, so that order and batches are free; the same item twice has one noise.

    Args:
        x_0: noise, ``(N, ...)``, floating point.
        x_1: data, same shape; what the training set holds.

    Raises:
        ValueError: shapes that differ. When called: an item that is not one of the pairs.

    Source: Liu et al. 2023, section 2.
    """

    def __init__(self, x_0: Tensor, x_1: Tensor) -> None:
        self.x_1 = as_tensor("x_1", x_1, ("N", ...), finite=True)
        self.x_0 = as_tensor("x_0", x_0, tuple(self.x_1.shape), like=self.x_1, finite=True)
        generator = torch.Generator().manual_seed(0)
        self.direction = torch.randn(self.x_1[0].numel(), generator=generator, dtype=torch.float64).to(x_1.device)
        self.keys, self.order = self._key(self.x_1).sort()

    def __repr__(self) -> str:
        return f"GivenPairs({len(self.x_1)}, {fingerprint(self.x_0)[:12]})"  # what a checkpoint remembers

    def __call__(self, x_0: Tensor, x_1: Tensor) -> tuple[Tensor, Tensor]:
        """The noises of the items ``x_1``, ``(B, ...)``, and the items; ``x_0`` is not used."""
        key = self._key(x_1)
        right = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        left = (right - 1).clamp(min=0)
        nearer = (self.keys[left] - key).abs() < (self.keys[right] - key).abs()
        rows = self.order[torch.where(nearer, left, right)]
        if not torch.equal(self.x_1[rows], x_1):
            raise ValueError("x_1: expected items of the pairs, got others. Train on the x_1 of GivenPairs(x_0, x_1).")
        return self.x_0[rows], x_1

    def _key(self, x: Tensor) -> Tensor:
        return (x.flatten(1).double() * self.direction).sum(dim=1)


def draw_pairs(
    velocity: Velocity,
    folder: str | os.PathLike[str],
    *,
    name: str,
    count: int = 50_000,
    shape: Sequence[int] = (1, 28, 28),
    steps: int = 20,
    method: str = "euler",
    seed: int = 40_000,
    part: int = 1000,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> int:
    """Draw samples of a flow and keep them with their noise, in files of ``part`` pairs; an interrupted call goes on.

    Args:
        velocity: called as ``velocity(x, t)``.
        folder: gets ``pairs-00000.safetensors`` and so on, each with the recipe, samples in half precision; the noise
            of part k is ``draw_noise((part, *shape), seed + k)`` and is not stored.
        name: of the network and its weights; part of the recipe.
        count: pairs in all.
        shape: of one item.
        steps, method: of the solver.
        seed, part: of the noise.
        device: where the samples are computed.
        progress: show a bar.

    Returns:
        Pairs in the folder.

    Raises:
        CheckpointError: a file of another recipe; it is left as it is.
    """
    check_velocity(velocity)
    count, part = check_count("count", count), check_count("part", part)
    recipe = {"name": name, "shape": list(shape), "steps": steps, "method": method, "seed": seed, "part": part}
    for k in tqdm(range(-(-count // part)), desc="pairs", disable=not progress):
        size = min(part, count - k * part)
        file = Path(folder) / f"pairs-{k:05d}.safetensors"
        if file.exists():
            tensors, theirs = load_checkpoint(file)
            check_recipe(file, theirs, recipe)
            if len(tensors["x_1"]) >= size:
                continue
        noise = draw_noise((part, *shape), seed + k)[:size].to(device)
        samples = sample(velocity, noise, steps, method=method, progress=False)
        save_checkpoint(file, {"x_1": samples.half()}, recipe)
    return count


def load_pairs(folder: str | os.PathLike[str]) -> tuple[Tensor, Tensor]:
    """Noise and samples that :func:`draw_pairs` left in a folder, each ``(N, ...)``, float32, on the CPU.

    Raises:
        FileNotFoundError: no pairs there.
        CheckpointError: a damaged file, or parts of different recipes.
    """
    files = sorted(Path(folder).glob("pairs-*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder}: expected files pairs-*.safetensors, got none. Draw them with draw_pairs().")
    x_0, x_1, first = list[Tensor](), list[Tensor](), dict[str, Any]()
    for file in files:
        tensors, recipe = load_checkpoint(file)
        first = first or recipe
        check_recipe(file, recipe, first)
        k = int(file.stem.removeprefix("pairs-"))
        x_1.append(tensors["x_1"].float())
        x_0.append(draw_noise((recipe["part"], *recipe["shape"]), recipe["seed"] + k)[: len(x_1[-1])])
    return torch.cat(x_0), torch.cat(x_1)


def mean_flow_network(velocity: UNet, fastest: float = 30.0) -> MeanFlowUNet:
    """A network of average velocities that starts with the weights of a trained velocity network.

    Args:
        velocity: a trained Residual U-Net, without labels.
        fastest: as in :class:`fm_core.models.MeanFlowUNet`.

    Raises:
        ValueError: a network of another kind.
    """
    if type(velocity) is not ResidualUNet or velocity.classes is not None:
        raise ValueError(f"velocity: expected a ResidualUNet without classes, got {described(velocity)}.")
    network = MeanFlowUNet(**velocity.config, fastest=fastest)
    network.load_state_dict(velocity.state_dict(), strict=False)
    return network


def mean_flow_loss(
    velocity: AverageVelocity,
    x_1: Tensor,
    *,
    generator: torch.Generator | None = None,
    share: float = 0.5,
    power: float = 1.0,
    floor: float = 1e-3,
) -> Tensor:
    """Loss of MeanFlow: the average velocity over [t, s] has to agree with its own derivative along the path.

    ``L = E w ‖u(x_t, t, s) - sg(u_t + (s - t) d/dt u(x_t, t, s))‖² / D``, ``d/dt u = ∂_t u + u_t · ∇_x u``

    From ``(s - t) u = x_s - x_t``, differentiated by t along the flow. Where s = t it is the flow-matching loss. The
    target is held fixed (sg), and its derivative is a Jacobian-vector product, at the cost of about one more forward
    pass for the items with s > t. The adaptive weight ``w = 1 / (‖·‖² / D + floor)^power``, also held fixed, keeps
    items with a large error from dominating.

    Args:
        velocity: called as ``velocity(x, t, s)``, for example :class:`fm_core.models.MeanFlowUNet`.
        x_1: data, ``(B, ...)``.
        generator: random numbers, on the device of ``x_1``.
        share: share of the items with s > t, in [0, 1].
        power: of the adaptive weight; 0 for none.
        floor: added to the squared error in the weight, above 0.

    Returns:
        The weighted loss, near 1 whatever the quality with ``power=1``; watch samples and the validation loss instead.

    Raises:
        ValueError: no data, a share outside [0, 1], a velocity of another shape than ``x_1``.

    Source: Geng et al. 2025, equations 6 to 11, with time running from noise to data.
    """
    check_velocity(velocity)
    check_generator(generator)
    share, power = check_number("share", share, least=0, most=1), check_number("power", power, least=0)
    floor = check_number("floor", floor, above=0)
    x_1 = as_tensor("x_1", x_1, ("B", ...))
    options = {"device": x_1.device, "dtype": x_1.dtype, "generator": generator}
    x_0 = torch.randn(x_1.shape, **options)
    a, b = torch.rand(2, len(x_1), **options)
    count = round(share * len(x_1))  # the first items have s > t
    t = torch.cat([torch.minimum(a, b)[:count], a[count:]])
    s = torch.cat([torch.maximum(a, b)[:count], a[count:]])
    path = straight_path(x_0, x_1, t)
    u = velocity(path.x_t, t, s)
    if not isinstance(u, Tensor) or u.shape != x_1.shape:
        raise ValueError(f"velocity(x, t, s): expected the shape of x, {tuple(x_1.shape)}, got {described(u)}.")
    target = path.dx_t.clone()
    if count:
        ends = s[:count]
        with torch.no_grad(), warnings.catch_warnings():
            at, along = (path.x_t[:count], t[:count]), (path.dx_t[:count], torch.ones_like(t[:count]))
            warnings.simplefilter("ignore", FutureWarning)  # torch's own use of torch.jit.script
            slope = torch.func.jvp(lambda x, now: velocity(x, now, ends), at, along)[1]
        target[:count] += expand_as(ends - t[:count], slope) * slope
    error = (u - target).square().flatten(1).mean(dim=1)
    return (error / (error.detach() + floor) ** power).mean()


@torch.no_grad()
def mean_flow_sample(velocity: AverageVelocity, noise: Tensor, steps: int = 1) -> Tensor:
    """Samples in a few steps of the average velocity, ``x_s = x_t + (s - t) u(x_t, t, s)``; one evaluation a step.

    Args:
        velocity: called as ``velocity(x, t, s)``.
        noise: ``(B, ...)``.
        steps: equal steps from 0 to 1.

    Returns:
        Samples, the shape of ``noise``.
    """
    check_velocity(velocity)
    x = as_tensor("noise", noise, ("B", ...), finite=True)
    grid = uniform_grid(check_count("steps", steps)).to(x)
    for t, s in pairwise(grid):
        x = x + (s - t) * velocity(x, t, s)
    return x
