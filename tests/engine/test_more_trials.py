"""A finished study that is continued on Ray with more trials and another space."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from own_trainings import task

import study.run
from study.core.names import CONFIRM, REFERENCE, SEARCH
from study.storage.studies import load

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def test_a_finished_study_gets_more_trials_from_another_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tests.parent}{os.pathsep}{tests}")
    settings = {"num_trials": 2, "reference_trials": 1, "baselines": ["ce"], "rungs": None,
                "confirm": {"top": 1, "num_seeds": 1}}  # fmt: skip
    for name, low in (("wide", 0.1), ("high", 0.6)):
        mix = {"float": {"low": low, "high": 0.9}}
        space = {"loss": {"jaccard": {"mix": mix}}, "study": settings}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(space))
    the_task = task({"function": "own_trainings:quick"}, epochs=1)
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(the_task))
    where = ["--storage", str(tmp_path / "studies"), "--max-concurrent", "2"]
    first = [str(tmp_path / "wide.yaml"), "--task", str(tmp_path / "task.yaml"), "--name", "s"]
    assert study.run.main([*first, *where]) == 0
    before = load(tmp_path / "studies" / "s")
    assert before.finished and before.count(SEARCH, REFERENCE) == 2
    capsys.readouterr()
    more = [str(tmp_path / "high.yaml"), "--resume", "s", "--more-trials", "2", "--trust"]
    assert study.run.main([*more, *where]) == 0
    out = capsys.readouterr().out
    assert "4 searched trials from now on; the search space has changed: " in out
    state = load(tmp_path / "studies" / "s")
    assert state.finished and state.count(SEARCH, REFERENCE) == 4
    assert len(state.amendments) == 1 and state.count(CONFIRM) >= before.count(CONFIRM)
    new = [trial for trial in state.of_stage(SEARCH) if trial.id not in before.trials]
    assert new and all((t.params or {})["loss/jaccard/mix"] >= 0.6 for t in new)
    assert all(trial.proposed_by in ("model", "random") for trial in state.of_stage(SEARCH))
    assert "low: 0.6" in (tmp_path / "studies" / "s" / "space.yaml").read_text()
