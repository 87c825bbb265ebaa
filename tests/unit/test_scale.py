"""`fm_book.scale`: the size in force, and what it refuses."""

from __future__ import annotations

import pytest

from fm_book.scale import scaled


@pytest.mark.parametrize(("scale", "value"), [("smoke", 1), ("default", 2), ("full", 3), ("", 2), ("  ", 2), (None, 2)])
def test_each_size_gets_its_value(monkeypatch: pytest.MonkeyPatch, scale: str | None, value: int) -> None:
    monkeypatch.delenv("FM_SCALE", raising=False)
    if scale is not None:
        monkeypatch.setenv("FM_SCALE", scale)
    assert scaled(smoke=1, default=2, full=3) == value


def test_other_sizes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FM_SCALE", "tiny")
    with pytest.raises(ValueError, match="FM_SCALE: expected one of 'smoke', 'default', 'full', got 'tiny'"):
        scaled(smoke=1, default=2, full=3)
