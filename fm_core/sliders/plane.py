"""The slider for distributions in the plane: particles on their way, over a density, beside the field."""

from __future__ import annotations

from typing import Any

import numpy as np

from fm_core.plotting import figure_frames, plot_density, plot_field, plot_particles
from fm_core.plotting._arrays import as_array
from fm_core.sliders._moments import moments
from fm_core.sliders.slider import TimeSlider, time_slider

__all__ = ["particles_slider"]

_DPI = 120
_STEPS = 14  # colours of the density: flat steps weigh little, and their edges are lines of equal density


def particles_slider(
    trajectory: Any,
    *,
    field: Any = None,
    density: Any = None,
    mesh: Any = None,
    alt: str,
    label: str = "time t",
    frames: int = 41,
    particles: int = 400,
    size: float = 6,
    **options: Any,
) -> TimeSlider:
    """Particles in the plane over t, with the density and the velocity field at each moment.

    One panel holds the particles, among the arrows of the field where there is one; beside it stands the density, in
    steps of colour whose edges are lines of equal density. Arrows share one scale over all moments; colours do not,
    since a density on its way from noise to data grows many times higher: each moment's highest density is the
    brightest.

    Args:
        trajectory: with ``.t`` ``(T,)`` and ``.x`` ``(T, B, 2)``, as ``fm_core.solve`` gives it.
        field: velocities on the mesh, ``(T, n * n, 2)``, lengths per unit of time.
        density: on the mesh, ``(T, n * n)``.
        mesh: ``(n * n, 2)``, as ``fm_core.plotting.plane_mesh`` gives it; needed for field and density, and it sets
            the limits of the picture.
        alt: says what is to be seen, how it changes with t included.
        label: of the slider.
        frames: at most so many of the T moments are shown, evenly chosen, the first and the last among them.
        particles: at most so many are drawn, the first of the batch; each makes the page heavier.
        size: area of a particle's dot, in square points.
        options: more of :func:`time_slider`.

    Raises:
        ValueError: shapes that do not fit each other, a field or a density without mesh, and what ``time_slider``,
            ``plot_field`` and ``plot_density`` refuse.

    Explained in the chapter *From noise to data along a flow*.
    """
    t, x = as_array(trajectory.t), as_array(trajectory.x)
    if x.ndim != 3 or x.shape[2] != 2 or t.shape != x.shape[:1]:
        raise ValueError(
            f"trajectory.x has shape {x.shape} and trajectory.t {t.shape}; particles in the plane are wanted, x of "
            "shape (T, B, 2) and t of shape (T,)."
        )
    layers = {name: as_array(a) for name, a in (("field", field), ("density", density)) if a is not None}
    if layers and mesh is None:
        raise ValueError(f"mesh is None, but {' and '.join(layers)} lives on one; give mesh=plane_mesh(limit, n).")
    for name, values in layers.items():
        wanted = (len(t), len(mesh), 2) if name == "field" else (len(t), len(mesh))
        if values.shape != wanted:
            raise ValueError(f"{name} has shape {values.shape}; with these times and this mesh it must be {wanted}.")
    from matplotlib import colormaps

    limit = float(np.abs(as_array(mesh)).max()) if mesh is not None else 1.05 * float(np.percentile(np.abs(x), 99.8))
    chosen = moments(len(t), frames)
    if "field" in layers:
        speed = np.hypot(*np.moveaxis(layers["field"][chosen], -1, 0))
        reference = float(np.percentile(speed, 98)) or 1.0
    steps = colormaps["cividis"].resampled(_STEPS)
    panels = 2 if "density" in layers else 1

    def draw(figure: Any, k: int) -> None:
        axes = list(figure.subplots(1, panels, squeeze=False)[0])
        for ax in axes:
            ax.set(xlim=(-limit, limit), ylim=(-limit, limit))
        if "density" in layers:
            plot_density(axes[0], mesh, layers["density"][chosen[k]], cmap=steps)
            axes[0].set_title("density")
        if "field" in layers:
            plot_field(axes[-1], mesh, layers["field"][chosen[k]], reference=reference)
        plot_particles(axes[-1], x[chosen[k], :particles], size=size)
        axes[-1].set_title("particles and velocity" if "field" in layers else "particles")

    film = figure_frames(draw, len(chosen), figsize=(6.6, 3.5) if panels == 2 else (3.6, 3.8), dpi=_DPI)
    width = round(film.shape[2] * 110 / _DPI)
    return time_slider(film, t[chosen], **({"alt": alt, "label": label, "width": width} | options))
