"""Which training a checkpoint belongs to: a digest of its resolved config and its data.

A checkpoint is good for as long as its config means the same training. So a key that a later
version adds enters the digest only where its value is not the key's default, which has to leave
the training as it was. Nothing has to be done for it here.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from study.config.task import TrialConfig

# The keys of the first digests (commit de798f6), which enter at every value. Add none: a digest
# that gains a key is another one. A class or a key that is renamed is renamed here, too; the key
# keeps the name that it has in the digest behind "=", as in "present=first".
FIRST_KEYS = {
    "TrialConfig": "task loss optimizer seed",
    "TaskConfig": "data augment model optimizer lr_schedule batch_size budget evaluation precision"
    " deterministic",
    "Augment": "flip scale crop jitter",
    "SmpModel": "arch encoder encoder_weights kwargs",
    "FactoryModel": "factory kwargs",
    "Adamw": "lr encoder_lr_scale clip_norm name weight_decay",
    "Sgd": "lr encoder_lr_scale clip_norm name weight_decay momentum nesterov",
    "LrSchedule": "name power warmup",
    "EpochBudget": "epochs",
    "StepBudget": "steps reports",
    "Evaluation": "every",
    "LossConfig": "label_smoothing smoothing_region focal_gamma class_weights recall pooling"
    " normalizer jaccard",
    "Everywhere": "kind",
    "Boundary": "kind width",
    "NoClassWeights": "scheme",
    "InverseFrequency": "scheme exponent",
    "MedianFrequency": "scheme",
    "EffectiveNumber": "scheme kappa",
    "Enet": "scheme c",
    "ManualWeights": "scheme weights",
    "Recall": "ema_momentum",
    "MeanPooling": "kind",
    "MaxPooling": "kind p ratio",
    "Ohem": "kind threshold min_kept",
    "Jaccard": "mix alpha beta smooth average classes target",
    "TrialOptimizer": "lr_scale",
}


def digest(config: TrialConfig, fingerprint: str, teacher: str = "") -> str:
    """Identity of a training: its resolved config, and its data and teacher by content, not by
    place. teacher: the hash of its weights, if there is one."""
    content = _content(config)
    content["task"]["data"] = fingerprint
    if teacher:
        content["loss"]["distillation"]["teacher"] = teacher
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def first_keys(model: type[BaseModel]) -> dict[str, str]:
    """The keys of a config that always enter, by their present names; none for a later class."""
    for base in model.__mro__:
        if base.__name__ in FIRST_KEYS:
            pairs = [item.split("=") for item in FIRST_KEYS[base.__name__].split()]
            return {pair[0]: pair[-1] for pair in pairs}
    return {}


def _content(config: BaseModel) -> dict[str, Any]:
    fields = type(config).model_fields
    first = first_keys(type(config))
    content = {}
    for key, dumped in config.model_dump(mode="json").items():
        value = getattr(config, key)
        if key in first:
            content[first[key]] = _content(value) if isinstance(value, BaseModel) else dumped
        elif value != _default(fields[key]) or (not first and _is_tag(fields[key])):
            content[key] = _later(value, dumped)
    return content


def _later(value: Any, dumped: Any) -> Any:
    """The value of a later key, which may hold configs that will have more keys one day."""
    if isinstance(value, BaseModel):
        return _content(value)
    if isinstance(value, (list, tuple)):
        return [_later(*item) for item in zip(value, dumped, strict=True)]
    if isinstance(value, dict):
        pairs = zip(value.values(), dumped.items(), strict=True)
        return {key: _later(item, plain) for item, (key, plain) in pairs}
    return dumped


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _is_tag(field: FieldInfo) -> bool:
    """Whether the key can hold one value only, by which the configs of a union are told apart."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
