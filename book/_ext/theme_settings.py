"""Settings of the theme and of the cards in messages that depend on the repository's address.

The address is in pyproject.toml; a build by GitHub Actions uses the repository that it runs in, so the book of a fork
points at the fork. Without an address, the buttons that need one are left out. The address of the published pages is
that of GitHub Pages where GitHub Actions builds them, or FM_SITE; elsewhere it is unknown.
"""

from __future__ import annotations

import html
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

__all__ = ["repository", "setup", "site", "theme_options"]


def repository(pyproject: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The repository's address, from GitHub Actions or pyproject.toml, without `.git`; empty where neither has one."""
    if environ.get("GITHUB_ACTIONS") == "true" and environ.get("GITHUB_REPOSITORY"):
        server = environ.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
        return f"{server}/{environ['GITHUB_REPOSITORY']}"
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "").rstrip("/").removesuffix(".git")


def site(environ: Mapping[str, str] = os.environ) -> str:
    """The address of the published pages, with a slash at its end; empty where it is unknown."""
    if environ.get("FM_SITE"):
        return environ["FM_SITE"].rstrip("/") + "/"
    on_github = environ.get("GITHUB_SERVER_URL", "https://github.com") == "https://github.com"
    if environ.get("GITHUB_ACTIONS") != "true" or not environ.get("GITHUB_REPOSITORY") or not on_github:
        return ""
    owner, name = environ["GITHUB_REPOSITORY"].split("/")
    home = f"{owner.lower()}.github.io"
    return f"https://{home}/" if name.lower() == home else f"https://{home}/{name}/"


def theme_options(pyproject: Path, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Buttons that lead to the repository, and to Colab and Binder, which open notebooks from github.com."""
    address = repository(pyproject, environ)
    buttons = ("use_repository_button", "use_edit_page_button", "use_issues_button")
    services = {"colab_url": "https://colab.research.google.com", "binderhub_url": "https://mybinder.org"}
    return {
        **({"repository_url": address, "repository_branch": "main"} if address else {}),
        **dict.fromkeys(buttons, bool(address)),
        "launch_buttons": {**services, "notebook_interface": "jupyterlab"} if "//github.com/" in address else {},
        "navbar_persistent": [],  # the theme's base would show a second search field
    }


def _configure(app: Sphinx, config: Config) -> None:
    config.html_theme_options.update(theme_options(Path(app.srcdir) / "pyproject.toml"))
    config.html_theme_options["logo"] = {"text": config.html_title, "alt_text": ""}
    config.html_logo = config.html_favicon = "book/_static/logo.svg"
    config.html_baseurl = config.ogp_site_url = site()
    config.ogp_social_cards = {"enable": False}
    config.ogp_site_name = config.html_title
    if site():  # the picture's address has to be complete
        config.ogp_image = "_static/card.png"
        config.ogp_custom_meta_tags = ('<meta name="twitter:card" content="summary_large_image">',)


def _keep_tags(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if page == app.config.root_doc:
        app.env.fm_first_page_tags = context["metatags"]


def _write_index_redirect(app: Sphinx, error: Exception | None) -> None:
    """`index.html`, which leads on to the first page, with that page's tags: its address is the one passed on."""
    tags = getattr(app.env, "fm_first_page_tags", None)
    if error is None and tags is not None:
        page, title = f"{app.config.root_doc}.html", html.escape(app.config.html_title)
        (Path(app.outdir) / "index.html").write_text(
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n{tags}'
            f'<meta http-equiv="refresh" content="0; url={page}">\n</head>\n'
            f'<body><p><a href="{page}">{title}</a></p></body>\n</html>\n',
            encoding="utf-8",
        )


def _drop_fontawesome_js(app: Sphinx, error: Exception | None) -> None:
    """The theme's base loads each icon twice: as a font, and from this script of 1.5 MB."""
    script = Path(app.outdir) / "_static" / "scripts" / "fontawesome.js"
    if error is None and script.is_file():
        script.write_text("/* The icons are letters of a font. */\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.setup_extension("sphinxext.opengraph")
    app.connect("config-inited", _configure)
    app.connect("html-page-context", _keep_tags, priority=900)
    app.connect("build-finished", _write_index_redirect, priority=900)
    app.connect("build-finished", _drop_fontawesome_js)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
