"""Real processes: a study that is killed or interrupted goes on where its ledger ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine.test_engine import SPACE, task

from study.ledger import LEDGER, State, load, read
from study.names import COMPLETED
from study.records import EndRecord, ReportRecord

ROOT = Path(__file__).parents[2]


class Study:
    """A study in a folder of its own, run as a command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        space = {**SPACE, "study": {**SPACE["study"], "num_trials": 3}}
        (folder / "space.yaml").write_text(yaml.safe_dump(space))
        tree: dict[str, Any] = {**task(folder / "pids"), "budget": {"epochs": 6}}
        (folder / "task.yaml").write_text(yaml.safe_dump(tree))

    @property
    def ledger(self) -> Path:
        return self.folder / "studies" / "s" / LEDGER

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "study.run", *arguments, "--max-concurrent", "1"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "RAY_ADDRESS": "local"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def begin(self) -> subprocess.Popen[str]:
        return self.start("space.yaml", "--task", "task.yaml", "--name", "s")

    def wait_for_reports(self, count: int, process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            if self.ledger.exists() and sum(r.kind == "report" for r in read(self.ledger)) >= count:
                return
            time.sleep(0.02)
        raise AssertionError(process.communicate())

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


@pytest.mark.timeout(400)
def test_a_killed_driver_loses_nothing_and_resume_ends_the_study(tmp_path: Path) -> None:
    study = Study(tmp_path)
    process = study.begin()
    study.wait_for_reports(15, process)
    process.kill()
    process.wait()
    seen = [record for record in read(study.ledger) if record.kind == "report"]
    resumed = study.start("--resume", "s")
    _, err = resumed.communicate()
    assert resumed.returncode == 0, err
    assert_whole(study)
    assert [r for r in read(study.ledger) if r.kind == "report"][: len(seen)] == seen


@pytest.mark.timeout(400)
def test_ctrl_c_ends_with_130_says_how_to_go_on_and_exports_what_is_there(tmp_path: Path) -> None:
    study = Study(tmp_path)
    process = study.begin()
    study.wait_for_reports(14, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, (out, err)
    assert "--resume s" in out
    assert "Traceback" not in err
    assert not study.state.finished
    resumed = study.start("--resume", "s")
    _, err = resumed.communicate()
    assert resumed.returncode == 0, err
    assert_whole(study)
