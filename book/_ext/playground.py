"""The playground: networks, the runtime that evaluates them, and their place in the pages.

The pages fetch ONNX Runtime Web, from the npm registry as in `offline`, and the two published networks, exported from
the package's weights. The export takes some seconds; it is kept in `_build` until fm_core or the exporter changes.
`local/playground.json` lists these files, and holds the Runge-Kutta tableaux and pacings of fm_core. Where the registry
does not answer or the export fails, the build warns and the pages say that this build has no networks.

A page gets a part of the playground by the directive `playground` and the name of a file in `templates/`.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import offline
from docutils import nodes
from outdated_outputs import digest
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

__all__ = ["NETWORKS", "RUNTIME", "Playground", "entry", "export", "setup", "solvers"]

NETWORKS = {"residual": "Residual U-Net", "base": "Base U-Net"}
SHARED = ("rungekutta.js", "arrow.js")  # modules of fm_book that the playground imports
CHEBYSHEV_POINTS = 65  # enough for double precision
EXPORT_TIMEOUT = 600  # seconds
TEMPLATES = Path(__file__).parent / "templates"
WASM = "dist/ort-wasm-simd-threaded.wasm"
RUNTIME = offline.Package(
    name="onnxruntime-web",
    version="1.30.0",
    sha512="q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    folder="onnxruntime-web",
    script="dist/ort.wasm.bundle.min.mjs",
    files=("package.json", "dist/ort.wasm.bundle.min.mjs", WASM),
)

logger = logging.getLogger(__name__)


def entry(file: Path, folder: Path) -> dict[str, Any]:
    """A file in `folder` as playground.json lists it, with the hash that the browser compares."""
    content = file.read_bytes()
    integrity = "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()
    return {"url": file.relative_to(folder).as_posix(), "bytes": len(content), "integrity": integrity}


def export(store: Path) -> list[Path]:
    """The published networks as ONNX files in `store`, exported unless those there are of the present code.

    Runs in a process of its own, which keeps PyTorch's exporter and its messages out of the build.

    Raises:
        offline.Unavailable: the export failed; the message ends with the last line of its output.
    """
    core, book = (Path(find_spec(name).origin).parent for name in ("fm_core", "fm_book"))
    folder = store / f"networks-{digest([core, book / 'experiments' / 'export.py'])[:16]}"
    files = [folder / f"{name}.onnx" for name in NETWORKS]
    if not all(file.is_file() for file in files):
        logger.info("exporting the networks for the playground")
        for old in store.glob("networks-*"):
            shutil.rmtree(old)
        command = [sys.executable, "-m", "fm_book.experiments", "export", "--no-record", "--out", str(folder)]
        try:
            subprocess.run(
                [*command, "--models", *NETWORKS], check=True, capture_output=True, text=True, timeout=EXPORT_TIMEOUT
            )
        except subprocess.TimeoutExpired as error:
            raise offline.Unavailable(f"the export took more than {EXPORT_TIMEOUT} s") from error
        except subprocess.CalledProcessError as error:
            last = error.stderr.strip().splitlines()[-1:] or [f"exit code {error.returncode}"]
            raise offline.Unavailable(f"the export failed with {last[0]}") from error
    return files


def solvers() -> dict[str, Any]:
    """fm_core's tableaux, and its pacings at the Chebyshev points between which rungekutta.js interpolates."""
    from fm_core import TABLEAUX
    from fm_core.pacing import PACINGS

    share = (1 - np.cos(np.linspace(0, np.pi, CHEBYSHEV_POINTS))) / 2
    return {
        "tableaux": {name: asdict(tableau) for name, tableau in TABLEAUX.items()},
        "pacings": {name: pacing(share).tolist() for name, pacing in PACINGS.items()},
    }


def _add_files(app: Sphinx, config: Config) -> None:
    store = Path(app.outdir).parent / ".playground"
    static = store / "static"
    folder, scripts = static / "local", static / "playground"
    shutil.rmtree(static, ignore_errors=True)
    (folder / "networks").mkdir(parents=True)
    scripts.mkdir()
    config.html_static_path.append(str(static))
    for name in SHARED:
        shutil.copy(Path(find_spec("fm_book").origin).with_name(name), scripts)
    try:
        networks = [Path(shutil.copy(file, folder / "networks")) for file in export(store)]
        offline.unpack(RUNTIME, offline.fetch(RUNTIME, store), folder)
    except offline.Unavailable as reason:
        logger.warning(f"The playground has no networks in this build: {reason}.")
        return
    wasm = folder / RUNTIME.folder / WASM
    packed = wasm.with_name(f"{wasm.name}.gz")  # a quarter of the bytes, whatever the server does
    packed.write_bytes(gzip.compress(wasm.read_bytes(), 9, mtime=0))
    wasm.unlink()
    manifest = {
        "runtime": f"{RUNTIME.name} {RUNTIME.version}",
        "script": entry(folder / RUNTIME.folder / RUNTIME.script, folder),
        "wasm": entry(packed, folder),
        "networks": {file.stem: {"label": NETWORKS[file.stem], **entry(file, folder)} for file in networks},
        **solvers(),
    }
    (folder / "playground.json").write_text(json.dumps(manifest), encoding="utf-8")


class Playground(SphinxDirective):
    """``{playground} PART``: a part of the playground."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        parts, part = sorted(file.stem for file in TEMPLATES.glob("*.html")), self.arguments[0]
        if part not in parts:
            raise self.error(f"playground: expected one of {', '.join(parts)}, got {part!r}.")
        file = TEMPLATES / f"{part}.html"
        static = "../" * self.env.docname.count("/") + "_static"
        self.env.note_dependency(str(file))
        html = file.read_text(encoding="utf-8").replace("{static}", static)
        return [nodes.raw("", html, format="html", playground=part)]


def _add_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The playground's script and style, on pages with a part of it."""
    if doctree is not None and any("playground" in node for node in doctree.findall(nodes.raw)):
        app.add_js_file("playground/start.js", loading_method="defer")
        app.add_css_file("playground/playground.css")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("playground", Playground)
    app.connect("config-inited", _add_files)
    app.connect("html-page-context", _add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
