"""Models from segmentation-models-pytorch or a user's factory, checked before a study."""

from __future__ import annotations

import difflib
import inspect
import math
import os
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import segmentation_models_pytorch as smp
import torch
from huggingface_hub.utils import logging as hub_logging
from segmentation_models_pytorch.encoders import get_encoder_names
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from study.config.budget import StepBudget
from study.config.task import AuxHead, FactoryModel, SmpModel, TaskConfig
from study.core.errors import InputError, deed
from study.core.factories import faults_named, load_factory
from study.training.augment import padding
from study.training.optim import build_optimizer
from study.training.pretrained import PACKAGES, load_encoder_weights

if TYPE_CHECKING:
    from study.data import SegmentationData

ARCH, ENCODER = "model/arch", "model/encoder"
WEIGHTS, KWARGS, FACTORY = "model/encoder_weights", "model/kwargs", "model/factory"
MOST_PADDING = 0.9  # of a training window
OFFLINE = (
    "to work offline set `encoder_weights: null`, or fetch them once where there is a network and "
    "copy the cache folder that HF_HOME names (~/.cache/huggingface by default)"
)


class PadToStride(nn.Module):
    """Wraps a model to accept every size: pads at the bottom and right, crops the logits back.

    Padding is 0, the mean colour of normalised images. Loss and metrics never see the logits of
    padded pixels, so padded pixels count as ignored.
    """

    def __init__(self, model: nn.Module, stride: int) -> None:
        super().__init__()
        self.model = model
        self.stride = stride

    def forward(self, images: Tensor) -> Any:
        """Map images (B, 3, H, W) to logits (B, C, H, W), or to a tuple of such."""
        height, width = images.shape[-2:]
        bottom, right = -height % self.stride, -width % self.stride
        if bottom or right:
            images = F.pad(images, (0, right, 0, bottom))
        found = self.model(images)
        if isinstance(found, tuple):
            return tuple(one[..., :height, :width] for one in found)
        return found[..., :height, :width]


class WithAuxHead(nn.Module):
    """A model of segmentation-models-pytorch with an auxiliary head, which is asked in training
    mode alone: there it returns (logits, logits of the head), else logits."""

    def __init__(self, model: nn.Module, config: AuxHead, num_classes: int) -> None:
        super().__init__()
        widths = model.encoder.out_channels  # type: ignore[union-attr]
        self.model = model
        self.index = len(widths) - 1 - config.stage  # type: ignore[arg-type]
        width: Any = widths[self.index]  # type: ignore[index]
        self.head = nn.Sequential(
            nn.Conv2d(width, config.channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(config.channels),
            nn.ReLU(),
            nn.Dropout2d(config.dropout),
            nn.Conv2d(config.channels, num_classes, 1),
        )

    def forward(self, images: Tensor) -> Any:
        """Map images (B, 3, H, W) to logits (B, C, H, W); in training mode to two of these."""
        if not self.training:
            return self.model(images)
        seen: list[Tensor] = []
        encoder: Any = self.model.encoder
        handle = encoder.register_forward_hook(lambda *call: seen.append(call[2][self.index]))
        try:
            logits = self.model(images)
        finally:
            handle.remove()
        found = self.head(seen[0])
        size = images.shape[-2:]
        return logits, F.interpolate(found, size, mode="bilinear", align_corners=False)


def build_model(config: SmpModel | FactoryModel, num_classes: int) -> nn.Module:
    """Build the model of a task on the CPU; random weights come from torch's global generator.

    Returns a module that maps (B, 3, H, W) to logits (B, num_classes, H, W); in training mode to a
    tuple of these where the config has auxiliary heads.
    Raises InputError for an architecture, encoder, weights or keyword that does not exist, for
    weights that cannot be downloaded, and for a factory that fails or returns no module.
    """
    if isinstance(config, FactoryModel):
        return _from_factory(config, num_classes)
    return _from_smp(config, num_classes)


def check_model(
    config: SmpModel | FactoryModel,
    num_classes: int,
    size: tuple[int, int],
    batch_size: int = 2,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Build the model, pass one training batch of zeros through it on `device`, and return it.

    size: (height, width) in pixels. Raises InputError if training would fail at its first step: for
    a size that the model refuses, or logits of another shape.
    """
    # A check must not advance the caller's random state.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = build_model(config, num_classes).to(device).train()
        shape = (batch_size, 3, *size)
        try:
            found = model(torch.zeros(shape, device=device))
            alone = model.eval()(torch.zeros(shape, device=device)) if config.num_aux else found
            model.train()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            what = deed(error).removeprefix("raised ")
            message = f"the model fails on a batch of shape {shape}: {what}"
            raise InputError(message, key="model") from error
    expected = (batch_size, num_classes, *size)
    if config.num_aux:
        _check_heads(found, 1 + config.num_aux, expected)
    if (got := _shape(alone)) != expected:
        mode = "in eval mode logits" if config.num_aux else "logits"
        raise InputError(f"{mode} must have shape {expected}, got {got}", key="model")
    return model


def _shape(found: object) -> tuple[int, ...] | str:
    return tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__


def _check_heads(found: object, count: int, expected: tuple[int, ...]) -> None:
    """Refuse what a model with auxiliary heads returns in training mode, if it is no such tuple."""
    if not isinstance(found, tuple) or len(found) != count:
        got = f"a tuple of {len(found)}" if isinstance(found, tuple) else type(found).__name__
        message = f"in training mode the model must return a tuple of {count} logits, got {got}"
        raise InputError(message, hint="`aux` says how many come behind the main ones", key="model")
    for index, shape in enumerate(map(_shape, found)):
        if shape != expected:
            message = f"output {index} must have shape {expected}, got {shape}"
            raise InputError(message, key="model")


def check_task(
    task: TaskConfig,
    num_classes: int,
    whole: tuple[int, int],
    device: torch.device | str = "cpu",
) -> None:
    """Run `check_model` at each size that a task trains or evaluates at; check the optimiser, too.

    whole: (height, width) of the data's images.
    """
    if padding(task.augment, whole) > MOST_PADDING and task.augment.crop is not None:
        crop = _by(task.augment.crop)
        message = f"crop must not be mostly padding around images of {_by(whole)}, got {crop}"
        raise InputError(message, key="augment/crop")
    for size in dict.fromkeys((whole, task.augment.crop or whole)):
        # many models refuse a batch of one image
        batch_size = min(2, task.batch_size)
        if torch.device(device).type == "cpu":
            _check_memory((batch_size, 3 + num_classes, *size))
        model = check_model(task.model, num_classes, size, batch_size, device)
    build_optimizer(task.optimizer, model)


def work_of_training(task: TaskConfig, data: SegmentationData) -> float:
    """The operations that the forward passes of a whole training take: of its products of matrices
    and convolutions, as torch counts them."""
    size = task.augment.crop or data.train.images.shape[1:3]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = build_model(task.model, data.num_classes).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, *size))
    if isinstance(task.budget, StepBudget):
        images = task.budget.steps * task.batch_size
    else:
        images = task.budget.epochs * len(data.train)
    return float(max(1, counter.get_total_flops()) * images)


def task_warnings(task: TaskConfig, num_images: int, whole: tuple[int, int]) -> list[str]:
    """What a task asks for and hardly means: windows beyond the images, batches beyond the split.

    num_images: of train. whole: (height, width) of the images.
    """
    found = []
    beyond = padding(task.augment, whole)
    if beyond > 0 and task.augment.crop is not None:
        found.append(
            f"the crop of {_by(task.augment.crop)} is larger than the images of {_by(whole)}: at "
            f"least {beyond:.0%} of every training window is padding, from which nothing is learned"
        )
    if task.batch_size > num_images:
        found.append(
            f"batch_size {task.batch_size} is larger than train: every step sees all of its "
            f"{num_images} images"
        )
    return found


def _by(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]}"


def _check_memory(shape: tuple[int, ...]) -> None:
    """Refuse images and logits, float32, that this machine has no memory for; the system would
    end the process without a word."""
    needed = 4 * math.prod(shape)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise InputError(
            f"a batch of {shape[0]} images of {_by(shape[-2:])} takes {needed / 2**30:.0f} GiB and "
            f"more, this machine has {there / 2**30:.0f} GiB",
            key="data",
        )


def _from_factory(config: FactoryModel, num_classes: int) -> nn.Module:
    if "num_classes" in config.kwargs:
        hint = "remove it; the data say how many there are"
        raise InputError("num_classes is not allowed in kwargs", hint=hint, key=KWARGS)
    factory = load_factory(config.factory, key=FACTORY)
    given = ", ".join([f"num_classes={num_classes}", *config.kwargs])
    with faults_named(f"{config.factory}({given})", key=FACTORY):
        model = factory(num_classes=num_classes, **config.kwargs)
    if not isinstance(model, nn.Module):
        message = f"{config.factory} must return a torch.nn.Module, got {type(model).__name__}"
        raise InputError(message, key=FACTORY)
    return model


def _from_smp(config: SmpModel, num_classes: int) -> nn.Module:
    arch = config.arch.lower()
    architectures = smp.MODEL_ARCHITECTURES_MAPPING
    _known(arch, architectures, key=ARCH)
    if not config.encoder.startswith(("tu-", "timm-")):
        _known(config.encoder, get_encoder_names(), key=ENCODER)
    _check_kwargs(config, architectures[arch])
    packaged = config.encoder_weights in PACKAGES
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            # Universal encoders treat any text as "their own weights" and warn about it.
            warnings.simplefilter("ignore")
            model = smp.create_model(
                arch,
                encoder_name=config.encoder,
                encoder_weights=None if packaged else config.encoder_weights,
                in_channels=3,
                classes=num_classes,
                **config.kwargs,
            )
    except Exception as error:
        raise _refusal(config, error) from error
    finally:
        hub_logging.set_verbosity(verbosity)
    if packaged and config.encoder_weights is not None:
        load_encoder_weights(model.encoder, config.encoder, config.encoder_weights, key=WEIGHTS)
    stride = model.encoder.output_stride if model.requires_divisible_input_shape else 1
    if config.aux is None:
        return PadToStride(model, stride)
    stages = len(model.encoder.out_channels) - 1
    if config.aux.stage >= stages:
        message = f"stage must be below {stages}, the stages of this encoder"
        raise InputError(f"{message}, got {config.aux.stage}", key="model/aux/stage")
    return PadToStride(WithAuxHead(model, config.aux, num_classes), stride)


def _check_kwargs(config: SmpModel, model_class: type[nn.Module]) -> None:
    parameters = inspect.signature(model_class.__init__).parameters
    fixed = {"self", "kwargs", "encoder_name", "encoder_weights", "in_channels", "classes"}
    known = [name for name in parameters if name not in fixed]
    # SMP passes unknown keywords to universal encoders and drops them for all others.
    to_encoder = "kwargs" in parameters and config.encoder.startswith("tu-")
    for name in config.kwargs:
        if name in fixed or (name not in known and not to_encoder):
            raise InputError.unknown("keyword", name, known, key=f"{KWARGS}/{name}")
        if name == "aux_params" and config.kwargs[name] is not None:
            message = "aux_params must be null, got a mapping"
            hint = "a second head would change the output"
            raise InputError(message, hint=hint, key=f"{KWARGS}/{name}")


def _known(name: str, names: Iterable[str], *, key: str) -> None:
    names = list(names)
    if name not in names:
        raise _unknown(name, names, key=key)


def _unknown(name: str, names: list[str], *, key: str) -> InputError:
    close = difflib.get_close_matches(name, names, n=5, cutoff=0.5) or names[:12]
    more = "" if len(close) == len(names) else " or another"
    timm = ", or `tu-` and a timm model" if key == ENCODER else ""
    message = f"segmentation-models-pytorch has no {key.rpartition('/')[2]} named {name!r}"
    return InputError(message, hint=f"try {', '.join(close)}{more}{timm}", key=key)


def _refusal(config: SmpModel, error: Exception) -> InputError:
    """Turn an error of SMP, timm or the download into one line under the faulty key."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if "Wrong encoder name" in text:
        return _unknown(config.encoder, list(get_encoder_names()), key=ENCODER)
    if "Unknown model" in text:
        import timm

        name = config.encoder.removeprefix("tu-")
        bare = [known.split(".")[0] for known in timm.list_models()]
        close = difflib.get_close_matches(name, bare, n=5, cutoff=0.5)
        hint = f"try {', '.join(f'tu-{match}' for match in close)}" if close else ""
        return InputError(f"timm has no model named {name!r}", hint=hint, key=ENCODER)
    if config.encoder_weights is not None:
        if isinstance(error, OSError):
            message = f"weights {config.encoder_weights!r} of {config.encoder} are not in the cache"
            return InputError(f"{message} and not reachable", hint=OFFLINE, key=WEIGHTS)
        if "pretrained" in text:
            message = f"{config.encoder} has no weights {config.encoder_weights!r}: {text}"
            return InputError(message, key=WEIGHTS)
    return InputError(
        f"{config.arch} with {config.encoder} does not take these keywords: {text}",
        key=KWARGS,
    )
