"""The loss inside a compiled training step: one operator, no graph break, eager's numbers."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from losses.variants import AXES, each
from torch import nn

from study.losses import build_loss
from study.losses.compiled import _losses

COUNTS = [[400, 90, 10, 0], [300, 0, 150, 50]]


@pytest.fixture(autouse=True)
def no_compiled_step_of_another_test():
    torch.compiler.reset()


def make(config):
    return build_loss(config, num_classes=4, class_counts=COUNTS)


def batch(seed=0, shape=(2, 6, 5)):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(shape[0], 3, *shape[1:], generator=generator)
    target = torch.randint(0, 3, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.2] = 255
    return images, target


def head():
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 1)


def compiled(step):
    # What the default backend adds is code for the layers around the loss, after half a minute.
    return torch.compile(step, backend="aot_eager", fullgraph=True)


def trained(model, loss, step, num_steps=3):
    """Values and gradients of a few steps."""
    found = []
    for seed in range(num_steps):
        model.zero_grad()
        value = step(*batch(seed))
        value.backward()
        found += [value.detach(), *(parameter.grad.clone() for parameter in model.parameters())]
    return found


@pytest.mark.slow
@each(AXES, few=["everything"])
def test_a_compiled_step_without_a_graph_break_is_the_eager_step(config):
    model, loss, same_loss = head(), make(config), make(config)
    expected = trained(model, loss, lambda images, target: loss(model(images), target))
    step = compiled(lambda images, target: same_loss(model(images), target))
    for mine, other in zip(trained(model, same_loss, step), expected, strict=True):
        assert torch.equal(mine, other)
    for name, state in loss.state_dict().items():
        assert torch.equal(same_loss.state_dict()[name], state)
    torch.testing.assert_close(same_loss.terms(), loss.terms(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
def test_soft_targets_kept_pixels_and_scaled_losses():
    model, loss = head(), make(AXES["everything"])
    images, target = batch()
    soft = torch.softmax(torch.randn(2, 4, 6, 5), 1)

    def step(images):
        return 8 * loss(model(images), soft, target != 255)

    expected = step(images)
    wanted = torch.autograd.grad(expected, model.weight)[0]
    loss.load_state_dict(make(AXES["everything"]).state_dict())
    value = compiled(step)(images)
    assert value == expected
    torch.testing.assert_close(torch.autograd.grad(value, model.weight)[0], wanted)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype):
    loss, (images, target) = make(AXES["everything"]).eval(), batch()
    logits = torch.cat([images, images[:, :1]], 1).to(dtype).requires_grad_()
    value, again = loss(logits, target), compiled(loss)(logits, target)
    assert (again, again.dtype) == (value, value.dtype)
    found, expected = (torch.autograd.grad(each, logits)[0] for each in (again, value))
    assert torch.equal(found, expected)


@pytest.mark.slow
def test_under_autocast_the_loss_is_still_taken_in_float32():
    model, loss, (images, target) = head(), make(AXES["everything"]).eval(), batch()

    def step(images):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss(model(images), target)

    assert compiled(step)(images) == step(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images).detach()
        assert compiled(loss)(logits, target) == loss(logits, target)


@pytest.mark.slow
def test_without_a_gradient_it_is_the_value_alone():
    loss, (images, target) = make(AXES["everything"]).eval(), batch()
    logits = torch.cat([images, images[:, :1]], 1)
    expected = loss(logits, target)
    with torch.no_grad():
        assert compiled(loss)(logits, target) == expected


@pytest.mark.slow
def test_a_compiled_validation_leaves_the_state_alone():
    model, loss, (images, target) = head(), make(AXES["everything"]), batch()
    loss(model(images), target)
    before = loss.recall.value.clone()
    with torch.no_grad():
        found = compiled(lambda images, target: loss(model(images), target))(*batch(seed=1))
    assert torch.equal(loss.recall.value, before)
    assert found == loss.eval()(model(batch(seed=1)[0]), batch(seed=1)[1])


@pytest.mark.slow
def test_gradient_norms_are_measured_in_a_compiled_step_too():
    model, loss, (images, target) = head(), make({"jaccard": {"mix": 0.5}}), batch()
    loss.measure_gradients = True
    loss(model(images), target)
    expected = loss.terms()
    compiled(lambda images: loss(model(images), target))(images).backward()
    assert "grad_norm/jaccard" in expected
    torch.testing.assert_close(loss.terms(), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(0, 6, 5), (2, 0, 5)], ids=str)
def test_a_batch_without_a_pixel_is_zero_with_a_gradient(shape):
    loss = make(AXES["everything"])
    logits, target = torch.zeros(shape[0], 4, *shape[1:], requires_grad=True), torch.zeros(shape)
    value = compiled(loss)(logits, target.long())
    assert value == 0
    assert torch.autograd.grad(value, logits)[0].shape == logits.shape


@pytest.mark.slow
def test_a_label_out_of_range_is_refused_as_in_eager_mode():
    with pytest.raises(ValueError, match=r"labels must be in \[0, 4\)"):
        compiled(make({}))(torch.zeros(1, 4, 1, 1), torch.full((1, 1, 1), 4))


@pytest.mark.slow
def test_one_step_compiled_for_two_losses_keeps_them_apart():
    images, target = batch()
    logits = torch.cat([images, images[:, :1]], 1)
    losses = [make({"focal_gamma": 2.0}), make({}), make({"recall": {"ema_momentum": 0.5}})]
    losses += [copy.deepcopy(losses[2])]
    losses[2](logits, target)
    losses[3](-logits, target)
    step = compiled(lambda loss, logits: loss(logits, target))
    expected = [loss.eval()(logits, target) for loss in losses]
    assert [step(loss, logits) for loss in losses] == expected
    assert len({value.item() for value in expected}) == 4


@pytest.mark.slow
def test_a_loss_that_is_gone_is_forgotten():
    loss = make(AXES["everything"])
    number = loss._number
    assert _losses[number] is loss
    del loss
    gc.collect()
    assert number not in _losses


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_step_that_calls_the_loss_twice_or_reads_no_value_observes_each_call(backend):
    images, target = batch()
    logits = torch.cat([images, images[:, :1]], 1).requires_grad_()
    found, expected = (make({"recall": {"ema_momentum": 0.5}}) for _ in range(2))
    for loss in (found, expected):
        loss(-logits, target)

    def step(loss, logits, target):
        loss(logits.roll(1, 0), target)
        return loss(logits, target) + 2 * loss(logits, target)

    value = step(expected, logits, target)
    again = torch.compile(step, backend=backend, fullgraph=True)(found, logits, target)
    assert again == value
    assert torch.equal(found.recall.value, expected.recall.value)
    torch.testing.assert_close(*(torch.autograd.grad(each, logits)[0] for each in (again, value)))


def test_second_derivatives_of_a_compiled_loss_are_an_error_and_no_zeros():
    images, target = batch()
    logits = torch.cat([images, images[:, :1]], 1).requires_grad_()
    value = torch.compile(make({}), backend="eager", fullgraph=True)(logits, target)
    (first,) = torch.autograd.grad(value, logits, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(first.pow(2).sum(), logits)


def test_a_target_that_wants_a_gradient_breaks_the_graph_and_gets_it():
    images, _ = batch()
    logits = torch.cat([images, images[:, :1]], 1)
    soft = torch.softmax(torch.randn(2, 4, 6, 5), 1).requires_grad_()
    loss = make({"jaccard": {"mix": 0.5}})
    found = torch.compile(loss, backend="eager")(logits, soft)
    expected = torch.autograd.grad(loss(logits, soft), soft)[0]
    torch.testing.assert_close(torch.autograd.grad(found, soft)[0], expected)
