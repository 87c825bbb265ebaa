"""What the build gives the playground: the networks, the runtime, the list of both, and the parts in the pages."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import local_assets
import playground
import pytest
from docutils import nodes

import fm_core
import fm_book.experiments.export

SCRIPT, WASM = b"export {};", b"\0asm" + bytes(10_000)


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands by which networks were exported; exporting itself takes no time here."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> None:
        calls.append(command)
        folder = Path(command[command.index("--out") + 1])
        folder.mkdir(parents=True)
        for name in command[command.index("--models") + 1 :]:
            (folder / f"{name}.onnx").write_bytes(name.encode())

    monkeypatch.setattr(playground.subprocess, "run", run)
    return calls


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that holds a small package in the runtime's place."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in {playground.RUNTIME.script: SCRIPT, playground.WASM: WASM, "dist/other.js": b""}.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    toy = replace(playground.RUNTIME, sha512=local_assets.base64_sha512(buffer.getvalue()))
    store = tmp_path / "store"
    store.mkdir()
    (store / toy.archive).write_bytes(buffer.getvalue())
    monkeypatch.setattr(playground, "RUNTIME", toy)
    return store


def test_networks_are_exported_once_and_again_when_the_code_changes(
    exports: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "fm_core"
    shutil.copytree(Path(fm_core.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    found = SimpleNamespace(origin=str(package / "__init__.py"))
    monkeypatch.setattr(playground.importlib.util, "find_spec", lambda name: found)
    first = playground.exported(tmp_path / "store")
    assert first == playground.exported(tmp_path / "store")
    assert len(exports) == 1
    assert first["base"].read_bytes() == b"base"
    with (package / "models" / "unet.py").open("a") as file:
        file.write("# changed")
    second = playground.exported(tmp_path / "store")
    assert len(exports) == 2
    assert not first["base"].exists()
    assert second["residual"].is_file()


def test_the_export_command_is_the_documented_one(exports: list[list[str]], tmp_path: Path) -> None:
    playground.exported(tmp_path)
    (command,) = exports
    assert command[1:6] == ["-m", "fm_book.experiments", "export", "--no-record", "--out"]


def test_the_last_words_of_a_failed_export_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [sys.executable, "-c", "raise SystemExit('ModuleNotFoundError: No module named onnx')"]
    real = subprocess.run
    monkeypatch.setattr(playground.subprocess, "run", lambda command, **options: real(failing, **options))
    with pytest.raises(local_assets.Unavailable, match="export failed with ModuleNotFoundError: No module named onnx"):
        playground.exported(tmp_path)


def test_the_runtime_is_packed_and_listed_with_its_hash(runtime: Path, tmp_path: Path) -> None:
    files = playground.place_runtime(runtime, tmp_path / "local")
    wasm = tmp_path / "local" / files["wasm"].url
    assert wasm.suffix == ".gz"
    assert gzip.decompress(wasm.read_bytes()) == WASM
    assert files["wasm"].size == wasm.stat().st_size < len(WASM)
    assert files["wasm"].integrity == playground.integrity(wasm.read_bytes())
    assert (tmp_path / "local" / files["script"].url).read_bytes() == SCRIPT
    assert not list((tmp_path / "local").rglob("other.js"))


def test_the_packed_runtime_is_the_same_in_every_build(runtime: Path, tmp_path: Path) -> None:
    one, two = (playground.place_runtime(runtime, tmp_path / name) for name in ("one", "two"))
    assert one == two


def test_without_npm_the_runtime_comes_from_a_pinned_address_and_the_build_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(local_assets, "npm_command", lambda: None)
    monkeypatch.setattr(playground.logger, "info", said.append)
    files = playground.place_runtime(tmp_path, tmp_path / "local")
    assert len(said) == 1
    assert "npm is not installed" in said[0]
    for asset in files.values():
        assert asset.url.startswith("https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/")
        assert asset.integrity.startswith("sha384-")
    assert files["wasm"].size > 10_000_000


def test_without_the_exporter_the_build_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def lacking(store: Path) -> None:
        raise local_assets.Unavailable("their export failed with No module named 'onnx'")

    monkeypatch.setattr(playground, "exported", lacking)
    monkeypatch.setattr(playground.logger, "info", said.append)
    playground._place(SimpleNamespace(outdir=tmp_path / "html"), SimpleNamespace(html_static_path=[]))
    assert said == ["The playground has no networks in this build: their export failed with No module named 'onnx'."]


def test_the_list_names_every_file_with_size_and_hash(
    exports: list[list[str]], runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / ".playground"
    work.mkdir()
    for file in runtime.iterdir():
        file.rename(work / file.name)
    config = SimpleNamespace(html_static_path=[])
    playground._place(SimpleNamespace(outdir=tmp_path / "html"), config)
    folder = Path(config.html_static_path[0]) / "local"
    files = json.loads((folder / "playground.json").read_text())
    assert list(files["networks"]) == ["residual", "base"]
    for entry in (files["script"], files["wasm"], *files["networks"].values()):
        content = (folder / entry["url"]).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["integrity"] == playground.integrity(content)


def directive(part: str, page: str) -> playground.Playground:
    made = object.__new__(playground.Playground)
    made.arguments = [part]
    env = SimpleNamespace(docname=page, note_dependency=lambda file: None)
    made.state = SimpleNamespace(document=SimpleNamespace(settings=SimpleNamespace(env=env)))
    made.state_machine, made.lineno = None, 1
    return made


@pytest.mark.parametrize(("page", "static"), [("index", "_static"), ("book/playground", "../_static")])
def test_a_part_finds_the_film_from_any_page(page: str, static: str) -> None:
    (node,) = directive("digits", page).run()
    assert f'data-film="{static}/hero.gif"' in node.astext()


def test_a_page_with_a_part_gets_the_scripts_and_no_other_does() -> None:
    added: list[str] = []
    app = SimpleNamespace(
        add_js_file=lambda name, **_: added.append(name), add_css_file=lambda name, **_: added.append(name)
    )
    document = nodes.document("", "")
    document += nodes.raw("", "<p></p>", format="html")
    playground._add_scripts(app, "a", "page.html", {}, document)
    playground._add_scripts(app, "search", "search.html", {}, None)
    assert added == []
    document += directive("first", "a").run()
    playground._add_scripts(app, "a", "page.html", {}, document)
    assert added == ["playground/start.js", "playground/playground.css"]
