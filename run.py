"""One command for each thing one does with this book. Each sets up what it needs first, in the folder `.venv`.

    python3 run.py book       build the book and execute its chapters: _build/html/index.html
    python3 run.py test       run every test, and every chapter in its smallest size
    python3 run.py setup      only make `.venv` and install into it
    python3 run.py clean      remove the built book and the stored outputs of its chapters

It needs Python 3.11 or newer and nothing else; what is installed comes from the package registry. The set-up is
repeated only when `pyproject.toml` or `requirements.txt` has changed. Words after `test` go to pytest
(`python3 run.py test tests/unit -k solvers`); `book --strict` takes warnings as errors, as CI does.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BUILD = ROOT / "_build"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")


def digest(files, *words):
    """SHA-256 over names and contents of `files` and over `words`."""
    total = hashlib.sha256(repr(words).encode())
    for file in sorted(files):
        total.update(file.relative_to(ROOT).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def same_as_recorded(record, value):
    return record.is_file() and record.read_text() == value


def setup():
    """Make `.venv` and install into it, unless it already holds what the project asks for."""
    place = digest([], str(ROOT), sys.version_info[:2])
    wanted = digest([ROOT / "pyproject.toml", ROOT / "requirements.txt"])
    made_for, installed = VENV / "made-for", VENV / "installed"
    if not (PYTHON.is_file() and same_as_recorded(made_for, place)):
        print("Setting up .venv: a few minutes and several GB, once.", flush=True)
        if subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)]).returncode != 0:
            sys.exit("Python could not make a virtual environment. On Debian and Ubuntu: sudo apt install python3-venv")
        made_for.write_text(place)
    if not same_as_recorded(installed, wanted):
        pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "-r", "requirements.txt"]
        subprocess.run(pip, cwd=ROOT, check=True)
        installed.write_text(wanted)


def environment(**extra):
    """The environment for what runs inside `.venv`; nothing there phones home."""
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(BIN), os.environ.get("PATH", "")]),
        "VIRTUAL_ENV": str(VENV),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
        **extra,
    }


def forget_outdated_outputs():
    """Clear the stored outputs of the chapters when something that they import or read has changed.

    Jupyter Book re-executes a chapter when its own cells change, and knows nothing of the package underneath.
    """
    package = [f for f in (ROOT / "fm_core").rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    results = [f for f in (ROOT / "book" / "results").rglob("*") if f.is_file()]
    settings = [os.environ.get("FM_SCALE", ""), os.environ.get("FM_DATA", "")]
    now = digest([*package, *results, ROOT / "pyproject.toml"], *settings)
    cache = BUILD / ".jupyter_cache"
    record = BUILD / "executed-with"
    if not same_as_recorded(record, now):
        shutil.rmtree(cache, ignore_errors=True)
        BUILD.mkdir(exist_ok=True)
        record.write_text(now)


def book(words):
    """Build the book; every page anew, every chapter's outputs from the store where they still hold."""
    strict = ["-W", "-n", "--keep-going"] if "--strict" in words else []
    rest = [word for word in words if word != "--strict"]
    setup()
    forget_outdated_outputs()
    started = time.monotonic()
    command = [str(BIN / "jupyter-book"), "build", ".", "--all", *strict, *rest]
    code = subprocess.run(command, cwd=ROOT, env=environment()).returncode
    page = BUILD / "html" / "index.html"
    if code == 0:
        print(f"\nThe book stands in {page} (built in {time.monotonic() - started:.0f} s). Open it in a browser.")
        print("Its playground needs a server: python3 -m http.server --directory _build/html, then localhost:8000.")
    return code


def test(words):
    """Run the tests: the unit tests, the chapters in their smallest size, and the pages where the book is built."""
    setup()
    what = words or ["tests/unit", "tests/book", "book"]
    command = [str(PYTHON), "-m", "pytest", "--nbmake", *what]
    return subprocess.run(command, cwd=ROOT, env=environment(FM_SCALE="smoke")).returncode


def clean(_words):
    shutil.rmtree(BUILD, ignore_errors=True)
    return 0


def main(words):
    if sys.version_info < (3, 11):  # noqa: UP036  an older Python gets as far as this line
        sys.exit("This needs Python 3.11 or newer; this is " + sys.version.split()[0] + ".")
    commands = {"book": book, "test": test, "setup": lambda _words: setup() or 0, "clean": clean}
    if not words or words[0] not in commands:
        print(__doc__.strip())
        return 0 if words and words[0] in ("-h", "--help") else 2
    return commands[words[0]](words[1:])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode or 1)
