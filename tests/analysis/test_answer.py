from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ledgers import make_study

from study.analysis.answer import Answer, answer, confirmed_reference
from study.analysis.bootstrap import difference_interval
from study.analysis.evidence import path_of, write
from study.analysis.evidence import read as read_evidence
from study.core.errors import InputError
from study.core.names import BASELINE, COMPLETED, CONFIRM, FAILED, REFERENCE, SEARCH
from study.ledger.records import EndRecord, ReportRecord, SelectRecord, StudyRecord, TrialRecord
from study.ledger.state import State
from study.metrics import TAUS
from study.metrics.evidence import SplitEvidence
from study.storage.studies import load


@dataclass
class Hand:
    """A study whose confirmed metrics are written by hand."""

    state: State

    def trial(
        self, name: str, stage: str, family: str, *, source: str | None = None,
        seed: int = 0, lr_scale: float = 1.0, end: EndRecord | None = None, **metrics: float,
    ) -> None:  # fmt: skip
        number = len(self.state.trials)
        config = {"loss": name, "optimizer": {"lr_scale": lr_scale}}
        self.state.apply(
            TrialRecord(name, number, stage, name, family, None, config, seed, source=source)
        )
        named = {key.replace("_", "/"): value for key, value in metrics.items()}
        self.state.apply(ReportRecord(name, 0, 1, named))
        self.state.apply(end or EndRecord(name, COMPLETED, "full budget", 1))

    def confirm(
        self, source: str, val: tuple[float, float], test: list[tuple[float, float]]
    ) -> None:
        family = self.state.trials[source].family
        for seed, (miou, macc) in enumerate(test):
            self.trial(
                f"{source}-{seed}", CONFIRM, family, source=source, seed=seed,
                val_miou=val[0], val_macc=val[1], test_miou=miou, test_macc=macc,
            )  # fmt: skip


@pytest.fixture
def hand() -> Hand:
    state = State()
    plan = {"objectives": ["val/miou", "val/macc"], "confirm_top": 2, "confirm_seeds": 3}
    state.apply(StudyRecord("s", 0, "task", {}, "space", {}, plan, {}, {}))
    made = Hand(state)
    made.trial("ce", BASELINE, "ce", val_miou=0.50, val_macc=0.60)
    made.trial("tuned", REFERENCE, "ce", lr_scale=2.0, val_miou=0.52, val_macc=0.61)
    made.trial("a", SEARCH, "recall", val_miou=0.60, val_macc=0.70)
    made.trial("b", SEARCH, "jaccard", val_miou=0.55, val_macc=0.80)
    return made


TUNED_KEYS = ("val/tuned/miou", "val/tuned_macc/macc", "test/tuned/miou", "test/tuned_macc/macc")


def with_rules(
    hand: Hand, trial: str, miou: float, macc: float, at: float = 0.01, **taus: float
) -> None:
    """Report the trial once more, with tuned metrics: val as given, test `at` below."""
    values = dict(zip(TUNED_KEYS, (miou, macc, miou - at, macc - at), strict=True))
    named = {f"val/{name}": tau for name, tau in taus.items()}
    before = hand.state.trials[trial]
    metrics = {**before.last, **values, **named}
    hand.state.apply(ReportRecord(trial, 0, before.epochs + 1, metrics))


NOWHERE = Path("/nonexistent")


def spread(miou: float, macc: float) -> list[tuple[float, float]]:
    return [(miou - 0.01, macc - 0.01), (miou, macc), (miou + 0.01, macc + 0.01)]


def confirm_all(hand: Hand) -> None:
    hand.state.apply(SelectRecord(["a", "b"], "tuned", "ce"))
    hand.confirm("tuned", (0.52, 0.61), spread(0.50, 0.60))
    hand.confirm("ce", (0.50, 0.60), spread(0.48, 0.58))
    hand.confirm("a", (0.58, 0.68), spread(0.56, 0.66))
    hand.confirm("b", (0.54, 0.78), spread(0.57, 0.75))


def confirmed(hand: Hand) -> Answer:
    confirm_all(hand)
    return answer(hand.state, NOWHERE)


def test_the_best_are_chosen_on_val_and_reported_on_test(hand: Hand) -> None:
    found = confirmed(hand)
    assert (found.best_miou, found.best_macc) == ("a", "b")  # b is ahead of a on test
    best = found.config("a")
    assert best is not None
    assert best.mean("test/miou") == pytest.approx(0.56)
    assert best.sd("test/miou") == pytest.approx(0.01)
    assert best.seeds == (0, 1, 2)
    assert [config.source for config in found.configs] == ["a", "b", "tuned", "ce"]
    assert found.confirmed and found.missing == ()


def test_gains_are_taken_over_both_cross_entropies(hand: Hand) -> None:
    found = confirmed(hand)
    tuned = found.gain("a", found.reference, "test/miou")
    stated = found.gain("a", found.default_ce, "test/miou")
    assert tuned is not None and stated is not None
    assert (tuned.absolute, tuned.relative) == pytest.approx((0.06, 0.12))
    assert (stated.absolute, stated.relative) == pytest.approx((0.08, 1 / 6))


def test_every_config_but_the_reference_is_compared_to_it(hand: Hand) -> None:
    found = confirmed(hand)
    assert {c.source: set(c.versus) for c in found.configs} == {
        "a": {"test/miou", "test/macc"},
        "b": {"test/miou", "test/macc"},
        "ce": {"test/miou", "test/macc"},
        "tuned": set(),
    }
    a = found.configs[0].versus["test/miou"]
    assert a.difference == pytest.approx(0.06)
    assert a.interval is not None and a.interval.low > 0 and a.p is not None and a.p < 0.01


def test_a_mean_accuracy_bought_with_miou_is_not_the_best(hand: Hand) -> None:
    hand.state.apply(SelectRecord(["a", "b"], "tuned", "ce"))
    hand.confirm("tuned", (0.52, 0.61), spread(0.50, 0.60))
    hand.confirm("a", (0.58, 0.68), spread(0.56, 0.66))
    hand.confirm("b", (0.51, 0.90), spread(0.57, 0.90))
    assert answer(hand.state, NOWHERE).best_macc == "a"


def test_cross_entropy_is_the_answer_where_nothing_beats_it(hand: Hand) -> None:
    hand.state.apply(SelectRecord(["a"], "tuned", "ce"))
    hand.confirm("tuned", (0.59, 0.71), spread(0.58, 0.70))
    hand.confirm("a", (0.58, 0.68), spread(0.60, 0.72))
    found = answer(hand.state, NOWHERE)
    assert (found.best_miou, found.best_macc) == ("tuned", "tuned")


def test_with_two_seeds_there_are_means_and_no_intervals(hand: Hand) -> None:
    hand.state.apply(SelectRecord(["a"], "tuned", None))
    hand.confirm("tuned", (0.52, 0.61), spread(0.50, 0.60)[:2])
    hand.confirm("a", (0.58, 0.68), spread(0.56, 0.66)[:2])
    found = answer(hand.state, NOWHERE)
    a = found.config("a")
    assert a is not None
    assert a.versus["test/miou"].interval is None and a.versus["test/miou"].p is None
    assert "fewer than 3 seeds" in a.versus["test/miou"].note
    assert set(found.missing) == {
        "tuned (tuned): 2 of 3 seeds are confirmed", "a (a): 2 of 3 seeds are confirmed"
    }  # fmt: skip


def test_a_failed_confirmation_is_left_out_and_said(hand: Hand) -> None:
    found = confirmed(hand)
    assert not found.missing
    hand.state.apply(EndRecord("b-1", FAILED, "diverged", 1))
    again = answer(hand.state, NOWHERE)
    b = again.config("b")
    assert b is not None and (b.seeds, b.failed) == ((0, 2), (1,))
    assert again.missing == ("b (b): 2 of 3 seeds are confirmed and 1 failed",)
    assert (again.best_miou, again.best_macc) == ("a", "a"), "b had been the best by accuracy"


def test_a_config_that_fails_on_a_seed_is_no_best_one_while_there_is_another(hand: Hand) -> None:
    confirmed(hand)
    hand.state.apply(EndRecord("a-0", FAILED, "diverged", 1))
    assert answer(hand.state, NOWHERE).best_miou == "b"
    for trial in ("b-0", "tuned-0", "ce-0"):
        hand.state.apply(EndRecord(trial, FAILED, "diverged", 1))
    assert answer(hand.state, NOWHERE).best_miou == "a", "where all fail on a seed"


def test_a_seed_that_the_machine_lost_is_none_that_failed(hand: Hand) -> None:
    confirmed(hand)
    hand.state.apply(EndRecord("a-0", FAILED, "node lost", 1, by_machine=True))
    found = answer(hand.state, NOWHERE)
    assert found.best_miou == "a"
    assert found.missing == ("a (a): 2 of 3 seeds are confirmed",)


def test_a_seed_whose_test_metric_is_no_number_has_failed(hand: Hand) -> None:
    hand.state.apply(SelectRecord(["a"], "tuned", "ce"))
    hand.confirm("tuned", (0.52, 0.61), spread(0.50, 0.60))
    hand.confirm("ce", (0.50, 0.60), spread(0.48, 0.58))
    hand.confirm("a", (0.58, 0.68), [*spread(0.56, 0.66)[:2], (math.nan, 0.66)])
    found = answer(hand.state, NOWHERE)
    assert found.best_miou == "tuned"
    assert found.missing == ("a (a): 2 of 3 seeds are confirmed and 1 failed",)


def test_where_every_chosen_loss_fails_cross_entropy_is_the_answer(hand: Hand) -> None:
    hand.state.apply(SelectRecord(["a"], "tuned", "ce"))
    hand.confirm("tuned", (0.52, 0.61), spread(0.50, 0.60))
    hand.confirm("ce", (0.50, 0.60), spread(0.48, 0.58))
    hand.confirm("a", (0.58, 0.68), spread(0.56, 0.66))
    for seed in (0, 1):
        hand.state.apply(EndRecord(f"a-{seed}", FAILED, "diverged", 1))
    hand.state.apply(EndRecord("a-2", FAILED, "diverged", 1))
    found = answer(hand.state, NOWHERE)
    assert (found.confirmed, found.best_miou, found.best_macc) == (True, "tuned", "tuned")
    assert found.missing == ("a (a): 0 of 3 seeds are confirmed and 3 failed",)


def test_cross_entropy_that_was_not_tuned_is_not_called_tuned(hand: Hand) -> None:
    assert confirmed(hand).reference_name == "tuned cross entropy"
    for trial in ("tuned", "ce"):
        hand.state.trials[trial].config = {"loss": "ce", "optimizer": {"lr_scale": 1.0}}
    found = answer(hand.state, NOWHERE)
    assert found.reference_name == "default cross entropy"
    assert found.missing == ("cross entropy was not tuned: the reference is default cross entropy",)


def test_what_a_budget_left_out_is_missing(hand: Hand) -> None:
    confirmed(hand)
    assert hand.state.study is not None
    hand.state.study.plan.update(num_trials=16, baselines=["ce", "recall", "jml"])
    assert answer(hand.state, NOWHERE).missing == (
        "2 of 3 baselines were left out",
        "13 of 16 searched trials were left out",
    )


def test_a_search_that_has_gone_on_since_is_said(hand: Hand) -> None:
    confirmed(hand)
    hand.trial("c", SEARCH, "focal", val_miou=0.75, val_macc=0.8)
    found = answer(hand.state, NOWHERE)
    assert (found.confirmed, found.best_miou) == (True, "a")
    assert found.missing == ("the search has gone on since: what is confirmed will be chosen anew",)


def test_while_only_cross_entropy_is_confirmed_the_best_are_the_best_so_far(hand: Hand) -> None:
    hand.confirm("ce", (0.50, 0.60), spread(0.48, 0.58))  # its seeds may run before the selection
    early = answer(hand.state, NOWHERE)
    hand.state.apply(SelectRecord(["a", "b"], "tuned", "ce"))
    late = answer(hand.state, NOWHERE)
    for found in (early, late):
        assert (found.best_miou, found.best_macc, found.confirmed) == ("a", "b", False)
        assert [config.source for config in found.configs] == ["ce"]
        assert found.missing


def test_one_cross_entropy_can_be_both(hand: Hand) -> None:
    hand.state.apply(SelectRecord(["a"], "ce", "ce"))
    hand.confirm("ce", (0.50, 0.60), spread(0.48, 0.58))
    hand.confirm("a", (0.58, 0.68), spread(0.56, 0.66))
    found = answer(hand.state, NOWHERE)
    assert found.reference is found.default_ce is not None
    assert len(found.configs) == 2


def test_without_a_reference_there_is_an_answer_and_it_says_so(hand: Hand) -> None:
    hand.state.apply(SelectRecord(["a"], None, None))
    hand.confirm("a", (0.58, 0.68), spread(0.56, 0.66))
    found = answer(hand.state, NOWHERE)
    assert (found.best_miou, found.best_macc, found.confirmed) == ("a", "a", True)
    assert found.missing == (
        "no cross entropy trial reached the full budget: there is no reference",
    )


def test_a_study_that_confirms_nothing_says_so(hand: Hand) -> None:
    assert hand.state.study is not None
    hand.state.study.plan["confirm_seeds"] = 0
    hand.state.apply(SelectRecord([], "tuned", "ce"))
    found = answer(hand.state, NOWHERE)
    assert (found.best_miou, found.confirmed) == ("a", False)
    assert "no confirmation" in found.missing[0]


@pytest.mark.slow
@pytest.mark.parametrize("until", ["start", "baselines", "search", "select", "finish"])
def test_a_study_has_an_answer_at_every_stage(tmp_path: Path, until: str) -> None:
    folder = make_study(tmp_path / "demo", until=until)
    found = answer(load(folder), folder)
    assert found.confirmed == (until == "finish")
    assert (found.best_miou is None) == (until == "start")
    assert bool(found.missing) == (until != "finish")
    assert all(item in load(folder).trials for item in found.pareto)


def test_an_empty_ledger_has_an_answer() -> None:
    assert answer(State(), NOWHERE).missing == ("no trial has reached the full budget yet",)


@pytest.mark.slow
def test_test_images_give_an_interval_of_their_own(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "demo")
    found = answer(load(folder), folder)
    for config in found.configs:
        for key, interval in config.images.items():
            assert interval.low < config.versus[key].difference < interval.high
        assert set(config.images) == set(config.versus)
    missing = found.configs[0].trials[0]
    path_of(folder, missing).unlink()
    again = answer(load(folder), folder)
    assert again.configs[0].images == {} and again.configs[0].versus == found.configs[0].versus
    assert not math.isnan(again.configs[0].mean("test/miou"))


def test_where_cross_entropy_alone_completed_its_confirmation_is_the_answer(hand: Hand) -> None:
    hand.state.apply(SelectRecord([], "tuned", "ce"))
    hand.confirm("tuned", (0.40, 0.50), spread(0.40, 0.50))
    hand.confirm("ce", (0.50, 0.60), spread(0.50, 0.60))
    found = answer(hand.state, NOWHERE)
    assert (found.confirmed, found.best_miou, found.best_macc) == (True, "ce", "ce")
    assert any("no loss but cross entropy" in line for line in found.missing)


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 200])
def test_evidence_that_is_torn_is_bad_input(tmp_path: Path, length: int) -> None:
    folder = make_study(tmp_path / "demo")
    trial = load(folder).completed(CONFIRM)[0]
    path = path_of(folder, trial.id)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=trial.id):
        answer(load(folder), folder)


def two_tuned(hand: Hand, *, first: float, second: float, default: float) -> None:
    """Three confirmed cross entropies, by mean confirmed val mIoU; `tuned` was ahead before."""
    hand.trial("tuned2", REFERENCE, "ce", lr_scale=4.0, val_miou=0.515, val_macc=0.61)
    hand.state.apply(SelectRecord(["a"], "tuned", "ce", runner_up="tuned2"))
    for source, miou in (("tuned", first), ("tuned2", second), ("ce", default)):
        hand.confirm(source, (miou, 0.61), spread(miou - 0.02, 0.60))
    hand.confirm("a", (0.58, 0.68), spread(0.56, 0.66))


@pytest.mark.parametrize(
    ("values", "best"),
    [((0.52, 0.51, 0.50), "tuned"), ((0.50, 0.53, 0.52), "tuned2"), ((0.50, 0.51, 0.52), "ce")],
)
def test_the_reference_is_the_best_confirmed_cross_entropy_for_every_comparison(
    hand: Hand, values: tuple[float, float, float], best: str
) -> None:
    two_tuned(hand, first=values[0], second=values[1], default=values[2])
    found = answer(hand.state, NOWHERE)
    assert found.reference is not None and found.reference.source == best
    assert [config.source for config in found.configs if config.is_reference] == [best]
    assert found.reference.versus == {}
    assert {c.source for c in found.configs if c.versus} == {"tuned", "tuned2", "ce", "a"} - {best}
    against = found.config("a")
    assert against is not None
    assert against.versus["test/miou"].difference == pytest.approx(0.56 - (max(values) - 0.02))


def test_the_tuned_rule_chooses_the_reference_where_it_is_reported(hand: Hand) -> None:
    two_tuned(hand, first=0.52, second=0.51, default=0.50)
    assert confirmed_reference(hand.state) is hand.state.trials["tuned"]
    values = {"tuned": 0.53, "tuned2": 0.54, "ce": 0.50}
    for trial in list(hand.state.trials.values()):
        with_rules(hand, trial.id, values.get(trial.source or trial.id, 0.5), 0.7)
    assert confirmed_reference(hand.state) is hand.state.trials["tuned2"]


def test_a_cross_entropy_with_a_failed_seed_is_no_reference_while_another_is_sound(
    hand: Hand,
) -> None:
    hand.trial("tuned2", REFERENCE, "ce", lr_scale=4.0, val_miou=0.515, val_macc=0.61)
    hand.state.apply(SelectRecord(["a"], "tuned", "ce", runner_up="tuned2"))
    hand.confirm("tuned", (0.60, 0.61), spread(0.50, 0.60)[:2])
    end = EndRecord("tuned-2", FAILED, "diverged", 1)
    hand.trial("tuned-2", CONFIRM, "ce", source="tuned", seed=2, end=end)
    hand.confirm("tuned2", (0.52, 0.61), spread(0.49, 0.60))
    hand.confirm("a", (0.58, 0.68), spread(0.56, 0.66))
    assert confirmed_reference(hand.state) is hand.state.trials["tuned2"]


def test_default_cross_entropy_is_no_reference_before_the_tuned_one_is_judged(hand: Hand) -> None:
    hand.state.apply(SelectRecord(["a"], "tuned", "ce"))
    hand.confirm("ce", (0.50, 0.60), spread(0.48, 0.58))
    assert answer(hand.state, NOWHERE).reference is None


def test_the_answer_waits_for_the_runner_up(hand: Hand) -> None:
    hand.trial("tuned2", REFERENCE, "ce", lr_scale=4.0, val_miou=0.515, val_macc=0.61)
    hand.state.apply(SelectRecord(["a"], "tuned", "ce", runner_up="tuned2"))
    hand.confirm("tuned", (0.52, 0.61), spread(0.50, 0.60))
    hand.confirm("a", (0.58, 0.68), spread(0.56, 0.66))
    assert not answer(hand.state, NOWHERE).confirmed
    hand.confirm("tuned2", (0.52, 0.61), spread(0.50, 0.60))
    assert answer(hand.state, NOWHERE).confirmed


TUNED_VALUES = {"tuned": (0.60, 0.75), "ce": (0.59, 0.74), "a": (0.61, 0.74), "b": (0.62, 0.76)}


def tuned_answer(hand: Hand, values: dict[str, tuple[float, float]], **taus: float) -> Answer:
    confirm_all(hand)
    for source, (miou, macc) in values.items():
        with_rules(hand, source, miou, macc)
        for seed, off in enumerate((-0.01, 0.0, 0.01)):
            with_rules(hand, f"{source}-{seed}", miou + off, macc + off, **taus)
    return answer(hand.state, NOWHERE)


def test_the_tuned_column_ranks_and_chooses(hand: Hand) -> None:
    found = tuned_answer(hand, TUNED_VALUES)
    assert [rule.name for rule in found.rules] == ["tuned rule", "argmax"]
    assert [config.source for config in found.configs] == ["b", "a", "tuned", "ce"]
    assert (found.best_miou, found.best_macc) == ("b", "b"), "a is ahead at the argmax"
    b = found.configs[0]
    assert set(b.versus) == {
        "test/miou", "test/macc", "test/tuned/miou", "test/tuned_macc/macc"
    }  # fmt: skip
    assert b.versus["test/tuned/miou"].difference == pytest.approx(0.02)
    assert b.versus["test/miou"].difference == pytest.approx(0.07)


def test_a_tuned_mean_accuracy_bought_with_tuned_miou_is_not_the_best(hand: Hand) -> None:
    values = {**TUNED_VALUES, "a": (0.61, 0.78), "b": (0.59, 0.90)}
    assert tuned_answer(hand, values).best_macc == "a"


def test_a_tuned_test_metric_that_is_no_number_has_failed(hand: Hand) -> None:
    tuned_answer(hand, TUNED_VALUES)
    last = {**hand.state.trials["b-1"].last, "test/tuned/miou": math.nan}
    hand.state.apply(ReportRecord("b-1", 0, 3, last))
    b = answer(hand.state, NOWHERE).config("b")
    assert b is not None and (b.seeds, b.failed) == ((0, 2), (1,))


def test_unconfirmed_the_best_so_far_is_that_of_the_tuned_column(hand: Hand) -> None:
    for source, (miou, macc) in TUNED_VALUES.items():
        with_rules(hand, source, miou, macc)
    found = answer(hand.state, NOWHERE)
    assert (found.best_miou, found.best_macc, found.confirmed) == ("b", "b", False)


def test_a_best_rule_at_the_edge_of_what_is_tried_is_noted(hand: Hand) -> None:
    assert tuned_answer(hand, TUNED_VALUES, tau_miou=0.3, tau_macc=1.4).notes == ()
    with_rules(hand, "a-1", 0.61, 0.74, tau_miou=-1.5, tau_macc=1.5)
    assert answer(hand.state, NOWHERE).notes == (
        "a (a): tau_miou is -1.5, the end of what is tried, with 1 of 3 seeds: a better rule may "
        "lie beyond",
        "a (a): tau_macc is 1.5, the end of what is tried, with 1 of 3 seeds: a better rule may "
        "lie beyond",
    )


@pytest.mark.slow
def test_each_rule_has_the_interval_of_its_own_counts_and_a_place_on_the_curve(
    tmp_path: Path,
) -> None:
    folder = make_study(tmp_path / "demo", rules=True)
    found = answer(load(folder), folder)
    best, reference = found.config(found.best_miou), found.reference
    assert best is not None and reference is not None
    sides = []
    for config in (best, reference):
        read = [read_evidence(path_of(folder, trial)) for trial in config.trials]
        sides.append([item.splits["test"] for item in read if item is not None])
    for key, counts in (
        ("test/miou", "counts"),
        ("test/macc", "counts"),
        ("test/tuned/miou", "tuned_counts"),
        ("test/tuned_macc/macc", "tuned_macc_counts"),
    ):
        ours, theirs = ([getattr(split, counts) for split in side] for side in sides)
        metric = key.split("/")[-1]
        expected = difference_interval(ours, theirs, sides[0][0].groups, metric=metric)
        assert best.images[key] == expected
    for config in found.configs:
        for seed, curve in enumerate(config.curves):
            at = {tau: curve[TAUS.index(tau)] for tau in TAUS}
            metrics = {key: values[seed] for key, values in config.metrics.items()}
            assert at[0.0] == pytest.approx((metrics["test/macc"], metrics["test/miou"]))
            assert at[metrics["val/tau_miou"]][1] == pytest.approx(metrics["test/tuned/miou"])
            assert at[metrics["val/tau_macc"]][0] == pytest.approx(metrics["test/tuned_macc/macc"])
        assert len(config.curves) == 3


@pytest.mark.slow
def test_one_seed_with_evidence_of_an_earlier_version_leaves_its_config_the_argmax(
    tmp_path: Path,
) -> None:
    folder = make_study(tmp_path / "demo", rules=True)
    source = answer(load(folder), folder).configs[0]
    path = path_of(folder, source.trials[1])
    read = read_evidence(path)
    assert read is not None
    counts = read.splits["test"]
    earlier = SplitEvidence(counts.confusion, counts.counts, counts.groups)
    write(path, read.class_names, {"test": earlier})
    changed, *others = answer(load(folder), folder).configs
    assert changed.curves == () and set(changed.images) == {"test/miou", "test/macc"}
    assert all(len(config.curves) == 3 for config in others)


def test_a_note_says_that_the_reference_was_still_rising(hand: Hand) -> None:
    confirmed(hand)
    assert answer(hand.state, Path("nowhere")).notes == ()
    for trial in hand.state.confirmations("tuned"):
        last = trial.last
        for epoch in range(1, 9):
            trial.reports[epoch] = {**last, "val/miou": 0.5 + 0.01 * epoch}
    (note,) = answer(hand.state, Path("nowhere")).notes
    assert "rising by 1.00 points" in note


def test_the_ladder_has_the_rungs_that_exist(hand: Hand) -> None:
    found = confirmed(hand)
    assert [rung.name for rung in found.ladder] == [
        "default cross entropy at the argmax",
        "tuned learning rate at the argmax",
        f"{found.best_miou} at the argmax",
    ]
    assert hand.state.study is not None
    hand.state.study.plan["confirm_budgets"] = [1, 4]
    tuned: dict[str, float] = {}
    for source in ("ce", "tuned", "a", "b"):
        trials = hand.state.confirmations(source)
        tuned[source] = sum(trial.last["test/miou"] for trial in trials) / 3 + 0.01
    for trial in hand.state.trials.values():
        values = {"val/tuned/miou": trial.last["val/miou"]}
        values["val/tuned_macc/macc"] = values["test/tuned_macc/macc"] = 0.6
        values["test/tuned/miou"] = trial.last.get("test/miou", 0.0) + 0.01
        trial.reports[trial.epochs] = {**trial.last, **values}
    partly = answer(hand.state, NOWHERE)
    assert sum("0 of 3 seeds are trained for 4 times the budget" in x for x in partly.missing) == 2
    for source, family in (("tuned", "ce"), ("a", "recall")):
        for seed in range(3):
            name = f"{source}-{seed}-longer"
            record = TrialRecord(
                name, 0, CONFIRM, name, family, None, {}, seed, source=source, budget=4
            )
            test = {"test/miou": 0.9, "test/macc": 0.9}
            test |= {"test/tuned/miou": 0.95, "test/tuned_macc/macc": 0.9, "val/tuned/miou": 0.9}
            hand.state.apply(record)
            hand.state.apply(ReportRecord(name, 0, 4, {"val/miou": 0.9, "val/macc": 0.9, **test}))
            hand.state.apply(EndRecord(name, COMPLETED, "full budget", 4))
    whole = answer(hand.state, NOWHERE)
    expected: list[tuple[str, Any, int]] = [
        ("tuned decision rule", pytest.approx(tuned["tuned"]), 3),
        ("4 times the budget", pytest.approx(0.95), 3),
        ("a at its rule", pytest.approx(tuned["a"]), 3),
        ("a at its rule, 4 times the budget", pytest.approx(0.95), 3),
    ]
    assert [(rung.name, rung.mean, rung.seeds) for rung in whole.ladder[2:]] == expected
    assert whole.missing == ()
    assert [c.metrics["test/miou"] for c in whole.configs] == [
        c.metrics["test/miou"] for c in found.configs
    ], "longer trainings stay out of the comparison"


def test_a_default_rate_that_is_the_best_is_one_rung(hand: Hand) -> None:
    hand.state.apply(SelectRecord(["a"], "ce", "ce"))
    hand.confirm("ce", (0.50, 0.60), spread(0.48, 0.58))
    hand.confirm("a", (0.58, 0.68), spread(0.56, 0.66))
    names = [rung.name for rung in answer(hand.state, NOWHERE).ladder]
    assert names == ["default cross entropy at the argmax", "a at the argmax"]


def test_there_is_no_ladder_before_the_selection_is_confirmed(hand: Hand) -> None:
    hand.state.apply(SelectRecord(["a"], "tuned", "ce"))
    hand.confirm("tuned", (0.52, 0.61), spread(0.50, 0.60))
    assert answer(hand.state, NOWHERE).ladder == ()
