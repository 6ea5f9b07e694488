"""Which classes the splits of a data set have: what no study begins with, and what is warned of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import yaml

from study.config.task import FactoryData, FileData, FolderData
from study.core.errors import InputError
from study.core.names import TRAIN
from study.data.objects import KEPT
from study.data.resizing import enough, survey_of
from study.data.splits import SegmentationData

FEW_IMAGES = 5  # with fewer, a class's validation score is unreliable
MOSTLY_IGNORED = 0.5  # fraction of a split's pixels


def check_labelled(data: SegmentationData) -> SegmentationData:
    """Return the data. Raises InputError if all pixels of a split are ignored."""
    for name, split in data.splits.items():
        if not split.class_counts.any():
            raise InputError(f"split {name} has no labelled pixel", key=f"data/{name}")
    return data


def class_faults(data: SegmentationData, config: FileData | FactoryData) -> list[InputError]:
    """What a study must not begin with: labels of one class alone, and classes without a training
    pixel that `absent` does not name."""
    faults = []
    for name in config.absent:
        if name not in data.class_names:
            faults.append(InputError.unknown("class", name, data.class_names, key="data/absent"))
    counts = {name: split.class_counts.sum(0) for name, split in data.splits.items()}
    there = np.flatnonzero(sum(counts.values()))
    if len(there) == 1:
        only = data.class_names[there[0]]
        message = f"all labelled pixels are of one class, {only!r}: nothing can be learned"
        return [*faults, InputError(message, hint=_second_class(config, only), key="data")]
    lacking = [
        index
        for index, name in enumerate(data.class_names)
        if not counts[TRAIN][index] and name not in config.absent
    ]
    if lacking:
        faults.append(_lacking(data, config, lacking))
    return faults


def _lacking(
    data: SegmentationData, config: FileData | FactoryData, lacking: Sequence[int]
) -> InputError:
    message = f"{len(lacking)} of {data.num_classes} classes have no training pixel"
    if len(lacking) == 1:
        message = "a class has no training pixel"
    remedy = "correct the labels"
    lost = [index for index in lacking if survey_of(data).images[TRAIN][index]]
    if lost:
        height, width = data.train.labels.shape[1:]
        message += f" left at {height}x{width}"
        size = enough(data, lost)
        remedy = f"`size: {[*size]}` keeps {KEPT:.0%} of its objects" if size else "raise `size`"
    accepted = _in_yaml([*config.absent, *(data.class_names[index] for index in lacking)])
    hint = f"{remedy}, or accept it: `absent: {accepted}` in the task's data"
    return InputError(message, hint=hint, key="data")


def _second_class(config: FileData | FactoryData, only: str) -> str:
    if isinstance(config, FactoryData):
        return "return labels of two classes or more from the factory"
    if isinstance(config, FolderData):
        classes = _in_yaml(["background", only if only != "background" else "object"])
        return f"label a second class, 0 and 1 for `classes: {classes}` in classes.yaml"
    return "compare the label files with those that the format describes"


def _in_yaml(names: Sequence[str]) -> str:
    flow = yaml.safe_dump([*names], default_flow_style=True, allow_unicode=True, width=2**31)
    return str(flow).strip()


def class_warnings(data: SegmentationData) -> list[str]:
    """Warn about classes that are absent from or rare in a split, so not learnable or measurable
    there, and about splits that are mostly ignored."""
    train, val, test = ((split.class_counts > 0).sum(0) for split in data.splits.values())
    names = np.array(data.class_names, object)
    ids = f"decoded labels hold 0 to {data.num_classes - 1}, {data.ignore_index} is ignored"
    few = (test > 0) & (val < FEW_IMAGES)
    found = {
        f"in no image at all ({ids})": names[train + val + test == 0],
        "in no image of test, so not judged": names[(train + val > 0) & (test == 0)],
        "in test but in no image of train": names[(test > 0) & (train == 0)],
        f"in test but in fewer than {FEW_IMAGES} images of val": [
            f"{name} ({count})" for name, count in zip(names[few], val[few], strict=True)
        ],
    }
    ignored = {
        name: 1 - split.class_counts.sum() / split.labels.size
        for name, split in data.splits.items()
    }
    mostly = [f"{name} {part:.0%}" for name, part in ignored.items() if part > MOSTLY_IGNORED]
    found["more than half of the pixels are ignored, neither learned from nor judged"] = mostly
    return [f"{what}: {', '.join(some)}" for what, some in found.items() if len(some)]
