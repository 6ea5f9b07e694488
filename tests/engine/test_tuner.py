"""What Tune is given, without starting Ray."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.engine import tuner
from study.engine.cluster import Resources


class Given(Exception):
    """Ends the run before anything starts."""


def test_nobody_foresees_where_ray_keeps_what_it_unpickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    state = SimpleNamespace(keeps_checkpoints=False, sessions=[])
    scheduler: Any = SimpleNamespace(
        plan=SimpleNamespace(rungs=()), state=state, checkpoints_needed=set
    )

    def stop(*_: Any, run_config: Any, **others: Any) -> None:
        given.append(run_config.name)
        raise Given

    monkeypatch.setattr(tuner.tune, "Tuner", stop)
    for _ in range(2):
        with pytest.raises(Given):
            tuner.run_trials(scheduler, Resources("here", 1, 0, 1), tmp_path)
    assert len(set(given)) == 2
    assert all(name.startswith("session") for name in given)
