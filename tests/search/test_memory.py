"""What is kept in step against what a walk over all trials gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from ledgers import EPOCHS, PLAN, make_study

from study.core.names import BASELINE, COMPLETED, FAILED, REFERENCE, SEARCH
from study.ledger.journal import LEDGER, read
from study.ledger.records import TrialRecord
from study.ledger.state import State, Trial
from study.search.history import History, Observation
from study.search.memory import Memory
from study.search.quota import EpochsUsed, below_minimum_share
from study.space.search_space import load_space

RUNGS = (*PLAN.rungs, EPOCHS)


def observations(state: State) -> list[Observation]:
    found = []
    for trial in state.of_stage(BASELINE, REFERENCE, SEARCH):
        if trial.params is not None:
            rungs = dict(trial.rungs)
            if trial.status == COMPLETED:
                rungs[EPOCHS] = {key: trial.last[key] for key in PLAN.objectives}
            failed = trial.status == FAILED
            found.append(Observation(trial.params, rungs, trial.end is None, failed))
    return found


def used(trial: Trial) -> EpochsUsed:
    assert trial.params is not None
    least = most = trial.epochs
    if trial.end is None:
        least, most = min([rung for rung in RUNGS if rung > trial.epochs], default=EPOCHS), EPOCHS
    elif trial.status == FAILED:
        least = max(trial.epochs, RUNGS[0])
    return EpochsUsed(trial.params, least, most, trial.stage == SEARCH)


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
        expected = History(space, observations(state))
        assert len(memory.history) == len(expected)
        mine, other = memory.history.model_points(), expected.model_points()
        assert (mine is None) == (other is None)
        if mine is not None and other is not None:
            assert [(p.params, p.state, p.values) for p in mine] == [
                (p.params, p.state, p.values) for p in other
            ]
        each = [used(t) for t in state.of_stage(REFERENCE, SEARCH) if t.params is not None]
        assert below_minimum_share(space.choices, memory.used, EPOCHS) == below_minimum_share(
            space.choices, each, EPOCHS
        )
        total = sum(item.least for item in each), sum(item.most for item in each)
        sums = memory.used
        assert (sum(item.least for item in sums), sum(item.most for item in sums)) == total
        assert len(sums) <= 2 or len(sums) < len(each)
        looks += 1
    assert looks > 10 and len(memory.history) > 10
