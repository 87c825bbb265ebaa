"""What must not be lost: one process per folder, signals, trackers that fail, whole files; one line for a mistake."""

import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import mlflow
import pytest
import torch

from fm_book.experiments.__main__ import main as experiments_main
from fm_book.experiments.base import Run
from fm_book.experiments.evaluation import cached, elapsed
from fm_core import _files, resolve_device
from fm_core.__main__ import main, run_command
from fm_core._files import atomic_file, own_folder, read_json, remove_parts, to_json, write_atomically
from fm_core.checkpoints import CheckpointError, load_checkpoint, load_model, save_checkpoint, save_model
from fm_core.data import toy_2d
from fm_core.tracking import GuardedTracker, MLflowTracker, NullTracker
from fm_core.training import TrainConfig, train

pytestmark = pytest.mark.usefixtures("one_thread")
POINTS = toy_2d("two_moons", 64, generator=torch.Generator().manual_seed(0))
STEPS = 12


class Mlp(torch.nn.Module):
    """A velocity in the plane."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))

    def forward(self, x, t):
        return self.net(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], dim=1))


def run(out, *, seed=0, **options):
    config = TrainConfig(images=STEPS * 16, batch_size=16, seed=seed, precision="float32")
    often = {"eval_images": 16, "eval_every": 4, "checkpoint_every": 4, "log_every": 2}
    where = {"data": (POINTS[:48], POINTS[48:]), "out": out, "device": "cpu", "progress": False}
    return train(Mlp(), config, **{**where, **often, **options})


def step_of(out):
    return load_checkpoint(out / "checkpoint.safetensors")[1]["step"]


def at(step, action):
    return lambda now, _: action() if now == step else None


def names(folder):
    return {path.name for path in folder.iterdir()}


class Flaky(NullTracker):
    """Keeps what it is told, and fails while ``broken``."""

    def __init__(self):
        self.broken, self.calls, self.run_ids = False, [], []

    def tell(self, *call):
        if self.broken:
            raise ConnectionError("the server is gone")
        self.calls.append(call)

    def start(self, run_id):
        self.tell("start", run_id)
        return run_id or "new"

    def log_metrics(self, metrics, step):
        self.tell("metrics", step, set(metrics))

    def log_file(self, path, folder=None):
        self.tell("file", Path(path).name)

    def log_snapshot(self, trajectory, step):
        self.tell("snapshot", step)

    def close(self, status="FINISHED"):
        self.tell("close", status)


# Files


def test_a_file_that_could_not_be_written_leaves_the_old_one_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "a.txt", b"old")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.txt") as part:
        part.write_bytes(b"ne")
        assert part.suffix == ".txt"  # Pillow, matplotlib and ffmpeg choose the format by it
        raise RuntimeError
    assert names(tmp_path) == {"a.txt"}
    assert (tmp_path / "a.txt").read_bytes() == b"old"


def test_a_file_that_is_open_elsewhere_for_a_moment_is_replaced_later(tmp_path, monkeypatch):
    replace, refusals = Path.replace, [1, 1]

    def busy(self, target):
        if refusals:
            refusals.pop()
            raise PermissionError("open in another program")  # as on Windows
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr(_files.time, "sleep", lambda _: None)
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_old_parts_are_removed_young_ones_of_other_processes_stay(tmp_path):
    for name in (".0a.part.gif", ".0b.part", "kept.part"):
        (tmp_path / name).touch()
    os.utime(tmp_path / ".0a.part.gif", (0, 0))
    remove_parts(tmp_path)
    assert names(tmp_path) == {".0b.part", "kept.part"}


def test_json_holds_no_nan_and_damaged_json_is_none(tmp_path):
    assert json.loads(to_json({"a": [float("nan"), 1.0, (float("inf"),)]})) == {"a": [None, 1.0, [None]]}
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b"<html>"):
        (tmp_path / "a.json").write_bytes(content)
        assert read_json(tmp_path / "a.json") is None
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')  # Notepad's byte order mark
    assert read_json(tmp_path / "a.json") == {"a": 1}
    assert read_json(tmp_path / "missing.json") is None


# One folder, one process


def test_a_folder_in_use_is_refused_and_names_the_process(tmp_path):
    def second():
        with pytest.raises(ValueError, match=rf"in use by process {os.getpid()} on .+ since 20.*out="):
            run(tmp_path)

    result = run(tmp_path, callback=at(6, second))
    assert result.steps == STEPS
    assert run(tmp_path).resumed_at == STEPS  # free again


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_lock_of_a_killed_process_is_taken_over_and_its_parts_are_removed(tmp_path):
    if (child := os.fork()) == 0:
        with own_folder(tmp_path):
            (tmp_path / ".dead.part.gif").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert {".dead.part.gif", ".lock.json"} <= names(tmp_path)
    with own_folder(tmp_path):
        assert json.loads((tmp_path / ".lock.json").read_text(encoding="utf-8"))["process"] == os.getpid()
    assert names(tmp_path) == {".lock"}


@pytest.mark.parametrize("name", ["a file", "x" * 300, "a\0b", "a file/below"], ids=["file", "long", "NUL", "below"])
def test_an_unusable_folder_is_refused_before_the_first_step(tmp_path, name):
    (tmp_path / "a file").touch()
    with pytest.raises(
        ValueError, match=r"out: expected a (folder that can be written, got .*Choose another|path, got)"
    ):
        run(f"{tmp_path}/{name}", callback=lambda *_: pytest.fail("it trained"))


def test_a_finished_model_of_another_recipe_is_not_overwritten(tmp_path):
    run(tmp_path)
    (tmp_path / "checkpoint.safetensors").unlink()  # to save space
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"config.json: expected the same recipe.*seed: 0 there, 7 here"):
        run(tmp_path, seed=7)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert run(tmp_path).resumed_at == 0  # the same recipe may


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_of_somebody_else_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text('{"mine": 1}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"{name}: expected no such file or one written by train"):
        run(tmp_path)
    assert (tmp_path / name).read_text(encoding="utf-8") == '{"mine": 1}'


@pytest.mark.parametrize(
    "change",
    [{"step": -5}, {"step": "3"}, {"step": None}, {"recipe": 3}, {"sessions": None}, {"seconds": "x"}],
    ids=str,
)
def test_a_checkpoint_with_an_odd_state_is_refused(tmp_path, change):
    run(tmp_path)
    tensors, state = load_checkpoint(tmp_path / "checkpoint.safetensors")
    save_checkpoint(tmp_path / "checkpoint.safetensors", tensors, state | change)
    with pytest.raises(CheckpointError, match=r"checkpoint.safetensors: expected"):
        run(tmp_path)


def test_missing_products_are_made_again(tmp_path):
    first = run(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).unlink()
        assert run(tmp_path).resumed_at == STEPS
        assert (tmp_path / "model.safetensors").read_bytes() == weights
        assert load_model(tmp_path, model=Mlp()) is not None
    assert first.steps == STEPS


# Signals


@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(tmp_path, capsys, number, end):
    tracker, before = Flaky(), signal.getsignal(number)
    with pytest.raises(end) as stopped:
        run(tmp_path / "cut", tracker=tracker, callback=at(5, lambda: os.kill(os.getpid(), number)))
    assert end is KeyboardInterrupt or stopped.value.code == 143
    assert capsys.readouterr().err == "stopped at step 5; the same command goes on from there\n"
    assert step_of(tmp_path / "cut") == 5
    assert tracker.calls[-1] == ("close", "KILLED")
    assert signal.getsignal(number) is before
    assert run(tmp_path / "cut").resumed_at == 5
    run(tmp_path / "whole")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("cut", "whole")]
    assert weights[0] == weights[1]


def test_a_signal_that_comes_after_the_checkpoint_stops_after_the_next_step(tmp_path, capsys):
    class Signalling(Flaky):
        def log_metrics(self, metrics, step):
            if step == 6:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tracker=Signalling(), checkpoint_every=6)
    assert capsys.readouterr().err == "stopped at step 7; the same command goes on from there\n"
    assert step_of(tmp_path) == 7


def test_a_second_signal_ends_at_once(tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)  # Python runs the handlers here
        pytest.fail("it went on")

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, callback=at(5, twice))
    assert step_of(tmp_path) == 4


def test_outside_the_main_thread_signals_are_left_alone(tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(run(tmp_path)))
    thread.start()
    thread.join()
    assert done[0].steps == STEPS


# Tracking is a side product


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(GuardedTracker, "WAIT", 0.0)


class Full(Flaky):
    """A store that answers and can write nothing more."""

    def start(self, run_id):
        return run_id or "new"


@pytest.mark.parametrize("kind", [Flaky, Full])
def test_a_tracker_that_fails_for_a_while_gets_everything_later(tmp_path, impatient, kind):
    tracker = kind()

    def callback(step, _):
        tracker.broken = 3 < step < 9

    with pytest.warns(RuntimeWarning, match="Tracking failed .the server is gone") as caught:
        run(tmp_path, tracker=tracker, callback=callback)
    assert len(caught) == 1
    points = [call[1] for call in tracker.calls if call[0] == "metrics" and "loss" in call[2]]
    assert sorted(points) == [2, 4, 6, 8, 10, 12]
    assert {call[1] for call in tracker.calls if call[0] == "snapshot"} == {4, 8, 12}
    assert tracker.calls[-1] == ("close", "FINISHED")


def test_a_tracker_that_is_never_there_costs_a_warning_and_its_points_wait_in_the_checkpoint(tmp_path):
    tracker = Flaky()
    tracker.broken = True
    with pytest.warns(RuntimeWarning, match="Tracking failed"):
        assert run(tmp_path, tracker=tracker).run_id is None
    assert (tmp_path / "model.safetensors").is_file()
    tracker.broken = False
    assert run(tmp_path, tracker=tracker).run_id == "new"
    assert [call[1] for call in tracker.calls if call[0] == "metrics" and "loss" in call[2]] == [2, 4, 6, 8, 10, 12]


def test_a_dead_tracker_is_not_asked_at_each_step(tmp_path, monkeypatch):
    asked = []

    class Dead(NullTracker):
        def start(self, run_id):
            asked.append(1)
            raise ConnectionError

    with pytest.warns(RuntimeWarning, match="ConnectionError"):
        run(tmp_path, tracker=Dead())
    assert len(asked) == 2  # at the start and at the end


def test_a_point_that_the_tracker_refuses_does_not_hold_up_the_others(tmp_path, impatient):
    class Strict(Flaky):
        def log_metrics(self, metrics, step):
            if "bad name" in metrics:
                raise TypeError("bad name")
            super().log_metrics(metrics, step)

    tracker = Strict()
    with pytest.warns(RuntimeWarning, match="bad name"):
        run(tmp_path, tracker=tracker, callback=lambda step, _: {"bad name": 1.0} if step == 4 else None)
    points = [call[1] for call in tracker.calls if call[0] == "metrics" and "loss" in call[2]]
    assert points == [2, 6, 8, 10, 12]


def test_the_callers_mistakes_are_raised_before_the_first_step(tmp_path):
    for name in ("", "x" * 501):
        with pytest.raises(ValueError, match="experiment: expected a name of 1 to 500 characters"):
            MLflowTracker("sqlite:///x.db", experiment=name)
    tracker = MLflowTracker("foo://x", system_metrics=False)
    with pytest.raises(ValueError, match="uri: expected a store that MLflow knows, got 'foo://x'"):
        run(tmp_path, tracker=tracker, callback=lambda *_: pytest.fail("it trained"))


def runs_of(store, experiment="flow-matching"):
    client = mlflow.MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name(experiment)
    return client, client.search_runs([experiment.experiment_id], run_view_type=mlflow.entities.ViewType.ALL)


def test_lost_runs_and_deleted_experiments_in_a_real_store(tmp_path, impatient):
    """One store for all cases: to make one takes MLflow seconds."""
    store = f"sqlite:///{tmp_path}/mlflow.db"

    def tracker():
        return MLflowTracker(store, system_metrics=False)

    # Killed after the run was made and before its id was noted: found again by the key.
    class Killed(MLflowTracker):
        def start(self, run_id=None):
            super().start(run_id)
            raise SystemExit(9)

    with pytest.raises(SystemExit):
        run(tmp_path / "a", tracker=Killed(store, system_metrics=False))
    mlflow.end_run()
    first = run(tmp_path / "a", tracker=tracker()).run_id
    client, [found] = runs_of(store)
    assert (found.info.run_id, found.info.status) == (first, "FINISHED")

    # Deleted while the training runs: a new run, tagged with the old id, with the parameters.
    def delete():
        client.delete_run(mlflow.active_run().info.run_id)

    with pytest.warns(RuntimeWarning, match=r"The tracked run \w+ is lost or deleted. A new one, \w+, goes on"):
        second = run(tmp_path / "b", tracker=Rude(store, delete)).run_id
    found = client.get_run(second)
    lost = found.data.tags["fm_core.lost_run"]
    assert client.get_run(lost).info.lifecycle_stage == "deleted"
    assert found.info.status == "FINISHED"
    assert found.data.params["batch_size"] == "16"
    assert found.data.metrics["validation_loss"] == pytest.approx(run(tmp_path / "b").validation_loss)

    # The experiment is deleted: the next one takes its place.
    client.delete_experiment(found.info.experiment_id)
    third = run(tmp_path / "c", tracker=tracker()).run_id
    assert [one.info.run_id for one in runs_of(store, "flow-matching 2")[1]] == [third]
    assert not [name for name in names(tmp_path / "c") if "part" in name]

    # The store is deleted while the training runs: the points wait in the checkpoint for another session.
    with pytest.warns(RuntimeWarning, match=r"Tracking failed \(.*mlflow.db was deleted"):
        run(tmp_path / "d", tracker=Rude(store, (tmp_path / "mlflow.db").unlink))
    points = load_checkpoint(tmp_path / "d" / "checkpoint.safetensors")[1]["points"]
    assert [step for metrics, step in points if "loss" in metrics] == [6, 8, 10, 12]
    assert not (tmp_path / "mlflow.db").exists()


class Rude(MLflowTracker):
    """Deletes the run in mid-course."""

    def __init__(self, store, delete):
        super().__init__(store, system_metrics=False)
        self.delete = delete

    def log_metrics(self, metrics, step):
        if step == 6 and self.delete is not None:
            self.delete()
            self.delete = None
        super().log_metrics(metrics, step)


# Devices and command lines


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", None, 3.5])
def test_unusable_devices_are_explained(device):
    with pytest.raises(ValueError, match=r"device: expected 'auto', 'cpu', or a device .* got .*--device cpu"):
        resolve_device(device)


def test_a_gpu_too_old_for_this_torch_is_explained(monkeypatch):
    def ones(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore lines")

    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match=r"got 'cuda' \(CUDA error: no kernel image .* device\). Use --device cpu"):
        resolve_device("auto")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--digits", "0"], "digits: expected a whole number of at least 1"),
        (["sample", "--digits", "1000000000"], "digits: expected at most 65,536"),
        (["sample", "--out", "{tmp}"], "out: expected a file that can be written"),
        (["gif", "--models"], "models: expected at least one"),
        (["gif", "--samples", "0"], "samples: expected a whole number"),
        (["sample", "--device", "gpu"], "device: expected 'auto', 'cpu'"),
        (["train", "--device", "gpu"], "device: expected 'auto', 'cpu'"),
        (["train", "--data", "sample", "--experiment", ""], "experiment: expected a name"),
        (["train", "--data", "sample", "--no-track", "--out", "{tmp}/file"], "out: expected a folder"),
        (["gif", "--runs", "x", "--tracking-uri", "sqlite:///{tmp}/none.db"], "none.db does not exist"),
        (["gif", "--runs", "x", "--tracking-uri", "http://127.0.0.1:9"], "run_id: expected a run in the store"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main([a.replace("{tmp}", str(tmp_path)) for a in arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert names(tmp_path) == {"file"}  # nothing was made


@pytest.mark.parametrize("error", [FloatingPointError, OSError, MemoryError, ImportError, torch.OutOfMemoryError])
def test_what_a_user_can_mend_is_one_line(capsys, error):
    def work():
        raise error("first\nsecond")

    assert run_command("prog", work) == 2
    assert capsys.readouterr().err == "prog: first second\n"


def test_ctrl_c_is_one_line_and_130(capsys):
    def work():
        raise KeyboardInterrupt

    assert run_command("prog", work) == 130
    assert capsys.readouterr().err == "prog: interrupted\n"


def test_the_experiments_command_explains_mistakes_too(tmp_path, monkeypatch, capsys):
    arguments = ["likelihood", "--stage", "evaluate", "--data", "sample", "--device", "cpu", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["fm_book.experiments", *arguments])
    assert experiments_main() == 2
    assert "expected a finished run, got none" in capsys.readouterr().err


def test_a_path_that_the_terminal_cannot_show_does_not_fail_the_work(monkeypatch):
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii", write_through=True))
    assert run_command("prog", lambda: "runs/\U0001f600") == 0
    assert content.getvalue().split() == [rb"runs/\U0001f600"]


# Caches of the experiments


def test_half_written_and_foreign_caches_are_made_again(tmp_path):
    part = tmp_path / "part.json"
    for content in ("{", "[]", '{"key": {}}', '{"key": {}, "values": 3}', "null"):
        part.write_text(content, encoding="utf-8")
        assert cached(part, {}, lambda: {"n": (1, float("nan"))}) == {"n": [1, None]}
        assert cached(part, {}, lambda: pytest.fail("it is there")) == {"n": [1, None]}
        (tmp_path / "foreign.json").write_text(content, encoding="utf-8")
        assert elapsed(tmp_path)["wall"] >= 0


def test_a_run_with_a_damaged_or_incomplete_folder_is_not_finished(tmp_path):
    run = Run(tmp_path, Mlp, TrainConfig(images=32, batch_size=16))
    save_model(tmp_path, Mlp(), recipe=run.recipe())
    assert run.record() is not None
    good = (tmp_path / "config.json").read_text(encoding="utf-8")
    for content in ("{", "[]", '{"mine": 1}', '{"training": 3}'):
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
        assert run.record() is None
    (tmp_path / "config.json").write_text(good, encoding="utf-8")
    (tmp_path / "model.safetensors").unlink()
    assert run.record() is None
