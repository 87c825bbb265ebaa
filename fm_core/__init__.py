"""Flow matching, built to be read: the package underneath the book.

Names load when they are first used, so ``import fm_core`` costs little more than ``import torch``. The way of the data:
:mod:`~fm_core.data` gives x_1, :mod:`~fm_core.paths` gives x_t and its velocity, a network of :mod:`~fm_core.models`
gives ``velocity(x, t)``, :mod:`~fm_core.losses` compares, :mod:`~fm_core.training` steps, :mod:`~fm_core.solvers` turn
a velocity into a Trajectory, and :mod:`~fm_core.plotting` draws it.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "checkpoints": ["load_model", "load_pretrained", "pretrained_card", "pretrained_history", "save_model"],
    "classifier": ["class_probabilities", "load_classifier", "train_classifier"],
    "data": ["Digits", "dequantize", "fingerprint", "load_digits", "load_mnist", "load_sample", "toy_2d"],
    "exact": ["ExactVelocity", "GaussianVelocity"],
    "experiments": ["load_record"],
    "grids": ["paced_grid", "uniform_grid"],
    "likelihood": ["bits_per_dimension", "divergence", "log_density"],
    "losses": ["flow_matching_loss"],
    "metrics": [],
    "models": ["BaseUNet", "PlainBlock", "ResidualBlock", "ResidualUNet", "UNet", "build_model", "summary"],
    "paths": ["PathSample", "independent_coupling", "straight_path"],
    "plotting": [],
    "scale": ["scaled"],
    "solvers": ["TABLEAUX", "Trajectory", "from_torchdiffeq", "solve"],
    "tracking": ["MLflowTracker", "NullTracker", "load_history", "load_snapshots"],
    "training": ["TrainConfig", "TrainResult", "learning_rate", "train", "validation_loss"],
    "widgets": ["compare_slider", "live_field", "particles_slider", "path_slider", "time_slider", "trajectory_slider"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted([*_HOME, *_MODULE_OF])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return import_module(f"fm_core.{name}")
    if name in _MODULE_OF:
        return getattr(import_module(f"fm_core.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'fm_core' has no attribute {name!r}; it has {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return __all__
