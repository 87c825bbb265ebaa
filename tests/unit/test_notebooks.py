"""The chapters as files: tidy, in step with pyproject.toml and _toc.yml, and built on public names only."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import nbformat
import notebooks
import pytest
import yaml

ROOT = notebooks.ROOT
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
LONGEST_CELL = 25  # lines
PACKAGES = ("fm_core", "fm_book")

each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def code_of(cell: nbformat.NotebookNode) -> ast.Module:
    """The cell's syntax tree; magics, which are not Python, count as `pass`."""
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.MULTILINE))


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a part of the name is no package
        return False


def private_names(tree: ast.AST) -> list[str]:
    """What the code takes from the two packages that is not public there: neither in `__all__` nor a module."""
    found: list[str] = []
    known: dict[str, object] = {}  # local name -> module or object of fm_core
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in PACKAGES:
                    importlib.import_module(alias.name)
                    bound = alias.name if alias.asname else alias.name.split(".")[0]
                    known[alias.asname or bound] = importlib.import_module(bound)
                    found += [alias.name] if "._" in alias.name else []
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            module = importlib.import_module(node.module)
            for alias in node.names:
                room = f"{node.module}.{alias.name}"
                public = alias.name in getattr(module, "__all__", ()) or is_module(room)
                if not public or "._" in room:
                    found.append(room)
                else:
                    known[alias.asname or alias.name] = getattr(module, alias.name, None) or importlib.import_module(
                        room
                    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            owner = known[node.value.id]
            public = getattr(owner, "__all__", None) if isinstance(owner, ModuleType) else None
            hidden = public is not None and node.attr not in public and not is_module(f"{owner.__name__}.{node.attr}")
            if node.attr.startswith("_") or hidden:
                found.append(f"{node.value.id}.{node.attr}")
    return found


def test_the_notebooks_are_tidy_and_the_address_is_in_step() -> None:
    outdated = [str(path.relative_to(ROOT)) for path in notebooks.changes()]
    assert not outdated, f"run `python tools/notebooks.py`: it would change {', '.join(outdated)}"


def test_every_chapter_is_in_the_table_of_contents_and_there() -> None:
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [entry for part in contents["parts"] for entry in part["chapters"]]
    pages = [entry["file"] for chapter in chapters for entry in (chapter, *chapter.get("sections", ()))]
    listed = [page for page in pages if (ROOT / f"{page}.ipynb").is_file()]
    assert all((ROOT / f"{page}.md").is_file() for page in pages if page not in listed)
    there = [f"book/{path.stem}" for path in CHAPTERS]
    assert sorted(listed) == there
    assert listed == sorted(listed), "chapters are numbered in the order in which they are read"


@pytest.mark.parametrize("path", sorted([*CHAPTERS, *(ROOT / "book").glob("*.md")]), ids=lambda path: path.stem)
def test_a_page_that_cites_lists_its_references(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ("{cite:" in text) <= ("{bibliography}" in text), "citations need a bibliography on their page"


@each_chapter
def test_the_file_is_a_valid_notebook_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


@each_chapter
def test_it_opens_with_the_install_cell_and_a_title(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0] == nbformat.from_dict(notebooks.first_cell(notebooks.repository())) | {"source": cells[0].source}
    assert cells[0].source == notebooks.FIRST_CELL.format(repository=notebooks.repository())
    assert cells[1].cell_type == "markdown"
    assert re.match(r"(\([\w-]+\)=\n)?# \S", cells[1].source), "the second cell starts with the chapter's title"


@each_chapter
def test_no_visible_code_cell_is_long(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    folded = {"hide-input", "hide-cell", "solution"}
    seen = [cell for cell in cells if cell.cell_type == "code" and not folded & set(cell.metadata.get("tags", ()))]
    long = {cell.id: len(cell.source.splitlines()) for cell in seen}
    assert {name: lines for name, lines in long.items() if lines > LONGEST_CELL} == {}


def alt_texts(path: Path) -> list[tuple[str, str]]:
    """The alt text of each picture that a chapter's cells and paragraphs declare, with the cell's name."""
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        told = cell.metadata.get("mystnb", {})
        if "figure" in told or "image" in told:
            found.append((cell.id, told.get("image", {}).get("alt", "")))
        if cell.cell_type == "markdown":
            found += [(cell.id, text) for text in re.findall(r"!\[([^\]]*)\]\(", cell.source)]
            for figure in re.findall(r"^(?:```|:::)\{(?:figure|image)\}.*?^(?:```|:::)", cell.source, re.M | re.S):
                found.append((cell.id, "".join(re.findall(r"^:alt:\s*(.*)$", figure, flags=re.MULTILINE))))
    return found


@each_chapter
def test_no_backslash_was_lost(path: Path) -> None:
    """A formula written by a program easily turns its backslash into a control character, which no editor shows."""
    cells = nbformat.read(path, as_version=4).cells
    assert [cell.id for cell in cells if re.search(r"[\x00-\x08\x0b-\x1f]", cell.source)] == []


@each_chapter
def test_every_figure_says_what_is_to_be_seen(path: Path) -> None:
    short = {name: text for name, text in alt_texts(path) if len(text.split()) < 6}
    assert short == {}, "alt text is missing, or too short to say what is to be seen"


def test_no_alt_text_is_a_copy() -> None:
    texts = [(text, f"{path.stem}: {name}") for path in CHAPTERS for name, text in alt_texts(path) if text]
    places: dict[str, list[str]] = {}
    for text, place in texts:
        places.setdefault(text, []).append(place)
    assert {text: where for text, where in places.items() if len(where) > 1} == {}


def test_figures_have_names_of_their_own() -> None:
    names = [
        cell.metadata["mystnb"]["figure"].get("name")
        for path in CHAPTERS
        for cell in nbformat.read(path, as_version=4).cells
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    named = [name for name in names if name]
    assert sorted(set(named)) == sorted(named), "a link to such a figure would lead to one of two"


@each_chapter
def test_it_uses_public_names_of_the_package_only(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    body = [node for cell in cells if cell.cell_type == "code" for node in code_of(cell).body]
    assert private_names(ast.Module(body=body, type_ignores=[])) == []


@pytest.mark.parametrize(
    "code",
    [
        "from fm_book.scale import T",
        "from fm_core import os",
        "import fm_core\nfm_core._HOME",
        "import fm_book.scale as s\ns.os.environ",
        "from fm_book.scale import scaled\nscaled.__wrapped__",
    ],
)
def test_the_check_for_public_names_sees_private_ones(code: str) -> None:
    assert private_names(ast.parse(code))


def test_the_check_for_public_names_lets_public_ones_pass() -> None:
    code = "import fm_core\nfrom fm_book import scale\nscale.scaled\nfm_core.solve"
    assert private_names(ast.parse(code)) == []


def test_tidying_strips_outputs_and_repairs_the_first_cell() -> None:
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": "1 + 1", "execution_count": 3}
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "2"}]
    book = {"cells": [cell], "metadata": {"widgets": {}}, "nbformat": 4, "nbformat_minor": 5}
    text = notebooks.tidy(json.dumps(book), "https://example.org/a/b")
    first, second = json.loads(text)["cells"]
    assert "".join(first["source"]).endswith("'fm-core[notebooks] @ git+https://example.org/a/b'")
    assert (second["outputs"], second["execution_count"], second["source"]) == ([], None, ["1 + 1"])
    assert notebooks.tidy(text, "https://example.org/a/b") == text
