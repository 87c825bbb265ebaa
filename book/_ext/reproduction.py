"""The lists of the page *Reproduce*: every record and every figure, with what makes it and what that costs.

Nobody keeps these lists by hand. When the book is built, the records are read from `book/fm_book/results`, the figures and run
times from the chapters' notebooks, and what a record is used for from the pages that name it. A new chapter or record
is on the list by being there.

A page asks for a list by the directive `reproduction` and its name, `records` or `figures`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

__all__ = ["Chapter", "chapters", "duration", "figures_list", "records_list", "seconds", "setup"]

RUN_TIME = re.compile(r"\*\*Run time\*\*[\s:]*(.+?)(?:\n\n|\Z)", re.DOTALL)
SENTENCE = re.compile(r"(?<=[.!?])\s")
USED = re.compile(r"""load_record\(["']([\w-]+)["']\)|<!--\s*record:\s*([\w-]+)/""")


@dataclass(frozen=True)
class Chapter:
    """What a notebook says of itself."""

    name: str  # of the file, without its ending
    title: str
    run_time: str
    figures: tuple[tuple[str, str], ...]  # name and first sentence of the caption, in the order of the page
    records: frozenset[str]  # that it shows


def chapters(folder: Path) -> list[Chapter]:
    """The notebooks of a folder, in the order of their numbers."""
    found = []
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        title = re.search(r"^# (.+)$", text, re.MULTILINE)
        run_time = RUN_TIME.search(text)
        figures = [cell.metadata.get("mystnb", {}).get("figure", {}) for cell in cells]
        found.append(
            Chapter(
                path.stem,
                title[1] if title else path.stem,
                " ".join(run_time[1].split()) if run_time else "not stated",
                tuple((f["name"], SENTENCE.split(f.get("caption", ""))[0]) for f in figures if "name" in f),
                _used(text + code),
            )
        )
    return found


def _used(text: str) -> frozenset[str]:
    return frozenset(a or b for a, b in USED.findall(text))


def seconds(record: dict[str, Any]) -> dict[str, float]:
    """What a record says of the time that it took: seconds by what was done, nothing where it does not say."""
    said = record.get("seconds")
    if isinstance(said, int | float):
        return {"in all": said}
    if isinstance(said, dict):
        evaluation = said.get("evaluation", {})
        parts = {"training": said.get("training"), "evaluation": evaluation.get("wall")}
        parts["evaluation's processor time"] = evaluation.get("processor")
        return {what: time for what, time in parts.items() if time}
    trained = [facts.get("seconds") for facts in record.get("networks", {}).values() if isinstance(facts, dict)]
    return {"training": sum(trained)} if trained and all(isinstance(s, int | float) for s in trained) else {}


def duration(time: float) -> str:
    """Seconds as a reader would say them."""
    if time < 90:
        return f"{time:.0f} s"
    return f"{time / 60:.0f} min" if time < 100 * 60 else f"{time / 3600:.1f} h"


def records_list(folder: Path, pages: dict[str, frozenset[str]]) -> str:
    """Markdown: one entry a record.

    Args:
        folder: with the records.
        pages: for each page, by the Markdown that names it, the records that it shows.
    """
    lines = []
    for path in sorted(folder.glob("*.json")):
        record, name = json.loads(path.read_text(encoding="utf-8")), path.stem
        made = record if "device" in record else record.get("machine", {})
        took = ", ".join(f"{what} {duration(time)}" for what, time in seconds(record).items())
        shown = ", ".join(page for page, used in pages.items() if name in used)
        lines += [
            f"`python -m fm_book.experiments {name}`",
            f": *makes* `book/fm_book/results/{name}.json`" + (f", *shown in* {shown}" if shown else ""),
            f": *took* {took or 'time not recorded'}, on {made.get('device', 'a CPU')}",
            f": *made* {record['date'][:10]} with torch {made['versions']['torch']}, commit `{_short(record)}`",
            "",
        ]
    return "\n".join(lines)


def _short(record: dict[str, Any]) -> str:
    commit, _, dirty = (record["git_commit"] or "unknown").partition("-")
    return commit[:10] + ("-dirty" if dirty else "")


def figures_list(found: list[Chapter]) -> str:
    """Markdown: for each chapter its command, its run time and its figures."""
    parts = []
    for chapter in found:
        references = [f"- {{numref}}`{name}`: {caption}" for name, caption in chapter.figures]
        parts += [f"**{{doc}}`{chapter.name}`**, `jupyter execute --inplace book/{chapter.name}.ipynb`.", ""]
        parts += [f"*Run time:* {chapter.run_time}", "", *references, ""]
    return "\n".join(parts)


class Reproduction(SphinxDirective):
    """``{reproduction} records`` or ``{reproduction} figures``: a list, where it stands."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        folder = Path(self.env.doc2path(self.env.docname)).parent
        found = chapters(folder)
        for path in [*folder.glob("[0-9]*.ipynb"), *(folder / "results").glob("*.json")]:
            self.env.note_dependency(str(path))
        if self.arguments[0] == "records":
            pages = {f"{{doc}}`{chapter.name}`": chapter.records for chapter in found}
            text = records_list(folder / "results", pages)
        elif self.arguments[0] == "figures":
            text = figures_list(found)
        else:
            raise self.error(f"reproduction {self.arguments[0]!r} is unknown; the lists are records and figures.")
        return self.parse_text_to_nodes(text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("reproduction", Reproduction)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
