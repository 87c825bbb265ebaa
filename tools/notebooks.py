"""Keep the notebooks tidy and the repository's address in step; stdlib only.

    python tools/notebooks.py            write: no outputs, one first cell everywhere, the address of pyproject.toml
    python tools/notebooks.py --check    only say what would change, and exit with 1 if anything would

The address stands in pyproject.toml under [project.urls]. The notebooks' first cell, README.md and CITATION.cff repeat
it, because Colab and people read them where pyproject.toml is out of sight.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "changes", "first_cell", "repository", "tidy"]

ROOT = Path(__file__).resolve().parent.parent

FIRST_CELL = """\
# On Colab: install the package behind this book. Anywhere else this cell does nothing.
import sys

if "google.colab" in sys.modules:
    %pip install -q git+{repository}"""

ADDRESSES = {  # file: what stands before and after `owner/name` in it
    "README.md": r"((?:colab\.research\.google\.com/github|mybinder\.org/v2/gh|//github\.com)/)[^/\s]+/[^/\s]+"
    r"(/(?:blob|main|actions)\b)",
    "CITATION.cff": r'(repository-code: "https://github\.com/)[^"]+(")',
}


def repository(root: Path = ROOT) -> str:
    """The repository's address, as pyproject.toml gives it, without a slash or `.git` at its end.

    Raises:
        ValueError: there is none, so that a first cell cannot say where to install the package from.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "").rstrip("/").removesuffix(".git")
    if not address:
        raise ValueError(
            "Repository='' in pyproject.toml, under [project.urls]; the notebooks' first cell installs the package "
            'from there. Write the address, as in Repository = "https://github.com/OWNER/NAME".'
        )
    return address


def first_cell(address: str) -> dict[str, Any]:
    """The notebooks' first cell: it installs the package on Colab, and a built page does not show it."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": "colab-setup",
        "metadata": {"tags": ["remove-cell"]},
        "outputs": [],
        "source": FIRST_CELL.format(repository=address).splitlines(keepends=True),
    }


def tidy(text: str, address: str) -> str:
    """The notebook `text` without outputs and with the first cell for `address`, laid out as Jupyter saves it."""
    notebook = json.loads(text)
    notebook["cells"] = [cell for cell in notebook["cells"] if cell.get("id") != "colab-setup"]
    notebook["cells"].insert(0, first_cell(address))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        for key in ("execution", "ExecuteTime", "collapsed"):
            cell["metadata"].pop(key, None)
        if isinstance(cell["source"], str):
            cell["source"] = cell["source"].splitlines(keepends=True)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook["metadata"] = {**notebook["metadata"], "kernelspec": kernel, "language_info": {"name": "python"}}
    notebook["metadata"].pop("widgets", None)
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def changes(root: Path = ROOT) -> dict[Path, str]:
    """The files that are not as they should be, each with the text that it should have."""
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
