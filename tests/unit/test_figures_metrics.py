"""Figures of metrics: the heatmap of deviations and the panels of intervals."""

import numpy as np
import pytest

from fm_book.figures.metrics import interval_panels, metric_heatmap
from fm_book.metrics.bootstrap import Estimate


def test_the_heatmap_writes_values_and_colours_deviations():
    values = np.array([[0.5, 12.34], [134.9, 0.0]])
    deviations = np.array([[0.0, 40.0], [2000.0, -5.0]])
    figure = metric_heatmap(values, deviations, rows=["a", "b"], columns=["x", "y"])
    names, ax = figure.axes[:2]
    assert [text.get_text() for text in ax.texts] == ["0.50", "12.3", "135", "0.00"]
    assert [text.get_weight() for text in ax.texts] == ["normal", "bold", "bold", "bold"]
    image = ax.images[0]
    quiet, loud, louder, fooled = (image.cmap(image.norm(a)) for a in deviations.flat)
    assert min(quiet[:3]) > 0.9  # nearly white
    assert loud[0] > loud[1] and louder[0] > louder[1] and sum(louder) < sum(loud)  # purple, darker
    assert fooled[1] > max(fooled[0], fooled[2])  # green
    assert [label.get_text() for label in names.get_yticklabels()] == ["a", "b"]
    assert names.get_ylim() == ax.get_ylim()


def test_the_heatmap_shows_images_of_each_set_beside_its_name():
    examples = np.stack([np.full((3, 28, 28), level) for level in (-1.0, 0.0)])
    options = {"rows": ["a", "b"], "columns": ["x"]}
    figure = metric_heatmap(np.zeros((2, 1)), np.zeros((2, 1)), examples=examples, **options)
    [strip] = figure.axes[0].images
    pixels = np.asarray(strip.get_array())
    assert pixels.shape == (2 * 30, 3 * 30)
    assert (pixels[15, 15], pixels[45, 75], pixels[0, 0]) == (-1, 0, 1)
    assert list(strip.get_extent()) == [0, 1, 1.5, -0.5]
    with pytest.raises(
        ValueError, match=r"examples: expected shape \(2, K, H, W\) for these rows, got \(1, 3, 28, 28\)"
    ):
        metric_heatmap(np.zeros((2, 1)), np.zeros((2, 1)), examples=examples[:1], **options)


def test_each_column_of_the_heatmap_can_have_its_own_decimals():
    figure = metric_heatmap(np.array([[0.5, 0.5]]), np.zeros((1, 2)), rows=["a"], columns=["x", "y"], digits=(1, 3))
    assert [text.get_text() for text in figure.axes[1].texts] == ["0.5", "0.500"]


def test_the_heatmap_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"expected \(1, 2\), \(1, 2\) and 2 .* got \(2, 2\)"):
        metric_heatmap(np.zeros((2, 2)), np.zeros((2, 2)), rows=["a"], columns=["x", "y"])


def interval(value):
    return Estimate(value, low=value - 1, high=value + 2)


def test_panels_hold_a_dot_and_a_bar_for_each_set():
    panels = {"one": {"a": interval(3.0), "b": interval(5.0)}, "two": {"a": interval(0.0), "b": interval(9.0)}}
    figure = interval_panels(panels, bands={"one": (2.0, 4.0)}, log=["two"])
    one, two = figure.axes[:2]
    assert [line.get_xdata().tolist() for line in one.lines[::2]] == [[2.0, 5.0], [4.0, 7.0]]
    assert [float(line.get_xdata()[0]) for line in one.lines[1::2]] == [3.0, 5.0]
    assert (len(one.patches), len(two.patches)) == (1, 0)
    assert (one.get_xscale(), two.get_xscale()) == ("linear", "symlog")
    figure.canvas.draw()
    assert [label.get_text() for label in one.get_yticklabels()] == ["a", "b"]


def test_panels_with_different_sets_are_refused():
    with pytest.raises(ValueError, match="the same sets in each, got"):
        interval_panels({"one": {"a": interval(1.0)}, "two": {"b": interval(1.0)}})
