"""What Tune is given, without starting Ray."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.config.task import load_task
from study.engine import tuner
from study.engine.cluster import Resources

OWN = {"trial": "mine:train", "budget": {"epochs": 2}}


class Given(Exception):
    """Ends the run before anything starts."""


def _scheduler(task: object = None) -> Any:
    state = SimpleNamespace(keeps_checkpoints=False, sessions=[])
    return SimpleNamespace(
        plan=SimpleNamespace(rungs=()), state=state, checkpoints_needed=set, task=task
    )


@pytest.mark.parametrize(("task", "is_reused"), [("tiny", True), (OWN, False)])
def test_a_training_of_the_users_own_gets_a_process_of_its_own(
    task: Any, is_reused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def stop(*_: Any, tune_config: Any, **others: Any) -> None:
        given.append(tune_config.reuse_actors)
        raise Given

    monkeypatch.setattr(tuner.tune, "Tuner", stop)
    with pytest.raises(Given):
        tuner.run_trials(_scheduler(load_task(task).config), Resources("here", 1, 0, 1), tmp_path)
    assert given == [is_reused]


def test_nobody_foresees_where_ray_keeps_what_it_unpickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def stop(*_: Any, run_config: Any, **others: Any) -> None:
        given.append(run_config.name)
        raise Given

    monkeypatch.setattr(tuner.tune, "Tuner", stop)
    for _ in range(2):
        with pytest.raises(Given):
            tuner.run_trials(_scheduler(), Resources("here", 1, 0, 1), tmp_path)
    assert len(set(given)) == 2
    assert all(name.startswith("session") for name in given)
