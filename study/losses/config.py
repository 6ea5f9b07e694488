"""Typed, frozen loss configuration; the default of every axis is neutral.

With every default the loss is the mean cross entropy.

    >>> from study.losses import LossConfig
    >>> config = LossConfig.model_validate({"focal_gamma": 2.0, "pooling": {"kind": "ohem"}})
    >>> config.pooling.threshold, config.normalizer
    (0.7, 'valid')
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    field_validator,
)


class Config(BaseModel):
    """Base of every config: frozen, rejects unknown keys, never reads text as a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Everywhere(Config):
    """Neutral: smooths the label of every pixel."""

    kind: Literal["everywhere"] = "everywhere"


class Boundary(Config):
    """Smooths only pixels whose width x width window holds another class."""

    kind: Literal["boundary"]
    width: int = Field(3, ge=3, le=2**15, json_schema_extra={"not": {"multipleOf": 2}})

    @field_validator("width")
    @classmethod
    def check_width(cls, width: int) -> int:
        if width % 2 == 0:
            raise ValueError(f"width must be odd, got {width}")
        return width


SmoothingRegion = Annotated[Everywhere | Boundary, Field(discriminator="kind")]


class NoClassWeights(Config):
    """Neutral: every class has weight 1."""

    scheme: Literal["none"] = "none"


class InverseFrequency(Config):
    """a_c proportional to f_c ** -exponent; 0 is neutral, 1 is inverse frequency."""

    scheme: Literal["inverse_frequency"]
    exponent: float = Field(1.0, ge=0, le=1)


class MedianFrequency(Config):
    """a_c = median(F) / F_c, F_c = pixels of c over pixels of the images that contain c."""

    scheme: Literal["median_frequency"]


class EffectiveNumber(Config):
    """a_c = (1 - beta) / (1 - beta ** n_c) with beta = 1 - 1 / (kappa * N)."""

    scheme: Literal["effective_number"]
    kappa: float = Field(1.0, gt=0)


class Enet(Config):
    """a_c = 1 / ln(c + f_c)."""

    scheme: Literal["enet"]
    c: float = Field(1.02, gt=1)


class ManualWeights(Config):
    """The user's own weights, one per class, used unscaled."""

    scheme: Literal["manual"]
    weights: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Strict(False)]


ClassWeights = Annotated[
    NoClassWeights | InverseFrequency | MedianFrequency | EffectiveNumber | Enet | ManualWeights,
    Field(discriminator="scheme"),
]


class Recall(Config):
    """Recall weights 1 - R; ema_momentum is the weight of the past, 0 takes one batch's recall."""

    ema_momentum: float = Field(ge=0, lt=1)


class MeanPooling(Config):
    """Neutral: the mean over the valid pixels."""

    kind: Literal["mean"] = "mean"


class MaxPooling(Config):
    """Loss max-pooling: p of the p-norm ball of weights; least fraction of supported pixels."""

    model_config = ConfigDict(allow_inf_nan=True)
    kind: Literal["max"]
    p: float = Field(1.7, ge=1)
    ratio: float = Field(0.3, gt=0, le=1)


class Ohem(Config):
    """Online hard example mining: pixels below a probability, at least a fraction of all."""

    kind: Literal["ohem"]
    threshold: float = Field(0.7, ge=0, lt=1)
    min_kept: float = Field(0.1, gt=0, le=1)


Pooling = Annotated[MeanPooling | MaxPooling | Ohem, Field(discriminator="kind")]


class Jaccard(Config):
    """The Jaccard metric loss; mix is its weight in the whole loss, alpha weighs FP, beta FN."""

    mix: float = Field(0.0, ge=0, le=1)
    alpha: float = Field(1.0, ge=0)
    beta: float = Field(1.0, ge=0)
    smooth: float = Field(1.0e-3, ge=0)
    average: Literal["batch", "image", "class"] = "batch"
    classes: Literal["present", "all"] = "present"
    target: Literal["hard", "smoothed"] = "hard"


class ExportTeacher(Config):
    """An export of this package with its weights beside it: the path of its YAML file."""

    export: str = Field(min_length=1)


class TaskTeacher(Config):
    """A task, by file or shipped name, that a study trains once with cross entropy."""

    task: str = Field(min_length=1)


class FactoryTeacher(Config):
    """Anyone's network: `package.module:function(num_classes=C, **kwargs)` returns an nn.Module
    that maps the task's normalised images (B, 3, H, W) to logits (B, C, H, W)."""

    factory: str
    kwargs: dict[str, Any] = Field(default_factory=dict)


class WeightsTeacher(Config):
    """A file of weights of this package, its sha256, and the `model:` of a task that it fits: what
    a study makes of an export and of a task."""

    weights: str = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    model: dict[str, Any]


_KINDS = ("export", "task", "factory", "weights")


def _teacher_tag(value: Any) -> str | None:
    has = value.__contains__ if isinstance(value, dict) else lambda kind: hasattr(value, kind)
    return next((kind for kind in _KINDS if has(kind)), None)


Teacher = Annotated[
    Annotated[ExportTeacher, Tag("export")]
    | Annotated[TaskTeacher, Tag("task")]
    | Annotated[FactoryTeacher, Tag("factory")]
    | Annotated[WeightsTeacher, Tag("weights")],
    Discriminator(_teacher_tag),
]


class Distillation(Config):
    """A teacher's soft labels beside the true ones; see distillation.

    teacher: null takes the study's (`study/teacher`) or, outside of a study, the labels that the
    caller passes. mix: the weight of the soft part. labels: `cached` computes them once for the
    whole training images, `online` for each augmented batch; `auto` is cached where that takes at
    most 8 GiB.
    """

    teacher: Teacher | None = None
    temperature: float = Field(1.0, gt=0)
    mix: float = Field(0.5, gt=0, le=1)
    labels: Literal["auto", "cached", "online"] = "auto"


class LossConfig(Config):
    """The `loss:` tree of a trial; every default is neutral.

    label_smoothing     epsilon in [0, 1); see smoothing
    smoothing_region    pixels that it acts on: everywhere, or at class boundaries
    focal_gamma         g >= 0: factor (1 - q)^g of each pixel, differentiated through q, the
                        unweighted and unsmoothed softmax probability of its label; gradient 0 where
                        1 - q rounds to 0, also for g < 1. Lin et al., ICCV 2017, arXiv 1708.02002,
                        who use a sigmoid per class
    class_weights       a scheme; see class_weights
    recall              see recall; null disables it
    pooling             mean, max or ohem; see max_pooling, ohem
    normalizer          valid: the pixel term is a mean over the n valid pixels; weight: the weights
                        a * (1 - R) are scaled to average 1 over them, before focal and pooling, and
                        the term is 0 where all of them are 0
    jaccard             see jaccard
    distillation        see distillation; null disables it
    """

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    smoothing_region: SmoothingRegion = Everywhere()
    focal_gamma: float = Field(0.0, ge=0)
    class_weights: ClassWeights = NoClassWeights()
    recall: Recall | None = None
    pooling: Pooling = MeanPooling()
    normalizer: Literal["valid", "weight"] = "valid"
    jaccard: Jaccard = Jaccard()
    distillation: Distillation | None = None


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
