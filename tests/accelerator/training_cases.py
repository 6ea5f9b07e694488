"""Trainings on the stand-in; `tests/test_accelerator.py` runs them in a process of their own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from accelerator.stand_in import DEVICE, StandIn
from tiny_task import CONVOLUTION, STATEFUL_LOSS, TINY, noted, run, timeless, tiny

from study.config.task import TrialConfig
from study.data import SegmentationData, open_data
from study.training import trainer as training
from study.training.sharer import trained
from study.training.sharing import EPOCH, WARM
from study.training.trainer import EpochReport, load_checkpoint, train

pytestmark = pytest.mark.usefixtures("one_thread")

CROP = {"flip": 0.5, "crop": [24, 24], "jitter": 0.1}
LARGE_CROP = {"crop": [40, 64]}  # images of 32x48 are padded
ALL_AXES = {
    **STATEFUL_LOSS,
    "label_smoothing": 0.1,
    "focal_gamma": 1.0,
    "pooling": {"kind": "max"},
}
OHEM = {"pooling": {"kind": "ohem"}, "jaccard": {"mix": 0.5, "average": "image"}}
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "clip_norm": 1.0}
CASES: dict[str, dict[str, Any]] = {
    "cross_entropy": {"loss": {}},
    "all_axes": {"loss": ALL_AXES},
    "ohem_sgd_clipped": {"loss": OHEM, "optimizer": SGD},
    "bf16_crop": {"loss": ALL_AXES, "precision": "bf16", "augment": CROP},
    "fp16": {"loss": ALL_AXES, "precision": "fp16"},
    "fp16_sgd_clipped": {"loss": OHEM, "precision": "fp16", "optimizer": SGD},
    "padded": {"loss": {}, "augment": LARGE_CROP},
}
# What torch.use_deterministic_algorithms lists as raising an error on CUDA, as far as a network
# or a loss could come to it, and how that begins in ATen.
UNSTEADY = (
    "_adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d_backward",
    "bincount",
    "ctc_loss",
    "cumsum",
    "grid_sampler_2d_backward",
    "histc",
    "kthvalue",
    "max_unpool",
    "median",
    "nll_loss",
    "put_",
    "reflection_pad",
    "scatter_reduce",
    "upsample_bicubic2d_backward",
    "upsample_bilinear2d_backward",
)


def data_of(config: TrialConfig, larger: int = 1) -> SegmentationData:
    data = {**TINY["data"], "num_train": 12 * larger, "num_val": 8 * larger}
    return open_data(tiny(data=data).trained_here.data)


def on_the_stand_in(
    config: TrialConfig, data: SegmentationData, **options: Any
) -> tuple[list[EpochReport], list[str], StandIn]:
    """The reports, the waits of the last epoch, and the stand-in."""
    reports, waits = [], []
    with StandIn() as stand_in:
        for report in train(config, data=data, device=DEVICE, **options):
            reports.append(report)
            waits = list(stand_in.waits)
            stand_in.waits.clear()
    return reports, waits, stand_in


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_epoch_waits_for_the_device_as_often_with_twice_the_batches(case):
    config = tiny(model=CONVOLUTION, **case)
    counts = []
    for larger in (1, 2):
        _, waits, _ = on_the_stand_in(config, data_of(config, larger))
        # CUDA takes the batches themselves from pinned memory, which the stand-in has not.
        counts.append(sorted(wait for wait in waits if "torch.uint8" not in wait))
    assert counts[0] == counts[1]
    assert 0 < len(counts[0]) < 12


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_learns_what_a_cpu_learns(case):
    config = tiny(model=CONVOLUTION, **case)
    data = data_of(config)
    here = run(config, data)
    for one, other in zip(on_the_stand_in(config, data)[0], here, strict=True):
        there, expected = timeless(one), timeless(other)
        assert there.keys() == expected.keys()
        for key in expected:
            if key.startswith("train/"):
                assert there[key] == pytest.approx(expected[key], rel=1e-3), key
        assert one.metrics["val/acc"] == pytest.approx(other.metrics["val/acc"], abs=0.02)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_the_model_computes_in_the_precision_and_keeps_its_weights(precision, dtype):
    def dtypes(model, _, logits):
        return model.training, logits.dtype, *{weight.dtype for weight in model.parameters()}

    config = tiny(model=CONVOLUTION, precision=precision, budget={"epochs": 1})
    with noted(torch.nn.Sequential, dtypes) as calls:
        (report,), _, stand_in = on_the_stand_in(config, data_of(config))
    assert set(calls) == {(training, dtype, torch.float32) for training in (True, False)}
    assert 0 < report.metrics["train/loss"] < 10
    assert ("_amp_update_scale_" in stand_in.operations) == (precision == "fp16")


def test_it_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, monkeypatch):
    def load(path, *, identity, device):  # torch.load puts nothing on a device of this kind
        return load_checkpoint(path, identity=identity, device=torch.device("cpu"))

    monkeypatch.setattr(training, "load_checkpoint", load)
    config = tiny(ALL_AXES, model=CONVOLUTION, precision="fp16", budget={"epochs": 3})
    data = data_of(config)
    whole = []
    with StandIn():
        for report in train(config, data=data, device=DEVICE):
            whole.append(timeless(report))
            if report.epoch == 1:
                report.save(tmp_path / "checkpoint.pt")
    rest, _, _ = on_the_stand_in(config, data, resume_from=tmp_path / "checkpoint.pt")
    assert [timeless(report) for report in rest] == whole[1:]


@pytest.mark.parametrize(
    ("arch", "steady"),
    [
        ("deeplabv3plus", True),
        ("fpn", True),
        ("unet", True),
        ("segformer", True),
        ("pspnet", False),
        ("upernet", False),
    ],
)
def test_deterministic_mode_needs_no_kernel_that_cuda_has_not(arch, steady):
    model = {"arch": arch, "encoder": "resnet18"}
    config = tiny(ALL_AXES, model=model, deterministic=True, budget={"epochs": 1})
    _, _, stand_in = on_the_stand_in(config, data_of(config))
    assert "convolution_backward" in stand_in.operations
    unsteady = [name for name in stand_in.operations if name.startswith(UNSTEADY)]
    assert unsteady == ([] if steady else ["_adaptive_avg_pool2d_backward"])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_losses_and_augmentation_have_deterministic_kernels(case):
    config = tiny(model=CONVOLUTION, **case)
    _, _, stand_in = on_the_stand_in(config, data_of(config))
    assert not [name for name in stand_in.operations if name.startswith(UNSTEADY)]


def test_the_stand_in_sees_what_it_is_for():
    with StandIn() as stand_in:
        values = torch.arange(4.0).to(DEVICE, non_blocking=True)
        assert not stand_in.waits
        with pytest.raises(RuntimeError, match="mixes devices"):
            values + torch.ones(4)
        for wait in (
            lambda: torch.ones(1).to(DEVICE),
            lambda: torch.tensor([1.0], device=DEVICE),
            lambda: values.new_tensor([1.0]),
            lambda: float(values.sum()),
            lambda: bool((values > 0).all()),
            lambda: values[values > 1],
            values.nonzero,
            values.cpu,
            values.tolist,
            lambda: torch.zeros(4).copy_(values),
        ):
            stand_in.waits.clear()
            wait()
            assert len(stand_in.waits) == 1


def test_a_training_is_measured_on_any_device():
    config = tiny(model=CONVOLUTION)
    data, before = data_of(config), torch.get_rng_state()
    with StandIn() as stand_in:
        found = trained(config.trained_here, data, torch.device(DEVICE), epoch_s=0.0, steps=2)
        (kind, warm), *epochs = itertools.islice(found, 3)
        found.close()
    assert kind == WARM and warm["steps"] == 2
    assert 0 < warm["memory"] < warm["total"]
    assert [kind for kind, _ in epochs] == [EPOCH, EPOCH]
    assert [said["images"] for _, said in epochs] == [8, 16]
    assert epochs[0][1]["at"] < epochs[1][1]["at"]
    assert "convolution_backward" in stand_in.operations
    assert torch.equal(torch.get_rng_state(), before)
