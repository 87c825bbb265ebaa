"""The experiment on guidance, in small."""

from __future__ import annotations

import pytest
import torch

from fm_book.experiments import guidance
from fm_book.experiments.guidance import Guidance
from fm_book.metrics import load_reference, proportion_interval, seed_interval
from fm_core import ResidualUNet, load_sample, save_model
from fm_core.checkpoints import load_model, model_card

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The experiment with a small untrained network and few cells."""
    torch.manual_seed(0)
    save_model(tmp_path / "net", ResidualUNet((8, 8), 8, classes=10))
    monkeypatch.setattr(guidance, "load_pretrained", lambda _, device: load_model(tmp_path / "net", device))
    monkeypatch.setattr(guidance, "pretrained_card", lambda _: model_card(tmp_path / "net"))
    return Guidance(
        out=tmp_path / "out", samples=250, seeds=(0, 1), scales=(0.0, 2.0), steps=(1, 2), variant_scales=(2.0,),
        variant_steps=2, variants={"zero-star": {"zero_star": True}}, field_images=20, field_times=(0.3, 0.6),
    )  # fmt: skip


def test_it_measures_every_cell_once(small, monkeypatch):
    train, test = load_sample(), load_sample("test")
    first = small.evaluate((train, test))
    assert set(first["cells"]) == {"0", "2"}
    assert set(first["cells"]["2"]) == {"1", "2"}
    for cell in [first["real"], *first["cells"]["2"].values(), first["variants"]["zero-star"]["2"]]:
        assert cell.keys() == {"right", "pieces", "frechet", "precision", "recall", "variety"}
        for share in ("right", "pieces"):
            assert 0 <= cell[share]["low"] <= cell[share]["mean"] <= cell[share]["high"] <= 1
    assert first["real"]["right"]["mean"] > 0.97
    assert first["real"]["frechet"]["mean"] < 0.2 * first["cells"]["2"]["2"]["frechet"]["mean"]
    assert len(first["fields"]["2"]["error"]) == 2
    monkeypatch.setattr(small.__class__, "_cell", lambda *_, **__: pytest.fail("measured again"))
    assert small.evaluate((train, test)) == first


def test_the_variety_is_the_mean_square_distance_of_two_digits_of_a_label():
    x = load_reference().features[:40].double()
    labels = torch.arange(40) % 2
    pairs = [torch.pdist(x[labels == k]).square().mean() for k in (0, 1)]
    assert guidance._variety(x, labels) == pytest.approx(float(sum(pairs) / 2))


def test_an_interval_of_a_share_stays_within_0_and_1_and_has_a_width():
    all_right = proportion_interval(torch.ones(100, dtype=torch.bool))
    assert all_right.mean == all_right.high == 1
    assert 0.96 < all_right.low < 0.97  # Wilson: 1 / (1 + 1.96² / 100)
    assert seed_interval([0.9, 1.0, 0.95], within=(0, 1)).high == 1.0
    assert seed_interval([0.9, 1.0, 0.95]).high > 1
    some = proportion_interval([True] * 30 + [False] * 70)
    assert some.mean == pytest.approx(0.3)
    assert (some.low, some.high) == pytest.approx((0.2189, 0.3958), abs=1e-4)
    with pytest.raises(ValueError, match="hits: expected"):
        proportion_interval([])
