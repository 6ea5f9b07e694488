"""Train and val carved anew by blocks of neighbours."""

from __future__ import annotations

import pytest

from study.config.task import Resplit
from study.core.errors import InputError
from study.data.resplit import resplit

NAMES = {
    "train": [f"a{i:02d}" for i in range(12)],
    "val": [f"b{i:02d}" for i in range(9)],
    "test": ["c0"],
}


def names(part):
    return [name for (_, name), _ in part]


def test_every_nth_block_in_name_order_goes_to_val():
    carved = resplit(Resplit(pool=("train", "val"), block=3, every=4, thin={"val": 4}), NAMES)
    assert names(carved["val"]) == ["a09", "a10", "a11"]
    assert names(carved["train"]) == [*NAMES["train"][:9], "b00", "b04", "b08"]


def test_images_know_the_folder_that_they_lie_in_and_their_block():
    carved = resplit(Resplit(block=2, every=3, thin={"val": 4}), NAMES)
    assert carved["val"][0] == (("train", "a04"), 2)
    assert carved["train"][-1] == (("val", "b08"), 7)


def test_names_decide_the_order_not_the_split():
    carved = resplit(Resplit(block=1, every=2), {"train": ["b", "d"], "val": ["a", "c"]})
    assert names(carved["train"]) == ["a", "c"]
    assert names(carved["val"]) == ["b", "d"]


def test_train_alone_can_be_pooled():
    carved = resplit(Resplit(pool=("train",), block=3, every=2), NAMES)
    assert {split for part in carved.values() for (split, _), _ in part} == {"train"}


def test_every_pooled_image_is_used_once():
    carved = resplit(Resplit(block=2, every=3), NAMES)
    used = names(carved["train"]) + names(carved["val"])
    assert sorted(used) == sorted(NAMES["train"] + NAMES["val"])


def test_a_pool_too_small_for_val_is_refused():
    with pytest.raises(InputError, match="must have more than 90 images, got 21"):
        resplit(Resplit(block=30, every=4), NAMES)


def test_thinning_what_is_not_pooled_is_refused():
    with pytest.raises(InputError, match=r"thin names the split 'val'.*allowed: train"):
        resplit(Resplit(pool=("train",), block=1, every=2, thin={"val": 2}), NAMES)
