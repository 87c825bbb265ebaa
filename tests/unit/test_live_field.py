"""The learned field in the plane as notebook output: what it holds and what it refuses."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from fm_book.live_field import live_field
from fm_book.live_field import mlp_weights


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
    assert "export function mount" in html


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
        (nn.Linear(3, 2), "network is a Linear; give an nn.Sequential"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)),
            "layer 1 is a GELU; the browser knows Linear, Tanh",
        ),
        (nn.Sequential(nn.Linear(2, 2)), r"\(2, 2\); a field in the plane takes 3"),
        (nn.Sequential(nn.Tanh()), "None; a field in the plane takes 3"),
    ],
)
def test_other_networks_are_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mlp_weights(network)


def test_other_data_and_an_empty_description_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data has shape \(5,\); points in the plane have shape \(N, 2\)"):
        live_field(small(), torch.zeros(5), alt="Arrows.")
    with pytest.raises(ValueError, match="alt is empty"):
        live_field(small(), alt=" ")
