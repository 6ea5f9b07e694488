"""Writes standalone losses, imports them and holds them to the losses of the package."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from losses.variants import batch
from torch import Tensor

from study.losses import LossConfig, SegmentationLoss, build_loss
from study.losses.standalone.source import StandaloneLoss, loss_source

NUM_CLASSES = 4
COUNTS = [[900, 90, 10, 0], [500, 0, 40, 0]]
STEPS = 5
# Relative to the L2 norm, over all that was seen: at most 5e-7 and 4e-14 (docs/log.md). A sharp
# loss max-pooling raises losses to the power 1 / (p - 1), and their rounding errors with it.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
_numbers = itertools.count()


def standalone(config: Mapping[str, Any] | LossConfig, **more: Any) -> StandaloneLoss:
    given = {"num_classes": NUM_CLASSES, "class_counts": COUNTS, **more}
    return StandaloneLoss(LossConfig.model_validate(config), **given)


def imported(text: str, folder: Path) -> ModuleType:
    """The module of a file with this text."""
    path = folder / f"standalone_{next(_numbers)}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steps(dtype: torch.dtype, shape: tuple[int, int, int] = (2, 6, 5)) -> list[Any]:
    """Batches of four classes, one of which never occurs: the third all ignored, ignored logits of
    the fourth NaN."""
    found = [batch(seed, shape, dtype) for seed in range(STEPS)]
    found[2] = (found[2][0], torch.full_like(found[2][1], 255))
    logits, labels = found[3]
    nan = torch.where((labels == 255)[:, None], torch.nan, logits.detach())
    found[3] = (nan.requires_grad_(), labels)
    return found


def run(loss: torch.nn.Module, batches: list[Any]) -> list[tuple[Tensor, Tensor]]:
    """Value and gradient of each step, of which the last is in eval mode."""
    found = []
    for number, (logits, labels) in enumerate(batches):
        loss.train(number < len(batches) - 1)
        value = loss(logits, labels)
        (gradient,) = torch.autograd.grad(value, logits)
        found.append((value.detach(), gradient))
    return found


def of_package(loss: StandaloneLoss) -> SegmentationLoss:
    return build_loss(loss.config, num_classes=loss.num_classes, class_counts=loss.class_counts)


def check_equal(
    loss: StandaloneLoss, folder: Path, shape: tuple[int, int, int] = (2, 6, 5)
) -> None:
    """Values, gradients and the recall of all steps are those of the package's loss."""
    module = imported(loss_source(loss), folder)
    for dtype, tolerance in TOLERANCE.items():
        batches, ours, theirs = steps(dtype, shape), of_package(loss), module.Loss()
        pairs = zip(run(ours, batches), run(theirs, batches), strict=True)
        for number, ((value, gradient), (other_value, other_gradient)) in enumerate(pairs):
            more = _sharpness(loss.config)
            assert _apart(other_value, value) <= tolerance * more, (number, loss.config)
            assert _apart(other_gradient, gradient) <= tolerance * more, (number, loss.config)
        if ours.recall is not None and hasattr(theirs, "recall"):
            assert torch.equal(theirs.recall, ours.recall.value)
            assert torch.equal(theirs.seen, ours.recall.seen)


def _apart(found: Tensor, expected: Tensor) -> float:
    assert found.dtype == expected.dtype
    norm = float(torch.linalg.vector_norm(expected))
    difference = float(torch.linalg.vector_norm(found - expected))
    return difference / norm if norm else difference


def _sharpness(config: LossConfig) -> float:
    p = getattr(config.pooling, "p", float("inf"))
    return max(1.0, 0.2 / (p - 1)) if p > 1 else 1.0
