"""The variants of the ablation: one block whose parts are switched on one at a time, on the one skeleton.

They go from the Base to the Residual U-Net. Blocks with two convolutions activate before they convolve, as a residual
block does; so the step from one to two convolutions also moves the activation, and every later step changes one thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from fm_core._checks import check_choice
from fm_core.models import SelfAttention, UNet
from fm_core.models.blocks import start_at_zero

__all__ = ["GROUPS", "VARIANTS", "Variant", "VariantBlock", "VariantUNet"]

GROUPS = 4  # of the normalisation: the variants are half as wide as the published networks


@dataclass(frozen=True)
class Variant:
    """The parts of a variant.

    Attributes:
        title: readable name.
        convolutions: 3×3 convolutions in a block, 1 or 2.
        skip: an identity path around each block (1×1 convolution where the channels change).
        norm: GroupNorm before each convolution of a block.
        zero: the block's last convolution starts at zero.
        attention: self-attention after the middle block.
        time: ``"blocks"``, the embedding enters every block, or ``"input"``, only the first.
        embedding: ``"sinusoidal"``, or ``"raw"``: the MLP is given t itself.
    """

    title: str
    convolutions: int = 2
    skip: bool = True
    norm: bool = True
    zero: bool = True
    attention: bool = False
    time: str = "blocks"
    embedding: str = "sinusoidal"


plain = partial(Variant, skip=False, norm=False, zero=False)
VARIANTS: dict[str, Variant] = {
    "base": plain("Base U-Net", convolutions=1),
    "two-convolutions": plain("two convolutions"),
    "identity": Variant("+ identity path", norm=False, zero=False),
    "groupnorm": Variant("+ GroupNorm", zero=False),
    "residual": Variant("+ zero start = Residual U-Net"),
    "attention": Variant("+ attention", attention=True),
    "residual-no-identity": Variant("Residual without identity path", skip=False, zero=False),
    "residual-no-norm": Variant("Residual without GroupNorm", norm=False),
    "residual-input-time": Variant("Residual, time at the input only", time="input"),
    "residual-raw-time": Variant("Residual, raw t", embedding="raw"),
    "base-input-time": plain("Base, time at the input only", convolutions=1, time="input"),
    "base-raw-time": plain("Base, raw t", convolutions=1, embedding="raw"),
}


class VariantBlock(nn.Module):
    """A block between :class:`fm_core.models.PlainBlock` and :class:`fm_core.models.ResidualBlock`, ends included.

    One convolution: ``y = GELU(conv₁(x) + W e(t))``. Two: ``h = conv₁(GELU(N(x))) + W e(t)``,
    ``y = conv₂(GELU(N(h))) [+ x]``, where N is GroupNorm or nothing.

    Args:
        c_in, c_out: channels in and out; multiples of ``groups`` with ``norm``.
        time_dim: width of the time embedding.
        variant: which parts are there.
    """

    def __init__(self, c_in: int, c_out: int, time_dim: int, *, variant: Variant) -> None:
        super().__init__()
        self.two = variant.convolutions == 2
        norm = partial(nn.GroupNorm, GROUPS) if variant.norm else nn.Identity
        self.norm1 = norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time: nn.Module | None = nn.Linear(time_dim, c_out)
        if self.two:
            self.norm2 = norm(c_out)
            self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = None
        if variant.skip:
            self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        if variant.zero:
            start_at_zero(self.conv2)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.gelu(self.norm1(x)) if self.two else x)  # (B, c_out, H, W)
        if self.time is not None:
            h = h + self.time(emb)[:, :, None, None]
        if not self.two:
            return F.gelu(h)
        h = self.conv2(F.gelu(self.norm2(h)))
        return h if self.skip is None else h + self.skip(x)


class RawTime(nn.Module):
    """The time embedding's two-layer MLP on t itself, without the sinusoidal features."""

    def __init__(self, time_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(1, time_dim), nn.GELU(), nn.Linear(time_dim, time_dim), nn.GELU())

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(t[:, None])  # (B, time_dim)


class VariantUNet(UNet):
    """The U-Net of one variant.

    Args:
        variant: a key of :data:`VARIANTS`.
        widths: channels of each level.
        time_dim: width of the time embedding, even.
    """

    def __init__(self, variant: str, widths: tuple[int, ...], time_dim: int) -> None:
        check_choice("variant", variant, VARIANTS)
        parts = VARIANTS[variant]
        middle = SelfAttention(widths[-1], groups=GROUPS) if parts.attention else None
        super().__init__(partial(VariantBlock, variant=parts), widths, time_dim, middle=middle)
        self.variant = variant
        if parts.embedding == "raw":
            self.embed = RawTime(time_dim)
        if parts.time == "input":
            for block in (*self.encoder[1:], self.middle, *self.decoder):
                block.register_module("time", None)

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build this network again, JSON-ready."""
        return {"variant": self.variant, "widths": list(self.widths), "time_dim": self.time_dim}
