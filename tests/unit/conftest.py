"""What several files of unit tests share."""

import os
import sys
from collections.abc import Iterator

import pytest
import torch

os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread on the CPU, so that small networks do not wait for one another, and sums come out the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    """Close the figures that a test left open in pyplot."""
    yield
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        pyplot.close("all")
