"""A search space over any tree, for problems that are no loss: those of the simulator.

The file has the grammar of a search space under keys of its own, and the same `study:` block, in
which objectives are any names. More is better; of a name with a minus before it, less is.

    learning_rate: {float: {low: 1.0e-4, high: 1.0, log: true}}
    optimizer: {choice: {sgd: {momentum: {float: {low: 0.5, high: 0.99}}}, adam: {}}}
    study: {objectives: [accuracy, -loss], num_trials: 64}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, Strict, field_validator

from study.config.shipped import SEARCH_SPACES, open_shipped
from study.config.task import Task, TrialOptimizer
from study.core.errors import InputError
from study.core.validation import validate
from study.losses.config import FactoryLoss, LossConfig
from study.space.grammar import Branch, compile_tree, searched
from study.space.search_space import (
    LOSS,
    OPTIMIZER,
    STUDY,
    Resolved,
    SearchSpace,
    check_settings,
    load_space,
)
from study.space.settings import Baseline, StudySettings

FAMILY = "searched"


class TreeSettings(StudySettings):
    """The `study:` block beside any tree: there is no cross entropy to tune, and no preset."""

    objectives: Annotated[tuple[str, ...], Strict(False)] = ("objective",)
    baselines: Annotated[tuple[Baseline, ...], Strict(False), Field(max_length=0)] = ()

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, objectives: tuple[str, ...]) -> tuple[str, ...]:
        if not objectives or len(set(objectives)) < len(objectives):
            raise InputError(f"objectives must be different names, got {list(objectives)}")
        return objectives

    @property
    def num_reference_trials(self) -> int:
        """None: there is no cross entropy."""
        return 0


@dataclass(frozen=True)
class ResolvedTree(Resolved):
    """What the params of a tree resolve to: the tree itself. The neutral loss stands in for one."""

    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: TrialOptimizer = field(default_factory=TrialOptimizer)
    tree: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The same for all: no tree is cross entropy."""
        return FAMILY

    @property
    def label(self) -> str:
        """The params in a few words."""
        named = ((path.rpartition("/")[2], value) for path, value in self.params.items())
        shown = (f"{name} {value:.3g}" if type(value) is float else f"{name} {value}"
                 for name, value in named)  # fmt: skip
        return ", ".join(shown)

    def of_trial(self, task: Task, seed: int) -> dict[str, Any]:
        """The tree beside task and seed."""
        return {"task": task.model_dump(), "config": dict(self.tree), "seed": seed}

    def model_dump(self) -> dict[str, Any]:
        """The tree."""
        return dict(self.tree)


@dataclass(frozen=True)
class TreeSpace(SearchSpace):
    """A search space whose params are no loss."""

    def resolve(self, params: Mapping[str, Any]) -> Resolved:
        """The tree of these params; a ValueError where they are not exactly the active ones."""
        tree, _ = self._assembled(params, {})
        return ResolvedTree(tree=tree, params=dict(params))

    def params_of(self, loss: LossConfig | FactoryLoss, optimizer: Any = None) -> None:
        """None: it holds no loss."""
        return None

    @property
    def num_reference_trials(self) -> int:
        """None: there is no cross entropy to tune."""
        return 0


def load_any(ref: str | Path | Mapping[str, Any]) -> SearchSpace:
    """The search space of a file, a shipped name or a mapping: of losses where it has `loss` or
    `optimizer` and `study` alone, else of any tree. InputError names file, line and key."""
    source, stem = open_shipped(SEARCH_SPACES, ref)
    if source.data.keys() <= {LOSS, OPTIMIZER, STUDY} and LOSS in source.data:
        return load_space(ref)
    file, lines = source.file, source.lines
    settings = validate(
        TreeSettings, source.data.get(STUDY, {}), file=file, lines=lines, root=STUDY
    )
    children = {
        key: compile_tree(value, key, file=file, lines=lines)
        for key, value in source.data.items()
        if key != STUDY
    }
    tree = Branch("", None, children)
    if not any(searched(tree)):
        raise InputError("nothing is searched: no value is a range or a choice", file=file)
    space = TreeSpace(stem, source.text, settings, tree, file=file, data=source.data, lines=lines)
    check_settings(space)
    return space
