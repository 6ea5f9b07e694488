"""A loss in full words, with the papers of its parts."""

from __future__ import annotations

from typing import Any

from study.core.names import CE
from study.losses.config import (
    EffectiveNumber,
    Enet,
    FactoryLoss,
    InverseFrequency,
    LossConfig,
    MedianFrequency,
)
from study.losses.family import family
from study.losses.presets import PRESETS

CROSS_ENTROPY = "cross entropy"
CLASS_WEIGHTS = "class weights"
AXES = {
    "label_smoothing": ("label smoothing", "Szegedy et al., CVPR 2016, arXiv 1512.00567"),
    "boundary_smoothing": (
        "label smoothing at class boundaries",
        "Wang et al., NeurIPS 2023, arXiv 2302.05666",
    ),
    "focal": ("the focal factor", "Lin et al., ICCV 2017, arXiv 1708.02002"),
    "recall": ("recall weights", "Tian et al., ICRA 2022, arXiv 2106.14917"),
    "max_pooling": ("loss max-pooling", "Rota Bulo et al., CVPR 2017, arXiv 1704.02966"),
    "ohem": ("online hard example mining", "Shrivastava et al., CVPR 2016, arXiv 1604.03540"),
    "jaccard": ("the Jaccard metric loss", "Wang et al., NeurIPS 2023, arXiv 2302.05666"),
    "distillation": ("distillation from a teacher", "Hinton et al. 2015, arXiv 1503.02531"),
}
SCHEMES = {
    InverseFrequency: ("class weights by inverse frequency", ""),
    MedianFrequency: (
        "median frequency balancing of the classes",
        "Eigen & Fergus, ICCV 2015, arXiv 1411.4734",
    ),
    EffectiveNumber: (
        "class weights by effective numbers",
        "Cui et al., CVPR 2019, arXiv 1901.05555",
    ),
    Enet: ("ENet's class weights", "Paszke et al. 2016, arXiv 1606.02147"),
}


def spelt(loss: LossConfig | FactoryLoss) -> str:
    """A loss in full words with its papers; a preset by its name, too.

    >>> spelt(LossConfig(focal_gamma=2.0))
    'cross entropy with the focal factor (Lin et al., ICCV 2017, arXiv 1708.02002)'
    """
    if isinstance(loss, FactoryLoss):
        return f"the user's own loss {loss.factory}"
    axes = family(loss)
    if axes == CE:
        return CROSS_ENTROPY
    preset = next((p for p in PRESETS.values() if _config(p.config) == _from_any(loss)), None)
    parts = [_named(axis, loss) for axis in axes.split("+")]
    told = [name if preset or not paper else f"{name} ({paper})" for name, paper in parts]
    if loss.jaccard.mix < 1:
        told[0] = f"{CROSS_ENTROPY} with {told[0]}"
    text = " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)
    return f"{text}, the preset {preset.name} ({preset.source})" if preset else text


def papers(loss: LossConfig) -> list[str]:
    """The papers of a loss's parts, each as `the part: the paper`."""
    axes = family(loss)
    parts = [] if axes == CE else [_named(axis, loss) for axis in axes.split("+")]
    return [f"{name}: {paper}" for name, paper in parts if paper]


def _named(axis: str, loss: LossConfig) -> tuple[str, str]:
    if axis == "class_weights":
        return SCHEMES.get(type(loss.class_weights), ("given class weights", ""))
    return AXES[axis]


def _from_any(loss: LossConfig) -> LossConfig:
    """The loss without the name of its teacher, as a preset has it."""
    if loss.distillation is None:
        return loss
    distillation = loss.distillation.model_copy(update={"teacher": None, "labels": "auto"})
    return loss.model_copy(update={"distillation": distillation})


def _config(tree: dict[str, Any]) -> LossConfig:
    return LossConfig.model_validate(tree)
