"""Real processes: a study that is killed or interrupted goes on where its ledger ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine.test_engine import SPACE, task

from study.core.names import COMPLETED
from study.ledger.journal import LEDGER, read
from study.ledger.records import EndRecord, ReportRecord
from study.ledger.state import State, fold
from study.storage.studies import load

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]


class Study:
    """A study in a folder of its own, run as a command."""

    def __init__(self, folder: Path, pause: float = 0.0) -> None:
        self.folder = folder
        space = {**SPACE, "study": {**SPACE["study"], "num_trials": 3}}
        (folder / "space.yaml").write_text(yaml.safe_dump(space))
        tree: dict[str, Any] = {**task(folder / "pids"), "budget": {"epochs": 6}}
        tree["model"]["kwargs"]["pause"] = pause
        (folder / "task.yaml").write_text(yaml.safe_dump(tree))

    @property
    def ledger(self) -> Path:
        return self.folder / "studies" / "s" / LEDGER

    begun = ("space.yaml", "--task", "task.yaml", "--name", "s")

    @property
    def place(self) -> dict[str, Any]:
        """Where a command runs."""
        paths = f"{ROOT}:{ROOT / 'tests'}"
        environment = {**os.environ, "PYTHONPATH": paths, "RAY_ADDRESS": "local"}
        return {"cwd": self.folder, "env": environment}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "study.run", "--max-concurrent", "1", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **self.place,
        )

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        return self.start(*self.begun, *arguments)

    def wait_until(self, met: Callable[[State], bool], process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            if self.ledger.exists() and met(fold(read(self.ledger))):
                return
            time.sleep(0.02)
        raise AssertionError(process.communicate())

    def wait_for_reports(self, count: int, process: subprocess.Popen[str]) -> None:
        self.wait_until(
            lambda state: sum(len(t.reports) for t in state.trials.values()) >= count, process
        )

    @property
    def state(self) -> State:
        return load(self.ledger.parent)


def assert_whole(study: Study) -> None:
    state = study.state
    assert state.finished
    records = list(read(study.ledger))
    assert {trial.status for trial in state.trials.values()} == {COMPLETED}
    for trial in state.trials.values():
        assert sorted(trial.reports) == [1, 2, 3, 4, 5, 6]
        assert sum(isinstance(r, EndRecord) and r.trial == trial.id for r in records) == 1
    again = [(r.trial, r.epoch) for r in records if isinstance(r, ReportRecord)]
    assert len(again) - len(set(again)) <= 1, "at most one epoch is trained again"
    for record in records:
        if isinstance(record, ReportRecord):
            first = state.trials[record.trial].reports[record.epoch]
            same = {k: v for k, v in record.metrics.items() if not k.startswith("time/")}
            assert same == {k: v for k, v in first.items() if not k.startswith("time/")}
    assert (study.ledger.parent / "exports" / "best_miou.yaml").is_file()
    assert not list(study.ledger.parent.rglob("*.pt")), "no checkpoint outlives its trial"


@pytest.mark.timeout(900)
def test_a_killed_driver_loses_nothing_and_resume_ends_the_study(tmp_path: Path) -> None:
    study = Study(tmp_path)
    process = study.begin()
    study.wait_for_reports(15, process)
    process.kill()
    process.wait()
    seen = [record for record in read(study.ledger) if record.kind == "report"]
    resumed = study.start("--resume", "s", "--trust")
    _, err = resumed.communicate()
    assert resumed.returncode == 0, err
    assert_whole(study)
    assert [r for r in read(study.ledger) if r.kind == "report"][: len(seen)] == seen


def reports_of(study: Study) -> list[ReportRecord]:
    return [record for record in read(study.ledger) if isinstance(record, ReportRecord)]


@pytest.mark.timeout(900)
def test_after_one_ctrl_c_the_running_epochs_are_finished_and_none_is_trained_again(
    tmp_path: Path,
) -> None:
    study = Study(tmp_path, pause=0.15)
    told = tmp_path / "told"
    notify = ("--notify", f'echo "$STUDY_NAME $STUDY_EVENT: $STUDY_MESSAGE" >> {told}')
    process = study.begin("--max-concurrent", "2", *notify)
    running: dict[str, int] = {}

    def two_are_under_way_after_others(state: State) -> bool:
        running.clear()
        running.update({t.id: t.epochs for t in state.trials.values() if t.end is None})
        under_way = len(running) == 2 and all(1 <= epochs <= 4 for epochs in running.values())
        return under_way and len(state.trials) > 2

    study.wait_until(two_are_under_way_after_others, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of its processes
    out, err = process.communicate()
    assert process.returncode == 130, (out, err)
    assert "finishing the running epochs; again to stop now" in out
    assert "--resume s" in out
    assert "Traceback" not in out + err
    assert err == ""
    state = study.state
    assert not state.finished
    for name, epochs in running.items():
        assert state.trials[name].epochs > epochs, "the epoch that was under way"
    assert (study.ledger.parent / "report.html").is_file()
    resumed = study.start("--resume", "s", "--trust", "--max-concurrent", "2", *notify)
    _, err = resumed.communicate()
    assert resumed.returncode == 0, err
    assert_whole(study)
    first, second = told.read_text().splitlines()
    assert first.startswith("s interrupted: ") and second.startswith("s finished: ")
    assert len(second) > len("s finished: ")
    seen = [(record.trial, record.epoch) for record in reports_of(study)]
    assert len(seen) == len(set(seen)), "no epoch is trained again"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_study_whose_output_nobody_reads_goes_on_to_its_end(tmp_path: Path) -> None:
    study = Study(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "study.run", *study.begun]
    done = subprocess.run(
        command, check=False, stdout=writer, stderr=subprocess.PIPE, text=True, **study.place
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert_whole(study)


INTERRUPTING = """
import os, signal, sys
from study import run
from study.scheduler.study_scheduler import StudyScheduler

hand_out = StudyScheduler._hand_out

def interrupted(self, record, slots):
    handed_out = hand_out(self, record, slots)
    if record.trial == "t0003":
        os.kill(os.getpid(), signal.SIGINT)
    return handed_out

StudyScheduler._hand_out = interrupted
sys.exit(run.main(sys.argv[1:]))
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_after_ctrl_c_between_hand_out_and_start_of_a_trial_there_are_exports(
    tmp_path: Path,
) -> None:
    study = Study(tmp_path)
    command = [sys.executable, "-c", INTERRUPTING, *study.begun]
    done = subprocess.run(command, check=False, capture_output=True, text=True, **study.place)
    assert (done.returncode, done.stderr) == (130, ""), done.stdout
    assert "--resume s" in done.stdout
    assert "Last result" not in done.stdout, "Tune says nothing"
    assert (study.ledger.parent / "exports" / "best_miou.yaml").is_file()
    resumed = study.start("--resume", "s", "--trust")
    _, err = resumed.communicate()
    assert resumed.returncode == 0, err
    assert_whole(study)


@pytest.mark.timeout(900)
def test_a_second_driver_is_refused_and_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    study = Study(tmp_path, pause=4.0)
    process = study.begin("--max-concurrent", "2")
    study.wait_for_reports(2, process)
    second = study.start("--resume", "s", "--trust")
    _, err = second.communicate()
    assert second.returncode == 2
    assert err == f"error: {study.ledger.parent}: another driver is working on this study\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    for line in process.stdout:
        if "again to stop now" in line:
            break
    said = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    waited = time.monotonic() - said
    assert process.returncode == 130, (out, err)
    assert "--resume s" in out
    assert err == ""
    state = study.state
    unfinished = [trial for trial in state.trials.values() if trial.end is None]
    assert len(unfinished) == 2
    first = [report.metrics["time/epoch_s"] for report in reports_of(study)]
    assert waited < min(first), "shorter than an epoch"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_study_whose_folder_is_removed_ends_with_one_line(tmp_path: Path) -> None:
    study = Study(tmp_path, pause=0.1)
    process = study.begin()
    study.wait_for_reports(3, process)
    shutil.rmtree(study.ledger.parent, ignore_errors=True)
    out, err = process.communicate()
    assert process.returncode == 1, (out, err)
    assert err == f"error: {study.ledger}: the file is gone, and with it the study: it ends here\n"
    assert not study.ledger.exists()


@pytest.mark.timeout(900)
def test_a_time_budget_does_not_wait_for_an_epoch(tmp_path: Path) -> None:
    study = Study(tmp_path, pause=60.0)
    process = study.begin("--time-budget", "20s")
    out, err = process.communicate()
    assert (process.returncode, err) == (1, ""), "no trial could be trained"
    assert "left out, as the budget is spent: " in out
    assert "3 of 3 searched" in out
    assert "To go on, with a larger one: python -m study.run --resume s" in out
    assert not study.state.finished
