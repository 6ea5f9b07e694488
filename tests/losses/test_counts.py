from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from study.losses import build_loss, class_counts

IMAGES = torch.zeros(3, 3, 2, 2)
LABELS = torch.tensor([[[0, 0], [1, 255]], [[2, 2], [2, 2]], [[255, 255], [255, 255]]])
COUNTS = [[2, 1, 0], [0, 0, 4], [0, 0, 0]]


class Endless(Dataset):
    """As datasets are written for torch: no error beyond the end."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index):
        return {"image": IMAGES[index % 3], "mask": LABELS[index % 3].numpy()}


class Stream(IterableDataset):
    def __iter__(self):
        return zip(IMAGES, LABELS, strict=True)


@pytest.mark.parametrize(
    "data",
    [
        TensorDataset(IMAGES, LABELS),
        Endless(),
        Stream(),
        [one[None] for one in LABELS.numpy()],
        DataLoader(TensorDataset(IMAGES, LABELS), batch_size=2),
        DataLoader(TensorDataset(IMAGES, LABELS[:, None]), batch_size=2),
        DataLoader(Endless(), batch_size=2),
    ],
    ids=[
        "samples",
        "mappings",
        "stream",
        "bare",
        "loader",
        "a channel",
        "loaded dicts",
    ],
)
def test_every_form_of_data_has_the_same_counts(data):
    counts = class_counts(data, 3)
    assert counts.tolist() == COUNTS
    assert counts.dtype == np.int64


def test_pictures_are_read_as_they_are():
    pictures = pytest.importorskip("PIL.Image")
    data = [(None, pictures.fromarray(one.byte().numpy())) for one in LABELS]
    assert class_counts(data, 3).tolist() == COUNTS


def test_loader_without_automatic_batches_gives_samples():
    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=None)
    assert class_counts(loader, 3).tolist() == COUNTS
    batches = [(IMAGES, LABELS)]
    assert class_counts(batches, 3, batched=True).tolist() == COUNTS


def test_label_says_where_the_labels_are():
    data = [(LABELS[0], "other", {"seg": LABELS[1]})]
    assert class_counts(data, 3, label=0).tolist() == COUNTS[:1]
    assert class_counts(data, 3, label=lambda sample: sample[2]["seg"]).tolist() == COUNTS[1:2]
    assert class_counts([{"seg": LABELS[0]}], 3, label="seg").tolist() == COUNTS[:1]


def test_counts_go_into_the_schemes_of_class_weights():
    counts = class_counts(TensorDataset(IMAGES, LABELS), 3)
    loss = build_loss("median_frequency", num_classes=3, class_counts=counts)
    weights = loss.class_weights
    assert weights is not None
    assert (weights * torch.tensor([2, 1, 4])).sum() / 7 == pytest.approx(1)


def test_ignore_index_may_be_another_or_none():
    assert class_counts([np.array([[0, -1]])], 2, ignore_index=-1).tolist() == [[1, 0]]
    with pytest.raises(ValueError, match=r"^labels must be in \[0, 2\), got 255 in sample 0$"):
        class_counts([np.array([[0, 255]])], 2, ignore_index=None)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ([], "data must have at least one image, got none"),
        ([np.zeros((2, 2))], "labels must be integers, got float64 of shape (2, 2) in sample 0"),
        (
            [LABELS[0], LABELS[1] + 1],
            "labels must be in [0, 3) or 255, which is ignored, got 3 in sample 1",
        ),
        (
            [{"image": IMAGES[0], "seg": LABELS[0]}],
            "sample 0 has no labels where they were looked for (found: keys ['image', 'seg']); "
            "label= says where: an index, a key, or a function",
        ),
        (
            [(IMAGES[0],)],
            "sample 0 has no labels where they were looked for (found: tuple); "
            "label= says where: an index, a key, or a function",
        ),
    ],
)
def test_wrong_data_are_one_line(data, line):
    with pytest.raises(ValueError) as caught:
        class_counts(data, 3)
    assert str(caught.value) == line


def test_several_labels_are_ignored():
    data = [("image", np.array([[0, 0, 1, 255, 7]]))]
    assert class_counts(data, 2, ignore_index=[255, 7]).tolist() == [[2, 1]]
    with pytest.raises(ValueError, match=r"labels must be in \[0, 2\) or \(255, 9\), which is ig"):
        class_counts(data, 2, ignore_index=(255, 9))
