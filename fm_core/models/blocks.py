"""The blocks of the Base and of the Residual U-Net, and self-attention.

A block is built as ``block(c_in, c_out, time_dim)`` and called as ``block(x, emb)`` with an image ``x`` of shape
``(B, c_in, H, W)`` and a time embedding ``emb`` of shape ``(B, time_dim)``; it returns ``(B, c_out, H, W)``.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fm_core._checks import check_count

__all__ = ["PlainBlock", "ResidualBlock", "SelfAttention", "check_sizes", "start_at_zero"]

MAX_SIZE = 2**14  # channels of a layer


class PlainBlock(nn.Module):
    """One 3×3 convolution, the time embedding added, GELU.

    ``y = GELU(conv(x) + W e(t))``

    No normalisation and no identity path.
    Explained in the chapter *Two U-Nets*.
    """

    def __init__(self, c_in: int, c_out: int, time_dim: int) -> None:
        super().__init__()
        c_in, c_out, time_dim = check_sizes(c_in=c_in, c_out=c_out, time_dim=time_dim)
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(time_dim, c_out)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv(x) + self.time(emb)[:, :, None, None]  # (B, c_out, H, W)
        return F.gelu(h)


class ResidualBlock(nn.Module):
    """Pre-activation residual block with GroupNorm and a time projection between its two convolutions.

    ``h = conv₁(GELU(GN(x))) + W e(t)``, ``y = conv₂(GELU(GN(h))) + x``

    Where ``c_in`` differs from ``c_out`` the identity is a 1×1 convolution. ``conv₂`` starts at zero, so every block
    starts as the identity. Follows He et al. 2016 (pre-activation residual units) with the time conditioning of
    Ho et al. 2020, appendix B. Explained in the chapter *Two U-Nets*.

    Args:
        c_in, c_out: channels in and out; each a multiple of ``groups``.
        time_dim: width of the time embedding.
        groups: groups of the normalisation.
    """

    def __init__(self, c_in: int, c_out: int, time_dim: int, groups: int = 8) -> None:
        super().__init__()
        c_in, c_out = check_sizes(groups, c_in=c_in, c_out=c_out)
        (time_dim,) = check_sizes(time_dim=time_dim)
        self.norm1 = nn.GroupNorm(groups, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(time_dim, c_out)
        self.norm2 = nn.GroupNorm(groups, c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        start_at_zero(self.conv2)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.gelu(self.norm1(x)))  # (B, c_out, H, W)
        h = h + self.time(emb)[:, :, None, None]
        h = self.conv2(F.gelu(self.norm2(h)))
        return h + self.skip(x)


class SelfAttention(nn.Module):
    """Self-attention over the pixels of a small feature map, added to its input and starting at zero.

    Args:
        channels: channels of the feature map, a multiple of ``groups`` and of ``heads``.
        heads: attention heads.
        groups: groups of the normalisation.

    Source: Ho et al. 2020, appendix B (attention at the 16×16 level); Vaswani et al. 2017 for the attention itself.
    """

    def __init__(self, channels: int, heads: int = 4, groups: int = 8) -> None:
        super().__init__()
        (channels,) = check_sizes(groups, channels=channels)
        self.heads = check_count("heads", heads, most=channels)
        if channels % self.heads:
            raise ValueError(f"heads: expected a divisor of the {channels} channels, got {heads}.")
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        start_at_zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).view(b, 3, self.heads, c // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (B, heads, H·W, c / heads)
        h = F.scaled_dot_product_attention(q, k, v)  # (B, heads, H·W, c / heads)
        h = h.transpose(-1, -2).reshape(b, c, height, width)
        return x + self.out(h)


def check_sizes(groups: int = 1, **sizes: int) -> list[int]:
    """The sizes as ints; ValueError unless each is a multiple of ``groups``, at most 2**14."""
    check_count("groups", groups, most=MAX_SIZE)
    for name, size in sizes.items():
        if check_count(name, size, most=MAX_SIZE) % groups:
            raise ValueError(f"{name}: expected a multiple of the {groups} groups, got {size}.")
    return [int(size) for size in sizes.values()]


def start_at_zero(layer: nn.Module) -> None:
    """Set weight and bias to zero."""
    for p in layer.parameters():
        nn.init.zeros_(p)
