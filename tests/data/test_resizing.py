"""Classes that the task's size takes away: said in figures, in warnings and where a study stops."""

from __future__ import annotations

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import yaml
from folder_data import config
from PIL import Image

from study.config.task import FactoryModel, SmpModel
from study.core.errors import InputError
from study.data import SegmentationData, data_warnings, open_data
from study.data.__main__ import main
from study.data.resizing import output_stride

ONE_LEFT = {"train": 1, "val": 1, "test": 1}


def write_defects(root, left, *, images=20):
    """Grey pictures of 512x512, each with a bright square of 3x3 pixels of class 1: the first ones
    of each split on a row and a column that 64 of 512 pixels keep (8k + 4), the others beside."""
    rng = np.random.default_rng(0)
    for split, sampled in left.items():
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for index in range(images):
            image = rng.integers(90, 110, (512, 512, 3), np.uint8)
            label = np.zeros((512, 512), np.uint8)
            first = 3 if index < sampled else 5
            row, column = first + 8 * (7 * index % 60), first + 8 * (11 * index % 60)
            image[row : row + 3, column : column + 3] = 255
            label[row : row + 3, column : column + 3] = 1
            Image.fromarray(image).save(root / "images" / split / f"{index:03d}.png")
            Image.fromarray(label).save(root / "labels" / split / f"{index:03d}.png")
    (root / "classes.yaml").write_text("classes: [good, defect]\n")


@pytest.fixture(scope="module")
def defects(tmp_path_factory):
    root = tmp_path_factory.mktemp("defects")
    write_defects(root, ONE_LEFT)
    return root


def opened(root, cache, **changes):
    return open_data(config(**{"size": [64, 64], **changes}), data_root=root, cache_dir=cache)


@pytest.mark.slow
def test_a_defect_that_19_of_20_images_lose_is_warned_of(defects, tmp_path):
    found = opened(defects, tmp_path)
    for data in (found, opened(defects, tmp_path)):  # decoded now, and from the cache
        (told,) = [one for one in data_warnings(data) if "loses by resizing" in one]
        assert told == (
            "classes that train loses by resizing to 64x64: defect (left: 5% of 20 objects, 5% of "
            "20 images; 95% at 181x181)"
        )
    enough = opened(defects, tmp_path, size=[181, 181])
    assert not any("loses by resizing" in one for one in data_warnings(enough))
    assert (enough.train.class_counts[:, 1] > 0).all()


@pytest.mark.slow
def test_the_check_of_a_data_set_shows_both_sizes_and_the_worst_first(
    defects, capsys, tmp_path, tiny_task
):
    tiny_task["data"] = {"format": "folder", "size": [64, 64]}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(tiny_task))
    assert main([str(tmp_path / "task.yaml"), "--data-root", str(defects)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith("  defect")]
    assert rows[0] == ["defect", *(["0.003", "0.001", "20>1"] * 3)]
    assert rows[1] == ["defect", "20", "3", "3", "0.375", "5.0", "5.0", "181x181"]
    named = [line.split()[0] for line in lines if line.startswith(("  good", "  defect"))]
    assert named == ["defect", "good", "defect", "good"]
    assert any("objects smaller than the encoder's stride of 8 pixels" in line for line in lines)


@pytest.mark.slow
def test_a_class_that_the_size_takes_from_every_training_image_stops(tmp_path):
    write_defects(tmp_path / "root", ONE_LEFT | {"train": 0}, images=5)
    with pytest.raises(InputError, match=r"left at 64x64; `size: \[128, 128\]` keeps 95%.*defect"):
        opened(tmp_path / "root", tmp_path / "cache")
    declared = opened(tmp_path / "root", tmp_path / "cache", absent=["defect"])
    assert any("left: 0% of 5 objects" in one for one in data_warnings(declared))


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_an_object_is_judged_at_the_size_that_it_is_shown_at(tmp_path, fit):
    """Pictures of 16x64 at 16x16: `pad` shrinks them to 4 rows, `stretch` keeps all 16."""
    for split in ("train", "val", "test"):
        for folder in ("images", "labels"):
            (tmp_path / folder / split).mkdir(parents=True)
        for index in range(3):
            label = np.zeros((16, 64), np.uint8)
            label[5, 8:40] = 1  # 4 rows of 16 are the rows 2, 6, 10 and 14
            image = np.random.default_rng(len(split) + index).integers(0, 255, (16, 64, 3))
            for folder, pixels in (("images", image), ("labels", label)):
                Image.fromarray(pixels.astype(np.uint8)).save(
                    tmp_path / folder / split / f"{index}.png"
                )
    (tmp_path / "classes.yaml").write_text("classes: [good, scratch]\n")
    declared = config(size=[16, 16], fit=fit, absent=["scratch"])
    found = open_data(declared, data_root=tmp_path, cache_dir=tmp_path / "cache", begun=True)
    assert found.survey is not None
    assert found.survey.objects.kept[0].tolist() == [3, 3 if fit == "stretch" else 0]
    assert found.survey.objects.task_side[1] == (1 if fit == "stretch" else 0.25)


def blocks(side: int) -> SegmentationData:
    labels = np.zeros((4, 64, 64), np.uint8)
    labels[:, 8 : 8 + side, 8 : 8 + side] = 1
    images = np.random.default_rng(0).integers(0, 255, (3, 4, 64, 64, 3), np.uint8)
    parts = [(part, labels) for part in images]
    return SegmentationData.from_arrays(
        "blocks", ["ground", "block"], train=parts[0], val=parts[1], test=parts[2]
    )


@pytest.mark.parametrize(
    ("side", "depth", "warned"), [(15, 4, True), (16, 4, False), (15, 3, False)]
)
def test_objects_smaller_than_the_stride_of_the_encoder_are_warned_of(side, depth, warned):
    model = SmpModel(arch="unet", encoder="resnet18", kwargs={"encoder_depth": depth})
    told = [one for one in data_warnings(blocks(side), model) if "stride" in one]
    assert [one.rpartition(": ")[2] for one in told] == (["block (15.0)"] if warned else [])


def test_a_model_of_ones_own_has_no_known_stride():
    model = FactoryModel(factory="anyone:net")
    assert output_stride(model) is None
    assert not any("stride" in one for one in data_warnings(blocks(2), model))


@pytest.mark.slow
@pytest.mark.parametrize("arch", sorted({*smp.MODEL_ARCHITECTURES_MAPPING} - {"dpt"}))
def test_the_stride_is_that_of_the_model_that_is_built(arch):
    built = smp.create_model(arch, encoder_name="resnet18", encoder_weights=None)
    assert output_stride(SmpModel(arch=arch, encoder="resnet18")) == built.encoder.output_stride


def test_data_of_a_factory_have_no_size_of_files(capsys):
    from study.data.check import describe

    lines = describe(blocks(20)).splitlines()
    rows = [line.split() for line in lines if line.startswith("  block ")]
    assert rows == [["block", *(["9.766", "4"] * 3)], ["block", "4", "20", "20"]]
    assert not any("file" in line for line in lines)


def test_the_tables_are_readable_at_100_columns(tmp_path):
    from study.data.tables import class_table, object_table

    names = [f"a class with a long name, number {index}" for index in range(3)]
    labels = np.arange(3000 * 9).reshape(3000, 3, 3).astype(np.uint8) % 3
    part = np.zeros((3000, 3, 3, 3), np.uint8), labels
    data = SegmentationData.from_arrays("many", names, train=part, val=part, test=part)
    for table in (class_table(data), object_table(data)):
        assert max(map(len, table.splitlines())) <= 100
