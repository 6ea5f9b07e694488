"""One SQLite store for all tests here: its first opening takes seconds."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ledgers import EPOCHS, make_study

from study import track, tracking
from study.analysis.answer import answer
from study.core.names import COMPLETED, CONFIRM, FAILED, STOPPED_EARLY
from study.core.yaml_text import as_yaml
from study.ledger.journal import LEDGER, Ledger, read
from study.ledger.records import EndRecord, ReportRecord, TrialRecord
from study.ledger.state import State
from study.reporting.exports import export
from study.storage.studies import load
from study.tracking.content import milliseconds
from study.tracking.follow import only_writer
from study.tracking.projection import Projection

pytestmark = pytest.mark.slow


@dataclass
class Tracked:
    """What MLflow holds of a study: its parent run, and its children by trial id."""

    client: Any
    folder: Path
    uri: str
    parent: Any
    runs: dict[str, Any]

    def points(self, trial: str, key: str) -> list[tuple[int, float, int]]:
        history = self.client.get_metric_history(self.runs[trial].info.run_id, key)
        return [(point.step, point.value, point.timestamp) for point in history]


Look = Callable[[Path], Tracked]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module")
def look(storage: Path) -> Look:
    uri = tracking.default_uri(storage)

    def look(folder: Path) -> Tracked:
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("synthetic")
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id], f"tags.study = '{folder.name}'")
        children = [run for run in found if "trial_id" in run.data.tags]
        (parent,) = [run for run in found if run.data.tags["stage"] == "study"]
        assert len({run.data.tags["trial_id"] for run in children}) == len(children)
        runs = {run.data.tags["trial_id"]: run for run in children}
        return Tracked(client, folder, uri, parent, runs)

    return look


def send(folder: Path, uri: str) -> None:
    projection = Projection(folder, uri)
    while not projection.finish():
        pass


@pytest.fixture(scope="module")
def sent(storage: Path, look: Look) -> Iterator[Tracked]:
    folder = make_study(storage / "sent")
    picture = "plots/pictures/1_gain.png"
    for name in ("exports/best_miou.yaml", "plots/curves.png", picture, "report.html", "task.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    confirmed = load(folder).completed(CONFIRM)[0].id
    (folder / "plots" / confirmed).mkdir()
    (folder / "plots" / confirmed / "confusion.png").write_text("picture")
    send(folder, tracking.default_uri(storage))
    yield look(folder)


@pytest.fixture(scope="module")
def state(sent: Tracked) -> State:
    return load(sent.folder)


def test_each_trial_is_a_child_of_the_study(sent: Tracked, state: State) -> None:
    assert set(sent.runs) == set(state.trials)
    for run in sent.runs.values():
        assert run.data.tags["mlflow.parentRunId"] == sent.parent.info.run_id
    assert sent.parent.info.status == "FINISHED"
    assert sent.parent.data.params["plan/num_trials"] == "16"


def test_every_metric_of_every_epoch_is_the_ledgers_to_the_last_digit(
    sent: Tracked, state: State
) -> None:
    for trial in state.trials.values():
        for key in trial.last:
            expected = [
                (epoch, report[key], milliseconds(trial.report_times[epoch]))
                for epoch, report in sorted(trial.reports.items())
                if key in report
            ]
            assert sorted(sent.points(trial.id, key)) == expected


def test_mlflow_and_an_export_agree_to_the_last_digit(sent: Tracked, state: State) -> None:
    found = answer(state, sent.folder)
    assert found.best_miou is not None
    origin = export(state, found, found.best_miou)["provenance"]
    in_file = yaml.safe_load(as_yaml(origin))
    held = sent.runs[origin["trial"]].data.metrics
    assert "test/miou" in in_file["metrics"]
    assert {key: held[key] for key in in_file["metrics"]} == in_file["metrics"]
    assert held["final/miou"] == in_file["metrics"]["val/miou"]


def test_a_repeated_epoch_keeps_its_first_report(sent: Tracked, state: State) -> None:
    (resumed,) = [trial for trial in state.trials.values() if trial.attempt]
    points = sent.points(resumed.id, "time/epoch_s")
    assert [(step, value) for step, value, _ in points] == [(e, 1.25) for e in range(1, EPOCHS + 1)]


def test_statuses_and_tags_say_how_a_trial_ended(sent: Tracked, state: State) -> None:
    word = {COMPLETED: "FINISHED", STOPPED_EARLY: "FINISHED", FAILED: "FAILED"}
    for trial in state.trials.values():
        run = sent.runs[trial.id]
        assert trial.end is not None
        assert run.info.status == word[trial.end.status]
        assert run.info.end_time == milliseconds(trial.end.time)
        tags = {key: run.data.tags[key] for key in ("stage", "status", "epochs_seen", "reason")}
        assert tags == {
            "stage": trial.stage,
            "status": trial.end.status,
            "epochs_seen": str(trial.epochs),
            "reason": trial.end.reason,
        }
        final = {key: v for key, v in run.data.metrics.items() if key.startswith("final/")}
        if trial.status == COMPLETED:
            assert final["final/miou"] == trial.last["val/miou"]
        else:
            assert final == {}


def test_params_are_the_resolved_config(sent: Tracked, state: State) -> None:
    trial = next(trial for trial in state.trials.values() if trial.label == "lmp")
    params = sent.runs[trial.id].data.params
    assert params["loss/pooling/p"] == "inf"
    assert params["task/optimizer/lr"] == "0.01"
    assert params["task/data/size"] == "[64, 80]"


def test_files_are_where_a_person_looks(sent: Tracked, state: State) -> None:
    def names(run: Any, path: str | None = None) -> set[str]:
        return {item.path for item in sent.client.list_artifacts(run.info.run_id, path)}

    expected = {LEDGER, "report.html", "task.yaml", "exports", "plots"}
    assert names(sent.parent) == expected
    assert names(sent.parent, "exports") == {"exports/best_miou.yaml"}
    assert names(sent.parent, "plots/pictures") == {"plots/pictures/1_gain.png"}
    assert sent.parent.info.artifact_uri.startswith((sent.folder.parent / "mlartifacts").as_uri())
    first, second, *_ = state.completed(CONFIRM)
    assert names(sent.runs[first.id]) == {"config.yaml", "confusion.png"}
    assert names(sent.runs[second.id]) == {"config.yaml"}


def test_sending_twice_changes_nothing(sent: Tracked, state: State, look: Look) -> None:
    assert track.main([str(sent.folder), "--tracking-uri", sent.uri]) == 0
    again = look(sent.folder)
    assert again.parent.info.run_id == sent.parent.info.run_id
    for trial in state.trials.values():
        assert again.runs[trial.id].info == sent.runs[trial.id].info
        assert again.runs[trial.id].data.tags == sent.runs[trial.id].data.tags
        for key in ("val/miou", "final/miou"):
            assert again.points(trial.id, key) == sent.points(trial.id, key)


def test_a_study_that_its_driver_tracks_is_left_to_it(
    sent: Tracked, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_writer(sent.folder, wait=False) as held:
        assert held
        assert track.main([str(sent.folder), "--tracking-uri", sent.uri]) == 2
    assert "driver is tracking it already" in capsys.readouterr().err


def test_a_study_of_the_same_name_has_runs_of_its_own(storage: Path, sent: Tracked) -> None:
    other = make_study(storage / "elsewhere" / "sent", until="baselines", seed=1)
    send(other, sent.uri)
    experiment = sent.client.get_experiment_by_name("synthetic")
    found = sent.client.search_runs([experiment.experiment_id], "tags.study = 'sent'")
    assert len(found) == len(sent.runs) + 1 + len(load(other).trials) + 1
    for run in found:  # leave the store as the other tests expect it
        if run.data.tags["study_began"] != sent.parent.data.tags["study_began"]:
            sent.client.delete_run(run.info.run_id)
    shutil.rmtree(other)


def test_the_follower_sends_everything_and_goes_on_in_the_same_runs(
    storage: Path, sent: Tracked, look: Look
) -> None:
    folder = make_study(storage / "followed", until="baselines")
    sidecar = tracking.start(folder, sent.uri)
    ledger = Ledger(folder)
    first = next(read(folder / LEDGER))

    config = {"loss": {}, "seed": 0}
    handed_out = TrialRecord("t9", 9, "search", "late", "recall", None, config, 0)
    ledger.append(handed_out)
    ledger.append(ReportRecord("t9", 0, 1, {"val/miou": 0.1 + 0.2}))
    assert sidecar.close(240.0) == 0
    assert sidecar.unsent == 0
    before = look(folder)
    assert before.runs["t9"].info.status == "SCHEDULED"
    assert before.parent.info.status == "SCHEDULED"
    assert before.points("t9", "val/miou")[0][:2] == (1, 0.1 + 0.2)

    sidecar = tracking.start(folder, sent.uri)
    ledger.append(TrialRecord(**{**handed_out.__dict__, "attempt": 1}))
    ledger.append(ReportRecord("t9", 1, 1, {"val/miou": 0.5}))
    ledger.append(ReportRecord("t9", 1, 2, {"val/miou": 0.6}))
    ledger.append(EndRecord("t9", COMPLETED, "full budget", 2))
    ledger.close()
    assert sidecar.close(240.0) == 0
    after = look(folder)
    assert {trial: run.info.run_id for trial, run in before.runs.items()} == {
        trial: run.info.run_id for trial, run in after.runs.items()
    }
    assert [value for _, value, _ in after.points("t9", "val/miou")] == [0.1 + 0.2, 0.6]
    assert after.runs["t9"].info.status == "FINISHED"
    assert first.kind == "study"


def test_a_run_whose_first_write_was_lost_has_the_tags_of_its_end(
    storage: Path, sent: Tracked, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is made while the trial is trained; its end comes before the next write."""
    from mlflow import MlflowClient

    folder = storage / "unlucky"
    whole = make_study(storage / "whole" / "unlucky", until="baselines")
    lines = (whole / LEDGER).read_bytes().splitlines(keepends=True)
    end = next(number for number, line in enumerate(lines) if b'"kind": "end"' in line)
    folder.mkdir()
    (folder / LEDGER).write_bytes(b"".join(lines[:end]))
    projection = Projection(folder, sent.uri)
    projection.read()
    with monkeypatch.context() as away:

        def refuse(*_: object, **__: object) -> None:
            raise ConnectionError

        away.setattr(MlflowClient, "create_run", _once_more_then(refuse, MlflowClient, away))
        with pytest.raises(ConnectionError):
            projection.push(live=True)
    (folder / LEDGER).write_bytes(b"".join(lines))
    while not projection.finish():
        pass
    tracked = look(folder)
    for trial in load(folder).trials.values():
        assert tracked.runs[trial.id].data.tags["status"] == trial.status


def _once_more_then(refuse: Callable[..., None], client: Any, patch: pytest.MonkeyPatch) -> Any:
    """create_run, after whose call for a trial nothing else arrives."""
    create = client.create_run

    def create_run(self: Any, *arguments: Any, **keywords: Any) -> Any:
        made = create(self, *arguments, **keywords)
        if "trial_id" in made.data.tags:
            patch.setattr(client, "log_batch", refuse)
        return made

    return create_run


def followers(folder: Path) -> list[int]:
    """The ids of the processes that follow the ledger in a folder and live."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"study.tracking.follow" in words and os.fsencode(folder) in words:
                found.append(int(entry.name))
    return found


def test_a_follower_that_is_killed_is_started_again_and_goes_on(
    storage: Path, sent: Tracked, look: Look
) -> None:
    whole = make_study(storage / "whole" / "killed", until="baselines")
    lines = (whole / LEDGER).read_bytes().splitlines(keepends=True)
    (storage / "killed").mkdir()
    folder, ledger = storage / "killed", storage / "killed" / LEDGER
    ledger.write_bytes(b"".join(lines[:20]))
    sidecar = tracking.Sidecar(folder, sent.uri, pause=0.1)
    while sidecar.unsent:
        time.sleep(0.05)
    (first,) = followers(folder)
    os.kill(first, signal.SIGKILL)
    while not {*followers(folder)} - {first}:
        time.sleep(0.05)
    with open(ledger, "ab") as file:
        file.writelines(lines[20:-10])
    (second,) = {*followers(folder)} - {first}
    os.kill(second, signal.SIGKILL)  # and once more, just before the end
    while Path(f"/proc/{second}").exists():  # until its parent knows
        time.sleep(0.05)
    with open(ledger, "ab") as file:
        file.writelines(lines[-10:])
    assert sidecar.close(240.0) == 0
    assert sidecar.unsent == 0
    tracked = look(folder)
    for trial in load(folder).trials.values():
        assert len(tracked.points(trial.id, "val/miou")) == EPOCHS
        assert tracked.runs[trial.id].info.status == "FINISHED"


def test_what_a_lost_server_missed_is_counted_and_sent_later(
    storage: Path, sent: Tracked, look: Look
) -> None:
    folder = make_study(storage / "missed", until="baselines")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
    sidecar = tracking.start(folder, uri)
    assert sidecar.close(timeout=4.0) == len(list(read(folder / LEDGER)))
    send(folder, sent.uri)
    assert len(look(folder).runs) == 5


def test_a_failure_in_between_loses_nothing(
    storage: Path, sent: Tracked, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    folder = make_study(storage / "shaky", until="baselines")
    projection = Projection(folder, sent.uri)
    projection.read()
    whole, calls = MlflowClient.log_batch, iter(range(1000))

    def shaky(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        if next(calls) % 2:
            raise MlflowException("the server is away")
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", shaky)
    failures = 0
    for _ in range(40):
        try:
            projection.push(live=False)
            break
        except MlflowException:
            failures += 1
    assert failures > 2
    sent_so_far = next(calls)
    projection.push(live=False)
    assert next(calls) == sent_so_far + 1  # nothing is sent twice
    tracked = look(folder)
    for trial in load(folder).trials.values():
        assert len(tracked.points(trial.id, "val/miou")) == EPOCHS
        assert tracked.runs[trial.id].info.status == "FINISHED"
