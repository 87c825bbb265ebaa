"""Figures and columns of the chapter on guidance, from a record in small."""

from __future__ import annotations

import numpy as np
import pytest

from fm_book.figures.guidance import draw_field_errors, draw_scales, measured


def entry(mean, half=0.01):
    return {"mean": mean, "low": mean - half, "high": mean + half, "values": []}


def cell(value):
    return {name: entry(value) for name in ("right", "pieces", "frechet", "precision", "recall", "variety")}


RECORD = {
    "config": {"scales": [0.0, 1.0, 2.0], "steps": [4, 8]},
    "real": cell(0.9),
    "cells": {f"{w:g}": {str(n): cell(0.1 * n + 0.01 * w) for n in (4, 8)} for w in (0.0, 1.0, 2.0)},
}


def test_every_panel_has_a_line_per_number_of_steps_and_the_real_digits():
    figure = draw_scales(RECORD)
    assert len(figure.axes) == 4
    for ax in figure.axes:
        real, few, many = ax.lines
        assert set(real.get_ydata()) == {0.9}
        np.testing.assert_allclose(few.get_ydata(), [0.4, 0.41, 0.42])
        np.testing.assert_allclose(many.get_ydata(), [0.8, 0.81, 0.82])
        assert len(ax.collections) == 2  # bands
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["real digits", "4 steps", "8 steps"]


def test_the_error_of_a_field_is_relative_to_the_exact_one():
    figure = draw_field_errors({"t": [0.2, 0.6], "0": {"error": [1.0, 4.0], "exact": [4.0, 4.0]}})
    (line,) = figure.axes[0].lines
    assert line.get_ydata() == pytest.approx([0.5, 1.0])
    assert line.get_label() == "w = 0"


def test_a_row_of_the_table_has_every_measure_with_its_interval():
    columns = measured([cell(0.5), cell(0.25)])
    assert columns["as asked"] == ["0.500 [0.490, 0.510]", "0.250 [0.240, 0.260]"]
    assert columns["Fréchet"][0] == "0.5 [0.5, 0.5]"
    assert set(columns) == {"as asked", "in pieces", "Fréchet", "recall", "variety"}
