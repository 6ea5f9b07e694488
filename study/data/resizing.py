"""What the task's size does to the classes, and warnings where it takes them away.

The survey of a data set with files is made while its cache is built, from labels of the files' own
size. Other data have no other size than the task's; they are surveyed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from study.config.task import FactoryModel, SmpModel
from study.core.names import TRAIN
from study.data.objects import KEPT, Measured, Survey, Surveyor, find_objects
from study.data.splits import SegmentationData

FEW_OBJECTS = 0.5  # fraction left of a class's objects below which it is warned of
MOST_IMAGES = 1000  # whose objects are looked at where no cache has a survey
MOST_CLASSES = 8  # named in a warning
_OUTPUT_STRIDES = {"deeplabv3": 8, "deeplabv3plus": 16, "pan": 16}
_DEPTHS = {"pspnet": 3, "dpt": 4}  # encoder_depth where a task gives none; else 5


def survey_of(data: SegmentationData) -> Survey:
    """The survey of the data, made now where their cache has none: by the labels as they are."""
    if data.survey is not None:
        return data.survey
    surveyor = Surveyor(data.num_classes, of_files=False)
    looked_at = np.unique(np.linspace(0, len(data.train) - 1, MOST_IMAGES).round().astype(int))
    for name, split in data.splits.items():
        for index, counts in enumerate(split.class_counts):
            objects = None
            if name == TRAIN and index in looked_at:
                objects = find_objects(np.asarray(split.labels[index]), data.num_classes)
            surveyor.add(name, Measured(counts, objects))
    return surveyor.result()


def surveyed(data: SegmentationData) -> SegmentationData:
    """The data with their survey."""
    return replace(data, survey=survey_of(data))


def images_left(data: SegmentationData) -> np.ndarray:
    """The fraction of the training images with a class that still have it at the task's size, (C,);
    1 for a class without any."""
    before = survey_of(data).images[TRAIN]
    left = (data.train.class_counts > 0).sum(0)
    return np.where(before > 0, left / np.maximum(before, 1), 1.0)


def objects_left(data: SegmentationData) -> np.ndarray:
    """The fraction of a class's training objects that survive at the task's size, (C,)."""
    objects = survey_of(data).objects
    return np.where(objects.count > 0, objects.kept[0] / np.maximum(objects.count, 1), 1.0)


def enough(data: SegmentationData, classes: Sequence[int]) -> tuple[int, int] | None:
    """The smallest size of the task's proportions that keeps `KEPT` of the objects of each of the
    classes, of those that were tried."""
    found = [survey_of(data).objects.factor(index) for index in classes]
    height, width = data.train.labels.shape[1:]
    factors = [factor for factor in found if factor is not None]
    if len(factors) < len(found):
        return None
    return round(max(factors) * height), round(max(factors) * width)


def resizing_warnings(data: SegmentationData) -> list[str]:
    """Warn of classes that vanish at the task's size: from 5 % of the training images that have
    them, or with half of their training objects."""
    images, objects = images_left(data), objects_left(data)
    lost = [
        index
        for index in np.lexsort((objects, images)).tolist()
        if images[index] < KEPT or objects[index] < FEW_OBJECTS
    ]
    if not lost:
        return []
    survey = survey_of(data)
    told = []
    for index in lost[:MOST_CLASSES]:
        size = enough(data, [index])
        larger = f"{KEPT:.0%} at {_by(size)}" if size else "no size tried is enough"
        told.append(
            f"{data.class_names[index]} (left: {objects[index]:.0%} of "
            f"{survey.objects.count[index]} objects, {images[index]:.0%} of "
            f"{survey.images[TRAIN][index]} images; {larger})"
        )
    more = f" and {len(lost) - MOST_CLASSES} more" if len(lost) > MOST_CLASSES else ""
    size = data.train.labels.shape[1:]
    return [f"classes that train loses by resizing to {_by(size)}: {', '.join(told)}{more}"]


def stride_warnings(data: SegmentationData, model: SmpModel | FactoryModel) -> list[str]:
    """Warn of classes most of whose training pixels are in objects with a shorter side below the
    stride of the network's encoder."""
    stride = output_stride(model)
    if stride is None:
        return []
    sides = survey_of(data).objects.pixel_side
    small = [index for index in np.argsort(sides).tolist() if sides[index] < stride]
    if not small:
        return []
    told = [f"{data.class_names[index]} ({sides[index]:.1f})" for index in small[:MOST_CLASSES]]
    more = f" and {len(small) - MOST_CLASSES} more" if len(small) > MOST_CLASSES else ""
    return [
        f"objects smaller than the encoder's stride of {stride} pixels at "
        f"{_by(data.train.labels.shape[1:])} (shorter side of the object that a class's median "
        f"pixel is in): {', '.join(told)}{more}"
    ]


def output_stride(model: SmpModel | FactoryModel) -> int | None:
    """By what factor the encoder of a model shrinks images; None for a factory's."""
    if isinstance(model, FactoryModel):
        return None
    arch = model.arch.lower()
    stride = model.kwargs.get("encoder_output_stride", _OUTPUT_STRIDES.get(arch))
    depth = model.kwargs.get("encoder_depth", _DEPTHS.get(arch, 5))
    return int(2**depth if stride is None else stride)


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
