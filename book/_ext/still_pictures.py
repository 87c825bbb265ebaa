"""A still picture beside each film, for readers who have asked their system for less motion.

A GIF cannot be stopped by style sheets, so each one in a page becomes a <picture>: with `prefers-reduced-motion` the
browser takes the film's last frame, which is made here when the book is built, and leaves the film unread.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL import Image
from sphinx.application import Sphinx

__all__ = ["last_frame", "setup", "with_still"]

FILM = re.compile(r'<img\b[^>]*\bsrc="([^"]+\.gif)"[^>]*>')


def last_frame(film: Path, still: Path) -> Path:
    """Write the last frame of a GIF as PNG, in few colours, as the film has them."""
    with Image.open(film) as frames:
        frames.seek(frames.n_frames - 1)
        picture = frames.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    still.parent.mkdir(parents=True, exist_ok=True)
    picture.save(still, optimize=True)
    return still


def with_still(image: str, source: str) -> str:
    """The <img> inside a <picture> that prefers the still where motion is unwelcome."""
    still = source.removesuffix(".gif") + "-still.png"
    return f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{still}">{image}</picture>'


def _offer_stills(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if doctree is None or ".gif" not in context.get("body", ""):
        return
    builder = app.builder
    films = {name: Path(app.srcdir) / path for path, name in builder.images.items() if name.endswith(".gif")}

    def wrap(found: re.Match[str]) -> str:
        name = Path(found[1]).name
        if name not in films or not films[name].is_file():
            return found[0]
        last_frame(films[name], Path(app.outdir) / builder.imagedir / f"{Path(name).stem}-still.png")
        return with_still(found[0], found[1])

    context["body"] = FILM.sub(wrap, context["body"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("html-page-context", _offer_stills)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
