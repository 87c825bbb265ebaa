"""Everything that turns arrays and Trajectories into pictures: style, grids, velocity views, the plane, pacing, films.

Plotting never sees a model. matplotlib, Pillow and imageio load when the first picture is drawn, not on import.
"""

from fm_core.plotting.animation import frame_durations, render_gif, save_gif, save_mp4
from fm_core.plotting.figures import figure_frames
from fm_core.plotting.frames import Frames, render_frames
from fm_core.plotting.images import image_grid, to_uint8
from fm_core.pacing import (
    PACINGS,
    frame_indices,
    inverse_quadratic,
    linear,
    logarithmic,
    paced,
    quadratic,
    reverse_logarithmic,
)
from fm_core.plotting.plane import (
    plane_mesh,
    plot_density,
    plot_field,
    plot_particles,
    plot_paths,
)
from fm_core.plotting.style import (
    ARROW_COLOR,
    CARD,
    COLORS,
    DIGIT_CMAP,
    LINE_STYLES,
    VELOCITY_CMAP,
    model_style,
    use_style,
)
from fm_core.plotting.velocity import block_average, ink_arrows, plot_state, plot_trajectory, plot_velocity

__all__ = [
    "ARROW_COLOR",
    "CARD",
    "COLORS",
    "DIGIT_CMAP",
    "LINE_STYLES",
    "PACINGS",
    "VELOCITY_CMAP",
    "Frames",
    "block_average",
    "figure_frames",
    "frame_durations",
    "frame_indices",
    "image_grid",
    "ink_arrows",
    "inverse_quadratic",
    "linear",
    "logarithmic",
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
    "quadratic",
    "render_frames",
    "render_gif",
    "reverse_logarithmic",
    "save_gif",
    "save_mp4",
    "to_uint8",
    "use_style",
]
