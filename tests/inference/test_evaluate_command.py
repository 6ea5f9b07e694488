"""`python -m study.evaluate`: an exported network's figures on any labelled pictures."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from exported_network import Exported
from PIL import Image
from tiny_task import TINY

import study
from study.evaluate import main
from study.inference.scoring import folder_of, score

pytestmark = pytest.mark.slow

RULE, ARGMAX = "test/tuned/", "test/"


@pytest.fixture
def town(exported: Exported, tmp_path: Path) -> Path:
    """The test images of the training as files, with the network's own class ids."""
    root = tmp_path / "town"
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    test = exported.data.test
    for name, image, label in zip(test.names, test.images, test.labels, strict=True):
        Image.fromarray(np.asarray(image)).save(root / "images" / f"{name}.png")
        Image.fromarray(np.asarray(label)).save(root / "labels" / f"{name}.png")
    return root


def expect(exported: Exported, metrics: dict[str, float]) -> None:
    stated = exported.report.metrics
    for key in ("miou", "macc", "mprec", "acc", "miou_image", "miou_worst5"):
        assert metrics[key] == pytest.approx(stated[f"{RULE}{key}"], abs=1e-12), key
        assert metrics[f"argmax/{key}"] == pytest.approx(stated[f"{ARGMAX}{key}"], abs=1e-12), key
    for name in exported.data.class_names:
        if f"{RULE}iou/{name}" in stated:
            assert metrics[f"iou/{name}"] == pytest.approx(stated[f"{RULE}iou/{name}"], abs=1e-12)


def test_on_the_studys_own_images_the_figures_are_the_studys(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "task.yaml"
    task.write_text(yaml.safe_dump(TINY))
    assert main([str(exported.path), str(task), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("synthetic: 8 pictures of test, in %\n")
    for key in ("miou", "macc", "acc"):
        shown = re.search(rf"^  {key} +([0-9.]+) +([0-9.]+)$", out, flags=re.MULTILINE)
        assert shown is not None
        stated = [exported.report.metrics[f"{prefix}{key}"] for prefix in (RULE, ARGMAX)]
        assert [float(one) for one in shown.groups()] == [round(100 * one, 2) for one in stated]


def test_a_folder_without_a_word_about_its_classes(exported: Exported, town: Path) -> None:
    predictor = study.load(exported.path)
    found = score(predictor, folder_of(town, predictor, "all"))
    expect(exported, found.metrics)
    assert not (town / "classes.yaml").exists()
    assert len(found.images) == 8
    for name, figures in found.images:
        label = exported.data.test.labels[exported.data.test.names.index(name)]
        image = exported.data.test.images[exported.data.test.names.index(name)]
        classes = predictor.predict(np.asarray(image)).classes
        valid = label != 255
        assert figures["acc"] == pytest.approx((classes == label)[valid].mean())


def test_classes_are_matched_by_name(exported: Exported, town: Path) -> None:
    names = [*exported.data.class_names]
    order = np.random.default_rng(0).permutation(len(names))
    lookup = np.full(256, 255, np.uint8)
    lookup[order] = np.arange(len(names))
    for file in (town / "labels").iterdir():
        Image.fromarray(lookup[np.asarray(Image.open(file))]).save(file)
    content = {"classes": [names[i] for i in order], "splits": {"val": 0.2, "test": 0.2}}
    (town / "classes.yaml").write_text(yaml.safe_dump(content))
    predictor = study.load(exported.path)
    expect(exported, score(predictor, folder_of(town, predictor, "all")).metrics)


def test_the_figures_of_each_picture_as_csv(
    exported: Exported, town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "each.csv"
    given = [str(exported.path), str(town), "--split", "all", "--out", str(out), "--device", "cpu"]
    assert main(given) == 0
    assert f"each picture: {out}" in capsys.readouterr().out
    rows = [*csv.DictReader(out.read_text().splitlines())]
    assert {row["image"] for row in rows} == {*exported.data.test.names}
    mean = np.mean([float(row["miou"]) for row in rows])
    assert mean == pytest.approx(exported.report.metrics[f"{RULE}miou_image"])


@pytest.mark.parametrize(
    ("change", "arguments", "says"),
    [
        (
            "classes: [Road, submarine]",
            [],
            "the network has no class 'submarine'; call it as the network does",
        ),
        ("", [], "which of its images are test; --split all takes"),
        ("", ["--split", "all", "--data-root", "."], "--data-root: DATA is a folder itself"),
        (
            "",
            ["--split", "all", "--out", "/dev/null/x.csv"],
            "--out: cannot write '/dev/null/x.csv'",
        ),
    ],
)
def test_bad_input_is_one_line(
    exported: Exported,
    town: Path,
    capsys: pytest.CaptureFixture[str],
    change: str,
    arguments: list[str],
    says: str,
) -> None:
    if change:
        (town / "classes.yaml").write_text(
            f"{change}\nsplits: {{val: 0.2, test: 0.2}}\nignore: [2..254]"
        )
    assert main([str(exported.path), str(town), "--device", "cpu", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and says in err
