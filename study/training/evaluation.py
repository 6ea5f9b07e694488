"""One pass over a split: metrics at the argmax and at the decision rules, and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from study.config.task import Evaluation
from study.core.names import TUNED, TUNED_MACC, VAL
from study.metrics import SegmentationMetrics
from study.metrics.counts import named_metrics
from study.metrics.evidence import SplitEvidence
from study.training.batches import Batches
from study.training.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from study.data import SegmentationData, Split


@dataclass(frozen=True)
class Evidence:
    """What a trial's statistics are computed from, by split: `val` and perhaps `test`."""

    class_names: tuple[str, ...]
    splits: Mapping[str, SplitEvidence]


def measured_names(data: SegmentationData, evaluation: Evaluation) -> list[str]:
    """What every evaluation on val reports that is in 0..1 and better when larger.

    Raises:
        InputError: if a group of the task does not fit the data.
    """
    members = evaluation.members(data.class_names, np.sum(data.train.class_counts, axis=0))
    groups = {group: [data.class_names.index(n) for n in names] for group, names in members.items()}
    hits = np.asarray(data.val.class_counts)
    counts = np.stack([hits, np.zeros_like(hits), np.zeros_like(hits)], axis=1)
    found = named_metrics(counts, data.class_names, groups)
    names = [name for name, value in found.items() if np.isfinite(value)]
    return [f"{VAL}/{rule}{name}" for rule in ("", f"{TUNED}/", f"{TUNED_MACC}/") for name in names]


def evaluate(
    model: nn.Module,
    data: SegmentationData,
    split: Split,
    batches: Batches,
    *,
    batch_size: int,
    evaluation: Evaluation,
    calibration: bool,
    on_step: Callable[[], object],
    ranks: Ranks = ALONE,
) -> SegmentationMetrics:
    """Measure `model` on every image of `split`, at its own size and without augmentation.

    Accumulates on the device without waiting for it. Leaves the model in eval mode. `on_step`
    is called after each batch. Each of several ranks takes its share of the images.
    """
    class_counts = np.sum(data.train.class_counts, axis=0)
    metrics = SegmentationMetrics(
        data.num_classes,
        ignore_index=data.ignore_index,
        class_names=data.class_names,
        class_counts=class_counts,
        groups=evaluation.members(data.class_names, class_counts),
        calibration=calibration,
    )
    model.eval()
    share = ranks.share(len(split.images))
    with torch.inference_mode():
        for images, target in batches.evaluation(split, batch_size, share):
            with batches.autocast():
                logits = model(images)
            metrics.update(logits, target)
            on_step()
    ranks.sync(metrics)
    return metrics
