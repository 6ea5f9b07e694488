"""Makes the trial that an action starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from study.analysis.ablation import in_words, without
from study.analysis.tuning import tried
from study.config.task import Task, TrialConfig
from study.core.names import BASELINE, CE, CONFIRM, REFERENCE, SEARCH, TEACHER
from study.ledger.plan import Plan
from study.ledger.records import SearchEndRecord, TrialRecord
from study.ledger.state import State, Trial
from study.losses import LossConfig, family
from study.scheduler.retries import gpus_needed
from study.scheduler.stages import (
    Resume,
    RunBaseline,
    RunConfirm,
    RunReference,
    RunSearch,
    RunTeacher,
)
from study.scheduler.teachers import NO_TEACHERS, Teachers
from study.search.gain import expected_gains
from study.search.memory import Memory
from study.search.reference import reference_params
from study.search.sampler import propose
from study.space.search_space import Resolved, SearchSpace


@dataclass(frozen=True)
class TrialFactory:
    """Makes the ledger lines of trials. `gpus`: what each gets in this session. `target`: what
    confirmations train, if not `task`. `teachers`: of distilled losses."""

    plan: Plan
    space: SearchSpace
    task: Task
    state: State
    gpus: float
    target: Task | None = None
    teachers: Teachers = NO_TEACHERS
    _memory: Memory = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_memory", Memory(self.plan, self.space, self.state))

    def record(
        self,
        action: Resume | RunTeacher | RunBaseline | RunReference | RunSearch | RunConfirm,
    ) -> TrialRecord:
        """The line of the new trial that an action starts, or of a further attempt at a trial."""
        match action:
            case Resume(trial=trial_id):
                return self._again(self.state.trials[trial_id])
            case RunTeacher(task=task):
                trained = self.teachers.tasks[task]
                config = TrialConfig(task=trained, loss=LossConfig(), seed=self.plan.seed)
                return self._new(TEACHER, task, CE, config.model_dump(), None)
            case RunBaseline(name=name):
                loss = self.space.settings.baseline_loss(name)
                params = self.space.params_of(loss)
                # pydantic takes instances as they are: each was checked when it was made
                config = TrialConfig(task=self.task, loss=loss, seed=self.plan.seed)
                return self._new(BASELINE, name, family(loss), config.model_dump(), params)
            case RunReference(index=index):
                return self._reference(index)
            case RunSearch(number=number):
                return self._proposed(number)
            case RunConfirm(source=source, ablated=""):
                return self._confirmation(self.state.trials[source], action)
            case RunConfirm(source=source):
                return self._ablation(self.state.trials[source], action)

    def _reference(self, index: int) -> TrialRecord:
        rank, count = self.plan.references_before(index), self.plan.reference_trials
        params = reference_params(self.space, tried(self.state), rank, count)
        config = self.space.reference.resolve(params)
        known = self.space.params_of(config.loss, config.optimizer)
        return self._resolved(REFERENCE, _ce_label(config), config, known)

    def search_end(self) -> SearchEndRecord | None:
        """The line that ends the search, where the plan has it so; None while it goes on."""
        if not self.plan.stop_gain:
            return None
        self._memory.update()
        begun = self.state.count(SEARCH, REFERENCE)
        gains = expected_gains(
            self._memory.history,
            epochs=self.plan.epochs,
            top=max(1, self.plan.confirm_top),
            salt=(self.plan.seed, begun),
        )
        if not gains or 100 * max(g.expected for g in gains) >= self.plan.stop_gain:
            return None
        named = dict(zip(self.plan.objectives, gains, strict=True))
        return SearchEndRecord(
            begun,
            {key: 100 * gain.expected for key, gain in named.items()},
            {key: 100 * gain.likely for key, gain in named.items()},
        )

    def _proposed(self, number: int) -> TrialRecord:
        self._memory.update()
        proposal = propose(
            self.space,
            self._memory.history,
            seed=self.plan.seed,
            number=number,
            sampler=self.plan.sampler,
            prior=self._memory.prior,
        )
        config = proposal.config
        if config.family == CE:
            made = self._resolved(REFERENCE, _ce_label(config), config, proposal.params)
        else:
            made = self._resolved(SEARCH, config.label, config, proposal.params)
        return replace(made, proposed_by=proposal.by)

    def _confirmation(self, source: Trial, action: RunConfirm) -> TrialRecord:
        seed, budget = action.seed, action.budget
        return TrialRecord(
            trial=self._next_id(),
            number=len(self.state.trials),
            stage=CONFIRM,
            label=source.label if budget == 1 else f"{source.label}, {budget}x budget",
            family=source.family,
            params=source.params,
            config={**self._here(source, CONFIRM, budget), "seed": seed},
            seed=seed,
            source=source.id,
            gpus=gpus_needed(source, self.gpus),
            budget=budget,
            on_target=self.target is not None,
        )

    def _ablation(self, source: Trial, action: RunConfirm) -> TrialRecord:
        loss, optimizer = without(source.config, action.ablated)
        whole = self._confirmation(source, action)
        parts = {"loss": loss.model_dump(), "optimizer": optimizer.model_dump()}
        return replace(
            whole,
            label=f"{whole.label}, without {in_words(action.ablated)}",
            family=family(loss),
            params=self.space.params_of(loss, optimizer),
            config={**whole.config, **parts},
            ablated=action.ablated,
        )

    def _resolved(
        self, stage: str, label: str, config: Resolved, params: dict[str, Any] | None
    ) -> TrialRecord:
        tree = config.of_trial(self.task, self.plan.seed)
        return self._new(stage, label, config.family, tree, params)

    def _new(
        self,
        stage: str,
        label: str,
        family: str,
        config: dict[str, Any],
        params: dict[str, Any] | None,
    ) -> TrialRecord:
        config = self._with_teacher(config)
        return TrialRecord(
            trial=self._next_id(),
            number=len(self.state.trials),
            stage=stage,
            label=label,
            family=family,
            params=params,
            config=config,
            seed=self.plan.seed,
            gpus=self.gpus,
        )

    def _with_teacher(self, config: dict[str, Any]) -> dict[str, Any]:
        """The config of a trial; a distilled loss has the teacher that it names, with its
        weights."""
        tree = config.get("loss")
        if not isinstance(tree, Mapping) or not tree.get("distillation"):
            return config
        loss = self.teachers.resolved(LossConfig.model_validate(tree), self.state)
        return {**config, "loss": loss.model_dump()}

    def _again(self, trial: Trial) -> TrialRecord:
        return TrialRecord(
            trial=trial.id,
            number=trial.number,
            stage=trial.stage,
            label=trial.label,
            family=trial.family,
            params=trial.params,
            config=self._here(trial, trial.stage, trial.budget),
            seed=trial.seed,
            attempt=trial.attempt + 1,
            source=trial.source,
            gpus=gpus_needed(trial, self.gpus),
            budget=trial.budget,
            ablated=trial.ablated,
            on_target=trial.on_target,
            proposed_by=trial.proposed_by,
        )

    def _next_id(self) -> str:
        return f"t{len(self.state.trials):04d}"

    def _here(self, trial: Trial, stage: str, budget: int) -> dict[str, Any]:
        """The trial's config with the stage's task of this session, whose data may have moved, and
        with so many times its budget."""
        task = self.target if stage == CONFIRM and self.target is not None else self.task
        if stage == TEACHER:
            task = self.teachers.tasks[trial.label]
        loss = self.teachers.placed(trial.config["loss"], self.state)
        return {**trial.config, "loss": loss, "task": task.stretched(budget).model_dump()}


def _ce_label(config: Resolved) -> str:
    return f"ce lr x{config.optimizer.lr_scale:.2g}"
