"""What is kept in step against what a walk over all trials gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from ledgers import EPOCHS, PLAN, make_study

from study.core.names import BASELINE, COMPLETED, FAILED, REFERENCE, SEARCH
from study.ledger.journal import LEDGER, read
from study.ledger.records import TrialRecord
from study.ledger.state import State
from study.search.history import History, Observation
from study.search.memory import Memory, params_in
from study.space.search_space import SearchSpace, load_space


def observations(space: SearchSpace, state: State) -> list[Observation]:
    found = []
    for trial in state.of_stage(BASELINE, REFERENCE, SEARCH):
        params = params_in(space, trial)
        if params is not None:
            rungs = dict(trial.rungs)
            if trial.status == COMPLETED:
                rungs[EPOCHS] = {key: trial.last[key] for key in PLAN.objectives}
            failed = trial.status == FAILED
            found.append(
                Observation(params, rungs, trial.end is None, failed, trial.stage == SEARCH)
            )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("until", ["search", "finish"])
def test_memory_is_what_a_walk_over_all_trials_gives(tmp_path: Path, until: str) -> None:
    folder = make_study(tmp_path / "one", until=until)
    space = load_space("joint")
    settings = space.settings.model_copy(update={"objectives": PLAN.objectives})
    space = dataclasses.replace(space, settings=settings)
    full = {"normalizer": None, "class_weights": "none", "recall": "off", "pooling": "mean"}
    active = {f"loss/{key}": value for key, value in full.items() if value}
    state = State()
    plan = dataclasses.replace(PLAN, num_trials=100)
    memory = Memory(plan, space, state)
    looks = 0
    for number, line in enumerate(read(folder / LEDGER)):
        record = line
        if isinstance(record, TrialRecord) and record.params is not None:
            record = dataclasses.replace(record, params={**active, **record.params})
        state.apply(record)
        if number % 7:
            continue
        memory.update()
        expected = History(space, observations(space, state))
        assert len(memory.history) == len(expected)
        for mine, other in zip(memory.history.judged(), expected.judged(), strict=True):
            assert np.array_equal(mine, other, equal_nan=True)
        pending = memory.history.pending()
        assert np.array_equal(pending, expected.pending(), equal_nan=True)
        assert memory.history.proposed == expected.proposed
        looks += 1
    assert looks > 10 and len(memory.history) > 10
