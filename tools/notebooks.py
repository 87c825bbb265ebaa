"""Keep the notebooks without outputs, and the repository's address the same everywhere.

    python tools/notebooks.py            write: no outputs, the first cell, the address of pyproject.toml
    python tools/notebooks.py --check    name the files that would change; exit with 1 if there are any

The address is in pyproject.toml under [project.urls]. The notebooks' first cell, README.md and CITATION.cff repeat it,
because Colab and people read them without pyproject.toml.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import nbformat
from nbstripout import strip_output

__all__ = ["ROOT", "changes", "first_cell", "repository", "tidy"]

ROOT = Path(__file__).resolve().parent.parent

FIRST_CELL = """\
# On Colab: install the package behind this book. Anywhere else this cell does nothing.
import sys

if "google.colab" in sys.modules:
    %pip install -q 'fm-core[notebooks] @ git+{repository}'"""

ADDRESSES = {  # file: pattern with the text before and after `owner/name`
    "README.md": r"((?:colab\.research\.google\.com/github|mybinder\.org/v2/gh|//github\.com)/)[^/\s]+/[^/\s]+"
    r"(/(?:blob|main|actions)\b)",
    "CITATION.cff": r'(repository-code: "https://github\.com/)[^"]+(")',
}


def repository(root: Path = ROOT) -> str:
    """The repository's address in pyproject.toml, without a slash or `.git` at its end; ValueError without one."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "").rstrip("/").removesuffix(".git")
    if not address:
        raise ValueError(
            "Repository, under [project.urls] in pyproject.toml: expected an address to install the package from, got "
            'none. Write it, as in Repository = "https://github.com/OWNER/NAME".'
        )
    return address


def first_cell(address: str) -> nbformat.NotebookNode:
    """The notebooks' first cell: it installs the package on Colab; built pages do not show it."""
    source = FIRST_CELL.format(repository=address)
    return nbformat.v4.new_code_cell(source, id="colab-setup", metadata={"tags": ["remove-cell"]})


def tidy(text: str, address: str) -> str:
    """The notebook `text` without outputs, with the first cell for `address`, formatted as Jupyter saves it."""
    notebook = nbformat.reads(text, as_version=4)
    notebook.cells = [first_cell(address), *(cell for cell in notebook.cells if cell.get("id") != "colab-setup")]
    extra = ["metadata.widgets", "cell.metadata.execution", "cell.metadata.ExecuteTime", "cell.metadata.collapsed"]
    strip_output(notebook, keep_output=False, keep_count=False, keep_id=True, extra_keys=extra)
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.language_info = {"name": "python"}
    return nbformat.writes(notebook) + "\n"


def changes(root: Path = ROOT) -> dict[Path, str]:
    """Files to change, each with its new text."""
    address = repository(root)
    owner_and_name = address.removeprefix("https://github.com/")
    wanted = {path: tidy(path.read_text(encoding="utf-8"), address) for path in sorted((root / "book").glob("*.ipynb"))}
    for name, pattern in ADDRESSES.items():
        path = root / name
        wanted[path] = re.sub(pattern, rf"\g<1>{owner_and_name}\g<2>", path.read_text(encoding="utf-8"))
    return {path: text for path, text in wanted.items() if path.read_text(encoding="utf-8") != text}


def main(words: list[str]) -> int:
    check = words == ["--check"]
    if words and not check:
        print(__doc__)
        return 2
    found = changes()
    for path, text in found.items():
        print(f"{'would change' if check else 'changed'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return int(check and bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
