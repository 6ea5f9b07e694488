"""Teachers of distilled losses: opened, checked against the data, and asked for soft labels.

A teacher sees what its students see: the normalised images of their task. Its labels are

cached    softmax of its logits for the whole, unaugmented training images, as logarithms in
          float16, (N, H, W, C): once per machine. They are flipped, scaled (bilinearly, as the
          image) and cropped with their image; the jitter of colours does not reach them.
online    computed in every step for the augmented images.

`auto` is cached where that takes at most MOST_CACHED bytes; it depends on nothing else, so that a
training gives the same numbers on every machine. A cached probability t is off by at most
2^-11 t (|log t| + log C) or so, which is below 1e-3 for up to 255 classes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from study.config.task import FactoryModel, Model, SmpModel
from study.core.errors import InputError, deed
from study.data.cache import ELSEWHERE, default_cache_dir, locked, mapped
from study.losses.config import (
    ExportTeacher,
    FactoryLoss,
    FactoryTeacher,
    LossConfig,
    TaskTeacher,
    Teacher,
    WeightsTeacher,
)
from study.training.exported import About, read_about, read_exported, trained_model, weights_content
from study.training.models import build_model

if TYPE_CHECKING:
    from study.data import SegmentationData

MOST_CACHED = 8 * 2**30  # bytes
AT_A_TIME = 4  # images
KEY = "loss/distillation/teacher"
FORMAT = "1"  # of the cached labels
_MODEL: TypeAdapter[SmpModel | FactoryModel] = TypeAdapter(Model)


@dataclass(frozen=True)
class OpenTeacher:
    """A teacher that fits the data. digest: of its weights. words: what it is called in errors."""

    model: nn.Module
    digest: str
    words: str


class Teaching:
    """The soft labels of one training.

    Attributes:
        digest: of the teacher's weights.
        cached: log probabilities (N, H, W, C) float16 of the training images; None where the
            teacher runs online.
    """

    def __init__(self, teacher: OpenTeacher, device: torch.device, cached: Any) -> None:
        self.digest = teacher.digest
        self.cached = cached
        self._model = None if cached is not None else _ready(teacher.model, device)

    def __call__(self, images: Tensor) -> Tensor:
        """The probabilities (B, C, H, W) float32 for normalised images (B, 3, H, W)."""
        assert self._model is not None
        with torch.no_grad():
            return self._model(images).float().softmax(1)


def teacher_of(loss: LossConfig | FactoryLoss) -> Teacher | None:
    """The teacher that a loss names; raises InputError for a distilled one that names none."""
    if isinstance(loss, FactoryLoss) or loss.distillation is None:
        return None
    if loss.distillation.teacher is None:
        raise InputError(
            "a distilled loss needs a teacher",
            hint="in a study name one in study/teacher, or here: {export: FILE.yaml}",
            allowed="export, task, factory",
            key=KEY,
        )
    return loss.distillation.teacher


def resolved(teacher: ExportTeacher, *, trust: bool = False, key: str = KEY) -> WeightsTeacher:
    """The weights and the model of an export.

    Raises:
        InputError: for a file that is no export with weights, or names a factory without `trust`.
    """
    path = Path(teacher.export).expanduser().absolute()
    if not path.is_file():
        raise InputError(f"no export at {teacher.export!r}", key=f"{key}/export")
    exported = read_exported(path, trust=trust)
    return WeightsTeacher(
        weights=str(exported.file),
        sha256=exported.sha256,
        model=exported.read.config.trained_here.model.model_dump(),
    )


def with_teacher(
    loss: LossConfig | FactoryLoss, file: Path | None = None, *, trust: bool = False
) -> LossConfig | FactoryLoss:
    """The loss with its teacher as weights and model, where it is an export.

    file: an export that is the teacher, or the weights of the one that the loss names.

    Raises:
        InputError: where a loss has no place for a teacher, and as `resolved`.
    """
    if isinstance(loss, FactoryLoss) or loss.distillation is None:
        if file is not None:
            raise InputError("the loss has no distillation", hint="leave it out", key="--teacher")
        return loss
    teacher = loss.distillation.teacher
    if file is not None:
        teacher = (
            teacher.model_copy(update={"weights": str(file.absolute())})
            if isinstance(teacher, WeightsTeacher)
            else resolved(ExportTeacher(export=str(file)), trust=trust)
        )
    elif isinstance(teacher, ExportTeacher):
        teacher = resolved(teacher, trust=trust)
    return loss.taught_by(teacher)


def open_teacher(
    teacher: Teacher, data: SegmentationData, *, trust: bool = True, key: str = KEY
) -> OpenTeacher:
    """Open a teacher and check that it is of these classes and this normalisation.

    Raises:
        InputError: in one line, for a teacher that is not there, is another one than stated, or
            does not fit the data.
    """
    match teacher:
        case TaskTeacher(task=task):
            raise InputError(
                f"the teacher {task} is not trained",
                hint=f"a study trains it; by yourself: `python -m study.train CONFIG.yaml --out "
                f"DIR` with `task: {task}`, then `teacher: {{export: DIR/config.yaml}}`",
                key=f"{key}/task",
            )
        case FactoryTeacher():
            return _from_factory(teacher, data, key)
        case ExportTeacher():
            return _from_weights(resolved(teacher, trust=trust, key=key), data, key)
    return _from_weights(teacher, data, key)


def _from_factory(teacher: FactoryTeacher, data: SegmentationData, key: str) -> OpenTeacher:
    config = FactoryModel(factory=teacher.factory, kwargs=teacher.kwargs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            model = build_model(config, data.num_classes)
        except InputError as error:
            raise InputError(error.message, key=f"{key}/factory") from error
        _check_logits(model, data, f"{key}/factory")
    content = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        content.update(name.encode())
        if isinstance(value, Tensor):
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            content.update(raw.numpy().tobytes())
    return OpenTeacher(model, content.hexdigest(), teacher.factory)


def _from_weights(teacher: WeightsTeacher, data: SegmentationData, key: str) -> OpenTeacher:
    file = Path(teacher.weights)
    if not file.is_file():
        raise InputError(
            f"the teacher's weights are not there: {teacher.weights}",
            hint=f"`--teacher FILE` says where they are (sha256 {teacher.sha256[:12]}...)",
            key=f"{key}/weights",
        )
    content = weights_content(file, teacher.sha256, "of the teacher")
    check_fits(read_about(file), data, file.name, key)
    try:
        config = _MODEL.validate_python(teacher.model)
    except ValidationError as error:
        raise InputError(
            f"no model of a task: {error.errors()[0]['msg']}", key=f"{key}/model"
        ) from (error)
    try:
        model = trained_model(config, data.num_classes, content, file)
    except InputError as error:
        raise error.below(key) from error
    return OpenTeacher(model, teacher.sha256, file.name)


def check_fits(
    about: About | SegmentationData, data: SegmentationData, name: str, key: str = KEY
) -> None:
    """Refuse a teacher that was trained with other classes or another normalisation."""
    if about.class_names != data.class_names:
        pairs = zip(about.class_names, data.class_names, strict=False)
        differ = [f"{one} is {other} here" for one, other in pairs if one != other][:3]
        counts = f"it has {len(about.class_names)} classes, the data {data.num_classes}"
        raise InputError(
            f"the teacher {name} knows other classes: {', '.join(differ) or counts}", key=key
        )
    for what in ("mean", "std"):
        theirs, ours = getattr(about, what), getattr(data, what)
        if not np.allclose(theirs, ours, rtol=0, atol=1e-6):
            raise InputError(
                f"the teacher {name} was trained with another normalisation: {what} "
                f"{_listed(theirs)}, here {_listed(ours)}",
                key=key,
            )


def _listed(values: Any) -> str:
    return f"[{', '.join(f'{float(value):.4g}' for value in values)}]"


def _check_logits(model: nn.Module, data: SegmentationData, key: str) -> None:
    """Refuse a network that does not give logits of the images' size."""
    shape = (1, 3, *data.train.images.shape[1:3])
    expected = (1, data.num_classes, *shape[2:])
    try:
        with torch.no_grad():
            logits = model.eval()(torch.zeros(shape))
    except Exception as error:
        message = f"the teacher fails on a batch of shape {shape}: {deed(error)}"
        raise InputError(message, key=key) from error
    got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if got != expected:
        raise InputError(f"a teacher's logits must have shape {expected}, got {got}", key=key)


def teaching(
    loss: LossConfig | FactoryLoss,
    data: SegmentationData,
    device: torch.device,
    on_step: Callable[[], object],
) -> Teaching | None:
    """The soft labels that a training with this loss needs; None if it needs none.

    The first call on a machine computes those that are cached; `on_step` is called after each batch
    of them. Raises InputError as `open_teacher`, and where the disk has no room for them.
    """
    teacher = teacher_of(loss)
    if teacher is None:
        return None
    assert isinstance(loss, LossConfig) and loss.distillation is not None
    opened = open_teacher(teacher, data)
    cached = None
    if is_cached(loss.distillation.labels, data):
        cached = _cached(opened, data, device, on_step)
    return Teaching(opened, device, cached)


def num_bytes(data: SegmentationData) -> int:
    """What the cached labels of the training images take."""
    count, height, width = data.train.images.shape[:3]
    return 2 * count * height * width * data.num_classes


def is_cached(labels: str, data: SegmentationData) -> bool:
    """Whether labels are cached; the same on every machine."""
    return labels == "cached" or (labels == "auto" and num_bytes(data) <= MOST_CACHED)


def _cached(
    teacher: OpenTeacher,
    data: SegmentationData,
    device: torch.device,
    on_step: Callable[[], object],
) -> np.ndarray:
    """Map the labels of the training images; compute them first if the cache lacks them."""
    count, height, width = data.train.images.shape[:3]
    shape = (count, height, width, data.num_classes)
    text = "|".join((FORMAT, teacher.digest, data.fingerprint, device.type))
    folder = default_cache_dir()
    file = folder / f"teacher-{hashlib.sha256(text.encode()).hexdigest()[:16]}.npy"
    with locked(file, on_step):
        found = _mapped(file, shape)
        if found is None:
            _write(file, shape, _ready(teacher.model, device), data, device, on_step)
            found = _mapped(file, shape)
    if found is None:
        raise InputError("cannot read back the teacher's labels just written", file=file)
    return found


def _mapped(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        found = mapped(file)
    except (OSError, ValueError):
        return None
    return found if (found.shape, found.dtype) == (shape, np.float16) else None


def _write(
    file: Path,
    shape: tuple[int, ...],
    model: nn.Module,
    data: SegmentationData,
    device: torch.device,
    on_step: Callable[[], object],
) -> None:
    from study.data.progress_bar import progress
    from study.training.batches import Batches

    needed, free = num_bytes(data), shutil.disk_usage(file.parent).free
    if needed > free:
        raise InputError(
            f"the teacher's labels need {needed / 2**20:.0f} MiB, this disk has "
            f"{free / 2**20:.0f} MiB free",
            hint=f"{ELSEWHERE}, or take `labels: online`",
            key="loss/distillation/labels",
        )
    batches = Batches(data, device, "fp32")
    for left_over in file.parent.glob(
        f".{file.name}.*"
    ):  # of a process that died: we hold the lock
        left_over.unlink(missing_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    header: Mapping[str, Any] = {"descr": "<f2", "fortran_order": False, "shape": shape}
    words = f"labels of the teacher {teacher_words(model)}, once per machine"
    try:
        with temporary.open("wb") as stream, progress(words, shape[0]) as advance:
            np.lib.format.write_array_header_1_0(stream, dict(header))
            for images, _ in batches.evaluation(data.train, AT_A_TIME):
                with torch.inference_mode():
                    logs = model(images).float().log_softmax(1)
                stream.write(logs.permute(0, 2, 3, 1).half().cpu().numpy().tobytes())
                for _ in range(len(images)):
                    advance()
                on_step()
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        what = "no disk space left for" if full else f"cannot write ({error})"
        raise InputError(
            f"{what} the teacher's labels", hint=ELSEWHERE, file=file.parent
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def teacher_words(model: nn.Module) -> str:
    """A network by the name of its class."""
    return type(getattr(model, "model", model)).__name__


def _ready(model: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, to be asked only."""
    ready = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return ready.eval().requires_grad_(False)
