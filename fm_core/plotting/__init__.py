"""Figures and animations of arrays and Trajectories; never of a model.

matplotlib, Pillow and imageio are imported by the functions that draw.
"""

from fm_core.pacing import PACINGS, frame_indices, paced
from fm_core.plotting.film import (
    Frames,
    figure_frames,
    frame_durations,
    render_frames,
    render_gif,
    save_gif,
    save_mp4,
)
from fm_core.plotting.images import image_grid, save_image_grid, to_uint8
from fm_core.plotting.plane import plane_mesh, plot_density, plot_field, plot_particles, plot_paths
from fm_core.plotting.style import CARD, COLORS, DIGIT_CMAP, INK, QUIET, VELOCITY_CMAP, model_style, use_style
from fm_core.plotting.velocity import block_average, ink_arrows, plot_state, plot_trajectory, plot_velocity

__all__ = [
    "CARD",
    "COLORS",
    "DIGIT_CMAP",
    "INK",
    "PACINGS",
    "QUIET",
    "VELOCITY_CMAP",
    "Frames",
    "block_average",
    "figure_frames",
    "frame_durations",
    "frame_indices",
    "image_grid",
    "ink_arrows",
    "model_style",
    "paced",
    "plane_mesh",
    "plot_density",
    "plot_field",
    "plot_particles",
    "plot_paths",
    "plot_state",
    "plot_trajectory",
    "plot_velocity",
    "render_frames",
    "render_gif",
    "save_gif",
    "save_image_grid",
    "save_mp4",
    "to_uint8",
    "use_style",
]
