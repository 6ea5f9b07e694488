from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_task import CONVOLUTION, NOISY, STATEFUL_LOSS, noted, run, timeless, tiny, tiny_data

from study.config.task import TrialConfig
from study.core.errors import InputError
from study.data import SegmentationData
from study.losses.module import SegmentationLoss
from study.metrics import TAUS
from study.training.batches import TrainOrder, draw
from study.training.evaluation import measured_names
from study.training.optim import lr_factor
from study.training.trainer import Diverged, _held, _series, train

HERE = Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return tiny_data()


@pytest.mark.slow
def test_a_training_is_a_list_of_reports_and_the_last_one_holds_the_evidence(data):
    first, last = run(tiny(STATEFUL_LOSS), data)
    assert (first.epoch, last.epoch, last.num_epochs) == (1, 2, 2)
    assert first.evidence is None
    assert last.metrics["train/loss"] < first.metrics["train/loss"]
    assert {"train/cross_entropy", "train/jaccard", "lr", "time/epoch_s"} <= set(last.metrics)
    assert 0 < last.metrics["val/miou"] < 1
    assert f"val/iou/{data.class_names[0]}" in last.metrics
    assert not any(key.startswith("test/") for key in last.metrics)
    evidence = last.evidence
    assert evidence is not None
    assert evidence.class_names == data.class_names
    assert list(evidence.splits) == ["val"]
    val, num_classes = evidence.splits["val"], data.num_classes
    assert val.counts.shape == (8, 3, num_classes)
    valid = int((data.val.labels != 255).sum())
    assert val.confusion.sum() == valid
    assert np.array_equal(val.counts[:, 0].sum(axis=0), np.diagonal(val.confusion))
    assert np.array_equal(val.groups, data.val.groups)
    assert val.curve is not None
    assert val.tuned_counts is not None
    assert val.curve.shape == (len(TAUS), num_classes, num_classes)
    at_tau = TAUS.index(last.metrics["val/tau_miou"])
    assert np.array_equal(val.tuned_counts[:, 0].sum(0), np.diagonal(val.curve[at_tau]))
    assert np.array_equal(val.curve[TAUS.index(0.0)], val.confusion)
    assert last.metrics["val/tuned/miou"] >= last.metrics["val/miou"]
    assert all(type(value) is float for value in last.metrics.values()), "a ledger holds no others"


def test_each_report_tells_the_weights_in_effect_by_class_and_the_gradient_norms(data):
    def norms_of(loss, *_):
        return {key: norm for key, norm in loss.step_terms.items() if "grad_norm" in key}

    with noted(SegmentationLoss, norms_of) as of_steps:
        reports = run(tiny(STATEFUL_LOSS, model=CONVOLUTION), data)
    measured = [norms for norms in of_steps if norms]
    assert len(measured) == len(reports)  # once an epoch, not at every step
    for report, norms in zip(reports, measured, strict=True):
        told = {key: value for key, value in report.metrics.items() if "grad_norm" in key}
        assert told == {f"train/{name}": float(norm) for name, norm in norms.items()}
        assert told["train/grad_norm/pixel"] > told["train/grad_norm/jaccard"] > 0
        weights = [report.metrics[f"train/weight/{name}"] for name in data.class_names]
        assert min(weights) > 0
        assert len(set(weights)) == data.num_classes
    assert not any("weight" in key for key in run(tiny(model=CONVOLUTION), data)[0].metrics)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"clip_norm": 1e-3}},
        {"optimizer": {"encoder_lr_scale": 0.1}},
        {"augment": {"crop": [24, 32]}},
        {"augment": {"crop": [24, 32], "scale": [0.5, 2.0]}},
    ],
    ids=json.dumps,
)
def test_every_option_of_optimiser_and_crop_changes_the_training(data, changes):
    plain = tiny().task.model_dump()
    changed = {key: {**plain[key], **value} for key, value in changes.items()}
    first = run(tiny(**changed), data)[-1].metrics
    assert math.isfinite(first["train/loss"])
    assert first["train/loss"] != run(tiny(), data)[-1].metrics["train/loss"]


def test_what_steps_give_is_no_tensor_on_a_cpu_and_has_the_same_mean():
    values = [torch.tensor(1 / 3), torch.tensor(0.1), torch.tensor(7.0)]
    rows = [torch.tensor([1 / 3, 0.1], dtype=torch.float64), torch.tensor([0.2, 5.0]).double()]
    for tensors in (values, rows):
        held = [_held(each) for each in tensors]
        assert not any(isinstance(each, torch.Tensor) for each in held)
        assert torch.equal(_series(held).mean(0), torch.stack(tensors).double().mean(0))
        assert torch.equal(_series(tensors), _series(held)), "as on a GPU"


def test_a_crop_is_trained_on_and_evaluation_sees_whole_images(data):
    def sizes_of(_, arguments, __):
        logits, target = arguments
        return tuple(logits.shape[2:]), tuple(target.shape[1:])

    with noted(SegmentationLoss, sizes_of) as sizes:
        (*_, last) = run(tiny(model=CONVOLUTION, augment={"crop": [24, 32]}), data)
    assert set(sizes) == {((24, 32), (24, 32))}
    valid = int((data.val.labels != 255).sum())
    assert last.evidence is not None
    assert last.evidence.splits["val"].confusion.sum() == valid


def test_windows_tell_in_how_many_batches_each_class_is(data):
    def classes_of(_, arguments, __):
        return set(arguments[1].unique().tolist())

    config = tiny(model=CONVOLUTION, augment={"crop": [8, 8]})
    with noted(SegmentationLoss, classes_of) as batches:
        reports = run(config, data)
    steps = len(batches) // len(reports)
    for epoch, report in enumerate(reports):
        held = batches[epoch * steps : (epoch + 1) * steps]
        for index, name in enumerate(data.class_names):
            share = sum(index in one for one in held) / steps
            assert report.metrics[f"train/in_batches/{name}"] == pytest.approx(share)
    shares = [reports[0].metrics[f"train/in_batches/{name}"] for name in data.class_names]
    assert min(shares) < 1
    whole = run(tiny(model=CONVOLUTION, augment={"flip": 0.5}), data)[0].metrics
    assert not any("in_batches" in key for key in whole)


@pytest.mark.slow
def test_test_is_judged_on_the_last_epoch_only_and_changes_no_other_number(data):
    plain = run(tiny(), data)
    judged = run(tiny(), data, evaluate_test=True)
    assert not any(key.startswith("test/") for key in judged[0].metrics)
    assert "test/miou" in judged[1].metrics
    assert judged[1].evidence is not None
    assert judged[1].evidence.splits["test"].counts.shape == (8, 3, data.num_classes)
    assert "test/tau_miou" not in judged[1].metrics, "val chooses the rules"
    without = {k: v for k, v in timeless(judged[1]).items() if not k.startswith("test/")}
    assert without == timeless(plain[1])


def test_every_epoch_that_is_asked_for_is_evaluated_and_no_other(data):
    config = tiny(model=CONVOLUTION, budget={"epochs": 5}, evaluation={"every": 3})
    reports = run(config, data, evaluate_at=[2])
    assert [report.epoch for report in reports if "val/miou" in report.metrics] == [2, 3, 5]


@pytest.mark.slow
def test_a_used_process_gives_the_numbers_of_a_fresh_one(data):
    config = tiny(STATEFUL_LOSS, model=CONVOLUTION)
    run(tiny({"recall": {"ema_momentum": 0.0}}, seed=5), data)
    torch.manual_seed(99)
    used = [timeless(report) for report in run(config, data)]
    program = (
        "import json, sys; from pathlib import Path; from study.config.task import TrialConfig; "
        "from study.data import open_data; "
        "from study.training.trainer import set_up_process, train; "
        "config = TrialConfig.model_validate(json.loads(sys.argv[1])); set_up_process(1); "
        "data = open_data(config.task.data, cache_dir=Path(sys.argv[2])); "
        "print(json.dumps([report.metrics for report in train(config, data=data, device='cpu')]))"
    )
    assert data.cache is not None
    arguments = [config.model_dump_json(), str(data.cache.parent)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={"PYTHONPATH": f"{HERE.parent}:{HERE}", "PATH": "/usr/bin:/bin"},
    )
    fresh = [
        {key: value for key, value in metrics.items() if not key.startswith("time/")}
        for metrics in json.loads(done.stdout)
    ]
    assert fresh == used


@pytest.mark.parametrize("model", [CONVOLUTION, NOISY])
def test_training_leaves_the_callers_random_numbers_alone_and_does_not_hear_them(data, model):
    def seed() -> None:
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)

    def draw() -> tuple[list[float], list[float], float]:
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    config = tiny(model=model)
    seed()
    expected = draw()
    seed()
    quiet = [timeless(report) for report in run(config, data)]
    assert draw() == expected
    noisy = []
    for report in train(config, data=data, device="cpu"):
        noisy.append(timeless(report))
        draw()
    assert noisy == quiet


def test_a_seed_that_torch_cannot_take_is_refused():
    assert tiny(seed=2**63 - 1).seed == 2**63 - 1
    with pytest.raises(ValueError, match="less_than"):
        tiny(seed=2**63)


def test_the_seed_moves_the_numbers(data):
    config = tiny(model=CONVOLUTION)
    other = config.model_copy(update={"seed": 1})
    assert timeless(run(config, data)[-1]) != timeless(run(other, data)[-1])


def explodes(num_classes):
    from torch import nn

    class Explodes(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Conv2d(3, num_classes, 1)
            self.steps = 0

        def forward(self, images):
            self.steps += self.training
            return self.head(images) * (float("nan") if self.steps == 8 else 1.0)

    return Explodes()


def test_a_loss_that_is_not_finite_ends_the_training(data):
    reports = train(tiny(model={"factory": f"{__name__}:explodes"}), data=data, device="cpu")
    next(reports)
    with pytest.raises(Diverged, match="the training loss is nan in epoch 2, from step 8"):
        next(reports)


def blind(num_classes):
    """Learns, but is evaluated to NaN, as where running statistics overflow."""
    from torch import nn

    class Blind(nn.Conv2d):
        def forward(self, images):
            return super().forward(images) * (1.0 if self.training else float("nan"))

    return Blind(3, num_classes, 1)


def test_an_evaluation_that_is_not_a_number_has_no_metrics_but_nan(data):
    for report in run(tiny(model={"factory": f"{__name__}:blind"}), data):
        assert math.isfinite(report.metrics["train/loss"])
        assert math.isnan(report.metrics["val/miou"])
        assert math.isnan(report.metrics["val/macc"])


def test_weights_that_are_not_finite_end_the_training(data):
    config = tiny(
        model=CONVOLUTION,
        optimizer={"name": "sgd", "lr": 1.0e38, "momentum": 0.0},
        lr_schedule={"name": "constant"},
        budget={"steps": 1, "reports": 1},
    )
    with pytest.raises(Diverged, match="the weights are not finite after epoch 1"):
        run(config, data)


def test_a_step_budget_is_cut_into_reports_that_cross_passes(data):
    config = tiny(model=CONVOLUTION, budget={"steps": 16, "reports": 3})
    reports = run(config, data)
    assert [report.epoch for report in reports] == [1, 2, 3]
    states = []
    for report in train(config, data=data, device="cpu"):
        states.append(report.metrics["lr"])
    peak, steps = 1.0e-2, (4, 9, 15)
    schedule = config.task.lr_schedule
    assert states == pytest.approx([peak * lr_factor(schedule, step, 16) for step in steps])


def test_more_reports_than_steps_are_refused():
    with pytest.raises(ValueError, match="reports must be <= steps"):
        tiny(budget={"steps": 2, "reports": 3})


def test_lr_scale_multiplies_the_tasks_rate(data):
    config = tiny(model=CONVOLUTION)
    scaled = TrialConfig.model_validate({**config.model_dump(), "optimizer": {"lr_scale": 0.25}})
    plain, quarter = (run(each, data)[0].metrics["lr"] for each in (config, scaled))
    assert quarter == pytest.approx(plain / 4)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"flip": 0.0}, {"scale": None}, {"jitter": 0.0}])
def test_each_augmentation_reaches_the_training(data, change):
    full = {"flip": 0.5, "scale": [0.8, 1.25], "jitter": 0.1}
    losses = [
        run(tiny(model=CONVOLUTION, augment=each), data)[0].metrics["train/loss"]
        for each in (full, {**full, **change})
    ]
    assert losses[0] != losses[1]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_and_differs(data, precision):
    plain, reduced = (
        run(tiny(model=CONVOLUTION, precision=each), data)[-1].metrics["train/loss"]
        for each in ("fp32", precision)
    )
    assert reduced != plain
    assert reduced == pytest.approx(plain, rel=0.05)


def modes_in_training(data, **task):
    """Whether only deterministic kernels were allowed, at each forward pass."""

    def mode(*_):
        return torch.are_deterministic_algorithms_enabled()

    with noted(torch.nn.Sequential, mode) as modes:
        run(tiny(model=CONVOLUTION, **task), data)
    return modes


@pytest.mark.parametrize("callers", [True, False])
def test_deterministic_kernels_are_a_choice_of_the_task_alone(data, callers):
    torch.use_deterministic_algorithms(callers)
    try:
        for only in (True, False):
            assert set(modes_in_training(data, deterministic=only)) == {only}
            assert torch.are_deterministic_algorithms_enabled() == callers
    finally:
        torch.use_deterministic_algorithms(False)


def test_an_operation_without_a_deterministic_kernel_is_named(data):
    """`put_` has none, not even on the CPU."""
    unsteady = {"factory": "tiny_task:unsteady"}
    run(tiny(model=unsteady), data)
    with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
        run(tiny(model=unsteady, deterministic=True), data)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_deterministic_training_on_a_gpu_repeats_itself_and_resumes(data, tmp_path):
    config = tiny(STATEFUL_LOSS, deterministic=True, precision="bf16")
    reports = []
    for report in train(config, data=data, device="cuda"):
        reports.append(timeless(report))
        if report.epoch == 1:
            report.save(tmp_path / "checkpoint.pt")
    again = [timeless(report) for report in train(config, data=data, device="cuda")]
    assert again == reports
    resume = tmp_path / "checkpoint.pt"
    rest = [timeless(one) for one in train(config, data=data, device="cuda", resume_from=resume)]
    assert rest == reports[1:]


def test_sgd_trains(data):
    reports = run(
        tiny(model=CONVOLUTION, optimizer={"name": "sgd", "lr": 0.1, "weight_decay": 1e-4}), data
    )
    assert reports[1].metrics["train/loss"] < reports[0].metrics["train/loss"]


def test_a_loss_that_does_not_fit_the_data_is_bad_input(data):
    config = tiny({"class_weights": {"scheme": "manual", "weights": [1.0, 2.0]}}, model=CONVOLUTION)
    with pytest.raises(InputError, match=r"^loss"):
        run(config, data)


@pytest.mark.slow
def test_training_imports_no_ray_optuna_or_mlflow():
    program = (
        "import sys, study.training.trainer; "
        "print([name for name in ('ray', 'optuna', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={"PYTHONPATH": str(HERE.parent), "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout.strip() == "[]"


def test_a_loss_with_state_observes_the_training(data):
    plain, weighed = (
        run(tiny(loss, model=CONVOLUTION), data)[0].metrics["train/loss"]
        for loss in ({}, {"recall": {"ema_momentum": 0.0}})
    )
    assert weighed < plain


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_how_many_random_streams_are_begun_at_once_changes_nothing(at_once):
    def drawn(first, at_once):
        order = TrainOrder(10, batch_size=3, seed=5)
        return [
            (indices.tolist(), generator.initial_seed())
            for indices, generator in draw(order, first, 11, at_once=at_once)
        ]

    whole = drawn(0, 11)
    assert len(whole) == len({seed for _, seed in whole}) == 11
    assert drawn(0, at_once) == whole
    assert drawn(6, at_once) == whole[6:]


def test_a_group_and_what_can_be_an_objective_are_measured(data):
    rare = list(data.class_names[-3:])
    config = tiny(evaluation={"groups": {"rare": rare}})
    (*_, last) = run(config, data)
    shown = [last.metrics[f"val/tuned/iou/{c}"] for c in rare if f"val/iou/{c}" in last.metrics]
    assert last.metrics["val/tuned/miou/rare"] == pytest.approx(np.mean(shown))
    others = ("nll", "error", "tau_miou", "tau_macc", "present")
    assert set(measured_names(data, config.task.evaluation)) == {
        key for key in last.metrics if key.startswith("val/") and not key.endswith(others)
    }
