from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_disk import full_at
from tiny_task import CONVOLUTION, NOISY, STATEFUL_LOSS, tiny

from study.batches import Batches, TrainOrder
from study.checkpoint import Misfit, load_checkpoint, save_checkpoint
from study.config import LrSchedule, TrialConfig
from study.data import SegmentationData, open_data
from study.environment import environment, resolve_device, resolve_precision, set_up_process
from study.errors import InputError
from study.losses.composite import SegmentationLoss
from study.optim import build_optimizer, lr_factor, set_lr
from study.training import Diverged, EpochReport, train

HERE = Path(__file__).parent
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> SegmentationData:
    return open_data(tiny().task.data, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    set_up_process(1)
    yield
    torch.set_num_threads(before)


def run(config: TrialConfig, data: SegmentationData, **options) -> list[EpochReport]:
    return list(train(config, data=data, device="cpu", **options))


def timeless(report: EpochReport) -> dict[str, float]:
    return {key: value for key, value in report.metrics.items() if not key.startswith("time/")}


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
    assert evidence.test_confusion is None
    num_classes = data.num_classes
    assert evidence.val_confusion.shape == (num_classes, num_classes)
    assert evidence.val_counts.shape == (8, 3, num_classes)
    valid = int((data.val.labels != 255).sum())
    assert evidence.val_confusion.sum() == valid
    assert np.array_equal(
        evidence.val_counts[:, 0].sum(axis=0), np.diagonal(evidence.val_confusion)
    )
    assert np.array_equal(evidence.val_groups, data.val.groups)


def test_each_report_tells_the_weights_in_effect_by_class_and_the_gradient_norms(data, monkeypatch):
    measured = []
    whole = SegmentationLoss._gradient_norms

    def counted(self, *arguments):
        measured.append(whole(self, *arguments))
        return measured[-1]

    monkeypatch.setattr(SegmentationLoss, "_gradient_norms", counted)
    reports = run(tiny(STATEFUL_LOSS, model=CONVOLUTION), data)
    assert len(measured) == len(reports)  # once an epoch, not at every step
    for report, norms in zip(reports, measured, strict=True):
        told = {key: value for key, value in report.metrics.items() if "grad_norm" in key}
        assert told == {f"train/{name}": float(norm) for name, norm in norms.items()}
        assert told["train/grad_norm/pixel"] > told["train/grad_norm/jaccard"] > 0
        weights = [report.metrics[f"train/weight/{name}"] for name in data.class_names]
        assert min(weights) > 0
        assert len(set(weights)) == data.num_classes
    assert not any("weight" in key for key in run(tiny(model=CONVOLUTION), data)[0].metrics)


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


def test_a_crop_is_trained_on_and_evaluation_sees_whole_images(data, monkeypatch):
    sizes = []
    whole = Batches.train

    def seen(self, *arguments):
        images, target = whole(self, *arguments)
        sizes.append((tuple(images.shape[2:]), tuple(target.shape[1:])))
        return images, target

    monkeypatch.setattr(Batches, "train", seen)
    (*_, last) = run(tiny(augment={"crop": [24, 32]}), data)
    assert set(sizes) == {((24, 32), (24, 32))}
    valid = int((data.val.labels != 255).sum())
    assert last.evidence is not None
    assert last.evidence.val_confusion.sum() == valid


def test_test_is_judged_on_the_last_epoch_only_and_changes_no_other_number(data):
    plain = run(tiny(), data)
    judged = run(tiny(), data, evaluate_test=True)
    assert not any(key.startswith("test/") for key in judged[0].metrics)
    assert "test/miou" in judged[1].metrics
    assert judged[1].evidence is not None
    assert judged[1].evidence.test_counts is not None
    assert judged[1].evidence.test_counts.shape == (8, 3, data.num_classes)
    without = {k: v for k, v in timeless(judged[1]).items() if not k.startswith("test/")}
    assert without == timeless(plain[1])


def test_every_epoch_that_is_asked_for_is_evaluated_and_no_other(data):
    config = tiny(model=CONVOLUTION, budget={"epochs": 5}, evaluation={"every": 3})
    reports = run(config, data, evaluate_at=[2])
    assert [report.epoch for report in reports if "val/miou" in report.metrics] == [2, 3, 5]


@pytest.mark.parametrize("model", [tiny().task.model.model_dump(), CONVOLUTION, NOISY])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_resumed_training_equals_the_uninterrupted_one_bit_for_bit(data, tmp_path, model, epoch):
    config = tiny(STATEFUL_LOSS, model=model, budget={"epochs": 3})
    whole = []
    for report in train(config, data=data, device="cpu"):
        whole.append(report)
        report.save(tmp_path / f"{report.epoch}.pt")
    torch.rand(7)
    np.random.rand(7)
    random.random()
    resumed = []
    for report in train(config, data=data, device="cpu", resume_from=tmp_path / f"{epoch}.pt"):
        resumed.append(report)
        report.save(tmp_path / f"resumed-{report.epoch}.pt")
    assert [timeless(report) for report in resumed] == [timeless(r) for r in whole[epoch:]]
    expected, got = (
        torch.load(tmp_path / name, weights_only=True)["state"] for name in ("3.pt", "resumed-3.pt")
    )
    assert_equal(got, expected)
    assert run(config, data, resume_from=tmp_path / "3.pt") == []


def assert_equal(got: Any, expected: Any) -> None:
    assert type(got) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert torch.equal(got, expected)
    elif isinstance(expected, dict):
        assert list(got) == list(expected)
        for key, value in expected.items():
            assert_equal(got[key], value)
    elif isinstance(expected, list):
        for one, other in zip(got, expected, strict=True):
            assert_equal(one, other)
    else:
        assert got == expected


def test_a_used_process_gives_the_numbers_of_a_fresh_one(data):
    config = tiny(STATEFUL_LOSS, model=CONVOLUTION)
    run(tiny({"recall": {"ema_momentum": 0.0}}, seed=5), data)
    torch.manual_seed(99)
    used = [timeless(report) for report in run(config, data)]
    program = (
        "import json, sys; from pathlib import Path; from study.config import TrialConfig; "
        "from study.data import open_data; from study.training import set_up_process, train; "
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


def test_a_report_cannot_be_saved_once_training_has_moved_on(data, tmp_path):
    reports = train(tiny(model=CONVOLUTION), data=data, device="cpu")
    first = next(reports)
    next(reports)
    with pytest.raises(RuntimeError, match="epoch 1 must be saved before the next report"):
        first.save(tmp_path / "late.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_or_foreign_checkpoint_is_refused_by_name(data, tmp_path):
    config = tiny(model=CONVOLUTION)
    good = tmp_path / "good.pt"
    next(iter(train(config, data=data, device="cpu"))).save(good)
    content = good.read_bytes()
    (tmp_path / "truncated.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_text("epoch: 3\n")
    torch.save({"epoch": 1}, tmp_path / "foreign.pt")
    torch.save(HERE, tmp_path / "object.pt")
    for name in ("truncated", "empty", "text", "foreign", "object", "absent"):
        file = tmp_path / f"{name}.pt"
        with pytest.raises(InputError, match=f"^{file}: .*must be a") as caught:
            run(config, data, resume_from=file)
        assert "\n" not in str(caught.value)
    others = [
        (config.model_copy(update={"seed": 3}), data),
        (tiny({"focal_gamma": 1.0}, model=CONVOLUTION), data),
        (config, replace(data, fingerprint="other")),
    ]
    for other, its_data in others:
        with pytest.raises(InputError, match="belongs to another training"):
            run(other, its_data, resume_from=good)


WIDTH = 1


def edited(num_classes):
    """A model whose code changes: `WIDTH` is not part of its config."""
    from torch import nn

    return nn.Conv2d(3, num_classes, WIDTH, padding=WIDTH // 2)


def test_a_model_whose_code_has_changed_under_a_checkpoint_is_named_in_one_line(
    data, tmp_path, monkeypatch
):
    config = tiny(model={"factory": f"{__name__}:edited"})
    file = tmp_path / "one.pt"
    next(iter(train(config, data=data, device="cpu"))).save(file)
    monkeypatch.setattr(sys.modules[edited.__module__], "WIDTH", 3)
    with pytest.raises(Misfit, match=f"^{file}: must fit the model's code") as caught:
        run(config, data, resume_from=file)
    assert "\n" not in str(caught.value)
    assert "size mismatch for weight" in str(caught.value)


def test_moved_data_resume_as_long_as_they_are_the_same(data, tmp_path):
    here, there = (
        tiny(
            model=CONVOLUTION,
            data={"format": "folder", "root": root, "size": [32, 48]},
        )
        for root in ("/here", "/there")
    )
    next(iter(train(here, data=data, device="cpu"))).save(tmp_path / "one.pt")
    assert len(run(there, data, resume_from=tmp_path / "one.pt")) == 1


def test_a_checkpoint_that_fails_to_write_leaves_the_old_one(tmp_path):
    file = tmp_path / "folder" / "state.pt"
    save_checkpoint(file, {"epoch": 1}, identity="x")
    with pytest.raises(AttributeError):
        save_checkpoint(file, {"epoch": lambda: 2}, identity="x")
    assert [path.name for path in file.parent.iterdir()] == ["state.pt"]
    assert load_checkpoint(file, identity="x", device=CPU) == {"epoch": 1}


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_named_and_leaves_the_old_one(tmp_path):
    file = tmp_path / "state.pt"
    save_checkpoint(file, {"weights": torch.zeros(10)}, identity="x")
    with full_at(50_000), pytest.raises(OSError, match="File too large") as caught:
        save_checkpoint(file, {"weights": torch.zeros(100_000)}, identity="x")
    assert caught.value.filename == str(file)
    assert list(tmp_path.iterdir()) == [file]
    assert load_checkpoint(file, identity="x", device=CPU)["weights"].shape == (10,)


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
    with pytest.raises(ValueError, match="`reports <= steps` must hold, but got 3 and 2"):
        tiny(budget={"steps": 2, "reports": 3})


def test_lr_scale_multiplies_the_tasks_rate(data):
    config = tiny(model=CONVOLUTION)
    scaled = TrialConfig.model_validate({**config.model_dump(), "optimizer": {"lr_scale": 0.25}})
    plain, quarter = (run(each, data)[0].metrics["lr"] for each in (config, scaled))
    assert quarter == pytest.approx(plain / 4)


@pytest.mark.parametrize("change", [{"flip": 0.0}, {"scale": None}, {"jitter": 0.0}])
def test_each_augmentation_reaches_the_training(data, change):
    full = {"flip": 0.5, "scale": [0.8, 1.25], "jitter": 0.1}
    losses = [
        run(tiny(model=CONVOLUTION, augment=each), data)[0].metrics["train/loss"]
        for each in (full, {**full, **change})
    ]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_and_differs(data, precision):
    plain, reduced = (
        run(tiny(model=CONVOLUTION, precision=each), data)[-1].metrics["train/loss"]
        for each in ("fp32", precision)
    )
    assert reduced != plain
    assert reduced == pytest.approx(plain, rel=0.05)


def test_sgd_trains(data):
    reports = run(
        tiny(model=CONVOLUTION, optimizer={"name": "sgd", "lr": 0.1, "weight_decay": 1e-4}), data
    )
    assert reports[1].metrics["train/loss"] < reports[0].metrics["train/loss"]


def test_a_loss_that_does_not_fit_the_data_is_bad_input(data):
    config = tiny({"class_weights": {"scheme": "manual", "weights": [1.0, 2.0]}}, model=CONVOLUTION)
    with pytest.raises(InputError, match=r"^loss"):
        run(config, data)


def test_a_device_that_is_not_here_is_bad_input(data):
    for device in ("cuda:63", "gpu"):
        with pytest.raises(InputError, match=f"^device: must be a device .* got '{device}'"):
            resolve_device(device)


@pytest.mark.parametrize(
    ("num_images", "batch_size", "sizes"),
    [
        (8, 4, [4, 4]),
        (10, 4, [4, 4, 2]),
        (9, 4, [4, 4]),
        (3, 4, [3]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_a_last_batch_of_one_image_is_left_out_unless_there_is_no_other(
    num_images, batch_size, sizes
):
    order = TrainOrder(num_images, batch_size, seed=0)
    steps = [order.indices(step) for step in range(order.steps_per_pass)]
    assert [len(step) for step in steps] == sizes
    seen = np.concatenate(steps)
    assert len(np.unique(seen)) == len(seen)


def test_every_pass_has_its_own_order_and_any_step_can_be_redone():
    order = TrainOrder(12, 4, seed=3)
    first = [order.indices(step).tolist() for step in range(6)]
    for steps in (first[:3], first[3:]):
        assert sorted(index for step in steps for index in step) == list(range(12))
    assert first[:3] != first[3:]
    assert TrainOrder(12, 4, seed=3).indices(4).tolist() == first[4]
    assert TrainOrder(12, 4, seed=4).indices(4).tolist() != first[4]


def test_norms_and_biases_are_not_decayed():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    optimizer = build_optimizer(tiny().task.optimizer, model, lr_scale=2.0)
    decayed, plain = optimizer.param_groups
    assert [p.ndim for p in decayed["params"]] == [4]
    assert decayed["weight_decay"] == 1.0e-4
    assert [p.ndim for p in plain["params"]] == [1, 1, 1]
    assert plain["weight_decay"] == 0.0
    assert set_lr(optimizer, 0.5) == 1.0e-2
    assert plain["lr"] == 1.0e-2


def test_schedules_rise_in_the_warm_up_and_fall_over_the_whole_budget():
    poly = LrSchedule(name="poly", power=0.9)
    assert lr_factor(poly, 0, 100) == 1
    assert lr_factor(poly, 50, 100) == pytest.approx(0.5**0.9)
    assert lr_factor(LrSchedule(name="cosine"), 50, 100) == pytest.approx(0.5)
    assert lr_factor(LrSchedule(name="cosine"), 99, 100) < 0.001
    assert lr_factor(LrSchedule(name="constant"), 99, 100) == 1
    warm = LrSchedule(name="constant", warmup=0.1)
    assert [lr_factor(warm, step, 100) for step in (0, 4, 9, 10)] == [0.1, 0.5, 1, 1]


def test_precision_follows_the_device_only_when_it_is_auto():
    assert resolve_precision("auto", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"


def test_the_environment_records_what_decides_the_numbers():
    record = environment(tiny(precision="bf16"), "cpu")
    assert record["device"] == "cpu"
    assert record["precision"] == "bf16"
    assert record["num_threads"] == 1
    assert record["versions"]["torch"] == torch.__version__
    assert {"numpy", "segmentation-models-pytorch"} <= set(record["versions"])
    assert environment(num_threads=3)["num_threads"] == 3
    assert json.loads(json.dumps(record)) == record


def test_training_imports_no_ray_optuna_or_mlflow():
    program = (
        "import sys, study.training; "
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


def test_batches_are_normalised_by_the_datas_mean_and_spread(data):
    batches = Batches(data, CPU, "fp32")
    images, target = batches.evaluation(data.val, slice(2, 5))
    pixels = data.val.images[2:5].transpose(0, 3, 1, 2) / 255
    mean, std = (np.asarray(each)[:, None, None] for each in (data.mean, data.std))
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert np.allclose(images.numpy(), (pixels - mean) / std, atol=1e-5)
    assert np.array_equal(target.numpy(), data.val.labels[2:5])


def test_a_loss_with_state_observes_the_training(data):
    plain, weighed = (
        run(tiny(loss, model=CONVOLUTION), data)[0].metrics["train/loss"]
        for loss in ({}, {"recall": {"ema_momentum": 0.0}})
    )
    assert weighed < plain
