"""An export as a network in use: the study's own predictions, from any picture."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from exported_network import Exported
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import study
from study.core.errors import InputError
from study.inference import Predictor
from study.metrics import Decision


def tensors(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)


def on_the_grid(channels: int = 3, **options: Any) -> Predictor:
    """A predictor whose logits are the (normalised) colours."""
    model = torch.nn.Conv2d(3, channels, 1, bias=False)
    torch.nn.init.eye_(model.weight.data[:, :, 0, 0])
    about = {"class_names": tuple("abc"[:channels]), "palette": np.eye(3, dtype=np.uint8) * 200}
    decision = options.pop("decision", Decision((), 0.0))
    normal = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return Predictor(model, decision, **{**about, **normal, **options})


def test_a_network_within_one_that_trains_stays_as_it_is() -> None:
    predictor = on_the_grid()
    predictor.model = torch.nn.Sequential(predictor.model, torch.nn.BatchNorm2d(3))
    torch.nn.ModuleDict({"teacher": predictor}).train()
    assert predictor.training and not any(one.training for one in predictor.model.modules())
    images = torch.rand(2, 3, 4, 4)
    first = predictor.logits(images)
    assert torch.equal(predictor.logits(images), first)


@pytest.mark.parametrize("images", [torch.full((1, 3, 2, 2), 200.0), torch.randn(1, 3, 9, 9) * 2])
def test_floats_of_another_range_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"float in 0..1, got .* they are normalised here"):
        on_the_grid()(images)


def test_an_image_of_16_bits_is_refused_as_its_file_is(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((4, 6), 4000, np.uint16))
    image.save(tmp_path / "deep.png")
    for picture in (image, tmp_path / "deep.png"):
        with pytest.raises(InputError, match="image must have 8 bits per channel, got mode I;16"):
            on_the_grid().predict(picture)


def test_what_is_no_picture_is_named() -> None:
    with pytest.raises(TypeError, match=r"a picture is a file, .* got bytes"):
        on_the_grid().predict(b"PNG")  # type: ignore[arg-type]


@pytest.mark.slow
def test_an_opened_export_predicts_what_the_study_has_measured(exported: Exported) -> None:
    predictor = study.load(exported.path)
    test, evidence = exported.data.test, exported.report.evidence
    assert evidence is not None
    counts = evidence.splits["test"].tuned_counts
    assert counts is not None
    assert predictor.class_names == exported.data.class_names
    assert predictor.decision.tau == exported.report.metrics["val/tau_miou"] != 0
    classes = predictor(tensors(test.images)).numpy()
    for index, label in enumerate(test.labels):
        assert np.array_equal(predictor.predict(test.images[index]).classes, classes[index])
        for c in range(exported.data.num_classes):
            hits = ((classes[index] == c) & (label == c)).sum()
            called = ((classes[index] == c) & (label != 255)).sum()
            assert (hits, called) == (
                counts[index, 0, c],
                counts[index, 0, c] + counts[index, 1, c],
            )


@pytest.mark.slow
def test_opening_an_export_leaves_the_random_numbers_alone(exported: Exported) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    study.load(exported.path)
    assert torch.equal(torch.rand(2), expected)


def forget(content: dict[str, Any]) -> None:
    del content["weights"]


def mistake(content: dict[str, Any]) -> None:
    content["weights"]["sha256"] = "0" * 64


def outside(content: dict[str, Any]) -> None:
    content["weights"]["file"] = "../best_miou.safetensors"


def elsewhere(content: dict[str, Any]) -> None:
    content["weights"]["file"] = "other.safetensors"


def shorter(content: dict[str, Any]) -> None:
    content["decision"]["log_prior"].pop()


def misspelt(content: dict[str, Any]) -> None:
    content["task"]["model"]["arch"] = "unett"


def widened(content: dict[str, Any]) -> None:
    content["task"]["model"]["kwargs"]["decoder_channels"] = [24, 16, 8]


def somebodys(content: dict[str, Any]) -> None:
    content["task"]["model"] = {"factory": "tiny_task:convolution"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            forget,
            r"best_miou.yaml: weights: the export has no weights; `python -m study.train .*--out",
        ),
        (mistake, r"best_miou.safetensors: the weights are not those that the export names"),
        (outside, r"best_miou.yaml:\d+: weights/file: .*got '../best_miou.safetensors'"),
        (elsewhere, r"best_miou.yaml: its weights are not there: other.safetensors"),
        (
            widened,
            r"best_miou.safetensors: the weights do not fit the export's model: size mismatch",
        ),
        (shorter, r"best_miou.yaml: decision/log_prior: the rule is for 10 classes, .* are for 11"),
        (misspelt, r"best_miou.yaml:\d+: task/model/arch: .* no arch named 'unett'"),
        (somebodys, r"best_miou.yaml:\d+: task/model/factory: .*add --trust"),
    ],
)
def test_an_export_that_cannot_be_opened_is_one_line(
    exported: Exported, tmp_path: Path, change: Any, says: str
) -> None:
    path = exported.changed(tmp_path, change)
    with pytest.raises(InputError, match=says) as caught:
        study.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_weights_without_their_classes_are_refused(exported: Exported, tmp_path: Path) -> None:
    path = exported.changed(tmp_path, lambda content: None)
    weights = path.with_suffix(".safetensors")
    save_file(load_file(weights), weights)
    content = yaml.safe_load(path.read_text())
    content["weights"]["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="does not say which classes"):
        study.load(path)


@pytest.mark.slow
def test_pretrained_weights_are_not_fetched_for_a_network_that_has_its_own(
    exported: Exported, tmp_path: Path
) -> None:
    def pretrained(content: dict[str, Any]) -> None:
        content["task"]["model"]["encoder_weights"] = "no-such-weights"

    assert isinstance(study.load(exported.changed(tmp_path, pretrained)), Predictor)


def test_images_are_bytes_or_floats() -> None:
    predictor = on_the_grid()
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    assert torch.equal(predictor(images), images.argmax(1))
    assert torch.equal(predictor(images.float() / 255), images.argmax(1))
    assert torch.allclose(predictor.logits(images), images.float() / 255)
    for wrong, says in (
        (images[0], r"must be \(B, 3, H, W\), got \(3, 4, 5\)"),
        (images[:, :1], r"must be \(B, 3, H, W\)"),
        (images.int(), "must be uint8, or float in 0..1, got torch.int32"),
    ):
        with pytest.raises(ValueError, match=says):
            predictor(wrong)


def test_images_are_normalised() -> None:
    predictor = on_the_grid(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    found = predictor.logits(torch.full((1, 3, 1, 1), 1.0)).flatten()
    assert found.tolist() == [1.0, 3.0, 0.5]


def test_the_rule_shifts_classes_and_probabilities_alike() -> None:
    shifted = on_the_grid(decision=Decision((-0.1, -1.0, -3.0), 0.5))
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    found = shifted.predict(picture, probabilities=True)
    assert found.probabilities is not None
    assert found.probabilities.shape == (3, 6, 7)
    scores = picture / 255 - 0.5 * np.array([-0.1, -1.0, -3.0])
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    assert np.allclose(found.probabilities, expected.transpose(2, 0, 1), atol=1e-3)
    assert np.array_equal(found.classes, scores.argmax(-1))
    assert shifted.predict(picture).probabilities is None


@pytest.mark.parametrize("size", [(300, 41), (17, 23), (8, 9), (301, 500)])
def test_a_picture_is_brought_to_the_size_of_the_training_and_back(size: tuple[int, int]) -> None:
    predictor = on_the_grid(size=(16, 24))
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    small = np.array(picture.resize((24, 16), Image.Resampling.BILINEAR))
    logits = tensors(small[None]).float() / 255
    expected = F.interpolate(logits, size, mode="bilinear").argmax(1)[0].numpy()
    found = predictor.predict(picture).classes
    assert found.shape == size and found.dtype == np.uint8
    assert (found == expected).mean() > 0.999, "but for ties of rounding"


def test_a_padded_picture_keeps_its_proportions() -> None:
    predictor = on_the_grid(size=(16, 24), fit="pad")
    red, blue = np.zeros((32, 12, 3), np.uint8), np.zeros((32, 12, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    found = predictor.predict(np.concatenate([red, blue], axis=1)).classes
    assert np.array_equal(found, np.repeat([[0] * 12 + [2] * 12], 32, axis=0))


def test_windows_leave_a_picture_at_its_own_size() -> None:
    predictor = on_the_grid(size=(16, 24))
    picture = np.random.default_rng(2).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    assert np.array_equal(predictor.predict(picture, window=(40, 48)).classes, picture.argmax(-1))
    with pytest.raises(ValueError, match="margin must be below half"):
        predictor.predict(picture, window=(40, 48), margin=20)


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    found = on_the_grid().predict(tmp_path / "a.png").classes
    assert np.array_equal(found, np.rot90(picture, -1).argmax(-1))
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8, got \(6, 9\)"):
        on_the_grid().predict(picture[..., 0])
