"""The learned field in the plane as notebook output: what it holds and what it refuses."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from fm_book.live_field import live_field, mlp_weights


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))


def test_the_output_holds_script_settings_and_a_text_for_readers_without_scripts() -> None:
    html = live_field(small(), torch.zeros(600, 2), alt="Arrows & <particles>.")._repr_html_()
    assert "Arrows &amp; &lt;particles&gt;. To drop particles into it, JavaScript must be on." in html
    settings = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1])
    assert settings["alt"] == "Arrows & <particles>."
    assert len(settings["data"]) == 2 * 500
    assert html.count("<script") == html.count("</script>") == 2
    assert not re.search(r"^import ", html, re.MULTILINE), "one script holds all modules"


def test_two_outputs_of_a_page_do_not_share_a_name() -> None:
    field = live_field(small(), alt="Arrows.")
    names = [re.search(r'id="(fm-field-\w+)"', field._repr_html_())[1] for _ in range(2)]
    assert len(set(names)) == 2


def test_weights_are_exact() -> None:
    network = small()
    layers = mlp_weights(network)["layers"]
    assert [layer["kind"] for layer in layers] == ["linear", "tanh", "linear"]
    stored = np.frombuffer(base64.b64decode(layers[0]["weight"]), dtype="<f4").reshape(8, 3)
    assert (stored == network[0].weight.detach().numpy()).all()


def test_a_layer_without_bias_gets_zeros() -> None:
    layers = mlp_weights(nn.Sequential(nn.Linear(3, 2, bias=False)))["layers"]
    assert np.frombuffer(base64.b64decode(layers[0]["bias"]), dtype="<f4").tolist() == [0, 0]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(3, 2), "network: expected an nn.Sequential, got Linear"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)),
            r"network\[1\]: expected one of Linear, Tanh, ReLU, SiLU, got GELU",
        ),
        (nn.Sequential(nn.Linear(2, 2)), r"3 inputs, the point and t, and 2 outputs, got \(2, 2\)"),
        (nn.Sequential(nn.Tanh()), "got no linear layer"),
    ],
)
def test_other_networks_are_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mlp_weights(network)


def test_other_data_and_an_empty_description_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data: expected a floating-point tensor of shape \(N, 2\), got shape \(5,\)"):
        live_field(small(), torch.zeros(5), alt="Arrows.")
    with pytest.raises(ValueError, match=r"alt: expected a text alternative, .*got ' '"):
        live_field(small(), alt=" ")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(4, 2)), r"network\[2\]: expected 8 inputs"),
        (nn.Sequential(nn.Linear(3, 8, device="meta"), nn.Linear(8, 2)), r"network\[0\].weight: expected numbers"),
        (None, "network: expected an nn.Sequential"),
    ],
)
def test_layers_that_do_not_chain_are_refused(network, message):
    with pytest.raises(ValueError, match=message):
        mlp_weights(network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": torch.tensor([[0.0, float("nan")]])}, "data: expected finite values"),
        ({"limit": float("nan")}, "limit: expected a number above 0"),
        ({"steps": 0}, "steps: expected a whole number from 1 to 1,000"),
        ({"particles": 10**9}, "particles: expected a whole number"),
        ({"noise": 1.5}, "noise: expected a whole number"),
        ({"seed": "x"}, "seed: expected a whole number"),
        ({"alt": None}, "alt: expected a text"),
    ],
)
def test_what_a_browser_could_not_draw_is_refused(change, message):
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=message):
        live_field(network, **({"alt": "A field."} | change))


def test_weights_that_are_not_finite_are_refused():
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    network[2].bias.data[1] = float("inf")
    with pytest.raises(ValueError, match=r"network\[2\].bias: expected finite values, .*the first is 1"):
        mlp_weights(network)
