"""Seeds that are added until the interval is narrow: when that is chosen, and what follows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_driver import Driver, curve, lines_without_times
from study_in_memory import Study, plan

from study.analysis.answer import answer
from study.core.names import BASELINE, CONFIRM, REFERENCE, SEARCH
from study.ledger.plan import Plan
from study.ledger.records import SeedsRecord, SelectRecord, TrialRecord
from study.reporting.live import Progress
from study.scheduler.stages import ChooseSeeds, Done, RunConfirm, Wait, left_out
from study.storage.studies import load

MORE = {"confirm_half_width": 1.0, "confirm_max_seeds": 5}
SPACE: dict[str, Any] = {
    "loss": {"focal_gamma": {"float": {"low": 0.5, "high": 4.0}}},
    "optimizer": {"lr_scale": {"float": {"low": 0.25, "high": 4.0, "log": True}}},
    "study": {
        "num_trials": 4,
        "reference_trials": 1,
        "sampler": "random",
        "rungs": {"first": 0.5},
        "baselines": ["ce"],
        "confirm": {"top": 1, "num_seeds": 3, "half_width": 3.0, "max_seeds": 6},
    },
}


def selected(**changes: Any) -> Study:
    """A study whose selection is made: t0001 is the reference, t0002 a loss."""
    numbers = {"num_trials": 2, "reference_trials": 1, "baselines": ("ce",), "confirm_top": 1}
    study = Study(plan(**{**numbers, **MORE, **changes}))
    study.finish(study.add(BASELINE, "ce"))
    study.finish(study.add(REFERENCE))
    study.finish(study.add(SEARCH))
    study.state.apply(SelectRecord(["t0002"], "t0001", "t0000"))
    return study


def begin(study: Study, action: RunConfirm) -> str:
    return study.add(CONFIRM, source=action.source, seed=action.seed, budget=action.budget)


def train(study: Study) -> tuple[list[RunConfirm], object]:
    found = []
    while isinstance(action := study.next(), RunConfirm):
        found.append(action)
        study.finish(begin(study, action))
    return found, action


def rounds(*seeds: int) -> list[RunConfirm]:
    return [RunConfirm(source, seed) for seed in seeds for source in ("t0001", "t0000", "t0002")]


def test_after_the_first_seeds_all_configs_get_whole_rounds_up_to_what_is_chosen() -> None:
    study = selected()
    assert train(study) == (rounds(1, 2, 3), ChooseSeeds())
    study.state.apply(SeedsRecord(5, 1.3))
    assert left_out(study.plan, study.state) == ["6 of 15 confirmations"]
    assert train(study) == (rounds(4, 5), Done())


def test_nothing_is_chosen_where_the_number_is_fixed_or_while_a_seed_is_open() -> None:
    assert train(selected(confirm_half_width=0.0)) == (rounds(1, 2, 3), Done())
    study = selected()
    while isinstance(action := study.next(), RunConfirm):
        last = begin(study, action)
        if action != rounds(3)[-1]:
            study.finish(last)
    assert action == Wait()
    study.finish(last)
    assert study.next() == ChooseSeeds()


def test_another_selection_chooses_anew() -> None:
    study = selected()
    train(study)
    study.state.apply(SeedsRecord(4, 1.3))
    study.state.apply(SelectRecord(["t0002"], "t0001", "t0000"))
    assert study.next() == ChooseSeeds()


def test_longer_trainings_have_the_seeds_of_the_plan() -> None:
    study = selected(confirm_budgets=(1, 2))
    train(study)
    study.state.apply(SeedsRecord(5, 1.3))
    found, last = train(study)
    assert found[:6] == rounds(4, 5)
    assert [step.seed for step in found[6:]] == [1, 1, 2, 2, 3, 3]
    assert last == Done()


def test_what_is_left_counts_what_may_be_added_until_it_is_known() -> None:
    study = selected()
    progress, epochs = Progress(study.plan, study.state), study.plan.epochs
    assert progress.left[0] == 3 * 5 * epochs
    assert study.plan.confirm_trials == 9, "a budget reserves the minimum"
    train(study)
    study.state.apply(SeedsRecord(4, 1.3))
    assert progress.left[0] == 3 * epochs


def noisy(record: TrialRecord, epoch: int) -> dict[str, float]:
    """The simulated curve; test has a spread over seeds of two points, a config's own."""
    found = curve(record, epoch)
    if record.stage != CONFIRM:
        return found
    rng = np.random.default_rng([record.seed, int(str(record.source)[1:])])
    level = 0.4 + 0.05 * (record.family != "ce")
    test = level + 0.02 * float(rng.normal())
    keys = ("miou", "macc", "tuned/miou", "tuned_macc/macc")
    return {**found, **{f"test/{key}": test for key in keys}}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    Driver(folder, metrics=noisy, space=SPACE, slots=2).run()
    return folder


def test_as_many_seeds_are_trained_as_the_first_ones_ask_for(simulated: Path) -> None:
    state = load(simulated)
    assert state.study is not None and state.seeds is not None
    assert state.seeds.half_width is not None
    wanted = 3 * (state.seeds.half_width / 3.0) ** 2
    assert state.seeds.seeds == min(6, max(3, math.ceil(wanted))) > 3
    found = answer(state, simulated)
    assert found.missing == ()
    first = Plan.from_dict(state.study.plan).first_seeds
    for config in found.configs:
        assert config.seeds == tuple(range(first.start, first.start + state.seeds.seeds))
    best = next(config for config in found.configs if config.family != "ce")
    interval = best.versus["test/tuned/miou"].interval
    assert interval is not None
    half = 100 * (interval.high - interval.low) / 2
    assert half == pytest.approx(state.seeds.half_width * math.sqrt(3 / state.seeds.seeds))
    assert any("Stein" in note for note in found.notes)


@pytest.mark.parametrize("kill_after", [90, 105, 120])
def test_a_study_that_is_killed_goes_on_with_the_same_number(
    tmp_path: Path, kill_after: int
) -> None:
    Driver(tmp_path / "whole", metrics=noisy, space=SPACE).run()
    killed = tmp_path / "killed"
    Driver(killed, metrics=noisy, space=SPACE).run(kill_after=kill_after)
    Driver(killed, metrics=noisy, space=SPACE).run()
    again = [
        {key: item for key, item in line.items() if key != "attempt"}
        for line in lines_without_times(killed)
        if not (line["kind"] == "trial" and line["attempt"] > 0)
    ]
    whole = lines_without_times(tmp_path / "whole")
    assert again == [{k: item for k, item in line.items() if k != "attempt"} for line in whole]
    assert [line["kind"] for line in whole].count("seeds") == 1
