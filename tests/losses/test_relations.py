"""Relations without reference numbers, over random shapes, classes, ignore shares and dtypes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from losses.plain import plain_loss
from losses.variants import configs

from study.losses import LossConfig, build_loss
from study.losses.class_weights import class_weights

pytestmark = pytest.mark.slow

IGNORED = 255
HALF = [torch.bfloat16, torch.float16]


@dataclass(frozen=True)
class Batch:
    logits: torch.Tensor  # (B, C, H, W)
    target: torch.Tensor

    @property
    def counts(self):
        """(images, C) pixels of a training split that knows a class or two less than the batch."""
        classes = torch.arange(self.logits.shape[1])
        return torch.stack([1000 // (1 + classes), (1 + 3 * classes) % 7 * 10])

    def valid(self):
        return self.target != IGNORED


@st.composite
def batches(draw, dtypes=(torch.float64, torch.float32, *HALF), images=None, ends=True):
    """Also constant logits and huge ones, one class, one valid pixel, none, classes never seen."""
    num_classes, size = draw(st.integers(2, 7)), [draw(st.integers(1, 6)) for _ in "hw"]
    shape = (draw(st.integers(1, 3)) if images is None else images, *size)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    scale = draw(st.sampled_from([0.0, 0.3, 3.0, 30.0, 1e4] if ends else [0.3, 3.0]))
    logits = torch.randn(shape[0], num_classes, *size, generator=generator) * scale
    seen = draw(st.integers(1, num_classes))
    target = torch.randint(seen, shape, generator=generator)
    ignored = draw(st.sampled_from([0.0, 0.2, 0.7, 1.0, None]))
    if ignored is None:
        hidden = torch.ones(shape, dtype=torch.bool)
        hidden.view(-1)[0] = False
    else:
        hidden = torch.rand(shape, generator=generator) < ignored
    logits = logits.clamp(-6e4, 6e4).to(draw(st.sampled_from(dtypes)))
    return Batch(logits.requires_grad_(), target.masked_fill(hidden, IGNORED))


double = batches(dtypes=(torch.float64,))
exact = settings(deadline=None, max_examples=100, derandomize=True)


def make(config, batch, **options):
    options = {"class_counts": batch.counts} | options
    return build_loss(config, num_classes=batch.logits.shape[1], **options)


def run(config, batch, **options):
    """The value and its gradient, both float64."""
    value = make(config, batch, **options)(batch.logits, batch.target)
    (gradient,) = torch.autograd.grad(value, batch.logits)
    return value.detach().double(), gradient.double()


def with_logits(batch, logits):
    return replace(batch, logits=logits.detach().clone().requires_grad_())


def assert_same(found, expected, rtol=1e-9, atol=1e-11):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def per_pixel(batch):
    losses = torch.nn.functional.cross_entropy(
        batch.logits, batch.target, ignore_index=IGNORED, reduction="none"
    )
    return losses[batch.valid()].detach()


# --- any combination ----------------------------------------------------------------------------


@settings(deadline=None, max_examples=150, derandomize=True)
@given(config=configs, batch=double)
def test_any_combination_on_any_batch_equals_plain_autograd(config, batch):
    loss = make(config, batch)
    value = loss(batch.logits, batch.target)
    (gradient,) = torch.autograd.grad(value, batch.logits, retain_graph=True)
    expected = plain_loss(
        LossConfig.model_validate(config),
        batch.logits,
        batch.target,
        class_weights=class_weights(loss.config.class_weights, batch.counts, batch.logits.shape[1]),
        recall=None if loss.recall is None else loss.recall.value,
        log_prior=loss.log_prior,
    )
    scale = max(1.0, float(batch.logits.detach().abs().max()))
    assert_same(value, expected, atol=1e-11 * scale)
    # Both forms know 1 - q to 1e-16 only, which focal with gamma < 1 magnifies.
    assert_same(gradient, torch.autograd.grad(expected, batch.logits)[0], rtol=1e-8, atol=1e-8)


@exact
@given(config=configs, batch=batches(ends=False, dtypes=(torch.float32,)))
def test_single_precision_is_within_1e_5(config, batch):
    value, gradient = run(config, batch)
    exact_value, exact_gradient = run(config, with_logits(batch, batch.logits.double()))
    assert_same(value, exact_value, rtol=1e-5, atol=1e-6)
    assert_same(gradient.norm(), exact_gradient.norm(), rtol=1e-4, atol=1e-5)


@exact
@given(config=configs, batch=batches(dtypes=HALF))
def test_half_precision_is_single_precision_with_a_rounded_gradient(config, batch):
    value, gradient = run(config, batch)
    single_value, single_gradient = run(config, with_logits(batch, batch.logits.float()))
    assert torch.isfinite(value)
    assert value == single_value
    assert torch.equal(gradient, single_gradient.to(batch.logits.dtype).double())


@exact
@given(config=configs, batch=batches())
def test_the_gradient_is_zero_where_ignored_and_sums_to_zero_over_classes(config, batch):
    value, gradient = run(config, batch)
    assert torch.isfinite(value)
    assert (gradient.movedim(1, -1)[~batch.valid()] == 0).all()
    largest = float(gradient.abs().max())
    bound = 8 * torch.finfo(batch.logits.dtype).eps * largest
    assert float(gradient.sum(1).abs().max()) <= max(bound, 8 * 6e-8)  # float16's smallest step
    if not batch.valid().any():
        assert value == 0
        assert largest == 0


@exact
@given(config=configs, batch=batches(), junk=st.sampled_from([float("nan"), float("inf"), 6e4]))
def test_what_ignored_pixels_hold_changes_nothing(config, batch, junk):
    expected = run(config, batch)
    logits = batch.logits.detach().masked_fill(~batch.valid()[:, None], junk)
    for found, same in zip(run(config, with_logits(batch, logits)), expected, strict=True):
        assert torch.equal(found, same)


@exact
@given(config=configs, batch=double, seed=st.integers(0, 99))
def test_classes_have_no_order(config, batch, seed):
    # Where scores tie the lowest class wins, which a new order changes.
    assume(float(batch.logits.detach().abs().max()) > 0 or config["recall"] is None)
    order = torch.randperm(batch.logits.shape[1], generator=torch.Generator().manual_seed(seed))
    place = torch.cat([torch.argsort(order), torch.full((256 - len(order),), IGNORED)])
    other = Batch(
        batch.logits.detach()[:, order].requires_grad_(),
        torch.where(batch.valid(), place[batch.target], IGNORED),
    )
    value, gradient = run(config, batch)
    found, moved = run(config, other, class_counts=batch.counts[:, order])
    scale = max(1.0, float(batch.logits.detach().abs().max()))
    assert_same(found, value, atol=1e-11 * scale)
    assert_same(moved, gradient[:, order], atol=1e-9)


@exact
@given(config=configs, batch=double)
def test_a_batch_twice_is_the_batch_once(config, batch):
    config = {**config, "jaccard": {**config["jaccard"], "smooth": 0.0}}
    if config["pooling"]["kind"] != "mean":  # whole shares, so that int(share * n) doubles as well
        config["pooling"] = {"kind": "max", "p": 1.3, "ratio": 0.5}
        assume(int(batch.valid().sum()) % 2 == 0)
    twice = Batch(
        torch.cat([batch.logits.detach()] * 2).requires_grad_(), torch.cat([batch.target] * 2)
    )
    scale = max(1.0, float(batch.logits.detach().abs().max()))
    assert_same(run(config, twice)[0], run(config, batch)[0], atol=1e-11 * scale)


# --- single axes --------------------------------------------------------------------------------

CE = {
    "max-p": {"pooling": {"kind": "max", "p": float("inf"), "ratio": 0.3}},
    "max-ratio": {"pooling": {"kind": "max", "p": 1.7, "ratio": 1.0}},
    "ohem": {"pooling": {"kind": "ohem", "min_kept": 1.0}},
    "focal": {"focal_gamma": 0.0},
    "smoothing": {"label_smoothing": 0.0, "smoothing_region": {"kind": "boundary"}},
    "exponent": {"class_weights": {"scheme": "inverse_frequency", "exponent": 0.0}},
    "mix": {"jaccard": {"mix": 0.0, "average": "image"}},
    "normalizer": {"normalizer": "weight"},
}


@pytest.mark.parametrize("config", CE.values(), ids=CE)
@settings(deadline=None, max_examples=30, derandomize=True)
@given(batch=batches(dtypes=(torch.float64, torch.float32)))
def test_a_neutral_setting_is_cross_entropy(config, batch):
    assume(batch.valid().any())
    expected = torch.nn.functional.cross_entropy(batch.logits, batch.target, ignore_index=IGNORED)
    (gradient,) = torch.autograd.grad(expected, batch.logits)
    bounds = (1e-12, 1e-12) if batch.logits.dtype == torch.float64 else (1e-5, 1e-6)
    value, found = run(config, batch)
    assert_same(value, expected.detach().double(), *bounds)
    assert_same(found, gradient.double(), *bounds)


@exact
@given(batch=double, ratio=st.sampled_from([0.01, 0.3, 0.5, 0.9]))
def test_max_pooling_at_p_one_is_the_mean_of_the_hardest(batch, ratio):
    assume(batch.valid().any())
    losses = per_pixel(batch)
    m = max(1, int(ratio * len(losses)))
    value, _ = run({"pooling": {"kind": "max", "p": 1.0, "ratio": ratio}}, batch)
    assert_same(value, losses.topk(m).values.mean())


@exact
@given(batch=double)
def test_max_pooling_falls_with_p_and_ratio_from_the_top_to_the_mean(batch):
    assume(batch.valid().any())
    losses = per_pixel(batch)
    slack = 1e-9 * (1 + float(losses.max()))

    def pooled(p, ratio):
        return float(run({"pooling": {"kind": "max", "p": p, "ratio": ratio}}, batch)[0])

    for falling in (
        [pooled(p, 0.2) for p in (1.0, 1.05, 1.3, 2.0, 8.0, float("inf"))],
        [pooled(1.7, ratio) for ratio in (0.01, 0.1, 0.4, 0.8, 1.0)],
    ):
        assert all(low <= high + slack for high, low in itertools.pairwise(falling))
        assert falling[0] <= float(losses.max()) + slack
        assert falling[-1] == pytest.approx(float(losses.mean()), rel=1e-9, abs=1e-11)


@exact
@given(batch=double, smooth=st.sampled_from([0.0, 1e-3, 1.0]))
def test_on_hard_labels_jaccard_is_the_product_form_and_both_l1_forms(batch, smooth):
    assume(batch.valid().any())
    p = torch.softmax(batch.logits.detach(), 1).movedim(1, -1)[batch.valid()]  # (n, C)
    t = torch.nn.functional.one_hot(batch.target[batch.valid()], p.shape[1]).double()
    present = t.amax(0) > 0
    total, overlap, apart = (p + t).sum(0), (p * t).sum(0), (p - t).abs().sum(0)
    forms = [
        (overlap + smooth) / (total - overlap + smooth),
        (total - apart + 2 * smooth) / (total + apart + 2 * smooth),
        1 - apart / (overlap + apart + smooth),
    ]
    value, _ = run({"jaccard": {"mix": 1.0, "smooth": smooth}}, batch)
    for score in forms:
        assert_same(value, (1 - score)[present].mean())


@exact
@given(batch=batches(dtypes=(torch.float64,), images=1), every=st.booleans())
def test_on_one_image_all_averages_agree(batch, every):
    jaccard = {"mix": 1.0, "classes": "all" if every else "present"}
    value, gradient = run({"jaccard": jaccard}, batch)
    for average in ("image", "class"):
        found, same = run({"jaccard": {**jaccard, "average": average}}, batch)
        assert_same(found, value)
        assert_same(same, gradient)


@exact
@given(batch=double, average=st.sampled_from(["batch", "image", "class"]))
def test_a_soft_label_that_is_the_prediction_is_the_least_jaccard(batch, average):
    loss = make({"jaccard": {"mix": 1.0, "average": average}}, batch)
    soft = torch.softmax(batch.logits.detach(), 1)
    other = torch.softmax(torch.randn_like(soft), 1)
    assert loss(batch.logits, soft, batch.valid()).abs() < 1e-12
    assert loss(batch.logits, other, batch.valid()) >= 0


@exact
@given(batch=double)
def test_on_certain_predictions_jaccard_is_one_minus_iou(batch):
    assume(batch.valid().any())
    pred = batch.logits.detach().argmax(1)
    sure = torch.nn.functional.one_hot(pred, batch.logits.shape[1]).movedim(-1, 1) * 1e3
    pred, target = pred[batch.valid()], batch.target[batch.valid()]
    iou = [((pred == c) & (target == c)).sum() / ((pred == c) | (target == c)).sum()
           for c in target.unique()]  # fmt: skip
    value, _ = run({"jaccard": {"mix": 1.0, "smooth": 0.0}}, with_logits(batch, sure.double()))
    assert_same(value, 1 - torch.stack(iou).double().mean(), atol=1e-6)


@exact
@given(batch=double)
def test_where_all_is_wrong_recall_is_cross_entropy(batch):
    assume(batch.logits.shape[1] > 1 and batch.valid().any())
    label = torch.where(batch.valid(), batch.target, 0)[:, None]
    wrong = with_logits(batch, batch.logits.detach().scatter(1, label, -1e5))
    for momentum in (0.0, 0.9):
        found = run({"recall": {"ema_momentum": momentum}}, wrong)
        for mine, plain in zip(found, run({}, wrong), strict=True):
            assert_same(mine, plain)


@exact
@given(first=double, seed=st.integers(0, 99))
def test_recall_without_momentum_knows_the_last_batch_alone(first, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(first.logits.shape, generator=generator).double()
    second = with_logits(first, logits)
    loss = make({"recall": {"ema_momentum": 0.0}}, first)
    loss(first.logits, first.target)
    assert_same(loss(second.logits, second.target).detach(), run(loss.config, second)[0])
