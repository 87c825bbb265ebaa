"""A learned velocity field in the plane, interactive without a kernel.

The output is one piece of HTML with weights and scripts, so that it works wherever a notebook's output is shown:
the built book, Jupyter, Colab. A click drops particles at t = 0, and the browser carries them to t = 1 by RK4.
"""

from __future__ import annotations

import base64
import html
import json
import re
import uuid
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor, nn

from fm_core import TABLEAUX
from fm_core._checks import as_tensor, check_count, check_finite, check_number, check_seed, check_text, described

__all__ = ["LiveField", "live_field", "mlp_weights"]

_POINTWISE: dict[type[nn.Module], str] = {nn.Tanh: "tanh", nn.ReLU: "relu", nn.SiLU: "silu"}
_MAX_POINTS = 500  # of the data
_SCRIPTS = ("arrow.js", "rungekutta.js", "live_field.js")
_STYLE = """
.fm-field { max-width: 30rem; margin: 0.5rem auto; }
.fm-field canvas { display: block; width: 100%; aspect-ratio: 1; border-radius: 8px; cursor: crosshair; }
.fm-field :focus-visible { outline: 3px solid var(--pst-color-primary, #176de8); outline-offset: 2px; }
.fm-field-bar { display: flex; flex-wrap: wrap; gap: 0.5rem; align-items: center; margin-top: 0.5rem; }
.fm-field-bar output { min-width: 4.5rem; font-variant-numeric: tabular-nums; }
.fm-field-bar input { flex: 1 1 8rem; min-width: 0; accent-color: var(--pst-color-primary, #176de8); }
.fm-field-bar button { min-height: 2.25rem; padding: 0.3rem 0.75rem; border: 1px solid currentColor; border-radius: 6px;
  background: transparent; color: inherit; font: inherit; cursor: pointer; }
"""


class LiveField:
    """Output of :func:`live_field`, to be the last expression of a cell."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def _repr_html_(self) -> str:
        name = f"fm-field-{uuid.uuid4().hex[:12]}"
        scripts = "\n".join((files("fm_book") / name).read_text(encoding="utf-8") for name in _SCRIPTS)
        module = re.sub(r"^import .*\n", "", scripts, flags=re.MULTILINE)  # one module, so none imports another
        settings = json.dumps(self.settings).replace("<", "\\u003c")  # no text may end the element that holds it
        return (
            f'<style>{_STYLE}</style><div class="fm-field" id="{name}">'
            f"<p>{html.escape(self.settings['alt'])} To drop particles into it, JavaScript must be on.</p>"
            f'<script type="application/json">{settings}</script></div>'
            f'<script type="module">{module}\nmount(document.getElementById("{name}"));</script>'
        )

    def __repr__(self) -> str:
        return f"LiveField({self.settings['alt']!r})"


def live_field(
    network: nn.Sequential,
    data: Tensor | None = None,
    *,
    alt: str,
    limit: float = 3.0,
    steps: int = 24,
    particles: int = 24,
    noise: int = 100,
    seed: int = 0,
) -> LiveField:
    """A velocity network of the plane as a picture to click into.

    A click drops a group of particles at t = 0; they flow along ``dx/dt = network([x, t])``, and arrows show the field
    at the same t. A slider sets t. By keyboard: arrow keys move a cross, Enter drops. With ``prefers-reduced-motion``
    the whole trajectories are shown at once.

    Args:
        network: linear layers and Tanh, ReLU or SiLU in an ``nn.Sequential``, from ``(B, 3)``, the point and then t, to
            ``(B, 2)``.
        data: points shown in the background, ``(N, 2)``, 500 at most.
        alt: text alternative of the picture.
        limit: the square [-limit, limit]² is shown.
        steps: RK4 steps from t = 0 to t = 1, at most 1,000.
        particles: number in a group, at most 10,000.
        noise: number of points of N(0, I) that the button *drop noise* starts, at most 10,000.
        seed: of that noise.

    Raises:
        ValueError: a network of another form, whose layers do not chain, or with weights that are not finite; data of
            another shape or with NaN; a number out of range; an empty alt. A browser could only show nothing.

    Explained in the chapter *The flow-matching objective*.
    """
    check_text("alt", alt, "a text alternative, such as 'Arrows point outwards.'")
    points = (
        torch.empty(0, 2) if data is None else as_tensor("data", data, ("N", 2), least=0, finite=True)[:_MAX_POINTS]
    )
    noise = check_count("noise", noise, most=10_000)
    normal = torch.randn(noise, 2, generator=torch.Generator().manual_seed(check_seed("seed", seed)))
    settings = {
        "alt": alt,
        "limit": check_number("limit", limit, above=0, most=1e6),
        "steps": check_count("steps", steps, most=1000),
        "count": check_count("particles", particles, most=10_000),
        "tableau": asdict(TABLEAUX["rk4"]),
        "data": _rounded(points[:_MAX_POINTS]),
        "noise": _rounded(normal),
        **mlp_weights(network),
    }
    return LiveField(settings)


def mlp_weights(network: nn.Sequential) -> dict[str, Any]:
    """A small network as JSON: ``{"layers": [...]}``, weights as base64 of little-endian float32.

    Args:
        network: linear layers and Tanh, ReLU or SiLU in an ``nn.Sequential``, from 3 inputs to 2 outputs.

    Raises:
        ValueError: any other layer, or other numbers of inputs and outputs.
    """
    if not isinstance(network, nn.Sequential):
        raise ValueError(f"network: expected an nn.Sequential, got {type(network).__name__}.")
    layers: list[dict[str, Any]] = []
    width = 3  # of what reaches the next layer: the point and t
    for i, layer in enumerate(network):
        if isinstance(layer, nn.Linear):
            if layers and layer.in_features != width:
                raise ValueError(
                    f"network[{i}]: expected {width} inputs, as many as reach it, got {layer.in_features}."
                )
            width = layer.out_features
            bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias
            for name, values in (("weight", layer.weight), ("bias", bias)):
                if values.is_meta:
                    raise ValueError(f"network[{i}].{name}: expected numbers, got {described(values)}.")
                check_finite(f"network[{i}].{name}", values)
            sizes = {"inputs": layer.in_features, "outputs": layer.out_features}
            layers.append(
                {
                    "kind": "linear",
                    **sizes,
                    "weight": _encoded(layer.weight),
                    "bias": _encoded(bias),
                }
            )
        elif type(layer) in _POINTWISE:
            layers.append({"kind": _POINTWISE[type(layer)]})
        else:
            known = ", ".join(one.__name__ for one in (nn.Linear, *_POINTWISE))
            raise ValueError(f"network[{i}]: expected one of {known}, got {type(layer).__name__}.")
    ends = [layer for layer in layers if layer["kind"] == "linear"]
    shape = (ends[0]["inputs"], ends[-1]["outputs"]) if ends else None
    if shape != (3, 2):
        raise ValueError(
            f"network: expected 3 inputs, the point and t, and 2 outputs, got {shape or 'no linear layer'}."
        )
    return {"layers": layers}


def _encoded(values: Tensor) -> str:
    content = values.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4").tobytes()
    return base64.b64encode(content).decode()


def _rounded(points: Tensor) -> list[float]:
    return [round(value, 3) for value in points.detach().cpu().flatten().tolist()]
