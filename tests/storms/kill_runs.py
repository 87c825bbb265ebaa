"""Kill training runs at random moments and check what is left: ``python tests/storms/kill_runs.py``, not by pytest.

A run of 100 steps on the CPU is killed with SIGKILL at random moments (70 times) and between its last step and its end
(30 times), and stopped with SIGTERM and SIGINT (20 times each); after each, the same call goes on, at last to the end.
Every run must end with the weights of an uninterrupted one (SHA-256), one MLflow run with status FINISHED and every
point and snapshot, readable files, and nothing left over. Each process is forked from this one, which has everything
imported. Prints one line per run that is wrong and a summary; the exit code is the number of wrong runs, 100 at most.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mlflow
import mlflow.store.tracking.sqlalchemy_store  # what is imported here is not imported in each process
import torch
import torch._dynamo
import torch._inductor
from PIL import Image

from fm_core import TrainConfig, build_model, load_model, load_sample, train
from fm_core.checkpoints import load_checkpoint
from fm_core.data import Digits
from fm_core.tracking import MLflowTracker

STEPS, BATCH = 100, 16
FILES = {"checkpoint.safetensors", "model.safetensors", "config.json", "samples.gif"}
COUNTS: collections.Counter[str] = collections.Counter()


def work(folder: Path, data: tuple[Digits, Digits], pipe: int) -> None:
    """The run; writes one byte for each step into the pipe."""
    torch.manual_seed(0)
    train(
        build_model("base", widths=(8, 16), time_dim=16),
        TrainConfig(images=STEPS * BATCH, batch_size=BATCH, precision="float32"),
        data=data, out=folder / "run", tracker=MLflowTracker(store(folder), system_metrics=False), device="cpu",
        eval_every=20, eval_images=64, log_every=5, checkpoint_every=2, progress=False,
        callback=lambda step, _: os.write(pipe, bytes([step])) and None,
    )  # fmt: skip


def store(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


class Process:
    """The run in a process of its own.

    Attributes:
        steps: reads one byte per step; nothing more once the process has ended.
    """

    def __init__(self, folder: Path, data: tuple[Digits, Digits]) -> None:
        self.log, (self.steps, pipe) = folder / "run.txt", os.pipe()
        self.began, self.pid = time.perf_counter(), os.fork()
        if self.pid == 0:
            code = 1
            try:
                for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
                    signal.signal(number, handler)
                os.dup2(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
                work(folder, data, pipe)
                code = 0
            except KeyboardInterrupt:
                code = 130
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        os.close(pipe)

    def said(self) -> str:
        """The end of what went to stderr."""
        return self.log.read_text(encoding="utf-8").strip()[-500:]

    def wait_for(self, step: int) -> bool:
        """Wait until a step is done; False if the process ends before."""
        while byte := os.read(self.steps, 1):
            if byte[0] >= step:
                return True
        return False

    def end(self, number: int | None = None) -> int:
        """Send a signal, wait, and return the exit code, negative for a signal that killed."""
        if number is not None:
            os.kill(self.pid, number)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.steps)
        self.took = time.perf_counter() - self.began
        return code


def wrong(folder: Path, expected: str) -> list[str]:
    """What is wrong with a run that has come to its end."""
    found, run = [], folder / "run"
    if hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest() != expected:
        found.append("other weights")
    left = {path.name for path in run.iterdir()} - FILES - {".lock"}
    left |= {path.name for path in folder.iterdir() if not path.name.startswith(("run", "mlflow.db", "mlartifacts"))}
    if left:
        found.append(f"left over: {sorted(left)}")
    if not all((run / name).is_file() for name in FILES):
        found.append(f"missing: {sorted(name for name in FILES if not (run / name).is_file())}")
    load_checkpoint(run / "checkpoint.safetensors")
    load_model(run)
    with Image.open(run / "samples.gif") as film:
        film.seek(film.n_frames - 1)
        film.load()
    found += [] if ask(folder, "pragma integrity_check") == ["ok"] else ["damaged database"]
    found += [] if ask(folder, "select status from runs") == ["FINISHED"] else ["MLflow runs, or their status"]
    points = ask(folder, "select distinct step from metrics where key = 'loss' order by step")
    found += [] if points == [*range(5, STEPS + 1, 5)] else [f"points {points}"]
    kept = {path.name for path in (folder / "mlartifacts").rglob("*") if path.is_file()}
    named = {f"step-{step:08d}.{kind}" for step in range(20, STEPS + 1, 20) for kind in ("npz", "png")}
    return found if kept == named | FILES - {"checkpoint.safetensors"} else [*found, f"artifacts {sorted(kept)}"]


def ask(folder: Path, question: str) -> list[Any]:
    """First column of the answer of a run's store; MLflow itself would keep the database open here."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return [row[0] for row in database.execute(question)]


def stopped_well(folder: Path, code: int, number: int, process: Process) -> list[str]:
    """What is wrong after SIGTERM or SIGINT."""
    if code != 128 + number:
        return [f"exit code {code} after signal {number}: {process.said()}"]
    step = load_checkpoint(folder / "run" / "checkpoint.safetensors")[1]["step"]
    told = process.said().endswith(f"stopped at step {step}; the same command goes on from there")
    found = [] if told else [f"said {process.said()}"]
    status = ask(folder, "select status from runs")
    return found if status == ["FINISHED" if step == STEPS else "KILLED"] else [*found, f"MLflow: {status}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("kills", 70), ("final", 30), ("terms", 20), ("ints", 20), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chance, root = random.Random(options.seed), Path(tempfile.mkdtemp(prefix="storm-"))
    (root / "tmp").mkdir()
    tempfile.tempdir = str(root / "tmp")
    train_set, test_set = load_sample("train"), load_sample("test")
    data = (Digits(train_set.images[:640], train_set.labels[:640], "640 digits"), test_set)
    (root / "empty").mkdir()
    if (maker := os.fork()) == 0:  # so that no store is open here
        mlflow.MlflowClient(tracking_uri=store(root / "empty")).search_experiments()
        os._exit(0)
    os.waitpid(maker, 0)

    def fresh(name: str) -> Path:
        shutil.copytree(root / "empty", root / name)
        return root / name

    failures: list[str] = []

    def finish(folder: Path) -> None:
        code = (process := Process(folder, data)).end()
        found = [f"exit code {code}: {process.said()}"] if code else wrong(folder, expected)
        COUNTS["runs"] += 1
        failures.extend(f"{folder.name}: {one}" for one in found)
        for one in found:
            print(f"{folder.name}: {one}", flush=True)
        if not found:
            shutil.rmtree(folder)

    whole = Process(fresh("whole"), data)
    whole.wait_for(STEPS)
    last = time.perf_counter() - whole.began
    assert whole.end() == 0, whole.said()
    expected = hashlib.sha256((root / "whole" / "run" / "model.safetensors").read_bytes()).hexdigest()
    failures += wrong(root / "whole", expected)
    print(f"alone: {whole.took:.1f} s, {whole.took - last:.1f} s after the last step, {expected[:12]}", flush=True)

    number = 0
    while COUNTS["SIGKILL"] < options.kills:  # seven in a row on one run
        folder, number = fresh(f"kill-{number}"), number + 1
        for _ in range(min(7, options.kills - COUNTS["SIGKILL"])):
            process = Process(folder, data)
            time.sleep(chance.uniform(0, 0.9 * whole.took))
            COUNTS["SIGKILL"] += process.end(signal.SIGKILL) == -signal.SIGKILL
        finish(folder)
    while COUNTS["SIGKILL in the end"] < options.final:
        folder, number = fresh(f"final-{number}"), number + 1
        process = Process(folder, data)
        process.wait_for(STEPS)
        time.sleep(chance.uniform(0, whole.took - last))
        COUNTS["SIGKILL in the end"] += process.end(signal.SIGKILL) == -signal.SIGKILL
        finish(folder)
    for sent, wanted in ((signal.SIGTERM, options.terms), (signal.SIGINT, options.ints)):
        while COUNTS[sent.name] < wanted:
            folder, number, step = fresh(f"{sent.name}-{number}"), number + 1, 0
            for _ in range(min(4, wanted - COUNTS[sent.name])):
                process = Process(folder, data)
                step = chance.randint(step + 1, max(step + 1, min(STEPS, step + 35)))
                if not process.wait_for(step):
                    break
                time.sleep(chance.uniform(0, 0.05))
                COUNTS[sent.name] += 1
                failures.extend(stopped_well(folder, process.end(sent), sent, process))
            finish(folder)
    left = sorted(path.name for path in (root / "tmp").iterdir() if not path.name.startswith("torchinductor"))
    failures += [f"left in the folder for temporary files: {left}"] if left else []
    print(f"{dict(COUNTS)}, wrong: {len(failures)}", *failures, sep="\n", flush=True)
    if not failures:
        shutil.rmtree(root)
    return min(100, len(failures))


if __name__ == "__main__":
    raise SystemExit(main())
