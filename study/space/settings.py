"""The `study:` block of a search space: trials, sampler, objectives, rungs and confirmation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Strict, Tag, field_validator, model_validator

from study.core.errors import InputError
from study.core.names import TUNED, TUNED_MACC, VAL, VAL_TUNED_MACC, VAL_TUNED_MIOU
from study.losses.config import Config, FactoryLoss, LossConfig, Teacher, loss_tag

# What may be an objective: all are in [0, 1], and larger is better. Besides, a class or a group of
# the task, which the data decide: val/iou/<class>, val/tuned/miou/<group>.
RULES = ("", f"{TUNED}/", f"{TUNED_MACC}/")
METRICS = (
    "miou", "macc", "mprec", "mdice", "acc", "fwiou", "miou_image", "miou_class", "miou_worst5",
)  # fmt: skip
OBJECTIVES = tuple(f"{VAL}/{rule}{metric}" for rule in RULES for metric in METRICS)
OF_CLASSES = tuple(
    f"{VAL}/{rule}{metric}/"
    for rule in RULES
    for metric in ("iou", "recall", "precision", "miou", "dice")
)

MIN_SEEDS, MOST_SEEDS = 3, 10**4
FEWEST_TO_STOP = 12  # trials before which nothing ends a search

Factor = Annotated[int, Field(ge=1, le=1000)]
Names = Annotated[tuple[str, ...], Strict(False)]


class Rungs(Config):
    """The bracket of early stopping.

    first: fraction of the schedule at the first rung; each further rung lies reduction_factor times
    later. reduction_factor: at a rung one trial in so many goes on. by: a choice of two or three
    options; each option then has a bracket of its own.
    """

    first: float = Field(0.375, gt=0, le=1)
    reduction_factor: int = Field(3, ge=2, le=10**6)
    by: str | None = None


class Confirm(Config):
    """The confirmation: the `top` configs are trained again, each with num_seeds fresh seeds.

    num_seeds: unless given, 5 where trials get GPUs, else 3.
    budgets: tuned cross entropy and the best other loss are also trained for so many times the
    task's budget, on the same seeds and with the schedule stretched. 1 is the confirmation itself.
    ablate: the best other loss is also trained with each of its parts switched off, one at a time,
    on the same seeds.
    task: the task that the confirmation trains, its target, where the study's own is a small proxy:
    a file or a shipped name. Its classes must be those of the study's task.
    half_width: in points of tuned mIoU: once all configs have num_seeds seeds, the number that all
    of them get is chosen so that the interval of the best one is no wider, at most max_seeds.
    """

    top: int = Field(2, ge=1, le=10**4)
    num_seeds: int | None = Field(None, ge=1, le=MOST_SEEDS)
    budgets: Annotated[tuple[Factor, ...], Strict(False)] = (1,)
    ablate: bool = False
    task: str | None = Field(None, min_length=1)
    half_width: float | None = Field(None, gt=0)
    max_seeds: int = Field(8, ge=MIN_SEEDS, le=MOST_SEEDS)

    @field_validator("budgets")
    @classmethod
    def _one_and_then_longer_ones(cls, budgets: tuple[int, ...]) -> tuple[int, ...]:
        if budgets[:1] != (1,) or list(budgets) != sorted(set(budgets)):
            raise ValueError(
                "budgets must be whole factors that begin with 1 and ascend, such as [1, 4], "
                f"got {list(budgets)}"
            )
        return budgets

    @model_validator(mode="after")
    def _seeds_in_two_stages(self) -> Confirm:
        if self.half_width is None or self.num_seeds is None:
            return self
        if not MIN_SEEDS <= self.num_seeds <= self.max_seeds:
            raise ValueError(
                f"num_seeds must be from {MIN_SEEDS} to max_seeds ({self.max_seeds}) beside "
                f"half_width, got {self.num_seeds}"
            )
        return self


class StopWhen(Config):
    """When a search ends before its num_trials.

    gain_below: in points of each objective: the sampler proposes no more once going on for ever is
    expected to improve the best of the confirmed configs by less. The rest of the trials that tune
    cross entropy still run. Nothing ends before 12 trials are judged that did not fail, one of them
    at full budget, nor while an objective is the same for all.
    """

    gain_below: float = Field(gt=0, le=100)


class OwnBaseline(Config):
    """A baseline by its `loss:` tree."""

    loss: LossConfig


Own = Annotated[
    Annotated[OwnBaseline, Tag("tree")] | Annotated[FactoryLoss, Tag("factory")],
    Discriminator(loss_tag),
]
Baseline = Annotated[
    Annotated[str, Tag("preset")]
    | Annotated[dict[str, Own], Field(min_length=1, max_length=1), Tag("own")],
    Discriminator(lambda value: "own" if isinstance(value, dict) else "preset"),
]


class StudySettings(Config):
    """A study's numbers, apart from what is searched.

    sampler: what proposes trials: a model of the results so far, chance, or a grid. `tpe` is an
    earlier name for the model.
    baselines: losses that are trained to the end at the task's own settings: presets by name, and
    the user's own, as `{mine: {loss: ...}}` or `{mine: {factory: package.module:function}}`.
    teacher: of the distilled losses that name none, as those of the presets.
    warm_start: earlier studies, by name or folder, from whose trials the model starts.
    stop_when: what ends the search before num_trials; nothing, unless it is given.
    """

    objectives: Names = (VAL_TUNED_MIOU, VAL_TUNED_MACC)
    num_trials: int = Field(16, ge=1, le=10**6)
    sampler: Literal["model", "random", "grid", "tpe"] = "model"
    rungs: Rungs | None = Rungs()
    reference_trials: int | None = Field(None, ge=1)
    baselines: Annotated[tuple[Baseline, ...], Strict(False)] = ()
    confirm: Confirm = Confirm()
    teacher: Teacher | None = None
    warm_start: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Strict(False)] = ()
    stop_when: StopWhen | None = None

    @property
    def num_reference_trials(self) -> int:
        """How many of the searched trials tune cross entropy: as given, else max(4, n / 4)."""
        given = self.reference_trials or max(4, math.ceil(self.num_trials / 4))
        return min(given, self.num_trials)

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """The names of the baselines, in their order."""
        return tuple(map(_name, self.baselines))

    @property
    def own_baselines(self) -> dict[str, LossConfig | FactoryLoss]:
        """The user's own losses, by their place below `baselines`, such as `1/mine`."""
        return {
            f"{index}/{name}": _loss(own)
            for index, one in enumerate(self.baselines)
            if not isinstance(one, str)
            for name, own in one.items()
        }

    def baseline_loss(self, name: str) -> LossConfig | FactoryLoss:
        """The loss of a baseline."""
        from study.losses import PRESETS

        for one in self.baselines:
            if not isinstance(one, str) and name in one:
                return _loss(one[name])
        return LossConfig.model_validate(PRESETS[name].config)

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, objectives: tuple[str, ...]) -> tuple[str, ...]:
        if not objectives:
            raise InputError("objectives must not be empty", allowed=OBJECTIVES)
        of_classes = tuple(name for name in objectives if name.startswith(OF_CLASSES))
        return _each_known_once("objective", objectives, OBJECTIVES + of_classes)

    @field_validator("baselines")
    @classmethod
    def _known_baselines(cls, baselines: tuple[Baseline, ...]) -> tuple[Baseline, ...]:
        from study.losses import PRESETS

        for own in (one for one in baselines if not isinstance(one, str)):
            (name,) = own
            if name in PRESETS:
                raise InputError(f"baseline {name!r} is a preset", hint="give it another name")
        names = tuple(map(_name, baselines))
        own_names = tuple(_name(one) for one in baselines if not isinstance(one, str))
        _each_known_once("baseline", names, (*PRESETS, *own_names))
        return baselines

    @field_validator("warm_start")
    @classmethod
    def _each_study_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _each_known_once("study", names, names)

    @model_validator(mode="after")
    def _enough_trials(self) -> StudySettings:
        if self.reference_trials is not None and self.reference_trials > self.num_trials:
            raise ValueError(
                f"reference_trials must be at most num_trials ({self.num_trials}), "
                f"got {self.reference_trials}"
            )
        if self.stop_when and self.num_trials + len(self.baselines) < FEWEST_TO_STOP:
            raise ValueError(
                f"stop_when looks at {FEWEST_TO_STOP} trials at least, but there are "
                f"{self.num_trials + len(self.baselines)} (num_trials and baselines)"
            )
        return self


def _name(baseline: str | Mapping[str, Any]) -> str:
    return baseline if isinstance(baseline, str) else next(iter(baseline))


def _loss(own: OwnBaseline | FactoryLoss) -> LossConfig | FactoryLoss:
    return own if isinstance(own, FactoryLoss) else own.loss


def _each_known_once(what: str, names: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise InputError.unknown(what, name, known)
        if names.count(name) > 1:
            raise InputError(f"duplicate {what} {name!r}")
    return names
