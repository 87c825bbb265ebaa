"""What a page says of itself where it is linked: a title, a description, and a picture.

A page's description is its first paragraph of plain text. Addresses in these tags have to be complete, so the picture
and the page's own address are named only where the book's address is known (`theme_settings.site`). The first page's
tags also go into the book's `index.html`, which only leads on to it: that is the address people pass on.

sphinxext-opengraph does much of this. It takes formulas into its descriptions and writes addresses that are not
complete where the book's is unknown, which is why these lines are here instead.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from theme_settings import site

__all__ = ["description", "setup", "tags"]

LONGEST = 200  # letters of a description, as much as search engines and cards show
CARD = "_static/card.png"
CARD_SIZE = (1200, 630)
CARD_ALT = "Two rows of handwritten digits made from the same noise, one row by each of two networks."


def description(doctree: nodes.document) -> str:
    """The first paragraph without a formula, cut at the end of a sentence or a word."""
    texts = (
        paragraph.astext()
        for paragraph in doctree.findall(nodes.paragraph)
        if not list(paragraph.findall(nodes.math)) and isinstance(paragraph.parent, nodes.section)
    )
    text = " ".join(next(texts, "").split())
    if len(text) <= LONGEST:
        return text
    start = text[:LONGEST]
    for mark in (". ", "? ", "! "):
        if (end := start.rfind(mark)) > LONGEST // 2:
            return start[: end + 1]
    return start[: start.rfind(" ")].rstrip(",;:") + " …"


def tags(page: str, title: str, book: str, words: str, first: bool, address: str) -> str:
    """The tags of one page; `address` is the book's, or empty."""
    named = {
        "og:title": title,
        "og:type": "website" if first else "article",
        "og:site_name": book,
        "og:description": words,
        "twitter:card": "summary_large_image" if address else "summary",
    }
    if address:
        width, height = CARD_SIZE
        named |= {
            "og:url": f"{address}{page}.html",
            "og:image": f"{address}{CARD}",
            "og:image:width": str(width),
            "og:image:height": str(height),
            "og:image:alt": CARD_ALT,
        }
    lines = [f'<meta name="description" content="{html.escape(words)}">']
    for name, value in named.items():
        kind = "name" if name.startswith("twitter:") else "property"
        lines.append(f'<meta {kind}="{name}" content="{html.escape(value)}">')
    return "\n".join(lines) + "\n"


def _add_tags(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    if doctree is None:
        return
    heading = doctree.next_node(nodes.title)
    title = heading.astext() if heading else page
    first = page == app.config.root_doc
    made = tags(page, title, app.config.html_title, description(doctree), first, site())
    context["metatags"] = context.get("metatags", "") + made
    if first:
        app.fm_first_page_tags = made


def _tell_the_entrance(app: Sphinx, error: Exception | None) -> None:
    """`index.html` leads on to the first page at once; programs that show links read only its head."""
    entrance = Path(app.outdir) / "index.html"
    made = getattr(app, "fm_first_page_tags", None)
    if error is not None or made is None:
        return
    title = html.escape(app.config.html_title)
    page = f"{app.config.root_doc}.html"
    lines = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f"<title>{title}</title>\n{made.rstrip()}",
        f'<meta http-equiv="refresh" content="0; url={page}">\n</head>',
        f'<body><p><a href="{page}">{title}</a></p></body>\n</html>\n',
    ]
    entrance.write_text("\n".join(lines), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("html-page-context", _add_tags)
    app.connect("build-finished", _tell_the_entrance, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
