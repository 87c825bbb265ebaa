"""Put the networks and the runtime that computes them into the built book, and the playground into its pages.

The page needs three files besides its own scripts: ONNX Runtime Web, from the npm registry as in `local_assets`, and
the two published networks, exported from the package's weights. The export takes some seconds and is kept in `_build`
until the weights, or the code that exports them, change. Nothing of it is committed. Without npm the runtime's
addresses are pinned ones of the content network; without the exporter's packages the playground says that this build
carries no networks. The build says either in one line.

A page asks for a playground by the directive `playground` and the name of a part, a file in `templates/`.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import local_assets

__all__ = ["RUNTIME", "Playground", "exported", "integrity", "manifest", "setup"]

NETWORKS = {"residual": "Residual U-Net", "base": "Base U-Net"}
PATIENCE = 600  # seconds for the export, on a busy machine
TEMPLATES = Path(__file__).parent / "templates"
WASM = "dist/ort-wasm-simd-threaded.wasm"
WASM_BYTES = 14_239_897
WASM_SHA384 = "vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM"
RUNTIME = local_assets.Package(
    name="onnxruntime-web",
    version="1.30.0",
    sha512="q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    folder="onnxruntime-web",
    script="dist/ort.wasm.bundle.min.mjs",
    script_sha384="PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG",
    files=("package.json", "dist/ort.wasm.bundle.min.mjs", WASM),
)
SCRIPT_BYTES = 73_054

logger = logging.getLogger(__name__)


def integrity(content: bytes) -> str:
    """What a browser compares a file with before it hands it to a script."""
    return "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()


@dataclass(frozen=True)
class Asset:
    """A file that the playground fetches."""

    url: str  # relative to the list of files, or a whole address
    size: int  # bytes to be fetched
    integrity: str

    @classmethod
    def of(cls, file: Path, folder: Path) -> Asset:
        content = file.read_bytes()
        return cls(file.relative_to(folder).as_posix(), len(content), integrity(content))

    def entry(self) -> dict[str, Any]:
        return {"url": self.url, "bytes": self.size, "integrity": self.integrity}


def exported(store: Path) -> dict[str, Path]:
    """The published networks as ONNX files below `store`, exported anew where weights or exporter have changed.

    The export runs in a process of its own, so that PyTorch and its threads stay out of the one that builds the book.

    Raises:
        local_assets.Unavailable: the export failed; the message ends with its last words.
    """
    package = Path(importlib.util.find_spec("fm_core").origin).parent
    sources = sorted(
        [package / "experiments" / "export.py", package / "checkpoints.py", *(package / "models").glob("*.py")]
        + [package / "pretrained" / name / "model.safetensors" for name in NETWORKS]
    )
    digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in sources)).hexdigest()
    folder = store / f"networks-{digest[:16]}"
    files = {name: folder / f"{name}.onnx" for name in NETWORKS}
    if not all(file.is_file() for file in files.values()):
        logger.info("exporting the networks for the playground")
        for old in store.glob("networks-*"):
            shutil.rmtree(old)
        command = [sys.executable, "-m", "fm_book.experiments", "export", "--no-record", "--out", str(folder)]
        # the package may be importable from where the book is built, and not from anywhere
        path = os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])
        try:
            subprocess.run(
                [*command, "--models", *NETWORKS],
                env={**os.environ, "PYTHONPATH": path},
                check=True,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired as error:
            raise local_assets.Unavailable(f"their export took more than {PATIENCE} s") from error
        except subprocess.CalledProcessError as error:
            last = error.stderr.strip().splitlines()[-1:] or ["no word"]
            raise local_assets.Unavailable(f"their export failed with {last[0]}") from error
    return files


def place_runtime(store: Path, folder: Path) -> dict[str, Asset]:
    """Put the runtime below `folder`, its large part packed; without npm, point to the content network."""
    try:
        archive = local_assets.fetch(RUNTIME, store, local_assets.npm_command())
    except local_assets.Unavailable as reason:
        logger.info(f"The playground loads its runtime from {local_assets.NETWORK}: {reason}.")
        return {
            "script": Asset(RUNTIME.network_url, SCRIPT_BYTES, f"sha384-{RUNTIME.script_sha384}"),
            "wasm": Asset(f"{RUNTIME.network_folder}/{WASM}", WASM_BYTES, f"sha384-{WASM_SHA384}"),
        }
    local_assets.unpack(RUNTIME, archive, folder)
    wasm = folder / RUNTIME.folder / WASM
    packed = wasm.with_name(wasm.name + ".gz")  # a quarter of the bytes, whatever the server does
    packed.write_bytes(gzip.compress(wasm.read_bytes(), 9, mtime=0))
    wasm.unlink()
    return {"script": Asset.of(folder / RUNTIME.folder / RUNTIME.script, folder), "wasm": Asset.of(packed, folder)}


def manifest(runtime: dict[str, Asset], networks: dict[str, Asset]) -> dict[str, Any]:
    """The list of files that the page reads first."""
    return {
        "runtime": f"{RUNTIME.name} {RUNTIME.version}",
        **{part: asset.entry() for part, asset in runtime.items()},
        "networks": {name: {"label": NETWORKS[name], **asset.entry()} for name, asset in networks.items()},
    }


def _place(app: Sphinx, config: Config) -> None:
    work = Path(app.outdir).parent / ".playground"
    static = work / "static"
    shutil.rmtree(static, ignore_errors=True)
    folder = static / "local"
    folder.mkdir(parents=True)
    config.html_static_path.append(str(static))
    try:
        files = exported(work)
    except local_assets.Unavailable as reason:
        logger.info(f"The playground has no networks in this build: {reason}.")
        return
    runtime = place_runtime(work, folder)
    networks = {}
    (folder / "networks").mkdir()
    for name, file in files.items():
        networks[name] = Asset.of(Path(shutil.copy(file, folder / "networks" / f"{name}.onnx")), folder)
    (folder / "playground.json").write_text(json.dumps(manifest(runtime, networks), indent=1), encoding="utf-8")


class Playground(SphinxDirective):
    """``{playground} PART``: a part of the playground, where it stands."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        parts = sorted(file.stem for file in TEMPLATES.glob("*.html"))
        part = self.arguments[0]
        if part not in parts:
            raise self.error(f"playground {part!r} is unknown; its parts are {', '.join(parts)}.")
        static = "../" * self.env.docname.count("/") + "_static"
        html = (TEMPLATES / f"{part}.html").read_text(encoding="utf-8").replace("{static}", static)
        self.env.note_dependency(str(TEMPLATES / f"{part}.html"))
        return [nodes.raw("", html, format="html", playground=part)]


def _add_scripts(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """The playground's script and style, on pages that hold one."""
    if doctree is not None and any("playground" in node for node in doctree.findall(nodes.raw)):
        app.add_js_file("playground/start.js", loading_method="defer")
        app.add_css_file("playground/playground.css")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("playground", Playground)
    app.connect("config-inited", _place)
    app.connect("html-page-context", _add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
