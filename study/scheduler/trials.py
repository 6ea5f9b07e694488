"""From an action to the trial that it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from study.config.task import TaskConfig, TrialConfig
from study.core.names import BASELINE, CE, CONFIRM, REFERENCE, SEARCH
from study.ledger.plan import Plan
from study.ledger.records import TrialRecord
from study.ledger.state import State, Trial
from study.losses import PRESETS, LossConfig, family
from study.losses.describe import describe
from study.scheduler.retries import gpus_needed
from study.scheduler.stages import (
    Resume,
    RunBaseline,
    RunConfirm,
    RunReference,
    RunSearch,
)
from study.search.memory import Memory
from study.search.reference import reference_params
from study.search.sampler import propose
from study.space.search_space import SearchSpace


@dataclass(frozen=True)
class TrialFactory:
    """Makes the ledger lines of trials. `gpus`: what a trial gets in this session."""

    plan: Plan
    space: SearchSpace
    task: TaskConfig
    state: State
    gpus: float
    _memory: Memory = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_memory", Memory(self.plan, self.space, self.state))

    def record(
        self, action: Resume | RunBaseline | RunReference | RunSearch | RunConfirm
    ) -> TrialRecord:
        """The trial of an action, or a further attempt at it."""
        match action:
            case Resume(trial=trial_id):
                return self._again(self.state.trials[trial_id])
            case RunBaseline(name=name):
                loss = LossConfig.model_validate(PRESETS[name].config)
                tree = {"loss": PRESETS[name].config, "optimizer": {}}
                return self._new(BASELINE, name, loss, 1.0, self.space.params_of(tree))
            case RunReference(index=index):
                return self._reference(index)
            case RunSearch(number=number):
                return self._proposed(number)
            case RunConfirm(source=source, seed=seed):
                return self._confirmation(self.state.trials[source], seed)

    def _reference(self, index: int) -> TrialRecord:
        rank = self.plan.references_before(index)
        params = reference_params(self.space, rank, self.plan.reference_trials, self.plan.seed)
        tree = {"loss": {}, **self.space.resolve_optimizer(params)}
        scale = tree["optimizer"].get("lr_scale", 1.0)
        known = self.space.params_of(tree)
        return self._new(REFERENCE, f"ce lr x{scale:.2g}", LossConfig(), scale, known)

    def _proposed(self, number: int) -> TrialRecord:
        self._memory.update()
        params = propose(
            self.space,
            self._memory.history,
            seed=self.plan.seed,
            number=number,
            sampler=self.plan.sampler,
            used=self._memory.used,
            full=self.plan.epochs,
        )
        tree = self.space.resolve(params)
        loss = LossConfig.model_validate(tree["loss"])
        scale = tree["optimizer"].get("lr_scale", 1.0)
        neutral = family(loss) == CE
        label = f"ce lr x{scale:.2g}" if neutral else describe(loss)
        return self._new(REFERENCE if neutral else SEARCH, label, loss, scale, params)

    def _confirmation(self, source: Trial, seed: int) -> TrialRecord:
        return TrialRecord(
            trial=self._next_id(),
            number=len(self.state.trials),
            stage=CONFIRM,
            label=source.label,
            family=source.family,
            params=source.params,
            config={**self._here(source), "seed": seed},
            seed=seed,
            source=source.id,
            gpus=gpus_needed(source, self.gpus),
        )

    def _new(
        self,
        stage: str,
        label: str,
        loss: LossConfig,
        lr_scale: float,
        params: dict[str, Any] | None,
    ) -> TrialRecord:
        config = TrialConfig.model_validate(
            {
                "task": self.task.model_dump(),
                "loss": loss.model_dump(),
                "optimizer": {"lr_scale": lr_scale},
                "seed": self.plan.seed,
            }
        )
        return TrialRecord(
            trial=self._next_id(),
            number=len(self.state.trials),
            stage=stage,
            label=label,
            family=family(loss),
            params=params,
            config=config.model_dump(),
            seed=self.plan.seed,
            gpus=self.gpus,
        )

    def _again(self, trial: Trial) -> TrialRecord:
        return TrialRecord(
            trial=trial.id,
            number=trial.number,
            stage=trial.stage,
            label=trial.label,
            family=trial.family,
            params=trial.params,
            config=self._here(trial),
            seed=trial.seed,
            attempt=trial.attempt + 1,
            source=trial.source,
            gpus=gpus_needed(trial, self.gpus),
        )

    def _next_id(self) -> str:
        return f"t{len(self.state.trials):04d}"

    def _here(self, trial: Trial) -> dict[str, Any]:
        """The trial's config with the task of this session: its data may have moved."""
        return {**trial.config, "task": self.task.model_dump()}
