"""Splits of a folder data set: folders by many names, lists, ratios, groups."""

from __future__ import annotations

import json
import re
import shutil

import folder_data
import numpy as np
import pytest
from PIL import Image

from study.core.errors import InputError
from study.data import data_warnings, open_data
from study.data.resplit import in_words

CLASSES = "classes: [road, car, pole]\n"


@pytest.fixture
def opened(root, tmp_path):
    def open_with(text="", **changes):
        (root / "classes.yaml").write_text(CLASSES + text)
        config = folder_data.config(**changes)
        return open_data(config, data_root=root, cache_dir=tmp_path / "cache")

    return open_with


@pytest.fixture
def flat(root):
    """All images in one folder: train000, ..., test001."""
    for folder in ("images", "labels"):
        for split in ("train", "val", "test"):
            for file in (root / folder / split).iterdir():
                file.rename(root / folder / f"{split}{file.name}")
            (root / folder / split).rmdir()
    return root


def parts(data):
    return {split: list(part.names) for split, part in data.splits.items()}


PUBLISHED = {
    "train": ["train000", "train001", "train002"],
    "val": ["val000", "val001"],
    "test": ["test000", "test001"],
}


@pytest.mark.parametrize(
    "names",
    [
        {"train": "training", "val": "validation", "test": "testing"},
        {"train": "Train", "val": "Valid", "test": "TEST"},
    ],
)
def test_folders_may_be_called_by_synonyms(root, opened, names):
    for split, name in names.items():
        (root / "images" / split).rename(root / "images" / name)
    assert [len(part) for part in opened().splits.values()] == [3, 2, 2]


def test_the_folder_of_the_very_name_goes_first(root, opened):
    shutil.copytree(root / "images" / "train", root / "images" / "valid")
    assert len(opened().val) == 2


def test_nested_folders_are_part_of_the_names(root, opened):
    for folder in ("images", "labels"):
        for file in [*(root / folder / "train").iterdir()]:
            below = root / folder / "train" / f"seq{file.stem[-1]}" / "left"
            below.mkdir(parents=True)
            file.rename(below / "frame.png")
    data = opened()
    assert data.train.names == ("seq0/left/frame", "seq1/left/frame", "seq2/left/frame")


def test_folders_below_a_folder_with_images_are_left_alone(root, opened):
    (root / "images" / "train" / "old").mkdir()
    shutil.copy(root / "images/train/000.png", root / "images/train/old/009.png")
    assert len(opened().train) == 3


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (
            {"train.txt": "train000\ntrain001.png\n\n./images/train002.png\n",
             "lists/val.txt": "/somebody/else/images/val000.jpg 1\nval001 -1\n",
             "test.csv": "id,image,label\n0,test000.png,x.png\n1,images/test001.png,y.png\n"},
            "{train: train.txt, val: lists/val.txt, test: test.csv}",
        ),
        (
            {"val.lst": "val000\nval001", "test.txt": "\ufefftest000\r\ntest001\r\n"},
            "{val: val.lst, test: test.txt}",
        ),
        (
            {"val.csv": "val000.png\nval001.png\n", "test.csv": "name\ntest000\ntest001\n"},
            "{valid: val.csv, test: test.csv}",
        ),
    ],
)  # fmt: skip
def test_lists_name_images_with_or_without_suffix_and_folder(flat, opened, files, line):
    for name, text in files.items():
        (flat / name).parent.mkdir(exist_ok=True)
        (flat / name).write_text(text, encoding="utf-8", newline="")
    assert parts(opened(f"splits: {line}")) == PUBLISHED


def test_what_is_in_no_list_is_left_out_and_counted(flat, opened):
    for split in PUBLISHED:
        (flat / f"{split}.txt").write_text(f"{split}000")
    (flat / "labels" / "train001.png").unlink()  # not labelled, and not asked for
    data = opened("splits: {train: train.txt, val: val.txt, test: test.txt}")
    assert [len(part) for part in data.splits.values()] == [1, 1, 1]
    assert data.rule == (
        "train is train.txt; val is val.txt; test is test.txt; 4 images are in no list"
    )


def test_a_changed_list_rebuilds_the_cache(flat, opened):
    line = "splits: {val: val.txt, test: test.txt}"
    (flat / "test.txt").write_text("test000")
    for names in (["val000"], ["val000", "val001"]):
        (flat / "val.txt").write_text("\n".join(names))
        assert parts(opened(line))["val"] == names


def many(root, count, name="{:03d}"):
    """Images of one folder, all different."""
    rng = np.random.default_rng(1)
    for index in range(count):
        for folder, pixels in (
            ("images", rng.integers(0, 256, (12, 16, 3), np.uint8)),
            ("labels", folder_data.quadrants()),
        ):
            file = root / folder / f"{name.format(index)}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return root


@pytest.fixture
def grown(tmp_path):
    def open_grown(count, line, name="{:03d}"):
        root = many(tmp_path / f"of{count}", count, name)
        (root / "classes.yaml").write_text(CLASSES + line)
        return open_data(folder_data.config(), data_root=root, cache_dir=tmp_path / "cache")

    return open_grown


def test_ratios_are_parts_of_all_images_by_the_hash_of_the_name(grown):
    data = grown(40, "splits: {val: 0.15, test: 0.2}")
    assert {split: len(names) for split, names in parts(data).items()} == {
        "train": 26, "val": 6, "test": 8,
    }  # fmt: skip
    assert len({name for names in parts(data).values() for name in names}) == 40
    assert data.test.names != tuple(f"{index:03d}" for index in range(8))
    assert "val is 15% of train by the hash of the name" in data.rule


def test_more_images_move_few_of_the_others(grown):
    line = "splits: {val: 0.2, test: 0.2}"
    before, after = (parts(grown(count, line)) for count in (40, 44))
    where = {name: split for split, names in after.items() for name in names}
    moved = sum(where[name] != split for split, names in before.items() for name in names)
    assert moved <= 4


def test_groups_stay_together_and_are_resampled_together(grown):
    data = grown(40, "splits: {val: 0.2, test: 0.2}\ngroup: '^(.*)_'", "p{0:02d}_x")
    assert [len(part) for part in data.splits.values()] == [24, 8, 8]
    data = grown(41, "splits: {val: 0.2, test: 0.2}\ngroup: '(.)_'", "{0:02d}_x")
    ends = {split: {name[1] for name in names} for split, names in parts(data).items()}
    assert sum(map(len, ends.values())) == 10
    for part in data.splits.values():
        block_of = {name[1]: block for name, block in zip(part.names, part.groups, strict=True)}
        assert [block_of[name[1]] for name in part.names] == part.groups.tolist()
        assert len({*block_of.values()}) == len(block_of)


def test_groups_of_folders_may_be_torn_which_is_warned_of(root, opened):
    data = opened("group: '(..)$'")  # 00, 01, 02 in train, 00 and 01 in val and test
    assert data.train.groups.tolist() == [0, 1, 2]
    assert "groups in two splits: 6; ratios keep each in one" in data_warnings(data)


def test_test_can_be_the_published_val(root, opened):
    shutil.rmtree(root / "labels" / "test")
    published = parts(opened_val := opened("splits: {test: val, val: 0.4}"))
    assert (len(published["train"]), len(published["val"])) == (2, 1)
    assert np.array_equal(
        opened_val.test.images[0], np.asarray(Image.open(root / "images" / "val" / "000.png"))
    )
    assert opened_val.rule.endswith("test is the folder val; the test folder is not used")
    assert "test is the published val; val is carved from train" in data_warnings(opened_val)


def test_folders_of_any_name_can_be_splits(root, opened):
    for folder in ("images", "labels"):
        (root / folder / "test").rename(root / folder / "holdout")
    assert len(opened("splits: {test: holdout}").test) == 2


def test_several_folders_are_one_split(root, opened):
    text = "splits: {train: [train, val], val: 0.4, test: test}"
    data = opened(text)
    assert sorted([*data.train.names, *data.val.names]) == [
        "train/000", "train/001", "train/002", "val/000", "val/001",
    ]  # fmt: skip
    assert data.rule.startswith("train is the folder train and val; val is 40% of train")


@pytest.mark.parametrize(
    "content",
    [
        PUBLISHED,
        {
            s: [{"image": f"im/{n}.png", "label": "x"} for n in some]
            for s, some in PUBLISHED.items()
        },
        [{"file": n, "split": s} for s, some in PUBLISHED.items() for n in some],
    ],
)
def test_a_json_file_can_have_the_split_of_each_image(flat, opened, content) -> None:
    (flat / "all.json").write_text(json.dumps(content))
    assert parts(opened("splits: all.json")) == PUBLISHED


def test_a_split_in_json_that_is_none_is_one_line(flat, opened) -> None:
    (flat / "all.json").write_text("{train: a}")
    with pytest.raises(InputError, match=r"all.json: the list is not JSON"):
        opened("splits: all.json")


def test_several_lists_are_one_split(flat, opened):
    for split, names in PUBLISHED.items():
        (flat / f"{split}.txt").write_text("\n".join(names))
    data = opened("splits: {train: [train.txt, val.txt], val: 0.2, test: test.txt}")
    assert sorted([*data.train.names, *data.val.names]) == PUBLISHED["train"] + PUBLISHED["val"]


def test_a_table_can_have_the_split_of_each_image(flat, opened):
    rows = [f"{at},{name}.png,{split.upper()}" for split, names in PUBLISHED.items()
            for at, name in enumerate(names)]  # fmt: skip
    (flat / "all.csv").write_text("\n".join(["id,image,part", *rows]))
    data = opened("splits: all.csv")
    assert (parts(data), data.rule) == (
        PUBLISHED, "train is all.csv; val is all.csv; test is all.csv",
    )  # fmt: skip
    (flat / "all.csv").write_text("\n".join(rows[:5]))
    data = opened("splits: all.csv")
    assert [*data.test.names] == PUBLISHED["val"] and "test is val of all.csv" in data.rule
    (flat / "all.csv").write_text("\n".join(rows[:3]))
    with pytest.raises(InputError, match=r"splits: the table has no image of test"):
        opened("splits: all.csv")
    (flat / "all.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows))
    with pytest.raises(InputError, match=r"all.csv: no column has the split of each image"):
        opened("splits: all.csv")


@pytest.mark.parametrize(
    ("image", "label", "text"),
    [
        ("{}/x/im-{}_rgb.png", "{}/y/gt-{}.tif",
         "image_path: '{split}/x/im-{name}_rgb.png'\nlabel_path: '{split}/y/gt-{name}.*'"),
        ("all/{0}/{1}/i/{1}.png", "all/{0}/{1}/m/a7.png",
         "image_path: 'all/{split}/{name}/i/{name}.png'\nlabel_path: 'all/{split}/{name}/m/*.png'"),
        ("{1}/im/{0}.png", "{1}/gt/{0}.png",
         "image_path: '{name}/im/{split}.png'\nlabel_path: '{name}/gt/{split}.png'"),
        ("a/{0}{1}.png", "a/{0}{1}_mask.png",
         "image_dir: a\nlabel_path: 'a/{name}_mask.png'\n"
         "splits: {train: train.txt, val: val.txt, test: test.txt}"),
    ],
)  # fmt: skip
def test_paths_say_where_the_name_is(root, opened, image, label, text):
    wanted = np.asarray(Image.open(root / "images" / "val" / "001.png"))
    for folder, template in (("images", image), ("labels", label)):
        for file in [*root.glob(f"{folder}/*/*")]:
            new = root / template.format(file.parent.name, file.stem)
            new.parent.mkdir(parents=True, exist_ok=True)
            Image.open(file).save(new)
            if folder == "images":
                Image.open(file).save(new.with_name("thumb.png"))
            file.unlink()
    for split, names in PUBLISHED.items():
        (root / f"{split}.txt").write_text("\n".join(names))
    data = opened(text)
    assert [len(part) for part in data.splits.values()] == [3, 2, 2]
    assert np.array_equal(data.val.images[1], wanted)
    assert np.array_equal(data.val.labels[1], folder_data.quadrants())


def test_a_pool_of_lists_can_be_split_anew(flat, opened):
    for split, names in PUBLISHED.items():
        (flat / f"{split}.txt").write_text("\n".join(names))
    text = "splits: {train: train.txt, val: val.txt, test: test.txt}"
    data = opened(text, resplit={"block": 1, "every": 5})
    assert parts(data)["val"] == ["val001"]


@pytest.mark.parametrize(
    ("line", "task", "says"),
    [
        ("splits: {val: 0.3}", {"resplit": {"block": 1, "every": 2}}, "so does the ratio 0.3; "),
        ("splits: {test: val}", {"resplit": {"block": 1, "every": 2}},
         "test is the folder val, which is in resplit too"),
        ("splits: {val: test}", {}, "test is the folder test, which is in val too"),
        ("splits: {val: 0.3, test: test.txt}", {}, "splits/test: a list needs all images in one"),
        ("group: '0'", {}, "group must have one (group), got 0 in '0'"),
        ("group: '(0'", {}, "group must be a regular expression, got '(0': missing ), unterm"),
        ("group: '(1)'", {}, "group: '(1)' does not match '000'"),
        ("group: '(0)'", {"block": 2}, "`block` of the task groups images, and so does group"),
        ("splits: {val: 0.3}\ngroup: '(0)'", {}, "train must have at least 2 groups to carve fr"),
    ],
)  # fmt: skip
def test_splits_that_cannot_be_are_one_line(opened, line, task, says):
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        opened(line, **task)
    assert "classes.yaml:2: " in str(caught.value)


@pytest.mark.parametrize(
    ("files", "line", "says"),
    [
        ({"a.txt": "train000", "b.txt": "val000\ntrain000"}, "{val: a.txt, test: b.txt}",
         "train000 is in two lists, val and test"),
        ({"a.txt": "train000\nzebra", "b.txt": "val000"}, "{val: a.txt, test: b.txt}",
         "a.txt: the listed image does not exist: zebra"),
        ({"a.csv": "head\ntrain000\nzebra", "b.txt": "val000"}, "{val: a.csv, test: b.txt}",
         "a.csv: the listed image does not exist: zebra"),
        ({"a.csv": "val000,train000\nval001,train001", "b.txt": "test000"},
         "{val: a.csv, test: b.txt}", "a.csv: two columns name different images"),
        ({"b.txt": "val000"}, "{val: a.txt, test: b.txt}", "a.txt: cannot read the list (FileNo"),
        ({}, "{val: 0.3}", "test is missing; a list, or a ratio as in"),
        ({}, "{val: 0.3, test: val}", "splits/test: 'val' is no list of names (.txt, .csv, .json"),
    ],
)  # fmt: skip
def test_lists_that_cannot_be_are_one_line(flat, opened, files, line, says):
    for name, text in files.items():
        (flat / name).write_text(text)
    with pytest.raises(InputError, match=re.escape(says)):
        opened(f"splits: {line}")


def test_a_rule_made_for_other_data_stops(root, opened):
    rule = {"block": 1, "every": 2, "of": {"train": 3, "val": 2}}
    assert len(opened(resplit=rule).val) == 2
    (root / "images/val/001.png").unlink()
    (root / "labels/val/001.png").unlink()
    says = r"^data/resplit/of: the rule is made for 2 val images, these data have 1; leave `resplit"
    with pytest.raises(InputError, match=says):
        opened(resplit=rule)


def test_the_rule_of_published_splits_is_as_before(opened):
    assert opened().rule == f"test is as published; {in_words(None)}"
