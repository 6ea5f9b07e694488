"""The teachers of a study: tasks that it trains once, before the trials that learn from them.

A loss names its teacher as the space has it: a task, an export, or none for the study's own. The
config of a trial has it resolved: the file of its weights, their hash and its model. So a trial's
checkpoint is of one teacher, and its export needs the file of weights alone. A task that could not
be trained stays as it is, and the trials that need it fail by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from study.config.task import TaskConfig
from study.core.names import COMPLETED, TEACHER
from study.ledger.state import State
from study.losses.config import (
    ExportTeacher,
    FactoryLoss,
    LossConfig,
    TaskTeacher,
    Teacher,
    WeightsTeacher,
)

Stored = tuple[str, str]  # a file of weights, and its sha256


def _nothing_stored(trial: str) -> Stored | None:
    """Weights of no trial are stored."""
    return None


@dataclass(frozen=True)
class Teachers:
    """The teachers of a study.

    default: of losses that name none. tasks, exports: by what the space calls them; an export as
    its weights. stored: where the weights of a completed trial are, and their sha256.
    """

    default: Teacher | None = None
    tasks: Mapping[str, TaskConfig] = field(default_factory=dict)
    exports: Mapping[str, WeightsTeacher] = field(default_factory=dict)
    stored: Callable[[str], Stored | None] = field(default=_nothing_stored, compare=False)

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epoch reports of each task."""
        return tuple(task.num_epochs for task in self.tasks.values())

    def named(self, loss: LossConfig | FactoryLoss) -> LossConfig | FactoryLoss:
        """The loss with the study's own teacher, where it names none."""
        if isinstance(loss, FactoryLoss) or loss.distillation is None:
            return loss
        if loss.distillation.teacher is not None:
            return loss
        return loss.taught_by(self.default)

    def resolved(self, loss: LossConfig | FactoryLoss, state: State) -> LossConfig | FactoryLoss:
        """The loss as a trial trains with it."""
        loss = self.named(loss)
        if isinstance(loss, FactoryLoss) or loss.distillation is None:
            return loss
        match loss.distillation.teacher:
            case ExportTeacher(export=export):
                return loss.taught_by(self.exports[export])
            case TaskTeacher(task=task):
                return loss.taught_by(self._trained(task, state) or loss.distillation.teacher)
        return loss

    def placed(self, loss: Mapping[str, Any], state: State) -> dict[str, Any]:
        """A trial's loss, as the ledger has it, with the weights where they are now: a study's
        folder may have moved."""
        distillation = loss.get("distillation") or {}
        sha256 = (distillation.get("teacher") or {}).get("sha256")
        for task in self.tasks if sha256 else ():
            found = self._trained(task, state)
            if found is not None and found.sha256 == sha256:
                return {**loss, "distillation": {**distillation, "teacher": found.model_dump()}}
        return dict(loss)

    def _trained(self, task: str, state: State) -> WeightsTeacher | None:
        for trial in state.of_stage(TEACHER):
            if trial.label == task and trial.status == COMPLETED:
                stored = self.stored(trial.id)
                if stored is not None:
                    model = self.tasks[task].model.model_dump()
                    return WeightsTeacher(weights=stored[0], sha256=stored[1], model=model)
        return None

    def moved(self, tasks: Mapping[str, TaskConfig]) -> Teachers:
        """The same with other places of the tasks' data."""
        return replace(self, tasks=tasks)


NO_TEACHERS = Teachers()
