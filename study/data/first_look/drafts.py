"""The classes.yaml and the task that a first look at a folder proposes, as commented YAML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CLASSES_ORDER = ("classes", "labels", "ignore")
SIDE_CPU, SIDE_GPU = 128, 512  # pixels of the longer side at most
STEPS_CPU, STEPS_GPU = 1200, 20_000  # of a training
STRIDE = 8
MIN_EPOCHS, MAX_EPOCHS = 8, 300


@dataclass(frozen=True)
class Machine:
    """What trainings will run on. weights: what an encoder can start from, and why that."""

    has_gpu: bool
    weights: str | None
    why: str


def classes_text(keys: Mapping[str, Any], guesses: Mapping[str, str]) -> str:
    """The text of classes.yaml."""
    lines = [
        "# What `study.init` has found in this folder. Lines marked GUESS are for you to check;",
        "# docs/own_data.md explains every key.",
    ]
    first = [key for key in CLASSES_ORDER if key in keys]
    for key in [*first, *(key for key in keys if key not in first)]:
        if key in guesses:
            lines.append(f"# GUESS: {guesses[key]}.")
        if isinstance(keys[key], dict) and len(keys[key]) > 3:
            lines += [f"{key}:", *(f"  {_flow(k)}: {_flow(v)}" for k, v in keys[key].items())]
        else:
            lines.append(f"{key}: {_flow(keys[key])}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def task_size(sizes: Mapping[tuple[int, int], int], *, has_gpu: bool) -> tuple[int, int]:
    """(height, width) for trainings: the commonest size, in proportion, its longer side cut to
    what the machine can train, in multiples of 8."""
    height, width = max(sizes, key=lambda size: (sizes[size], size))
    most = SIDE_GPU if has_gpu else SIDE_CPU
    scale = min(1.0, most / max(height, width))
    return _multiple(height * scale), _multiple(width * scale)


def _multiple(length: float) -> int:
    return max(STRIDE, STRIDE * round(length / STRIDE))


def task_text(
    root: Path, sizes: Mapping[tuple[int, int], int], num_train: int, machine: Machine
) -> str:
    """The text of the task."""
    size = task_size(sizes, has_gpu=machine.has_gpu)
    batch = min(8 if machine.has_gpu else 4, max(1, num_train))
    steps = math.ceil(num_train / batch)
    wanted = STEPS_GPU if machine.has_gpu else STEPS_CPU
    epochs = min(MAX_EPOCHS, max(MIN_EPOCHS, math.ceil(wanted / steps)))
    proportions = {round(width / height, 2) for height, width in sizes}
    fit = "stretch" if len(proportions) == 1 else "pad"
    height, width = max(sizes, key=lambda one: (sizes[one], one))
    where = "on a GPU" if machine.has_gpu else "on CPUs"
    return f"""\
# A first task for {root}, made by `study.init`. Lines marked GUESS are for you to check.
data:
  format: folder
  root: {_flow(str(root.resolve()))}
  # GUESS: height and width at which networks are trained and judged; most files have
  # {height}x{width}. `study.data` says which objects a size loses.
  size: [{size[0]}, {size[1]}]
  fit: {fit:8}            # {_FITS[fit]}
  block: 1                 # GUESS: neighbouring test images that are alike, as in a video
augment: {{flip: 0.5}}       # GUESS: left and right mean the same; else 0
{_model(machine)}
lr_schedule: {{name: poly, power: 0.9, warmup: 0.05}}
batch_size: {batch}
# GUESS: {epochs * steps} steps {where}; the report says if the reference was still rising.
budget: {{epochs: {epochs}}}
evaluation: {{every: 1}}
precision: auto
"""


_FITS = {
    "stretch": "all files have the same proportions",
    "pad": "files differ in their proportions, which are kept",
}


def _model(machine: Machine) -> str:
    """The lines of the network, from the weights that can be had here."""
    if machine.has_gpu:
        model = "{arch: unet, encoder: resnet34, encoder_weights: %s}"
        rate = "5.0e-4" if machine.weights else "1.0e-3"
        lines = f"model: {model % (machine.weights or 'null')}"
    elif machine.weights:
        rate = "2.0e-3"
        lines = f"""\
model:
  arch: unet
  encoder: tu-tf_efficientnet_lite0
  encoder_weights: {machine.weights}
  kwargs: {{encoder_depth: 4, decoder_channels: [64, 48, 32, 16]}}"""
    else:
        rate = "5.0e-3"
        lines = """\
model:
  arch: unet
  encoder: tu-mobilenetv3_small_050
  encoder_weights: null
  kwargs: {encoder_depth: 3, decoder_channels: [24, 16, 16]}"""
    optimizer = f"optimizer: {{name: adamw, lr: {rate}, weight_decay: 1.0e-4}}"
    tuned = "# GUESS: the rate is tuned by the study itself, from a quarter to four times this one."
    return f"# {machine.why}\n{lines}\n{tuned}\n{optimizer}"
