"""Commands of this book. Each first makes the virtual environment `.venv` and installs into it what is missing.

    python3 run.py book       build the book, chapters executed: _build/html/index.html
    python3 run.py serve      serve the built book on this machine and open it in the browser
    python3 run.py test       run all tests, and all chapters in their smallest size
    python3 run.py setup      only make `.venv`
    python3 run.py clean      remove the built book and the stored outputs of its chapters

Needs Python 3.11 or newer. Further words go to Jupyter Book or to pytest, as in `test tests/unit -k solvers`;
`book --strict` takes warnings as errors.
"""

import os
import shutil
import subprocess
import sys
import webbrowser
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV, HTML = ROOT / ".venv", ROOT / "_build" / "html"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


def run(program, *words, **environment):
    """Exit code of a program of the virtual environment."""
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    environment |= {"PATH": path, "VIRTUAL_ENV": str(VENV), "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONUNBUFFERED": "1"}
    return subprocess.run([str(BIN / program), *words], cwd=ROOT, env=os.environ | environment).returncode


@contextmanager
def alone():
    """Wait while another command of this folder installs; a process that ends gives its lock back, however it ends."""
    with (ROOT / ".setup-lock").open("w") as file:
        if os.name == "nt":
            import msvcrt

            while True:
                with suppress(OSError):  # tried for ten seconds
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def setup():
    """Make `.venv` and install, unless the last installation was for the same requirements in the same folder."""
    with alone():
        return _install()


def _install():
    requirements = [(ROOT / name).read_text("utf-8") for name in ("requirements.txt", "pyproject.toml")]
    wanted, done = "\n".join([str(ROOT), *requirements]), VENV / "installed"
    python = shutil.which("python", path=str(BIN))
    if python and done.is_file() and done.read_text("utf-8") == wanted:
        return 0
    print("Setting up .venv: a few minutes and several GB the first time.", flush=True)
    if not python and subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)]).returncode:
        sys.exit("Python could not make a virtual environment. On Debian and Ubuntu: sudo apt install python3-venv")
    code = run("python", "-m", "pip", "--disable-pip-version-check", "install", "-r", "requirements.txt")
    if code == 0:
        done.write_text(wanted, "utf-8")
    return code


def book(*words):
    options = [word for word in words if word != "--strict"]
    options += ["-W", "-n", "--keep-going"] if "--strict" in words else []
    if code := setup():
        return code
    for packages in ("lib/*/site-packages", "Lib/site-packages"):
        for found in VENV.glob(f"{packages}/jupyter_book-[!1]*.dist-info"):
            print(f"{VENV}: expected Jupyter Book 1, got {found.stem}: from version 2 on, sliders need a kernel.\n"
                  "Delete this folder; the next command installs what the book needs.", file=sys.stderr)  # fmt: skip
            return 2
    code = run("jupyter-book", "build", ".", "--all", *options)
    if code == 0:
        print(f"\nBuilt {HTML / 'index.html'}. The playground needs a server: python3 run.py serve")
    return code


def test(*words):
    """Two processes of one thread each, the longest tests first."""
    command = ["-m", "pytest", "--nbmake", "-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder"]
    words = words or ("book", "tests/book", "tests/unit")
    return setup() or run("python", *command, *words, FM_SCALE="smoke", OMP_NUM_THREADS="1")


class Handler(SimpleHTTPRequestHandler):
    """Files revalidated at each request, and scripts typed as browsers ask of modules, on every system."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    def end_headers(self):
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_):
        pass


def serve():
    if not (HTML / "index.html").is_file():
        print(f"Expected the built book in {HTML}, found none. Build it: python3 run.py book", file=sys.stderr)
        return 2
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=HTML)) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        print(f"The book is at {address} until you press Ctrl-C.", flush=True)
        try:
            webbrowser.open(address)
            server.serve_forever()
        except KeyboardInterrupt:
            return 0


def clean():
    shutil.rmtree(HTML.parent, ignore_errors=True)


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036  an older Python gets as far as this line
        sys.exit("Expected Python 3.11 or newer, got " + sys.version.split()[0] + ".")
    commands = {function.__name__: function for function in (book, serve, test, setup, clean)}
    command, *words = sys.argv[1:] or [""]
    if command in commands:
        sys.exit(commands[command](*words))
    print(__doc__.strip())
    sys.exit(0 if command in ("-h", "--help") else 2)
