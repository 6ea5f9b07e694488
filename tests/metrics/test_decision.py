"""The decision rules against a plain computation in float64, one tau at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from study.metrics import TAUS, Decision, SegmentationMetrics
from study.metrics.curve import CurveCounter
from study.metrics.decision import Taus, choose_taus, log_prior

COUNTS = np.array([5000, 3000, 900, 90, 10, 0])
CLASSES = len(COUNTS)


def plain(logits: Tensor, target: Tensor, counts: Any = COUNTS) -> np.ndarray:
    """(images, taus, C, C), as the definition says."""
    shares = np.asarray(counts, float)
    shares[shares == 0] = shares[shares > 0].min()
    z, y = logits.double().numpy(), target.numpy()
    found = np.zeros((len(z), len(TAUS), len(shares), len(shares)), int)
    for index, tau in enumerate(TAUS):
        scores = z - tau * np.log(shares / np.sum(counts))[:, None, None]
        pred = logits.argmax(1).numpy() if tau == 0 else scores.argmax(1)
        for image in range(len(z)):
            on = y[image] != 255
            np.add.at(found[image, index], (y[image][on], pred[image][on]), 1)
    return found


def batch(seed: int = 0, spread: float = 3.0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    target = torch.randint(0, CLASSES, (3, 12, 10), generator=rng)
    target[torch.rand(target.shape, generator=rng) < 0.2] = 255
    logits = spread * torch.randn(3, CLASSES, 12, 10, generator=rng)
    is_true = torch.nn.functional.one_hot(target.clamp(max=CLASSES - 1), CLASSES).movedim(-1, 1)
    return logits + spread * is_true + torch.as_tensor(log_prior(COUNTS))[
        :, None, None
    ].float(), target


def measured(logits: Tensor, target: Tensor, **options: Any) -> SegmentationMetrics:
    metrics = SegmentationMetrics(CLASSES, class_counts=COUNTS, **options)
    for image in range(len(logits)):
        metrics.update(logits[image : image + 1], target[image : image + 1])
    return metrics


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([0.0, 0.3, 3.0, 30.0]))
def test_the_curve_is_the_argmax_at_each_tau(seed: int, spread: float) -> None:
    logits, target = batch(seed, spread)
    found = measured(logits, target).curve
    np.testing.assert_array_equal(found, plain(logits, target).sum(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_few_bits_and_many_ties_are_counted_exactly(dtype: torch.dtype) -> None:
    logits, target = batch(1)
    logits = (2 * logits).round().to(dtype)
    assert (logits.topk(2, 1).values.diff(dim=1) == 0).any(), "there are ties"
    np.testing.assert_array_equal(measured(logits, target).curve, plain(logits, target).sum(0))


def test_the_memory_format_and_infinite_logits_do_not_matter() -> None:
    logits, target = batch(2)
    logits[:, 1] = -torch.inf
    logits[0, 3, 0] = torch.inf
    expected = plain(logits, target).sum(0)
    other = logits.contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(measured(logits, target).curve, expected)
    np.testing.assert_array_equal(measured(other, target).curve, expected)


def test_equal_shares_leave_every_rule_the_argmax() -> None:
    logits, target = batch(3)
    metrics = SegmentationMetrics(CLASSES, class_counts=np.full(CLASSES, 7))
    metrics.update(logits, target)
    assert metrics.curve is not None
    assert (metrics.curve == metrics.confusion.numpy()).all()


def test_a_device_counts_as_the_cpu_does() -> None:
    logits, target = batch(4)
    counter = CurveCounter(torch.as_tensor(log_prior(COUNTS)))
    flat = target.flatten(1)
    expected = torch.as_tensor(plain(logits, target))
    found = torch.zeros_like(expected)
    found[:, TAUS.index(0.0)] = expected[:, TAUS.index(0.0)]
    counter._count_each(logits.flatten(2), flat, flat != 255, found)
    np.testing.assert_array_equal(found, expected)


def test_the_metrics_of_a_rule_are_those_of_its_classes() -> None:
    logits, target = batch(5)
    metrics = measured(logits, target, groups={"rare": ["3", "4", "5"]})
    values = metrics.compute()
    shares = log_prior(COUNTS)
    for rule, tau in (("tuned", values["tau_miou"]), ("tuned_macc", values["tau_macc"])):
        again = SegmentationMetrics(CLASSES, groups={"rare": ["3", "4", "5"]})
        again.update(Decision(tuple(shares), tau)(logits), target)
        expected = again.compute()
        for key, value in expected.items():
            if key != "num_classes_present":
                assert values[f"{rule}/{key}"] == value, key
        np.testing.assert_array_equal(metrics.rule_counts(tau), again.image_counts())
    argmax = SegmentationMetrics(CLASSES)
    argmax.update(logits.argmax(1), target)
    assert values["miou"] == argmax.compute()["miou"]
    assert values["tau_miou"] != 0


def test_test_is_judged_at_the_rules_of_val() -> None:
    val, test = measured(*batch(6)), measured(*batch(7))
    rules = val.taus()
    assert rules is not None
    assert rules != test.taus(), "else this shows nothing"
    values = test.compute(rules)
    assert "tau_miou" not in values
    shares = tuple(log_prior(COUNTS))
    again = SegmentationMetrics(CLASSES)
    logits, target = batch(7)
    again.update(Decision(shares, rules.miou)(logits), target)
    assert values["tuned/miou"] == again.compute()["miou"]


def test_the_two_rules_are_chosen_as_defined() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        curve = rng.integers(1, 100, (len(TAUS), 3, 3))
        hits = np.diagonal(curve, axis1=1, axis2=2)
        total, decided = curve.sum(2), curve.sum(1)
        miou = (hits / (total + decided - hits)).mean(1)
        macc = (hits / total).mean(1)
        near = [k for k in range(len(TAUS)) if miou[k] >= miou.max() - 0.02]
        best = max(near, key=lambda k: macc[k])
        assert choose_taus(curve) == Taus(TAUS[int(miou.argmax())], TAUS[best])


def test_among_equal_rules_the_argmax_is_chosen() -> None:
    assert choose_taus(np.ones((len(TAUS), 3, 3), int)) == Taus(0.0, 0.0)
    assert choose_taus(np.zeros((len(TAUS), 3, 3), int)) == Taus(0.0, 0.0)


def test_a_nan_makes_everything_nan_but_the_rules() -> None:
    logits, target = batch(8)
    target[0, 0, 0] = 0
    logits[0, 2, 0, 0] = torch.nan
    values = measured(logits, target, calibration=True).compute()
    assert all(np.isnan(values[key]) for key in ("miou", "tuned/miou", "tuned_macc/macc", "nll"))


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize("shape", [(2, CLASSES, 4, 5), (CLASSES, 4, 5), (7, CLASSES)])
def test_a_rule_decides_on_tensors_and_arrays(shape: tuple[int, ...], as_array: bool) -> None:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    axis = 0 if len(shape) == 3 else 1
    shares = log_prior(COUNTS)
    given_logits = logits.numpy() if as_array else logits
    moved = logits.double().movedim(axis, -1) - 0.7 * torch.as_tensor(shares)
    found = Decision(tuple(shares), 0.7)(given_logits)
    assert isinstance(found, np.ndarray if as_array else Tensor)
    np.testing.assert_array_equal(found, moved.argmax(-1))
    np.testing.assert_array_equal(Decision((), 0.0)(given_logits), logits.argmax(axis))


def test_logits_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="for 6 classes, got logits with 5"):
        Decision(tuple(log_prior(COUNTS)), 0.5)(torch.zeros(1, 5, 2, 2))


def test_a_class_without_pixels_takes_the_rarest_share() -> None:
    shares = log_prior(COUNTS)
    assert shares[5] == shares[4] == np.log(10 / COUNTS.sum())
    assert log_prior([0, 0]).tolist() == [0, 0]


def test_calibration_is_that_of_a_plain_computation() -> None:
    logits, target = batch(9)
    values = measured(logits, target, calibration=True).compute()
    on = target != 255
    p = logits.double().softmax(1).movedim(1, -1)[on].numpy()
    y = target[on].numpy()
    assert values["nll"] == pytest.approx(-np.log(p[np.arange(len(y)), y]).mean(), rel=1e-5)
    errors = []
    for c in range(CLASSES):
        bins = np.minimum((p[:, c] * 15).astype(int), 14)
        pairs = [(p[bins == b, c], y[bins == b] == c) for b in range(15)]
        parts = [abs(q.mean() - hit.mean()) * len(q) for q, hit in pairs if len(q)]
        errors.append(sum(parts) / len(y))
    assert values["calibration_error"] == pytest.approx(np.mean(errors), rel=1e-4)


def test_a_group_is_the_mean_over_its_classes_with_ground_truth() -> None:
    logits, target = batch(10)
    target[target == 4] = 255
    values = measured(logits, target, groups={"some": ["0", "4"], "none": ["4"]}).compute()
    assert values["miou/some"] == values["iou/0"]
    assert values["recall/some"] == values["recall/0"]
    iou = values["iou/0"]
    assert values["dice/some"] == pytest.approx(2 * iou / (1 + iou))
    assert np.isnan(values["miou/none"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"class_counts": [1, 2]}, r"one count per class \(6\), got shape \(2,\)"),
        ({"groups": {"thin": ["pole"]}}, "group 'thin' names no class: 'pole'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SegmentationMetrics(CLASSES, **options)


@pytest.mark.parametrize("options", [{"class_counts": COUNTS}, {"calibration": True}])
def test_classes_tell_nothing_of_other_rules(options: dict[str, Any]) -> None:
    logits, target = batch()
    with pytest.raises(ValueError, match="need logits, got classes"):
        SegmentationMetrics(CLASSES, **options).update(logits.argmax(1), target)


def test_a_batch_after_the_metrics_were_computed_counts() -> None:
    logits, target = batch()
    metrics = SegmentationMetrics(CLASSES, class_counts=COUNTS)
    metrics.update(logits[:1], target[:1])
    metrics.compute()
    metrics.update(logits[1:], target[1:])
    assert metrics.compute() == measured(logits, target).compute()
