"""Tables of the classes of a data set as text, the classes that resizing hurts most first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from study.data.resizing import enough, images_left, objects_left, survey_of
from study.data.splits import SegmentationData

Column = tuple[str, str, Sequence[str]]  # group, title, a cell for each class
_NAME = 20  # longest name of a class that is shown whole


def class_table(data: SegmentationData) -> str:
    """The share of the labelled pixels of each class in each split, in the files and at the task's
    size, and the images that have it; as `20>1` where the size takes it from some."""
    survey = survey_of(data)
    columns: list[Column] = []
    for name, split in data.splits.items():
        before, after = survey.images[name], (split.class_counts > 0).sum(0)
        titles = ["%"]
        if survey.of_files:
            titles = ["% file", "% task"]
            columns.append((name, titles[0], _percent(survey.pixels[name])))
        columns.append((name, titles[-1], _percent(split.class_counts.sum(0))))
        pairs = zip(before.tolist(), after.tolist(), strict=True)
        images = [f"{one}>{other}" if one != other else str(one) for one, other in pairs]
        columns.append((name, "images", images))
    return _text(data, columns)


def object_table(data: SegmentationData) -> str:
    """The objects of each class in train, their shorter sides, and what the task's size leaves."""
    survey, (height, width) = survey_of(data), data.train.labels.shape[1:]
    objects, side, at = survey.objects, "side in pixels", f"at {height}x{width}"
    columns: list[Column] = [
        ("train", "objects", [str(count) for count in objects.count]),
        (side, "5 %", _pixels(objects.low_side)),
        (side, "median", _pixels(objects.side)),
    ]
    if survey.of_files:
        sizes = [enough(data, [index]) for index in range(data.num_classes)]
        columns += [
            (at, "median", _pixels(objects.task_side)),
            (at, "% left", [f"{100 * part:.1f}" for part in objects_left(data)]),
            (at, "% of images", [f"{100 * part:.1f}" for part in images_left(data)]),
            ("95 % left", "at size", ["{}x{}".format(*size) if size else "-" for size in sizes]),
        ]
    return _text(data, columns)


def _text(data: SegmentationData, columns: Sequence[Column]) -> str:
    """The columns, each a group, a title and a cell for each class, in the order of what is left
    of the classes."""
    order = np.lexsort((objects_left(data), images_left(data)))
    names = [_short(name) for name in data.class_names]
    length = max(len("class"), *map(len, names))
    heads, titles = [" " * length], [f"{'class':{length}}"]
    rows = [f"{names[index]:{length}}" for index in order]
    for group, some in groupby(columns, key=lambda column: column[0]):
        alike = [*some]
        widths = [2 + max(len(title), *map(len, cells)) for _, title, cells in alike]
        widths[0] += max(0, 2 + len(group) - sum(widths))
        heads.append(f"  {group:{sum(widths) - 2}}")
        for (_, title, cells), width in zip(alike, widths, strict=True):
            titles.append(f"{title:>{width}}")
            rows = [f"{row}{cells[index]:>{width}}" for row, index in zip(rows, order, strict=True)]
    return "\n".join(f"  {line}".rstrip() for line in ("".join(heads), "".join(titles), *rows))


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _percent(counts: np.ndarray) -> list[str]:
    shares = 100 * counts / max(1, counts.sum())
    return [f"{share:.3f}" if share < 10 else f"{share:.2f}" for share in shares]


def _pixels(sides: np.ndarray) -> list[str]:
    return ["-" if np.isnan(side) else f"{side:.4g}" for side in sides]
