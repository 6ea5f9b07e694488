"""Ids, colours and 16-bit labels: what they mean in each format, and what has no meaning."""

from __future__ import annotations

from pathlib import Path

import file_trees
import numpy as np
import pytest
from file_trees import HEIGHT, WIDTH, every, save, save_16_bit, save_mat, save_palette
from PIL import Image
from pydantic import TypeAdapter

from study.config.task import Data, FileData
from study.data import scan_files
from study.data.labels import read_low_bytes
from study.data.splits import FileProblem

VOID = 255
# what stands in the file -> the class it means; all else is ignored
CITYSCAPES = {
    **{7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11},
    **{25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18},
}
SYNTHIA_16 = {
    **{1: 9, 2: 2, 3: 0, 4: 1, 5: 4, 6: 8, 7: 5, 8: 12, 9: 7, 10: 10, 11: 15, 12: 14},
    **{15: 6, 17: 11, 19: 13, 21: 3},
}
SYNTHIA_13 = {
    **{3: 0, 4: 1, 2: 2, 15: 3, 9: 4, 6: 5, 1: 6, 10: 7, 17: 8, 8: 9, 19: 10, 12: 11, 11: 12}
}
DEEPGLOBE = {
    (0, 255, 255): 0,
    (255, 255, 0): 1,
    (255, 0, 255): 2,
    (0, 255, 0): 3,
    (0, 0, 255): 4,
    (255, 255, 255): 5,
}
CAMVID_11 = {
    (128, 128, 128): 0,
    **dict.fromkeys(
        [(128, 0, 0), (0, 128, 64), (64, 192, 0), (64, 0, 64), (192, 0, 128)], 1
    ),
    **dict.fromkeys([(192, 192, 128), (0, 0, 64)], 2),
    **dict.fromkeys([(128, 64, 128), (128, 0, 192), (192, 0, 64)], 3),
    **dict.fromkeys([(0, 0, 192), (64, 192, 128), (128, 128, 192)], 4),
    **dict.fromkeys([(128, 128, 0), (192, 192, 0)], 5),
    **dict.fromkeys([(192, 128, 128), (128, 128, 64), (0, 64, 64)], 6),
    (64, 64, 128): 7,
    **dict.fromkeys(
        [(64, 0, 128), (64, 128, 192), (192, 128, 192), (192, 64, 128), (128, 64, 64)], 8
    ),
    **dict.fromkeys([(64, 64, 0), (192, 128, 64), (64, 0, 192), (64, 128, 64)], 9),
    **dict.fromkeys([(0, 128, 192), (192, 0, 192)], 10),
}  # fmt: skip


@pytest.fixture
def read(tmp_path):
    """Reads a file as the labels of a format are read."""

    def read_label(file: Path, name: str, **changes) -> np.ndarray:
        root = tmp_path / f"root of {name}"
        if not root.exists():
            file_trees.TREES[name].write(root)
        config = TypeAdapter[Data](Data).validate_python(file_trees.data(name, **changes))
        assert isinstance(config, FileData)
        return scan_files(config, root).read_label(file)

    return read_label


def means(values, classes) -> np.ndarray:
    """(12, 16): the class of every value in turn."""
    return every([classes.get(value, VOID) for value in values])


def test_cityscapes_ids_become_train_ids(tmp_path, read):
    file = tmp_path / "ulm_000000_000019_gtFine_labelIds.png"
    save(every(range(34)), file)
    assert np.array_equal(read(file, "cityscapes"), means(range(34), CITYSCAPES))


def test_cityscapes_train_ids_are_kept(tmp_path, read):
    file = tmp_path / "ulm_000000_000019_gtFine_labelTrainIds.png"
    save(every([*range(19), VOID]), file)
    assert np.array_equal(read(file, "cityscapes"), every([*range(19), VOID]))
    save(every(range(34)), file)
    with pytest.raises(FileProblem, match=r"must be 0 to 18 or 255, got .* and 7 more"):
        read(file, "cityscapes")


@pytest.mark.parametrize(("num_classes", "classes"), [(16, SYNTHIA_16), (13, SYNTHIA_13)])
def test_synthia_ids_are_the_low_bytes_of_the_first_channel(tmp_path, read, num_classes, classes):
    rgb = np.zeros((HEIGHT, WIDTH, 3), int)
    rgb[..., 0], rgb[..., 1] = every(range(23)), 300  # an instance
    save_16_bit(rgb, tmp_path / "label.png")
    with Image.open(tmp_path / "label.png") as image:
        assert (np.asarray(image)[..., 0] == 0).all()  # what Pillow makes of it by itself
    labels = read(tmp_path / "label.png", "synthia", num_classes=num_classes)
    assert np.array_equal(labels, means(range(23), classes))


def test_a_synthia_id_beyond_the_low_byte_is_no_class(tmp_path, read):
    rgb = np.zeros((HEIGHT, WIDTH, 3), int)
    rgb[3, 4, 0] = 259
    save_16_bit(rgb, tmp_path / "label.png")
    with pytest.raises(FileProblem, match="low bytes of the first channel, got 259"):
        read(tmp_path / "label.png", "synthia")


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("name", ["camvid", "deepglobe"])
def test_colours_of_16_bits_are_refused(tmp_path, read, name, channels):
    save_16_bit(np.full((HEIGHT, WIDTH, channels), 128), tmp_path / "label.png")
    with pytest.raises(FileProblem, match=r"must be painted in RGB .* got mode RGBA? of 16 bits"):
        read(tmp_path / "label.png", name)


def test_a_synthia_label_of_8_bits_is_refused(tmp_path, read):
    save(np.zeros((HEIGHT, WIDTH, 3)), tmp_path / "label.png")
    with pytest.raises(FileProblem, match="must be a 16-bit RGB PNG, got RGB"):
        read(tmp_path / "label.png", "synthia")


def test_low_bytes_are_exact_under_every_filter_of_png(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 2**16, (25, 9, 3))
    save_16_bit(rgb, tmp_path / "noise.png")
    assert np.array_equal(read_low_bytes(tmp_path / "noise.png"), rgb % 256)


def test_voc_palette_indices_are_never_colours(tmp_path, read):
    save_palette(every([*range(21), VOID]), tmp_path / "label.png")
    assert np.array_equal(read(tmp_path / "label.png", "voc"), every([*range(21), VOID]))
    with Image.open(tmp_path / "label.png") as image:
        image.convert("RGB").save(tmp_path / "colours.png")
    with pytest.raises(FileProblem, match=r"must be an 8-bit index PNG .* got mode RGB"):
        read(tmp_path / "colours.png", "voc")


def test_sbd_masks_come_out_of_their_struct(tmp_path, read):
    save_mat(every(range(21)), tmp_path / "label.mat")
    assert np.array_equal(read(tmp_path / "label.mat", "voc"), every(range(21)))


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "cannot read"), (b"not a matrix" * 40, "cannot read"), (21, "got 21")],
)
def test_a_damaged_sbd_mask_is_named(tmp_path, read, content, says):
    file = tmp_path / "label.mat"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        save_mat(np.full((HEIGHT, WIDTH), content), file)
    with pytest.raises(FileProblem, match=says):
        read(file, "voc")


def test_deepglobe_colours_are_cut_at_128(tmp_path, read):
    values = [*DEEPGLOBE, (0, 0, 0)]
    rng = np.random.default_rng(0)
    impure = every(values)
    impure = np.where(impure == 255, 255 - rng.integers(0, 128, impure.shape), impure)
    impure = np.where(impure == 0, rng.integers(0, 128, impure.shape), impure)
    save(impure, tmp_path / "mask.png")
    assert np.array_equal(read(tmp_path / "mask.png", "deepglobe"), means(values, DEEPGLOBE))


def test_camvid_colours_become_the_11_classes_or_31(tmp_path, read):
    from study.data.formats.camvid import COLOURS

    assert {*CAMVID_11, (0, 0, 0)} == {*COLOURS.values()}
    values = list(COLOURS.values())
    save(every(values), tmp_path / "0016E5_00390_L.png")
    eleven = read(tmp_path / "0016E5_00390_L.png", "camvid")
    assert np.array_equal(eleven, means(values, CAMVID_11))
    named = [colour for name, colour in COLOURS.items() if name != "Void"]
    all_of_them = read(tmp_path / "0016E5_00390_L.png", "camvid", num_classes=31)
    classes = {colour: index for index, colour in enumerate(named)}
    assert np.array_equal(all_of_them, means(values, classes))


@pytest.mark.parametrize("name", ["camvid", "deepglobe"])
def test_a_few_pixels_of_unknown_colour_are_ignored_and_more_are_a_fault(tmp_path, read, name):
    label = np.tile(np.array([0, 0, 0]), (HEIGHT, WIDTH, 1))
    label[0, 0] = 255, 1, 1
    save(label, tmp_path / "label.png")
    assert (read(tmp_path / "label.png", name) == VOID).all()
    label[0, :4] = 255, 1, 1
    save(label, tmp_path / "label.png")
    with pytest.raises(FileProblem, match=r"got 2.1%, most of them \(255, 1, 1\)"):
        read(tmp_path / "label.png", name)


@pytest.mark.parametrize("name", ["camvid", "deepglobe"])
def test_an_index_label_is_no_colour_label(tmp_path, read, name):
    save(np.zeros((HEIGHT, WIDTH)), tmp_path / "label.png")
    with pytest.raises(FileProblem, match="must be painted in RGB colours, got mode L"):
        read(tmp_path / "label.png", name)
