"""MLflow behind a small interface, and a null tracker with the same methods.

The default store is ``sqlite:///mlflow.db`` with artifacts beside it; any tracking URI works. Besides curves a run
keeps *snapshots*: Trajectories of a few samples drawn from the same noise at fixed steps.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock

from fm_core._checks import missing_extra
from fm_core.solvers import Trajectory

__all__ = [
    "GuardedTracker",
    "MLflowTracker",
    "MemoryTracker",
    "NullTracker",
    "Tracker",
    "load_history",
    "load_snapshots",
    "run_name",
    "snapshot_steps",
    "tracking_uri",
]

SNAPSHOTS = "snapshots"  # artifact folder
KEY, LOST = "fm_core.key", "fm_core.lost_run"  # tags
QUIET = {  # unless the user has set them: no announcements, and a server that is gone costs seconds, not minutes
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def tracking_uri(uri: str | None = None) -> str:
    """The store in force: the argument, else ``$MLFLOW_TRACKING_URI``, else ``sqlite:///mlflow.db``."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


class Tracker(Protocol):
    """What :func:`fm_core.train` asks of a tracker."""

    def start(self, run_id: str | None) -> str | None:
        """Open a new run, or the run that the checkpoint names; return its id, None where nothing is kept."""

    def log_params(self, params: Mapping[str, Any]) -> None: ...
    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None: ...
    def log_file(self, path: str | os.PathLike[str], folder: str | None = None) -> None: ...
    def log_snapshot(self, trajectory: Trajectory, step: int) -> None: ...
    def close(self, status: str = "FINISHED") -> None: ...


class NullTracker:
    """Keeps nothing."""

    def start(self, run_id: str | None) -> str | None:
        """Return the id as it is, so that a checkpoint does not lose it."""
        return run_id

    def log_params(self, params: Mapping[str, Any]) -> None: ...
    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None: ...
    def log_file(self, path: str | os.PathLike[str], folder: str | None = None) -> None: ...
    def log_snapshot(self, trajectory: Trajectory, step: int) -> None: ...
    def close(self, status: str = "FINISHED") -> None: ...


class MemoryTracker(NullTracker):
    """Keeps the curves in memory.

    Attributes:
        curves: ``{name: (steps, values)}``.
    """

    def __init__(self) -> None:
        self.curves: dict[str, tuple[list[int], list[float]]] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Add one point to each curve."""
        for name, value in metrics.items():
            steps, values = self.curves.setdefault(name, ([], []))
            steps.append(step)
            values.append(float(value))


class GuardedTracker:
    """Stands before a tracker whose failures must not end a training run.

    Calls wait in a queue until :meth:`flush`. After a failure there is one warning, and the run is opened again after
    half a minute, a minute, ... ten minutes, and at the end; what failed is sent then.

    Args:
        inner: the tracker.
        points: points of the curves that an earlier session could not send, as :meth:`points` gave them.
    """

    WAIT, LONGEST_WAIT = 30.0, 600.0  # seconds until the next attempt
    KEPT = 10_000  # points that wait; 20 files and snapshots

    def __init__(self, inner: Tracker, points: Iterable[tuple[Mapping[str, float], int]] = ()) -> None:
        self.inner, self.run_id = inner, None
        self._params: dict[str, Any] = {}
        self._curves, self._rest = deque[tuple[str, Any, Any]](maxlen=self.KEPT), deque[tuple[str, Any, Any]](maxlen=20)
        for metrics, step in points:
            self.log_metrics({k: math.nan if v is None else v for k, v in metrics.items()}, step)
        self._open, self._warned, self._wait, self._next = False, False, self.WAIT, 0.0

    def start(self, run_id: str | None) -> str | None:
        """Open the run. Mistakes of the caller, ValueError and ImportError, are raised."""
        self.run_id = run_id
        try:
            self._start()
        except (ValueError, ImportError):
            raise
        except Exception as error:
            self._failed(error)
        return self.run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._params = dict(params)
        self._rest.append(("log_params", self._params, None))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._curves.append(("log_metrics", {name: float(value) for name, value in metrics.items()}, step))

    def log_file(self, path: str | os.PathLike[str], folder: str | None = None) -> None:
        self._rest.append(("log_file", path, folder))

    def log_snapshot(self, trajectory: Trajectory, step: int) -> None:
        self._rest.append(("log_snapshot", trajectory, step))

    def points(self) -> list[tuple[Mapping[str, float], int]]:
        """Points of the curves that wait, JSON-ready."""
        return [(metrics, step) for _, metrics, step in self._curves]

    def flush(self, *, now: bool = False) -> None:
        """Send what waits; after a failure only when it is time, or now."""
        if time.monotonic() < self._next and not now:
            return
        for queue in (self._curves, self._rest):
            for _ in range(len(queue)):
                try:
                    self._send(*queue[0])
                except Exception as error:
                    self._failed(error)
                    code = getattr(error, "error_code", None)  # MLflow's
                    refused = isinstance(error, TypeError | ValueError) or code == "INVALID_PARAMETER_VALUE"
                    if queue is self._rest:
                        queue.rotate(-1)  # the others first, next time
                    if queue is self._rest or not (refused and self._open):
                        return
                queue.popleft()  # sent, or a point that no run takes
        self._wait = self.WAIT

    def close(self, status: str = "FINISHED") -> None:
        self.flush(now=True)
        if self._open:
            try:
                self.inner.close(status)
            except Exception as error:
                self._failed(error)

    def _start(self) -> None:
        known, self.run_id = self.run_id, self.inner.start(self.run_id)
        self._open = True
        if known not in (None, self.run_id):
            self._warn(f"The tracked run {known} is lost or deleted. A new one, {self.run_id}, goes on from here.")

    def _send(self, method: str, *arguments: Any) -> None:
        if self._open:
            with suppress(Exception):
                return self._call(method, *arguments)
        self._open = False
        self._start()  # the run may have been lost
        if self._params and method != "log_params":
            self.inner.log_params(self._params)
        return self._call(method, *arguments)

    def _call(self, method: str, first: Any, second: Any) -> None:
        if method == "log_params":
            self.inner.log_params(first)
        elif method != "log_file" or Path(first).exists():
            getattr(self.inner, method)(first, second)

    def _failed(self, error: Exception) -> None:
        self._next, self._wait = time.monotonic() + self._wait, min(2 * self._wait, self.LONGEST_WAIT)
        if not self._warned:
            self._warned = True
            said = " ".join(str(error).split())[:200] or type(error).__name__
            self._warn(f"Tracking failed ({said}). The training run goes on; what is not logged is tried again later.")

    def _warn(self, said: str) -> None:
        warnings.warn(said, RuntimeWarning, stacklevel=2)


class MLflowTracker:
    """One MLflow run, new or resumed, with the machine's load recorded every ten seconds.

    Args:
        uri: tracking URI; see :func:`tracking_uri`.
        experiment: experiment of a new run; made if missing.
        run_name: name of a new run.
        system_metrics: record processor, memory and GPU load.

    Attributes:
        key: text by which :meth:`start` finds a run again whose id was lost with a killed process; None for no text.
        scratch: folder for temporary files; the system's if None.

    Raises:
        ValueError: an experiment without name, or with one of more than 500 characters.
    """

    key: str | None = None
    scratch: Path | None = None

    def __init__(
        self,
        uri: str | None = None,
        *,
        experiment: str = "flow-matching",
        run_name: str | None = None,
        system_metrics: bool = True,
    ) -> None:
        if not (isinstance(experiment, str) and experiment.strip() and len(experiment) <= 500):
            raise ValueError(f"experiment: expected a name of 1 to 500 characters, got {experiment!r}.")
        self.uri, self.experiment, self.run_name = tracking_uri(uri), experiment, run_name
        self.system_metrics = system_metrics
        self._mlflow, self._run_id, self._inode = _mlflow(), None, None

    def start(self, run_id: str | None = None) -> str:
        """Open a new run, or go on with an earlier one.

        Where the store does not hold that run, or holds it as deleted, a new run is tagged with its id. Where the
        experiment is deleted, the run goes to "EXPERIMENT 2".

        Raises:
            ValueError: a URI that MLflow does not know, or another run is active in this process.
        """
        mlflow, database = self._mlflow, _database(self.uri)
        if (active := mlflow.active_run()) is not None:
            if active.info.run_id != self._run_id:
                raise ValueError(f"tracker: expected no active run, got {active.info.run_id}. Use mlflow.end_run().")
            with suppress(Exception):
                mlflow.end_run()
        if database is not None and self._inode is not None and _inode(database) != self._inode:
            raise FileNotFoundError(f"{database} was deleted; the next session makes another")  # MLflow keeps it open
        with FileLock(f"{database}.lock", timeout=120) if database else nullcontext():  # MLflow makes tables unlocked
            try:
                mlflow.set_tracking_uri(self.uri)
                client = mlflow.MlflowClient()
                found = self._found(client, run_id)
                experiment = found.info.experiment_id if found else self._experiment(client)
            except mlflow.tracking.registry.UnsupportedModelRegistryStoreURIException as error:
                raise ValueError(f"uri: expected a store that MLflow knows, got {self.uri!r}. {error}") from error
            mlflow.set_experiment(experiment_id=experiment)
            if found is None and self.key is not None:
                runs = client.search_runs([experiment], filter_string=f"tags.`{KEY}` = '{self.key}'", max_results=1)
                found = next(iter(runs), None)
            tags = {name: value for name, value in ((KEY, self.key), (LOST, run_id)) if value is not None}
            options = {"run_name": self.run_name, "tags": tags} if found is None else {"run_id": found.info.run_id}
            run = mlflow.start_run(**options, log_system_metrics=self.system_metrics)
        self._run_id, self._inode = run.info.run_id, database and _inode(database)
        return run.info.run_id

    def _found(self, client: Any, run_id: str | None) -> Any:
        """The run, if the store holds it and it is not deleted."""
        if run_id is None:
            return None
        try:
            run = client.get_run(run_id)
        except self._mlflow.exceptions.MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def _experiment(self, client: Any) -> str:
        """Id of the experiment, made if missing."""
        for number in itertools.count(1):
            name = self.experiment if number == 1 else f"{self.experiment} {number}"
            if (found := client.get_experiment_by_name(name)) is None:
                with suppress(self._mlflow.exceptions.MlflowException):  # another process was faster
                    return client.create_experiment(name, artifact_location=_artifact_location(self.uri))
                found = client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage == "active":
                return found.experiment_id
        raise AssertionError("unreachable")

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings. Where a resumed run has another value, the new one becomes the tag ``resumed.NAME``."""
        known = self._mlflow.active_run()
        known = {} if known is None else self._mlflow.get_run(known.info.run_id).data.params
        self._mlflow.log_params({name: value for name, value in params.items() if name not in known})
        changed = {f"resumed.{n}": str(v) for n, v in params.items() if n in known and known[n] != str(v)}
        self._mlflow.set_tags(changed)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record one point of each curve; ``step`` is the number of optimizer steps taken."""
        self._mlflow.log_metrics({name: float(value) for name, value in metrics.items()}, step=step)

    def log_file(self, path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Keep a copy of a file as an artifact, in ``folder`` of the run."""
        self._mlflow.log_artifact(str(path), folder)

    def log_snapshot(self, trajectory: Trajectory, step: int) -> None:
        """Keep a Trajectory as ``snapshots/step-00000500.npz``, states and velocities in half precision."""
        if trajectory.velocity is None:
            raise ValueError("trajectory: expected one with velocities, got velocity=None. Make it with solve(...).")
        with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=self.scratch) as folder:
            path = Path(folder) / f"step-{step:08d}.npz"
            np.savez_compressed(
                path,
                t=trajectory.t.cpu().numpy(),
                x=trajectory.x.cpu().half().numpy(),
                velocity=trajectory.velocity.cpu().half().numpy(),
                nfe=np.array(trajectory.nfe),
            )
            self.log_file(path, SNAPSHOTS)

    def close(self, status: str = "FINISHED") -> None:
        """End the run with the status ``"FINISHED"``, ``"FAILED"`` or ``"KILLED"``."""
        self._mlflow.end_run(status)


def run_name(run_id: str, *, uri: str | None = None) -> str:
    """Name of a run."""
    with _reading(run_id, uri) as (_, run):
        return run.info.run_name


def snapshot_steps(run_id: str, *, uri: str | None = None) -> list[int]:
    """Steps at which a run kept snapshots, rising."""
    with _reading(run_id, uri) as (client, _):
        return sorted(int(Path(f.path).stem.removeprefix("step-")) for f in client.list_artifacts(run_id, SNAPSHOTS))


def load_snapshots(run_id: str, *, step: int | None = None, uri: str | None = None) -> Trajectory:
    """A Trajectory that a run kept, by default its last; float32 on the CPU.

    Args:
        run_id: MLflow's id of the run.
        step: one of :func:`snapshot_steps`.
        uri: tracking URI; see :func:`tracking_uri`.

    Raises:
        ValueError: no such run, no snapshots, or none at that step.
    """
    steps = snapshot_steps(run_id, uri=uri)
    if not steps:
        raise ValueError(f"run_id: expected a run with snapshots, got {run_id!r} without. Train with eval_every > 0.")
    step = steps[-1] if step is None else step
    if step not in steps:
        raise ValueError(f"step: expected one of {steps}, where run {run_id!r} kept snapshots, got {step}.")
    with _reading(run_id, uri) as (client, _), tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(run_id, f"{SNAPSHOTS}/step-{step:08d}.npz", folder)
        with np.load(path) as arrays:
            t, x, v = (torch.from_numpy(arrays[name]).float() for name in ("t", "x", "velocity"))
            return Trajectory(t=t, x=x, velocity=v, nfe=int(arrays["nfe"]))


def load_history(run_id: str, *, uri: str | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every curve of a run, ``{name: (steps, values)}``, sorted by step.

    Args:
        run_id: MLflow's id of the run.
        uri: tracking URI; see :func:`tracking_uri`.

    Raises:
        ValueError: no such run.
    """
    curves = {}
    with _reading(run_id, uri) as (client, run):
        for name in sorted(run.data.metrics):
            points = sorted(client.get_metric_history(run_id, name), key=lambda m: (m.step, m.timestamp))
            last = {m.step: m.value for m in points}  # a resumed run repeats some steps: the later value counts
            curves[name] = (np.array(list(last)), np.array(list(last.values())))
    return curves


def _mlflow() -> Any:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow  # a second to import, and only needed here
    except ImportError as error:
        raise missing_extra("MLflow tracking", "tracking") from error
    for name in ("mlflow.system_metrics", "mlflow.store.db.utils", "mlflow.tracking", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they announce each start, and errors that are raised too
    return mlflow


@contextmanager
def _reading(run_id: str, uri: str | None) -> Iterator[tuple[Any, Any]]:
    """MLflow's client and a run; ValueError where the store is missing, does not answer, or does not hold the run."""
    mlflow, uri = _mlflow(), tracking_uri(uri)
    database = _database(uri)
    try:
        if database is not None and not database.is_file():  # MLflow would make it
            raise mlflow.exceptions.MlflowException(f"{database} does not exist")
        client = mlflow.MlflowClient(tracking_uri=uri)
        yield client, client.get_run(run_id)
    except mlflow.exceptions.MlflowException as error:
        raise ValueError(
            f"run_id: expected a run in the store {uri!r}, got {run_id!r} ({' '.join(str(error).split())[:200]}). Look "
            f"it up with `mlflow ui --backend-store-uri {uri}`, or name another store with uri=... or "
            "MLFLOW_TRACKING_URI."
        ) from error


def _database(uri: str) -> Path | None:
    """File of a sqlite store; None for another store."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def _artifact_location(uri: str) -> str | None:
    """Artifacts of a sqlite store go beside the database, wherever the process was started."""
    database = _database(uri)
    return None if database is None else (database.parent / "mlartifacts").as_uri()
