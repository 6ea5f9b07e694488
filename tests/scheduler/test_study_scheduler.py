"""The scheduler drives whole studies here on made-up learning curves: no Ray, no training."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulated_driver import Driver, curve, lines_without_times

from study.analysis.option_epochs import option_epochs
from study.core.names import BASELINE, COMPLETED, CONFIRM, FAILED, REFERENCE, SEARCH, STOPPED_EARLY
from study.ledger.journal import LEDGER
from study.ledger.plan import Plan
from study.ledger.records import TrialRecord
from study.scheduler.retries import LOST
from study.space.search_space import load_space
from study.storage.studies import load


def without_attempts(folder: Path) -> list[dict[str, Any]]:
    """The lines of a study, those left out that hand out a trial again."""
    lines = lines_without_times(folder)
    return [
        {key: value for key, value in line.items() if key != "attempt"}
        for line in lines
        if not (line["kind"] == "trial" and line["attempt"] > 0)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 2, 5])
def test_a_study_runs_its_stages_and_stops_at_least_three_of_sixteen(
    tmp_path: Path, slots: int
) -> None:
    Driver(tmp_path, slots=slots).run()
    state = load(tmp_path)
    assert state.finished
    searched = state.of_stage(SEARCH, REFERENCE)
    assert len(state.of_stage(BASELINE)) == 6
    assert len(searched) == 16
    assert sum(trial.family == "ce" for trial in searched) >= 4
    stopped = [trial for trial in state.trials.values() if trial.status == STOPPED_EARLY]
    assert len(stopped) >= 3
    assert all(trial.status == COMPLETED for trial in state.of_stage(BASELINE))
    assert all(trial.stage == SEARCH for trial in stopped)
    selection = state.selection
    assert selection is not None
    assert len(selection.confirmed) == 2
    sources = set(selection.sources)
    confirmations = state.of_stage(CONFIRM)
    assert len(confirmations) == 3 * len(sources)
    assert {trial.seed for trial in confirmations} == {1, 2, 3}
    for trial in confirmations:
        source = state.trials[str(trial.source)]
        assert {**trial.config, "seed": 0} == source.config


@pytest.mark.slow
def test_two_runs_with_one_slot_and_one_seed_give_the_same_ledger(tmp_path: Path) -> None:
    Driver(tmp_path / "a").run()
    Driver(tmp_path / "b").run()
    assert lines_without_times(tmp_path / "a") == lines_without_times(tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", [1, 17, 60, 120, 170])
def test_a_killed_study_goes_on_to_the_ledger_of_an_undisturbed_one(
    tmp_path: Path, kill_after: int
) -> None:
    Driver(tmp_path / "whole").run()
    Driver(tmp_path / "killed").run(kill_after=kill_after)
    Driver(tmp_path / "killed").run()
    assert without_attempts(tmp_path / "killed") == without_attempts(tmp_path / "whole")


class Unlucky(Driver):
    """Its machine loses every confirmation with seed 2, once."""

    def lost(self, record: TrialRecord) -> bool:
        same = [
            trial
            for trial in self.ledger.state.of_stage(CONFIRM)
            if (trial.source, trial.seed) == (record.source, record.seed)
        ]
        return record.stage == CONFIRM and record.seed == 2 and len(same) == 1


@pytest.mark.slow
def test_a_lost_confirmation_is_trained_again_also_by_a_resumed_driver(tmp_path: Path) -> None:
    Unlucky(tmp_path / "whole").run()
    state = load(tmp_path / "whole")
    assert state.finished
    lost = [trial for trial in state.of_stage(CONFIRM) if trial.status == FAILED]
    assert state.selection is not None
    assert [trial.seed for trial in lost] == [2] * len(state.selection.sources)
    for trial in lost:
        assert {other.seed for other in state.confirmations(str(trial.source))} == {1, 2, 3}
        again = next(t for t in state.confirmations(str(trial.source)) if t.seed == 2)
        assert again.config == trial.config
    reports = sum(len(trial.reports) for trial in state.trials.values())
    for kill_after in (reports - 40, reports - 3, reports + 2):
        folder = tmp_path / f"killed{kill_after}"
        Unlucky(folder).run(kill_after=kill_after)
        Unlucky(folder).run()
        assert without_attempts(folder) == without_attempts(tmp_path / "whole")


def test_a_diverged_trial_is_stopped_and_a_missing_metric_ends_that_trial_alone(
    tmp_path: Path,
) -> None:
    def broken(record: TrialRecord, epoch: int) -> dict[str, float]:
        metrics = curve(record, epoch)
        if record.number == 6:
            metrics["val/tuned/miou"] = math.nan
        if record.number == 7 and epoch == 3:
            del metrics["val/tuned_macc/macc"]
        return metrics

    Driver(tmp_path, broken).run()
    state = load(tmp_path)
    assert state.finished
    assert state.trials["t0006"].status == STOPPED_EARLY
    assert state.trials["t0006"].end is not None
    assert "not finite" in state.trials["t0006"].end.reason
    assert state.trials["t0007"].status == FAILED
    assert state.trials["t0007"].end is not None
    assert state.trials["t0007"].end.reason == (
        "metric missing: val/tuned_macc/macc; epoch 3 is a rung, where trials are judged"
    )
    assert len(state.of_stage(SEARCH, REFERENCE)) == 16


def test_the_score_at_a_rung_is_the_running_best(tmp_path: Path) -> None:
    def dipping(record: TrialRecord, epoch: int) -> dict[str, float]:
        value = {1: 0.9, 2: 0.5, 3: 0.1}.get(epoch, 0.1)
        return {"val/tuned/miou": value, "val/tuned_macc/macc": value}

    Driver(tmp_path, dipping).run()
    rungs = load(tmp_path).trials["t0000"].rungs
    assert rungs == {3: {"val/tuned/miou": 0.9, "val/tuned_macc/macc": 0.9}}


def test_references_are_judged_among_cross_entropies_only(tmp_path: Path) -> None:
    def poor_cross_entropy(record: TrialRecord, epoch: int) -> dict[str, float]:
        if record.family == "ce":
            return {"val/tuned/miou": 0.01, "val/tuned_macc/macc": 0.01}
        return curve(record, epoch)

    Driver(tmp_path, poor_cross_entropy).run()
    assert {trial.status for trial in load(tmp_path).of_stage(REFERENCE)} == {COMPLETED}


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("poor", ["loss/recall=ema", "loss/pooling=max", "loss/jaccard=off"])
def test_an_option_that_is_always_stopped_is_tried_all_the_same(
    tmp_path: Path, slots: int, poor: str
) -> None:
    path, _, option = poor.partition("=")

    def unfair(record: TrialRecord, epoch: int) -> dict[str, float]:
        is_poor = record.stage == SEARCH and (record.params or {})[path] == option
        return (
            {"val/tuned/miou": 0.01, "val/tuned_macc/macc": 0.01}
            if is_poor
            else curve(record, epoch)
        )

    Driver(tmp_path, unfair, slots=slots).run()
    state = load(tmp_path)
    assert state.study is not None
    state.study = replace(state.study, space=dict(load_space("joint").data))
    found = option_epochs(state)
    assert len(found) == 9
    for item in found:
        assert item.trials >= 2, item  # by the stratified start and the random part
    ended = [t for t in state.of_stage(SEARCH) if t.params and t.params[path] == option]
    assert sum(trial.status == STOPPED_EARLY for trial in ended) >= len(ended) - 1


def test_a_split_ladder_compares_within_one_option(tmp_path: Path) -> None:
    space = load_space("recall")
    by = next(path for path, options in space.choices.items() if len(options) in (2, 3))
    driver = Driver(tmp_path, space="recall")
    driver.plan = driver.scheduler.plan = Plan(**{**vars(driver.plan), "split_by": by})
    driver.run()
    brackets = {bracket for bracket, _ in load(tmp_path).brackets}
    assert len(brackets) > 1
    assert all(bracket.startswith(f"{by}=") for bracket in brackets)


@pytest.mark.slow
def test_a_study_killed_after_a_line_of_any_kind_goes_on_to_the_ledger_of_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    Driver(tmp_path / "whole").run()
    text = (tmp_path / "whole" / LEDGER).read_text().splitlines(keepends=True)
    whole = without_attempts(tmp_path / "whole")
    lines = [json.loads(line) for line in text]
    stopped = next(i for i, line in enumerate(lines) if line["kind"] == "rung" and not line["keep"])
    final = next(i for i, line in enumerate(lines) if line.get("epoch") == 8)
    first = {line["kind"]: index for index, line in reversed(list(enumerate(lines)))}
    for last in {stopped - 1, stopped, final, *first.values()}:
        folder = tmp_path / f"killed{last}"
        folder.mkdir()
        (folder / LEDGER).write_text("".join(text[: last + 1]))
        Driver(folder).run()
        assert without_attempts(folder) == whole, lines[last]


def test_slots_follow_the_cluster_and_one_trial_waits_where_none_has_room(tmp_path: Path) -> None:
    driver = Driver(tmp_path, slots=1)
    scheduler = driver.scheduler

    def handed_out() -> list[str]:
        found = []
        while isinstance(step := scheduler.suggest(), TrialRecord):
            found.append(step.trial)
        return found

    assert handed_out() == ["t0000"]
    scheduler.follow(3, 3, "two nodes have joined")
    assert handed_out() == ["t0001", "t0002"]
    scheduler.follow(0, 0, "all have left")
    assert (scheduler.slots, scheduler.budget.slots) == (1, 1)
    for trial in ("t0000", "t0001", "t0002"):
        scheduler.fault(trial, LOST, "its node is gone")
    assert handed_out() == ["t0000"], "it waits, so that somebody sees it"
    assert [change.slots for change in scheduler.state.nodes] == [3, 0]


def test_what_is_trained_again_ends_where_the_session_closes(tmp_path: Path) -> None:
    driver = Driver(tmp_path, slots=1)
    trial = driver.scheduler.suggest()
    assert isinstance(trial, TrialRecord)
    lines = (tmp_path / LEDGER).read_text()
    assert driver.scheduler.may_go_on(trial.trial)
    driver.scheduler.close()
    assert not driver.scheduler.may_go_on(trial.trial)
    assert not driver.scheduler.live
    assert (tmp_path / LEDGER).read_text() == lines
