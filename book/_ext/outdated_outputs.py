"""Executes all notebooks again when what they import or read has changed, and lets builds of one folder wait in turn.

Jupyter Book executes a notebook again when its cells change; it does not see the packages underneath. Here the stored
outputs are cleared, and the notebooks read again, when fm_core, fm_book with the recorded results, pyproject.toml,
FM_SCALE or FM_DATA differ from those of the last build.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sphinx.application import Sphinx
from sphinx.util import logging

__all__ = ["digest", "setup"]

LOCKS: dict[Path, FileLock] = {}  # held as long as the process lives


def digest(paths: Iterable[Path], *words: str) -> str:
    """SHA-256 over `words` and over the names and contents of files, in folders too, caches of bytecode left out."""
    total = hashlib.sha256(repr(words).encode())
    for path in paths:
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in (file for file in files if file.is_file() and "__pycache__" not in file.parts):
            total.update(f"{file.relative_to(path.parent).as_posix()}\0".encode())
            total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _outdated(app: Sphinx, env: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    root, build = Path(app.srcdir), Path(app.outdir).parent
    sources = [root / "fm_core", root / "book" / "fm_book", root / "pyproject.toml"]
    now = digest(sources, os.environ.get("FM_SCALE", ""), os.environ.get("FM_DATA", ""))
    record = build / "executed-with"
    if record.is_file() and record.read_text(encoding="utf-8") == now:
        return []
    shutil.rmtree(build / ".jupyter_cache", ignore_errors=True)
    record.write_text(now, encoding="utf-8")
    return [name for name in env.found_docs if env.doc2path(name).endswith(".ipynb")]


def _wait_for_other_builds(app: Sphinx) -> None:
    """Hold the build's folder until this process ends: two builds at once would write and clear the same files."""
    build = Path(app.outdir).parent
    build.mkdir(parents=True, exist_ok=True)
    lock = LOCKS.setdefault(build, FileLock(build / "build.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logging.getLogger(__name__).info(f"Another build is at work in {build}; this one waits for it.")
        lock.acquire()


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    _wait_for_other_builds(app)
    app.connect("env-get-outdated", _outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
