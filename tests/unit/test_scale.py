"""`fm_book.scale`: the size in force and what it refuses."""

from __future__ import annotations

import pytest

from fm_book.scale import SCALES, current_scale, scaled


@pytest.mark.parametrize("scale", SCALES)
def test_each_size_gets_its_value(monkeypatch: pytest.MonkeyPatch, scale: str) -> None:
    monkeypatch.setenv("FM_SCALE", scale)
    assert current_scale() == scale
    assert scaled(smoke="smoke", default="default", full="full") == scale


def test_unset_means_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FM_SCALE", raising=False)
    assert scaled(smoke=1, default=2, full=3) == 2


@pytest.mark.parametrize("blank", ["", "  "])
def test_empty_means_default(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    monkeypatch.setenv("FM_SCALE", blank)
    assert current_scale() == "default"


@pytest.mark.parametrize("value", ["Smoke", "tiny", "1"])
def test_other_values_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FM_SCALE", value)
    with pytest.raises(ValueError, match=f"FM_SCALE is '{value}', accepted are 'smoke', 'default', 'full'. Unset it"):
        scaled(smoke=1, default=2, full=3)


def test_the_size_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FM_SCALE", "smoke")
    before = scaled(smoke=1, default=2, full=3)
    monkeypatch.setenv("FM_SCALE", "full")
    assert (before, scaled(smoke=1, default=2, full=3)) == (1, 3)
