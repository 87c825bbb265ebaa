"""Figures of the comparison: curves, rows and tables of estimates, significance."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import same_color, to_hex

from fm_book.figures.comparison import (
    NETWORK_LABELS,
    comparison_legend,
    difference_curves,
    interval_rows,
    metric_curves,
    network_style,
    plain_log,
    significance,
    significance_map,
    time_curves,
)


@pytest.fixture
def ax():
    return plt.subplots()[1]


def estimate(mean, half=1.0):
    """Three seeds with their interval."""
    return {"mean": mean, "low": mean - half, "high": mean + half, "values": [mean - 0.5, mean, mean + 0.5]}


def single(mean):
    """One seed, which has no interval."""
    return {"mean": mean, "low": None, "high": None, "values": [mean]}


CELLS = {
    "residual": {"euler-2": {"m": estimate(9.0)}, "euler-8": {"m": estimate(5.0)}, "rk4-8": {"m": estimate(4.0)}},
    "published-residual": {"euler-2": {"m": single(3.0)}, "euler-8": {"m": single(2.0)}, "rk4-8": {"m": single(1.0)}},
}


def curves(ax):
    """The lines that join means: those with a label of their own."""
    return [line for line in ax.lines if not line.get_label().startswith("_")]


def test_every_network_has_a_style_of_its_own():
    styles = {name: network_style(name) for name in NETWORK_LABELS}
    solid = [name for name in styles if not name.startswith("published")]
    assert len({to_hex(styles[name]["color"]) for name in solid}) == len(solid)
    assert len({styles[name]["marker"] for name in solid}) == len(solid)
    assert styles["published-base"]["color"] == styles["base"]["color"]
    assert styles["published-base"]["markerfacecolor"] == "white"
    with pytest.raises(ValueError, match=r"name: expected one of 'residual', .*got 'bass'"):
        network_style("bass")


def test_a_metric_has_one_curve_per_network_and_solver_with_intervals_and_seeds(ax):
    metric_curves(ax, CELLS, "m", real=0.7)
    *drawn, real = curves(ax)
    assert [line.get_ydata().tolist() for line in drawn] == [[9.0, 5.0], [4.0], [3.0, 2.0], [1.0]]
    assert [line.get_linestyle() for line in drawn] == ["-", "--", "-", "--"]
    assert np.allclose(drawn[0].get_xdata(), [2, 8], rtol=0.06)
    assert not np.allclose(drawn[0].get_xdata(), drawn[2].get_xdata(), rtol=0.01), "bars of two networks would overlap"
    assert set(real.get_ydata()) == {0.7}
    heights = [line.get_ydata() for line in ax.lines if line not in curves(ax)]
    assert [8.0, 10.0] in [list(h) for h in heights]  # the interval at NFE 2
    assert [8.5, 9.0, 9.5] in [list(h) for h in heights]  # its three seeds
    assert len(heights) == 3 * 3 + 3, "a single seed has a marker only"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["2", "8"]


def test_one_solver_can_be_drawn_alone_and_an_unknown_one_is_refused(ax):
    metric_curves(ax, CELLS, "m", solvers=("rk4",))
    assert [line.get_ydata().tolist() for line in curves(ax)] == [[4.0], [1.0]]
    with pytest.raises(ValueError, match=r"solvers: expected some of euler-2, euler-8, rk4-8, got 'heun'"):
        metric_curves(ax, CELLS, "m", solvers=("heun",))


def test_a_logarithmic_axis_has_plain_numbers(ax):
    metric_curves(ax, CELLS, "m", log=True)
    assert ax.get_yscale() == "log"
    ax.set_ylim(0.9, 11)
    ax.figure.canvas.draw()
    assert [t.get_text() for t in ax.get_yticklabels() if 0.9 < t.get_position()[1] < 11] == ["1", "2", "5", "10"]
    plain_log(ax.xaxis)
    assert (ax.get_xscale(), len(ax.xaxis.get_minorticklocs())) == ("log", 0)


def test_differences_stand_beside_their_zero(ax):
    difference_curves(ax, {"base": CELLS["residual"]}, "m")
    assert [line.get_ydata().tolist() for line in curves(ax)] == [[9.0, 5.0], [4.0]]
    assert any(list(line.get_ydata()) == [0, 0] for line in ax.lines)


def test_the_legend_names_networks_and_solvers_once():
    figure, axes = plt.subplots(1, 2, layout="constrained")
    for panel in axes:
        metric_curves(panel, CELLS, "m")
    comparison_legend(figure, list(CELLS), solvers=("euler", "rk4"), real=True)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["Residual", "Residual, published", "Euler", "RK4", "real digits"]


def test_a_curve_over_time_has_its_interval_as_a_band(ax):
    t = [0.25, 0.75]
    band = {"mean": [1.0, 2.0], "low": [0.5, 1.5], "high": [1.5, 3.0]}
    one_seed = {"mean": [3.0, 3.0], "low": [None, None], "high": [None, None]}
    time_curves(ax, t, {"base": band, "published-base": one_seed}, zero=True)
    assert [line.get_ydata().tolist() for line in curves(ax)] == [[1.0, 2.0], [3.0, 3.0]]
    (filled,) = ax.collections
    corners = filled.get_paths()[0].vertices
    assert {(0.25, 0.5), (0.25, 1.5), (0.75, 3.0)} <= {tuple(c) for c in corners}
    assert any(list(line.get_ydata()) == [0, 0] for line in ax.lines)


def test_rows_hold_mean_interval_and_seeds_from_the_top(ax):
    interval_rows(ax, {"residual": estimate(5.0), "a difference": single(2.0)}, zero=True)
    found = [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines]
    assert ([4.0, 6.0], [0, 0]) in found
    assert ([5.0], [0]) in found
    assert ([2.0], [1]) in found
    assert [4.5, 5.0, 5.5] in [x for x, _ in found]
    assert len(found) == 5, "three for the first row, one for the second, one for zero"
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["Residual", "a difference"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


DIFFERENCES = {
    "euler-2": {"less": estimate(3.0), "more": estimate(3.0)},
    "rk4-4": {"less": estimate(-3.0), "more": estimate(0.5)},
}
SIGNS = {"less": -1, "more": 1}


def test_significance_follows_the_interval_and_the_direction_of_better():
    better, mean, names = significance(DIFFERENCES, SIGNS)
    assert better.tolist() == [[-1, 1], [1, 0]]
    assert mean.tolist() == [[3.0, -3.0], [3.0, 0.5]]
    assert names == ["euler-2", "rk4-4"]


def test_an_interval_that_ends_at_zero_decides_nothing():
    touching = {"euler-2": {"less": estimate(1.0), "more": estimate(-1.0)}}
    assert significance(touching, SIGNS)[0].tolist() == [[0], [0]]


def test_the_map_colours_the_network_that_is_ahead():
    figure = significance_map(DIFFERENCES, SIGNS, a="base-matched", b="residual", rows=["Less", "More"])
    (ax,) = figure.axes
    picture = ax.images[0]
    colors = [to_hex(picture.cmap(picture.norm(v))) for v in (-1, 0, 1)]
    assert same_color(colors[0], network_style("residual")["color"])
    assert same_color(colors[2], network_style("base-matched")["color"])
    assert [text.get_text() for text in ax.texts] == ["+3.0", "-3.0", "+3.0", "+0.50"]
    assert [text.get_weight() for text in ax.texts] == ["bold", "bold", "bold", "normal"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["Euler\n2", "RK4\n4"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["Residual better", "interval contains 0", "Base, matched better"]
