"""The lists of the page *Reproduce*: each record and each figure with its command and cost.

Records come from `book/fm_book/results`, figures and run times from the notebooks, and the use of a record from the
pages that name it. A page gets a list by the directive `reproduction` and its name, `records` or `figures`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

__all__ = ["Chapter", "figures_list", "format_seconds", "read_chapters", "records_list", "run_times", "setup"]

RUN_TIME = re.compile(r"\*\*Run time\*\*[\s:]*(.+?)(?:\n\n|\Z)", re.DOTALL)
SENTENCE_END = re.compile(r"(?<=[.!?])\s")
RECORD = re.compile(r"""load_record\(["']([\w-]+)["']\)|<!--\s*record:\s*([\w-]+)/""")
COMMANDS = {"benchmark": "python -m pytest tests/benchmarks --record"}  # others: python -m fm_book.experiments NAME


@dataclass(frozen=True)
class Chapter:
    """What a notebook contributes to the lists."""

    name: str  # of the file, without its ending
    run_time: str
    figures: list[tuple[str, str]]  # name and first sentence of the caption, in the order of the page
    records: set[str]  # used in code or text


def read_chapters(folder: Path) -> list[Chapter]:
    """The notebooks of a folder."""
    found = []
    for path in sorted(folder.glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells)
        run_time = RUN_TIME.search("\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))
        figures = [cell.metadata.get("mystnb", {}).get("figure", {}) for cell in cells]
        found.append(
            Chapter(
                path.stem,
                " ".join(run_time[1].split()) if run_time else "not stated",
                [(one["name"], SENTENCE_END.split(one.get("caption", ""))[0]) for one in figures if "name" in one],
                {a or b for a, b in RECORD.findall(text)},
            )
        )
    return found


def run_times(record: Mapping[str, Any]) -> dict[str, float]:
    """Seconds that a record took, by part; empty where it does not say."""
    seconds = record.get("seconds")
    if isinstance(seconds, Mapping):
        evaluation = seconds.get("evaluation", {})
        parts = {"training": seconds.get("training"), "evaluation": evaluation.get("wall")}
        parts["evaluation's processor time"] = evaluation.get("processor")
        return {part: time for part, time in parts.items() if time}
    if seconds is not None:
        return {"in all": seconds}
    trained = [facts.get("seconds") for facts in record.get("networks", {}).values() if isinstance(facts, Mapping)]
    return {"training": sum(trained)} if trained and all(isinstance(time, int | float) for time in trained) else {}


def format_seconds(time: float) -> str:
    """Seconds, minutes from 90 s on, or hours from 100 min on."""
    if time < 90:
        return f"{time:.0f} s"
    return f"{time / 60:.0f} min" if time < 100 * 60 else f"{time / 3600:.1f} h"


def records_list(folder: Path, pages: Mapping[str, set[str]]) -> str:
    """Markdown with one entry a record; `pages` has the records used by each page, by the Markdown that links to it."""
    lines = []
    for path in sorted(folder.glob("*.json")):
        record, name = json.loads(path.read_text(encoding="utf-8")), path.stem
        machine = record if "device" in record else record.get("machine", {})
        took = ", ".join(f"{part} {format_seconds(time)}" for part, time in run_times(record).items())
        used = ", ".join(page for page, records in pages.items() if name in records)
        commit, _, dirty = (record["git_commit"] or "unknown").partition("-")
        lines += [
            f"`{COMMANDS.get(name, f'python -m fm_book.experiments {name}')}`",
            f": *makes* `book/fm_book/results/{path.name}`" + (f", *shown in* {used}" if used else ""),
            f": *took* {took or 'time not recorded'}, on {machine.get('device', 'a CPU')}",
            f": *made* {record['date'][:10]} with torch {machine['versions']['torch']}, "
            f"commit `{commit[:10]}{'-dirty' if dirty else ''}`",
            "",
        ]
    return "\n".join(lines)


def figures_list(chapters: list[Chapter]) -> str:
    """Markdown with the command, run time and figures of each chapter."""
    lines = []
    for chapter in chapters:
        lines += [f"**{{doc}}`{chapter.name}`**, `jupyter execute --inplace book/{chapter.name}.ipynb`.", ""]
        lines += [f"*Run time:* {chapter.run_time}", ""]
        lines += [*(f"- {{numref}}`{name}`: {caption}" for name, caption in chapter.figures), ""]
    return "\n".join(lines)


class Reproduction(SphinxDirective):
    """``{reproduction} records`` or ``{reproduction} figures``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        folder = Path(self.env.doc2path(self.env.docname)).parent
        results, chapters, name = folder / "fm_book" / "results", read_chapters(folder), self.arguments[0]
        for path in [*folder.glob("*.ipynb"), *results.glob("*.json")]:
            self.env.note_dependency(str(path))
        if name not in ("records", "figures"):
            raise self.error(f"reproduction: expected one of records, figures, got {name!r}.")
        pages = {f"{{doc}}`{chapter.name}`": chapter.records for chapter in chapters}
        return self.parse_text_to_nodes(records_list(results, pages) if name == "records" else figures_list(chapters))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("reproduction", Reproduction)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
