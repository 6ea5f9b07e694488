"""The plan of a study: its resolved settings, as the first line of the ledger records them."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from itertools import islice
from typing import Any

from study.core.names import CE, CONFIRM, TEACHER


@dataclass(frozen=True)
class Plan:
    """The resolved settings of a study.

    `epochs` are the epoch reports of one trial. `confirm_budgets`: 1, and for how many times as
    many of them the reference and the best other loss are trained besides. `confirm_ablations`:
    most axes of the best other loss that are switched off, one at a time; 0 for no ablation.
    `confirm_half_width`: in points of mIoU at the primary rule; seeds are added to `confirm_seeds`
    for it, up to `confirm_max_seeds`. 0: none are added. `confirm_epochs`: the epoch reports of a
    confirmation at the target, another task than the search's, its proxy; 0 where there is none.
    `teachers`: the tasks that are trained once, first, as teachers of distilled losses, and
    `teacher_epochs` the epoch reports of each; `taught`: the baselines that may need one of them.
    `stop_gain`: in points: the search ends once its expected gain is less; 0: it does not.
    `extended`: (num_trials, reference_trials) as they were before each time that trials were added.
    """

    seed: int
    epochs: int
    objectives: tuple[str, ...]
    sampler: str
    num_trials: int
    reference_trials: int
    baselines: tuple[str, ...]
    rungs: tuple[int, ...]
    reduction_factor: int
    split_by: str | None
    confirm_top: int
    confirm_seeds: int
    confirm_budgets: tuple[int, ...] = (1,)
    confirm_ablations: int = 0
    confirm_half_width: float = 0.0
    confirm_max_seeds: int = 0
    confirm_epochs: int = 0
    teachers: tuple[str, ...] = ()
    teacher_epochs: tuple[int, ...] = ()
    extended: tuple[tuple[int, int], ...] = ()
    stop_gain: float = 0.0
    taught: tuple[str, ...] = ()

    @property
    def has_target(self) -> bool:
        """Whether confirmations train another task than the search."""
        return self.confirm_epochs > 0

    def epochs_of(self, stage: str, budget: int = 1, label: str = "") -> int:
        """Epoch reports of a trial of this stage with so many times its task's budget; a teacher's
        label is its task."""
        if stage == TEACHER:
            return dict(zip(self.teachers, self.teacher_epochs, strict=True))[label]
        return budget * ((stage == CONFIRM and self.confirm_epochs) or self.epochs)

    @property
    def confirm_trials(self) -> int:
        """Most confirmation trials: the top configs, two tuned and default cross entropy; those
        that are added, with a longer budget or with an axis switched off come on top."""
        return self._most_confirmed * self.confirm_seeds

    @property
    def _most_confirmed(self) -> int:
        return self.confirm_top + min(self.reference_trials, 2) + (CE in self.baselines)

    @property
    def first_seeds(self) -> range:
        """The seeds of the confirmation that do not depend on results; no searched trial has used
        them."""
        return range(self.seed + 1, self.seed + 1 + self.confirm_seeds)

    @property
    def added_trials(self) -> int:
        """Most confirmation trials that are added for a narrower interval."""
        return self._most_confirmed * max(0, self.confirm_max_seeds - self.confirm_seeds)

    @property
    def longer_trials(self) -> int:
        """Most confirmation trials with a longer budget: of the reference and one other loss."""
        return 2 * self.confirm_seeds * (len(self.confirm_budgets) - 1)

    @property
    def longer_epochs(self) -> int:
        """Epochs of `longer_trials`."""
        return 2 * self.confirm_seeds * self.epochs_of(CONFIRM, sum(self.confirm_budgets[1:]))

    @property
    def ablation_trials(self) -> int:
        """Most confirmation trials with an axis switched off."""
        return self.confirm_ablations * self.confirm_seeds

    @property
    def ablation_epochs(self) -> int:
        """Epochs of `ablation_trials`."""
        return self.ablation_trials * self.epochs_of(CONFIRM)

    @property
    def worst_case_epochs(self) -> int:
        """Epochs of the study's own task if no trial is stopped, without those of teachers."""
        search = (len(self.baselines) + self.num_trials) * self.epochs
        return search if self.has_target else search + self._worst_case_confirmation

    @property
    def worst_case_target_epochs(self) -> int:
        """Epochs of the target; 0 where there is none."""
        return self._worst_case_confirmation if self.has_target else 0

    @property
    def _worst_case_confirmation(self) -> int:
        ordinary = (self.confirm_trials + self.added_trials) * self.epochs_of(CONFIRM)
        return ordinary + self.ablation_epochs + self.longer_epochs

    def is_reference(self, index: int) -> bool:
        """Whether searched trial `index` tunes cross entropy; such trials are spread evenly, those
        that are added among the added ones."""
        trials, references, before, _ = self._part(index)
        return ((index - before) * references) % trials < references

    def references_before(self, index: int) -> int:
        """How many of the searched trials before `index` tune cross entropy."""
        trials, references, before, earlier = self._part(index)
        here = index - before
        return earlier + ((here - 1) * references // trials + 1 if references and here else 0)

    def search_size(self, ended_after: int | None) -> int:
        """How many trials are searched; `ended_after`: the number of those after which the sampler
        proposes no more, if it has ended. The rest of cross entropy's trials still come."""
        if ended_after is None:
            return self.num_trials
        return ended_after + self.reference_trials - self.references_before(ended_after)

    def search_index(self, begun: int, ended_after: int | None) -> int:
        """The place in the plan of the searched trial that follows so many."""
        if ended_after is None:
            return begun
        to_come = filter(self.is_reference, range(ended_after, self.num_trials))
        return next(islice(to_come, begun - ended_after, None))

    def _part(self, index: int) -> tuple[int, int, int, int]:
        """Of the part of the plan to which a searched trial belongs: its trials and references,
        and those of the parts before it."""
        before = (0, 0)
        for after in (*self.extended, (self.num_trials, self.reference_trials)):
            if index < after[0] or after[0] == self.num_trials:
                return after[0] - before[0], after[1] - before[1], *before
            before = after
        raise AssertionError("the last part has no end")

    def sampled_before(self, index: int) -> int:
        """How many of the searched trials before `index` the sampler proposes."""
        return index - self.references_before(index)

    def as_dict(self) -> dict[str, Any]:
        """The plan as the first line of the ledger holds it."""
        return {
            **asdict(self),
            "worst_case_epochs": self.worst_case_epochs,
            "worst_case_target_epochs": self.worst_case_target_epochs,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """The plan that the first line of a ledger holds."""
        later = {field.name: field.default for field in fields(cls) if field.default is not MISSING}
        known = {**later, "taught": values["baselines"], **values}  # earlier: all wait for teachers
        found = {field.name: known[field.name] for field in fields(cls)}
        lists = (
            "objectives", "baselines", "rungs", "confirm_budgets", "teachers", "teacher_epochs",
            "taught",
        )  # fmt: skip
        found |= {key: tuple(found[key]) for key in lists}
        return cls(**{**found, "extended": tuple((a, b) for a, b in found["extended"])})
