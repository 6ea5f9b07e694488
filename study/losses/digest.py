"""A short name for a loss with its numbers: equal exactly where config, classes and counts are."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from study.losses.config import LossConfig, ManualWeights, MedianFrequency, NoClassWeights

if TYPE_CHECKING:
    from study.losses.class_weights import Counts

DIGITS = 16


def loss_digest(config: LossConfig, *, num_classes: int, class_counts: Counts | None = None) -> str:
    """The first 16 hex digits of the sha256 of the canonical JSON of a loss.

    Keys at their default do not enter, so that a later version that adds an axis gives the same
    digest. Counts enter where the class weights come from them: per image for `median_frequency`,
    else their sum, whatever their form.

    Raises:
        ValueError: for counts that do not fit the classes, or are missing though needed.
    """
    content = {
        "loss": config.model_dump(exclude_defaults=True),
        "class_counts": _counts(config, class_counts, num_classes),
        "num_classes": num_classes,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def reads_counts(config: LossConfig) -> bool:
    """Whether the class weights come from pixel counts."""
    return not isinstance(config.class_weights, NoClassWeights | ManualWeights)


def _counts(config: LossConfig, counts: Counts | None, num_classes: int) -> Any:
    if not reads_counts(config):
        return None
    if counts is None:
        raise ValueError(f"scheme {config.class_weights.scheme} needs class_counts")
    from study.losses.class_weights import read_counts

    table = read_counts(counts, num_classes)
    if table.ndim == 2 and not isinstance(config.class_weights, MedianFrequency):
        table = table.sum(0)
    return table.tolist()
