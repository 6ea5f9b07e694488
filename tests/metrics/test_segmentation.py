from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from study.metrics import Decision, SegmentationMetrics
from study.metrics.counts import metrics_from_counts

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "losses.npz")
PRED = torch.from_numpy(GOLDEN["metrics_pred"])
TARGET = torch.from_numpy(GOLDEN["metrics_target"])  # 12 images, one of them all ignored


def measured(pred=PRED, target=TARGET, batch_size=5, **options):
    metrics = SegmentationMetrics(5, **options)
    for start in range(0, len(pred), batch_size):
        metrics.update(pred[start : start + batch_size], target[start : start + batch_size])
    return metrics


def test_a_channel_of_labels_is_left_out():
    for given in ({}, {"class_counts": [5, 4, 3, 2, 1]}):
        logits = torch.randn(len(TARGET), 5, *TARGET.shape[1:])
        found = measured(logits, TARGET[:, None].to(torch.uint8), **given).compute()
        assert found == measured(logits, TARGET, **given).compute()


def test_logits_of_another_size_are_named_as_they_were_given():
    metrics = SegmentationMetrics(5)
    shapes = r"torch\.float32 of \(1, 5, 2, 2\) and torch\.int64 of \(1, 4, 4\)$"
    with pytest.raises(ValueError, match=shapes):
        metrics.update(torch.zeros(1, 5, 2, 2), torch.zeros(1, 4, 4, dtype=torch.int64))


def test_split_metrics_match_the_reference_numbers():
    metrics = measured()
    found = metrics.compute()
    pairs = {"acc": "Overall_Acc", "macc": "Mean_Acc", "mprec": "Mean_Prec", "miou": "Mean_IoU"}
    pairs["fwiou"] = "FreqW_Acc"
    for key, name in pairs.items():
        assert found[key] == pytest.approx(GOLDEN[f"m_full__runningScore__{name}"], rel=1e-12)
    for c in range(5):
        for key, name in (("iou", "iou"), ("recall", "acc"), ("precision", "prec")):
            expected = GOLDEN[f"m_full__runningScore__{name}"][c]
            assert found[f"{key}/{c}"] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(metrics.confusion, GOLDEN["m_full__runningScore__conf"])


def test_image_wise_metrics_match_the_reference_numbers():
    found = measured().compute()
    for key, name in (
        ("miou_image", "mIoUI"),
        ("miou_class", "mIoUC"),
        ("miou_worst5", "mIoUI5"),
    ):
        expected = GOLDEN[f"m_full__q5__{name}"] / 100
        assert found[key] == pytest.approx(expected, rel=1e-12)


def test_image_counts_match_and_keep_the_order_of_the_images():
    counts = measured().image_counts()
    valid = (TARGET != 255).flatten(1).any(1)
    expected = np.stack([GOLDEN[f"m_full__{key}"] for key in ("tp", "fp", "fn")], 1)
    np.testing.assert_array_equal(counts[valid], expected)
    assert (counts[~valid] == 0).all()


@pytest.mark.parametrize("batch_size", [1, 7, 12])
def test_batches_do_not_matter(batch_size):
    found = measured(batch_size=batch_size)
    assert found.compute() == measured().compute()
    assert torch.equal(found.image_counts(), measured().image_counts())


def test_the_counts_of_many_images_are_in_few_tensors():
    metrics = SegmentationMetrics(2)
    image = torch.zeros(1, 1, 1, dtype=torch.int64)
    for number in range(1, 200):
        metrics.update(image, image)
        assert len(metrics._image_counts) <= number.bit_length()
    assert len(metrics.image_counts()) == 199


def test_logits_are_their_argmax():
    logits = torch.nn.functional.one_hot(PRED.long(), 5).movedim(-1, 1).float()
    assert measured(logits).compute() == measured().compute()


@pytest.mark.parametrize("channels_last", [False, True])
def test_logits_that_are_not_a_number_make_every_metric_nan(channels_last):
    logits = torch.nn.functional.one_hot(PRED.long(), 5).movedim(-1, 1).float()
    expected = measured(logits).compute()
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    ignored = (TARGET == 255).nonzero()[0]
    logits[ignored[0], :, ignored[1], ignored[2]] = float("nan")
    assert measured(logits).compute() == expected
    valid = (TARGET != 255).nonzero()[-1]
    logits[valid[0], 3, valid[1], valid[2]] = float("nan")
    found = measured(logits).compute()
    assert list(found) == list(expected)
    assert found.pop("num_classes_present") == expected["num_classes_present"]
    assert all(math.isnan(value) for value in found.values())


def test_predictions_at_ignored_pixels_do_not_matter():
    other = torch.where(TARGET == 255, 200, PRED)
    assert measured(other).compute() == measured().compute()


def test_a_class_without_ground_truth_is_left_out_of_every_mean():
    target = TARGET.clone()
    target[target == 4] = 255
    found = measured(target=target).compute()
    assert found["num_classes_present"] == 4
    assert "iou/4" not in found
    assert found["miou"] == pytest.approx(np.mean([found[f"iou/{c}"] for c in range(4)]))
    assert math.isfinite(found["miou_class"])


def test_a_class_that_is_never_predicted_has_precision_zero():
    pred = torch.where(PRED == 2, 0, PRED)
    found = measured(pred).compute()
    assert found["precision/2"] == found["recall/2"] == found["iou/2"] == 0


def test_names_name_the_classes():
    found = measured(class_names=["sky", "road", "car", "sign", "pole"]).compute()
    assert found["iou/sign"] == measured().compute()["iou/3"]


def test_worst_five_percent_of_forty_images_are_two():
    target = torch.zeros(40, 1, 100, dtype=torch.int64)
    pred = torch.zeros_like(target)
    for image in range(40):
        pred[image, 0, : 60 - image] = 1  # IoU of image i is (40 + i) / 100
    found = measured(pred, target).compute()
    assert found["miou_worst5"] == pytest.approx((0.40 + 0.41) / 2)


def test_no_valid_pixel_gives_nan_and_no_class():
    found = measured(target=torch.full_like(TARGET, 255)).compute()
    assert math.isnan(found["miou"])
    assert math.isnan(found["miou_worst5"])
    assert found["num_classes_present"] == 0


def test_resampled_counts_are_scored_all_at_once():
    counts = measured().image_counts().numpy()
    picks = np.random.default_rng(0).integers(0, len(counts), (7, len(counts)))
    together = metrics_from_counts(counts[picks].sum(1))
    for row, pick in enumerate(picks):
        alone = measured(PRED[pick], TARGET[pick]).compute()
        assert together["miou"][row] == pytest.approx(alone["miou"], rel=1e-12)
        assert together["macc"][row] == pytest.approx(alone["macc"], rel=1e-12)


@pytest.mark.parametrize(
    ("pred", "target", "words"),
    [
        (torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2), r"\(1, 4, 2, 2\)"),
        (torch.zeros(1, 2, 3, dtype=torch.int64), torch.zeros(1, 2, 2), r"\(1, 2, 3\)"),
        (torch.zeros(1, 2, 2).long(), torch.zeros(1, 2, 2), "integer target .*float32 of"),
        (torch.full((1, 2, 2), 5), torch.zeros(1, 2, 2).long(), "pred must be .* got 5"),
        (
            np.zeros((1, 2, 2)),
            torch.zeros(1, 2, 2),
            "^pred_or_logits must be a tensor",
        ),
        (torch.zeros(1, 5, 2, 2), {"mask": 1}, "^target must be a tensor, got a dict of mask"),
        (
            torch.zeros(1, 2, 2, dtype=torch.int64),
            torch.full((1, 2, 2), 7),
            "target must be .* got 7",
        ),
    ],
)
def test_what_does_not_fit_is_refused(pred, target, words):
    with pytest.raises(ValueError, match=words):
        SegmentationMetrics(5).update(pred, target)


def test_names_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"one name per class \(5\), got 2"):
        SegmentationMetrics(5, class_names=["a", "b"])
    with pytest.raises(ValueError, match="class_names must be unique, got"):
        SegmentationMetrics(2, class_names=["a", "a"])


def test_scoring_counts_needs_no_torch():
    code = "import sys, study.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_channel_is_two_classes_of_which_the_first_has_logit_0() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 8, 9, generator=generator)
    target = (torch.rand(3, 8, 9, generator=generator) < 0.3).long()
    target[0, 0] = 255
    both = torch.cat([torch.zeros_like(logits), logits], 1)
    found = []
    for channels, shown, labels in (
        (1, logits, target),
        (1, logits, target[:, None]),
        (2, both, target),
    ):
        metrics = SegmentationMetrics(channels, class_counts=[700, 300], calibration=True)
        metrics.update(shown, labels)
        found.append(metrics.compute())
    assert found[0] == found[1] == found[2]
    assert {"iou/0", "iou/1", "tuned/miou", "nll"} <= found[0].keys()
    rule = Decision((-0.1, -2.3), 0.7)
    assert torch.equal(rule(logits), rule(both))
    assert torch.equal(Decision((), 0.0)(logits), both.argmax(1))
    assert (rule(logits.numpy()) == rule(both.numpy())).all()
    masks = SegmentationMetrics(1, class_names=["off", "on"])
    masks.update(logits > 0, target.masked_fill(target == 255, 0).bool())
    plain = SegmentationMetrics(2, class_names=["off", "on"])
    plain.update(both.argmax(1), target.masked_fill(target == 255, 0))
    assert masks.compute() == plain.compute()
    with pytest.raises(ValueError, match="integer target"):
        masks.update(logits, torch.rand(3, 8, 9))


def test_what_is_ignored_is_one_label_or_several_or_nothing():
    labels = torch.tensor([[[0, 1, 2, 255], [2, 2, 1, 0]]])
    for given, ignored in ((255, {255}), ([255, 2], {255, 2}), (np.array([0, 255]), {0, 255})):
        metrics = SegmentationMetrics(3, ignore_index=given)
        logits = torch.randn(1, 3, 2, 4)
        logits[:, :, 0, 3] = torch.nan  # never read
        metrics.update(logits, labels)
        kept = [c for c in labels.flatten().tolist() if c not in ignored]
        assert metrics.confusion.sum(1).tolist() == [kept.count(c) for c in range(3)]
        assert not math.isnan(metrics.compute()["acc"])
    metrics = SegmentationMetrics(3, ignore_index=None)
    metrics.update(labels.clamp(max=2), labels.clamp(max=2))
    assert metrics.confusion.sum() == 8 and metrics.ignore_index is None
    with pytest.raises(ValueError, match=r"pred must be .* got 255"):
        metrics.update(labels, labels.clamp(max=2))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"num_classes": 0}, "num_classes must be >= 1, got 0"),
        ({"num_classes": -3}, "num_classes must be >= 1, got -3"),
        ({"num_classes": "3"}, "num_classes must be a whole number, got '3'"),
        ({"num_classes": 3, "ignore_index": "255"}, "ignore_index must be a whole number.*'255'"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(given, words) -> None:
    with pytest.raises(ValueError, match=words):
        SegmentationMetrics(**given)


def test_small_integers_many_classes_and_volumes_are_counted() -> None:
    """17 classes and more number their pairs beyond 255."""
    metrics = SegmentationMetrics(20, class_counts=[1] * 20)
    logits = torch.randn(2, 20, 3, 4, 5)
    target = torch.randint(0, 20, (2, 3, 4, 5))
    metrics.update(logits.flatten(3), target.flatten(2).to(torch.uint8))
    expected = torch.zeros(20, 20, dtype=torch.int64)
    for true, predicted in zip(target.flatten(), logits.argmax(1).flatten(), strict=True):
        expected[true, predicted] += 1
    assert torch.equal(metrics.confusion, expected)


def test_modes_and_default_devices_do_not_matter():
    logits, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    options = {"class_counts": [5, 3, 2], "calibration": True}
    found = []
    for mode in (contextlib.nullcontext, torch.inference_mode, lambda: torch.device("meta")):
        with mode():
            metrics = SegmentationMetrics(3, **options)
            metrics.update(logits, target)
        metrics.update(logits, target)
        with mode():
            found.append(metrics.compute())
            assert math.isnan(SegmentationMetrics(3).compute()["miou"])
    assert found[0] == found[1] == found[2]


def test_one_channel_is_named_as_it_was_given() -> None:
    words = r"logits \(B, 1, H, W\) .*float32 of \(1, 1, 4, 4\) and torch.float32 of \(1, 4, 4\)$"
    with pytest.raises(ValueError, match=words):
        SegmentationMetrics(1).update(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4))


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([1, 2, -3], "class_counts must be finite and >= 0"),
        ([1, 2, float("nan")], "class_counts must be finite and >= 0"),
        ([1, 2, float("inf")], "class_counts must be finite and >= 0"),
        ([[1, 2, 3], [4, 5, 6]], r"got shape \(2, 3\); sum those of images over axis 0"),
    ],
)
def test_counts_that_are_none_are_refused(counts, words) -> None:
    with pytest.raises(ValueError, match=words):
        SegmentationMetrics(3, class_counts=counts)


def test_rules_of_probabilities_are_refused() -> None:
    probabilities = torch.randn(1, 3, 4, 4).softmax(1)
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    for options in ({"class_counts": [5, 3, 1]}, {"calibration": True}):
        with pytest.raises(ValueError, match="SegmentationMetrics was given probabilities"):
            SegmentationMetrics(3, **options).update(probabilities, labels)
    SegmentationMetrics(3).update(probabilities, labels)  # the argmax is that of the logits
