"""The loss as a module among others: casts, moves, empty batches, accumulated gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from losses.variants import batch, every_axis, gradient
from torch import nn

from study.core.errors import InputError
from study.losses import build_loss

COUNTS = [[400, 90, 10, 0], [300, 0, 150, 50]]
EVERY_STATE = {
    "class_weights": {"scheme": "inverse_frequency"},
    "recall": {"ema_momentum": 0.9},
    "jaccard": {"mix": 0.3},
}


def make(config, **options):
    return build_loss(config, num_classes=4, class_counts=COUNTS, **options)


@pytest.mark.parametrize("cast", ["half", "bfloat16", "float", "double"])
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside-a-model"])
def test_a_cast_leaves_the_state_as_it_is(cast, inside):
    loss = make(EVERY_STATE)
    loss(*batch())
    before = copy.deepcopy(loss.state_dict())
    getattr(nn.ModuleList([loss]) if inside else loss, cast)()
    for name, state in loss.state_dict().items():
        assert state.dtype == before[name].dtype
        assert torch.equal(state, before[name])
    loss(*batch(seed=1))


def test_a_move_takes_the_state_along_with_and_without_a_cast():
    for arguments in (("meta",), ("meta", torch.float16)):
        moved = make(EVERY_STATE).to(*arguments)
        states = moved.state_dict().values()
        assert {state.device.type for state in states} == {"meta"}
        assert {state.dtype for state in states} == {torch.float64}
        assert moved.to_empty(device="cpu").recall.value.device.type == "cpu"


@every_axis
@pytest.mark.parametrize("shape", [(0, 6, 5), (2, 0, 5), (2, 6, 0)], ids=str)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_a_batch_without_a_pixel_is_zero_attached_to_the_graph(config, shape, soft):
    logits, target = batch(shape=shape, dtype=torch.float32)
    loss = make(config)
    loss(*batch())
    before, terms = copy.deepcopy(loss.state_dict()), loss.terms().keys()
    value = loss(logits, torch.zeros_like(logits) if soft else target)
    assert value == 0
    assert gradient(value, logits).shape == logits.shape
    assert loss.terms().keys() == terms
    for name, state in loss.state_dict().items():
        assert torch.equal(state, before[name])


def test_an_empty_batch_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"target .*\(0, 4, 6, 5\).*\(0, 5, 5\)"):
        make({})(torch.zeros(0, 4, 6, 5), torch.zeros(0, 5, 5).long())


@every_axis
def test_micro_batches_accumulate_the_gradient_of_the_sum_of_their_losses(config):
    """Each updates recall before its own value, in the order of the forwards."""
    head = nn.Conv2d(3, 4, 1, dtype=torch.float64)
    images = [torch.randn(2, 3, 6, 5, dtype=torch.float64) for _ in range(2)]
    targets = [batch(seed=seed)[1] for seed in range(2)]
    loss = make(config)
    for image, target in zip(images, targets, strict=True):
        loss(head(image), target).backward()
    accumulated = head.weight.grad.clone()
    head.zero_grad()
    together = make(config)
    sum(
        together(head(image), target) for image, target in zip(images, targets, strict=True)
    ).backward()
    torch.testing.assert_close(accumulated, head.weight.grad)
    for name, state in loss.state_dict().items():
        assert torch.equal(together.state_dict()[name], state)


@every_axis
def test_a_value_can_be_differentiated_twice_over(config):
    logits, target = batch()
    value = make(config)(logits, target)
    value.backward(retain_graph=True)
    once = logits.grad.clone()
    value.backward()
    torch.testing.assert_close(logits.grad, 2 * once)


def test_recall_is_updated_by_each_micro_batch():
    loss = make({"recall": {"ema_momentum": 0.5}})
    loss(*batch())
    after_one = loss.recall.value.clone()
    loss(*batch(seed=1))
    alone = make({"recall": {"ema_momentum": 0.5}})
    alone(*batch(seed=1))
    torch.testing.assert_close(loss.recall.value, (after_one + alone.recall.value) / 2)


@pytest.mark.parametrize("config", [{}, {"jaccard": {"mix": 0.5}}, {"recall": {"ema_momentum": 0}}])
def test_probabilities_in_place_of_logits_are_refused(config: dict[str, Any]) -> None:
    labels = torch.zeros(2, 4, 4, dtype=torch.int64)
    probabilities = torch.randn(2, 3, 4, 4).softmax(1)
    with pytest.raises(InputError, match=r"the loss was given probabilities, .* takes logits"):
        build_loss(config, num_classes=3)(probabilities, labels)
    for logits in (probabilities.log(), torch.full((2, 3, 4, 4), 1 / 3) * 2):
        assert build_loss(config, num_classes=3)(logits, labels).isfinite()
    assert build_loss(config, num_classes=3, validate=False)(probabilities, labels).isfinite()
