"""The numbers of an epoch, as a training of the user's own reports them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real

import numpy as np
import torch

from study.analysis.evidence import pack
from study.core.errors import InputError
from study.core.names import TEST, VAL, is_fraction
from study.metrics import SegmentationMetrics
from study.metrics.evidence import evidence_of

SPLITS = (VAL, TEST)
Values = Mapping[str, float | SegmentationMetrics]


def measured(values: Values, *, last: bool) -> tuple[dict[str, float], bytes | None]:
    """The numbers of an epoch, with those of SegmentationMetrics spelt out; at the last epoch of a
    confirmation also the evidence that statistics are computed from."""
    numbers: dict[str, float] = {}
    splits: dict[str, SegmentationMetrics] = {}
    for name, value in values.items():
        if isinstance(value, SegmentationMetrics):
            if name not in SPLITS:
                raise InputError(f"metrics must be those of {' or '.join(SPLITS)}, got {name!r}")
            splits[name] = value
        else:
            numbers[name] = _number(name, value)
    rules = splits[VAL].taus() if VAL in splits else None
    for name in (split for split in SPLITS if split in splits):
        found = splits[name].compute(rules if name != VAL else None)
        numbers |= {f"{name}/{key}": value for key, value in found.items()}
    if not last or not splits:
        return numbers, None
    first = next(iter(splits.values()))
    return numbers, pack(first.class_names, {n: evidence_of(m, rules) for n, m in splits.items()})


def _number(name: object, value: object) -> float:
    if not isinstance(name, str) or not name:
        raise InputError(f"the name of a metric must be text, got {name!r}")
    if isinstance(value, torch.Tensor | np.ndarray) and value.size and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{name} must be a number, got {value!r:.100}")
    number = float(value)
    if is_fraction(name) and math.isfinite(number) and not 0 <= number <= 1:
        hint = f"report {number / 100:g}" if 1 < number <= 100 else ""
        raise InputError(f"{name} must be in 0..1, got {number:g}", hint=hint)
    return number
