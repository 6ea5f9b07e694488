"""What stands in label files becomes classes, value by value, or is a line of what to write."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import folder_data
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from study.core.errors import InputError
from study.data import data_warnings, open_data, scan_files
from study.data.formats.folder_classes import read_classes
from study.data.formats.folder_labels import LabelFiles
from study.data.splits import FileProblem

HEIGHT, WIDTH, VOID = folder_data.HEIGHT, folder_data.WIDTH, 255
DRAWN = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 7 % 3  # classes 0, 1, 2
RED, GREEN, BLACK = (255, 0, 0), (0, 128, 0), (0, 0, 0)
COLOURS = np.array([BLACK, RED, GREEN], np.uint8)
IN_COLOUR = "classes: [{name: a, color: [0, 0, 0]}, {name: b, color: '#ff0000'}, {name: c, color: "
IN_COLOUR += "[0, 128, 0]}]"


@pytest.fixture
def opened(tmp_path):
    """Opens a data set whose labels are all drawn by `draw`, with this classes.yaml."""

    def open_drawn(text: str, draw: Callable[[Path], object], suffix: str = ".png"):
        root = folder_data.write_folder(tmp_path / "town")
        (root / "classes.yaml").write_text(text)
        for file in root.glob("labels/*/*.png"):
            file.unlink()
            draw(file.with_suffix(suffix))
        return open_data(folder_data.config(), data_root=root, cache_dir=tmp_path / "cache")

    return open_drawn


def values(*of_class: int, dtype: type = np.uint8):
    """Saves the drawn classes as these values."""
    return lambda file, **how: Image.fromarray(np.array(of_class, dtype)[DRAWN]).save(file, **how)


def palette(*colours: tuple[int, int, int], indices: np.ndarray = DRAWN):
    def save(file: Path) -> None:
        label = Image.fromarray(indices.astype(np.uint8))
        label.putpalette([part for colour in colours for part in colour])
        label.save(file)

    return save


def colours(file: Path) -> None:
    Image.fromarray(COLOURS[DRAWN]).save(file)


def with_alpha(file: Path) -> None:
    alpha = np.full((*DRAWN.shape, 1), 90, np.uint8)
    Image.fromarray(np.concatenate([COLOURS[DRAWN], alpha], -1)).save(file)


def equal_channels(file: Path) -> None:
    Image.fromarray(np.repeat(DRAWN[..., None], 3, -1).astype(np.uint8)).save(file)


def one_bit(file: Path) -> None:
    Image.fromarray(DRAWN == 1).save(file)


def packed(bits: int):
    return lambda file: values(0, 1, 2 if bits > 1 else 0)(file, bits=bits)


def lossless(file: Path) -> None:
    values(0, 1, 2)(file, lossless=True)


ABC, SPARSE = (
    "classes: [a, b, c]",
    "classes: [{id: 0, name: a}, {id: 100, name: b}, {id: 201, name: c}]",
)


@pytest.mark.parametrize(
    ("text", "draw", "suffix"),
    [
        (SPARSE, values(0, 100, 201), ".png"),
        ("classes: {0: a, 300: b, 65535: c}", values(0, 300, 65535, dtype=np.uint16), ".png"),
        ("classes: {0: a, 300: b, 65535: c}", values(0, 300, 65535, dtype=np.uint16), ".tif"),
        (SPARSE, values(0, 100, 201, dtype=np.int32), ".tif"),
        (SPARSE, values(0, 100, 201, dtype=np.float32), ".tiff"),
        (SPARSE, values(0, 100, 201), ".bmp"),
        (SPARSE, values(0, 100, 201), ".gif"),
        ("labels: {9: a, 3..5: b, 7: c}", values(9, 4, 7), ".png"),
        ("labels: {0: a, 1: b, other: c}", values(0, 1, 99), ".png"),
        (ABC, packed(2), ".png"),
        (ABC, packed(4), ".png"),
        (ABC, values(0, 1, 2), ".tif"),
        (ABC, values(0, 1, 2), ".bmp"),
        (ABC, values(0, 1, 2), ".gif"),
        (ABC, lossless, ".webp"),
        (ABC, equal_channels, ".png"),
        (ABC, palette(RED, RED, RED), ".png"),
        (IN_COLOUR, values(0, 1, 2), ".png"),
        (IN_COLOUR, colours, ".png"),
        (IN_COLOUR, colours, ".tif"),
        (IN_COLOUR, colours, ".bmp"),
        (IN_COLOUR, with_alpha, ".png"),
        (IN_COLOUR, palette(BLACK, RED, GREEN), ".png"),
        (IN_COLOUR, palette(*[BLACK] * 7, RED, GREEN, BLACK, indices=DRAWN + 6), ".png"),
        (IN_COLOUR + "\nread: colour", palette(GREEN, RED, BLACK, indices=2 - DRAWN), ".png"),
        (IN_COLOUR + "\nread: index", palette(GREEN, RED, BLACK), ".png"),
        ("labels: {'#000000': a, '255,0,0': b, '#008000': c}", colours, ".png"),
        (
            "labels: {'#000000': a, '255,0,0': b, '#008000': c}",
            palette(GREEN, RED, BLACK, indices=2 - DRAWN),
            ".png",
        ),
    ],
)  # fmt: skip
def test_each_kind_of_label_is_read_value_by_value(opened, text, draw, suffix):
    data = opened(text, draw, suffix)
    assert data.class_names == ("a", "b", "c")
    assert np.array_equal(data.train.labels[0], DRAWN)


@pytest.mark.parametrize(
    ("text", "draw", "expected"),
    [
        ("classes: [a, b]", one_bit, (0, 1, 0)),
        ("classes: [a, b]", packed(1), (0, 1, 0)),
        ("classes: [a, b]\nignore: [0, 255]", values(0, 1, 2), (VOID, 0, 1)),
        ("classes: [a, b]\nignore_index: 0", values(0, 1, 2), (VOID, 0, 1)),
        ("classes: [a, b]\nignore: [7, 255]", values(0, 1, 7), (0, 1, VOID)),
        ("classes: [a, b]\nignore_index: 7", values(0, 1, 7), (0, 1, 7)),
        ("labels: {0: a, 255: b}", values(0, 255, 0), (0, 1, 0)),
        ("classes: [a, b]\nlabels: {255: b}", values(0, 255, 0), (0, 1, 0)),
        ("classes: [a, b]\nlabels: {3: ignore, 255: b}", values(0, 255, 3), (0, 1, VOID)),
        ("classes: [a, b]\nlabels: {other: ignore}", values(0, 1, 77), (0, 1, VOID)),
        ("labels: {'#000000': a, '#ff0000': b, other: ignore}", colours, (0, 1, VOID)),
        ("labels: {'#000000': a, '#ff0000': b}\nignore: '#008000'", colours, (0, 1, VOID)),
        ("classes: [{name: a, color: '#000000'}, {name: b, color: '#ffffff'}]\nread: colour",
         values(0, 255, 0), (0, 1, 0)),
        ("classes: [a, b]\nignore: 255", values(0, 255, 1), (0, VOID, 1)),
    ],
)  # fmt: skip
def test_values_and_colours_mean_what_is_written(opened, text, draw, expected):
    assert np.array_equal(opened(text, draw).train.labels[0], np.array(expected)[DRAWN])


def test_ranges_cut_what_a_jpeg_blurs_and_a_warning_says_that_edges_are_guessed(opened):
    half = np.where(np.arange(WIDTH) < WIDTH // 2, 0, 255)
    label = np.broadcast_to(half, (HEIGHT, WIDTH)).astype(np.uint8)
    data = opened("labels: {0..127: a, 128..255: b}", Image.fromarray(label).save, ".jpg")
    assert np.array_equal(data.val.labels[0], label > 0)
    assert "labels of lossy compression: 7; their edges are guessed" in data_warnings(data)


def colours_as_jpeg(file: Path) -> None:
    Image.fromarray(COLOURS[DRAWN]).save(file, quality=95)


def fractions(file: Path) -> None:
    Image.fromarray(DRAWN.astype(np.float32) / 2).save(file)


def every_value(file: Path) -> None:
    Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(DRAWN.shape)).save(file)


def pages(file: Path) -> None:
    page = Image.fromarray(DRAWN.astype(np.uint8))
    page.save(file, save_all=True, append_images=[page])


@pytest.mark.parametrize(
    ("text", "draw", "suffix", "says"),
    [
        (ABC, values(0, 1, 9), ".png",
         "labels must be 0 to 2 or 255, got 9 (and 6 more); `labels: {9: NAME}` or `ignore: [9]` "
         "in classes.yaml says what it is"),
        (ABC, values(0, 255, 3), ".png", "got 3 (and 6 more); `labels: {3: NAME}`"),
        (ABC, values(0, 1, -1, dtype=np.int32), ".tif", "labels must be 0 to 2 or 255, got -1"),
        (ABC, values(0, 1, 70000, dtype=np.int32), ".tif", "got 70000"),
        (ABC, fractions, ".tif", "label must hold whole numbers, got fractions"),
        (ABC, every_value, ".png", "`labels: {0..127: NAME, 128..255: NAME}` in cl"),
        (ABC, colours, ".png", "the label is painted in colours of no class: '#000000', '#008000', "
         "'#ff0000' (and 6 more); `labels: {'#000000': NAME}`, `ignore: ['#000000']` or each cl"),
        (IN_COLOUR.replace("128", "127"), colours, ".png", "colours of no class: '#008000' (and"),
        (ABC, values(0, 1, 2), ".jpg", "a label of lossy compression has blurred values (and 6 mo"),
        ("labels: {0..127: a, 128..255: b}", colours_as_jpeg, ".jpg", "the label is painted in"),
        (ABC, pages, ".tif", "several pictures in one file"),
        (SPARSE, palette(BLACK, (100, 100, 100), (9, 9, 9)), ".bmp", "got 1, 2 (and 6 more)"),
    ],
)  # fmt: skip
def test_what_nobody_knows_is_a_line_that_says_what_to_write(opened, text, draw, suffix, says):
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        opened(text, draw, suffix)
    assert "\n" not in str(caught.value)


def test_two_readings_that_differ_are_a_fault_until_one_is_chosen(opened):
    swapped = palette((1, 1, 1), BLACK, (2, 2, 2))
    with pytest.raises(InputError, match=r"one thing by index, another by grey .*`read: index`"):
        opened(ABC, swapped, ".bmp")


@pytest.mark.parametrize(("read", "expected"), [("index", (0, 1, 2)), ("colour", (1, 0, 2))])
def test_the_chosen_reading_is_taken(opened, read, expected):
    data = opened(f"{ABC}\nread: {read}", palette((1, 1, 1), BLACK, (2, 2, 2)), ".bmp")
    assert np.array_equal(data.train.labels[0], np.array(expected)[DRAWN])


def test_palettes_whose_colours_are_those_of_other_classes_stop(opened):
    with pytest.raises(InputError, match=r"other classes than its indices; `read: index` or"):
        opened(IN_COLOUR, palette(GREEN, RED, BLACK, indices=2 - DRAWN))


def test_palettes_with_any_other_colour_keep_their_indices(opened):
    other = palette(RED, BLACK, (9, 9, 9))
    assert np.array_equal(opened(IN_COLOUR, other).train.labels[0], DRAWN)


@pytest.mark.parametrize("names", ["[background, defect]", "[defect]"])
def test_labels_of_0_and_255_alone_stop_with_the_line(opened, names):
    with pytest.raises(InputError) as caught:
        opened(f"classes: {names}", values(0, 255, 0))
    assert str(caught.value).endswith(
        "all labels hold 0 and 255 alone, and 255 does not count; if it is a class: "
        "`labels: {0: background, 255: defect}`, else `ignore: [255]`"
    )


def test_a_class_in_one_image_is_enough_for_255_to_be_ignored(tmp_path, opened):
    def draw(file: Path) -> None:
        one = file.parent.name == "train" and file.stem == "001"
        values(0, 255, 1 if one else 0)(file)

    train = opened("classes: [background, defect]", draw).train
    assert train.class_counts[1, 1] == (DRAWN == 2).sum()


def test_an_image_without_a_label_is_of_the_stated_class(tmp_path):
    root = folder_data.write_folder(tmp_path / "town")
    (root / "labels/train/001.png").unlink()
    (root / "classes.yaml").write_text("classes: [road, car, pole]\nmissing_label: car")
    scan = scan_files(folder_data.config(), root)
    assert scan.check().problems == ()
    data = open_data(folder_data.config(), data_root=root, cache_dir=tmp_path / "cache")
    assert data.train.names == ("000", "001", "002")
    assert (data.train.labels[1] == 1).all()
    Image.fromarray(folder_data.quadrants()).save(root / "labels/train/001.png")
    again = open_data(folder_data.config(), data_root=root, cache_dir=tmp_path / "cache")
    assert np.array_equal(again.train.labels[1], folder_data.quadrants())


def test_a_change_of_the_meaning_rebuilds_the_cache(tmp_path):
    root = folder_data.write_folder(tmp_path / "town")
    for text, fourth in (
        ("classes: [a, b, c]", 255),
        ("classes: [a, b, c]\nlabels: {255: a, 0: a}", 0),
    ):
        (root / "classes.yaml").write_text(text)
        data = open_data(folder_data.config(), data_root=root, cache_dir=tmp_path / "cache")
        assert data.train.labels[0][-1, -1] == fourth


def one(at: slice, value: int = 255) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[at] = value
    return mask


CRACK, HOLE = one(np.s_[2:6]), one(np.s_[4:9], 1)
DRAWN_OVER = one(np.s_[2:4], 1) + one(np.s_[4:9], 2)


@pytest.mark.parametrize(
    ("masks", "places"),
    [
        ("{crack: 'crack/{split}', hole: 'hole/{split}'}", ("crack/{}/{}.png", "hole/{}/{}.png")),
        ("{crack: '{name}_c.png', hole: '{name}.bmp'}", ("labels/{}/{}_c.png", "labels/{}/{}.bmp")),
        ("{crack: 'm/{name}/c*.tif', hole: 'm/{name}/h.tif'}", ("m/{1}/c7.tif", "m/{1}/h.tif")),
    ],
)  # fmt: skip
def test_masks_are_drawn_over_each_other_in_the_listed_order(tmp_path, masks, places):
    root = folder_data.write_folder(tmp_path / "town")
    for split in ("train", "val", "test"):
        for image in sorted((root / "images" / split).iterdir()):
            (root / "labels" / split / image.name).unlink()
            image.rename(image.with_stem(f"{split}{image.stem}"))
            for place, mask in zip(places, (CRACK, HOLE), strict=True):
                file = root / place.format(split, f"{split}{image.stem}")
                if image.stem == "000" or mask is HOLE:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(file)
    (root / "classes.yaml").write_text(f"masks: {masks}")
    data = open_data(folder_data.config(), data_root=root, cache_dir=tmp_path / "cache")
    assert data.class_names == ("background", "crack", "hole")
    assert np.array_equal(data.val.labels[0], DRAWN_OVER)
    assert np.array_equal(data.val.labels[1], one(np.s_[4:9], 2))  # there is no crack


@pytest.mark.parametrize(
    ("text", "spoil", "says"),
    [
        ("{crack: 'crack/{split}'}", {"crack/val/zzz.png": CRACK}, "no matching image in"),
        ("{crack: 'crack/{split}', hole: '{name}_h.png'}", {}, "no file of the masks of 'hole'"),
        ("{crack: 'crack/{split}'}", {"crack/val/000.png": CRACK + HOLE}, "a mask must hold 0 and"),
        ("{crack: 'crack/{split}'}", {"crack/val/000.jpg": CRACK, "crack/val/000.png": None,
         "crack/val/001.png": None}, "a mask of lossy compression has blurred values; `threshold"),
        ("{crack: 'crack/{split}'}", {"crack/val/000.png": CRACK[:5]}, "as large as its image, 1"),
        ("{crack: 'krack/{split}'}", {}, "krack/train: the folder does not exist"),
    ],
)  # fmt: skip
def test_masks_that_do_not_fit_are_named(tmp_path, text, spoil: Mapping[str, object], says):
    root = folder_data.write_folder(tmp_path / "town")
    for image in root.glob("images/*/*"):
        file = root / "crack" / image.parent.name / image.name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(CRACK).save(file)
    for name, mask in spoil.items():
        if mask is None:
            (root / name).unlink()
        else:
            Image.fromarray(np.asarray(mask)).save(root / name)
    (root / "classes.yaml").write_text(f"masks: {text}")
    with pytest.raises(InputError, match=re.escape(says)):
        open_data(folder_data.config(), data_root=root, cache_dir=tmp_path / "cache")


def test_a_threshold_cuts_the_values_of_masks(tmp_path):
    root = folder_data.write_folder(tmp_path / "town")
    ramp = np.broadcast_to(np.arange(WIDTH) * 16, (HEIGHT, WIDTH)).astype(np.uint8)
    for file in root.glob("labels/*/*"):
        Image.fromarray(ramp).save(file)
    (root / "classes.yaml").write_text("masks: {crack: 'labels/{split}'}\nthreshold: 128")
    data = open_data(folder_data.config(), data_root=root, cache_dir=tmp_path / "cache")
    assert np.array_equal(data.train.labels[0], ramp >= 128)


NAMES = ("a", "b", "c")
MEANINGS = st.sampled_from([*NAMES, "ignore"])
TABLES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5), MEANINGS), max_size=6)


@settings(max_examples=60, deadline=None)
@given(table=TABLES, other=st.none() | MEANINGS, seed=st.integers(0, 99), high=st.integers(1, 50))
def test_any_table_reads_as_pixel_by_pixel(tmp_path_factory, table, other, seed, high):
    """Against a table that is looked up in words, one pixel after another."""
    taken: dict[int, str] = {}
    lines = []
    for low, length, name in table:
        some = range(low, low + length + 1)
        if not any(value in taken for value in some):
            taken |= dict.fromkeys(some, name)
            lines.append(f"  {low}..{low + length}: {name}" if length else f"  {low}: {name}")
    folder = tmp_path_factory.mktemp("table")
    lines += [f"  other: {other}"] if other else []
    missing = [name for name in NAMES if name not in {*taken.values(), other}]
    lines += [f"  {1000 + at}: {name}" for at, name in enumerate(missing)]
    text = "classes: [a, b, c]\nlabels:\n" + "\n".join(lines)
    (folder / "classes.yaml").write_text(text)
    label = np.random.default_rng(seed).integers(0, high, (5, 6)).astype(np.uint8)
    Image.fromarray(label).save(folder / "label.png")
    expected = [[(taken | {255: "ignore"}).get(int(v), other) for v in row] for row in label]
    reader = LabelFiles(read_classes(folder / "classes.yaml"))
    if any(name is None for row in expected for name in row):
        with pytest.raises(FileProblem, match="labels must be"):
            reader.read(folder / "label.png")
        return
    index = {"a": 0, "b": 1, "c": 2, "ignore": 255}
    found = reader.read(folder / "label.png").tolist()
    assert found == [[index[str(name)] for name in row] for row in expected]


def test_palettes_that_differ_from_file_to_file_are_warned_of(tmp_path):
    """A quantiser numbers the colours of each file anew, so that valid indices are wrong ones."""
    root = folder_data.write_folder(tmp_path / "town")
    (root / "classes.yaml").write_text("classes: [road, car, pole]")
    colours = [[0, 0, 0], [200, 0, 0], [0, 0, 200]]
    for index, file in enumerate(sorted((root / "labels").rglob("*.png"))):
        label = Image.fromarray(np.where(DRAWN == VOID, 0, DRAWN).astype(np.uint8) % 3)
        label.putpalette(np.roll(colours, index % 2 if index > 1 else 0, axis=0).ravel().tolist())
        label.save(file)
        Image.fromarray(np.full((*DRAWN.shape, 3), 9 * index, np.uint8)).save(
            root / "images" / file.relative_to(root / "labels")
        )
    for _ in range(2):  # decoded, and out of the cache
        data = open_data(folder_data.config(), data_root=root, cache_dir=tmp_path / "cache")
        (told,) = [one for one in data.warnings if "palettes" in one]
        assert "`read: colour`" in told and "0 has one colour in " in told
    (root / "classes.yaml").write_text("classes: [road, car, pole]\nread: index")
    data = open_data(folder_data.config(), data_root=root, cache_dir=tmp_path / "cache")
    assert data.warnings == ()
