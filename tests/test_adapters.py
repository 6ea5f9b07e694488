"""The adapters, each in a short training by its own framework, if that is installed."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from recorded_trial import NAMES, drawn, mean_iou, recorded_trial, small_network
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from study.adapters.relay import Relay
from study.core.errors import InputError
from study.losses.digest import ECHO
from study.trials import TrialContext

RECALL = {"recall": {"ema_momentum": 0.5}}


@pytest.fixture(autouse=True)
def _nobody_listens_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ECHO, "")


def _used(context: TrialContext) -> TrialContext:
    images, labels = drawn(0, 2)
    context.build_loss()(small_network()(images), labels)
    return context


# what they share


def test_a_metric_that_the_framework_lacks_is_named(tmp_path: Path) -> None:
    context, _ = recorded_trial(tmp_path)
    relay = Relay(_used(context), {"val/miou": "val_iuo"})
    with pytest.raises(InputError, match=r"unknown metric for val/miou: 'val_iuo'.*'val_iou'"):
        relay.validated(1, {"val_iou": 0.5})


def test_an_epoch_is_reported_once(tmp_path: Path) -> None:
    context, recorder = recorded_trial(tmp_path)
    relay = Relay(_used(context), {"val/miou": "iou"})
    assert relay.validated(1, {"iou": 0.5})
    assert not relay.validated(1, {"iou": 0.6})
    assert recorder.by_epoch[1]["val/miou"] == 0.5


def test_a_confirmation_waits_for_its_test(tmp_path: Path) -> None:
    context, recorder = recorded_trial(tmp_path, epochs=1, confirmation=True)
    with pytest.raises(InputError, match="must name test/miou"):
        Relay(context, {"val/miou": "iou"})
    relay = Relay(_used(context), {"val/miou": "iou", "test/miou": "iou"})
    assert not relay.validated(1, {"iou": 0.5})
    assert recorder.by_epoch == {}
    relay.tested({"iou": 0.4})
    assert recorder.by_epoch[1]["val/miou"] == 0.5
    assert recorder.by_epoch[1]["test/miou"] == 0.4


def test_a_test_of_a_trial_that_is_no_confirmation_is_passed_over(tmp_path: Path) -> None:
    context, recorder = recorded_trial(tmp_path, epochs=1)
    relay = Relay(_used(context), {"val/miou": "iou", "test/miou": "iou"})
    relay.validated(1, {"iou": 0.5})
    relay.tested({"iou": 0.4})
    assert "test/miou" not in recorder.by_epoch[1]


# Lightning


def _loader(seed: int) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(*drawn(seed)), batch_size=4)


def _lightning(
    context: TrialContext,
    metrics: Mapping[str, str],
    *,
    resume: bool = False,
    fails_after: int | None = None,
    every: int = 1,
) -> Any:
    pytest.importorskip(
        "lightning", reason="needs the package lightning: pip install -e '.[lightning]'"
    )
    from lightning.pytorch import LightningModule, Trainer

    from study.adapters.lightning import StudyCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.loss = small_network(), context.build_loss()
            self.counts: Any = None

        def training_step(self, batch: Any, index: int) -> Tensor:
            if self.current_epoch == fails_after:
                raise RuntimeError("the power is gone")
            return self.loss(self.network(batch[0]), batch[1])

        def validation_step(self, batch: Any, index: int) -> None:
            self._evaluate(batch, "val")

        def test_step(self, batch: Any, index: int) -> None:
            self._evaluate(batch, "test")

        def _evaluate(self, batch: Any, split: str) -> None:
            logits = self.network(batch[0])
            if self.counts is not None:
                self.counts.update(logits, batch[1])
            self.log(f"{split}_iou", mean_iou(logits, batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    callback, module = StudyCallback(context, metrics), Module()
    trainer = Trainer(
        max_epochs=context.num_epochs,
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=every,
    )
    trainer.fit(module, _loader(0), _loader(1), ckpt_path=callback.resume() if resume else None)
    if context.is_confirmation:
        trainer.test(module, _loader(2), verbose=False)
    return trainer


quiet_lightning = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


@quiet_lightning
@pytest.mark.slow
def test_lightning_reports_each_epoch_until_the_study_ends_the_trial(tmp_path: Path) -> None:
    context, recorder = recorded_trial(tmp_path, epochs=4, stop_after=2)
    trainer = _lightning(context, {"val/miou": "val_iou"})
    assert list(recorder.by_epoch) == [1, 2]
    assert trainer.current_epoch == 2
    assert 0 < recorder.by_epoch[2]["val/miou"] < 1


@quiet_lightning
@pytest.mark.slow
def test_lightning_gives_its_logits_to_the_studys_metrics(tmp_path: Path) -> None:
    context, recorder = recorded_trial(tmp_path, confirmation=True)
    _lightning(context, {"val": "counts", "test": "counts"})
    assert list(recorder.by_epoch) == [1, 2, 3]
    last = recorder.by_epoch[3]
    assert {"val/tuned/miou", "val/iou/pole", "test/miou", "test/tuned/miou"} <= last.keys()
    assert last["val/miou"] != last["test/miou"]
    assert "test/miou" not in recorder.by_epoch[2]


@quiet_lightning
@pytest.mark.slow
def test_lightning_reports_no_validation_twice(tmp_path: Path) -> None:
    context, recorder = recorded_trial(tmp_path, epochs=4)
    _lightning(context, {"val/miou": "val_iou"}, every=2)
    assert [epoch for epoch, found in recorder.by_epoch.items() if "val/miou" in found] == [2, 4]
    assert list(recorder.by_epoch) == [1, 2, 3, 4]


@quiet_lightning
@pytest.mark.slow
def test_lightning_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    metrics = {"val/miou": "val_iou"}
    context, undisturbed = recorded_trial(whole, loss=RECALL)
    _lightning(context, metrics, resume=True)
    context, first = recorded_trial(parts, loss=RECALL)
    with pytest.raises(RuntimeError, match="the power is gone"):
        _lightning(context, metrics, resume=True, fails_after=2)
    assert list(first.by_epoch) == [1, 2]
    context, second = recorded_trial(parts, begun_epochs=2, loss=RECALL)
    _lightning(context, metrics, resume=True)
    assert list(second.by_epoch) == [3]
    assert second.by_epoch[3]["val/miou"] == undisturbed.by_epoch[3]["val/miou"]


# Hugging Face


@pytest.mark.slow
@pytest.mark.parametrize("confirmation", [False, True])
def test_transformers(tmp_path: Path, confirmation: bool) -> None:
    reason = "needs the packages transformers and accelerate: pip install -e '.[transformers]'"
    pytest.importorskip("accelerate", reason=reason)
    pytest.importorskip("transformers", reason=reason)
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, Trainer
    from transformers import TrainingArguments as Arguments

    from study.adapters.transformers import ComputeLoss, StudyCallback

    stop_after = None if confirmation else 2
    context, recorder = recorded_trial(
        tmp_path, stop_after=stop_after, confirmation=confirmation, loss=RECALL
    )
    config = SegformerConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], decoder_hidden_size=8,
        num_attention_heads=[1, 1, 1, 1], sr_ratios=[1, 1, 1, 1], num_labels=3,
    )  # fmt: skip
    model = SegformerForSemanticSegmentation(config)

    def data(seed: int) -> list[dict[str, Tensor]]:
        return [{"pixel_values": x, "labels": y} for x, y in zip(*drawn(seed), strict=True)]

    def metrics(found: Any) -> dict[str, float]:
        logits = nn.functional.interpolate(torch.tensor(found.predictions), size=(24, 32))
        return {"mean_iou": mean_iou(logits, torch.tensor(found.label_ids))}

    loss = context.build_loss()
    names = {"val/miou": "eval_mean_iou", "test/miou": "test_mean_iou"}
    trainer = Trainer(
        model,
        Arguments(
            output_dir=str(tmp_path / "out"), num_train_epochs=context.num_epochs,
            eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True,
            disable_tqdm=True, per_device_train_batch_size=4, logging_strategy="no",
        ),
        train_dataset=data(0),
        eval_dataset=data(1),
        compute_metrics=metrics,
        compute_loss_func=ComputeLoss(loss),
        callbacks=[StudyCallback(context, names)],
    )  # fmt: skip
    trainer.train()
    if confirmation:
        assert list(recorder.by_epoch) == [1, 2]
        trainer.evaluate(data(2), metric_key_prefix="test")
        assert "test/miou" in recorder.by_epoch[3]
    assert list(recorder.by_epoch) == ([1, 2, 3] if confirmation else [1, 2])
    assert round(trainer.state.epoch) == len(recorder.by_epoch)
    state = copy.deepcopy(loss.state_dict())
    trainer.evaluate()  # once more, which is no report, and leaves the loss as it is
    assert all(torch.equal(value, state[name]) for name, value in loss.state_dict().items())


# MMEngine


@pytest.mark.slow
@pytest.mark.parametrize("confirmation", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_mmengine(tmp_path: Path, confirmation: bool) -> None:
    pytest.importorskip(
        "mmengine", reason="needs the package mmengine: pip install -e '.[mmengine]'"
    )
    from mmengine.evaluator import BaseMetric
    from mmengine.model import BaseModel
    from mmengine.registry import MODELS
    from mmengine.runner import Runner

    from study.adapters.mmengine import DecodeLoss, StudyHook

    stop_after = None if confirmation else 2
    context, recorder = recorded_trial(tmp_path, stop_after=stop_after, confirmation=confirmation)
    MODELS.register_module("StudyLoss", module=DecodeLoss, force=True)
    loss_config = dict(type="StudyLoss", loss=context.build_loss())

    class Model(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.loss_decode = small_network(), MODELS.build(loss_config)

        def forward(self, images: Tensor, labels: Tensor, mode: str) -> Any:
            logits = self.network(images)
            if mode == "loss":  # as mmsegmentation's heads call it
                decode = self.loss_decode
                return {decode.loss_name: decode(logits, labels, weight=None, ignore_index=255)}
            return [{"iou": mean_iou(logits, labels)}]

    class Percent(BaseMetric):
        def process(self, data_batch: Any, data_samples: Any) -> None:
            self.results += [sample["iou"] for sample in data_samples]

        def compute_metrics(self, results: Any) -> dict[str, float]:
            return {"mIoU": 100 * float(np.mean(results))}

    hook = StudyHook(context, {"val/miou": "mIoU", "test/miou": "mIoU"})
    runner = Runner(
        Model(),
        str(tmp_path / "work"),
        train_dataloader=_loader(0),
        val_dataloader=_loader(1),
        test_dataloader=_loader(2),
        train_cfg=dict(by_epoch=True, max_epochs=context.num_epochs),
        val_cfg={},
        test_cfg={},
        val_evaluator=[Percent()],
        test_evaluator=[Percent()],
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.01)),
        custom_hooks=[hook],
        default_hooks=dict(checkpoint=None),
        log_level="ERROR",
        experiment_name=f"{tmp_path.name}",
    )
    runner.train()
    if confirmation:
        assert list(recorder.by_epoch) == [1, 2]
        runner.test()
        assert 0 < recorder.by_epoch[3]["test/miou"] < 1
    assert list(recorder.by_epoch) == ([1, 2, 3] if confirmation else [1, 2])
    assert runner.epoch == len(recorder.by_epoch)
    assert all(0 < found["val/miou"] < 1 for found in recorder.by_epoch.values())
    with pytest.raises(ValueError, match="no weights of pixels"):
        MODELS.build(loss_config)(
            torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
        )


# Ultralytics


def test_the_criterion_for_ultralytics(tmp_path: Path) -> None:
    from study.adapters.ultralytics import Criterion

    context, _ = recorded_trial(tmp_path, loss=RECALL)
    loss = context.build_loss()
    criterion = Criterion(loss)
    images, labels = drawn(0, 2)
    logits = small_network()(images)
    batch = {"semantic_mask": labels.int()}
    value, parts = criterion((logits, logits[..., ::2, ::2]), batch)
    (alone, _), again = criterion(logits, batch), criterion(logits, batch)[0]
    assert alone > 0 and parts["aux_loss"] > 0
    assert value > 2 * parts["loss"]
    with torch.no_grad():
        state = copy.deepcopy(loss.state_dict())
        criterion(-logits, batch)
    assert all(torch.equal(one, state[name]) for name, one in loss.state_dict().items())
    assert copy.deepcopy(SimpleNamespace(criterion=criterion)).criterion is criterion
    nothing, _ = criterion((logits, logits), {"semantic_mask": torch.full_like(labels, 255)})
    assert torch.isfinite(nothing) and again.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("confirmation", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_ultralytics(tmp_path: Path, confirmation: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    pytest.importorskip(
        "ultralytics", reason="needs the package ultralytics (AGPL-3.0), 8.4 or later"
    )
    from ultralytics import YOLO

    from study.adapters.ultralytics import StudyCallbacks

    for seed, split in enumerate(("train", "val", "test")):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        images, labels = drawn(seed, 4)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            pixels = (image.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(tmp_path / "images" / split / f"{index}.png")
            Image.fromarray(label.byte().numpy()).save(tmp_path / "masks" / split / f"{index}.png")
    data = tmp_path / "mine.yaml"
    tree = {split: f"images/{split}" for split in ("train", "val", "test")}
    names = dict(enumerate(NAMES))
    data.write_text(
        json.dumps({"path": str(tmp_path), "masks_dir": "masks", "names": names, **tree})
    )

    stop_after = None if confirmation else 1
    context, recorder = recorded_trial(
        tmp_path, epochs=2, stop_after=stop_after, confirmation=confirmation
    )
    model = YOLO("yolo26n-sem.yaml")
    study = StudyCallbacks(context, context.build_loss())
    study.add_to(model)
    model.train(
        data=str(data), epochs=context.num_epochs, imgsz=64, batch=2, device="cpu", workers=0,
        plots=False, amp=False, optimizer="AdamW", lr0=0.001, project=str(tmp_path / "runs"),
        verbose=False,
    )  # fmt: skip
    if confirmation:
        assert list(recorder.by_epoch) == [1]
        last = YOLO(model.trainer.last)
        found = last.val(
            data=str(data), split="test", device="cpu", workers=0, plots=False, imgsz=64
        )
        study.tested(found.results_dict)
        assert "test/miou" in recorder.by_epoch[2]
    assert list(recorder.by_epoch) == ([1, 2] if confirmation else [1])
    assert model.trainer.loss_names == ("loss", "aux_loss")
    assert context.echoes()
