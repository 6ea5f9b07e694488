"""The runs of a study in MLflow: each trial is exactly one run, even if written again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.core import yaml_text as configs
from study.core.names import ANSWER, EXPORTS
from study.core.telemetry import turn_off
from study.ledger.journal import LEDGER
from study.ledger.records import StudyRecord
from study.ledger.state import State, Trial
from study.tracking import content, database
from study.tracking.models import Models
from study.tracking.uri import artifact_location, sqlite_path

STUDY_FILES = (
    "report.html", "results.csv", ANSWER, "space.yaml", "task.yaml", "confirm_task.yaml", LEDGER,
)  # fmt: skip
STUDY_FOLDERS = (EXPORTS, "plots", "tables")
PLOTS = "plots"
RUNS_PER_PAGE = 200  # each comes with all its params, tags and last values


def prepare_environment() -> None:
    """Configure mlflow before its import: no telemetry, no prints, no run or server set from
    outside, and no silent retries. A repeated `create_run` makes a second run; the store checks
    before it repeats."""
    turn_off()
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"  # the file may be replaced
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for name in ("RUN_ID", "EXPERIMENT_ID", "EXPERIMENT_NAME", "TRACKING_URI", "REGISTRY_URI"):
        os.environ.pop(f"MLFLOW_{name}", None)


def is_refusal(error: Exception) -> bool:
    """Whether the store has understood and will refuse again; otherwise it may be away."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and error.get_http_status_code() in (400, 404, 409)


@dataclass
class _Run:
    """A run in MLflow.

    digest: that of its content, None once it is written to. described: this process has written
    params, all tags and the config.
    """

    id: str
    status: str
    ended: int | None
    digest: str | None = None
    described: bool = False


class Store:
    """The runs of one study. Every method may raise what mlflow raises, and may be called again.

    Runs are found by their tags, so a new process continues the same ones. Of several runs of one
    trial (for example, the response to the first `create_run` was lost) it keeps one and deletes
    the others; if all are deleted, it restores one. `thorough`: also write what seems to be there
    already.
    """

    def __init__(
        self, tracking_uri: str, study: StudyRecord, folder: Path, *, thorough: bool = False
    ) -> None:
        prepare_environment()
        from mlflow import MlflowClient

        self.study = study
        self.folder = folder
        self._thorough = thorough
        self._path = sqlite_path(tracking_uri)
        self.replaced = None
        if self._path is not None:
            self.replaced = database.prepare(self._path, thorough=thorough)
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._experiment = self._find_experiment(tracking_uri, study.task_name)
        self._runs: dict[str, _Run] = {}
        self._doubtful: set[str] = set()  # trials that may have a run unknown to us
        self._late_runs = False
        self._configs: dict[str, str] = {}  # of trials, not uploaded yet
        self._takes_files = True
        self._find_runs()
        if "" not in self._runs:
            tags = {**content.study_tags(study), "stage": content.STUDY_STAGE}
            self._create("", study.name, study.time, tags)
        self._parent = self._runs[""]

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

    def _find_runs(self, trial: str | None = None) -> None:
        """Find the study's runs, or those of one trial, and keep one of each."""
        found: dict[str, list[tuple[tuple[bool, bool, int, str], _Run]]] = {}
        for run in self._search(trial):
            key = run.data.tags.get("trial_id", "")
            held = key in self._runs and self._runs[key].id == run.info.run_id
            active = run.info.lifecycle_stage == "active"
            order = (not held, not active, run.info.start_time, run.info.run_id)
            mine = _Run(run.info.run_id, run.info.status, run.info.end_time, self._digest(run))
            found.setdefault(key, []).append((order, mine))
        for key, candidates in found.items():
            (order, kept), *others = sorted(candidates, key=lambda item: item[0])
            if order[1]:
                self._client.restore_run(kept.id)
            for order, other in others:
                if not order[1]:
                    self._client.delete_run(other.id)
            if order[0] or key not in self._runs:
                self._runs.setdefault(key, kept)

    def _search(self, trial: str | None) -> Iterator[Any]:
        from mlflow.entities import ViewType

        began = content.study_tags(self.study)["study_began"]
        wanted = f"tags.study_began = '{began}'"
        if trial:
            wanted += f" and tags.trial_id = '{trial}'"
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                wanted,
                run_view_type=ViewType.ALL,
                max_results=RUNS_PER_PAGE,
                page_token=token,
            )
            yield from (run for run in page if run.data.tags.get("study") == self.study.name)
            token = page.token
            if not token:
                return

    def _digest(self, run: Any) -> str:
        return content.digest(
            run.info.status, run.info.end_time, run.data.tags, run.data.params, run.data.metrics
        )

    def _create(self, key: str, name: str, began: float, tags: dict[str, str]) -> _Run:
        if key in self._doubtful:
            self._find_runs(key)
            self._doubtful.discard(key)
            if key in self._runs:
                return self._runs[key]
        try:
            info = self._client.create_run(
                self._experiment, content.milliseconds(began), tags, name
            ).info
        except Exception:
            self._doubtful.add(key)
            self._late_runs = True
            raise
        self._runs[key] = _Run(info.run_id, info.status, info.end_time)
        return self._runs[key]

    def is_lost(self, error: Exception) -> bool:
        """Whether an error came because the study's own run is gone: it was deleted, the store is
        new, or its file is gone or ruined."""
        path = self._path
        if path is not None and not database.is_whole(path):
            return True
        if not is_refusal(error):  # a server that is away would not answer this question either
            return False
        try:
            run = self._client.get_run(self._parent.id)
        except Exception as another:
            if is_refusal(another):
                return True
            raise
        return str(run.info.lifecycle_stage) != "active"

    def doubt(self, trial: str) -> None:
        """Look for the trial's run again at the next write, because it refuses writes."""
        self._runs.pop(trial, None)
        self._doubtful.add(trial)

    def write_trial(self, trial: Trial, epochs: Iterable[int], *, live: bool) -> None:
        """Update the trial's run; of its metrics, write those of these epochs. Where files cannot
        be stored, its config waits for `write_files`."""
        parent = self._parent.id
        tags = {**content.trial_tags(self.study, trial), content.PARENT: parent}
        is_new = trial.id not in self._runs
        run = self._runs.get(trial.id) or self._create_for(trial, tags)
        there = run.digest is not None and trial.end is not None and not self._thorough
        if there and run.digest == content.trial_digest(self.study, trial, parent):
            return
        points = content.trial_points(trial, epochs) + content.final_points(trial)
        if run.described:
            self._log(run, points, {}, {k: v for k, v in tags.items() if k in content.CHANGING})
        else:
            params = content.trial_params(trial)
            try:
                self._log(run, points, params, {} if is_new and run.digest is None else tags)
            except Exception as error:
                if not (is_refusal(error) and self._holds_others(run, params)):
                    raise
                self._client.delete_run(run.id)  # a param cannot be changed
                del self._runs[trial.id]
                run = self._create_for(trial, tags)
                points = content.trial_points(trial) + content.final_points(trial)
                self._log(run, points, params, {})
            self._configs[trial.id] = configs.as_yaml(trial.config)
            run.described = True
        ended = content.milliseconds(trial.end.time) if trial.end else None
        self._set_status(run, content.run_status(trial, live=live), ended)
        run.digest = None
        if self._takes_files:
            try:
                self._write_configs()
            except Exception:
                self._takes_files = False

    def _write_configs(self) -> None:
        for trial, text in list(self._configs.items()):
            if trial in self._runs:
                self._client.log_text(self._runs[trial].id, text, "config.yaml")
            del self._configs[trial]

    def _create_for(self, trial: Trial, tags: dict[str, str]) -> _Run:
        return self._create(trial.id, content.trial_name(trial), trial.started, tags)

    def _holds_others(self, run: _Run, params: dict[str, str]) -> bool:
        held = self._client.get_run(run.id).data.params
        return any(held.get(key, value) != value for key, value in params.items())

    def write_study(self, state: State, ended: float, *, live: bool) -> None:
        """Update the study's own run. `ended`: when the study ended, if it has."""
        run = self._parent
        if not run.described:
            params = content.study_params(self.study)
            tags = {"mlflow.note.content": content.study_note(self.study)}
            try:
                self._log(run, [], params, tags)
            except Exception as error:
                if not (is_refusal(error) and self._holds_others(run, params)):
                    raise
                self._log(run, [], {}, tags)  # a param cannot be changed, and this run has children
            run.described = True
        status = content.study_status(state, live=live)
        self._set_status(run, status, content.milliseconds(ended) if state.finished else None)

    def write_files(self, confirmed: Iterable[str], on_success: Callable[[], None]) -> None:
        """Upload the present files of the folder: exports, report, plots, and the pictures of
        these trials; and the configs that are not uploaded yet."""
        self._write_configs()
        for name in STUDY_FILES:
            if (path := self.folder / name).is_file():
                self._client.log_artifact(self._parent.id, str(path))
                on_success()
        pictures = [(trial, self.folder / PLOTS / trial, None) for trial in confirmed]
        folders = [("", self.folder / name, name) for name in STUDY_FOLDERS]
        for run, path, below in folders + pictures:
            if run in self._runs and path.is_dir():
                self._client.log_artifacts(self._runs[run].id, str(path), below)
                on_success()

    def write_answer(self, ended: float) -> None:
        """Give the study's own run the answer: its table and sentences as the description and,
        once it is confirmed, its numbers. `ended`: when the study ended."""
        path = self.folder / ANSWER
        if not path.is_file():
            return
        answer = json.loads(path.read_text(encoding="utf-8"))
        note = content.answer_note(self.study, answer)
        points = content.answer_points(answer, ended)
        self._log(self._parent, points, {}, {"mlflow.note.content": note})

    @property
    def models(self) -> Models:
        """The exported networks of the study in MLflow."""
        run = self._parent.id
        return Models(self._client, self._experiment, run, self.study, self.folder)

    def tidy(self) -> None:
        """Delete runs that a slow server made after all and that were discovered too late."""
        if self._late_runs:
            self._find_runs()
            self._late_runs = False

    def _log(
        self,
        run: _Run,
        points: Iterable[content.Point],
        params: dict[str, str],
        tags: dict[str, str],
    ) -> None:
        """Send everything in one request, if 1000 items can hold it."""
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            run.id,
            [Metric(key, value, when, epoch) for key, value, when, epoch in points],
            [Param(key, value) for key, value in params.items()],
            [RunTag(key, value) for key, value in tags.items()],
        )

    def _set_status(self, run: _Run, status: str, ended: int | None) -> None:
        if run.status == status and ended in (None, run.ended):
            return
        if ended is None:
            self._client.update_run(run.id, status=status)
        else:
            self._client.set_terminated(run.id, status, ended)
        run.status, run.ended = status, ended
