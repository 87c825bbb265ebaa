"""The record of the published networks."""

from __future__ import annotations

import json

from fm_book import records
from fm_book.experiments import publish
from fm_book.experiments.publish import TrainPublished


def test_the_record_keeps_the_networks_that_a_run_did_not_train(tmp_path, monkeypatch):
    for module in (records, publish):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    experiment = TrainPublished(device="cpu")
    for networks in ({"base": {"steps": 1}, "residual": {"steps": 2}}, {"residual": {"steps": 3}}):
        path = experiment.record({"networks": networks})
    assert json.loads(path.read_text(encoding="utf-8"))["networks"] == {"base": {"steps": 1}, "residual": {"steps": 3}}
