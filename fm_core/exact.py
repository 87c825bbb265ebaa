"""The velocity that minimises the flow-matching loss, in closed form: for a finite data set and for a Gaussian.

For data that are ``N`` points of equal weight, each widened to an isotropic Gaussian of standard deviation σ, the
state ``x_t = (1 - t) x_0 + t x_1`` is a mixture of Gaussians ``N(t μ_i, s² I)`` with ``s² = (1 - t)² + t² σ²``, and

``v*(x, t) = m + (t σ² - (1 - t)) / s² · (x - t m)``,  ``m = Σ_i w_i μ_i``,  ``w = softmax_i(-‖x - t μ_i‖² / (2 s²))``

so all that costs anything is the weighted mean ``m``. Four decisions:

- One pass over the points in chunks, with a running maximum (Milakov and Gimelshein 2018): memory for ``B × chunk``
  weights however many points there are, and both sums as matrix products.
- ``‖x - t μ‖²`` is expanded, and ``‖x‖²``, which all points share, is left out. The points are centred first, because
  the rounding error of the expanded form grows with the points' norms.
- The field has no limit as t → 1 where σ = 0: it is ``(m - x) / (1 - t)``, unbounded off the data. A state of order
  1 is known to the machine precision ε, which makes an error of ``ε / (1 - t)`` in the velocity; holding the time back
  at ``1 - δ`` displaces a path by δ times its velocity at most. Both errors are equal at ``δ = √ε`` (3e-4 in float32,
  1e-8 in float64). Times are held back there, so nothing overflows, and ``v*(x, 1)`` means ``v*(x, 1 - δ)``.
- The density's exponent is anchored at the nearest point, whose distance is computed without expanding the square.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fm_core._checks import as_tensor, check_count, check_label_range, check_labels, check_number, described
from fm_core.paths import batch_times, check_times

__all__ = ["ExactLabelledVelocity", "ExactVelocity", "GaussianVelocity"]

SMALLEST = -60.0  # logit below the largest: exp(-60) is lost in rounding, and smaller weights are denormal, so slow


class ExactVelocity:
    """The marginal velocity of a finite data set; no network has a smaller flow-matching loss on these points.

    ``v*(x, t) = E[x_1 - x_0 | x_t = x]``, and with ``std = 0``: ``(E[x_1 | x_t = x] - x) / (1 - t)``

    Gradients flow to ``x``. All methods take ``x`` of shape ``(B, ...)`` with the points' trailing shape, and ``t`` in
    [0, 1], a number, a scalar tensor or ``(B,)``; they compute and answer in the precision and on the device of ``x``.

    At t = 0, ``x`` says nothing about x_1: the weights are equal and ``v*(x, 0)`` is the points' mean minus ``x``. With
    ``std < δ = √ε`` (ε: machine precision of ``x``), times above ``1 - δ`` are taken as ``1 - δ``, because the field
    has no limit at t = 1. There ``v*`` is 0 on a data point and ``(nearest point - x) / δ`` elsewhere. With a larger
    ``std`` nothing is cut off, and ``v*(x, 1) = x``.

    Args:
        points: the data, ``(N, ...)``, floating point; every point weighs 1/N. δ suits data of order 1.
        std: standard deviation σ ≥ 0 of the Gaussian around each point, in the points' unit; 0 is the data set itself.
        chunk: points per matrix product. A call needs memory for ``B × chunk`` weights.

    Raises:
        ValueError: points that are none, not floating point or not finite; a negative ``std``; a ``chunk`` below 1.
            When called: an ``x`` of another trailing shape, a ``t`` that does not fit the batch or leaves [0, 1].

    Source: Bertrand et al. 2025 for a finite set; derived, with the width, in the chapter *The velocity no network can
    beat*.
    """

    def __init__(self, points: Tensor, std: float = 0.0, *, chunk: int = 4096) -> None:
        self.points = as_tensor("points", points, ("N", ...), finite=True).detach()
        self.std, self.chunk = check_number("std", std, least=0, most=1e9), check_count("chunk", chunk, most=2**31)
        self._prepared: tuple[Tensor, Tensor, Tensor] | None = None
        self._prepare(self.points.new_empty(0, dtype=torch.promote_types(self.points.dtype, torch.float32)))

    def __repr__(self) -> str:
        return f"ExactVelocity({len(self.points):,} points of shape {tuple(self.points.shape[1:])}, std={self.std:g})"

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The velocity ``v*(x, t)``, in units of ``x`` per unit of time; shape of ``x``."""
        x, y, s, centre = self._state(x, t)
        mean, _, _ = self._softmax(y, s)
        slope = (s * self.std**2 - (1 - s)) / self._variance(s)
        return (mean + centre + slope * (y - s * mean)).reshape(x.shape).to(x.dtype)

    def posterior_mean(self, x: Tensor, t: Tensor | float) -> Tensor:
        """What x_1 is on average where the state is ``x`` at time t, ``E[x_1 | x_t = x]``; shape of ``x``."""
        x, y, s, centre = self._state(x, t)
        mean, _, _ = self._softmax(y, s)
        gain = s * self.std**2 / self._variance(s)
        return (mean + centre + gain * (y - s * mean)).reshape(x.shape).to(x.dtype)

    def weights(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Probability of each point given ``x_t = x``, ``(B, N)``; each row adds up to 1. All in memory at once."""
        x, y, s, _ = self._state(x, t)
        _, points, half_norms = self._prepare(y)
        return self._logits(y, s, points, half_norms).softmax(dim=1).to(x.dtype)

    def log_density(self, x: Tensor, t: Tensor | float) -> Tensor:
        """``log p_t(x)`` of the marginal path, in nats per sample, ``(B,)``."""
        x, y, s, _ = self._state(x, t)
        _, total, nearest = self._softmax(y, s)
        variance = self._variance(s)
        gap = (y - s * self._prepare(y)[1][nearest]).square().sum(dim=1, keepdim=True)  # (B, 1)
        norm = math.log(len(self.points)) + y.shape[1] / 2 * (2 * math.pi * variance).log()
        return (total.log() - gap / (2 * variance) - norm)[:, 0].to(x.dtype)

    def _state(self, x: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, ``x - t c`` as (B, D), times (B or 1, 1) held back from 1 where needed, and the points' centre c (D,)."""
        x = as_tensor("x", x, ("B", *self.points.shape[1:]), least=0)
        y = x.reshape(len(x), self.points[0].numel()).to(torch.promote_types(x.dtype, torch.float32))
        s = check_times(batch_times(t, y))[:, None]
        delta = math.sqrt(torch.finfo(y.dtype).eps)
        if self.std < delta:
            s = s.clamp(max=1 - delta)
        centre = self._prepare(y)[0]
        return x, y - s * centre, s, centre

    def _variance(self, s: Tensor) -> Tensor:
        return (1 - s).square() + (s * self.std).square()

    def _prepare(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Centre (D,), centred points (N, D) and half their squared norms (N,), kept for the next call."""
        kept = self._prepared
        if kept is None or kept[0].dtype != like.dtype or kept[0].device != like.device:
            flat = self.points.reshape(len(self.points), -1).to(like)
            centre = flat.mean(dim=0)
            centred = flat - centre
            half_norms = torch.cat([part.square().sum(dim=1) / 2 for part in centred.split(self.chunk)])
            self._prepared = kept = centre, centred, half_norms
        return kept

    def _logits(self, y: Tensor, s: Tensor, points: Tensor, half_norms: Tensor) -> Tensor:
        """``(‖y‖² - ‖y - s μ‖²) / (2 variance)`` for some of the points, (B, points)."""
        scale = s / self._variance(s)
        return ((scale * y) @ points.T).sub_((scale * s) * half_norms)

    def _softmax(self, y: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted mean (B, D) of the centred points, sum of exp(logit - largest) (B, 1), index of the largest (B,)."""
        _, points, half_norms = self._prepare(y)
        top = y.new_full((len(y), 1), -math.inf)
        total, mean = torch.zeros_like(top), torch.zeros_like(y)
        nearest = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        for start in range(0, len(points), self.chunk):
            part = points[start : start + self.chunk]  # (C, D)
            logits = self._logits(y, s, part, half_norms[start : start + self.chunk])  # (B, C)
            here, index = logits.max(dim=1, keepdim=True)
            nearest = torch.where((here > top)[:, 0], start + index[:, 0], nearest)
            new_top = torch.maximum(top, here)
            keep = (top - new_top).exp()  # what the sums so far weigh beside the new maximum
            weights = logits.sub_(new_top).clamp_(min=SMALLEST).exp_()
            total = keep * total + weights.sum(dim=1, keepdim=True)
            mean = keep * mean + weights @ part
            top = new_top
        return mean / total, total, nearest


class ExactLabelledVelocity:
    """The exact velocity of every class of a labelled data set, and of all classes: ``field(x, t, y)``.

    It has what :func:`fm_core.guidance.guided` asks of a model, so that guidance can be computed without a network.

    Args:
        points: the data, ``(N, ...)``, floating point.
        labels: integers from 0, ``(N,)``; every label up to the largest occurs.
        std, chunk: as in :class:`ExactVelocity`.

    Attributes:
        classes: number of labels, and the null label.
        fields: the :class:`ExactVelocity` of each class; the last one of all points.

    Raises:
        ValueError: labels that do not fit the points, or a class without points.
    """

    def __init__(self, points: Tensor, labels: Tensor, std: float = 0.0, *, chunk: int = 4096) -> None:
        points = as_tensor("points", points, ("N", ...), finite=True)
        y = check_labels("labels", labels, len(points)).to(points.device)
        counts = torch.bincount(y.clamp(min=0))
        if len(y) != len(points) or int(y.min()) < 0 or int(counts.min()) == 0:
            raise ValueError(
                f"labels: expected one from 0 for each of {len(points)} points, and every one up to the largest to "
                f"occur, got {described(labels)} with the counts {described(counts.tolist())}."
            )
        self.classes = len(counts)
        self.fields = [ExactVelocity(points[y == k], std, chunk=chunk) for k in range(self.classes)]
        self.fields.append(ExactVelocity(points, std, chunk=chunk))

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | int | None = None) -> Tensor:
        """The velocity ``v*(x, t)`` of the labels ``y``, one or ``(B,)``; of all points for None and the null label."""
        given = check_labels("y", self.classes if y is None else y, len(x)).expand(len(x)).to(x.device)
        check_label_range("y", given, self.classes)
        s, v = batch_times(t, x).expand(len(x)), torch.empty_like(x)
        for label in given.unique().tolist():
            rows = given == label
            v[rows] = self.fields[label](x[rows], s[rows])
        return v


class GaussianVelocity:
    """The marginal velocity for Gaussian data, where everything about the flow is known.

    ``v*(x, t) = m + (t Σ - (1 - t) I) S⁻¹ (x - t m)`` with ``S = (1 - t)² I + t² Σ``, the covariance of x_t

    Σ and S share their eigenvectors, so one decomposition of Σ serves every t. Methods take ``x`` of shape ``(B, D)``
    and ``t`` in [0, 1], a number, a scalar tensor or ``(B,)``; they compute and answer in the precision and on the
    device of ``x``.

    Args:
        mean: mean m of the data, ``(D,)``.
        covariance: covariance Σ of the data, ``(D, D)``, symmetric and positive definite.

    Raises:
        ValueError: shapes that do not fit; a covariance that is not symmetric or not positive definite. When called:
            an ``x`` of another shape, a ``t`` that does not fit the batch or leaves [0, 1].

    Source: the conditional mean of a Gaussian given a sum with another one, for example Bishop 2006, section 2.3.3.
    Explained in the chapter *From noise to data along a flow*.
    """

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        m = as_tensor("mean", mean, ("D",), finite=True).detach().cpu().double()
        sigma = as_tensor("covariance", covariance, (len(m), len(m)), finite=True).detach().cpu().double()
        if not torch.allclose(sigma, sigma.T, rtol=1e-5, atol=1e-7 * float(sigma.abs().max())):
            raise ValueError(
                "covariance: expected a symmetric matrix, got one that differs from its transpose by up to "
                f"{float((sigma - sigma.T).abs().max()):g}. Take (covariance + covariance.T) / 2 if that is rounding."
            )
        values, vectors = torch.linalg.eigh((sigma + sigma.T) / 2)
        if not float(values[0]) > 1e-12 * float(values[-1]):
            raise ValueError(
                f"covariance: expected a positive definite matrix, got the eigenvalue {float(values[0]):g} (largest: "
                f"{float(values[-1]):g}). Add a small multiple of the identity."
            )
        self.mean, self._values, self._vectors = m, values, vectors

    def __repr__(self) -> str:
        return f"GaussianVelocity(dimension {len(self.mean)})"

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The velocity ``v*(x, t)``, ``(B, D)``."""
        x, s, m, values, vectors = self._at("x", x, t)
        return m + ((x - s * m) @ vectors * _slope(values, s)) @ vectors.T

    def flow(self, x_0: Tensor, t: Tensor | float) -> Tensor:
        """Where the flow has carried ``x_0`` from time 0 by time t, ``t m + S^(1/2) x_0``; ``(B, D)``."""
        x_0, s, m, values, vectors = self._at("x_0", x_0, t)
        return s * m + (x_0 @ vectors * _spread(values, s).sqrt()) @ vectors.T

    def log_density(self, x: Tensor, t: Tensor | float) -> Tensor:
        """``log p_t(x)`` of the marginal path ``N(t m, S)``, in nats per sample, ``(B,)``."""
        x, s, m, values, vectors = self._at("x", x, t)
        spread = _spread(values, s)  # (B or 1, D)
        exponent = (((x - s * m) @ vectors).square() / spread).sum(dim=1)
        return -(exponent + (2 * math.pi * spread).log().sum(dim=1)) / 2

    def divergence(self, t: Tensor | float) -> Tensor:
        """``∇·v*`` at time t, the same at every x because the field is affine; a scalar, or ``(B,)`` for such a t."""
        as_tensor("t", t)  # refuses what is no number
        t = torch.as_tensor(t, dtype=None if isinstance(t, Tensor) else torch.float64)
        s = check_times(t).reshape(-1, 1)
        return _slope(self._values.to(s), s).sum(dim=1).reshape(t.shape)

    def _at(self, name: str, x: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        x = as_tensor(name, x, ("B", len(self.mean)), least=0)
        return x, check_times(batch_times(t, x))[:, None], self.mean.to(x), self._values.to(x), self._vectors.to(x)


def _spread(values: Tensor, s: Tensor) -> Tensor:
    return (1 - s).square() + s.square() * values  # eigenvalues of S


def _slope(values: Tensor, s: Tensor) -> Tensor:
    return (s * values - (1 - s)) / _spread(values, s)  # eigenvalues of the velocity's matrix
