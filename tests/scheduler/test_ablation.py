"""The best loss without each of its parts, driven without Ray: when, and what is said of it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from simulated_driver import Driver, judged, lines_without_times
from study_in_memory import Study, plan

from study.analysis.answer import answer
from study.config.task import TrialConfig
from study.core.names import BASELINE, COMPLETED, CONFIRM, REFERENCE, SEARCH
from study.ledger.records import ReportRecord, SelectRecord, TrialRecord
from study.ledger.state import State
from study.reporting.exports import export
from study.reporting.html import results_csv
from study.reporting.live import Progress
from study.scheduler.stages import Done, Resume, RunConfirm, Stop, Wait, left_out
from study.space.search_space import load_space
from study.storage.studies import load
from study.tracking.content import final_points, trial_name, trial_tags

NUMBERS = {"num_trials": 3, "reference_trials": 1, "confirm_seeds": 2, "baselines": ("ce",)}
WINNER = {"loss": {"recall": {"ema_momentum": 0.9}, "focal_gamma": 1.0}}
AXES = ("focal", "recall")
SPACE: dict[str, Any] = {
    "loss": {
        "focal_gamma": {"float": {"low": 0.5, "high": 4.0}},
        "recall": {"ema_momentum": {"float": {"low": 0.1, "high": 0.9}}},
    },
    "optimizer": {"lr_scale": {"float": {"low": 0.25, "high": 4.0, "log": True}}},
    "study": {
        "num_trials": 4,
        "reference_trials": 1,
        "sampler": "random",
        "rungs": {"first": 0.5},
        "baselines": ["ce"],
        "confirm": {"top": 2, "num_seeds": 2, "ablate": True},
    },
}


def selected(**changes: Any) -> Study:
    """A study whose selection is made: t0001 is the reference, t0002 and t0003 are losses."""
    study = Study(plan(**{**NUMBERS, "confirm_ablations": 3, **changes}))
    study.finish(study.add(BASELINE, "ce"))
    study.finish(study.add(REFERENCE))
    for _ in range(2):
        study.finish(study.add(SEARCH, config=WINNER))
    study.state.apply(SelectRecord(["t0002", "t0003"], "t0001", "t0000"))
    return study


def begin(study: Study, action: RunConfirm) -> str:
    return study.add(
        CONFIRM, source=action.source, seed=action.seed, budget=action.budget,
        ablated=action.ablated,
    )  # fmt: skip


def confirmed(**changes: Any) -> Study:
    """Every ordinary confirmation is over; t0003 is the best loss."""
    study = selected(**changes)
    ordinary = (1, "")
    while (
        isinstance(action := study.next(), RunConfirm)
        and (action.budget, action.ablated) == ordinary
    ):
        miou = {"t0001": 0.4, "t0002": 0.5, "t0003": 0.6}.get(action.source, 0.3)
        study.finish(begin(study, action), miou=miou)
    return study


def steps(study: Study, miou: float = 0.9) -> tuple[list[RunConfirm], object]:
    found = []
    while isinstance(action := study.next(), RunConfirm):
        found.append(action)
        study.finish(begin(study, action), miou=miou)
    return found, action


PARTS = [RunConfirm("t0003", seed, 1, axis) for seed in (1, 2) for axis in AXES]


def test_the_best_loss_is_trained_without_each_axis_on_the_same_seeds() -> None:
    assert steps(confirmed()) == (PARTS, Done())
    assert steps(confirmed(confirm_ablations=0)) == ([], Done())


def test_ablations_come_after_the_longer_trainings() -> None:
    found, last = steps(confirmed(confirm_budgets=(1, 2)))
    longer = [RunConfirm(source, seed, 2) for seed in (1, 2) for source in ("t0001", "t0003")]
    assert (found, last) == (longer + PARTS, Done())


def test_they_wait_for_the_last_ordinary_confirmation() -> None:
    study = selected()
    while isinstance(action := study.next(), RunConfirm):
        assert action.ablated == ""
        begin(study, action)
    assert action == Wait()
    for name in sorted(study.live)[1:]:
        study.finish(name)
    assert study.next() == Wait()
    study.finish(next(iter(study.live)))
    action = study.next()
    assert isinstance(action, RunConfirm)
    assert action.ablated == "focal"


def test_an_unfinished_ablation_does_not_hold_up_the_rest() -> None:
    study = confirmed(confirm_budgets=(1, 2))
    while isinstance(action := study.next(), RunConfirm) and not action.ablated:
        study.finish(begin(study, action))
    assert isinstance(action, RunConfirm)
    name = begin(study, action)
    study.state.apply(ReportRecord(name, 0, 1, {}))
    assert study.next() == PARTS[1]
    study.live.clear()
    assert study.next() == Resume(name)
    assert left_out(study.plan, study.state) == ["3 of 4 ablation trainings", "1 unfinished"]


def test_a_spent_budget_leaves_them_out_first_and_says_so() -> None:
    study = confirmed(confirm_budgets=(1, 2))

    def seven(stage: str, epochs: int) -> bool:
        trained = [t for t in study.state.of_stage(CONFIRM) if t.budget > 1 or t.ablated]
        return len(trained) < 5

    while isinstance(action := study.next(admits=seven), RunConfirm):
        study.finish(begin(study, action))
    assert action == Stop()
    assert left_out(study.plan, study.state) == ["3 of 4 ablation trainings"]
    assert steps(study) == (PARTS[1:], Done())
    assert left_out(study.plan, study.state) == []


def test_before_the_confirmation_is_over_the_most_that_may_come_is_left() -> None:
    study = selected()
    assert left_out(study.plan, study.state) == [
        "8 of 8 confirmations",
        "6 of 6 ablation trainings",
    ]
    epochs = study.plan.epochs
    assert Progress(study.plan, study.state).left[0] == (8 + 6) * epochs
    assert study.plan.worst_case_epochs == (1 + 3 + 8 + 6) * epochs
    study = confirmed()
    progress = Progress(study.plan, study.state)
    assert progress.left[0] == len(PARTS) * epochs
    name = begin(study, PARTS[0])
    study.state.apply(ReportRecord(name, 0, 3, {}))
    assert progress.left[0] == len(PARTS) * epochs - 3


def test_one_that_the_machine_lost_is_tried_again_after_the_others() -> None:
    study = confirmed()
    first = study.next()
    assert isinstance(first, RunConfirm)
    study.fail(begin(study, first), by_machine=True)
    assert steps(study)[0] == [*PARTS[1:], first]


def test_one_that_failed_by_its_own_fault_is_over() -> None:
    study = confirmed()
    first = study.next()
    assert isinstance(first, RunConfirm)
    study.fail(begin(study, first), by_machine=False)
    assert steps(study)[0] == PARTS[1:]


def test_however_well_one_does_it_changes_neither_winner_nor_reference() -> None:
    study = confirmed(confirm_budgets=(1, 2))
    found, _ = steps(study, miou=0.99)
    assert {step.source for step in found if step.ablated} == {"t0003"}
    assert {step.source for step in found if not step.ablated} == {"t0001", "t0003"}
    assert len(study.state.confirmations("t0003")) == 2
    assert len(study.state.confirmations("t0003", 1, "recall")) == 2


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    Driver(folder, metrics=judged, space=SPACE, slots=3).run()
    return folder


def parts_of(state: State) -> list[Any]:
    return [trial for trial in state.of_stage(CONFIRM) if trial.ablated]


def test_one_part_is_switched_off_and_all_else_is_equal(simulated: Path) -> None:
    state = load(simulated)
    assert state.finished
    parts = parts_of(state)
    assert [trial.ablated for trial in parts] == ["focal", "recall", "lr_scale"] * 2
    for trial in parts:
        source = state.trials[str(trial.source)]
        whole, part = source.config, trial.config
        TrialConfig.model_validate(part)
        assert (trial.status, trial.epochs, trial.rungs) == (COMPLETED, 8, {})
        assert part["task"] == whole["task"]
        assert part["seed"] == trial.seed
        neutral = {"focal": 0.0, "recall": None, "lr_scale": 1.0}
        flat = {**whole["loss"], **whole["optimizer"]}
        key = {"focal": "focal_gamma"}.get(trial.ablated, trial.ablated)
        changed = {**part["loss"], **part["optimizer"]}
        assert changed == {**flat, key: neutral[trial.ablated]}
    last = max(t.number for t in state.of_stage(CONFIRM) if not t.ablated)
    assert all(trial.number > last for trial in parts)


def test_the_answer_has_the_ablation_and_mixes_nothing(simulated: Path) -> None:
    state = load(simulated)
    found = answer(state, simulated)
    assert found.missing == ()
    assert [part.axis for part in found.ablation] == ["focal", "recall", "tuned learning rate"]
    source = parts_of(state)[0].source
    assert source is not None
    winner = found.config(source)
    assert winner is not None and len(winner.trials) == 2
    assert found.ablation_of == winner.label
    for part, axis in zip(found.ablation, ("focal", "recall", "lr_scale"), strict=True):
        mious = [t.last["test/tuned/miou"] for t in state.confirmations(source, 1, axis)]
        assert part.seeds == 2
        assert part.miou.mean == pytest.approx(sum(mious) / 2)
        assert part.miou.gain is not None
        expected = winner.mean("test/tuned/miou") - sum(mious) / 2
        assert part.miou.gain.difference == pytest.approx(expected)
    exported = export(state, found, source)
    assert exported["provenance"]["trial"] in winner.trials


def test_a_part_that_failed_is_said_to_be_missing(tmp_path: Path) -> None:
    class Diverges(Driver):
        def run(self, **options: Any) -> None:
            self.metrics = self.diverged
            super().run(**options)

        def diverged(self, record: TrialRecord, epoch: int) -> dict[str, float]:
            found = judged(record, epoch)
            if record.ablated == "recall" and record.seed == 1:
                return {key: float("nan") if "test" in key else v for key, v in found.items()}
            return found

    Diverges(tmp_path, space=SPACE).run()
    (line,) = answer(load(tmp_path), tmp_path).missing
    assert line.endswith("1 of 2 seeds are trained without recall and 1 failed")


def test_what_is_shown_of_one_says_what_is_switched_off(simulated: Path) -> None:
    state = load(simulated)
    assert state.study is not None
    trial = parts_of(state)[1]
    source = state.trials[str(trial.source)]
    assert trial.label == f"{source.label}, without recall"
    assert trial_name(trial) == f"{trial.id} {source.label}, without recall seed {trial.seed}"
    assert trial_tags(state.study, trial)["ablated"] == "recall"
    assert "ablated" not in trial_tags(state.study, source)
    assert "loss/recall/ema_momentum" not in (trial.params or {})
    assert final_points(trial), "its budget is that of all others"
    rows = csv.DictReader(io.StringIO(results_csv(state)))
    listed = {row["trial"]: row["ablated"] for row in rows}
    assert listed == {name: one.ablated for name, one in state.trials.items()}


@pytest.mark.parametrize("kill_after", [110, 115, 130])
def test_a_study_that_is_killed_among_them_ends_alike(tmp_path: Path, kill_after: int) -> None:
    Driver(tmp_path / "whole", metrics=judged, space=SPACE).run()
    killed = tmp_path / "killed"
    Driver(killed, metrics=judged, space=SPACE).run(kill_after=kill_after)
    Driver(killed, metrics=judged, space=SPACE).run()
    again = [
        {key: item for key, item in line.items() if key != "attempt"}
        for line in lines_without_times(killed)
        if not (line["kind"] == "trial" and line["attempt"] > 0)
    ]
    whole = lines_without_times(tmp_path / "whole")
    assert again == [{k: item for k, item in line.items() if k != "attempt"} for line in whole]
    handed_out = [line for line in lines_without_times(killed) if line["kind"] == "trial"]
    (twice,) = (line for line in handed_out if line["attempt"] > 0)
    (first,) = (line for line in handed_out if line["trial"] == twice["trial"] and line != twice)
    assert twice == {**first, "attempt": 1}
    assert first["ablated"]


def test_the_shipped_space_is_the_default_study_with_an_ablation() -> None:
    joint, ablated = load_space("joint"), load_space("joint_ablated")
    assert not joint.settings.confirm.ablate
    assert ablated.tree == joint.tree
    assert ablated.settings == joint.settings.model_copy(
        update={"confirm": joint.settings.confirm.model_copy(update={"ablate": True})}
    )
