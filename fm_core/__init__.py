"""Flow matching: data → paths → models → losses → training → solvers → plotting.

The way to read it is ``paths``, ``losses``, ``models``, ``solvers``, ``training``. Plots, films, sliders and MLflow
are imported by name: ``fm_core.plotting``, ``fm_core.sliders``, ``fm_core.tracking``.
"""

from fm_core.checkpoints import load_model, load_pretrained, pretrained_card, pretrained_history, save_model
from fm_core.data import Digits, dequantize, load_digits, load_mnist, load_sample, toy_2d
from fm_core.environment import resolve_device
from fm_core.exact import ExactLabelledVelocity, ExactVelocity, GaussianVelocity
from fm_core.guidance import guided
from fm_core.likelihood import bits_per_dimension, divergence, log_density, sample_with_log_density
from fm_core.losses import flow_matching_loss, validation_loss
from fm_core.models import BaseUNet, PlainBlock, ResidualBlock, ResidualUNet, UNet, build_model, summary
from fm_core.paths import PathSample, draw_noise, straight_path
from fm_core.solvers import TABLEAUX, Tableau, Trajectory, paced_grid, sample, solve, uniform_grid
from fm_core.training import TrainConfig, TrainResult, train

__version__ = "0.2.0"

__all__ = [
    "TABLEAUX",
    "BaseUNet",
    "Digits",
    "ExactLabelledVelocity",
    "ExactVelocity",
    "GaussianVelocity",
    "PathSample",
    "PlainBlock",
    "ResidualBlock",
    "ResidualUNet",
    "Tableau",
    "TrainConfig",
    "TrainResult",
    "Trajectory",
    "UNet",
    "bits_per_dimension",
    "build_model",
    "dequantize",
    "divergence",
    "draw_noise",
    "flow_matching_loss",
    "guided",
    "load_digits",
    "load_mnist",
    "load_model",
    "load_pretrained",
    "load_sample",
    "log_density",
    "paced_grid",
    "pretrained_card",
    "pretrained_history",
    "resolve_device",
    "sample",
    "sample_with_log_density",
    "save_model",
    "solve",
    "straight_path",
    "summary",
    "toy_2d",
    "train",
    "uniform_grid",
    "validation_loss",
]
