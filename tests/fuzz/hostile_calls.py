"""Call every public function with hostile arguments and count what happens.

Run ``OMP_NUM_THREADS=1 nice python tests/fuzz/hostile_calls.py`` from the repository; ``--only solve`` takes the
functions whose name contains a word, ``--show raw`` lists the calls of an outcome. Not part of the test suite.

Each function has one good call. From it, one call is made per argument and hostile value: wrong types, numbers out of
range, arrays of other dtypes, shapes and layouts, NaN. A call runs in a worker with a limit of time and memory.
Outcomes:

- clear: an error raised by a ``raise`` of this project, whose message holds "expected" and the argument's name;
- unnamed: another error raised by a ``raise`` of this project;
- raw: any other exception, whatever it says;
- right: accepted, and nothing was to be refused: the value means the same, or is as good as the one of the good call;
- silent: accepted, though the argument holds NaN, infinity, images of another range, or a value of a type or range that
  means nothing; or accepted with NaN in the result that the good call does not have;
- slow, memory: over the limits, or more than 2 GB taken.

The verdict on what is accepted is by rule (``verdict``), with the exceptions ``FINE`` and ``WRONG``. An exception in a
velocity or a loss that the caller wrote is the caller's, and is not provoked here.
"""

from __future__ import annotations

import argparse
import linecache
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

os.environ.update(MPLBACKEND="agg", FM_OFFLINE="1")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "book")]

import numpy as np  # noqa: E402
import torch  # noqa: E402

SECONDS, MEMORY, HUNGRY = 20, 8 << 30, 2 << 30
OUTCOMES = ("clear", "unnamed", "raw", "right", "silent", "slow", "memory")
OURS = (str(ROOT / "fm_core"), str(ROOT / "book" / "fm_book"))

# Accepted, and rightly so: "function.argument=value" as a regular expression, with the reason.
FINE = {
    r".*\.(generator|progress|x_0|t|coupling|probes|middle|network|data|training|column_labels|title|columns|color"
    r"|device|root|limit|reference|width|bands|rows|label|real|density|field|mesh|low|high|callback|tracker|velocity"
    r"|std|config)=None": "None is the default, or left out",
    r".*=empty": "an empty set has an empty result where the function refuses none",
    r".*\.(paired|progress|colorbar|log|zero|interpolate|arrows|hollow|attention|real|download|half|compile|quiet|wide"
    r"|interval|vertical|resume)=.*": "a switch takes any value by its truth",
    r".*\.(alt|title|label|formulas|source|text|block|seeds_at)=(text|empty text)": "any text is a text",
    r".*\.(root|out|path|folder)=.*": "a path may have any name",
    r".*\.seed=.*": "any whole number is a seed",
    r".*\.(start|end|rtol|atol|limit|reference|fps|at|times|t|values|a|b|x)=(huge( in it)?|more than long)": "a number",
    r".*\.(batch_size|chunk|samples|columns|particles|max_bytes)=(huge|more than long)": "at most so many, so all",
    r"widgets\..*\.frames=(huge|more than long)": "at most so many: all there are",
    r".*\.(t|samples)=list of it": "one time for all, or one index",
    r".*=(None|text), in \.(nfe|source|count).*": "not read here",
    r"widgets\.particles_slider\.trajectory=.*, in \.velocity": "particles need no velocities",
    r".*\.entry=(a dict|None)": "an entry of a record, or an Estimate without interval",
    r".*=None, in \.(low|high).*": "an Estimate without interval",
    r".*\.(metrics|panels|rows|columns|column_labels)=(text|None|nan) in it": "any text, label or quantity",
    r"figures\.scaled\.(smoke|default|full)=.*": "any value may be scaled",
    r"(plotting|figures)\..*\.(images|rows|x_1|frames)=(unit range|byte range|bytes|negative|huge number)": "clipped",
    r"core\.(fingerprint|Digits)\.images=.*": "a hash and a container; who computes with the numbers looks at them",
    r"core\.(solve|sample|integrate)\.x=(meta|empty list)": "shapes without values, and no sample",
    r"core\.(dequantize|solve)\.images=empty list": "no image",
}


# Never right, whatever comes back.
WRONG = (
    r".*\.level=.*(-1|1\.5|0)",
    r"core\.(straight_path|flow_matching_loss|log_density)\.t=(negative|-1|1\.5|huge number)",
    r".*\.(steps|n|n_frames|frames|count|resamples|batch_size|draws|probes|particles|noise|subsets|subset_size|k|chunk"
    r"|widths|time_dim|channels|size|columns|factor|scale|images|log_every|checkpoint_every|eval_images|order)"
    r"=(-1|1\.5|negative|huge.*|more than long)",
)


class Skip:
    """An argument that is not attacked."""

    def __init__(self, value: Any) -> None:
        self.value = value


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(x, t):
    return -x


def images(n: int = 6) -> torch.Tensor:
    return noise(n, 1, 28, 28).clamp(-1, 1)


def cases() -> Iterator[tuple[str, Callable[..., Any], dict[str, Any]]]:
    """``(room.name, function, good arguments)``; an argument ``*name`` is given by position."""
    import matplotlib.pyplot as plt
    from torch import nn

    from fm_book import live_field, metrics, scale
    from fm_book.figures import ablation, common, comparison, path_grid, unet_diagram
    from fm_book.figures import metrics as metric_figures
    from fm_book.metrics import Estimate
    from fm_core import (
        checkpoints,
        data,
        environment,
        exact,
        likelihood,
        losses,
        models,
        pacing,
        paths,
        plotting,
        sliders,
        solvers,
        training,
    )  # fmt: skip

    def ax():
        return plt.figure().add_subplot()

    x0, x1, plane = noise(4, 2), noise(4, 2, seed=1), noise(6, 2)
    net = models.BaseUNet((4, 8), time_dim=8)
    trajectory = solvers.solve(linear, noise(3, 1, 28, 28), solvers.uniform_grid(4))
    swarm = solvers.solve(linear, noise(20, 2), solvers.uniform_grid(4))
    g = Skip(torch.Generator().manual_seed(0))
    mesh = plotting.plane_mesh(2.0, 9)
    flat = np.exp(-(mesh**2).sum(axis=1) / 2)
    folder = Path(tempfile.mkdtemp())
    digits = data.load_sample("test")
    few = data.Digits(digits.images[::10].clone(), digits.labels[::10].clone(), "few")
    feats = metrics.features(few.images)
    est = Estimate(0.5, 0.4, 0.6, (0.4, 0.6))
    mlp = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))

    def case(room, function, **arguments):
        return f"{room}.{getattr(function, '__qualname__', function)}", function, arguments

    # the way: paths, losses, solvers
    yield case("core", paths.straight_path, x_0=x0, x_1=x1, t=torch.rand(4))
    yield case("core", paths.draw_noise, shape=(4, 2), seed=0, device="cpu")
    yield case("core", paths.batch_times, t=torch.rand(4), x=x0)
    yield case("core", losses.flow_matching_loss, velocity=linear, x_1=x1, x_0=x0, t=torch.rand(4), reduction="mean")
    yield case("core", losses.validation_loss, velocity=linear, x_1=x1, batch_size=2, seed=3)
    yield case("core", solvers.uniform_grid, steps=4, start=0.0, end=1.0)
    yield case("core", solvers.paced_grid, steps=4, pacing="quadratic", start=0.0, end=1.0)
    yield case("core", solvers.solve, velocity=linear, x=x0, t=solvers.uniform_grid(4), method="euler", progress=False)
    yield (
        "core.solve dopri5", solvers.solve,
        dict(velocity=linear, x=x0, t=(0.0, 1.0), method=Skip("dopri5"), rtol=1e-4, atol=1e-4, progress=Skip(False)),
    )  # fmt: skip
    yield case("core", solvers.sample, velocity=linear, x=x0, steps=4, method="rk4", progress=False)
    yield ("core.sample of a U-Net", solvers.sample, dict(velocity=Skip(net), x=images(2), steps=2))
    yield case("core", solvers.integrate, velocity=linear, x=x0, t=[0.0, 0.5, 1.0], method="heun", progress=False)
    yield case("core", solvers.Tableau, a=((), (0.5,)), b=(0.0, 1.0), c=(0.0, 0.5), order=2)
    yield case("core", solvers.evaluate, velocity=linear, x=x0, t=torch.tensor(0.5))
    # likelihood
    yield case("core", likelihood.divergence, velocity=linear, x=x0, t=torch.tensor(0.5), probes=noise(2, 4, 2))
    yield case(
        "core", likelihood.log_density, velocity=linear, x=x0, t=solvers.uniform_grid(3), probes=2, kind="rademacher",
        method="rk4", rtol=1e-4, atol=1e-4, generator=g, progress=False,
    )  # fmt: skip
    yield case(
        "core", likelihood.bits_per_dimension, velocity=linear, images=images(2), t=solvers.uniform_grid(2), draws=1,
        probes=1, generator=g, method=Skip("euler"),
    )  # fmt: skip
    if hasattr(likelihood, "sample_with_log_density"):
        yield case(
            "core", likelihood.sample_with_log_density, velocity=linear, x_0=x0, steps=[0.0, 0.5, 1.0], probes=2,
            kind="rademacher", method="rk4", rtol=1e-4, atol=1e-4, generator=g, progress=False,
        )  # fmt: skip
    # exact
    yield case("core", exact.ExactVelocity, points=x1, std=0.1, chunk=2)
    field, normal = exact.ExactVelocity(x1, 0.1), exact.GaussianVelocity(torch.zeros(2), torch.eye(2))
    for name in ("__call__", "posterior_mean", "weights", "log_density"):
        yield case("core", getattr(field, name), x=x0, t=0.5)
    yield case("core", exact.GaussianVelocity, mean=torch.zeros(2), covariance=torch.eye(2))
    yield case("core", normal.__call__, x=x0, t=torch.rand(4))
    yield case("core", normal.flow, x_0=x0, t=0.5)
    yield case("core", normal.log_density, x=x0, t=0.5)
    yield case("core", normal.divergence, t=0.5)
    # pacing
    yield case("core", pacing.paced, n_frames=5, pacing="quadratic")
    yield case("core", pacing.frame_indices, snapshots=np.linspace(0, 1, 6), n_frames=5, pacing="linear")
    yield case("core", pacing.pacing_function, pacing="linear")
    # models
    yield case("core", models.build_model, name="base", widths=(4, 8), time_dim=8, channels=1)
    yield case("core", models.BaseUNet, widths=(4, 8), time_dim=8, channels=1)
    yield case("core", models.ResidualUNet, widths=(8, 16), time_dim=8, channels=1, attention=True)
    yield case("core", models.UNet, block=models.PlainBlock, widths=(4, 8), time_dim=8, channels=1, middle=None)
    yield case("core", models.TimeEmbedding, time_dim=8)
    yield case("core", models.PlainBlock, c_in=4, c_out=4, time_dim=8)
    yield case("core", models.ResidualBlock, c_in=8, c_out=8, time_dim=8, groups=8)
    yield case("core", models.SelfAttention, channels=8, heads=4, groups=8)
    yield case("core", models.summary, model=net, size=28)
    yield case("core", models.count_flops, model=net, size=28)
    yield case("core", models.count_parameters, model=net)
    yield ("core.UNet.forward", net.__call__, dict(**{"*x": images(2), "*t": torch.rand(2)}))
    # data
    yield case("core", data.Digits, images=few.images, labels=few.labels, source="few")
    yield case("core", data.load_sample, split="test", device="cpu")
    yield case("core", data.load_digits, split="test", root=str(folder), device="cpu")
    yield case("core", data.dequantize, images=images(2), generator=g)
    yield case("core", data.toy_2d, name="two_moons", n=5, generator=g)
    yield case("core", data.fingerprint, images=images(2))
    yield case("core", environment.resolve_device, device="cpu")
    # checkpoints and training
    yield case("training", checkpoints.save_model, folder=folder / "m", model=net)
    yield case("training", checkpoints.save_checkpoint, path=folder / "c", tensors={"a": x0}, state={"b": 1})
    yield case("training", checkpoints.load_pretrained, name="base", device="cpu")
    yield case("training", checkpoints.pretrained_card, name="base")
    yield case("training", checkpoints.pretrained_history, name="base")
    recipe = {f.name: f.default for f in fields(training.TrainConfig)} | {"images": 64, "batch_size": 8}
    yield case("training", training.TrainConfig, **recipe)
    config = training.TrainConfig(images=16, batch_size=8)
    yield case("training", training.learning_rate, step=1, config=config)

    def train_once(**arguments):
        return training.train(out=Path(tempfile.mkdtemp()) / "run", progress=False, **arguments)

    yield (
        "training.train", train_once,
        dict(model=models.BaseUNet((4,), time_dim=4), config=config, data=(images(16), images(4)), device="cpu",
             log_every=1, eval_every=1, checkpoint_every=1, eval_images=4, loss=losses.flow_matching_loss),
    )  # fmt: skip
    # plotting
    yield case("plotting", plotting.to_uint8, images=images())
    yield case(
        "plotting", plotting.image_grid, rows={"a": images(3), "b": images(3)}, columns=3,
        column_labels=["x", "y", "z"], title="title", width=5.0,
    )  # fmt: skip
    yield case("plotting", plotting.save_image_grid, path=folder / "g.png", images=images(), columns=3)
    yield case("plotting", plotting.block_average, image=images()[0, 0], factor=4)
    yield case("plotting", plotting.ink_arrows, velocity=images()[0, 0], factor=4)
    yield case(
        "plotting", plotting.plot_state, ax=ax(), x=images()[0, 0], velocity=images()[1, 0], factor=4, reference=1.0
    )
    yield case("plotting", plotting.plot_velocity, ax=ax(), velocity=images()[0, 0], limit=1.0, colorbar=True)
    yield case(
        "plotting", plotting.plot_trajectory, trajectory=trajectory, index=0, times=(0.0, 0.5, 1.0), factor=4,
        width=8.0,
    )  # fmt: skip
    yield case("plotting", plotting.plane_mesh, limit=2.0, n=9)
    yield case("plotting", plotting.plot_density, ax=ax(), mesh=mesh, density=flat, limit=1.0)
    yield case(
        "plotting", plotting.plot_field, ax=ax(), mesh=mesh, velocity=-mesh, kind="arrows", color="black",
        reference=1.0,
    )  # fmt: skip
    yield case("plotting", plotting.plot_particles, ax=ax(), x=plane, color="black", size=6.0, label="dots")
    yield case("plotting", plotting.plot_paths, ax=ax(), states=swarm.x, color="black", linewidth=1.0)
    yield case("plotting", plotting.model_style, name="base")
    film = np.zeros((3, 8, 8), dtype=np.uint8)
    yield case("plotting", plotting.frame_durations, n_frames=3, fps=20.0, hold=1.0)
    yield case("plotting", plotting.save_gif, path=folder / "f.gif", frames=film, fps=20.0, hold=0.5)
    yield case("plotting", plotting.save_mp4, path=folder / "f.mp4", frames=film, fps=20.0, hold=0.1, quality=8.0)
    yield case(
        "plotting", plotting.render_frames, trajectories={"a": trajectory}, samples=2, frames=4, pacing="linear",
        arrows=True, factor=4, scale=2, interpolate=False,
    )  # fmt: skip
    yield case("plotting", plotting.render_gif, path=folder / "r.gif", trajectories={"a": trajectory}, frames=3)
    yield case(
        "plotting", plotting.figure_frames, draw=lambda figure, k: figure.text(0, 0, str(k)), count=2,
        figsize=(1.0, 1.0), dpi=50.0,
    )  # fmt: skip
    # sliders
    yield case(
        "widgets", sliders.time_slider, frames=film, times=[0.0, 0.5, 1.0], alt="what is seen", label="t", fps=15.0,
        width=100, max_bytes=10**6,
    )  # fmt: skip
    yield case("widgets", sliders.trajectory_slider, trajectory=trajectory, samples=2, alt="seen", frames=3, factor=4)
    yield case(
        "widgets", sliders.compare_slider, trajectories={"a": trajectory}, samples=2, alt="seen", frames=3,
        arrows=False, scale=2,
    )  # fmt: skip
    yield case(
        "widgets", sliders.particles_slider, trajectory=swarm, field=np.stack([-mesh] * 5),
        density=np.stack([flat] * 5), mesh=mesh, alt="seen", frames=2, particles=10, size=6.0,
    )  # fmt: skip
    yield case(
        "widgets", live_field.live_field, network=mlp, data=plane, alt="seen", limit=3.0, steps=4, particles=4,
        noise=4, seed=0,
    )  # fmt: skip
    yield case("widgets", live_field.mlp_weights, network=mlp)
    # metrics
    yield case("metrics", metrics.features, images=few.images, batch_size=20)
    for function in (metrics.class_probabilities, metrics.confidence, metrics.classes, metrics.class_balance):
        yield case("metrics", function, x=few.images)
        yield (f"metrics.{function.__name__} of features", function, dict(x=feats))
    yield case("metrics", metrics.moments, x=feats)
    yield case("metrics", metrics.frechet_distance, a=feats, b=feats + 0.1)
    yield ("metrics.frechet_distance of images", metrics.frechet_distance, dict(a=few.images, b=metrics.moments(feats)))
    yield case("metrics", metrics.kernel_distance, a=feats, b=feats[:30], subset_size=20, subsets=2, seed=0)
    yield case("metrics", metrics.kernel_interval, a=feats, b=feats[:30], resamples=10, level=0.9, seed=0)
    yield case("metrics", metrics.precision_recall, real=feats, fake=feats + 0.1, k=3)
    yield case("metrics", metrics.nearest_neighbours, x=feats, reference=feats + 0.1)
    yield case("metrics", metrics.in_reference, labels=few.labels)
    yield case("metrics", metrics.evaluate_samples, images=few.images, training=few.images.flip(0), resamples=5)
    yield (
        "metrics.bootstrap_interval", metrics.bootstrap_interval,
        {"*statistic": torch.mean, "*samples": noise(20), "paired": False, "resamples": 10, "level": 0.9, "seed": 0},
    )  # fmt: skip
    yield case("metrics", metrics.seed_interval, values=[1.0, 2.0, 3.0], level=0.9)
    yield case("metrics", metrics.seed_difference, a=[1.0, 2.0, 3.0], b=[1.0, 1.0, 2.0], level=0.9)
    yield case(
        "metrics", metrics.train_classifier, digits=few, steps=1, seed=0, batch_size=8, lr=1e-3,
        label_noise_cutoff=0.8,
    )  # fmt: skip
    yield case("metrics", metrics.load_classifier, device="cpu")
    # figures of the book
    cells = {"euler-4": {"m": est}, "euler-8": {"m": est}}
    yield case("figures", common.panel_grid, count=2, columns=2, width=4.0, height=2.0)
    yield case("figures", common.draw_estimate, ax=ax(), entry=est, at=1.0)
    yield case("figures", common.as_estimate, entry=est)
    yield case("figures", common.side_of_zero, entry=est)
    yield case("figures", ablation.contribution_panels, groups={"h": {"c": {"m": est}}}, metrics={"m": "M"}, width=6.0)
    square = {"s": (("off", "on"), {"a": (est, est), "b": (est, est)})}
    yield case("figures", ablation.interaction_panels, squares=square, label="loss", columns=2, width=6.0)
    curve = {"r": ([1, 2, 3], {"d": [0.1, 0.2, 0.3], "e": [0.1, 0.2, 0.3]})}
    yield case("figures", ablation.gradient_maps, runs=curve, limits=(1e-3, 1.0), columns=2, width=6.0)
    rates = {"base": {"0.001": {"q": est, "diverged": 0}, "0.01": {"q": est, "diverged": 1}}}
    yield case("figures", ablation.rate_panels, rates=rates, panels={"q": "Q"}, log=("q",), width=6.0)
    yield case("figures", comparison.network_style, name="base")
    yield case(
        "figures", comparison.metric_curves, ax=ax(), cells={"base": cells}, metric="m", solvers=("euler",), real=0.5
    )
    yield case("figures", comparison.difference_curves, ax=ax(), differences={"base": cells}, metric="m",
               solvers=("euler",))  # fmt: skip
    band = {"mean": [0.1, 0.2], "low": [0.0, 0.1], "high": [0.2, 0.3]}
    yield case("figures", comparison.time_curves, ax=ax(), t=[0.0, 1.0], curves={"base": band})
    yield case("figures", comparison.interval_rows, ax=ax(), rows={"a": est})
    yield case("figures", comparison.significance, cells=cells, metrics={"m": 1})
    yield case(
        "figures", comparison.significance_map, cells=cells, metrics={"m": 1}, a="base", b="residual", rows=["M"],
        width=6.0,
    )  # fmt: skip
    yield case(
        "figures", metric_figures.metric_heatmap, values=[[1.0, 2.0]], deviations=[[0.0, 5.0]], rows=["r"],
        columns=["a", "b"], digits=2, width=6.0,
    )  # fmt: skip
    yield case(
        "figures", metric_figures.interval_panels, panels={"m": {"s": est}}, bands={"m": (0.1, 0.9)}, log=("m",),
        columns=2, width=6.0,
    )  # fmt: skip
    view = path_grid.PathView(swarm.x, flat, -mesh, plane)
    yield case("figures", path_grid.draw_path_grid, rows={"r": view}, mesh=mesh, arrows=mesh, t=0.5, width=6.0)
    yield case("figures", path_grid.path_slider, x_0=noise(2, 1, 8, 8), x_1=noise(2, 1, 8, 8).clamp(-1, 1), alt="seen",
               frames=3)  # fmt: skip
    yield case("figures", unet_diagram.draw_unet, widths=(4, 8), size=28, channels=1, block="block", width=6.0)
    yield case("figures", unet_diagram.draw_blocks, blocks={"b": ["conv", "GELU"]}, width=4.0)
    yield case("figures", scale.scaled, smoke=1, default=2, full=3)


# ---- hostile values: {label: value}; the label's first word says what kind it is


def hostile(name: str, value: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "None": None, "text": "x", "empty text": "", "empty list": [], "empty dict": {}, "object": object(),
        "nan": float("nan"), "inf": float("inf"), "complex number": 1j,
    }  # fmt: skip
    if isinstance(value, np.ndarray | torch.Tensor) and getattr(value, "ndim", 0):
        values |= arrays(name, value)
    elif isinstance(value, bool):
        return {}
    elif isinstance(value, int | float):
        values |= {"-1": -1, "0": 0, "1.5": 1.5, "huge": 10**15, "more than long": 10**30, "list of it": [value]}
        values |= {"same, np": np.asarray(value)[()], "same, tensor": torch.tensor(value)}
        if isinstance(value, int):
            values |= {"same, float": float(value)}
    elif isinstance(value, Mapping):
        key = next(iter(value))
        values |= {"list": list(value), "None in it": {**value, key: None}, "text in it": {**value, key: "x"}}
        values |= {"nan in it": {**value, key: float("nan")}, "number as key": {1: value[key]}}
        if isinstance(value[key], torch.Tensor | np.ndarray):
            values |= {f"{k}, in it": {**value, key: v} for k, v in arrays(name, value[key]).items()}
        elif is_dataclass(value[key]):
            values |= {f"{k}, in it": {**value, key: v} for k, v in parts(value[key]).items()}
    elif is_dataclass(value) and not isinstance(value, type):
        values |= {"a dict": {f.name: getattr(value, f.name) for f in fields(value)}, **parts(value)}
    elif isinstance(value, tuple | list) and value:
        values |= {"shorter": value[:-1], "nan in it": type(value)([float("nan"), *value[1:]])}
        values |= {"None in it": type(value)([None, *value[1:]]), "text in it": type(value)(["x", *value[1:]])}
        if all(isinstance(v, int | float) for v in value):
            values |= {"same, np": np.asarray(value), "same, tensor": torch.tensor(value)}
            values |= {
                "negative": type(value)([-v - 1 for v in value]),
                "huge in it": type(value)([10**15] * len(value)),
            }
    elif callable(value) and not isinstance(value, type):
        values |= {
            "nan function": lambda x, *a, **k: x * float("nan"),
            "wrong shape function": lambda x, *a, **k: x[..., :1].repeat(*[1] * x.ndim)[..., None],
            "None function": lambda *a, **k: None,
        }
    if isinstance(value, str):
        values |= {"bytes": b"x", "NUL": "a\0b", "long text": "x" * 5000}
    return values


def arrays(name: str, value: Any) -> dict[str, Any]:
    x = torch.as_tensor(value)
    like = (lambda v: v.numpy()) if isinstance(value, np.ndarray) else (lambda v: v)
    found = {
        "empty": like(x[:0]), "wrong rank, more": like(x[None, None]), "wrong rank, less": like(x.flatten()[0]),
        "wrong shape": like(x[..., :-1].contiguous()), "shorter": like(x[:-1]),
        "complex": like(x.to(torch.complex64)), "meta": x.to("meta"), "sparse": x.to_sparse(),
        "same, other library": x if isinstance(value, np.ndarray) else x.numpy(), "same, list": x.tolist(),
        "negative": like(-x.abs() - 1) if x.dtype != torch.uint8 else like(x),
        "ragged list": [[1.0], [1.0, 2.0]], "number": 0.5, "huge number": 1e30,
    }  # fmt: skip
    if x.is_floating_point():
        nan, infinite = x.clone(), x.clone()
        nan.view(-1)[-1], infinite.view(-1)[-1] = float("nan"), float("inf")
        found |= {"nan in it": like(nan), "inf in it": like(infinite), "int64": like((x * 3).long())}
        found |= {"same, float64": like(x.double()), "near, float16": like(x.half()), "near, bfloat16": x.bfloat16()}
        if x.ndim == 4 and name not in ("x", "velocity", "x_0"):
            found |= {"unit range": like((x + 1) / 2), "byte range": like((x + 1) * 127.5)}
            found |= {"bytes": like(((x + 1) * 127.5).byte())}
    else:
        found |= {"as float": like(x.float()), "as float with nan": like(x.float() * float("nan"))}
    return found


def parts(value: Any) -> dict[str, Any]:
    """A dataclass with one hostile field each."""
    found = {}
    for f in fields(value):
        inner = getattr(value, f.name)
        tries = {"None": None, "text": "x"}
        if isinstance(inner, torch.Tensor | np.ndarray):
            tries |= {k: v for k, v in arrays(f.name, inner).items() if not k.startswith(("same", "near"))}
        for label, bad in tries.items():
            try:
                found[f"{label}, in .{f.name}"] = replace(value, **{f.name: bad})
            except Exception:  # refused where it is made
                continue
    return found


# ---- one call


def bad_numbers(result: Any, depth: int = 0) -> bool:
    """Whether there is a NaN or infinity in a result."""
    if isinstance(result, torch.Tensor):
        return result.is_meta or (result.is_floating_point() and not bool(result.isfinite().all()))
    if isinstance(result, np.ndarray):
        return result.dtype.kind == "f" and not bool(np.isfinite(result).all())
    if isinstance(result, float):
        return not np.isfinite(result)
    if depth < 3 and is_dataclass(result) and not isinstance(result, type):
        return any(bad_numbers(getattr(result, f.name), depth + 1) for f in fields(result))
    if depth < 3 and isinstance(result, Mapping):
        return any(bad_numbers(v, depth + 1) for v in result.values())
    if depth < 3 and isinstance(result, list | tuple):
        return any(bad_numbers(v, depth + 1) for v in result)
    if isinstance(result, torch.nn.Module):
        return any(bad_numbers(p) for p in result.parameters())
    return False


def verdict(call: str, label: str, result: Any, good_is_bad: bool) -> str:
    """Whether an accepted call was accepted rightly."""
    words = (f"{call}={label}", f"{call}={label.split(', in')[0]}")

    def among(patterns: Iterable[str]) -> bool:
        return any(re.fullmatch(pattern, word) for pattern in patterns for word in words)

    fine = among(FINE)
    if among(WRONG) and not fine:
        return "silent"
    if fine:
        return "right" if not bad_numbers(result) or good_is_bad else "silent"
    if bad_numbers(result) and not good_is_bad:
        return "silent"
    kind = label.split(",")[0]
    if kind in ("same", "near", "empty", "shorter", "wrong rank", "wrong shape", "list", "1.5", "-1", "0", "number",
                "as float", "negative", "int64", "same"):  # fmt: skip
        return "right"
    return "silent"


def attempt(call: str, function: Any, arguments: dict[str, Any], label: str, good_is_bad: bool) -> tuple[str, str]:
    argument = call.rpartition(".")[2].lstrip("*")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.alarm(SECONDS)
    began = time.perf_counter()
    try:
        result = run(function, arguments)
        outcome, message = verdict(call, label, result, good_is_bad), repr(type(result).__name__)
    except TimeoutError as error:
        outcome, message = "slow", str(error)
    except MemoryError as error:
        outcome, message = "memory", f"MemoryError: {error}"
    except BaseException as error:
        outcome, message = judged(error, argument), f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    if time.perf_counter() - began > SECONDS - 0.5:
        outcome = "slow"
    if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 > HUNGRY or "not enough memory" in message:
        outcome = "memory"
    return outcome, message[:300].replace("\n", " ")


def judged(error: BaseException, argument: str) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(frame.filename, frame.lineno or 0).strip()
    if not (frame.filename.startswith(OURS) and line.startswith("raise")):
        return "raw"
    head = str(error).partition(", got")[0]
    named = re.search(rf"(?<!\w){re.escape(argument)}(?!\w)", head) is not None
    return "clear" if named and "expected" in str(error) else "unnamed"


def run(function: Any, arguments: dict[str, Any]) -> Any:
    values = {name: a.value if isinstance(a, Skip) else a for name, a in arguments.items()}
    given = [values.pop(name) for name in list(values) if name.startswith("*")]
    return function(*given, **values)


def worker(index: int, only: str, start: int, pipe: Any) -> None:
    """The calls of one function from number ``start`` on, each result sent when it is there."""
    warnings.simplefilter("ignore")
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("over the limit of time")))
    os.chdir(tempfile.mkdtemp())
    name, function, arguments = list(chosen(only))[index]
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    good_is_bad = bad_numbers(run(function, arguments))
    number = 0
    for argument, value in arguments.items():
        if isinstance(value, Skip):
            continue
        for label, bad in hostile(argument.lstrip("*"), value).items():
            if number >= start:
                call = f"{name}.{argument.lstrip('*')}"
                pipe.send((number, call, label, "started", ""))
                pipe.send((number, call, label, *attempt(call, function, {**arguments, argument: bad}, label,
                                                         good_is_bad)))  # fmt: skip
            number += 1
    pipe.send(None)


def chosen(only: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    return (case for case in cases() if only in case[0])


def results_of(index: int, only: str) -> Iterator[tuple[str, str, str, str]]:
    start, context = 0, multiprocessing.get_context("fork")
    while True:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=worker, args=(index, only, start, there))
        process.start()
        there.close()
        last: Any = None
        try:
            while here.poll(SECONDS + 15):
                item = here.recv()
                if item is None:
                    process.join()
                    return
                last = item
                if item[3] != "started":
                    yield item[1:]
            reason = "slow"
        except EOFError:
            reason = "memory"  # the worker died
        process.kill()
        process.join()
        if last is None or (last[3] != "started" and reason == "memory"):
            print(f"the good call of case {index} failed", file=sys.stderr)
            return
        yield (*last[1:3], reason, "worker ended")
        start = last[0] + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="functions whose name contains this")
    parser.add_argument("--show", nargs="*", default=[], choices=OUTCOMES, help="outcomes to list call by call")
    parser.add_argument("--out", help="file for every call, tab-separated")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [case[0] for case in chosen(options.only)]
    table, listing = defaultdict(Counter), []
    for index, name in enumerate(names):
        for call, label, outcome, message in results_of(index, options.only):
            table[name.partition(".")[0]][outcome] += 1
            listing.append((outcome, call, label, message))
    rooms = list(table)
    print("| outcome | " + " | ".join(["all", *rooms]) + " |\n|" + " --- |" * (len(rooms) + 2))
    whole = sum((table[room] for room in rooms), Counter())
    for outcome in OUTCOMES:
        print(f"| {outcome} | " + " | ".join(str(c[outcome]) for c in (whole, *(table[r] for r in rooms))) + " |")
    print("| sum | " + " | ".join(str(c.total()) for c in (whole, *(table[r] for r in rooms))) + " |")
    for line in listing:
        if line[0] in options.show:
            print(*line, sep=" | ")
    if options.out:
        Path(options.out).write_text("".join("\t".join(line) + "\n" for line in listing), encoding="utf-8")


if __name__ == "__main__":
    main()
