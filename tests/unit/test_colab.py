"""What Colab needs: its own torch stays, the sliders work with its ipywidgets 7, a GPU is used, MLflow's pages open.

No test can reach Colab from here. `tests/colab-constraints.txt` says what it has installed, and stands in for it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import notebooks
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = notebooks.ROOT
PYPROJECT = ROOT / "pyproject.toml"
PROJECT = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def needs(requirements: list[str]) -> list[Requirement]:
    """Requirements, with the package's own extras replaced by what they hold."""
    found = []
    for need in map(Requirement, requirements):
        own = need.name == PROJECT["name"]
        found += [one for extra in need.extras for one in needs(EXTRAS[extra])] if own else [need]
    return found


NEEDS = needs([*PROJECT["dependencies"], *EXTRAS["notebooks"]])
LISTED = ROOT / "tests" / "colab-constraints.txt"
PREINSTALLED = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", LISTED.read_text(encoding="utf-8"), flags=re.MULTILINE)
}
FEW = 20  # packages that an install on Colab may add
# `06_unets` takes networks apart, one image at a time; `03_objective` trains a network of three layers in the plane.
ON_THE_PROCESSOR = {"03_objective", "06_unets", "09_metrics"}
LIGHT = 40e6  # bytes that it may fetch; at 1 MB/s that is well under a minute
SILENT = re.compile("error sending request|dns error|timed out|Failed to fetch|Connect|tunnel", re.IGNORECASE)


def uv(*words: str | Path) -> str:
    """Run uv, which resolves from the packages' descriptions alone and for a Python that is not installed."""
    binary = Path(pytest.importorskip("uv", reason="uv is not installed").find_uv_bin())
    answer = subprocess.run([binary, *words], capture_output=True, text=True, timeout=300)
    if answer.returncode != 0 and SILENT.search(answer.stderr) and "No solution" not in answer.stderr:
        pytest.skip(f"the package registry does not answer: {answer.stderr.strip().splitlines()[-1]}")
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_what_colab_has_is_within_the_bounds() -> None:
    for need in NEEDS:
        version = PREINSTALLED.get(canonicalize_name(need.name))
        assert version is None or need.specifier.contains(version), f"Colab's {need.name} {version} is not {need}"


@pytest.mark.registry
def test_torch_and_all_else_that_colab_has_stay_as_they_are(tmp_path: Path) -> None:
    lock = tmp_path / "pylock.toml"
    target = ["--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_28", "--format", "pylock.toml"]
    uv(
        "pip",
        "compile",
        "--quiet",
        *target,
        PYPROJECT,
        "--extra",
        "notebooks",
        "--constraint",
        LISTED,
        "--output-file",
        lock,
    )
    chosen = {canonicalize_name(one["name"]): one for one in tomllib.loads(lock.read_text())["packages"]}
    for name in ("torch", "torchvision", "numpy", "matplotlib", "pillow", "ipywidgets"):
        assert chosen[name]["version"] == PREINSTALLED[name]
    with_torch = re.compile("(nvidia|cuda)-")  # what torch brings along, and Colab's torch has brought already
    added = {name: one for name, one in chosen.items() if name not in PREINSTALLED and not with_torch.match(name)}
    sizes = {name: max(wheel.get("size", 0) for wheel in one["wheels"]) for name, one in added.items()}
    print(f"new on Colab: {sum(sizes.values()) / 1e6:.0f} MB in {', '.join(sorted(sizes))}")
    assert {"mlflow", "torchdiffeq", "tyro"} <= set(added)
    assert len(added) <= FEW
    assert sum(sizes.values()) <= LIGHT


SHOW = """
import ipywidgets, numpy
from IPython.utils.capture import capture_output
from fm_core.sliders import time_slider
assert ipywidgets.__version__ == "7.7.1", ipywidgets.__version__
film = numpy.zeros((3, 8, 8), dtype="uint8")
slider = time_slider(film, [0, 0.5, 1], alt="A square stays black.")
slider.slider.index = 2
assert slider.picture.value == slider.pictures[2]
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance()
with capture_output() as shown:
    slider._ipython_display_()
kinds = [kind for output in shown.outputs for kind in output.data]
assert "application/vnd.jupyter.widget-view+json" in kinds and "text/html" in kinds, kinds
"""


@pytest.mark.registry
def test_sliders_work_with_the_ipywidgets_of_colab(tmp_path: Path) -> None:
    """In an environment of their own: the same packages, with ipywidgets 7.7.1 in front of them."""
    uv("pip", "install", "--quiet", "--no-deps", "--target", tmp_path, "ipywidgets==7.7.1", "ipython_genutils==0.2.0")
    folders = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
    quiet = ["-W", "ignore::DeprecationWarning"]  # ipywidgets 7 opens its channels in an old way
    tests = ["-q", "-p", "no:cacheprovider", *quiet, str(ROOT / "tests" / "unit" / "test_time_sliders.py")]
    for code in (SHOW, f"import pytest; sys.exit(pytest.main({tests!r}))"):
        done = subprocess.run([sys.executable, "-c", folders + code], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr


def sources(name: str) -> list[str]:
    return [cell.source for cell in nbformat.read(ROOT / "book" / name, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", sorted((ROOT / "book").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_gpu_is_used_when_there_is_one(path: Path) -> None:
    code = "\n".join(sources(path.name))
    works_a_network = re.search(r"\b(load_pretrained|TrainConfig)\(", code)
    chooses = re.search(r"resolve_device\(\)|cuda\.is_available\(\)", code)
    assert chooses or not works_a_network or path.stem in ON_THE_PROCESSOR, "no GPU is looked for"


def mlflow_cell() -> str:
    [found] = [source for source in sources("d_training_tool.ipynb") if "serve_kernel_port_as_iframe" in source]
    return found


def colab(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict[str, object]]]:
    """Let `google.colab` be there; returns what it is asked to show in a frame."""
    shown: list[tuple[int, dict[str, object]]] = []

    def serve(port: int, path: str = "/", width: str = "100%", height: str = "400", cache_in_notebook: bool = False):
        shown.append((port, {"path": path, "height": height}))

    output = SimpleNamespace(serve_kernel_port_as_iframe=serve)
    for name, content in {"google": {}, "google.colab": {"output": output}}.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return shown


def test_mlflow_opens_in_the_notebook_on_colab(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = colab(monkeypatch)
    started: list[list[str]] = []
    asked: list[str] = []

    def answer(address: str) -> None:
        asked.append(address)
        if len(asked) < 3:
            raise OSError("not yet")

    monkeypatch.setattr(subprocess, "Popen", started.append)
    monkeypatch.setattr("urllib.request.urlopen", answer)
    monkeypatch.setenv("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "")
    exec(mlflow_cell(), {"store": "sqlite:///a.db", "time": SimpleNamespace(sleep=lambda _: None)})
    [command] = started
    assert command[:3] == [sys.executable, "-m", "mlflow"]
    assert command[command.index("--backend-store-uri") + 1] == "sqlite:///a.db"
    assert len(asked) == 3, "the frame waits until the server answers"
    assert [port for port, _ in shown] == [5000]


def test_elsewhere_the_command_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a server was started"))
    exec(mlflow_cell(), {"store": "sqlite:///a.db"})
    assert capsys.readouterr().out.strip() == "mlflow ui --backend-store-uri sqlite:///a.db"
