"""The two networks of the book: one U-Net skeleton, two blocks."""

from __future__ import annotations

import inspect
from typing import Any

from fm_core._checks import check_choice
from fm_core.models.blocks import PlainBlock, ResidualBlock, SelfAttention
from fm_core.models.summary import Summary, count_flops, count_parameters, summary
from fm_core.models.unet import BaseUNet, MeanFlowUNet, ResidualUNet, TimeEmbedding, UNet

__all__ = [
    "MODELS",
    "BaseUNet",
    "MeanFlowUNet",
    "PlainBlock",
    "ResidualBlock",
    "ResidualUNet",
    "SelfAttention",
    "Summary",
    "TimeEmbedding",
    "UNet",
    "build_model",
    "count_flops",
    "count_parameters",
    "summary",
]

MODELS: dict[str, type[BaseUNet] | type[ResidualUNet]] = {
    "base": BaseUNet,
    "residual": ResidualUNet,
    "mean-flow": MeanFlowUNet,
}


def build_model(name: str, **config: Any) -> UNet:
    """Build a network by name, as checkpoints and the command line do.

    Args:
        name: ``"base"``, ``"residual"`` or ``"mean-flow"``.
        config: arguments of the class, such as ``widths`` and ``time_dim``; a network's ``config`` fits.

    Raises:
        ValueError: unknown name, or an argument that the class refuses.
    """
    check_choice("name", name, MODELS)
    for argument in config:
        check_choice(f"an argument of {MODELS[name].__name__}", argument, inspect.signature(MODELS[name]).parameters)
    return MODELS[name](**config)
