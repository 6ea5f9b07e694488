"""Distillation: a teacher's probabilities as soft labels beside the true ones.

    L      = (1 - mix) * L_hard + mix * L_soft
    L_soft = (1 - j) * T^2 * mean_p KL(t_T || s_T) + j * Jaccard(softmax z, t)

over the valid pixels p, with z the student's logits (adjusted, where they are), t (B, C, H, W) the
teacher's probabilities, s_T = softmax(z / T), t_T proportional to t^(1/T), and j the Jaccard term's
own mix. L_hard is the whole loss of the other axes on the true labels; label smoothing, focal
factor, class weights, recall and pooling act there alone. The Jaccard term of L_soft has the alpha,
beta, smooth, power, average and classes of that of L_hard, and compares the probabilities
themselves, at temperature 1. Pixels that the true labels ignore are ignored by both parts.

mix in (0, 1]; temperature T > 0. T^2 keeps the size of the gradient as T grows: the derivative of
the KL divergence by z shrinks with 1 / T^2. No gradient reaches the teacher.

Neutral: `distillation: null`.

Normaliser: n valid pixels (KL); active classes (Jaccard).

Sources: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv
1503.02531 (T^2 KL); Wang, Ning, Blaschko, NeurIPS 2023, arXiv 2302.05666 (the Jaccard term on soft
labels; both halves with weight 1/2, T = 1).

Differs: the paper's code lets the cross entropy part weigh 0.25 and the Jaccard term 0.75 in both
halves, as the preset `jml_kd` does; here each is free.

Examples:
    >>> import torch
    >>> from study.losses.distillation import softened
    >>> labels = torch.tensor([0.9, 0.1]).reshape(1, 2, 1)
    >>> [round(value, 3) for value in softened(labels, 2.0).flatten().tolist()]
    [0.75, 0.25]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from study.core.errors import shown
from study.losses.axis import Axis, Config

if TYPE_CHECKING:
    from torch import Tensor


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


def _kind(value: Any) -> str | None:
    has = value.__contains__ if isinstance(value, dict) else lambda kind: hasattr(value, kind)
    return next((kind for kind in _KINDS if has(kind)), None)


def _has_kind(value: Any) -> Any:
    if isinstance(value, (dict, Config)) and _kind(value) is not None:
        return value
    kinds = "{export: FILE.yaml}, {task: NAME} or {factory: package.module:function}"
    raise ValueError(f"a teacher must be {kinds}, got {shown(value)}")


Teacher = Annotated[
    Annotated[ExportTeacher, Tag("export")]
    | Annotated[TaskTeacher, Tag("task")]
    | Annotated[FactoryTeacher, Tag("factory")]
    | Annotated[WeightsTeacher, Tag("weights")],
    Discriminator(_kind),
    BeforeValidator(_has_kind),
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


def _short(config: Distillation | None) -> str:
    if config is None:
        return ""
    at = f" at T {config.temperature:.2g}" if config.temperature != 1 else ""
    return f"distilled {config.mix:.2g}{at}"


DISTILLATION = (
    Axis(
        name="distillation",
        off={"distillation": None},
        is_on=lambda loss: loss.distillation is not None,
        words=lambda loss: ("distillation from a teacher", "Hinton et al. 2015, arXiv 1503.02531"),
        short=lambda loss: _short(loss.distillation),
        after=True,
    ),
)


def softened(probability: Tensor, temperature: float) -> Tensor:
    """t^(1/T), normalised over the classes: softmax(z / T) of the logits z of softmax(z) = t.

    probability: (B, C, ...) float in [0, 1]; a 0 counts as the smallest normal number.
    """
    if temperature == 1:
        return probability
    from torch import finfo

    tiny = finfo(probability.dtype).tiny
    return (probability.clamp(min=tiny).log() / temperature).softmax(1)


def mean_entropy(probability: Tensor, keep: Tensor) -> Tensor:
    """mean_p sum_c -t_p[c] log t_p[c] over the kept pixels, 0-dim; 0 if there is none: by so much
    the cross entropy of soft labels t exceeds KL(t || s).

    probability: (B, C, ...). keep: (B, ...) bool.
    """
    entropy = -probability.xlogy(probability).sum(1)
    return entropy.where(keep, 0).sum() / keep.sum().clamp(min=1)
