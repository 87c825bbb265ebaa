"""Parameters, FLOPs and receptive field of a network."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fm_core._checks import check_count, check_type
from fm_core.models.unet import MAX_SIDE, UNet

__all__ = ["Summary", "count_flops", "count_parameters", "summary"]


@dataclass(frozen=True)
class Summary:
    """Size and reach of a network; ``print`` shows it as a few lines.

    Attributes:
        name: class of the network.
        parameters: number of parameters.
        flops: floating-point operations of one forward pass of one image (a multiply-add counts as two).
        receptive_field: side, in pixels, of the square of input pixels that reach one output pixel through the
            convolutions. GroupNorm and attention reach further: see ``global_paths``.
        global_paths: kinds of layer, if any, through which every pixel reaches every other.
    """

    name: str
    parameters: int
    flops: int
    receptive_field: int
    global_paths: tuple[str, ...]

    def __str__(self) -> str:
        beyond = f" (beyond it: {', '.join(self.global_paths)})" if self.global_paths else ""
        return (
            f"{self.name}\n  parameters       {self.parameters:>12,}\n  FLOPs per image  {self.flops:>12,}\n"
            f"  receptive field  {self.receptive_field:>9} px{beyond}"
        )


def count_parameters(model: nn.Module) -> int:
    """Number of parameters of a network."""
    return sum(p.numel() for p in check_type("model", model, nn.Module, "an nn.Module").parameters())


def count_flops(model: UNet, size: int = 28) -> int:
    """FLOPs of one forward pass of one image; a multiply-add counts as two.

    Args:
        model: a network of this package; on the device ``"meta"`` nothing is computed.
        size: side of the image, in pixels, at most 4,096.

    PyTorch's ``FlopCounterMode`` counts matrix products, convolutions and attention, not additions or GELUs.
    """
    check_type("model", model, UNet, "a network of this package")
    size = check_count("size", size, 2 ** (len(model.widths) - 1), MAX_SIDE)
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, model.channels, size, size, device=device), torch.zeros(1, device=device))
    return counter.get_total_flops()


def summary(model: UNet, size: int = 28) -> Summary:
    """Count parameters and FLOPs, and measure the receptive field.

    The receptive field is measured: on a copy with constant weights and without normalisation and attention, one output
    pixel is differentiated with respect to a large image.

    Args:
        model: a network of this package.
        size: side of the image, in pixels.

    Explained in the chapter *Two U-Nets*.
    """
    check_type("model", model, UNet, "a network of this package")
    kinds = {type(m).__name__ for m in model.modules()}
    return Summary(
        name=type(model).__name__,
        parameters=count_parameters(model),
        flops=count_flops(model, size),
        receptive_field=_receptive_field(model),
        global_paths=tuple(sorted(kinds & {"GroupNorm", "SelfAttention"})),
    )


def _receptive_field(model: UNet) -> int:
    probe = copy.deepcopy(model).to("cpu", torch.float64).requires_grad_(False)
    _keep_convolutions_only(probe)
    side = 8 * 2 ** len(model.widths)
    while (reach := _reach(probe, side)) >= side - 2 ** len(model.widths):  # cut off by the border, or nearly
        side *= 2
    return reach


def _reach(probe: UNet, side: int) -> int:
    x = torch.ones(1, probe.channels, side, side, dtype=torch.float64, requires_grad=True)
    v = probe(x, torch.zeros(1))
    (influence,) = torch.autograd.grad(v[0, 0, side // 2, side // 2], x)
    touched = influence[0].abs().sum(dim=0) > 0  # (side, side)
    return int(max(touched.any(dim=0).sum(), touched.any(dim=1).sum()))


def _keep_convolutions_only(model: UNet) -> None:
    model.pool = nn.AvgPool2d(2)  # the maximum passes only one of its four pixels on
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm) or type(child).__name__ == "SelfAttention":
                setattr(module, name, nn.Identity())
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.fill_(1.0 / module.weight[0].numel())
