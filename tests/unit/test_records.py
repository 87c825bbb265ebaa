"""Numbers that cannot rot: pages quote what the records hold, and the records are what the code would make."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from quoted_numbers import Quotation, quoted_numbers, value_at

import fm_core
from fm_book import records
from fm_book.experiments.__main__ import EXPERIMENTS
from fm_book.records import RESULTS, load_record, write_record

ROOT = Path(fm_core.__file__).resolve().parents[1]
RECORDS = sorted(path.stem for path in RESULTS.glob("*.json"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "book").glob("*.md"), *(ROOT / "book").glob("*.ipynb")])
CURE = "Run `python -m fm_book.experiments {}` again, or take the change of the defaults back."


def prose(path: Path) -> str:
    """The Markdown of a page; of a notebook, that of its text cells."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def recorded_config(name: str, record: dict) -> dict:
    """The configuration that a record was made with; the record of the published networks holds it with each."""
    if name == "train-published" and "config" not in record:
        return {network: facts["recipe"] for network, facts in record["networks"].items()}
    return record["config"]


def differences(wanted: dict, found: dict, where: str = "") -> list[str]:
    """Entries of ``wanted`` that ``found`` does not hold; older records hold more, such as logging intervals."""
    wrong = []
    for key, value in wanted.items():
        if isinstance(value, dict) and isinstance(found.get(key), dict):
            wrong += differences(value, found[key], f"{where}{key}/")
        elif key not in found or found[key] != value:
            wrong.append(f"{where}{key}: {found.get(key)!r} in the record, {value!r} in the code")
    return wrong


# The pages and records of this checkout


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_number_that_names_its_record_is_what_the_record_holds(path):
    wrong = [
        f"{q.text} for {q.record}: {q.path}, which holds {value_at(load_record(q.record), q.path)} × {q.factor:g}"
        for q in quoted_numbers(prose(path))
        if not q.holds(load_record(q.record))
    ]
    assert not wrong


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_has_an_experiment_and_says_what_it_was_made_with(name):
    assert name in {*EXPERIMENTS, "benchmark"}  # pytest tests/benchmarks --record
    record = load_record(name)
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", record["git_commit"])
    assert record["date"] >= "2026"
    made_with = record if "versions" in record else record["machine"]
    assert {"python", "torch", "numpy"} <= made_with["versions"].keys()


@pytest.mark.parametrize("name", [name for name in RECORDS if hasattr(EXPERIMENTS.get(name), "settings")])
def test_every_record_was_made_with_the_codes_defaults(name):
    defaults = json.loads(json.dumps(EXPERIMENTS[name]().settings()))
    assert differences(defaults, recorded_config(name, load_record(name))) == [], CURE.format(name)


@pytest.mark.parametrize("name", [name for name in RECORDS if name in ("compare", "ablation")])
def test_every_interval_of_the_comparisons_names_its_seeds(name):
    record = load_record(name)
    seeds = len(record["config"]["seeds"])
    assert seeds >= 3
    networks = record["networks"] if name == "compare" else record["rungs"]
    for network, facts in networks.items():
        found = facts["validation_loss"]
        if network.startswith("published"):
            assert found["low"] is None
            continue
        assert len(found["values"]) == seeds
        assert found["low"] < found["mean"] < found["high"]
    assert all(commit and "dirty" not in commit for facts in networks.values() for commit in facts["commits"])


# How it works


RECORD = {"networks": {"base": {"loss": 0.184467, "seeds": [0, 1], "parameters": 482_017}}, "low": -3.25e-4}


def holds(text: str) -> list[bool]:
    return [q.holds(RECORD) for q in quoted_numbers(text)]


@pytest.mark.parametrize(
    "text",
    [
        "the loss is 0.184<!-- record: r/networks/base/loss -->",
        "the loss is **0.18**<!-- record: r/networks/base/loss -->",
        "with 482,017 parameters<!-- record: r/networks/base/parameters -->",
        "18.4 %<!-- record: r/networks/base/loss * 100 -->",
        "−0.00033<!-- record: r/low -->",
        "-3.25e-4<!-- record: r/low -->",
        "| 0.1845<!-- record: r/networks/base/loss --> | 1<!-- record: r/networks/base/seeds/1 --> |",
    ],
)
def test_a_number_holds_in_the_digits_that_it_shows(text):
    assert all(holds(text))
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "0.185<!-- record: r/networks/base/loss -->",
        "0.18<!-- record: r/networks/base/loss * 100 -->",
        "482,016<!-- record: r/networks/base/parameters -->",
        "0.00033<!-- record: r/low -->",
        "0.1844<!-- record: r/networks/base/loss -->",
    ],
)
def test_another_number_does_not(text):
    assert holds(text) == [False]


def test_a_marker_without_a_number_is_found():
    with pytest.raises(ValueError, match="1 markers but 0 numbers"):
        quoted_numbers("the loss is small<!-- record: r/networks/base/loss -->")
    assert quoted_numbers("a comment <!-- about nothing --> and 3 numbers") == []
    assert quoted_numbers("5 %<!-- record: r/a/b * 100 -->") == [Quotation("5", "r", "a/b", 100)]


def test_a_wrong_path_says_what_there_is():
    with pytest.raises(KeyError, match=r"'networks/bas/loss' stops at 'bas'; there is \['base'\]"):
        value_at(RECORD, "networks/bas/loss")
    with pytest.raises(KeyError, match="stops at '2'; there is 2 entries"):
        value_at(RECORD, "networks/base/seeds/2")


def test_a_record_comes_back_with_its_config_and_provenance(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    path = write_record("mine", {"values": [1 / 3, 2.0], "deep": {"n": 7}}, config={"seeds": [0]}, device="cpu")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["values"] == [0.333333, 2.0]
    assert "[ 0.333333, 2.0 ]" in path.read_text(encoding="utf-8")  # a list of numbers stays on its line
    assert record["config"] == {"seeds": [0]}
    assert {"experiment", "date", "git_commit", "device", "versions"} <= record.keys()


def test_a_record_that_is_not_there_says_how_to_make_it():
    with pytest.raises(FileNotFoundError, match=r"got 'nope'.*python -m fm_book.experiments nope"):
        load_record("nope")
