"""A study whose driver was killed at commit de798f6 goes on: what it had begun comes to the numbers
of the study that was not killed. What it proposes next is today's sampler's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from earlier import CLOSE, FOLDER, copied, facts, is_like, recorded, timeless

from study.config.task import TrialConfig
from study.core.names import COMPLETED
from study.ledger.journal import LEDGER, read
from study.ledger.records import ReportRecord
from study.ledger.state import State
from study.storage.studies import load

ROOT = Path(__file__).parents[2]


def _resume(name: str, storage: Path) -> State:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "RAY_ADDRESS": "local",
    }
    options = {
        "--resume": name,
        "--storage": str(storage),
        "--tracking-uri": f"sqlite:///{storage / 'mlflow.db'}",
        "--max-concurrent": "1",
        "--cpus-per-trial": "1",
        "--gpus-per-trial": "0",
    }
    words = ["--trust", *(word for option in options.items() for word in option)]
    done = subprocess.run(
        [sys.executable, "-m", "study.run", *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=storage,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return load(storage / name)


def _trials(state: State, names: list[str], measured: set[str]) -> list[dict[str, Any]]:
    """Facts of trials without what an interruption changes: seconds and attempts. Of the metrics
    those that the earlier version measured."""
    return [
        {**trial, "attempt": 0, "gpu_s": 0, "last": _earlier(trial["last"], measured)}
        for trial in facts(state)["trials"]
        if trial["id"] in names
    ]


def _config(tree: Mapping[str, Any]) -> TrialConfig:
    """The config with the keys that are newer."""
    return TrialConfig.model_validate(tree)


def _earlier(metrics: Mapping[str, float], measured: set[str]) -> dict[str, float]:
    return {key: value for key, value in timeless(metrics).items() if key in measured}


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_what_an_interrupted_study_had_begun_comes_to_what_the_uninterrupted_one_came_to(
    tmp_path: Path,
) -> None:
    before = recorded("interrupted")
    (name,) = before["unfinished"]
    folder = copied("interrupted", tmp_path)
    state, whole = _resume("interrupted", tmp_path), load(FOLDER / "finished")
    assert state.finished
    epochs = [
        record.epoch
        for record in read(folder / LEDGER)
        if isinstance(record, ReportRecord) and record.trial == name
    ]
    assert epochs == [1, 2, 3, 4], "the checkpoint is taken up: no epoch is trained again"
    resumed, uninterrupted = state.trials[name], whole.trials[name]
    assert (resumed.status, resumed.attempt) == (COMPLETED, 1)
    if not is_like(uninterrupted.environment):
        loss = uninterrupted.last["train/loss"]
        assert resumed.last["train/loss"] == pytest.approx(loss, rel=CLOSE)
        return
    measured = {key for trial in whole.trials.values() for key in trial.last}
    begun = [trial["id"] for trial in before["trials"]]
    assert _trials(state, begun, measured) == _trials(whole, begun, measured)
    for trial in begun:
        reports = state.trials[trial].reports
        assert _config(state.trials[trial].config) == _config(whole.trials[trial].config)
        assert reports.keys() == whole.trials[trial].reports.keys()
        for epoch, metrics in whole.trials[trial].reports.items():
            assert _earlier(reports[epoch], measured) == timeless(metrics)
    assert list((folder / "exports").glob("*.yaml"))
