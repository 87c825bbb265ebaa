"""What the theme has to be told and _config.yml cannot say.

The repository's address stands in pyproject.toml and nowhere else in the book's settings; Jupyter Book would want it a
second time. And newer versions of the theme's base put a second search field into a bar across the top of every page.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

__all__ = ["setup", "theme_options"]


def theme_options(pyproject: Path) -> dict[str, Any]:
    """The options, with the repository's address as pyproject.toml gives it.

    An address that ends in `.git` would go into the Colab links as it is, and break them.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return {
        "repository_url": project["urls"]["Repository"].rstrip("/").removesuffix(".git"),
        "repository_branch": "main",
        "use_repository_button": True,
        "use_edit_page_button": True,
        "use_issues_button": True,
        "navbar_persistent": [],
    }


def _tell_theme(app: Sphinx, config: Config) -> None:
    config.html_theme_options.update(theme_options(Path(app.srcdir) / "pyproject.toml"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("config-inited", _tell_theme)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
