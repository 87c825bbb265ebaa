"""Figures of the ablation: contributions, interactions, gradient norms, learning rates."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from fm_book.figures.ablation import contribution_panels, gradient_maps, interaction_panels, rate_panels
from fm_book.metrics import Estimate
from fm_core.plotting import CARD


def interval(mean, half, values=None):
    ends = (None, None) if half is None else (mean - half, mean + half)
    return {"mean": mean, "low": ends[0], "high": ends[1], "values": values or [mean - 1, mean, mean + 1]}


# What each change does


def contributions(found, heading="up"):
    figure = contribution_panels({heading: {"a change": {"loss": found}}}, {"loss": "change of the loss"})
    figure.canvas.draw()
    return figure.axes[0]


def drawn(ax):
    """The interval's bar, the seeds and the mean, without the zero line."""
    zero, *rest = ax.lines
    assert list(zero.get_xdata()) == [0, 0]
    return rest


def test_a_change_is_drawn_with_its_interval_and_its_seeds():
    bar, seeds, mean = drawn(contributions(interval(-2.0, 0.5, [-2.5, -2.0, -1.5])))
    assert list(bar.get_xdata()) == [-2.5, -1.5]
    assert list(seeds.get_xdata()) == [-2.5, -2.0, -1.5]
    assert list(mean.get_xdata()) == [-2.0]


@pytest.mark.parametrize(("mean", "half", "sure"), [(-2, 0.5, True), (2, 0.5, True), (1, 1.5, False), (-1, 1.5, False)])
def test_a_mean_is_filled_only_where_its_interval_excludes_zero(mean, half, sure):
    *_, dot = drawn(contributions(interval(mean, half)))
    assert (to_hex(dot.get_markerfacecolor()) == to_hex(dot.get_color())) == sure
    assert (to_hex(dot.get_markerfacecolor()) == to_hex(CARD)) != sure


def test_better_and_worse_have_colours_of_their_own():
    better, worse, unknown = (
        to_hex(drawn(contributions(interval(mean, half)))[-1].get_color()) for mean, half in ((-2, 1), (2, 1), (2, 3))
    )
    assert len({better, worse, unknown}) == 3


def test_one_seed_has_no_interval():
    (mean,) = drawn(contributions(interval(3.0, None, [3.0])))
    assert list(mean.get_xdata()) == [3.0]
    assert to_hex(mean.get_markerfacecolor()) == to_hex(CARD)


def test_rows_keep_their_groups_and_every_metric_its_panel():
    found = {"loss": interval(1.0, 0.1), "far": interval(2.0, 0.1)}
    groups = {"first": {"a": found, "b": found}, "second": {"c": found}}
    figure = contribution_panels(groups, {"far": "distance", "loss": "loss"})
    far, loss = figure.axes
    assert [ax.get_xlabel() for ax in (far, loss)] == ["distance", "loss"]
    assert [float(line.get_xdata()[0]) for line in drawn(far)[2::3]] == [2.0, 2.0, 2.0]
    names = {text.get_text(): text for text in far.get_yticklabels()}
    places = {name: text.get_position()[1] for name, text in names.items()}
    assert sorted(places, key=places.get) == ["first", "a", "b", "second", "c"]  # downwards, the axis is turned round
    assert far.get_ylim()[0] > far.get_ylim()[1]
    assert {name for name, text in names.items() if text.get_weight() == "bold"} == {"first", "second"}
    assert [float(line.get_ydata()[0]) for line in drawn(far)[2::3]] == [places[name] for name in "abc"]


def test_a_change_without_the_metric_is_named():
    with pytest.raises(ValueError, match=r"got 1 changes and 1 metrics, 'a' has no 'loss'"):
        contribution_panels({"g": {"a": {"other": Estimate(1.0)}}}, {"loss": "loss"})
    with pytest.raises(ValueError, match="got 0 changes and 1 metrics"):
        contribution_panels({}, {"loss": "loss"})


# Two switches at a time


def test_a_square_has_two_lines_and_all_seeds():
    lines = {"without": (interval(4.0, 1), interval(2.0, 1)), "with": (interval(3.0, 1), interval(1.0, 1))}
    figure = interaction_panels({"a square": (("off", "on"), lines)}, label="loss")
    [ax] = figure.axes
    means = [line for line in ax.lines if len(line.get_xdata()) == 2]
    assert {line.get_label(): list(line.get_ydata()) for line in means} == {"without": [4.0, 2.0], "with": [3.0, 1.0]}
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in means}) == 2
    seeds = sorted(v for line in ax.lines if len(line.get_xdata()) == 3 for v in line.get_ydata())
    assert seeds == [0.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0, 4.0, 5.0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["off", "on"]
    assert ax.get_ylabel() == "loss"


def test_a_square_with_a_third_line_is_refused():
    pair = (interval(1.0, 1), interval(2.0, 1))
    with pytest.raises(ValueError, match=r"squares\['s'\]: expected 2 ends and 2 lines, got "):
        interaction_panels({"s": (("off", "on"), {"a": pair, "b": pair, "c": pair})}, label="loss")
    with pytest.raises(ValueError, match="squares: expected at least one"):
        interaction_panels({}, label="loss")


# Gradients


def test_maps_keep_the_order_of_the_depths_and_share_their_colours():
    one = ([0, 10, 20], {"stem": [1.0, 0.1, 0.01], "head": [2.0, 2.0, 2.0]})
    two = ([0, 5], {"stem": [1e-9, 0.0], "head": [5.0, 6.0]})
    figure = gradient_maps({"one": one, "two": two}, limits=(1e-2, 1.0), columns=2)
    figure.canvas.draw()
    maps = figure.axes[:2]
    assert [ax.get_title(loc="left") or ax.get_title() for ax in maps] == ["one", "two"]
    assert [text.get_text() for text in maps[0].get_yticklabels()] == ["stem", "head"]
    assert maps[0].get_ylim()[0] > maps[0].get_ylim()[1]  # the stem is on top
    meshes = [ax.collections[0] for ax in maps]
    assert meshes[0].get_array().tolist() == [[1.0, 0.1, 0.01], [2.0, 2.0, 2.0]]
    assert np.all(meshes[1].get_array() > 0)  # a norm of 0 is dark, not a hole
    assert all((mesh.norm.vmin, mesh.norm.vmax) == (1e-2, 1.0) for mesh in meshes)
    assert maps[1].get_xlim() == (-2.5, 7.5)  # each run has steps of its own


def test_maps_refuse_what_does_not_fit():
    with pytest.raises(
        ValueError, match=r"runs: expected at least one, the same depths in each, got .*'b': \['head'\]"
    ):
        gradient_maps({"a": ([0], {"stem": [1.0]}), "b": ([0], {"head": [1.0]})})
    with pytest.raises(ValueError, match=r"runs\['a'\]: expected 2 norms, one per step, got \{'stem': 1\}"):
        gradient_maps({"a": ([0, 1], {"stem": [1.0]})})


# Learning rates


def test_rates_lie_in_order_and_divergences_are_told():
    base = {
        "0.01": {"diverged": 2, "loss": interval(9.0, None, [9.0])},
        "0.001": {"diverged": 0, "loss": interval(5.0, 1)},
        "0.1": {"diverged": 3},
    }
    residual = {"0.001": {"diverged": 0, "loss": interval(4.0, 1)}}
    figure = rate_panels({"Base": base, "Residual": residual}, {"loss": "validation loss"})
    [ax] = figure.axes
    lines = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(lines["Base"].get_ydata()) == [5.0, 9.0]
    assert np.allclose(lines["Base"].get_xdata(), [0.001, 0.01], rtol=0.1)
    assert list(lines["Residual"].get_ydata()) == [4.0]
    assert [text.get_text() for text in ax.texts] == ["2 diverged", "3 diverged"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    assert lines["Base"].get_linestyle() != lines["Residual"].get_linestyle()
    assert ax.get_yscale() == "linear"


def test_a_rate_panel_can_be_logarithmic():
    found = {"0.001": {"diverged": 0, "norm": interval(50.0, 1), "loss": interval(5.0, 1)}}
    figure = rate_panels({"Base": found}, {"loss": "loss", "norm": "norm"}, log=["norm"])
    assert [ax.get_yscale() for ax in figure.axes] == ["linear", "log"]


def test_rates_of_nothing_are_refused():
    with pytest.raises(ValueError, match="expected at least one of each, got 0 and 1"):
        rate_panels({}, {"loss": "loss"})
