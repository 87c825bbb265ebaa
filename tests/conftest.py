"""How tests are shared out between processes, and their order."""

from collections.abc import Iterator

import pytest


def group(item: pytest.Item) -> str:
    """Tests of a group run one after the other in one process: tests of a page in one look, else those of a file."""
    mark = item.get_closest_marker("xdist_group")
    return mark.args[0] if mark else item.nodeid.split("::")[0]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group(item)))
    yield
    first: dict[str, int] = {}
    items.sort(key=lambda item: first.setdefault(group(item), len(first)))
