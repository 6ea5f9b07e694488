"""Folder data sets: what is read, and how."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import folder_data
import numpy as np
import pytest
from PIL import ExifTags, Image

from study.core.errors import InputError
from study.data import open_data


def test_images_and_labels_are_read_as_they_are(root, open_root):
    data = open_root()
    assert (len(data.train), len(data.val), len(data.test)) == (3, 2, 2)
    assert data.class_names == ("road", "car", "pole")
    assert data.train.names == ("000", "001", "002")
    expected = np.asarray(Image.open(root / "images" / "train" / "001.png"))
    assert np.array_equal(data.train.images[1], expected)
    assert np.array_equal(data.train.labels[1], folder_data.quadrants())
    assert data.train.class_counts.tolist() == [[48, 48, 48]] * 3


def test_palette_labels_keep_their_indices_whatever_their_colours(root, open_root):
    label = Image.fromarray(folder_data.quadrants())
    label.putpalette([255, 0, 0] * 256)  # every index the same colour
    assert label.mode == "P"
    label.save(root / "labels" / "train" / "001.png")
    assert np.array_equal(open_root().train.labels[1], folder_data.quadrants())


def test_labels_are_resized_to_values_that_were_there(open_root):
    data = open_root(size=[9, 11])
    assert data.train.images.shape == (3, 9, 11, 3)
    assert set(np.unique(data.train.labels)) == {0, 1, 2, 255}
    assert data.train.labels[0][0, 0] == 0
    assert data.train.labels[0][-1, -1] == 255


def test_images_are_resized_with_antialiasing(root, open_root):
    board = np.indices((12, 16)).sum(0) % 2 * 255
    checkers = np.repeat(board[:, :, None], 3, 2).astype(np.uint8)
    Image.fromarray(checkers).save(root / "images" / "train" / "000.png")
    shrunk = open_root(size=[8, 8]).train.images[0]
    assert np.abs(shrunk.astype(int) - 127).max() < 80  # picking pixels would give 0 and 255


def test_grey_images_become_rgb(root, open_root):
    grey = np.full((12, 16), 77, np.uint8)
    Image.fromarray(grey).save(root / "images" / "train" / "000.png")
    assert (open_root().train.images[0] == 77).all()


def test_jpeg_and_png_images_can_be_mixed(root, open_root):
    file = root / "images" / "train" / "000.png"
    Image.open(file).save(file.with_suffix(".jpg"))
    file.unlink()
    assert len(open_root().train) == 3


@pytest.mark.parametrize(
    ("orientation", "as_stored"),
    [(5, "TRANSPOSE"), (6, "ROTATE_90"), (7, "TRANSVERSE"), (8, "ROTATE_270")],
)
def test_a_photograph_is_turned_as_its_label_is(root, open_root, orientation, as_stored):
    upright = Image.open(root / "images" / "train" / "000.png")
    folder_data.save_turned(root, orientation, upright.transpose(Image.Transpose[as_stored]))
    assert np.array_equal(open_root().train.images[0], np.asarray(upright))
    folder_data.save_turned(root, orientation, upright)  # labels of the pixels as they are stored
    assert np.array_equal(open_root().train.images[0], np.asarray(upright))


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_a_turned_photograph_of_another_format_is_turned_too(root, open_root, suffix):
    (root / "classes.yaml").write_text(f"classes: [a, b, c]\nimage_suffix: {suffix}")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for index, file in enumerate(sorted(root.glob("images/*/*.png"))):
        bright = np.zeros((12, 16, 3), np.uint8)
        bright[:, 8:] = 255 - 5 * index
        stored = Image.fromarray(bright).transpose(Image.Transpose.ROTATE_90)
        stored.save(file.with_suffix(suffix), exif=exif)
        file.unlink()
    shown = open_root().train.images[0]
    assert shown[:, :6].max() < 60
    assert shown[:, 10:].min() > 200


@pytest.mark.slow
def test_large_images_and_damaged_exif_say_nothing_on_stderr(root, tmp_path):
    """In a process of its own, as pytest takes warnings for itself."""
    file = root / "images" / "train" / "000.png"
    Image.open(file).copy().save(file.with_suffix(".jpg"), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\0")
    file.unlink()
    code = (
        "import sys, folder_data; from pathlib import Path; from PIL import Image; "
        "from study.data import open_data; Image.MAX_IMAGE_PIXELS = 150; "
        "open_data(folder_data.config(), data_root=Path(sys.argv[1]), cache_dir=Path(sys.argv[2]))"
    )
    here = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, str(root), str(tmp_path / "cache")],
        env={**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_files_that_a_file_system_numbers_alike_are_told_apart_by_content(
    root, open_root, monkeypatch
):
    stat = Path.stat

    def numbered_alike(path, **options):
        found = stat(path, **options)
        return os.stat_result((found.st_mode, 0, *found[2:]), {"st_mtime_ns": 0, "st_ctime_ns": 0})

    monkeypatch.setattr("study.data.scan._stat", numbered_alike)
    assert len(open_root().train) == 3


def test_an_orientation_that_says_nothing_is_left_alone(root, open_root):
    image = Image.open(root / "images" / "train" / "000.png").copy()
    for orientation in (1, 0, 9):
        folder_data.save_turned(root, orientation, image)
        assert np.array_equal(open_root().train.images[0], np.asarray(image))
    image.save(root / "images" / "train" / "000.png", exif=b"Exif\0\0no such thing")
    assert np.array_equal(open_root().train.images[0], np.asarray(image))


def test_hidden_files_and_notes_are_left_alone(root, open_root):
    (root / "images" / "train" / "._000.png").write_bytes(b"of another system")
    (root / "images" / "train" / "notes.txt").write_text("taken in May")
    assert len(open_root().train) == 3


def test_another_ignore_index_is_kept(root, open_root):
    (root / "classes.yaml").write_text("classes: [road, car, pole]\nignore_index: 7")
    for file in root.glob("labels/*/*.png"):
        label = folder_data.quadrants()
        label[label == 255] = 7
        Image.fromarray(label).save(file)
    data = open_root()
    assert data.ignore_index == 7
    assert data.train.class_counts.sum() == 3 * 3 * 48


def test_test_images_are_grouped_by_neighbourhood(open_root):
    data = open_root(block=2)
    assert data.train.groups.tolist() == [0, 0, 1]


def test_resplit_moves_blocks_from_train_to_val_and_leaves_test(tmp_path):
    root = folder_data.write_folder(tmp_path / "clip", train=6, val=4, test=2)
    for split in ("images", "labels"):
        for file in (root / split / "val").iterdir():
            file.rename(file.with_name(f"1{file.name}"))  # later frames
    rule = {"block": 2, "every": 2, "thin": {"val": 2}}
    data = open_data(folder_data.config(resplit=rule), data_root=root, cache_dir=tmp_path / "c")
    assert data.train.names == ("000", "001", "004", "005")
    assert data.val.names == ("002", "003", "1000", "1002")
    assert data.test.names == ("000", "001")
    assert data.val.groups.tolist() == [1, 1, 3, 3]
    frame = np.asarray(Image.open(root / "images" / "val" / "1002.png"))
    assert np.array_equal(data.val.images[3], frame)


def test_pooling_train_alone_needs_no_val_folder(root, open_root):
    shutil.rmtree(root / "images" / "val")
    shutil.rmtree(root / "labels" / "val")
    data = open_root(resplit={"pool": ["train"], "block": 1, "every": 3})
    assert data.val.names == ("002",)


def test_a_palette_with_transparency_says_nothing(root, open_root, recwarn):
    for folder in ("images", "labels"):
        file = root / folder / "train" / "001.png"
        with Image.open(file) as image:
            paletted = image.convert("P") if folder == "images" else image.copy()
        paletted.putpalette([*range(256)] * 3)
        paletted.save(file, transparency=bytes(range(256)))
    assert np.array_equal(open_root().train.labels[1], folder_data.quadrants())
    assert not recwarn.list


def test_a_home_that_nobody_has_is_named(tmp_path):
    says = "unknown home folder in '~nosuchuser/x'"
    with pytest.raises(InputError, match=f"^--data-root: {says}"):
        open_data(folder_data.config(), data_root=Path("~nosuchuser/x"), cache_dir=tmp_path)
    with pytest.raises(InputError, match=f"^data/root: {says}"):
        open_data(folder_data.config(root="~nosuchuser/x"), cache_dir=tmp_path)


def test_a_root_that_no_file_system_takes_does_not_exist(tmp_path):
    with pytest.raises(InputError, match="the data root does not exist"):
        open_data(folder_data.config(), data_root=tmp_path / ("x" * 300), cache_dir=tmp_path)


def test_no_root_asks_for_the_flag(tmp_path):
    with pytest.raises(
        InputError, match=r"data/root: missing required key 'root'; .* --data-root DIR"
    ):
        open_data(folder_data.config(), cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "what"), [("nowhere", "does not exist"), ("file", "must be a folder, got a file")]
)
def test_a_root_that_is_not_there_is_named(tmp_path, name, what):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"{name}: the data root {what}"):
        open_data(folder_data.config(), data_root=tmp_path / name, cache_dir=tmp_path)


def test_the_root_given_goes_before_the_one_that_the_task_states(root, tmp_path):
    data = open_data(folder_data.config(root="nowhere"), data_root=root, cache_dir=tmp_path)
    assert len(data.train) == 3
    assert len(open_data(folder_data.config(root=str(root)), cache_dir=tmp_path).train) == 3
