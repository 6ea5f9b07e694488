"""Whole studies of a training of the user's own, on Ray on this machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from own_trainings import task
from simulated_driver import lines_without_times
from tiny_task import TINY

import study
from study.core.names import COMPLETED, CONFIRM, FAILED, STOPPED_EARLY
from study.session.finished import Finished

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

ray = pytest.importorskip("ray")

SCRIPT = Path(__file__).parents[1] / "trials" / "scripts.py"
SPACE: dict[str, Any] = {
    "loss": {"jaccard": {"mix": {"float": {"low": 0.1, "high": 0.9}}}},
    "study": {
        "num_trials": 3,
        "reference_trials": 1,
        "baselines": ["ce", "recall"],
        "confirm": {"top": 1, "num_seeds": 1},
    },
}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tests.parent}{os.pathsep}{tests}")
    yield
    ray.shutdown()


def run(folder: Path, name: str, the_task: dict[str, Any], **options: Any) -> Finished:
    return study.run_study(
        options.pop("space", SPACE), the_task, storage=folder, name=name, **options
    )


def timeless(line: dict[str, Any]) -> dict[str, Any]:
    """A line without what differs between the two kinds of task, and without times."""
    if "config" in line:
        line = {**line, "config": {**line["config"], "task": None}}
    if "metrics" in line:
        metrics = {k: v for k, v in line["metrics"].items() if not k.startswith("time/")}
        line = {**line, "metrics": metrics, "environment": None}
    return line


def test_our_own_loop_and_a_function_give_the_same_ledger(tmp_path: Path) -> None:
    """Number by number: the trials, their reports, the verdicts and the selection."""
    space = {**SPACE, "study": {**SPACE["study"], "num_trials": 2, "baselines": ["ce"]}}
    ours = run(tmp_path, "ours", {**TINY, "budget": {"epochs": 3}}, space=space, max_concurrent=1)
    theirs = {"trial": "own_trainings:ours", "budget": {"epochs": 3}}
    foreign = run(tmp_path, "foreign", theirs, space=space, max_concurrent=1)
    kinds = ("trial", "report", "rung", "end", "select", "finish")
    told = [
        [timeless(line) for line in lines_without_times(tmp_path / name) if line["kind"] in kinds]
        for name in ("ours", "foreign")
    ]
    assert told[0] == told[1]
    assert {line["kind"] for line in told[0]} >= {"trial", "report", "end", "select", "finish"}
    assert ours.answer.best_miou == foreign.answer.best_miou


def test_a_function_fails_in_words_and_the_study_goes_on(tmp_path: Path) -> None:
    space = {**SPACE, "study": {**SPACE["study"], "rungs": None}}
    trial = {"function": "own_trainings:faulty", "kwargs": {"folder": str(tmp_path)}}
    found = run(tmp_path, "s", task(trial, epochs=2), space=space)
    trials = list(found.state.trials.values())
    reasons = [trial.end.reason for trial in trials if trial.end and trial.status == FAILED]
    assert sorted(reasons) == sorted(
        [
            f"ZeroDivisionError: division by zero (own_trainings.py:{fault_line()})",
            "own_trainings:faulty returned after 1 of 2 epochs",
            "the trial's own code called sys.exit(0)",
        ]
    )
    assert found.state.finished
    assert {trial.status for trial in trials} == {COMPLETED, FAILED}


def fault_line() -> int:
    source = (Path(__file__).parents[1] / "own_trainings.py").read_text().splitlines()
    return 1 + next(n for n, line in enumerate(source) if "1 / 0" in line)


@pytest.mark.long
def test_a_training_that_never_ends_holds_up_no_other_trial(tmp_path: Path) -> None:
    found = run(tmp_path, "s", task("own_trainings:endless", epochs=1), max_concurrent=1)
    trials = list(found.state.trials.values())
    assert {trial.status for trial in trials} == {COMPLETED}
    assert not any(trial.faults for trial in trials)


@pytest.mark.long
def test_a_training_that_ignores_its_loss_is_told_of(tmp_path: Path) -> None:
    found = run(tmp_path, "s", task("own_trainings:alike", epochs=2))
    told = [line for line in found.answer.warnings if "the same numbers to the last bit" in line]
    assert any("(ce)" in line and "(recall)" in line for line in told)
    assert "the same numbers to the last bit" in (found.folder / "report.html").read_text()


def test_a_command_is_tuned_stopped_confirmed_and_exported(tmp_path: Path) -> None:
    words = f"{sys.executable} {SCRIPT} tuned {{loss_file}} {{folder}} {{stop_file}} {{test}}"
    command = {"command": f"{words} {{epochs}}", "grace_s": 0.2}
    space = {
        "loss": {"jaccard": {"mix": {"float": {"low": 0.1, "high": 0.9}}}},
        "study": {
            "num_trials": 7,
            "reference_trials": 1,
            "baselines": ["ce"],
            "rungs": {"first": 0.25, "reduction_factor": 2},
            "confirm": {"top": 1, "num_seeds": 2},
        },
    }
    the_task = {"trial": command, "budget": {"epochs": 4}, "objectives": ["val/miou"]}
    found = run(tmp_path, "s", the_task, space=space)
    trials = found.state.trials.values()
    assert {trial.status for trial in trials} == {COMPLETED, STOPPED_EARLY}
    assert len(found.state.completed(CONFIRM)) >= 4
    assert found.answer.confirmed and found.answer.best_macc is None
    best = found.state.trials[str(found.answer.best_miou)]
    mixes = [
        trial.config["loss"]["jaccard"]["mix"]
        for trial in trials
        if trial.stage == "search" and trial.status == COMPLETED
    ]
    assert best.config["loss"]["jaccard"]["mix"] == max(mixes)  # the script scores by it
    for one in trials:
        folder = found.folder / "trials" / one.id
        assert "epoch 1 begins" in (folder / "output.log").read_text()
        digests = (folder / "loss_digest.jsonl").read_text().splitlines()
        assert len({json.loads(line)["loss_digest"] for line in digests}) == 1
    exported = (found.folder / "exports" / "best_miou.yaml").read_text()
    assert "command:" in exported
