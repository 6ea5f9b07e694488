"""Which images of a published data set are train, val and test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from file_trees import TREES, data, every, save, save_mat
from pydantic import TypeAdapter

from study.config.task import Data, FileData
from study.core.errors import InputError
from study.data import open_data, scan_files
from study.data.formats.camvid import published_split
from study.data.resplit import in_fraction
from study.data.splits import SPLITS

CAMVID = Path(__file__).parents[3] / "shared" / "camvid"


@pytest.fixture
def source(tmp_path):
    def made(name, root=None, **changes):
        root = root or tmp_path / name
        if not root.exists():
            TREES[name].write(root)
        config = TypeAdapter[Data](Data).validate_python(data(name, **changes))
        assert isinstance(config, FileData)
        return scan_files(config, root).source()

    return made


def names(source):
    return {split: source.splits[split].names for split in SPLITS}


def test_cityscapes_holds_out_cities_and_tests_on_the_official_val(source):
    split = names(source("cityscapes", val_cities=["ulm", "bochum"]))
    cities = {part: sorted({name.split("_")[0] for name in some}) for part, some in split.items()}
    assert cities["train"] == ["aachen"]
    assert cities["val"] == ["bochum", "ulm"]
    assert cities["test"] == ["frankfurt", "munster"]


def test_cityscapes_blocks_end_with_their_city(source):
    made = source("cityscapes", block=2)
    assert made.splits["train"].groups.tolist() == [0, 0, 1, 2, 2]  # aachen 3, bochum 2
    assert made.splits["test"].groups.tolist() == [0, 0, 1]


def test_cityscapes_prefers_train_ids_where_they_are_there(source, tmp_path):
    source("cityscapes")
    folder = tmp_path / "cityscapes" / "gtFine" / "val" / "munster"
    label = folder / "munster_000000_000019_gtFine_labelTrainIds.png"
    save(np.zeros((12, 16)), label)
    made = source("cityscapes")
    assert (made.splits["test"].read(2)[1] == 0).all()
    assert (made.splits["test"].read(1)[1] != 0).any()
    label.with_name("munster_000000_000019_gtFine_labelIds.png").unlink()
    assert len(source("cityscapes").splits["test"].names) == 3


def test_a_city_that_is_not_there_is_refused_with_those_that_are(source):
    with pytest.raises(
        InputError, match=r"val_cities: unknown city 'mainz' \(allowed: aachen, bochum, ulm\)"
    ):
        source("cityscapes", val_cities=["ulm", "mainz"])


def test_a_split_without_images_is_refused(source):
    with pytest.raises(InputError, match="data: split train has no images; test is the"):
        source("cityscapes", val_cities=["ulm", "aachen", "bochum"])


def test_voc_holds_out_a_share_of_its_train_by_name(source):
    half = names(source("voc", val_fraction=0.5))
    assert half["test"] == ("2008_000001", "2008_000002")
    assert sorted(half["train"] + half["val"]) == [f"2007_{i:06d}" for i in range(12)]
    assert all(in_fraction(name, 0.5) for name in half["val"])
    less = names(source("voc", val_fraction=0.2))
    assert set(less["val"]) < set(half["val"])


def test_sbd_adds_to_train_what_voc_does_not_label(source):
    plain, further = names(source("voc")), source("voc", sbd=True)
    assert names(further)["val"] == plain["val"]
    assert names(further)["test"] == plain["test"]
    assert names(further)["train"] == (*plain["train"], "2009_000001", "2009_000002")
    assert (further.splits["train"].read(-1)[1] == 20).all()
    assert len(np.unique(further.splits["train"].read(0)[1])) == 22  # VOC's own labels


def test_sbd_masks_may_lie_as_pngs_beside_those_of_voc(source, tmp_path):
    source("voc")
    voc = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    for name in ("2012_000001", "2007_000001", "2008_000001"):
        save(every([3]), voc / "SegmentationClassAug" / f"{name}.png")
    made = source("voc", sbd=True)
    assert names(made)["train"][-1] == "2012_000001"
    assert not {"2008_000001", "2009_000001"} & set(names(made)["train"])
    assert (made.splits["train"].read(-1)[1] == 3).all()


def test_sbds_own_tree_is_read_where_the_folder_of_pngs_is_empty(source, tmp_path):
    source("voc")
    aug = tmp_path / "voc" / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    aug.mkdir()
    (aug / "._2009_000001.png").write_bytes(b"of another system")
    assert names(source("voc", sbd=True))["train"][-2:] == ("2009_000001", "2009_000002")
    save(every([3]), aug / "2012_000001.PNG")
    assert names(source("voc", sbd=True))["train"][-1] == "2012_000001"


def test_sbd_is_found_from_a_relative_root(source, tmp_path, monkeypatch):
    source("voc")
    monkeypatch.chdir(tmp_path / "voc" / "VOCdevkit" / "VOC2012")
    assert names(source("voc", root=Path("."), sbd=True))["train"][-1] == "2009_000002"


def test_sbd_is_found_beside_a_link_to_voc(source, tmp_path):
    source("voc")
    devkit = tmp_path / "voc" / "VOCdevkit"
    (devkit / "VOC2012").rename(tmp_path / "store")
    (devkit / "VOC2012").symlink_to(tmp_path / "store")
    made = source("voc", root=devkit / "VOC2012", sbd=True)
    assert names(made)["train"][-1] == "2009_000002"


def test_an_image_that_both_lists_name_is_refused(source, tmp_path):
    source("voc")
    lists = tmp_path / "voc" / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    both = (lists / "train.txt").read_text() + (lists / "val.txt").read_text()
    (lists / "train.txt").write_text(both)
    config = TypeAdapter[Data](Data).validate_python(data("voc"))
    with pytest.raises(InputError, match=r"two splits, \w+ and test: .*\(and 1 more\)"):
        open_data(config, data_root=tmp_path / "voc", cache_dir=tmp_path / "cache")


def test_a_change_of_the_lists_alone_is_noticed(source, tmp_path):
    before = source("voc")
    lists = tmp_path / "voc" / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text("2008_000002\n")
    with (lists / "train.txt").open("a", encoding="utf-8") as file:
        file.write("2008_000001\n")
    assert source("voc").state != before.state


def test_a_list_may_begin_with_a_byte_order_mark(source, tmp_path):
    expected = names(source("voc"))
    lists = tmp_path / "voc" / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    for file in lists.iterdir():
        file.write_text(file.read_text().replace("\n", "\r\n"), encoding="utf-8-sig")
    assert names(source("voc")) == expected


def test_deepglobe_is_in_the_order_of_the_file_names(source, tmp_path):
    source("deepglobe")
    folder = tmp_path / "deepglobe" / "land" / "train"
    for suffix in ("_sat.jpg", "_mask.png"):
        (folder / f"100007{suffix}").rename(folder / f"100{suffix}")
    made = source("deepglobe", fold=0)
    assert names(made)["test"] == ("100000", "100014")  # 100_sat.jpg is the last


def test_names_that_are_no_unicode_have_a_share_too(source, tmp_path):
    source("deepglobe")
    folder = tmp_path / "deepglobe" / "land" / "train"
    odd = b"\xff\xfe".decode("utf-8", "surrogateescape")
    for suffix in ("_sat.jpg", "_mask.png"):
        (folder / f"100007{suffix}").rename(folder / f"{odd}{suffix}")
    assert odd in [name for split in names(source("deepglobe")).values() for name in split]


def test_train_ids_are_known_by_their_name_in_any_case(source, tmp_path):
    source("cityscapes")
    folder = tmp_path / "cityscapes" / "gtFine" / "val" / "munster"
    save(every(range(19)), folder / "munster_000000_000019_gtFine_labelTrainIds.PNG")
    assert np.array_equal(source("cityscapes").splits["test"].read(2)[1], every(range(19)))


def test_a_city_whose_folders_lead_nowhere_is_a_fault(source, tmp_path):
    source("cityscapes")
    for folder in ("leftImg8bit", "gtFine"):
        place = tmp_path / "cityscapes" / folder / "train" / "ulm"
        place.rename(tmp_path / folder)
        place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"leftImg8bit/train/ulm: the folder does not exist"):
        source("cityscapes")


def test_sbd_that_is_not_there_is_said(source, tmp_path):
    source("voc")
    (tmp_path / "voc" / "benchmark_RELEASE").rename(tmp_path / "elsewhere")
    with pytest.raises(
        InputError, match=r"data/sbd: no files of SBD found; put SegmentationClassAug"
    ):
        source("voc", sbd=True)


def test_sbd_masks_are_checked_like_others(source, tmp_path):
    made = source("voc", sbd=True)
    cls = tmp_path / "voc" / "benchmark_RELEASE" / "dataset" / "cls"
    save_mat(np.zeros((3, 4)), cls / "2009_000002.mat")
    with pytest.raises(InputError, match=r"2009_000002.mat: label must be as large .* got 3x4"):
        made.splits["train"].read(-1)
    (cls / "2009_000001.mat").unlink()
    with pytest.raises(InputError, match=r"img/2009_000001.jpg: no matching label in .*cls"):
        source("voc", sbd=True)


def test_a_list_that_names_an_image_that_is_not_there_is_a_fault(source, tmp_path):
    source("voc")
    file = tmp_path / "voc" / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"
    file.write_text(file.read_text() + "2008_000003\n")
    with pytest.raises(InputError, match=r"JPEGImages/2008_000003.jpg: the listed image does not"):
        source("voc")
    file.unlink()
    with pytest.raises(InputError, match=r"val.txt: cannot read the list \(File"):
        source("voc")


def test_synthia_deals_whole_blocks_of_neighbours(source):
    made = source("synthia", block=2)
    assert made.splits["val"].names == ("0000014", "0000015")
    assert made.splits["test"].names == ("0000016", "0000017", "0000018", "0000019")
    assert made.splits["test"].groups.tolist() == [8, 8, 9, 9]
    assert len(made.splits["train"].names) == 14
    assert [len(some) for some in names(source("synthia", block=1)).values()] == [14, 2, 4]


def test_synthia_with_too_few_images_for_its_blocks_is_refused(source):
    with pytest.raises(InputError, match=r"data/block: .* more than 24 images, got 20"):
        source("synthia", block=3)


def test_deepglobe_tests_on_a_fold_in_name_order(source):
    every_name = [str(100000 + 7 * index) for index in range(12)]
    folds = [names(source("deepglobe", fold=fold)) for fold in range(5)]
    assert [one["test"] for one in folds] == [
        tuple(every_name[2 * fold : 2 * fold + 2]) for fold in range(5)
    ]
    for one in folds:
        assert sorted(name for some in one.values() for name in some) == every_name
        assert one["val"] == tuple(
            name for name in every_name if in_fraction(name, 0.5) and name not in one["test"]
        )


def test_camvid_keeps_segnets_test_and_carves_val_by_blocks(source):
    split = names(source("camvid"))
    assert split["test"] == ("0001TP_008550", "Seq05VD_f00000", "Seq05VD_f00030", "Seq05VD_f00060")
    assert split["val"] == ("0006R0_f00930", "0006R0_f00960", "0016E5_07959", "0016E5_08640")
    official = names(source("camvid", resplit=None))
    assert official["val"] == ("0016E5_07959", "0016E5_07961")


def test_camvid_blocks_end_with_their_sequence(source):
    assert source("camvid", block=2).splits["test"].groups.tolist() == [0, 1, 1, 2]


def test_a_frame_of_no_camvid_sequence_is_a_fault(source, tmp_path):
    source("camvid")
    for folder, suffix in (("701_StillsRaw_full", ""), ("LabeledApproved_full", "_L")):
        file = tmp_path / "camvid" / folder / f"Seq05VD_f00060{suffix}.png"
        file.rename(file.with_name(f"holiday{suffix}.png"))
    with pytest.raises(InputError, match=r"holiday.png: .* not that of a frame of 0001TP"):
        source("camvid")


@pytest.mark.parametrize("split", SPLITS)
def test_camvid_frames_are_told_apart_as_segnet_does(split):
    if not CAMVID.is_dir():
        pytest.skip("needs CamVid beside the checkout")
    frames = [path.stem for path in (CAMVID / "images" / split).iterdir()]
    assert {published_split(frame) for frame in frames} == {split}


def test_a_share_is_a_share_of_the_names():
    some = [f"2007_{index:06d}" for index in range(2000)]
    assert sum(in_fraction(name, 0.2) for name in some) == pytest.approx(400, abs=50)
    assert not any(in_fraction(name, 0.0) for name in some)
    assert all(in_fraction(name, 1.0) for name in some)


def test_a_folder_that_is_missing_hides_no_fault_of_the_others(tmp_path):
    from folder_data import config, write_folder

    root = write_folder(tmp_path / "town")
    for file in (root / "labels" / "val").iterdir():
        file.unlink()
    (root / "labels" / "val").rmdir()
    (root / "images" / "train" / "000.png").write_bytes(b"")
    said = [str(problem) for problem in scan_files(config(), root).check().problems]
    assert len(said) == 2
    assert "labels/val: the folder does not exist" in said[0]
    assert "train/000.png: cannot read the image" in said[1]
    with pytest.raises(InputError, match=r"labels/val: the folder does not exist; `splits"):
        open_data(config(), data_root=root, cache_dir=tmp_path / "cache")


def test_a_folder_that_cannot_be_read_is_a_fault(source, tmp_path, monkeypatch):
    source("deepglobe")

    def refused(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(InputError, match=r"land/train: cannot read the folder .*PermissionError"):
        source("deepglobe")
