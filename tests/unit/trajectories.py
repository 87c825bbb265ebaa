"""Trajectories of images for the tests of plotting and sliders."""

import numpy as np
import torch

from fm_core.solvers import Trajectory

__all__ = ["clip"]


def clip(snapshots=11, batch=3, size=28, seed=0):
    """Straight lines from noise to a bright blob on black."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    blob = 2 * np.exp(-((x - size / 2) ** 2 + (y - size / 3) ** 2) / 18) - 1
    x_1 = np.broadcast_to(blob, (batch, 1, size, size)).astype(np.float32)
    x_0 = rng.standard_normal(x_1.shape).astype(np.float32)
    t = np.linspace(0, 1, snapshots)
    s = t[:, None, None, None, None].astype(np.float32)
    x, velocity = (1 - s) * x_0 + s * x_1, np.broadcast_to(x_1 - x_0, (snapshots, *x_1.shape)).copy()
    return Trajectory(torch.from_numpy(t), torch.from_numpy(x), torch.from_numpy(velocity), snapshots - 1)
