"""A loss in full words, with the papers of its parts."""

from __future__ import annotations

from typing import Any

from study.losses.config import FactoryLoss, LossConfig
from study.losses.family import active
from study.losses.presets import PRESETS

CROSS_ENTROPY = "cross entropy"


def spelt(loss: LossConfig | FactoryLoss) -> str:
    """A loss in full words with its papers; a preset by its name, too.

    >>> from study.losses import LossConfig
    >>> from study.losses.spelt import spelt
    >>> spelt(LossConfig(focal_gamma=2.0))
    'cross entropy with the focal factor (Lin et al., ICCV 2017, arXiv 1708.02002)'
    """
    if isinstance(loss, FactoryLoss):
        return f"the user's own loss {loss.factory}"
    parts = [axis.words(loss) for axis in active(loss)]
    if not parts:
        return CROSS_ENTROPY
    preset = next((p for p in PRESETS.values() if _config(p.config) == _from_any(loss)), None)
    told = [name if preset or not paper else f"{name} ({paper})" for name, paper in parts]
    if loss.jaccard.mix < 1:
        told[0] = f"{CROSS_ENTROPY} with {told[0]}"
    text = " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)
    return f"{text}, the preset {preset.name} ({preset.source})" if preset else text


def papers(loss: LossConfig) -> list[str]:
    """The papers of a loss's parts, each as `the part: the paper`."""
    told = [axis.words(loss) for axis in active(loss)]
    return [f"{name}: {paper}" for name, paper in told if paper]


def _from_any(loss: LossConfig) -> LossConfig:
    """The loss without the name of its teacher, as a preset has it."""
    if loss.distillation is None:
        return loss
    distillation = loss.distillation.model_copy(update={"teacher": None, "labels": "auto"})
    return loss.model_copy(update={"distillation": distillation})


def _config(tree: dict[str, Any]) -> LossConfig:
    return LossConfig.model_validate(tree)
