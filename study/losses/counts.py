"""The pixels of each class in every image of a training set, as class-weight schemes need them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.losses.ignored import as_given, ignored_labels

__all__ = ["class_counts"]

LABEL_KEYS = ("mask", "label", "labels", "target", "segmentation", "semantic_mask")


def class_counts(
    data: Any,
    num_classes: int,
    *,
    ignore_index: int | Sequence[int] | None = 255,
    label: str | int | Callable[[Any], Any] | None = None,
    batched: bool | None = None,
) -> NDArray[np.int64]:
    """Count the pixels of each class in every image: n[i, c] = #{p : y_p of image i is c}.

    Args:
        data: a dataset of samples, or a loader of batches (B, ...) of them.
        num_classes: C.
        ignore_index: label of the ignored pixels, or several; None if there is none.
        label: where a sample or batch has its labels: an index or a key, or a function that returns
            them. Default: the second of a tuple or list, the one of `mask`, `label`, `labels`,
            `target`, `segmentation`, `semantic_mask` in a mapping, else the sample itself.
        batched: whether the first dimension of the labels is the batch. Default: whether `data` has
            a `batch_sampler`, as torch's loaders have.

    Returns:
        (images, C) int64, in the order of the data, for the `class_counts` of `build_loss` and
        (summed over axis 0) of `SegmentationMetrics`. If the data are augmented at random,
        the counts are those of this one pass.

    Raises:
        ValueError: for data without an image, where a sample's labels are not found, and for labels
            that are no integers, or neither in [0, C) nor ignored.

    Examples:
        >>> import numpy as np
        >>> from study.losses import build_loss, class_counts
        >>> data = [("image", np.array([[0, 0, 1, 255]])), ("image", np.array([[0, 0, 0, 0]]))]
        >>> counts = class_counts(data, 2)
        >>> counts.tolist()
        [[2, 1], [4, 0]]
        >>> loss = build_loss("median_frequency", num_classes=2, class_counts=counts)
        >>> [round(weight, 3) for weight in loss.class_weights.tolist()]
        [0.817, 2.1]
    """
    if batched is None:
        batched = getattr(data, "batch_sampler", None) is not None
    ignored = ignored_labels(ignore_index, num_classes)
    rows: list[NDArray[np.int64]] = []
    for number, sample in enumerate(_samples(data)):
        labels = _as_integers(_labels_of(sample, label, number), number)
        for image in labels if batched else labels[None]:
            rows.append(_count(image, num_classes, ignored, number))
    if not rows:
        raise ValueError("data must have at least one image, got none")
    return np.stack(rows)


def _samples(data: Any) -> Iterator[Any]:
    """All samples. A dataset of torch need not stop at an index beyond its end."""
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not hasattr(data, "__iter__"):
        return (data[index] for index in range(len(data)))
    return iter(data)


def _labels_of(sample: Any, label: Any, number: int) -> Any:
    if callable(label):
        return label(sample)
    try:
        if label is not None:
            return sample[label]
        if isinstance(sample, Mapping):
            (key,) = (key for key in LABEL_KEYS if key in sample)
            return sample[key]
        return sample[1] if isinstance(sample, tuple | list) else sample
    except (LookupError, TypeError, ValueError) as error:
        found = f"keys {[*sample]}" if isinstance(sample, Mapping) else type(sample).__name__
        raise ValueError(
            f"sample {number} has no labels where they were looked for (found: {found}); "
            "label= says where: an index, a key, or a function"
        ) from error


def _as_integers(labels: Any, number: int) -> NDArray[np.int64]:
    detached = labels.detach().cpu() if hasattr(labels, "detach") else labels
    array = np.asarray(detached)
    if array.dtype.kind not in "iub":
        raise ValueError(
            f"labels must be integers, got {array.dtype} of shape {array.shape} in sample {number}"
        )
    return array.astype(np.int64, copy=False)


def _count(
    image: NDArray[np.int64], num_classes: int, ignored: tuple[int, ...], number: int
) -> NDArray[np.int64]:
    labels = image.ravel()
    for index in ignored:
        labels = labels[labels != index]
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        wrong = labels[(labels < 0) | (labels >= num_classes)][0]
        others = f" or {as_given(ignored)}, which is ignored" if ignored else ""
        raise ValueError(
            f"labels must be in [0, {num_classes}){others}, got {wrong} in sample {number}"
        )
    return np.bincount(labels, minlength=num_classes)
