"""Tables of results."""

from __future__ import annotations

import pytest
import torch

from fm_book import table


def test_a_table_shows_names_and_formatted_numbers() -> None:
    columns = {"solver": ["Euler", "RK4"], "error": [torch.tensor(0.0213), 3e-6], "NFE": [1, 4]}
    page = table(columns, caption="Errors", formats={"error": "{:.0e}"}).to_html()
    for text in ("<caption>Errors</caption>", ">solver</th>", ">Euler</td>", ">2e-02</td>", ">3e-06</td>", ">4</td>"):
        assert text in page
    assert "level0_row0" not in page, "rows have no numbers of their own"


def test_the_same_table_has_the_same_html() -> None:
    columns = {"a": [1.23456], "b": ["x"]}
    assert table(columns).to_html() == table(columns).to_html()
    assert ">1.23</td>" in table(columns).to_html()


@pytest.mark.parametrize(
    ("columns", "formats", "message"),
    [({"a": [1], "b": []}, {}, "columns of one length"), ({"a": [1]}, {"b": "{}"}, "formats for the columns")],
)
def test_wrong_tables_are_refused(columns: dict[str, list[int]], formats: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(columns, formats=formats)
