from __future__ import annotations

import pytest
import torch
from tiny_task import CONVOLUTION, tiny
from torch import nn

from study.config.task import FactoryModel, SmpModel
from study.core.errors import InputError
from study.training.models import (
    PadToStride,
    build_model,
    check_model,
    check_task,
    task_warnings,
)


def small(**changes):
    return SmpModel(**{"arch": "unet", "encoder": "resnet18", **changes})


def one_conv(num_classes, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, num_classes, 1))


def wrong_shape(num_classes):
    return nn.Conv2d(3, num_classes + 1, 1)


def raising(num_classes):
    raise OSError("no such weights")


def not_a_model(num_classes):
    return num_classes


class SeesSizes(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Conv2d(3, num_classes, 1)

    def forward(self, images):
        if images.shape[-1] % 8:
            raise ValueError("width must divide by 8")
        return self.head(images)


def test_a_crop_beyond_the_images_is_told_and_one_of_mere_padding_is_refused():
    def cropped(height, width):
        return tiny(model=CONVOLUTION, augment={"crop": [height, width]}).task

    assert task_warnings(cropped(32, 48), 24, (32, 48)) == []
    (told,) = task_warnings(cropped(64, 48), 24, (32, 48))
    assert "crop of 64x48 is larger than the images of 32x48: at least 50% of every" in told
    check_task(cropped(64, 48), 3, (32, 48))
    with pytest.raises(InputError, match=r"^augment/crop: crop must .* of 32x48, got 512x512"):
        check_task(cropped(512, 512), 3, (32, 48))


def test_a_batch_beyond_the_images_is_told():
    task = tiny(batch_size=25).task
    (told,) = task_warnings(task, 24, (32, 48))
    assert told.startswith("batch_size 25 is larger than train: every step sees all of its 24")
    assert task_warnings(task, 25, (32, 48)) == []


def test_images_that_no_memory_holds_are_refused_before_they_are_made(monkeypatch):
    pages = {"SC_PHYS_PAGES": 1, "SC_PAGE_SIZE": 2 * (3 + 3) * 32 * 48 * 4}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    check_task(tiny(model=CONVOLUTION).task, 3, (32, 48))
    with pytest.raises(InputError, match=r"^data: a batch of 2 images of 32x56 takes .* GiB"):
        check_task(tiny(model=CONVOLUTION).task, 3, (32, 56))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arch", ["unet", "unetplusplus", "linknet", "fpn", "pspnet", "deeplabv3plus"]
)
@pytest.mark.parametrize("size", [(64, 96), (50, 70)])
def test_every_architecture_takes_every_size(arch, size):
    model = build_model(small(arch=arch), num_classes=5)
    assert model(torch.zeros(2, 3, *size)).shape == (2, 5, *size)


def test_padding_changes_no_logit_of_a_size_that_fits():
    torch.manual_seed(0)
    model = build_model(small(arch="fpn"), num_classes=3).eval()
    images = torch.randn(1, 3, 64, 64)
    assert isinstance(model, PadToStride)
    assert torch.equal(model(images), model.model(images))
    assert not torch.equal(model(images[..., :50, :]), model(images)[..., :50, :])


def test_architecture_is_read_without_regard_to_case():
    check_model(small(arch="Unet"), 3, (32, 32))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"arch": "unett"},
            "model/arch: segmentation-models-pytorch has no arch named 'unett'; try unet",
        ),
        ({"encoder": "resnet19"}, "model/encoder: segmentation-models-pytorch has no encoder"),
        ({"encoder": "resnet19"}, "resnet18"),
        ({"encoder": "tu-mobilenetv3_smal_050"}, "tu-mobilenetv3_small_050"),
        (
            {"kwargs": {"encoder_dept": 3}},
            "unknown keyword 'encoder_dept'; did you mean 'encoder_depth'?",
        ),
        ({"kwargs": {"classes": 3}}, "model/kwargs/classes: unknown keyword 'classes' (allowed: "),
        ({"kwargs": {"encoder_depth": 9}}, "model/kwargs: unet with resnet18"),
        ({"kwargs": {"decoder_channels": [8, 8]}}, "model/kwargs: "),
        ({"encoder": "tu-resnet18", "kwargs": {"bogus": 3}}, "model/kwargs: "),
        (
            {"kwargs": {"aux_params": {"classes": 2}}},
            "model/kwargs/aux_params: aux_params must be null",
        ),
        (
            {"encoder_weights": "imagenett"},
            "model/encoder_weights: resnet18 has no weights 'imagenett'",
        ),
    ],
)
def test_what_does_not_exist_is_refused_by_its_key(changes, says):
    with pytest.raises(InputError) as caught:
        build_model(small(**changes), 3)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_weights_that_cannot_be_fetched_say_how_to_work_offline(encoder, monkeypatch):
    import huggingface_hub.errors

    def unreachable(*args, **kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("cannot find the requested files")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", unreachable)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", unreachable)
    with pytest.raises(
        InputError, match=r"^model/encoder_weights: .*`encoder_weights: null`.*HF_HOME"
    ):
        build_model(small(encoder=encoder, encoder_weights="imagenet"), 3)


def test_a_factory_gets_the_classes_and_its_keywords():
    model = build_model(FactoryModel(factory=f"{__name__}:one_conv", kwargs={"width": 7}), 5)
    assert [layer.out_channels for layer in model.children()] == [7, 5]


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (
            "wrong_shape",
            r"^model: logits must have shape \(2, 3, 32, 32\), got \(2, 4, 32, 32\)",
        ),
        ("raising", "^model/factory: .*raising.* raised OSError: no such"),
        ("not_a_model", "^model/factory: .*must return a torch.nn.Module, got int"),
        ("absent", "^model/factory: .*absent"),
    ],
)
def test_a_bad_factory_is_refused_before_anything_starts(factory, says):
    with pytest.raises(InputError, match=says):
        check_model(FactoryModel(factory=f"{__name__}:{factory}"), 3, (32, 32))


def test_the_check_names_the_size_that_a_model_cannot_take():
    config = FactoryModel(factory=f"{__name__}:SeesSizes")
    check_model(config, 3, (32, 48))
    with pytest.raises(InputError, match=r"batch of shape \(2, 3, 32, 50\).*divide by 8"):
        check_model(config, 3, (32, 50))


@pytest.mark.slow
def test_the_check_sees_batches_that_batch_norm_cannot_take():
    config = small(arch="deeplabv3plus")
    check_model(config, 3, (32, 32))
    with pytest.raises(InputError, match="model: the model fails on a batch of shape"):
        check_model(config, 3, (32, 32), batch_size=1)


def test_the_check_leaves_the_random_numbers_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    check_model(FactoryModel(factory=f"{__name__}:one_conv"), 3, (32, 32))
    assert torch.equal(torch.rand(3), expected)
