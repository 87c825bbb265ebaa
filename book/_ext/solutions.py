"""One fold for a solution: code cells tagged `solution` move, with what they show, into the dropdown before them."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

__all__ = ["Solutions", "setup"]

TAG = "tag_solution"


class Solutions(SphinxTransform):
    """Move the cells of a page; warn of one that has no dropdown before it."""

    default_priority = 300

    def apply(self) -> None:
        for cell in list(self.document.findall(nodes.container)):
            if TAG not in cell.get("classes", ()):
                continue
            parent = cell.parent
            before = parent.index(cell) - 1
            fold = parent[before] if before >= 0 else None
            if isinstance(fold, nodes.container) and fold.get("design_component") == "dropdown":
                parent.remove(cell)
                fold.append(cell)
            else:
                logging.getLogger(__name__).warning(
                    "expected a dropdown before a cell tagged `solution`, got none; put the solution's text into one",
                    location=cell,
                )


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(Solutions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
