"""`convert arrays`: arrays and deep pictures become pictures, whose labels keep their values."""

from __future__ import annotations

import gzip
import io
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.io import savemat

from study.core.errors import InputError
from study.data.__main__ import main as command
from study.data.convert.arrays import convert_arrays

SHAPE = (24, 32)
COUNT = 3
Convert = Callable[..., str]


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A photograph, and its label of the classes 0, 1 and 2."""
    label = np.zeros(SHAPE, np.uint8)
    label[4 + number : 14, 3:15], label[15:20, 18:30] = 1, 2
    noise = np.random.default_rng(number).integers(0, 60, (*SHAPE, 3))
    return (noise + 60 * label[..., None]).astype(np.uint8), label


@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Convert:
    def run(*flags: str, code: int = 0) -> str:
        paths = str(tmp_path / "src"), str(tmp_path / "new/dst")
        assert command(["convert", "arrays", *paths, *flags]) == code
        told = capsys.readouterr()
        assert (tmp_path / "new/dst").exists() == (code == 0)
        return told.err if code else told.out

    return run


def read(tmp_path: Path, name: str) -> np.ndarray:
    with Image.open(tmp_path / "new/dst" / name) as picture:
        return np.asarray(picture)


def write(root: Path, save: Callable[[Path, int, np.ndarray, np.ndarray], None]) -> None:
    root.mkdir()
    for number in range(COUNT):
        save(root, number, *scene(number))


def npy(root: Path, number: int, photo: np.ndarray, label: np.ndarray) -> None:
    for name, array in (("images", np.moveaxis(photo, -1, 0)), ("masks", label.astype(np.int64))):
        (root / name).mkdir(exist_ok=True)
        np.save(root / name / f"{number}.npy", array)


def one_hot(root: Path, number: int, photo: np.ndarray, label: np.ndarray) -> None:
    for name, array in (("images", photo), ("masks", np.eye(3, dtype=np.float32)[label])):
        (root / name).mkdir(exist_ok=True)
        np.save(root / name / f"{number}.npy", array)


def npz(root: Path, number: int, photo: np.ndarray, label: np.ndarray) -> None:
    np.savez(root / f"{number}.npz", images=photo / 255, masks=label)


def matlab(root: Path, number: int, photo: np.ndarray, label: np.ndarray) -> None:
    savemat(root / f"{number}.mat", {"images": photo, "masks": label.astype(float)})


@pytest.mark.parametrize("save", [npy, one_hot, npz, matlab])
def test_images_and_labels_are_what_they_were(tmp_path, convert, save) -> None:
    write(tmp_path / "src", save)
    assert "  masks: labels\n" in convert()
    for number in range(COUNT):
        photo, label = scene(number)
        assert np.array_equal(read(tmp_path, f"images/{number}.png"), photo)
        assert np.array_equal(read(tmp_path, f"masks/{number}.png"), label)


def test_pictures_and_lists_are_copied(tmp_path, convert) -> None:
    write(tmp_path / "src", npy)
    Image.fromarray(scene(0)[0]).save(tmp_path / "src/images/photo.jpg")
    (tmp_path / "src/train.txt").write_text("0")
    (tmp_path / "src/notes.doc").write_text("0")
    assert "note: files that are neither, left out: 1\n" in convert()
    for name in ("images/photo.jpg", "train.txt"):
        copied = (tmp_path / "new/dst" / name).read_bytes()
        assert copied == (tmp_path / "src" / name).read_bytes()
    assert not (tmp_path / "new/dst/notes.doc").exists()


def test_stacks_are_cut_into_pictures(tmp_path, convert) -> None:
    photos, labels = zip(*map(scene, range(COUNT)), strict=True)
    (tmp_path / "src").mkdir()
    np.save(tmp_path / "src/x_train.npy", np.stack(photos))
    np.save(tmp_path / "src/y_train.npy", np.stack(labels)[..., None])
    for name, some in (("volume", [one[..., 0] for one in photos]), ("labels", labels)):
        first, *more = map(Image.fromarray, some)
        first.save(tmp_path / f"src/train-{name}.tif", save_all=True, append_images=more)
    convert()
    for number in range(COUNT):
        assert np.array_equal(read(tmp_path, f"x_train/{number:03d}.png"), photos[number])
        assert np.array_equal(read(tmp_path, f"y_train/{number:03d}.png"), labels[number])
        assert np.array_equal(
            read(tmp_path, f"train-volume/{number:03d}.png"), photos[number][..., 0]
        )
        assert np.array_equal(read(tmp_path, f"train-labels/{number:03d}.png"), labels[number])


def nifti(array: np.ndarray, path: Path, code: int, slope: float, intercept: float) -> None:
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, array.ndim, *array.shape, *[1] * (7 - array.ndim))
    struct.pack_into("<h", head, 70, code)
    struct.pack_into("<3f", head, 108, 352, slope, intercept)
    head[344:348] = b"n+1\0"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(bytes(head) + array.tobytes(order="F")))


def test_volumes_are_cut_into_slices_in_their_scale(tmp_path, convert) -> None:
    (tmp_path / "src").mkdir()
    photo, label = scene(0)
    for case in (1, 2):
        scan = np.stack([photo[..., 0].T.astype(np.int16)] * 20, -1)
        nifti(scan, tmp_path / f"src/imagesTr/case_{case}_0000.nii.gz", 4, 2.0, -100.0)
        nifti(np.stack([label.T] * 20, -1), tmp_path / f"src/labelsTr/case_{case}.nii.gz", 2, 0, 0)
    told = convert("--range", "-100", "200")
    assert "  imagesTr: images, of which -100..200 becomes 0..255\n" in told
    expected = (photo[..., 0].astype(float) * 2 * 255 / 300).clip(0, 255)
    assert np.abs(read(tmp_path, "imagesTr/case_2_019.png") - expected).max() <= 0.6
    assert np.array_equal(read(tmp_path, "labelsTr/case_2_019.png"), label)


def test_modalities_of_a_volume_are_its_bands(tmp_path, convert) -> None:
    (tmp_path / "src").mkdir()
    photo, label = scene(0)
    bands = photo.transpose(1, 0, 2).astype(np.int16)
    both = np.stack([bands, bands], 2)[..., [0, 1, 2, 0]]  # (W, H, 2 slices, 4 modalities)
    for case in (1, 2):
        nifti(both, tmp_path / f"src/imagesTr/case_{case}.nii.gz", 4, 1.0, 0.0)
        nifti(np.stack([label.T] * 2, -1), tmp_path / f"src/labelsTr/case_{case}.nii.gz", 2, 0, 0)
    told = convert("--range", "0", "255", "--bands", "3", "2", "4")
    assert "note: images of 4 bands, of which [3, 2, 4] are kept (--bands): 4" in told
    assert np.array_equal(read(tmp_path, "imagesTr/case_1_001.png"), photo[..., [2, 1, 0]])
    assert np.array_equal(read(tmp_path, "labelsTr/case_1_001.png"), label)


def test_a_parquet_file_without_pictures_may_hold_codes(tmp_path) -> None:
    pd = pytest.importorskip("pandas")
    pd.DataFrame({"id": ["a"], "rle": ["1 2"]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(InputError, match="`convert rle` reads run-length codes"):
        convert_arrays(tmp_path, tmp_path / "made")


def test_volumes_over_time_are_refused(tmp_path) -> None:
    nifti(np.zeros((4, 4, 2, 40), np.int16), tmp_path / "images/a.nii.gz", 4, 1.0, 0.0)
    with pytest.raises(InputError, match=r"a\.nii\.gz: the volume has the sides \[4, 4, 2, 40\]"):
        convert_arrays(tmp_path, tmp_path / "made")


def test_volumes_beside_those_of_their_labels_go_to_two_folders(tmp_path, convert) -> None:
    for patient in (1, 2):
        photos, labels = zip(*map(scene, range(COUNT)), strict=True)
        above = tmp_path / f"src/patient{patient}"
        above.mkdir(parents=True)
        for end, pictures in (("", photos), ("_gt", labels), ("2", photos), ("2_gt", labels)):
            grey = [one[..., 0] if one.ndim == 3 else one for one in pictures]
            scale = 1 if end.endswith("gt") else 8 * patient
            volume = np.stack(grey, -1).astype(np.int16) * scale
            nifti(volume.transpose(1, 0, 2), above / f"frame{end}.nii.gz", 4, 1.0, 0.0)
    told = convert()
    assert np.array_equal(read(tmp_path, "patient1/labels/frame2_001.png"), scene(1)[1])
    ranges = {line.partition("which ")[2] for line in told.splitlines() if "images: " in line}
    assert len(ranges) == 1  # whatever the patient
    one, two = (read(tmp_path, f"patient{at}/images/frame_001.png").mean() for at in (1, 2))
    assert 1.7 < two / one < 2.3


def test_structures_of_matlab_are_opened(tmp_path, convert) -> None:
    def save(root: Path, number: int, photo: np.ndarray, label: np.ndarray) -> None:
        truth = {"Segmentation": label.astype(np.uint16), "Note": "by hand"}
        savemat(root / f"{number}.mat", {"truth": truth, "photo": photo})

    write(tmp_path / "src", save)
    convert()
    assert np.array_equal(read(tmp_path, "truth_Segmentation/1.png"), scene(1)[1])


def test_channels_that_number_objects_are_classes(tmp_path, convert) -> None:
    (tmp_path / "src").mkdir()
    _, label = scene(1)
    channels = [np.where(label == 1, 7, 0), np.where(label == 2, 3, 0), 0 * label, label == 0]
    np.save(tmp_path / "src/masks.npy", np.stack(channels, -1).astype(float)[None])
    assert "note: labels whose channels number objects" in convert()
    assert np.array_equal(read(tmp_path, "masks/000.png"), np.array([3, 0, 1])[label])


def test_pictures_in_a_table_are_numbered(tmp_path, convert) -> None:
    pd = pytest.importorskip("pandas")
    rows = []
    for number in range(COUNT):
        row = {}
        for name, array in zip(("image", "label"), scene(number), strict=True):
            Image.fromarray(array).save(content := io.BytesIO(), "PNG")
            row[name] = {"bytes": content.getvalue(), "path": None}
        rows.append(row)
    (tmp_path / "src/data").mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(tmp_path / "src/data/train-00000-of-00001.parquet")
    convert()
    name = "train-00000-of-00001_002.png"
    assert np.array_equal(read(tmp_path, f"train/image/{name}"), scene(2)[0])
    assert np.array_equal(read(tmp_path, f"train/label/{name}"), scene(2)[1])


def test_one_range_brings_all_deep_images_to_8_bits(tmp_path, convert) -> None:
    (tmp_path / "src").mkdir()
    for number in range(COUNT):
        deep = scene(number)[0][..., 0].astype(np.uint16) * 100 * (number + 1)
        Image.fromarray(deep).save(tmp_path / f"src/{number}.tif")
    convert("--range", "0", "51000")
    for number in range(COUNT):
        expected = np.rint(scene(number)[0][..., 0].astype(float) * (number + 1) / 2).clip(0, 255)
        assert np.abs(read(tmp_path, f"{number}.png") - expected).max() <= 1


def test_bands_are_chosen_and_the_rest_is_told(tmp_path, convert) -> None:
    (tmp_path / "src").mkdir()
    bands = np.random.default_rng(0).integers(0, 256, (7, *SHAPE), np.uint8)
    np.save(tmp_path / "src/a.npy", bands)
    assert "images of 7 bands, of which [4, 3, 2] are kept" in convert("--bands", "4", "3", "2")
    assert np.array_equal(read(tmp_path, "a.png"), np.moveaxis(bands[[3, 2, 1]], 0, -1))


def test_values_below_0_become_255(tmp_path, convert) -> None:
    (tmp_path / "src").mkdir()
    label = scene(0)[1].astype(np.int16)
    label[:2] = -1
    np.save(tmp_path / "src/mask.npy", label)
    assert "note: labels with values below 0, which are 255 now: 1" in convert()
    assert (read(tmp_path, "mask.png")[:2] == 255).all()


def test_pages_of_a_tiff_that_are_masks_of_classes_are_one_label(tmp_path, convert) -> None:
    (tmp_path / "src/masks").mkdir(parents=True)
    for number in range(COUNT):
        _, label = scene(number)
        first, *more = [Image.fromarray((label == one) * np.uint8(255)) for one in range(3)]
        first.save(tmp_path / f"src/masks/{number}.tif", save_all=True, append_images=more)
    convert()
    for number in range(COUNT):
        assert np.array_equal(read(tmp_path, f"masks/{number}.png"), scene(number)[1])


def test_volumes_of_two_splits_are_not_put_together(tmp_path, convert) -> None:
    (tmp_path / "src").mkdir()
    photo = np.stack([scene(number)[0][..., 0] for number in range(20)])
    label = np.stack([scene(number % 5)[1] for number in range(20)])
    for name, volume in (("train-volume", photo), ("train-labels", label), ("test-volume", photo)):
        tifffile.imwrite(tmp_path / f"src/{name}.tif", volume, photometric="minisblack")
    convert()
    assert sorted(one.name for one in (tmp_path / "new/dst").iterdir()) == [
        *("test-volume", "train-labels", "train-volume"),
    ]


def test_volumes_of_one_label_go_to_a_folder_each(tmp_path, convert) -> None:
    for case in ("Training_1", "Training_2"):
        (tmp_path / "src" / case).mkdir(parents=True)
        photo = np.stack([scene(number)[0][..., 0] for number in range(20)])
        label = np.stack([scene(number % 5)[1] for number in range(20)])
        for name, volume in (("t1", photo), ("t2", 255 - photo), ("seg", label)):
            tifffile.imwrite(
                tmp_path / f"src/{case}/{case}_{name}.tif", volume, photometric="minisblack"
            )
    convert()
    for name in ("images_t1", "images_t2", "labels"):
        assert (tmp_path / f"new/dst/Training_2/{name}/Training_2_003.png").is_file()
    assert np.array_equal(read(tmp_path, "Training_1/labels/Training_1_003.png"), scene(3)[1])


def test_a_tiff_of_four_deep_bands(tmp_path, convert) -> None:
    (tmp_path / "src").mkdir()
    deep = np.random.default_rng(0).integers(0, 2**12, (*SHAPE, 4)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "src/a.tif", deep, photometric="minisblack", planarconfig="contig")
    convert("--range", "0", "4095")
    assert np.abs(read(tmp_path, "a.png") - deep[..., :3] * (255 / 4095)).max() <= 0.6


@pytest.mark.parametrize("name", ["a.h5", "a.mat"])
def test_hdf5_has_a_folder_for_each_of_its_names(name, tmp_path, convert) -> None:
    (tmp_path / "src").mkdir()
    scenes = [scene(number % COUNT) for number in range(20)]
    images, labels = (np.stack(part) for part in zip(*scenes, strict=True))
    with h5py.File(tmp_path / "src" / name, "w", userblock_size=512) as file:
        file["set/images"], file["set/masks"] = images, labels
    if name == "a.mat":  # as MATLAB writes them from version 7.3 on
        head = b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + struct.pack("<HH", 0x0200, 0x4D49)
        content = (tmp_path / "src" / name).read_bytes()
        (tmp_path / "src" / name).write_bytes(head + content[len(head) :])
    convert()
    written = [np.asarray(Image.open(path)) for path in (tmp_path / "new/dst").rglob("*.png")]
    assert len(written) == 40
    for wanted in (*images, *labels):
        assert any(np.array_equal(one, wanted) for one in written)


@pytest.mark.parametrize(("package", "name"), [("h5py", "a.h5"), ("tifffile", "a.tif")])
def test_a_package_that_is_missing_is_named(package, name, tmp_path, convert, monkeypatch) -> None:
    (tmp_path / "src").mkdir()
    with h5py.File(tmp_path / "src/a.h5", "w") as file:
        file["images"] = scene(0)[0]
    deep = np.zeros((*SHAPE, 4), np.uint16)
    tifffile.imwrite(tmp_path / "src/a.tif", deep, photometric="minisblack", planarconfig="contig")
    for other in (tmp_path / "src").iterdir():
        if other.name != name:
            other.unlink()
    monkeypatch.setitem(sys.modules, package, None)
    assert f"{name}: " in (told := convert(code=2))
    assert f"needs the package {package}; install it: pip install -e '.[convert]'" in told


def no_array(root: Path) -> None:
    Image.fromarray(scene(0)[0]).save(root / "a.png")


def damaged(root: Path) -> None:
    (root / "a.npy").write_bytes(b"\x93NUMPY")


def of_objects(root: Path) -> None:
    np.save(root / "a.npy", np.array([{}], object), allow_pickle=True)


def two_classes_a_pixel(root: Path) -> None:
    np.save(root / "mask.npy", np.ones((*SHAPE, 4), np.uint8))


def five_axes(root: Path) -> None:
    np.save(root / "a.npy", np.zeros((2, 3, 4, 20, 20), np.uint8))


def no_number(root: Path) -> None:
    np.save(root / "a.npy", np.full(SHAPE, np.nan))


FAULTS = [
    (no_number, (), "src: the images hold no finite value"),
    (no_array, ("--range", "0", "inf"), "--range: LOW must be below HIGH, and both finite"),
    (no_array, (), "src: found no arrays or deep pictures"),
    (damaged, (), "src/a.npy: cannot read the arrays ("),
    (of_objects, (), "src/a.npy: cannot read the arrays (ValueError: Object arrays"),
    (two_classes_a_pixel, (), "the 4 channels of a label must be 0 or 1, one of them a pixel"),
    (five_axes, (), "must be (H, W), (H, W, C), (C, H, W) or a stack of these"),
    (no_array, ("--bands", "0", "1", "2"), "--bands: bands count from 1 on"),
    (no_array, ("--range", "2", "2"), "--range: LOW must be below HIGH"),
]


@pytest.mark.parametrize(("spoil", "flags", "says"), FAULTS)
def test_what_cannot_be_used_is_one_line_and_writes_nothing(
    tmp_path, convert, spoil, flags, says
) -> None:
    (tmp_path / "src").mkdir()
    spoil(tmp_path / "src")
    error = convert(*flags, code=2)
    assert error.count("\n") == 1 and says in error
