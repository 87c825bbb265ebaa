"""MLflow behind five methods, and a null tracker with the same five, so that no other module asks whether to track.

The default store is sqlite, ``sqlite:///mlflow.db``, with artifacts beside it; any tracking URI works. Besides curves a
run keeps *snapshots*: the Trajectory of a few samples drawn from the same noise at fixed points of the training.
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

from fm_core.solvers import Trajectory

__all__ = [
    "DEFAULT_URI",
    "MLflowTracker",
    "NullTracker",
    "Tracker",
    "load_history",
    "load_snapshots",
    "run_name",
    "save_trajectory",
    "snapshot_steps",
    "tracking_uri",
]

DEFAULT_URI = "sqlite:///mlflow.db"
SNAPSHOTS = "snapshots"


def tracking_uri(uri: str | None = None) -> str:
    """The store in force: the argument, else ``$MLFLOW_TRACKING_URI``, else ``sqlite:///mlflow.db``."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


class Tracker(Protocol):
    """What training asks of a tracker; ``run_id`` is None where nothing is kept."""

    run_id: str | None

    def log_params(self, params: Mapping[str, Any]) -> None: ...
    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None: ...
    def log_file(self, path: str | os.PathLike[str], folder: str | None = None) -> None: ...
    def log_snapshot(self, trajectory: Trajectory, step: int) -> None: ...
    def close(self, status: str = "FINISHED") -> None: ...


class NullTracker:
    """Keeps nothing; the same methods as :class:`MLflowTracker`."""

    run_id: str | None = None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Do nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def log_file(self, path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Do nothing."""

    def log_snapshot(self, trajectory: Trajectory, step: int) -> None:
        """Do nothing."""

    def close(self, status: str = "FINISHED") -> None:
        """Do nothing."""


class MLflowTracker:
    """One MLflow run, new or resumed, that also records the machine's load.

    Args:
        uri: tracking URI; see :func:`tracking_uri`.
        experiment: experiment to put a new run in.
        run_name: name of a new run.
        run_id: an earlier run to go on with; its curves are continued.
        system_metrics: record processor, memory and GPU load every ten seconds.

    Raises:
        ValueError: ``run_id`` names a run that the store does not hold.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        experiment: str = "flow-matching",
        run_name: str | None = None,
        run_id: str | None = None,
        system_metrics: bool = True,
    ) -> None:
        self.uri = tracking_uri(uri)
        self._client = _client(self.uri)
        if run_id is None:
            found = self._client.get_experiment_by_name(experiment)
            experiment_id = (
                found.experiment_id
                if found
                else self._client.create_experiment(experiment, artifact_location=_artifact_location(self.uri))
            )
            run_id = self._client.create_run(experiment_id, run_name=run_name).info.run_id
            resumed = False
        else:
            _require_run(self._client, run_id, self.uri)
            self._client.update_run(run_id, status="RUNNING")
            resumed = True
        self.run_id = run_id
        self._monitor = _start_monitor(run_id, self.uri, resumed) if system_metrics else None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record what was chosen before training. Where a resumed run differs, the new value becomes a tag."""
        from mlflow.entities import Param, RunTag

        known = self._client.get_run(self.run_id).data.params
        fresh = [Param(name, str(value)) for name, value in params.items() if name not in known]
        changed = [RunTag(f"resumed.{n}", str(v)) for n, v in params.items() if n in known and known[n] != str(v)]
        self._client.log_batch(self.run_id, params=fresh, tags=changed)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record one point of each curve; ``step`` is the number of optimizer steps taken."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        self._client.log_batch(self.run_id, [Metric(k, float(v), now, step) for k, v in metrics.items()])

    def log_file(self, path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Keep a copy of a file as an artifact, in ``folder`` of the run."""
        self._client.log_artifact(self.run_id, str(path), folder)

    def log_snapshot(self, trajectory: Trajectory, step: int) -> None:
        """Keep a Trajectory as ``snapshots/step-00000500.npz``."""
        with tempfile.TemporaryDirectory() as folder:
            self.log_file(save_trajectory(Path(folder) / f"step-{step:08d}.npz", trajectory), SNAPSHOTS)

    def close(self, status: str = "FINISHED") -> None:
        """End the run. ``status`` is ``"FINISHED"``, ``"FAILED"`` or ``"KILLED"``."""
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        self._client.set_terminated(self.run_id, status)


def save_trajectory(path: str | os.PathLike[str], trajectory: Trajectory) -> Path:
    """Write a Trajectory as a compressed ``.npz``, states and velocities in half precision.

    Args:
        path: file, ending in ``.npz``.
        trajectory: with velocities.
    """
    path = Path(path)
    half = {"x": trajectory.x, "velocity": trajectory.velocity}
    np.savez_compressed(
        path,
        t=trajectory.t.cpu().numpy(),
        nfe=trajectory.nfe,
        **{name: value.cpu().numpy().astype(np.float16) for name, value in half.items()},
    )
    return path


def run_name(run_id: str, *, uri: str | None = None) -> str:
    """Name of a run, such as ``"residual U-Net"``."""
    return _require_run(_client(tracking_uri(uri)), run_id, tracking_uri(uri)).info.run_name


def snapshot_steps(run_id: str, *, uri: str | None = None) -> list[int]:
    """Steps at which a run kept snapshots, rising."""
    client = _client(tracking_uri(uri))
    _require_run(client, run_id, tracking_uri(uri))
    return sorted(int(Path(f.path).stem.removeprefix("step-")) for f in client.list_artifacts(run_id, SNAPSHOTS))


def load_snapshots(run_id: str, *, step: int | None = None, uri: str | None = None) -> Trajectory:
    """The Trajectory that a run kept, by default its last.

    Args:
        run_id: MLflow's id of the run.
        step: one of :func:`snapshot_steps`.
        uri: tracking URI; see :func:`tracking_uri`.

    Returns:
        A Trajectory in float32 on the CPU (states and velocities were stored in half precision).

    Raises:
        ValueError: no such run, no snapshots, or none at that step; the message lists what there is.
    """
    steps = snapshot_steps(run_id, uri=uri)
    if not steps:
        raise ValueError(f"run_id={run_id!r} kept no snapshots; train with snapshots (eval_every > 0) and try again.")
    step = steps[-1] if step is None else step
    if step not in steps:
        raise ValueError(f"step={step}: run {run_id!r} kept snapshots at steps {steps}.")
    with tempfile.TemporaryDirectory() as folder:
        path = _client(tracking_uri(uri)).download_artifacts(run_id, f"{SNAPSHOTS}/step-{step:08d}.npz", folder)
        with np.load(path) as arrays:
            t, x, v = (torch.from_numpy(arrays[name]).float() for name in ("t", "x", "velocity"))
            return Trajectory(t=t, x=x, velocity=v, nfe=int(arrays["nfe"]))


def load_history(run_id: str, *, uri: str | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every curve of a run.

    Args:
        run_id: MLflow's id of the run.
        uri: tracking URI; see :func:`tracking_uri`.

    Returns:
        ``{name: (steps, values)}``, each sorted by step.

    Raises:
        ValueError: no such run.
    """
    client = _client(tracking_uri(uri))
    run = _require_run(client, run_id, tracking_uri(uri))
    curves = {}
    for name in sorted(run.data.metrics):
        points = sorted(client.get_metric_history(run_id, name), key=lambda m: (m.step, m.timestamp))
        last = {m.step: m.value for m in points}  # a resumed run goes over its last steps again: the later value counts
        curves[name] = (np.array(list(last)), np.array(list(last.values())))
    return curves


def _client(uri: str) -> Any:
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # MLflow looks for git and complains where there is none
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient  # a second to import, and only needed here

    for announces_each_start in ("mlflow.system_metrics", "mlflow.store.db.utils", "alembic"):
        logging.getLogger(announces_each_start).setLevel(logging.WARNING)

    return MlflowClient(tracking_uri=uri)


def _require_run(client: Any, run_id: str, uri: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        raise ValueError(
            f"run_id={run_id!r} is not in the store {uri!r}. Check the id in the MLflow UI "
            f"(mlflow ui --backend-store-uri {uri}) or name another store with uri=... or MLFLOW_TRACKING_URI."
        ) from error


def _artifact_location(uri: str) -> str | None:
    """Artifacts of a sqlite store go beside the database, wherever the notebook was started."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()


def _start_monitor(run_id: str, uri: str, resumed: bool) -> Any:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, resume_logging=resumed, tracking_uri=uri)
    monitor.start()
    return monitor
