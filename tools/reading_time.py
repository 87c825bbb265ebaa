"""Print how long each chapter is and how its text reads.

    python tools/reading_time.py [FILE ...]

Columns: words of prose, words of exercises, lines of visible code, the share of those that neither draw nor print nor
import, lines of folded code, display equations, paragraphs with more than three numbers, code lines over 88 characters,
and minutes to read the main text (200 words and 20 lines of code a minute, half a minute for an equation). A table
below counts words of the first edition that the book no longer uses. Folded text, captions and code in prose are not
counted.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.myst_role import myst_role_plugin

BOOK = Path(__file__).resolve().parent.parent / "book"
WIDTH = 88  # characters of code that a page of 1280 pixels shows
FOLDED = ("dropdown", "bibliography", "figure", "toggle", "image", "playground", "button-ref")
DRAWS = re.compile(
    r"\b(print|assert|import|plt|axes?|figure|fig|legend|colou?rs?|label|style|use_style|\w*_?table|alt)\b"
    r"|\b(image_grid|plot_\w+|\w+_slider|\w+_figure)\("
)
OLD = re.compile(
    r"\b(crowd|walkers?|riders?|suspects?|patients?|ruler|grain|clock|ticking|tick|guess(?:es)?|rungs?|ladder|corners?"
    r"|climb(?:ed)?|dear|anew|shall|wants?|whoever|trainings|learned numbers|averaged weights|at hand|for ever"
    r"|cubes?|holds zero|leaves zero out|the floor|the way back|there and back|bare levels|spread levels"
    r"|lost digits|keeps the signal|looks?|ask(?:s|ed)?|questions?|place|pull)\b",
    re.IGNORECASE,
)


@dataclass
class Chapter:
    """Counts of one page."""

    prose: list[str] = field(default_factory=list)  # paragraphs of the main text
    exercises: list[str] = field(default_factory=list)
    visible: list[str] = field(default_factory=list)  # lines of code
    folded: int = 0
    equations: int = 0

    @property
    def words(self) -> int:
        return sum(len(words(text)) for text in self.prose)

    @property
    def minutes(self) -> float:
        return self.words / 200 + len(self.visible) / 20 + self.equations / 2

    @property
    def share(self) -> float:
        """Of the visible lines, those that are about the subject."""
        return sum(not DRAWS.search(line) for line in self.visible) / max(1, len(self.visible))


def words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z][\w'’-]*", text)


def inline(token: Token) -> str:
    """Text of a paragraph, formulas and code left out."""
    parts = []
    for child in token.children or []:
        if child.type == "text":
            parts.append(child.content)
        elif child.type == "softbreak":
            parts.append(" ")
        elif child.type == "myst_role" and "<" in child.content:
            parts.append(child.content.split("<")[0])
    return "".join(parts)


def paragraphs(text: str, parser: MarkdownIt) -> Iterator[tuple[str, str]]:
    """Kind ("text", "heading" or "equation") and content of the pieces of a Markdown text."""
    heading = False
    for token in parser.parse(text):
        heading = token.type == "heading_open" or (heading and token.type == "inline")
        if token.type == "inline":
            yield ("heading" if heading else "text"), inline(token)
        elif token.type in ("math_block", "math_block_label", "amsmath"):
            yield "equation", token.content
        elif token.type in ("colon_fence", "fence") and re.match(rf"{{(?!{'|'.join(FOLDED)})", token.info):
            yield from paragraphs(re.sub(r"^:\w+:.*$", "", token.content, flags=re.MULTILINE), parser)


def read(path: Path) -> Chapter:
    """Counts of a notebook or a Markdown page."""
    parser = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin).use(amsmath_plugin)
    parser = parser.use(colon_fence_plugin).use(myst_role_plugin)
    if path.suffix == ".md":
        cells = [{"cell_type": "markdown", "source": path.read_text(encoding="utf-8"), "metadata": {}}]
    else:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    chapter, exercises = Chapter(), False
    for cell in cells:
        source, tags = "".join(cell["source"]), cell["metadata"].get("tags", [])
        if cell["cell_type"] == "markdown":
            for kind, text in paragraphs(source, parser):
                exercises |= kind == "heading" and text.strip().lower() == "exercises"
                if kind == "equation":
                    chapter.equations += not exercises
                else:
                    (chapter.exercises if exercises else chapter.prose).append(text)
        elif "remove-cell" not in tags:
            lines = [line for line in source.splitlines() if line.strip()]
            if {"hide-cell", "hide-input", "remove-input", "solution"} & set(tags):
                chapter.folded += len(lines)
            elif not exercises:
                chapter.visible += lines
    return chapter


def main(names: list[str]) -> None:
    files = [Path(name) for name in names] or sorted((*BOOK.glob("*.ipynb"), *BOOK.glob("*.md")))
    heads = {"words": 6, "exerc.": 7, "code": 6, "subject": 8, "folded": 7, "eqs": 5, ">3 no.": 7, "wide": 5, "min": 5}
    print(" " * 24 + "".join(f"{head:>{width}}" for head, width in heads.items()))
    old: dict[str, Counter[str]] = {}
    for path in files:
        page = read(path)
        numbers = sum(len(re.findall(r"(?<![\w-])\d[\d,.]*", text)) > 3 for text in page.prose)
        wide = sum(len(line) > WIDTH for line in page.visible)
        solved = sum(len(words(text)) for text in page.exercises)
        print(
            f"{path.stem:24}{page.words:6,}{solved:7,}{len(page.visible):6}{page.share:8.0%}{page.folded:7}"
            f"{page.equations:5}{numbers:7}{wide:5}{page.minutes:5.0f}"
        )
        text = " ".join(page.prose + page.exercises)
        old[path.stem] = Counter(word.lower() for word in OLD.findall(text))
    print("\nwords of the first edition")
    for name, found in old.items():
        print(f"{name:24}" + ", ".join(f"{word} {n}" for word, n in found.most_common()))


if __name__ == "__main__":
    main(sys.argv[1:])
