"""Smaller pictures, loaded when needed, and still for readers who prefer less motion.

Each PNG and GIF of a page also gets a lossless WebP file, about half its size, offered in a <picture>. Style sheets
cannot stop a GIF; with `prefers-reduced-motion` the browser takes its last frame. All pictures of a page but the first
are loaded lazily.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL import Image, ImageSequence
from sphinx.application import Sphinx

from fm_core._files import atomic_file

__all__ = ["picture_tag", "setup", "to_still", "to_webp"]

IMAGE = re.compile(r'<img\b[^>]*?\bsrc="([^":]+\.(?:gif|png|svg|jpe?g|webp))"[^>]*>')  # no colon: files of the book
MAX_SHARE = 0.9  # of the original's bytes; a larger WebP file is not offered


def to_still(film: Path, still: Path) -> None:
    """Write the last frame of a GIF as PNG."""
    with Image.open(film) as frames:
        frames.seek(frames.n_frames - 1)
        last = frames.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    with atomic_file(still) as part:
        last.save(part, optimize=True)


def to_webp(picture: Path, copy: Path) -> bool:
    """Write a PNG or GIF as lossless WebP, unless `copy` is newer; tell whether it is enough smaller."""
    if not copy.is_file() or copy.stat().st_mtime < picture.stat().st_mtime:
        with Image.open(picture) as opened:
            frames = [frame.copy() for frame in ImageSequence.Iterator(opened)]
            film = {"duration": [frame.info.get("duration", 0) for frame in frames], "loop": opened.info.get("loop", 0)}
        with atomic_file(copy) as part:
            if len(frames) == 1:
                frames[0].save(part, "WEBP", lossless=True, method=4)
            else:
                first, *rest = (frame.convert("RGB") for frame in frames)
                first.save(part, "WEBP", lossless=True, method=4, save_all=True, append_images=rest, **film)
    return copy.stat().st_size < MAX_SHARE * picture.stat().st_size


def picture_tag(image: str, source: str, *, still: bool, webp: bool, lazy: bool) -> str:
    """An <img> tag, lazy or not, inside a <picture> where there is a choice of files."""
    if lazy and "loading=" not in image:
        image = image.replace("<img", '<img loading="lazy"', 1)
    stem = source.rsplit(".", 1)[0]
    choices = f'<source media="(prefers-reduced-motion: reduce)" srcset="{stem}-still.png">' if still else ""
    choices += f'<source type="image/webp" srcset="{stem}.webp">' if webp else ""
    return f"<picture>{choices}{image}</picture>" if choices else image


def _replace_images(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    folder = Path(app.outdir) / app.builder.imagedir
    files = {name: Path(app.srcdir) / path for path, name in app.builder.images.items()}
    first = IMAGE.search(context.get("body", ""))

    def replace(found: re.Match[str]) -> str:
        file, stem = files.get(Path(found[1]).name, Path()), folder / Path(found[1]).stem
        still, webp = file.suffix == ".gif", file.suffix in (".gif", ".png")
        folder.mkdir(exist_ok=True)
        if still:
            to_still(file, Path(f"{stem}-still.png"))
        webp = webp and to_webp(file, Path(f"{stem}.webp"))
        return picture_tag(found[0], found[1], still=still, webp=webp, lazy=found.start() != first.start())

    if doctree is not None and first:
        context["body"] = IMAGE.sub(replace, context["body"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("html-page-context", _replace_images)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
