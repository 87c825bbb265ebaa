"""Sliders over t: pictures that the reader moves, with a kernel, without one, and on paper.

``time_slider`` turns frames into a slider; the others draw the frames of one kind of picture and hand them to it. They
need arrays and Trajectories only. ipywidgets loads with this package and nowhere else. ``live_field`` is no slider over
frames: it puts a small network of the plane itself into the page.
"""

from fm_core.sliders.digits import compare_slider, path_slider, trajectory_slider
from fm_core.sliders.plane import particles_slider
from fm_core.sliders.slider import TimeSlider, time_slider

__all__ = [
    "TimeSlider",
    "compare_slider",
    "particles_slider",
    "path_slider",
    "time_slider",
    "trajectory_slider",
]
