"""MLflow behind a small interface, and a null tracker with the same methods.

The default store is ``sqlite:///mlflow.db`` with artifacts beside it; any tracking URI works. Besides curves a run
keeps *snapshots*: Trajectories of a few samples drawn from the same noise at fixed steps.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from fm_core._checks import missing_extra
from fm_core.solvers import Trajectory

__all__ = [
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


class MLflowTracker:
    """One MLflow run, new or resumed, with the machine's load recorded every ten seconds.

    Args:
        uri: tracking URI; see :func:`tracking_uri`.
        experiment: experiment of a new run; made if missing.
        run_name: name of a new run.
        system_metrics: record processor, memory and GPU load.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        experiment: str = "flow-matching",
        run_name: str | None = None,
        system_metrics: bool = True,
    ) -> None:
        self.uri, self.experiment, self.run_name = tracking_uri(uri), experiment, run_name
        self.system_metrics = system_metrics
        self._mlflow = _mlflow()

    def start(self, run_id: str | None = None) -> str:
        """Open a new run, or go on with an earlier one.

        Raises:
            ValueError: ``run_id`` names a run that the store does not hold.
        """
        mlflow = self._mlflow
        mlflow.set_tracking_uri(self.uri)
        if run_id is not None:
            _run(run_id, self.uri)
            run = mlflow.start_run(run_id=run_id, log_system_metrics=self.system_metrics)
        else:
            if mlflow.get_experiment_by_name(self.experiment) is None:
                mlflow.create_experiment(self.experiment, artifact_location=_artifact_location(self.uri))
            mlflow.set_experiment(self.experiment)
            run = mlflow.start_run(run_name=self.run_name, log_system_metrics=self.system_metrics)
        return run.info.run_id

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
        with tempfile.TemporaryDirectory() as folder:
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
    return _run(run_id, uri).info.run_name


def snapshot_steps(run_id: str, *, uri: str | None = None) -> list[int]:
    """Steps at which a run kept snapshots, rising."""
    _run(run_id, uri)
    return sorted(int(Path(f.path).stem.removeprefix("step-")) for f in _client(uri).list_artifacts(run_id, SNAPSHOTS))


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
    with tempfile.TemporaryDirectory() as folder:
        path = _client(uri).download_artifacts(run_id, f"{SNAPSHOTS}/step-{step:08d}.npz", folder)
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
    run, client, curves = _run(run_id, uri), _client(uri), {}
    for name in sorted(run.data.metrics):
        points = sorted(client.get_metric_history(run_id, name), key=lambda m: (m.step, m.timestamp))
        last = {m.step: m.value for m in points}  # a resumed run repeats some steps: the later value counts
        curves[name] = (np.array(list(last)), np.array(list(last.values())))
    return curves


def _mlflow() -> Any:
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # MLflow looks for git and complains where there is none
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import mlflow  # a second to import, and only needed here
    except ImportError as error:
        raise missing_extra("MLflow tracking", "tracking") from error
    for name in ("mlflow.system_metrics", "mlflow.store.db.utils", "alembic"):  # they announce each start
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def _client(uri: str | None) -> Any:
    return _mlflow().MlflowClient(tracking_uri=tracking_uri(uri))


def _run(run_id: str, uri: str | None) -> Any:
    try:
        return _client(uri).get_run(run_id)
    except _mlflow().exceptions.MlflowException as error:
        uri = tracking_uri(uri)
        raise ValueError(
            f"run_id: expected a run in the store {uri!r}, got {run_id!r}. Look it up with `mlflow ui "
            f"--backend-store-uri {uri}`, or name another store with uri=... or MLFLOW_TRACKING_URI."
        ) from error


def _artifact_location(uri: str) -> str | None:
    """Artifacts of a sqlite store go beside the database, wherever the process was started."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()
