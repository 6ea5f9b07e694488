"""The loss of a student against its formula, written out in autograd on random soft labels."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from losses.plain import plain_loss

from study.losses import PRESETS, LossConfig, build_loss, family

CLASSES = 4


def batch(seed=0, shape=(2, 6, 5)):
    generator = torch.Generator().manual_seed(seed)
    count, height, width = shape
    logits = torch.randn(count, CLASSES, height, width, generator=generator, dtype=torch.float64)
    target = torch.randint(CLASSES, shape, generator=generator)
    target[0, 0] = 255
    teacher = 3 * torch.randn(count, CLASSES, height, width, generator=generator).double()
    return logits.mul_(2).requires_grad_(), target, teacher.softmax(1)


def by_hand(config, logits, target, teacher):
    """(1 - m) * hard + m * ((1 - j) * T^2 * KL + j * Jaccard), with torch's own KL divergence."""
    given = LossConfig.model_validate(config)
    distillation, jaccard = given.distillation, given.jaccard
    valid = target != 255
    hard = plain_loss(given.model_copy(update={"distillation": None}), logits, target)
    temperature = distillation.temperature
    # the teacher's own logits, but for a constant
    of_teacher = (teacher.log() / temperature).softmax(1)
    of_student = (logits / temperature).log_softmax(1)
    kl = torch.nn.functional.kl_div(of_student, of_teacher, reduction="none").sum(1)[valid].mean()
    soft = (1 - jaccard.mix) * temperature**2 * kl
    if jaccard.mix > 0:
        alone = LossConfig(jaccard=jaccard.model_copy(update={"mix": 1.0, "target": "hard"}))
        soft = soft + jaccard.mix * plain_loss(alone, logits, teacher, keep=valid)
    return (1 - distillation.mix) * hard + distillation.mix * soft


OTHERS: tuple[dict[str, Any], ...] = (
    {},
    {"jaccard": {"mix": 0.75}},
    {"jaccard": {"mix": 1.0, "average": "class", "alpha": 0.3, "beta": 0.7}},
    {
        "label_smoothing": 0.1,
        "focal_gamma": 2.0,
        "jaccard": {"mix": 0.4, "average": "image", "target": "smoothed", "classes": "all"},
    },
)


@pytest.mark.parametrize(
    ("others", "temperature", "mix"), [*itertools.product(OTHERS, (0.5, 1.0, 4.0), (0.3, 1.0))]
)
def test_value_and_gradient_are_those_of_the_formula(others, temperature, mix):
    config = {**others, "distillation": {"temperature": temperature, "mix": mix}}
    logits, target, teacher = batch()
    value = build_loss(config, num_classes=CLASSES)(logits, target, teacher=teacher)
    expected = by_hand(config, logits, target, teacher)
    torch.testing.assert_close(value, expected)
    (found,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(found, torch.autograd.grad(expected, logits)[0])


def test_the_pixel_axes_act_on_the_true_labels_alone():
    logits, target, teacher = batch()
    weights = {"class_weights": {"scheme": "manual", "weights": [0.0, 1.0, 2.0, 3.0]}}
    hard = build_loss(weights, num_classes=CLASSES)(logits, target)
    plain = {"distillation": {"mix": 1.0}}
    soft = build_loss(plain, num_classes=CLASSES)(logits, target, teacher=teacher)
    both = build_loss({**weights, "distillation": {"mix": 0.25}}, num_classes=CLASSES)
    torch.testing.assert_close(both(logits, target, teacher=teacher), 0.75 * hard + 0.25 * soft)


@pytest.mark.parametrize("preset", ["kd", "jml_kd"])
def test_a_student_that_is_its_teacher_has_no_soft_loss(preset):
    logits, target, _ = batch()
    loss = build_loss(PRESETS[preset].config, num_classes=CLASSES)
    loss(logits, target, teacher=logits.detach().softmax(1))
    terms = loss.terms()
    expected = {"teacher_pixel", "teacher_jaccard"} if preset == "jml_kd" else {"teacher_pixel"}
    of_teacher = {name: float(term) for name, term in terms.items() if name.startswith("teacher")}
    assert of_teacher.keys() == expected
    assert all(abs(term) < 1e-12 for term in of_teacher.values())


@pytest.mark.parametrize("config", [*OTHERS[:2], {"recall": {"ema_momentum": 0.5}}])
def test_ignored_pixels_are_never_read(config):
    logits, target, teacher = batch()
    config = {**config, "distillation": {"temperature": 2.0}}
    ignored = (target == 255)[:, None]
    expected = build_loss(config, num_classes=CLASSES)(logits, target, teacher=teacher)
    broken = logits.detach().masked_fill(ignored, torch.nan).requires_grad_()
    loss = build_loss(config, num_classes=CLASSES)
    value = loss(broken, target, teacher=teacher.masked_fill(ignored, torch.nan))
    torch.testing.assert_close(value, expected)
    value.backward()
    assert not broken.grad.masked_select(ignored).any()


def test_a_batch_without_a_valid_pixel_gives_zero():
    logits, target, teacher = batch()
    loss = build_loss(PRESETS["jml_kd"].config, num_classes=CLASSES)
    value = loss(logits, torch.full_like(target, 255), teacher=teacher)
    value.backward()
    assert value == 0 and not logits.grad.any()


def test_a_teacher_that_is_certain_has_finite_softened_labels():
    logits, target, _ = batch()
    label = torch.where(target == 255, 0, target)
    certain = torch.nn.functional.one_hot(label, CLASSES).movedim(-1, 1).double()
    for temperature in (0.5, 1.0, 4.0):
        config = {"distillation": {"temperature": temperature, "mix": 1.0}}
        value = build_loss(config, num_classes=CLASSES)(logits, target, teacher=certain)
        assert torch.isfinite(value)
    config = {"distillation": {"mix": 1.0}}
    same = build_loss(config, num_classes=CLASSES)(logits, target, teacher=certain)
    torch.testing.assert_close(same, build_loss({}, num_classes=CLASSES)(logits, target))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_norms_of_the_parts_are_those_in_the_whole_loss(temperature):
    logits, target, teacher = batch()
    distillation = {"temperature": temperature, "mix": 0.25}
    loss = build_loss({"jaccard": {"mix": 0.5}, "distillation": distillation}, num_classes=CLASSES)
    loss.measure_gradients = True
    loss(logits, target, teacher=teacher)
    norms = {name: term for name, term in loss.terms().items() if name.startswith("grad_norm")}
    names = [f"grad_norm/{of}{term}" for of in ("", "teacher_") for term in ("pixel", "jaccard")]
    assert list(norms) == names
    pixel = build_loss({}, num_classes=CLASSES)(logits, target)
    (found,) = torch.autograd.grad(0.75 * 0.5 * pixel, logits)
    torch.testing.assert_close(norms["grad_norm/pixel"], found.norm())
    for name, mix in (("pixel", 0.0), ("jaccard", 1.0)):
        config = {"jaccard": {"mix": mix}, "distillation": {**distillation, "mix": 1.0}}
        soft = build_loss(config, num_classes=CLASSES)(logits, target, teacher=teacher)
        (found,) = torch.autograd.grad(0.25 * 0.5 * soft, logits)
        torch.testing.assert_close(norms[f"grad_norm/teacher_{name}"], found.norm())


def test_half_precision_is_computed_in_float32():
    logits, target, teacher = batch()
    loss = build_loss(PRESETS["jml_kd"].config, num_classes=CLASSES)
    half = logits.detach().bfloat16()
    value = loss(half, target, teacher=teacher.half())
    assert value.dtype == torch.float32
    again = loss(half.float(), target, teacher=teacher.half().float())
    assert value == again


def test_the_teacher_is_asked_for_where_it_acts_and_nowhere_else():
    logits, target, teacher = batch()
    with pytest.raises(ValueError, match="needs the teacher's probabilities"):
        build_loss(PRESETS["kd"].config, num_classes=CLASSES)(logits, target)
    with pytest.raises(TypeError, match="teacher"):
        build_loss({}, num_classes=CLASSES)(logits, target, teacher=teacher)
    with pytest.raises(ValueError, match=r"soft target must have the logits' shape \(2, 4, 6, 5\)"):
        build_loss(PRESETS["kd"].config, num_classes=CLASSES)(
            logits, target, teacher=teacher[:, :2]
        )


def test_a_compiled_step_gives_the_same():
    logits, target, teacher = batch()
    loss = build_loss({**PRESETS["jml_kd"].config}, num_classes=CLASSES)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def step(logits):
        return loss(logits, target, teacher=teacher)

    expected = loss(logits, target, teacher=teacher)
    (gradient,) = torch.autograd.grad(expected, logits)
    value = step(logits)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, logits)[0], gradient)


def test_distillation_is_an_axis_that_leaves_others_without_effect_at_mix_1():
    def of(**tree):
        return family(LossConfig.model_validate(tree))

    assert of(distillation={}, focal_gamma=1.0) == "focal+distillation"
    assert of(distillation={"mix": 1.0}, focal_gamma=1.0, label_smoothing=0.1) == "distillation"
    assert of(distillation={"mix": 1.0}, jaccard={"mix": 0.5}) == "jaccard+distillation"
