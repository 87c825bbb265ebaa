"""Markup that screen readers stumble over, mended before a page is written.

Folded cells carry a label ("Toggle hidden content") that says something else than the words one sees on them, so speech
control cannot press them. Bibliographies are marked as lists whose entries are no list items. Without these marks both
are what they are: a summary with its words, and paragraphs. What scripts put into a page is named in `page_setup.js`.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

__all__ = ["mended", "setup"]

MARKS = (
    (re.compile(r'(<summary\b[^>]*?) aria-label="Toggle hidden content"'), r"\1"),
    (re.compile(r'<div role="list" class="citation-list">'), '<div class="citation-list">'),
    (re.compile(r'(<div\b[^>]*?) role="doc-biblioentry"'), r"\1"),
)


def mended(body: str) -> str:
    """The page's body without the marks that mislead."""
    for mark, instead in MARKS:
        body = mark.sub(instead, body)
    return body


def _mend(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if context.get("body"):
        context["body"] = mended(context["body"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("html-page-context", _mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
