"""Pictures that weigh less, wait until they are needed, and stand still for readers who want less motion.

When the book is built, each PNG and GIF of a page is written a second time as WebP without loss, the same pixels in
about half the bytes, and the page offers both in a <picture>. A GIF cannot be stopped by style sheets, so with
`prefers-reduced-motion` the browser takes the film's last frame instead. All pictures but a page's first are loaded
when their reader comes near them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL import Image, ImageSequence
from sphinx.application import Sphinx

__all__ = ["last_frame", "lighter", "offered", "setup"]

IMAGE = re.compile(r'<img\b[^>]*?\bsrc="([^":]+\.(?:gif|png|svg|jpe?g|webp))"[^>]*>')  # no colon: files of the book
WORTH_IT = 0.9  # of the bytes; otherwise the second file is not kept


def last_frame(film: Path, still: Path) -> Path:
    """Write the last frame of a GIF as PNG, in few colours, as the film has them."""
    with Image.open(film) as frames:
        frames.seek(frames.n_frames - 1)
        picture = frames.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    still.parent.mkdir(parents=True, exist_ok=True)
    picture.save(still, optimize=True)
    return still


def lighter(picture: Path, copy: Path) -> Path | None:
    """Write a PNG or GIF as WebP without loss, with all frames and their durations; None where that saves little."""
    if not copy.is_file() or copy.stat().st_mtime < picture.stat().st_mtime:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(picture) as opened:
            frames = [frame.copy() for frame in ImageSequence.Iterator(opened)]
            durations = [frame.info.get("duration", 0) for frame in frames]
            loop = opened.info.get("loop", 0)
        if len(frames) == 1:
            frames[0].save(copy, "WEBP", lossless=True, method=4)
        else:
            first, *rest = (frame.convert("RGB") for frame in frames)
            film = {"save_all": True, "append_images": rest, "duration": durations, "loop": loop}
            first.save(copy, "WEBP", lossless=True, method=4, **film)
    return copy if copy.stat().st_size < WORTH_IT * picture.stat().st_size else None


def offered(image: str, source: str, *, still: bool, light: bool, first: bool) -> str:
    """The <img> as a page shows it: patient unless it is the first, inside a <picture> where there is a choice."""
    if not first and "loading=" not in image:
        image = image.replace("<img", '<img loading="lazy"', 1)
    stem = source.rsplit(".", 1)[0]
    choices = f'<source media="(prefers-reduced-motion: reduce)" srcset="{stem}-still.png">' if still else ""
    choices += f'<source type="image/webp" srcset="{stem}.webp">' if light else ""
    return f"<picture>{choices}{image}</picture>" if choices else image


def _offer(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if doctree is None or "<img" not in context.get("body", ""):
        return
    folder = Path(app.outdir) / app.builder.imagedir
    files = {name: Path(app.srcdir) / path for path, name in app.builder.images.items()}
    seen = 0

    def choose(found: re.Match[str]) -> str:
        nonlocal seen
        seen += 1
        name = Path(found[1]).name
        file = files.get(name)
        still = light = False
        if file is not None and file.is_file():
            if still := file.suffix == ".gif":
                last_frame(file, folder / f"{Path(name).stem}-still.png")
            if file.suffix in (".gif", ".png"):
                light = lighter(file, folder / f"{Path(name).stem}.webp") is not None
        return offered(found[0], found[1], still=still, light=light, first=seen == 1)

    context["body"] = IMAGE.sub(choose, context["body"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("html-page-context", _offer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
