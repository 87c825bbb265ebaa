"""run.py, the address of the repository, and what GitHub and Binder run; nothing here builds the book."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import notebooks
import pytest
import theme_settings

ROOT = notebooks.ROOT
ACTIONS = {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "Fork/copy", "GITHUB_SERVER_URL": "https://github.com"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with run.py alone."""
    shutil.copy(ROOT / "run.py", tmp_path)
    return tmp_path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, folder / "run.py", *words], capture_output=True, text=True)


@pytest.mark.parametrize(("words", "code"), [([], 2), (["nonsense"], 2), (["--help"], 0)])
def test_unknown_commands_get_the_list_of_commands(words: list[str], code: int) -> None:
    answer = run(ROOT, *words)
    assert answer.returncode == code
    assert "python3 run.py book" in answer.stdout


def test_without_a_book_serve_names_the_command_that_builds_it(checkout: Path) -> None:
    answer = run(checkout, "serve")
    assert answer.returncode == 2
    assert "python3 run.py book" in answer.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_serve_sends_modules_with_their_type_and_stops_quietly(checkout: Path) -> None:
    html = checkout / "_build" / "html"
    html.mkdir(parents=True)
    for name in ("index.html", "ui.js", "ort.mjs", "ort.wasm"):
        (html / name).write_text("content")
    environment = {**os.environ, "BROWSER": "true"}  # the command `true` in place of a browser
    command = [sys.executable, checkout / "run.py", "serve"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    # a process in the background would ignore Ctrl-C, and its children with it
    with subprocess.Popen(command, **pipes, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as serve:
        address = next(word for word in serve.stdout.readline().split() if word.startswith("http://"))
        types = {
            "": "text/html",
            "ui.js": "text/javascript",
            "ort.mjs": "text/javascript",
            "ort.wasm": "application/wasm",
        }
        for name, kind in types.items():
            with urlopen(address + name, timeout=20) as answer:
                assert answer.headers["Content-Type"].startswith(kind)
                assert answer.headers["Cache-Control"] == "no-cache"
        serve.send_signal(signal.SIGINT)
        assert (serve.wait(timeout=20), serve.stderr.read()) == (0, "")


def test_setup_installs_again_after_a_failure_and_when_requirements_change_only(checkout: Path) -> None:
    (checkout / "pyproject.toml").write_text("")
    (checkout / "requirements.txt").write_text("no-such-package-1 @ file:///nowhere\n")
    assert run(checkout, "setup").returncode != 0
    (checkout / "requirements.txt").write_text("")
    answers = [run(checkout, "setup") for _ in range(2)]
    assert [answer.returncode for answer in answers] == [0, 0]
    assert ["Setting up" in answer.stdout for answer in answers] == [True, False]


def test_two_set_ups_at_once_wait_for_each_other(checkout: Path) -> None:
    for name in ("requirements.txt", "pyproject.toml"):
        (checkout / name).write_text("")
    command, pipes = [sys.executable, checkout / "run.py", "setup"], {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first, subprocess.Popen(command, **pipes) as second:
        answers = [one.communicate(timeout=120)[0] for one in (first, second)]
    assert [one.returncode for one in (first, second)] == [0, 0]
    assert sum("Setting up .venv" in answer for answer in answers) == 1


def test_jupyter_book_2_is_refused_by_name(checkout: Path) -> None:
    for name in ("requirements.txt", "pyproject.toml"):
        (checkout / name).write_text("")
    assert run(checkout, "setup").returncode == 0
    packages = next((checkout / ".venv").glob("**/site-packages"))
    (packages / "jupyter_book-2.0.1.dist-info").mkdir()
    answer = run(checkout, "book")
    assert answer.returncode == 2
    assert "expected Jupyter Book 1" in answer.stderr and "2.0.1" in answer.stderr


def project(folder: Path, urls: str) -> Path:
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(f"[project]\n{urls}")
    return pyproject


@pytest.mark.parametrize("ending", ["", "/", ".git", ".git/"])
def test_the_buttons_get_the_address_in_the_form_that_they_need(tmp_path: Path, ending: str) -> None:
    options = theme_settings.theme_options(
        project(tmp_path, f'[project.urls]\nRepository = "https://github.com/a/b{ending}"\n'), {}
    )
    assert options["repository_url"] == "https://github.com/a/b"
    assert options["use_edit_page_button"] and options["launch_buttons"]["colab_url"]


def test_the_book_of_a_fork_points_at_the_fork(tmp_path: Path) -> None:
    pyproject = project(tmp_path, '[project.urls]\nRepository = "https://github.com/a/b"\n')
    assert theme_settings.theme_options(pyproject, ACTIONS)["repository_url"] == "https://github.com/Fork/copy"
    assert theme_settings.repository(pyproject, {"GITHUB_REPOSITORY": "Fork/copy"}) == "https://github.com/a/b"


def test_buttons_that_would_lead_nowhere_are_left_out(tmp_path: Path) -> None:
    options = theme_settings.theme_options(project(tmp_path, ""), {})
    assert "repository_url" not in options and options["launch_buttons"] == {}
    assert not any(value for name, value in options.items() if name.startswith("use_"))
    elsewhere = theme_settings.theme_options(project(tmp_path, 'urls.Repository = "https://gitlab.com/a/b"\n'), {})
    assert elsewhere["use_edit_page_button"] and elsewhere["launch_buttons"] == {}


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, ""),
        (ACTIONS, "https://fork.github.io/copy/"),
        ({**ACTIONS, "GITHUB_REPOSITORY": "Fork/fork.github.io"}, "https://fork.github.io/"),
        ({**ACTIONS, "GITHUB_SERVER_URL": "https://github.example.org"}, ""),
        ({**ACTIONS, "FM_SITE": "https://book.example.org"}, "https://book.example.org/"),
    ],
)
def test_the_address_of_the_pages_is_github_s_or_given(environ: dict[str, str], address: str) -> None:
    assert theme_settings.site(environ) == address


def test_one_command_carries_the_address_of_a_fork_everywhere(tmp_path: Path) -> None:
    old = notebooks.repository().removeprefix("https://github.com/")
    for name in ("pyproject.toml", "README.md", "CITATION.cff", "book/07_training.ipynb"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text((ROOT / name).read_text(encoding="utf-8").replace(old, "a/b" if name[0] == "p" else old))
    changed = notebooks.changes(tmp_path)
    assert sorted(path.name for path in changed) == ["07_training.ipynb", "CITATION.cff", "README.md"]
    assert all(old not in text and "a/b" in text for text in changed.values())
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(ValueError, match=r"expected an address to install the package from, got none"):
        notebooks.repository(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="actionlint is installed on Linux only")
def test_actionlint_finds_nothing_in_the_workflows_and_sees_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(
        "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo ${{ nothing.at.all }}\n"
    )
    program = shutil.which("actionlint") or Path(sys.executable).with_name("actionlint")
    check = [program, "-no-color"]
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    done = subprocess.run([*check, *workflows], capture_output=True, text=True, cwd=ROOT)
    assert workflows and (done.returncode, done.stdout + done.stderr) == (0, "")
    assert 'undefined variable "nothing"' in subprocess.run([*check, wrong], capture_output=True, text=True).stdout


@pytest.mark.skipif(os.name == "nt", reason="Binder runs Linux")
def test_binder_runs_chapters_in_the_smallest_size() -> None:
    command = [ROOT / ".binder" / "start", "sh", "-c", 'echo "$FM_SCALE"']
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "smoke"
