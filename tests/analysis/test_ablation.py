"""Which axes a config has, and each of them switched off."""

from __future__ import annotations

from typing import Any

import pytest

from study.analysis.ablation import axes, axis_effect, in_words, most_axes, without
from study.analysis.rules import ARGMAX
from study.config.task import TrialOptimizer
from study.core.names import CONFIRM
from study.ledger.records import ReportRecord, TrialRecord
from study.ledger.state import State, Trial
from study.losses import PRESETS, family
from study.losses.config import FactoryLoss, LossConfig

EVERYTHING: dict[str, Any] = {
    "label_smoothing": 0.1,
    "focal_gamma": 2.0,
    "class_weights": {"scheme": "inverse_frequency", "exponent": 0.5},
    "recall": {"ema_momentum": 0.9},
    "pooling": {"kind": "max", "p": 2.0, "ratio": 0.3},
    "normalizer": "weight",
    "jaccard": {"mix": 0.5},
}
NAMES = ("label_smoothing", "focal", "class_weights", "recall", "max_pooling", "jaccard")


def config(loss: dict[str, Any], lr_scale: float = 1.0) -> dict[str, Any]:
    return {"loss": loss, "optimizer": {"lr_scale": lr_scale}}


def test_each_axis_that_is_active_is_switched_off_by_itself() -> None:
    whole = config(EVERYTHING, 2.0)
    assert axes(whole) == (*NAMES, "lr_scale")
    for axis in NAMES:
        loss, optimizer = without(whole, axis)
        assert isinstance(loss, LossConfig)
        assert family(loss).split("+") == [name for name in NAMES if name != axis]
        changed = [key for key, value in loss if value != getattr(LossConfig(**EVERYTHING), key)]
        assert len(changed) == 1
        assert optimizer.lr_scale == 2.0
    loss, optimizer = without(whole, "lr_scale")
    assert (loss, optimizer) == (LossConfig(**EVERYTHING), TrialOptimizer())


def test_smoothing_at_boundaries_and_hard_examples_are_axes_too() -> None:
    region = {"kind": "boundary", "width": 3}
    loss = {"label_smoothing": 0.1, "smoothing_region": region, "pooling": {"kind": "ohem"}}
    assert axes(config(loss)) == ("boundary_smoothing", "ohem")
    left = without(config(loss), "boundary_smoothing")[0]
    assert isinstance(left, LossConfig)
    assert (left.label_smoothing, family(left)) == (0.0, "ohem")
    assert family(without(config(loss), "ohem")[0]) == "boundary_smoothing"


def test_an_axis_without_effect_is_not_listed() -> None:
    only_jaccard = {**EVERYTHING, "jaccard": {"mix": 1.0}}
    assert axes(config(only_jaccard)) == ("jaccard",)
    assert family(without(config(only_jaccard), "jaccard")[0]).split("+") == list(NAMES[:-1])
    neutral = {"class_weights": {"scheme": "inverse_frequency", "exponent": 0.0}}
    assert axes(config(neutral)) == ()


def test_where_one_axis_is_active_cross_entropy_is_left_at_the_same_rate() -> None:
    loss, optimizer = without(config({"recall": {"ema_momentum": 0.0}}, 1.7), "recall")
    assert family(loss) == "ce"
    assert optimizer.lr_scale == 1.7


def test_of_a_loss_of_the_users_own_only_the_rate_is_switched_off() -> None:
    own = config({"factory": "mine:loss", "kwargs": {}}, 0.5)
    assert axes(own) == ("lr_scale",)
    assert without(own, "lr_scale") == (FactoryLoss(factory="mine:loss"), TrialOptimizer())


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "ce"])
def test_a_preset_without_all_its_axes_is_cross_entropy(preset: str) -> None:
    left = dict(PRESETS[preset].config)
    while found := axes(config(left)):
        left = without(config(left), found[0])[0].model_dump()
    assert family(LossConfig.model_validate(left)) == "ce"


def test_the_most_axes_count_each_field_once() -> None:
    pooled = [{"pooling": {"kind": "max"}}, {"pooling": {"kind": "ohem"}}]
    hidden = {"jaccard": {"mix": 1.0}, "focal_gamma": 2.0}
    losses = [LossConfig.model_validate(loss) for loss in (*pooled, hidden)]
    assert most_axes(losses[:2]) == 1
    assert most_axes(losses) == 3
    assert most_axes([LossConfig(), FactoryLoss(factory="mine:loss")]) == 0


def trials(values: list[tuple[float, float]], first_seed: int = 0) -> list[Trial]:
    state = State()
    for seed, (miou, macc) in enumerate(values, first_seed):
        name = f"t{seed}"
        state.apply(TrialRecord(name, seed, CONFIRM, "x", "recall", None, {}, seed))
        metrics = {"test/miou": miou, "test/macc": macc}
        state.apply(ReportRecord(name, 0, 1, metrics))
    return list(state.trials.values())


def test_the_gain_of_an_axis_is_paired_by_seed() -> None:
    whole = trials([(0.50, 0.70), (0.60, 0.70), (0.55, 0.70)])
    parts = trials([(0.57, 0.715), (0.525, 0.71), (0.70, 0.50)], first_seed=1)
    found = axis_effect("class_weights", whole, parts, ARGMAX)
    assert (found.axis, found.seeds) == ("class weights", 3)
    assert found.miou.mean == pytest.approx((0.57 + 0.525 + 0.70) / 3)
    assert found.miou.gain is not None and found.miou.gain.interval is not None
    assert found.miou.gain.difference == pytest.approx(0.0275), "seed 3 has no partner"
    half = 12.706 * 0.0025  # t of one degree of freedom; sd of (.03, .025) over the root of 2
    assert found.miou.gain.interval.high == pytest.approx(0.0275 + half, abs=1e-5)
    assert found.miou.verdict == "not told apart from none"
    assert found.macc.gain is not None
    assert found.macc.gain.difference == pytest.approx(-0.0125)


@pytest.mark.parametrize(
    ("left", "said"),
    [(0.40, "earns its place"), (0.60, "does harm"), (0.4995, "not told apart from none")],
)
def test_the_verdict_is_where_the_interval_lies(left: float, said: str) -> None:
    whole = trials([(0.50, 0.5), (0.51, 0.5), (0.52, 0.5)])
    parts = trials([(left, 0.5), (left + 0.011, 0.5), (left + 0.019, 0.5)])
    found = axis_effect("recall", whole, parts, ARGMAX)
    assert found.miou.verdict == said
    assert found.macc.verdict == "", "no spread: no interval"
    assert axis_effect("recall", whole, trials([(0.4, 0.5)], 9), ARGMAX).miou.gain is None


def test_axes_are_named_in_words() -> None:
    assert in_words("class_weights") == "class weights"
    assert in_words("lr_scale") == "tuned learning rate"
