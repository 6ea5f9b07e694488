"""python -m study.data."""

from __future__ import annotations

import folder_data
import numpy as np
import pytest
import yaml
from PIL import Image

from study.data import SegmentationData
from study.data.__main__ import main
from study.data.check import describe
from study.data.presence import class_warnings
from study.data.sheet import write_sheet


@pytest.mark.slow
def test_a_shipped_task_is_checked_and_described(capsys, tmp_path):
    assert main(["tiny", "--out", str(tmp_path / "sheet.png")]) == 0
    printed = capsys.readouterr().out
    assert "synthetic: 11 classes, images of 32x48" in printed
    assert "train     24 images in 24 blocks" in printed
    row = next(line for line in printed.splitlines() if line.strip().startswith("Road"))
    assert 30 < float(row.split()[1]) < 50
    assert row.split()[2] == "24"
    assert "cache: " in printed
    assert "fingerprint: " in printed
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 3 * 120
        assert sheet.width > 10 * 48 * 4
        colours = np.unique(np.asarray(sheet).reshape(-1, 3), axis=0).tolist()
    assert [128, 64, 128] in colours  # road


@pytest.fixture
def task(tmp_path, tiny_task):
    tiny_task["data"] = {"format": "folder", "size": [12, 16]}
    file = tmp_path / "town.yaml"
    file.write_text(yaml.safe_dump(tiny_task))
    return str(file)


def test_a_task_of_ones_own_is_checked(capsys, tmp_path, task):
    root = folder_data.write_folder(tmp_path / "town")
    assert main([task, "--data-root", str(root)]) == 0
    printed = capsys.readouterr().out
    assert "25.00% ignored" in printed
    row = next(line for line in printed.splitlines() if line.strip().startswith("road"))
    assert "test is as published; train and val are as published" in printed
    assert row.split() == [
        "road",
        *(["33.33", "33.33", images][i] for images in "322" for i in range(3)),
    ]
    assert "fewer than 5 images of val: road (2), car (2), pole (2)" in printed


@pytest.mark.parametrize(
    "arguments",
    [["tinny"], ["{task}"], ["{task}", "--data-root", "nowhere"], ["tiny", "--data-root", "."]],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, task, arguments):
    assert main([argument.format(task=task) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_a_sheet_that_cannot_be_written_is_exit_code_2(capsys, tmp_path):
    assert main(["tiny", "--out", str(tmp_path / "no" / "sheet.png")]) == 2
    assert "sheet.png: cannot write the contact sheet" in capsys.readouterr().err


def test_sizes_of_files_are_told_and_changed_proportions_pointed_at(capsys, tmp_path, task):
    root = folder_data.write_folder(tmp_path / "town")
    assert main([task, "--data-root", str(root)]) == 0
    printed = capsys.readouterr().out
    assert "files: 7 images of 12x16\n" in printed
    assert "proportions" not in printed
    for folder, pixels in (("images", (12, 18, 3)), ("labels", (12, 18))):
        Image.fromarray(np.zeros(pixels, np.uint8)).save(root / folder / "val" / "000.png")
    assert main([task, "--data-root", str(root)]) == 0
    printed = capsys.readouterr().out
    assert "files: 7 images of 2 sizes, 12x16 to 12x18" in printed
    assert (
        "warning: images that change their proportions by more than 5% at 12x16: 1; `fit" in printed
    )
    text = yaml.safe_load((tmp_path / "town.yaml").read_text())
    text["data"]["fit"] = "pad"
    (tmp_path / "town.yaml").write_text(yaml.safe_dump(text))
    assert main([task, "--data-root", str(root)]) == 0
    assert "proportions" not in capsys.readouterr().out


def test_a_sheet_of_large_images_stays_small(tmp_path):
    board = np.indices((615, 411)).sum(0).astype(np.uint8) % 2
    pair = np.repeat(board[None, :, :, None] * 200, 3, 3), board[None]
    data = SegmentationData.from_arrays("large", ["a", "b"], train=pair, val=pair, test=pair)
    write_sheet(data, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (sheet.height, sheet.width) == (3 * (123 + 14), 2 * 83 + 150)
        image = np.asarray(sheet)[14:130, :80]
    assert image.min() > 90  # averages of the board, none of its pixels
    assert image.max() < 110


def test_classes_that_cannot_be_judged_are_pointed_at():
    def pair(num, *classes):
        labels = np.zeros((num, 2, 2), np.uint8)
        labels[:, 0, : len(classes)] = classes
        return np.zeros((num, 2, 2, 3), np.uint8), labels

    data = SegmentationData.from_arrays(
        "few",
        ["a", "b", "c", "d", "e", "f"],
        train=pair(9, 1, 3),
        val=pair(5, 1, 4),
        test=pair(9, 1, 2),
    )
    assert class_warnings(data) == [
        "in no image at all (decoded labels hold 0 to 5, 255 is ignored): f",
        "in no image of test, so not judged: d, e",
        "in test but in no image of train: c",
        "in test but in fewer than 5 images of val: c (0)",
    ]
    assert "warning: in test but in no image of train: c" in describe(data).splitlines()
