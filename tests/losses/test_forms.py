"""Both forms give the same loss, and what the kernel cannot give the plain form does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses.variants import AXES, batch, configs, each, gradient
from torch.autograd import forward_ad

from study.losses import LossConfig, build_loss, kernel
from study.losses.loss import plain_loss
from study.losses.targets import read_labels

COUNTS = [[400, 90, 10, 7], [300, 0, 150, 50]]
every = each(AXES)


def make(config, **options):
    return build_loss(config, num_classes=4, class_counts=COUNTS, **options)


def both_forms(config, logits, target, keep=None):
    """Value and gradient of a loss by the kernel, and by the plain form in its place."""
    found = []
    for known in (True, False):
        loss = make(config)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernel, "knows", lambda config, known=known: known)
            value = loss(logits, target, keep)
        terms = {name: term.double() for name, term in loss.step_terms.items()}
        found.append((value.detach(), gradient(value, logits), terms, loss.state_dict()))
    return found


def assert_same(one, other, rtol=1e-9, atol=1e-11):
    for mine, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=rtol, atol=atol)


@pytest.mark.slow
@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    config=configs,
    seed=st.integers(0, 999),
    shape=st.sampled_from([(2, 6, 5), (1, 1, 1), (3, 2, 7)]),
    soft=st.booleans(),
)
def test_both_forms_agree_in_value_gradient_terms_and_state(config, seed, shape, soft):
    logits, target = batch(seed, shape)
    keep = None
    if soft:
        keep = target != 255
        target = torch.softmax(2 * torch.randn_like(logits), 1).detach()
    assert_same(*both_forms(config, logits, target, keep), rtol=1e-8)


@every
def test_both_forms_agree_on_each_axis_in_single_precision(config):
    logits, target = batch(dtype=torch.float32)
    assert_same(*both_forms(config, logits, target), rtol=2e-5, atol=2e-6)


def test_the_kernel_says_which_configs_it_knows(monkeypatch):
    assert all(kernel.knows(LossConfig.model_validate(config)) for config in AXES.values())
    monkeypatch.setattr(kernel, "KNOWN", kernel.KNOWN - {"focal"})
    focal = LossConfig(focal_gamma=2.0)
    assert not kernel.knows(focal) and kernel.knows(LossConfig())
    logits, target = batch()
    monkeypatch.setattr(kernel, "Step", None)  # is not asked
    loss = build_loss(focal, num_classes=4)
    value = loss(logits, target)
    labels = read_labels(target, None, 4, (255,), torch.float64)
    found = plain_loss(focal, logits.flatten(2), labels, None, None)
    expected, terms = found.value, found.terms
    assert value == expected
    assert torch.equal(gradient(value, logits), gradient(expected, logits))
    loss.measure_gradients = True
    loss(logits, target)
    assert loss.terms().keys() == terms.keys() | {"grad_norm/pixel"}
    assert loss(logits[:0], target[:0]) == 0


# --- derivatives of the gradient ----------------------------------------------------------------


def differences(loss, logits, target, direction, step=1e-5):
    """The Hessian times a direction by finite differences of the gradient."""
    ends = []
    for sign in (1, -1):
        moved = (logits.detach() + sign * step * direction).requires_grad_()
        ends.append(gradient(loss(moved, target), moved))
    return (ends[0] - ends[1]) / (2 * step)


@every
def test_a_hessian_vector_product_is_that_of_finite_differences(config):
    logits, target = batch(seed=3, shape=(2, 3, 4))
    loss = make(config)
    loss(logits, target)
    loss.eval()
    direction = torch.randn_like(logits)
    (first,) = torch.autograd.grad(3 * loss(logits, target), logits, create_graph=True)
    second = gradient((first * direction).sum(), logits)
    if "pooling" in config and config["pooling"]["kind"] == "max":  # its weights move, as constants
        assert second.abs().max() > 0
        return
    expected = 3 * differences(loss, logits, target, direction)
    torch.testing.assert_close(second, expected, rtol=1e-5, atol=1e-8)


def test_a_gradient_penalty_is_torchs_and_changes_no_state():
    logits, target = batch()
    penalties = []
    for loss in (
        build_loss({}, num_classes=4),
        lambda *given: torch.nn.functional.cross_entropy(*given, ignore_index=255),
    ):
        (first,) = torch.autograd.grad(loss(logits, target), logits, create_graph=True)
        penalties.append(gradient(first.pow(2).sum(), logits))
    torch.testing.assert_close(*penalties)
    loss = make({"recall": {"ema_momentum": 0.5}})
    value = loss(logits, target)
    before = loss.recall.value.clone()
    loss(*batch(seed=1))
    (first,) = torch.autograd.grad(value, logits, create_graph=True)
    torch.testing.assert_close(first, gradient(value, logits))  # by the recall of its own step
    assert not torch.equal(loss.recall.value, before)


@every
def test_the_transforms_of_torch_func(config):
    logits, target = batch(shape=(2, 3, 4))
    logits = logits.detach()
    loss = make(config)
    loss(logits, target)
    loss.eval()
    leaf = logits.clone().requires_grad_()
    expected = gradient(loss(leaf, target), leaf)
    torch.testing.assert_close(torch.func.grad(loss)(logits, target), expected)
    alone = [loss(logits[b : b + 1], target[b : b + 1]) for b in range(2)]
    mapped = torch.func.vmap(lambda z, y: loss(z[None], y[None]))(logits, target)
    torch.testing.assert_close(mapped, torch.stack(alone))
    each = torch.func.vmap(torch.func.grad(lambda z, y: loss(z[None], y[None])))(logits, target)
    one = logits[1:].clone().requires_grad_()
    torch.testing.assert_close(each[1:], gradient(loss(one, target[1:]), one))
    small, labels = logits[:1, :, :2, :2], target[:1, :2, :2]
    hessian = torch.func.hessian(lambda z: loss(z, labels))(small)
    slow = torch.autograd.functional.hessian(lambda z: loss(z, labels), small)
    torch.testing.assert_close(hessian, slow)
    _, tangent = torch.func.jvp(lambda z: loss(z, target), (logits,), (logits,))
    torch.testing.assert_close(tangent, (expected * logits).sum())


def test_forward_mode_without_a_transform():
    logits, target = batch()
    loss = make({"jaccard": {"mix": 0.5}})
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(logits.detach(), torch.ones_like(logits))
        tangent = forward_ad.unpack_dual(loss(dual, target)).tangent
    assert tangent.abs() < 1e-12  # all logits of a pixel moved alike


def test_in_training_a_transform_observes_recall_once_for_all_its_samples():
    logits, target = batch()
    expected, found = (make({"recall": {"ema_momentum": 0.5}}) for _ in range(2))
    expected(logits, target)
    torch.func.vmap(lambda z, y: found(z[None], y[None]))(logits.detach(), target)
    assert torch.equal(found.recall.value, expected.recall.value)
    again = make({"recall": {"ema_momentum": 0.5}})
    torch.func.grad(lambda z: again(z, target))(logits.detach())
    assert torch.equal(again.recall.value, expected.recall.value)


def test_a_soft_target_that_wants_a_gradient_gets_it():
    logits, _ = batch()
    target = torch.softmax(torch.randn_like(logits), 1).detach().requires_grad_()
    value = build_loss({}, num_classes=4)(logits, target)
    other = torch.nn.functional.cross_entropy(logits, target)
    torch.testing.assert_close(value, other)
    torch.testing.assert_close(gradient(value, target), gradient(other, target))
    jaccard = {"label_smoothing": 0.1, "jaccard": {"mix": 0.5, "target": "smoothed"}}
    loss = make(jaccard, validate=False)
    assert torch.autograd.gradcheck(loss, (logits, target))
    fixed = loss(logits, target.detach())
    torch.testing.assert_close(loss(logits, target), fixed)
