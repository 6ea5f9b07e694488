"""Inputs and state wherever they were made: modes, devices, dtypes, subclasses, copies."""

from __future__ import annotations

import io
import pickle
from types import SimpleNamespace

import pytest
import torch
from losses.standalone_files import imported, standalone
from losses.variants import AXES, batch, each, every_axis, gradient
from torch import nn

from study.losses import PRESETS, build_loss, class_counts, kernel
from study.losses.standalone.source import loss_source
from study.metrics import SegmentationMetrics

COUNTS = [[400, 90, 10, 7], [300, 0, 150, 50]]
STATEFUL = {
    name: AXES[name] for name in ("inverse_frequency", "logit_adjustment", "recall", "everything")
}


def make(config, **options):
    return build_loss(config, num_classes=4, class_counts=COUNTS, **options)


def step(loss, logits, *inputs, **named):
    """Value and gradient."""
    value = loss(logits, *inputs, **named)
    return value, gradient(value, logits)


def assert_same_step(config, loss, *inputs):
    torch.testing.assert_close(step(loss, *inputs), step(make(config), *inputs), rtol=0, atol=0)


# --- inference mode -----------------------------------------------------------------------------


@every_axis
def test_inputs_made_in_inference_mode_are_inputs(config):
    logits, target = batch()
    soft = torch.randn(logits.shape, dtype=torch.float64).softmax(1)
    keep, weight = target != 255, torch.rand(target.shape)
    with torch.inference_mode():
        shown = [each.clone() for each in (target, soft, keep, weight, logits)]
    target_, soft_, keep_, weight_, logits_ = shown
    for given, expected in (
        (step(make(config), logits, target_), step(make(config), logits, target)),
        (step(make(config), logits, soft_, keep_), step(make(config), logits, soft, keep)),
        (
            step(make(config), logits, target_, weight=weight_),
            step(make(config), logits, target, weight=weight),
        ),
        (make(config)(logits_, target_), make(config)(logits.detach(), target)),
    ):
        torch.testing.assert_close(given, expected, rtol=0, atol=0)


def test_second_derivatives_take_a_target_made_in_inference_mode():
    logits, target = batch()
    with torch.inference_mode():
        shown = target.clone()
    value = make(AXES["focal"])(logits, shown)
    (first,) = torch.autograd.grad(value, logits, create_graph=True)
    assert gradient(first.square().sum(), logits).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
def test_a_compiled_step_takes_a_target_made_in_inference_mode(weighted):
    torch._dynamo.reset()
    logits, target = batch()
    options = {"weight": torch.ones(target.shape)} if weighted else {}
    with torch.inference_mode():
        shown = target.clone()
    loss = make(AXES["focal"])
    compiled = torch.compile(lambda *given: loss(*given, **options), backend="aot_eager")
    value = compiled(logits, shown)
    expected = step(make(AXES["focal"]), logits, target)
    torch.testing.assert_close((value, gradient(value, logits)), expected)


@each(STATEFUL)
def test_a_loss_built_or_moved_in_inference_mode_trains(config):
    with torch.inference_mode():
        built, moved = make(config), make(config)
        moved.to("meta")
        moved.to_empty(device="cpu")
        make(config)(batch()[0].to("meta"), batch()[1].to("meta"))
    for loss in (built, moved):
        assert not any(buffer.is_inference() for buffer in loss.buffers())
        assert_same_step(config, loss, *batch())


# --- devices ------------------------------------------------------------------------------------


def filled_with_7(state, device):
    return torch.full_like(state, 7.0, device=device)


@each(STATEFUL)
@pytest.mark.parametrize("by", ["built", "moved", "used", "one by one"])
def test_state_that_a_move_forgets_starts_anew(config, by):
    """`to_empty` leaves memory as it is; what fills it here shows."""
    with torch.device("meta" if by == "built" else "cpu"):
        loss = make(config)
    if by == "used":
        loss(*batch(seed=3))
    if by == "moved":
        loss.to("meta")
    for module in loss.modules() if by == "one by one" else [loss]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "empty_like", filled_with_7)
            module.to_empty(device="cpu", recurse=by != "one by one")
    assert_same_step(config, loss, *batch())


@each(AXES, few=["jaccard_smoothed", "everything"])
def test_the_default_device_does_not_matter(config):
    logits, target = batch()
    soft = logits.detach().softmax(1)
    expected = [step(make(config), logits, given) for given in (target, soft)]
    with torch.device("meta"):
        found = [step(make(config), logits, given) for given in (target, soft)]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["target", "keep", "weight", "metrics"])
def test_an_input_on_another_device_is_named(name):
    logits, target = batch()
    inputs = {"target": target, "keep": target != 255, "weight": torch.ones(target.shape)}
    if name == "metrics":
        name = "target"
        update, inputs = SegmentationMetrics(4).update, {"target": target}
    else:
        update = make({})
    inputs[name] = inputs[name].to("meta")
    with pytest.raises(ValueError, match=f"^{name} must be on the device of the logits, cpu, got"):
        update(logits, **inputs)


# --- dtypes and classes of tensors --------------------------------------------------------------


class Mask(torch.Tensor):
    """As torchvision's tv_tensors, fastai's TensorMask or MONAI's MetaTensor."""


@every_axis
def test_subclasses_of_tensors_and_small_integers_are_tensors(config):
    logits, target = batch()
    for other in (torch.uint8, torch.int16, torch.int32, torch.uint16):
        assert_same_step(config, make(config), logits, target)
        found = step(make(config), logits, target.to(other).as_subclass(Mask))
        torch.testing.assert_close(found, step(make(config), logits, target), rtol=0, atol=0)


@pytest.mark.parametrize("index", [-100, -1, 255 + 256])
def test_an_index_outside_of_a_small_integer_ignores_no_label(index, tmp_path):
    """Compared in uint8, -100 is 156 and -1 is 255."""
    classes = 256
    labels = torch.tensor([[[156, 255, 0, 1]]])
    logits = torch.randn(1, classes, 1, 4, dtype=torch.float64)
    loss = build_loss({"distillation": {"mix": 1.0}}, num_classes=classes, ignore_index=index)
    teacher = torch.softmax(torch.randn_like(logits), 1)
    small = labels.to(torch.uint8)
    assert loss(logits, small, teacher=teacher) == loss(logits, labels, teacher=teacher)
    source = loss_source(standalone({}, num_classes=classes, class_counts=None))
    exported = imported(source, tmp_path).Loss(ignore_index=index)
    assert exported(logits, small) == exported(logits, labels)
    metrics = SegmentationMetrics(classes, ignore_index=index)
    metrics.update(logits, small)
    assert metrics.confusion.sum() == 4


@each(AXES, few=["everything"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_dtype_does_not_matter(config, dtype):
    logits, target = batch()
    expected = step(make(config), logits, target)
    torch.set_default_dtype(dtype)
    try:
        found = step(make(config), logits, target)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_labels_as_floats_are_told_how_to_be_integers():
    logits, target = batch()
    with pytest.raises(ValueError, match=r"float32: labels of classes are integers, target\.long"):
        make({})(logits, target.float())


def test_one_channel_is_told_what_it_is():
    with pytest.raises(ValueError, match=r"float32 of \(2, 1, 3, 3\).*is num_classes=1$"):
        build_loss({}, num_classes=2)(torch.zeros(2, 1, 3, 3), torch.zeros(2, 3, 3).long())


@pytest.mark.parametrize("form", ["kernel", "device", "plain"])
@each({k: c for k, c in AXES.items() if "label_smoothing" not in c}, few=["ce", "recall", "ohem"])
def test_a_class_that_is_masked_out_by_an_infinite_logit_costs_nothing(config, form, monkeypatch):
    """As by a logit so low that its probability rounds to 0."""
    if form == "plain":
        monkeypatch.setattr(kernel, "knows", lambda config: False)
    if form == "device":
        monkeypatch.setattr(kernel, "may_look", lambda tensor: False)
        monkeypatch.setattr("study.losses.dense.suits", lambda *_: False)
    logits, target = batch()
    masked, low = (logits.detach().clone() for _ in range(2))
    masked[:, 3], low[:, 3] = -torch.inf, -800.0
    soft = torch.randn_like(masked).where(masked > -torch.inf, -torch.inf).softmax(1)
    for given in (target, soft):
        found, expected = (
            step(make(config), each.clone().requires_grad_(), given) for each in (masked, low)
        )
        assert expected[0].isfinite()
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("form", ["kernel", "plain", pytest.param("file", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [name for name in PRESETS if "kd" not in name])
def test_a_network_that_gives_nan_has_no_loss_whatever_the_preset(
    name, form, monkeypatch, tmp_path
):
    config = {**PRESETS[name].config}
    loss = make(config)
    if form == "file":
        loss = imported(loss_source(standalone(config)), tmp_path).Loss()
    if form == "plain":
        monkeypatch.setattr(kernel, "knows", lambda config: False)
    logits, target = batch()
    target[0, 0, 0] = 0
    for broken in (logits.detach().clone(), torch.full_like(logits, torch.nan)):
        broken[0, :, 0, 0] = torch.nan
        assert loss(broken, target).isnan()
        if form != "file":
            assert loss(broken, logits.detach().softmax(1)).isnan()
            assert loss(broken, target, weight=torch.ones(target.shape)).isnan()
            assert all(term.isnan() for key, term in loss.terms().items() if key == "jaccard")


# --- state --------------------------------------------------------------------------------------


@each(STATEFUL)
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_a_state_that_was_rounded_is_loaded(config, assign, dtype):
    loss = make(config)
    loss(*batch(seed=1))
    other = make(config)
    other.load_state_dict({k: v.to(dtype) for k, v in loss.state_dict().items()}, assign=assign)
    assert all(buffer.dtype == torch.float64 for buffer in other.buffers())
    loosely = {torch.float32: 1e-6, torch.float16: 1e-2, torch.bfloat16: 3e-2}[dtype]
    torch.testing.assert_close(
        step(other, *batch()), step(loss, *batch()), rtol=loosely, atol=loosely
    )
    if loss.class_weights is not None and dtype != torch.float32:
        assert torch.equal(other.class_weights, loss.class_weights)


@every_axis
def test_a_loss_and_its_state_are_saved(config):
    loss, other = make(config), make(config)
    loss(*batch(seed=1))
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    copied = pickle.loads(pickle.dumps(loss))
    expected = step(loss, *batch())
    for one in (other, copied):
        torch.testing.assert_close(step(one, *batch()), expected, rtol=0, atol=0)


class Elsewhere(torch.Tensor):
    """Says that it is on an accelerator."""

    device = SimpleNamespace(type="cuda")  # type: ignore[assignment]


@pytest.mark.parametrize("form", ["kernel", "device", "plain", "file"])
def test_a_network_that_gives_nan_is_never_right_and_recall_recovers(form, monkeypatch, tmp_path):
    logits, target = batch()
    target[:] = 0  # which argmax gives where all are NaN
    logits = torch.cat([logits.detach(), torch.full_like(logits.detach(), torch.nan)])
    target = torch.cat([target, target])
    config = {"recall": {"ema_momentum": 0.5}}
    loss = make(config)
    if form == "file":
        loss = imported(loss_source(standalone(config)), tmp_path).Loss()
    if form == "device":
        own = kernel.predicted_right

        def there(scores, *given):
            return own(scores.as_subclass(Elsewhere), *given).as_subclass(torch.Tensor)

        monkeypatch.setattr(kernel, "predicted_right", there)
    if form == "plain":
        monkeypatch.setattr("study.losses.kernel.knows", lambda config: False)
    right = float((logits[:2].argmax(1) == 0).sum()) / target.numel()

    def recall():
        return float(loss.recall[0] if form == "file" else loss.recall.value[0])

    assert loss(logits, target).isnan()
    assert recall() == pytest.approx(right)
    assert loss(logits[:2], target[:2]).isfinite()
    assert recall() == pytest.approx(1.5 * right)


# --- around it ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@every_axis
def test_hooks_offloading_anomaly_detection_and_deterministic_algorithms(config):
    logits, target = batch()
    expected = step(make(config), logits, target)
    loss, seen = make(config), []
    loss.register_full_backward_hook(lambda module, inward, outward: seen.append(inward[0].shape))
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autograd.detect_anomaly(), torch.autograd.graph.save_on_cpu():
            found = step(loss, logits, target)
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert seen == [logits.shape]


@each(AXES, few=["ce", "everything"])
def test_a_gradient_scaler_takes_a_batch_of_ignored_pixels(config):
    head, scaler = nn.Conv2d(3, 4, 1), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD(head.parameters(), 0.1)
    before = head.weight.detach().clone()
    scaler.scale(make(config)(head(torch.randn(2, 3, 4, 4)), torch.full((2, 4, 4), 255))).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(head.weight, before)
    assert (head.weight.grad == 0).all()


@pytest.mark.slow
def test_shapes_may_change_in_a_compiled_step():
    torch._dynamo.reset()
    config = {"recall": {"ema_momentum": 0.5}, "jaccard": {"mix": 0.5}}
    loss, eager = make(config), make(config)
    compiled = torch.compile(loss, backend="aot_eager", dynamic=True, fullgraph=True)
    for seed, shape in enumerate([(2, 6, 5), (1, 7, 4), (3, 2, 9)]):
        logits, target = batch(seed, shape)
        found = compiled(logits, target)
        expected = step(eager, logits, target)
        torch.testing.assert_close((found, gradient(found, logits)), expected, rtol=0, atol=0)


@pytest.mark.slow
def test_a_network_that_holds_its_loss_and_a_loss_are_exported():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.loss = nn.Conv2d(3, 4, 1), make(AXES["everything"])

        def forward(self, image):
            return self.head(image)

    net, image = Net(), torch.randn(1, 3, 2, 2)
    exported = torch.export.export(net, (image,)).module()
    torch.testing.assert_close(exported(image), net(image))
    logits, target = (each.detach() for each in batch())
    loss = make(AXES["jaccard"])
    alone = torch.export.export(loss, (logits, target)).module()
    other, labels = batch(seed=1)
    torch.testing.assert_close(alone(other.detach(), labels), loss(other.detach(), labels))


# --- what is ignored ----------------------------------------------------------------------------


def test_a_255th_class_that_is_ignored_is_told():
    counts = [(0, torch.zeros(1, 1, dtype=torch.int64))]
    for make_one in (
        lambda: build_loss({}, num_classes=256),
        lambda: SegmentationMetrics(256),
        lambda: class_counts(counts, 256),
    ):
        with pytest.warns(UserWarning, match="ignore_index 255 is one of the 256 classes"):
            make_one()
    build_loss({}, num_classes=256, ignore_index=None)
    build_loss({}, num_classes=255)
