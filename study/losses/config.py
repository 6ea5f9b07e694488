"""Typed, frozen loss configuration; the default of every axis is neutral.

With every default the loss is the mean cross entropy.

    >>> from study.losses import LossConfig
    >>> config = LossConfig.model_validate({"focal_gamma": 2.0, "pooling": {"kind": "ohem"}})
    >>> config.pooling.threshold, config.normalizer
    (0.7, 'valid')
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from study.losses.axis import Axis, Config
from study.losses.class_weights import (
    CLASS_WEIGHTS,
    ClassWeights,
    EffectiveNumber,
    Enet,
    InverseFrequency,
    ManualWeights,
    MedianFrequency,
    NoClassWeights,
)
from study.losses.distillation import (
    DISTILLATION,
    Distillation,
    ExportTeacher,
    FactoryTeacher,
    TaskTeacher,
    Teacher,
    WeightsTeacher,
)
from study.losses.focal import FOCAL
from study.losses.jaccard import JACCARD, Jaccard
from study.losses.label_smoothing import LABEL_SMOOTHING, Boundary, Everywhere, SmoothingRegion
from study.losses.logit_adjustment import LOGIT_ADJUSTMENT, LogitAdjustment
from study.losses.max_pooling import MaxPooling
from study.losses.ohem import Ohem
from study.losses.pooling import POOLING, MeanPooling, Pooling
from study.losses.recall import RECALL, Recall

__all__ = [
    "AXES",
    "AnyLoss",
    "Boundary",
    "ClassWeights",
    "Config",
    "Distillation",
    "EffectiveNumber",
    "Enet",
    "Everywhere",
    "ExportTeacher",
    "FactoryLoss",
    "FactoryTeacher",
    "InverseFrequency",
    "Jaccard",
    "LogitAdjustment",
    "LossConfig",
    "ManualWeights",
    "MaxPooling",
    "MeanPooling",
    "MedianFrequency",
    "NoClassWeights",
    "Ohem",
    "Pooling",
    "Recall",
    "SmoothingRegion",
    "TaskTeacher",
    "Teacher",
    "WeightsTeacher",
    "loss_tag",
]


class LossConfig(Config):
    """The `loss:` tree of a trial; every default is neutral. This is the list of the axes.

    label_smoothing     epsilon in [0, 1); see label_smoothing
    smoothing_region    pixels that it acts on: everywhere, or at class boundaries
    focal_gamma         g >= 0; see focal
    class_weights       a scheme; see class_weights
    recall              see recall; null disables it
    pooling             mean, max or ohem; see pooling, max_pooling, ohem
    normalizer          valid: the pixel term is a mean over the n valid pixels; weight: the weights
                        a * (1 - R) are scaled to average 1 over them, before focal and pooling, and
                        the term is 0 where all of them are 0
    jaccard             see jaccard
    logit_adjustment    tau >= 0; see logit_adjustment
    distillation        see distillation; null disables it
    """

    label_smoothing: Annotated[float, LABEL_SMOOTHING] = Field(0.0, ge=0, lt=1)
    smoothing_region: SmoothingRegion = Everywhere()
    focal_gamma: Annotated[float, FOCAL] = Field(0.0, ge=0)
    class_weights: Annotated[ClassWeights, CLASS_WEIGHTS] = NoClassWeights()
    recall: Annotated[Recall | None, RECALL] = None
    pooling: Annotated[Pooling, POOLING] = MeanPooling()
    normalizer: Literal["valid", "weight"] = "valid"
    jaccard: Annotated[Jaccard, JACCARD] = Jaccard()
    logit_adjustment: Annotated[LogitAdjustment, LOGIT_ADJUSTMENT] = LogitAdjustment()
    distillation: Annotated[Distillation | None, DISTILLATION] = None

    @property
    def teacher(self) -> Teacher | None:
        """The teacher that a distilled loss names."""
        return None if self.distillation is None else self.distillation.teacher

    def taught_by(self, teacher: Teacher | None) -> LossConfig:
        """A distilled loss with this teacher."""
        assert self.distillation is not None
        distillation = self.distillation.model_copy(update={"teacher": teacher})
        return self.model_copy(update={"distillation": distillation})


AXES: dict[str, Axis] = {
    axis.name: axis
    for one in LossConfig.model_fields.values()
    for found in one.metadata
    if isinstance(found, tuple)
    for axis in found
}
"""Every name that a family can have, in the order of the formula."""


class FactoryLoss(Config):
    """A loss of the user's own: `factory: package.module:function` and its kwargs; see own."""

    factory: str
    kwargs: dict[str, Any] = Field(default_factory=dict)


def loss_tag(value: Any) -> str:
    """`factory` for a loss of the user's own, else `tree`."""
    has = "factory" in value if isinstance(value, dict) else isinstance(value, FactoryLoss)
    return "factory" if has else "tree"


AnyLoss = Annotated[
    Annotated[LossConfig, Tag("tree")] | Annotated[FactoryLoss, Tag("factory")],
    Discriminator(loss_tag),
]
