"""The decision rule that an export of a study carries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator

from study.core.yaml_file import read_yaml, validate
from study.metrics.decision import Decision, log_prior

DECISION = "decision"  # the key in an export
ARGMAX = Decision((), 0.0)
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tau: Finite
    log_prior: Annotated[tuple[Finite, ...], Strict(False)]

    @field_validator("log_prior")
    @classmethod
    def _has_a_class(cls, prior: tuple[float, ...]) -> tuple[float, ...]:
        if not prior:
            raise ValueError("log_prior must have a number for each class, got an empty list")
        return prior


class _Export(BaseModel):
    """What is read of an export; its other keys are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    decision: _Rule


def decision_block(tau: float, class_counts: ArrayLike) -> dict[str, Any]:
    """The block of an export, for training pixels (C,) of each class."""
    return {DECISION: {"tau": tau, "log_prior": log_prior(class_counts).tolist()}}


def build_decision(export: str | Path | Mapping[str, Any]) -> Decision:
    """The decision rule of an export: argmax_c(z_c - tau log pi_c), from logits to classes.

    Args:
        export: the path of an export, such as ``exports/best_miou.yaml``, or what
            `yaml.safe_load` makes of it.

    Returns:
        The rule, for logits (B, C, ...) or (C, H, W) of torch or numpy. An export of an earlier
        version may have no rule; then it is the argmax.

    Raises:
        InputError: if the file cannot be read, or its block `decision` is malformed.

    Examples:
        >>> import numpy as np
        >>> from study.metrics import build_decision
        >>> decision = build_decision({"decision": {"tau": 0.5, "log_prior": [-0.1, -2.3]}})
        >>> decision(np.array([[1.0, 0.8]]))  # one pixel: (N, C)
        array([1])
        >>> build_decision({"loss": {}})(np.array([[1.0, 0.8]]))
        array([0])
    """
    if isinstance(export, Mapping):
        tree, file, lines = dict(export), None, None
    else:
        read = read_yaml(export)
        tree, file, lines = read.data, read.file, read.lines
    if DECISION not in tree:
        return ARGMAX
    rule = validate(_Export, tree, file=file, lines=lines).decision
    return Decision(rule.log_prior, rule.tau)
