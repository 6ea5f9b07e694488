"""The contact sheet and its colours."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from study.data import SegmentationData
from study.data.formats.voc import voc_palette
from study.data.palette import default_palette, oklab
from study.data.sheet import write_sheet


def sheet_of(tmp_path, labels, num_classes, **given):
    names = [f"class {index}" for index in range(num_classes)]
    part = np.full((*labels.shape, 3), 128, np.uint8), labels
    data = SegmentationData.from_arrays("drawn", names, train=part, val=part, test=part, **given)
    write_sheet(data, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        return data, np.asarray(sheet.convert("RGB"))


@pytest.mark.parametrize("palette", [None, [[0, 0, 0], [255, 255, 255]]])
def test_ignored_pixels_are_hatched_over_any_colour(tmp_path, palette):
    labels = np.zeros((1, 120, 160), np.uint8)
    labels[:, :, 40:80], labels[:, :, 80:] = 1, 255
    data, sheet = sheet_of(tmp_path, labels, 2, palette=palette)
    drawn = sheet[14 : 14 + 120, 160:320]
    assert (drawn[:, :40] == data.palette[0]).all()
    assert (drawn[:, 40:80] == data.palette[1]).all()
    ignored = drawn[:, 80:]
    assert {tuple(colour) for colour in ignored.reshape(-1, 3)} == {(0, 0, 0), (255, 255, 255)}
    squares = ignored[:120, :72].reshape(12, 10, 8, 9, 3).mean((1, 3))
    assert squares.min() > 60  # both in every 10 by 9 pixels
    assert squares.max() < 195


@pytest.mark.parametrize("num_classes", [2, 60])
def test_the_legend_has_all_colours_in_order(tmp_path, num_classes):
    labels = np.zeros((1, 120, 160), np.uint8)
    data, sheet = sheet_of(tmp_path, labels, num_classes)
    legend = sheet[:, 320:]
    for colour in data.palette:
        assert (legend == colour).all(2).sum() >= 100
    assert sheet.shape[1] == 320 + (150 if num_classes == 2 else 450)


def test_a_given_colour_stays(tmp_path):
    labels = np.zeros((1, 120, 160), np.uint8)
    _, sheet = sheet_of(tmp_path, labels, 1, palette=[[250, 251, 252]])
    assert (sheet[14 : 14 + 120, 160:320] == [250, 251, 252]).all()


def test_default_colours_are_apart_from_each_other_and_from_black_white_and_grey():
    palette = default_palette(255)
    assert (default_palette(21) == palette[:21]).all()
    for number, least in ((2, 0.3), (11, 0.2), (21, 0.13), (255, 0.04)):
        found = oklab(np.vstack([palette[:number], np.uint8([[0] * 3, [128] * 3, [255] * 3])]))
        apart = np.linalg.norm(found[:, None] - found, axis=2) + 9 * np.eye(len(found))
        assert apart[:number].min() > least, number


def test_pascal_voc_keeps_its_colours():
    palette = voc_palette(21)
    assert palette[[0, 1, 15, 20]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [192, 128, 128],
        [0, 64, 128],
    ]
