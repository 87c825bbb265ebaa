"""Files that are never half there: written under another name and renamed; JSON without NaN; one process per folder."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

__all__ = ["atomic_file", "own_folder", "read_json", "remove_parts", "to_json", "write_atomically"]


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of a temporary file in the same folder, with the same suffix, that replaces ``path`` at the end.

    Args:
        path: file; its folder must exist. After an error in the body it is as it was.
    """
    path = Path(path)
    part = path.with_name(f".{secrets.token_hex(6)}.part{path.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        for wait in (0.1, 0.2, 0.4, 0.8, None):
            try:
                part.replace(path)
                break
            except PermissionError:  # Windows: a scanner or a viewer has the file open for a moment
                if wait is None:
                    raise
                time.sleep(wait)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        path: file; its folder is made if missing.
        content: of the file.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as part:
        part.write_bytes(content)


def remove_parts(folder: str | os.PathLike[str], *, older: float = 3600, deep: bool = False) -> None:
    """Remove the temporary files that killed processes left in a folder.

    Args:
        folder: where :func:`atomic_file` wrote.
        older: seconds since the last change; 0 where no other process writes there.
        deep: in the folders below as well.
    """
    for part in (Path(folder).rglob if deep else Path(folder).glob)(".*.part*"):
        if time.time() - part.stat().st_mtime >= older:
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text; NaN and infinity, which JSON does not have, become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Content of a JSON file; None where it is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None


@contextmanager
def own_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Make a folder this process's own until the end of the body, and remove what killed processes left there.

    Args:
        folder: made if missing.

    Raises:
        ValueError: it cannot be made or written, or another process has it. The lock of a dead process does not count.
    """
    folder, name = Path(folder), str(folder)
    lock, holder = FileLock(folder / ".lock"), folder / ".lock.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{secrets.token_hex(6)}.part"
        probe.touch()
        probe.unlink()
        lock.acquire(timeout=0)
    except Timeout:
        who = read_json(holder) or {}
        raise ValueError(
            f"out: expected a folder that no other process uses, got {name!r}, in use by process {who.get('process')} "
            f"on {who.get('host')} since {who.get('since')}. Wait for it, or choose another with out=...."
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"out: expected a folder that can be written, got {name!r} ({error}). Choose another with out=...."
        ) from error
    except NotImplementedError:  # a file system without locks
        pass
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        facts = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
        write_atomically(holder, to_json(facts).encode())
        remove_parts(folder, older=0)
        yield folder
    finally:
        with suppress(OSError):  # the folder is gone
            holder.unlink()
        remove_parts(folder, older=0)
        lock.release()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
