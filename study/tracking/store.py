"""Write a study's runs to MLflow, each to exactly one run, however often it is repeated."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from study.analysis import configs
from study.ledger import LEDGER, State, Trial
from study.names import CONFIRM
from study.records import (
    FinishRecord,
    Record,
    ReportRecord,
    SelectRecord,
    SessionRecord,
    StudyRecord,
)
from study.telemetry import turn_off
from study.tracking import content
from study.tracking.uri import artifact_location, sqlite_path

MAX_METRICS, MAX_PARAMS = 900, 90
STUDY_FILES = ("report.html", "results.csv", "space.yaml", "task.yaml", LEDGER)
STUDY_FOLDERS = ("exports", "plots")
PLOTS = "plots"


def prepare_environment() -> None:
    """Before mlflow is imported: no telemetry, short retries, no run or server set from outside."""
    turn_off()
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "5"
    for name in ("RUN_ID", "EXPERIMENT_ID", "EXPERIMENT_NAME", "TRACKING_URI", "REGISTRY_URI"):
        os.environ.pop(f"MLFLOW_{name}", None)


class Store:
    """The runs of one study. Every method may raise what mlflow raises, and may be called again.

    Runs are found by tags, so a new process, or a rebuilt one, goes on in the same runs.
    """

    def __init__(self, tracking_uri: str, study: StudyRecord, folder: Path) -> None:
        prepare_environment()
        from mlflow import MlflowClient

        self.study = study
        self.folder = folder
        if (path := sqlite_path(tracking_uri)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._experiment = self._find_experiment(tracking_uri, study.task_name)
        self._runs: dict[str, str] = {}
        self._statuses: dict[str, str] = {}
        self._described: set[str] = set()
        self._find_runs()
        self._parent = self._runs.get("") or self._create("", study.name, study.time, {})

    def _find_experiment(self, uri: str, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name, artifact_location(uri))
            except MlflowException as error:
                found = self._client.get_experiment_by_name(name)
                if found is None or error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        if found.lifecycle_stage != "active":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _find_runs(self) -> None:
        began = content.study_tags(self.study)["study_began"]
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                f"tags.study_began = '{began}'",
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            for run in page:
                tags = run.data.tags
                if tags.get("study") == self.study.name:
                    self._runs.setdefault(tags.get("trial_id", ""), run.info.run_id)
                    self._statuses[run.info.run_id] = run.info.status
            token = page.token
            if not token:
                return

    def _create(self, trial: str, name: str, began: float, tags: dict[str, str]) -> str:
        if trial:
            tags = {**tags, "mlflow.parentRunId": self._parent}
        else:
            tags = {**content.study_tags(self.study), "stage": content.STUDY_STAGE}
        run = self._client.create_run(self._experiment, content.milliseconds(began), tags, name)
        self._runs[trial] = run.info.run_id
        self._statuses[run.info.run_id] = run.info.status
        return str(run.info.run_id)

    def write_trial(self, trial: Trial, epochs: Iterable[int], *, live: bool) -> None:
        """Bring the trial's run up to date; of its metrics, those of these epochs."""
        tags = content.trial_tags(self.study, trial)
        run = self._runs.get(trial.id)
        if run is None:
            run = self._create(trial.id, content.trial_name(trial), trial.started, tags)
        points = content.trial_points(trial, epochs) + content.final_points(trial)
        if run not in self._described:
            self._client.log_text(run, configs.as_yaml(trial.config), "config.yaml")
            self._log(run, params=content.trial_params(trial))
            self._described.add(run)
        self._log(run, points=points, tags=tags)
        ended = content.milliseconds(trial.end.time) if trial.end else None
        self._set_status(run, content.run_status(trial, live=live), ended)

    def write_study(self, state: State, when: float, *, live: bool) -> None:
        """Bring the study's own run up to date; `when` is the time of the ledger's last line."""
        if self._parent not in self._described:
            self._log(
                self._parent,
                params=content.study_params(self.study),
                tags={"mlflow.note.content": content.study_note(self.study)},
            )
            self._described.add(self._parent)
        status = content.study_status(state, live=live)
        ended = content.milliseconds(when) if state.finished else None
        self._set_status(self._parent, status, ended)

    def write_files(self, state: State) -> None:
        """What lies in the folder by now: exports, report, plots; per trial its pictures."""
        for name in STUDY_FILES:
            if (path := self.folder / name).is_file():
                self._client.log_artifact(self._parent, str(path))
        for name in STUDY_FOLDERS:
            if (path := self.folder / name).is_dir():
                self._client.log_artifacts(self._parent, str(path), name)
        for trial in state.completed(CONFIRM):
            if (path := self.folder / PLOTS / trial.id).is_dir():
                self._client.log_artifacts(self._runs[trial.id], str(path))

    def _log(
        self,
        run: str,
        *,
        points: Iterable[content.Point] = (),
        params: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        entries = [Param(key, value) for key, value in (params or {}).items()]
        for some in _chunks(entries, MAX_PARAMS):
            self._client.log_batch(run, params=some)
        metrics = [Metric(key, value, when, epoch) for key, value, when, epoch in points]
        for some in _chunks(metrics, MAX_METRICS):
            self._client.log_batch(run, metrics=some)
        if tags:
            self._client.log_batch(run, tags=[RunTag(key, value) for key, value in tags.items()])

    def _set_status(self, run: str, status: str, ended: int | None) -> None:
        if self._statuses.get(run) == status:
            return
        if ended is None:
            self._client.update_run(run, status=status)
        else:
            self._client.set_terminated(run, status, ended)
        self._statuses[run] = status


def _chunks(items: list[Any], size: int) -> Iterable[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


class Projection:
    """The ledger's lines so far, and which trials have something that MLflow has not.

    The lines are the spool: whatever fails is tried again from the state that they give.
    """

    def __init__(self, folder: Path, tracking_uri: str) -> None:
        self.folder = folder
        self.state = State()
        self._uri = tracking_uri
        self._store: Store | None = None
        self._waiting: dict[str, list[int]] = {}
        self._study_waits = False
        self._when = 0.0
        self.num_lines = 0
        self.last_success = time.monotonic()

    def take(self, record: Record) -> None:
        """One more ledger record. A repeated epoch sends the first report again: nothing new."""
        self.state.apply(record)
        self.num_lines += 1
        self._when = record.time
        if isinstance(record, StudyRecord | SessionRecord | SelectRecord | FinishRecord):
            self._study_waits = True
            return
        waiting = self._waiting.setdefault(record.trial, [])
        if isinstance(record, ReportRecord):
            waiting.append(record.epoch)

    def push(self, *, live: bool) -> bool:
        """Send what waits; whether nothing waits any more. The first error, at the end, is raised.

        A trial that fails does not hold up the others; two in a row are taken for a lost server.
        """
        if self.state.study is None:
            return True
        if self._store is None:
            self._store = Store(self._uri, self.state.study, self.folder)
        if self._study_waits:
            self._store.write_study(self.state, self._when, live=live)
            self._study_waits = False
        errors: list[Exception] = []
        in_a_row = 0
        for trial, epochs in list(self._waiting.items()):
            try:
                self._store.write_trial(self.state.trials[trial], epochs, live=live)
            except Exception as error:
                errors.append(error)
                in_a_row += 1
                if in_a_row == 2:
                    break
            else:
                in_a_row = 0
                self.last_success = time.monotonic()
                del self._waiting[trial]
        if errors:
            raise errors[0]
        return not self._waiting

    def finish(self) -> None:
        """Send what waits and what the driver's end changes: statuses, files."""
        for trial in self.state.trials.values():
            if trial.end is None:
                self._waiting.setdefault(trial.id, [])
        self._study_waits = True
        self.push(live=False)
        if self._store is not None:
            self._store.write_files(self.state)
            self.last_success = time.monotonic()
