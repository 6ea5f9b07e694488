"""`python -m study.predict`: masks, overlays and probabilities of people's pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from exported_network import Exported
from PIL import Image

import study
from study.predict import main
from study.storage.weights import weights_block
from study.training.weights import save_weights

pytestmark = pytest.mark.slow


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Five pictures of many sizes and kinds, in two folders, beside what is none."""
    rng = np.random.default_rng(0)
    root = tmp_path / "album"
    (root / "deep" / ".hidden").mkdir(parents=True)
    sizes = {"a.jpg": (40, 50), "a.png": (33, 47), "deep/b.tif": (64, 48), "C.JPEG": (200, 300)}
    for name, size in sizes.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / name)
    Image.fromarray(rng.integers(0, 256, (30, 20), dtype=np.uint8)).save(root / "grey.png")
    (root / "notes.txt").write_text("no picture")
    (root / "deep" / ".hidden" / "x.png").write_bytes(b"nothing")
    return root


NAMES = {
    "a.jpg": "a.jpg",
    "a.png": "a.png",
    "deep/b.tif": "deep/b",
    "C.JPEG": "C",
    "grey.png": "grey",
}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_every_picture_gets_its_mask_and_overlay(
    exported: Exported, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(exported.path), str(album), "--out", str(out), "--device", "cpu"]) == 0
    told = capsys.readouterr()
    assert told.err == "" and told.out.startswith(f"5 pictures predicted: {out}\n")
    assert "note: 1 of them are more than twice as large as the 32x48" in told.out
    expected = {f"{kind}/{name}.png" for kind in ("masks", "overlays") for name in NAMES.values()}
    assert files(out) == expected | {"classes.json"}
    predictor = study.load(exported.path)
    legend = json.loads((out / "classes.json").read_text())
    assert [one["name"] for one in legend] == list(exported.data.class_names)
    palette = np.array([one["color"] for one in legend])
    assert np.array_equal(palette, exported.data.palette)
    for file, name in NAMES.items():
        mask = Image.open(out / "masks" / f"{name}.png")
        assert mask.mode == "P"
        classes = np.asarray(mask)
        assert np.array_equal(classes, predictor.predict(album / file).classes)
        assert np.array_equal(np.asarray(mask.convert("RGB")), palette[classes])
        picture = np.asarray(Image.open(album / file).convert("RGB")).astype(float)
        overlay = np.asarray(Image.open(out / "overlays" / f"{name}.png"))
        assert np.abs(overlay - (picture + palette[classes]) / 2).max() <= 0.5


def test_windows_and_probabilities(exported: Exported, album: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = [str(exported.path), str(album / "C.JPEG"), "--out", str(out), "--device", "cpu"]
    assert main([*given, "--window", "32x48", "--margin", "8", "--probabilities"]) == 0
    found = study.load(exported.path).predict(
        album / "C.JPEG", window=(32, 48), margin=8, probabilities=True
    )
    held = np.load(out / "probabilities" / "C.npz")["probabilities"]
    assert found.probabilities is not None
    assert np.array_equal(held, found.probabilities)
    assert held.shape == (exported.data.num_classes, 200, 300)
    assert np.array_equal(np.asarray(Image.open(out / "masks" / "C.png")), found.classes)
    whole = study.load(exported.path).predict(album / "C.JPEG").classes
    assert not np.array_equal(whole, found.classes)


def test_a_picture_that_cannot_be_read_costs_the_others_nothing(
    exported: Exported, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (album / "bad.png").write_bytes((album / "a.png").read_bytes()[:100])
    out = tmp_path / "out"
    assert main([str(exported.path), str(album), "--out", str(out), "--device", "cpu"]) == 1
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {album}/bad.png: cannot read the image")
    assert told.err.count("\n") == 1
    assert "5 pictures predicted" in told.out
    assert not (out / "masks" / "bad.png").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["empty"], "empty: no picture (.bmp, .gif,"),
        (["album", "album"], "IMAGES: several pictures would be written as"),
        (["album", "--window", "3x4"], "--window: window must be HEIGHTxWIDTH"),
        (["album", "--window", "64x64x64"], "--window: window must be HEIGHTxWIDTH"),
        (["album", "--margin", "4"], "--margin: margin is of windows; give --window, too"),
        (["album", "--window", "32", "--margin", "16"], "margin must be in [0, 15], got 16"),
        (["album", "--device", "tpu"], "cannot use device 'tpu'"),
        (["album", "--out", "album"], "--out: out must be a new or empty folder"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    exported: Exported,
    album: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    assert main([str(exported.path), "--out", "out", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert told.err.startswith("error: ") and says in told.err
    assert files(tmp_path) == before and not (tmp_path / "out").exists()


def narrow(num_classes: int) -> torch.nn.Module:
    """A network that takes no picture higher than 60 pixels."""

    class Narrow(torch.nn.Conv2d):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if images.shape[2] > 60:
                raise ValueError("too high\nfor me")
            return super().forward(images)

    return Narrow(3, num_classes, 1)


def test_a_network_that_fails_on_a_picture_is_a_line(
    exported: Exported, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def foreign(content: dict[str, Any]) -> None:
        content["task"]["model"] = {"factory": f"{__name__}:narrow"}

    path = exported.changed(tmp_path, foreign)
    weights = path.with_suffix(".safetensors")
    save_weights(weights, narrow(exported.data.num_classes), exported.data)
    content = yaml.safe_load(path.read_text()) | weights_block(weights)
    path.write_text(yaml.safe_dump(content))
    given = [str(path), str(album / "C.JPEG"), str(album / "a.png"), "--trust", "--device", "cpu"]
    assert main([*given, "--window", "64x64", "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 2 and "the network fails on" in told.err
    assert r"raised ValueError: too high\nfor me" in told.err
    assert main([*given, "--out", str(tmp_path / "again")]) == 0, "at the training's size it works"
