"""What the theme has to be told and _config.yml cannot say.

The repository's address stands in pyproject.toml and nowhere else in the book's settings; Jupyter Book would want it a
second time. When GitHub's own machines build the book, they say where the repository lies, and that is believed: the
book of a fork then points at the fork. Where no address is known, every button that needs one is left out.

The address of the published pages follows in the same way: GitHub Pages' own when the book is built there, or what the
environment variable FM_SITE says, for example for a domain of one's own. Elsewhere it is unknown.

And newer versions of the theme's base put a second search field into a bar across the top of every page, and load each
icon twice: as a font, and from a script of 1.5 MB that replaces the letters of that font by drawings. The script goes.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

__all__ = ["launchers", "repository", "setup", "site", "theme_options"]

COLAB = "https://colab.research.google.com"
BINDER = "https://mybinder.org"


def repository(pyproject: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The repository's address: what GitHub Actions says, else that of pyproject.toml; empty where neither knows.

    An address that ends in `.git` would go into the Colab links as it is, and break them.
    """
    if environ.get("GITHUB_ACTIONS") == "true" and environ.get("GITHUB_REPOSITORY"):
        server = environ.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
        return f"{server}/{environ['GITHUB_REPOSITORY']}"
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "").rstrip("/").removesuffix(".git")


def site(environ: Mapping[str, str] = os.environ) -> str:
    """The address under which the book is read, with a slash at its end; empty where it is not known."""
    if environ.get("FM_SITE"):
        return environ["FM_SITE"].rstrip("/") + "/"
    on_github = environ.get("GITHUB_SERVER_URL", "https://github.com") == "https://github.com"
    if environ.get("GITHUB_ACTIONS") != "true" or not environ.get("GITHUB_REPOSITORY") or not on_github:
        return ""
    owner, name = environ["GITHUB_REPOSITORY"].split("/")
    home = f"{owner.lower()}.github.io"
    return f"https://{home}/" if name.lower() == home else f"https://{home}/{name}/"


def launchers(address: str) -> dict[str, str]:
    """Where the rocket leads: both services open notebooks from github.com, Colab from nowhere else."""
    if not address.startswith("https://github.com/"):
        return {}
    return {"colab_url": COLAB, "binderhub_url": BINDER, "notebook_interface": "jupyterlab"}


def theme_options(pyproject: Path, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The options that depend on the repository's address, and those that Jupyter Book's settings have no name for."""
    address = repository(pyproject, environ)
    buttons = dict.fromkeys(("use_repository_button", "use_edit_page_button", "use_issues_button"), bool(address))
    known = {"repository_url": address, "repository_branch": "main"} if address else {}
    return {
        **known,
        **buttons,
        "launch_buttons": launchers(address),
        "navbar_persistent": [],
    }


def _tell_theme(app: Sphinx, config: Config) -> None:
    config.html_theme_options.update(theme_options(Path(app.srcdir) / "pyproject.toml"))
    config.html_theme_options["logo"] = {"text": config.html_title, "alt_text": ""}  # these words say what the logo is
    config.html_baseurl = site()
    config.html_logo = config.html_favicon = "book/_static/logo.svg"


def _leave_icons_to_the_fonts(app: Sphinx, error: Exception | None) -> None:
    script = Path(app.outdir) / "_static" / "scripts" / "fontawesome.js"
    if error is None and script.is_file():
        script.write_text("/* The style sheets show the icons, as letters of a font. */\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("config-inited", _tell_theme)
    app.connect("build-finished", _leave_icons_to_the_fonts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
