"""The two networks: shapes, the one difference, error messages, summary."""

import pytest
import torch
from flow_matching.solver import ODESolver
from torchdiffeq import odeint

from fm_core.checkpoints import load_pretrained
from fm_core.models import (
    BaseUNet,
    PlainBlock,
    ResidualBlock,
    ResidualUNet,
    SelfAttention,
    build_model,
    count_flops,
    count_parameters,
    summary,
)

MODELS = {
    "base": lambda **k: BaseUNet((8, 16), 16, **k),
    "residual": lambda **k: ResidualUNet((8, 16), 16, **k),
    "attention": lambda **k: ResidualUNet((8, 16), 16, attention=True, **k),
}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]()


@pytest.mark.parametrize("size", [(28, 28), (27, 31), (2, 3), (32, 16)])
def test_velocity_has_the_shape_of_its_image(model, size):
    x = torch.randn(3, 1, *size)
    assert model(x, torch.rand(3)).shape == x.shape


def test_three_levels_take_odd_sizes():
    assert ResidualUNet((8, 8, 16), 16)(torch.randn(2, 1, 29, 23), 0.5).shape == (2, 1, 29, 23)


def test_scalar_time_is_the_same_time_for_all(model):
    x = torch.randn(3, 1, 28, 28)
    expected = model(x, torch.full((3,), 0.3))
    for t in (0.3, torch.tensor(0.3), torch.tensor([0.3]), torch.tensor(0.3, dtype=torch.float64)):
        torch.testing.assert_close(model(x, t), expected)


def test_every_image_is_on_its_own(model):
    """No layer mixes the images of a batch, so a digit does not depend on its neighbours."""
    x, t = torch.randn(4, 1, 28, 28), torch.rand(4)
    torch.testing.assert_close(model(x, t)[2:3], model(x[2:3], t[2:3]), atol=1e-5, rtol=1e-4)


def test_time_matters_in_every_block(model):
    x = torch.randn(2, 1, 28, 28)
    model(x, torch.rand(2)).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if name.endswith("time.weight")}
    blocks = sum(isinstance(m, PlainBlock | ResidualBlock) for m in model.modules())
    assert len(gradients) == blocks == 2 * len(model.widths)
    if isinstance(model, BaseUNet):  # in the Residual U-Net the zero convolution holds the gradient back at the start
        assert all(g.abs().sum() > 0 for g in gradients.values())


def test_residual_block_starts_as_the_identity():
    torch.manual_seed(0)
    x, emb = torch.randn(2, 16, 7, 7), torch.randn(2, 12)
    assert torch.equal(ResidualBlock(16, 16, 12)(x, emb), x)
    assert not torch.allclose(PlainBlock(16, 16, 12)(x, emb), x, atol=0.1)


def test_attention_starts_at_zero_and_sees_every_pixel():
    torch.manual_seed(0)
    attention, x = SelfAttention(16), torch.randn(2, 16, 5, 5)
    assert torch.equal(attention(x), x)
    torch.nn.init.normal_(attention.out.weight)
    y = attention(x)
    x[0, :, 4, 4] += 1
    assert ((attention(x) - y)[0].abs().sum(dim=0) > 0).all()


def test_attention_agrees_with_its_formula():
    torch.manual_seed(0)
    attention = SelfAttention(16, heads=2, groups=4).double()
    torch.nn.init.normal_(attention.out.weight)
    x = torch.randn(1, 16, 3, 4, dtype=torch.float64)
    h = attention.norm(x)
    q, k, v = attention.qkv(h).flatten(2)[0].split(16)  # each (16, 12)
    out = []
    for head in range(2):
        rows = slice(8 * head, 8 * head + 8)
        weights = (q[rows].T @ k[rows] / 8**0.5).softmax(dim=1)
        out.append(v[rows] @ weights.T)
    expected = x + attention.out(torch.cat(out).reshape(1, 16, 3, 4))
    torch.testing.assert_close(attention(x), expected)


def test_the_two_networks_share_the_skeleton():
    base, residual = BaseUNet(), ResidualUNet()
    blocks = ("encoder", "middle", "decoder")
    rest = [{n: p.shape for n, p in m.named_parameters() if not n.startswith(blocks)} for m in (base, residual)]
    assert rest[0] == rest[1]
    assert sum(p.numel() for p in base.parameters()) < sum(p.numel() for p in residual.parameters()) < 1_000_000


def test_config_builds_the_same_network(model):
    name = "base" if isinstance(model, BaseUNet) else "residual"
    again = build_model(name, **model.config)
    again.load_state_dict(model.state_dict())
    x = torch.randn(1, 1, 28, 28)
    assert torch.equal(again(x, 0.5), model(x, 0.5))


@pytest.mark.parametrize(
    ("x", "t", "message"),
    [
        (torch.randn(2, 28, 28), 0.5, r"x: expected images \(B, 1, H, W\).*got shape \(2, 28, 28\)"),
        (torch.randn(2, 3, 28, 28), 0.5, r"got shape \(2, 3, 28, 28\)"),
        (torch.randn(2, 1, 1, 28), 0.5, "at least 2"),
        (torch.randn(2, 1, 28, 28), torch.rand(3), r"t: expected .*got shape \(3,\) for x of shape \(2, 1, 28, 28\)"),
        (torch.randn(2, 1, 28, 28), torch.rand(2, 1), r"got shape \(2, 1\)"),
    ],
)
def test_wrong_input_is_explained(model, x, t, message):
    with pytest.raises(ValueError, match=message):
        model(x, t)


def test_adaptive_solvers_of_other_libraries_may_step_beyond_the_ends():
    network, x = load_pretrained("base"), torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    times = []

    def func(t, x):
        times.append(float(t))
        return network(x, t)

    loose = {"rtol": 1e-1, "atol": 1e-1}
    with torch.no_grad():
        end = odeint(func, x, torch.tensor([0.0, 1.0]), method="dopri5", **loose)[-1]
    assert end.isfinite().all()
    assert max(times) > 1  # torchdiffeq passes the end and interpolates
    solver = ODESolver(network)
    options = {"step_size": None, "method": "dopri5", "atol": 1e-1, "rtol": 1e-1}
    assert solver.sample(x_init=x, **options).isfinite().all()
    _, log_p = solver.compute_likelihood(x, lambda x: -x.square().flatten(1).sum(dim=1) / 2, **options)
    assert log_p.isfinite().all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResidualUNet((12, 20), 16), r"widths: expected multiples of 8.*got \(12, 20\). Take \(16, 24\)"),
        (lambda: BaseUNet((), 16), "widths: expected the channels of 1 to 16 levels"),
        (lambda: BaseUNet((8, 0), 16), "widths: expected a whole number of at least 1, got 0"),
        (lambda: BaseUNet((8,), 15), "time_dim: expected an even number of at least 4, got 15"),
        (lambda: build_model("resnet"), "name: expected one of 'base', 'residual', 'mean-flow', got 'resnet'"),
        (lambda: build_model("base", evil=1), "an argument of BaseUNet: expected one of 'widths', .*got 'evil'"),
        (lambda: build_model("base", widths=[10**6, 10**6]), "widths: expected squares that add up to 20,000,000"),
        (lambda: build_model("base", widths=8), "widths: expected the channels of 1 to 16 levels, .*got 8"),
        (lambda: build_model("base", widths={"a": 1}), "widths: expected a whole number"),
        (lambda: build_model("residual", time_dim=10**9), "time_dim: expected a whole number from 4 to 4,096"),
        (lambda: build_model("base", time_dim="16"), "time_dim: expected a whole number"),
        (lambda: build_model("base", channels=-1), "channels: expected a whole number from 1 to 1,024"),
        (lambda: ResidualBlock(8, 12, 16), "c_out: expected a multiple of the 8 groups, got 12"),
        (lambda: SelfAttention(8, heads=3), "heads: expected a divisor of the 8 channels, got 3"),
        (lambda: count_parameters("net"), "model: expected an nn.Module, got 'net'"),
        (lambda: summary(torch.nn.Linear(2, 2)), "model: expected a network of this package, got a Linear"),
        (lambda: count_flops(BaseUNet((8,), 16), 10**9), "size: expected a whole number from 1 to 4,096"),
    ],
)
def test_wrong_arguments_are_explained(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_summary_counts_what_can_be_counted_by_hand():
    size = summary(BaseUNet((4,), 8), size=10)
    # time MLP 2·(8·8 + 8); stem 9·4 + 4; two blocks of 9·4·4 + 4 and a time projection 8·4 + 4; head 4 + 1
    assert size.parameters == 2 * 72 + 40 + 2 * (148 + 36) + 5
    # per pixel: stem 36, blocks 2·144, head 4 multiply-adds; the time embedding on top
    assert size.flops == 2 * (100 * (36 + 2 * 144 + 4) + 2 * 64 + 2 * 32)
    model = BaseUNet((4,), 8)
    assert (count_parameters(model), count_flops(model, 10)) == (size.parameters, size.flops)
    assert size.receptive_field == 7  # three 3×3 convolutions
    assert size.global_paths == ()
    assert "receptive field          7 px" in str(size)


def test_receptive_field_grows_with_depth_and_with_convolutions():
    fields = [summary(BaseUNet((8,) * levels, 8)).receptive_field for levels in (1, 2, 3)]
    assert fields == sorted(set(fields))
    residual = summary(ResidualUNet((8, 8), 8, attention=True))
    assert residual.receptive_field > fields[1]
    assert residual.global_paths == ("GroupNorm", "SelfAttention")


@pytest.mark.parametrize(
    ("x", "t", "message"),
    [
        (None, 0.5, "x: expected a floating-point tensor .*got None"),
        (torch.zeros(2, 1, 28, 28).byte(), 0.5, r"x: expected .*torch.uint8 .*x.float\(\)"),
        (torch.zeros(2, 3, 28, 28), 0.5, r"x: expected images \(B, 1, H, W\)"),
        (torch.zeros(2, 1, 28, 28, device="meta"), 0.5, "x: expected images on the network's device, cpu, got .* meta"),
        (torch.zeros(2, 1, 28, 28), "half", "t: expected .*got 'half'"),
    ],
)
def test_input_of_another_type_is_explained(model, x, t, message):
    with pytest.raises(ValueError, match=message):
        model(x, t)


@pytest.mark.parametrize("kind", [lambda x: x.double(), lambda x: x.half(), lambda x: x.numpy()])
def test_images_of_another_precision_are_converted(model, kind):
    x = torch.ones(2, 1, 28, 28)
    torch.testing.assert_close(model(kind(x), 0.5), model(x, 0.5), rtol=0, atol=0)
