"""One U-Net skeleton with a free block, and the two networks made of it.

Any image size works: max-pooling rounds odd sizes down, and the transposed convolution is given the size of its skip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fm_core._checks import as_tensor, check_count, check_label_range, check_labels, check_number, check_type, described
from fm_core.models.blocks import PlainBlock, ResidualBlock, SelfAttention, start_at_zero
from fm_core.paths import batch_times

__all__ = ["BaseUNet", "MeanFlowUNet", "ResidualUNet", "TimeEmbedding", "UNet"]

WIDTHS = (16, 32, 64, 128)
MAX_LEVELS, MAX_SQUARES = 16, 2 * 10**7  # the sum of the widths' squares; about 10⁹ parameters
MAX_TIME_DIM, MAX_CHANNELS, MAX_SIDE, MAX_CLASSES = 4096, 1024, 4096, 10**5
LABEL_STD = 0.02  # of the label embedding at the start


class TimeEmbedding(nn.Module):
    """Sinusoidal features of t, then a two-layer MLP.

    ``e(t) = MLP([sin(ω_k t), cos(ω_k t)])`` with ``time_dim / 2`` frequencies ω_k spaced geometrically from 1 to 1000.

    Args:
        time_dim: width of the features and of the embedding; even, from 4 to 4,096.
        fastest: features of larger frequencies are zero; by default none is.

    Source: Vaswani et al. 2017, section 3.5, used for a time by Ho et al. 2020, appendix B.
    """

    def __init__(self, time_dim: int, *, fastest: float = math.inf) -> None:
        super().__init__()
        time_dim = check_count("time_dim", time_dim, 4, MAX_TIME_DIM)
        if time_dim % 2:
            raise ValueError(f"time_dim: expected an even number of at least 4, got {time_dim}. 128 is usual.")
        self.omega: Tensor
        self.register_buffer("omega", torch.logspace(0, 3, time_dim // 2), persistent=False)
        count = time_dim // 2  # of the frequencies, of which those up to ``fastest`` are used
        slow = math.inf if math.isinf(fastest) else 1 + int((count - 1) * math.log(fastest) / math.log(1000) + 1e-9)
        self.slow = None if slow >= count else int(slow)
        self.mlp = nn.Sequential(nn.Linear(time_dim, time_dim), nn.GELU(), nn.Linear(time_dim, time_dim), nn.GELU())

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * self.omega  # (B, time_dim / 2)
        if self.slow is not None:
            rest = angles.new_zeros(len(t), len(self.omega) - self.slow)
            slow = angles[:, : self.slow]
            return self.mlp(torch.cat([slow.sin(), rest, slow.cos(), rest], dim=1))
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=1))  # (B, time_dim)


class UNet(nn.Module):
    """Encoder, middle, decoder with skips: ``velocity(x, t)`` for images.

    ::

        x ─ stem ─ block ──────────── skip ──────────── cat ─ block ─ head ─ v
                     └ pool ─ block ─── skip ─── cat ─ block ─ up ┘
                                └ pool ─ … middle … ─ up ┘

    Args:
        block: called as ``block(c_in, c_out, time_dim)``; the difference between the two networks.
        widths: channels of each level, from full resolution down; every level halves the resolution.
        time_dim: width of the time embedding, even, from 4 to 4,096.
        channels: channels of the images, at most 1,024.
        middle: module put after the middle block, such as self-attention; ``None`` for none.
        classes: number of labels 0, 1, …; a label's embedding is added to the time embedding. ``None`` for a network
            without labels.

    Raises:
        ValueError: sizes that are no whole numbers, or make more than about 10⁹ parameters. Nothing is allocated then.
    """

    def __init__(
        self,
        block: Callable[[int, int, int], nn.Module],
        widths: Sequence[int] = WIDTHS,
        time_dim: int = 128,
        *,
        channels: int = 1,
        middle: nn.Module | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        widths, channels = _checked_widths(widths), check_count("channels", channels, most=MAX_CHANNELS)
        check_type("block", block, Callable, "a function block(c_in, c_out, time_dim)")
        check_type("middle", middle, nn.Module | None, "an nn.Module or None")
        time_dim = check_count("time_dim", time_dim, 4, MAX_TIME_DIM)
        self.channels, self.widths, self.time_dim = channels, widths, time_dim
        self.embed = TimeEmbedding(time_dim)
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        pairs = list(zip((widths[0], *widths), widths, strict=False))  # (c_in, c_out) of each level
        self.pool: nn.Module = nn.MaxPool2d(2)
        self.encoder = nn.ModuleList(block(c_in, c_out, time_dim) for c_in, c_out in pairs)
        self.middle = block(widths[-1], widths[-1], time_dim)
        self.after_middle = middle if middle is not None else nn.Identity()
        rising = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # (deep, shallow), from the deepest up
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, stride=2) for deep, shallow in rising)
        self.decoder = nn.ModuleList(block(2 * shallow, shallow, time_dim) for _, shallow in rising)
        self.head = nn.Conv2d(widths[0], channels, 1)
        self.classes = None if classes is None else check_count("classes", classes, most=MAX_CLASSES)
        if self.classes is not None:
            self.label = nn.Embedding(self.classes + 1, time_dim)  # the last one stands for "no label"
            nn.init.normal_(self.label.weight, std=LABEL_STD)

    def _sizes(self) -> dict[str, Any]:
        """Arguments of both networks, JSON-ready; ``classes`` only where there are some."""
        sizes = {"widths": list(self.widths), "time_dim": self.time_dim, "channels": self.channels}
        return sizes if self.classes is None else {**sizes, "classes": self.classes}

    def forward(self, x: Tensor, t: Tensor | float, y: Tensor | int | None = None) -> Tensor:
        """Velocity at ``x``.

        Args:
            x: images, ``(B, channels, H, W)``.
            t: times, ``(B,)`` or a scalar (a number or a tensor of shape ``()`` or ``(1,)``). The network is trained
                on [0, 1]; a little beyond, where adaptive solvers of other libraries evaluate, it extrapolates.
            y: labels, integers ``(B,)`` or one for all, for a network with ``classes``. The null label ``classes``, or
                None, asks for no class.

        Returns:
            Velocity, the shape of ``x``, in grey levels of [-1, 1] per unit of time.

        Raises:
            ValueError: ``x``, ``t`` or ``y`` of another shape or type, ``x`` on another device than the network, a
                label out of range, or one for a network without classes.
        """
        x, t = self._checked(x, t)
        emb = self.embed(t)  # (B, time_dim)
        if self.classes is not None:
            emb = emb + self.label(self._labels(y, x))
        elif y is not None:
            raise ValueError("y: expected None for a network without classes, got labels. Build it with classes=10.")
        return self._decode(x, emb)

    def _decode(self, x: Tensor, emb: Tensor) -> Tensor:
        """Everything after the embedding ``(B, time_dim)``."""
        h = self.stem(x)
        skips = []
        for level, block in enumerate(self.encoder):
            h = block(self.pool(h) if level else h, emb)
            skips.append(h)
        h = self.after_middle(self.middle(skips.pop(), emb))
        for up, block in zip(self.up, self.decoder, strict=True):
            skip = skips.pop()
            h = up(h, output_size=skip.shape[-2:])  # odd sizes: meet the skip
            h = block(torch.cat([h, skip], dim=1), emb)
        return self.head(h)

    def _checked(self, x: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Images in the network's precision and times ``(B,)``, once both have the right shapes."""
        smallest, weight = 2 ** (len(self.widths) - 1), self.stem.weight
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.layout != torch.strided:
            x = as_tensor("x", x, ("B", self.channels, "H", "W")).to(weight.device)
        if x.ndim != 4 or x.shape[1] != self.channels or min(x.shape[-2:]) < smallest:
            raise ValueError(
                f"x: expected images (B, {self.channels}, H, W) with H and W at least {smallest}, got "
                f"{described(x)}. x[None, None] makes a batch of one grey image."
            )
        if x.device != weight.device:
            raise ValueError(f"x: expected images on the network's device, {weight.device}, got some on {x.device}.")
        if x.dtype != weight.dtype:
            x = x.to(weight.dtype)
        return x, batch_times(t, x).expand(len(x))

    def _labels(self, y: Tensor | int | None, x: Tensor) -> Tensor:
        """Labels ``(B,)`` on the device of ``x``, once they are known to have an embedding."""
        assert self.classes is not None
        labels = check_labels("y", self.classes if y is None else y, len(x)).to(x.device)
        if not torch.compiler.is_compiling() and (labels.device.type == "cpu" or not self.training):  # else it waits
            check_label_range("y", labels, self.classes)
        return labels.expand(len(x))


class BaseUNet(UNet):
    """The plain U-Net: one 3×3 convolution and GELU per block (:class:`PlainBlock`), no norm, no identity.

    Args:
        widths: channels of each level, from 1.
        time_dim: width of the time embedding, even.
        channels: channels of the images.
        classes: number of labels, or None.
    """

    def __init__(
        self,
        widths: Sequence[int] = WIDTHS,
        time_dim: int = 128,
        *,
        channels: int = 1,
        classes: int | None = None,
    ) -> None:
        super().__init__(PlainBlock, widths, time_dim, channels=channels, classes=classes)

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build this network again, JSON-ready."""
        return self._sizes()


class ResidualUNet(UNet):
    """The same skeleton with a :class:`ResidualBlock` at every level and in the middle.

    Args:
        widths: channels of each level, each a multiple of 8 (the groups of the normalisation).
        time_dim: width of the time embedding, even.
        channels: channels of the images.
        attention: put zero-initialised self-attention after the middle block.
        classes: number of labels, or None.

    Raises:
        ValueError: a width that GroupNorm cannot divide.
    """

    GROUPS = 8

    def __init__(
        self,
        widths: Sequence[int] = WIDTHS,
        time_dim: int = 128,
        *,
        channels: int = 1,
        attention: bool = False,
        classes: int | None = None,
    ) -> None:
        widths = _checked_widths(widths)
        if any(w % self.GROUPS for w in widths):
            raise ValueError(
                f"widths: expected multiples of {self.GROUPS}, the groups of the normalisation, got {widths}. Take "
                f"{tuple(math.ceil(w / self.GROUPS) * self.GROUPS for w in widths)}."
            )
        middle = SelfAttention(widths[-1], groups=self.GROUPS) if attention else None
        super().__init__(ResidualBlock, widths, time_dim, channels=channels, middle=middle, classes=classes)
        self.attention = attention

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build this network again, JSON-ready."""
        return {**self._sizes(), "attention": self.attention}


class MeanFlowUNet(ResidualUNet):
    """The Residual U-Net with a second time: average velocity over [t, end], ``model(x, t, end)``.

    An embedding of the length ``end - t`` is added to the time embedding through a layer that starts at zero, so that
    the network starts as the velocity whose weights it gets.

    Args:
        widths, time_dim, channels, attention: as in :class:`ResidualUNet`.
        fastest: frequencies of the time embedding above it are left out, in radians per unit of time: the loss holds
            the derivative of the network by t, which fast features would dominate.

    Source: Geng et al. 2025 (MeanFlow); Lu and Song 2025, section 4 (why slow time features).
    """

    def __init__(
        self,
        widths: Sequence[int] = WIDTHS,
        time_dim: int = 128,
        *,
        channels: int = 1,
        attention: bool = False,
        fastest: float = 30.0,
    ) -> None:
        super().__init__(widths, time_dim, channels=channels, attention=attention)
        self.fastest = check_number("fastest", fastest, least=1)
        self.span = TimeEmbedding(time_dim, fastest=self.fastest)
        self.embed = TimeEmbedding(time_dim, fastest=self.fastest)
        self.add_span = nn.Linear(time_dim, time_dim)
        start_at_zero(self.add_span)

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build this network again, JSON-ready."""
        return {**super().config, "fastest": self.fastest}

    def forward(self, x: Tensor, t: Tensor | float, end: Tensor | float | None = None) -> Tensor:  # type: ignore[override]
        """Average velocity from ``x`` at time t to time ``end``.

        Args:
            x: images, ``(B, channels, H, W)``.
            t: times, ``(B,)`` or a scalar.
            end: later times, ``(B,)`` or a scalar; None for t itself, which gives the velocity at t.

        Returns:
            ``(x_end - x_t) / (end - t)`` along the flow, the shape of ``x``.
        """
        x, t = self._checked(x, t)
        length = torch.zeros_like(t) if end is None else batch_times(end, x).expand(len(x)) - t
        return self._decode(x, self.embed(t) + self.add_span(self.span(length)))


def _checked_widths(widths: Sequence[int]) -> tuple[int, ...]:
    if isinstance(widths, str) or not hasattr(widths, "__iter__") or not 0 < len(widths) <= MAX_LEVELS:
        raise ValueError(
            f"widths: expected the channels of 1 to {MAX_LEVELS} levels, such as {WIDTHS}, got {described(widths)}."
        )
    found = tuple(check_count("widths", w) for w in widths)
    if sum(w * w for w in found) > MAX_SQUARES:
        raise ValueError(f"widths: expected squares that add up to {MAX_SQUARES:,} at most, got {described(found)}.")
    return found
