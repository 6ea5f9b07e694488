"""What every task has: a budget, and perhaps code that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from study.losses.config import Config


class EpochBudget(Config):
    """A budget in epochs; a trial reports after each."""

    epochs: int = Field(ge=1, le=10**6)


class StepBudget(Config):
    """A budget in optimiser steps; an epoch is then one of `reports` equal parts of it."""

    steps: int = Field(ge=1, le=10**9)
    reports: int = Field(ge=1, le=10**6)

    @model_validator(mode="after")
    def _a_report_has_a_step(self) -> StepBudget:
        if self.reports > self.steps:
            raise ValueError(
                f"reports must be <= steps, got {self.reports} reports and {self.steps} steps"
            )
        return self


class Budgeted(Config):
    """A task of any kind: equal terms for every loss, and a budget."""

    if TYPE_CHECKING:  # each kind declares it, at its own place among its keys
        budget: EpochBudget | StepBudget

    @property
    def num_epochs(self) -> int:
        """Epoch reports of a full budget."""
        return self.budget.epochs if isinstance(self.budget, EpochBudget) else self.budget.reports

    @property
    def factories(self) -> dict[str, str]:
        """The code that the task names, by its keys: factories, a function or a command."""
        return {}

    def stretched(self, factor: int) -> Self:
        """The task with so many times the budget; all else is equal."""
        values = {name: factor * number for name, number in self.budget}
        return self.model_copy(update={"budget": self.budget.model_copy(update=values)})
