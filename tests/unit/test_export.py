"""The ONNX files for the browser: what they hold, and that they compute what PyTorch computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from fm_book.experiments.export import export_onnx, onnx_velocity
from fm_core import ResidualUNet, load_pretrained, solve, uniform_grid

WIDTHS = (8, 16)


@pytest.fixture(scope="module")
def network() -> ResidualUNet:
    """A small network in which no weight is zero and no weight is a half-precision number."""
    torch.manual_seed(0)
    model = ResidualUNet(WIDTHS, time_dim=16).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def half(network: ResidualUNet) -> bytes:
    return export_onnx(network)


def stored(content: bytes) -> dict[str, np.ndarray]:
    graph = onnx.load_from_string(content).graph
    return {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}


def test_the_file_is_valid_and_takes_any_batch(network: ResidualUNet, half: bytes) -> None:
    onnx.checker.check_model(onnx.load_from_string(half), full_check=True)
    velocity = onnx_velocity(half)
    for batch in (1, 2, 9):
        assert velocity(torch.zeros(batch, 1, 28, 28), torch.tensor(0.5)).shape == (batch, 1, 28, 28)


def test_full_precision_computes_what_pytorch_computes(network: ResidualUNet) -> None:
    noise = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    grid = uniform_grid(20)
    expected = solve(network, noise, grid)
    found = solve(onnx_velocity(export_onnx(network, half=False)), noise, grid)
    torch.testing.assert_close(found.x, expected.x, atol=1e-4, rtol=0)


def test_half_precision_rounds_parameters_and_nothing_else(network: ResidualUNet, half: bytes) -> None:
    tensors = stored(half)
    for name, parameter in network.state_dict().items():
        if name.startswith(("encoder.0.norm", "encoder.1.norm", "middle.norm", "decoder.0.norm")):
            continue  # folded into the graph in another shape
        assert (tensors[f"{name}.half"] == parameter.half().numpy()).all()
    omega = tensors["embed.omega"]
    assert omega.dtype == np.float32
    assert (omega == network.embed.omega.numpy()).all()


def test_the_network_is_computed_in_float32_from_rounded_parameters(network: ResidualUNet, half: bytes) -> None:
    rounded = ResidualUNet(WIDTHS, time_dim=16).eval()
    folded = {name for name in network.state_dict() if "norm" in name}
    rounded.load_state_dict({k: v if k in folded else v.half().float() for k, v in network.state_dict().items()})
    x, t = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(2)), torch.tensor(0.3)
    with torch.no_grad():
        torch.testing.assert_close(onnx_velocity(half)(x, t), rounded(x, t), atol=2e-5, rtol=1e-5)
        assert (rounded(x, t) - network(x, t)).abs().max() > 2e-4  # the check above can tell the two apart


def test_the_file_says_nothing_of_the_machine_it_was_made_on(half: bytes) -> None:
    assert b"site-packages" not in half
    assert b".py" not in half


def test_a_parameter_beyond_half_precision_is_refused() -> None:
    model = ResidualUNet((8,), time_dim=8).eval()
    with torch.no_grad():
        model.stem.weight[0, 0, 0, 0] = 1e5
    with pytest.raises(ValueError, match=r"stem.weight: expected values up to 65504, .* got 100000"):
        export_onnx(model)


@pytest.mark.parametrize("name", ["base", "residual"])
def test_published_weights_are_half_precision_numbers_already(name: str) -> None:
    assert all((one == one.half().float()).all() for one in load_pretrained(name).state_dict().values())
