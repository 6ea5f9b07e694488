"""What an axis of the loss is: a part of its config, and its words for tables, files and people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of every config: frozen, rejects unknown keys, never reads text as a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Axis:
    """One name in the family of a loss. `LossConfig` lists all, each beside the key that it has.

    Every function takes a LossConfig.

    Attributes:
        name: in a family, such as ``max_pooling``.
        off: the keys of a LossConfig that switch it off, with their neutral values.
        is_on: whether it has an effect.
        words: its name in a sentence, and its paper.
        short: its name with its numbers, for tables; empty where it is not set.
        needs_counts: whether it takes the pixel counts of the classes.
        after: whether `short` comes after the others.
        under: the key that is named where the axis is refused, if not that of `off`.
        parts: its flags in `standalone.template`; without one `study.export --format python`
            refuses the axis.
        numbers: values for the template's parameters of the same names.
    """

    name: str
    off: Mapping[str, Any]
    is_on: Callable[[Any], bool]
    words: Callable[[Any], tuple[str, str]]
    short: Callable[[Any], str]
    needs_counts: Callable[[Any], bool] = lambda loss: False
    after: bool = False
    under: str = ""
    parts: tuple[str, ...] = ()
    numbers: Callable[[Any], Mapping[str, Any]] = lambda loss: {}

    @property
    def key(self) -> str:
        """The key of a LossConfig that is named where the axis is refused."""
        return self.under or next(iter(self.off))


def has_pixel_term(loss: Any) -> bool:
    """Whether the pixel term on the true labels, with all that acts on it, has a weight above 0."""
    return bool(loss.jaccard.mix < 1) and has_hard_part(loss)


def has_hard_part(loss: Any) -> bool:
    """Whether the true labels count beside those of a teacher."""
    return loss.distillation is None or bool(loss.distillation.mix < 1)
