"""What each step of a training sees, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_task import tiny_data

from study.config.task import Augment
from study.data import SegmentationData
from study.training.augment import augment
from study.training.batches import AUGMENT, Batches, TrainOrder, stream

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return tiny_data()


@pytest.mark.parametrize(
    ("num_images", "batch_size", "sizes"),
    [
        (8, 4, [4, 4]),
        (10, 4, [4, 4, 2]),
        (9, 4, [4, 4]),
        (3, 4, [3]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_a_last_batch_of_one_image_is_left_out_unless_there_is_no_other(
    num_images, batch_size, sizes
):
    order = TrainOrder(num_images, batch_size, seed=0)
    steps = [order.indices(step) for step in range(order.steps_per_pass)]
    assert [len(step) for step in steps] == sizes
    seen = np.concatenate(steps)
    assert len(np.unique(seen)) == len(seen)


def test_every_pass_has_its_own_order_and_any_step_can_be_redone():
    order = TrainOrder(12, 4, seed=3)
    first = [order.indices(step).tolist() for step in range(6)]
    for steps in (first[:3], first[3:]):
        assert sorted(index for step in steps for index in step) == list(range(12))
    assert first[:3] != first[3:]
    assert TrainOrder(12, 4, seed=3).indices(4).tolist() == first[4]
    assert TrainOrder(12, 4, seed=4).indices(4).tolist() != first[4]


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_are_normalised_by_the_datas_mean_and_spread(data, ahead):
    batches = Batches(data, CPU, "fp32")
    batches.reads_ahead = ahead
    mean, std = (np.asarray(each)[:, None, None] for each in (data.mean, data.std))
    count = 0
    for images, target in batches.evaluation(data.val, 3):
        part = slice(count, count + len(images))
        pixels = data.val.images[part].transpose(0, 3, 1, 2) / 255
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert np.allclose(images.numpy(), (pixels - mean) / std, atol=1e-5)
        assert np.array_equal(target.numpy(), data.val.labels[part])
        count += len(images)
    assert count == len(data.val.images)


@pytest.mark.parametrize(
    "device",
    [
        CPU,
        pytest.param(
            torch.device("cuda"),
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("config", [Augment(flip=0.5), Augment(crop=(8, 12), jitter=0.3)])
def test_batches_that_are_read_ahead_are_the_same(data, config, device):
    def epoch(ahead):
        batches = Batches(data, device, "fp32")
        batches.reads_ahead = ahead
        order = TrainOrder(len(data.train.images), 2, seed=0)
        draws = [(order.indices(step), stream(0, AUGMENT, step)) for step in range(5)]
        return list(batches.train(data.train, draws, config))

    ahead = epoch(True)
    assert len(ahead) == 5
    for one, other in zip(ahead, epoch(False), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize(
    "config",
    [
        Augment(flip=0.5, scale=(0.5, 2.0), jitter=0.3),
        Augment(flip=0.5, scale=(0.5, 2.0), crop=(8, 12), jitter=0.3),
        Augment(flip=0.5, crop=(8, 12)),
        Augment(flip=0.5, crop=(8, 100)),
    ],
)
def test_a_training_batch_is_the_augmentation_of_its_images(data, config):
    index = np.array([3, 0, 2])
    batches = Batches(data, CPU, "fp32")
    draw = (index, torch.Generator().manual_seed(1))
    ((images, target, soft),) = batches.train(data.train, [draw], config)
    pixels = torch.from_numpy(data.train.images[index].transpose(0, 3, 1, 2) / np.float32(255))
    mean, std = (torch.tensor(each, dtype=torch.float32) for each in (data.mean, data.std))
    expected = augment(
        pixels.contiguous(memory_format=torch.channels_last),
        torch.from_numpy(data.train.labels[index].astype(np.int64)),
        config,
        mean=mean,
        ignore_index=data.ignore_index,
        generator=torch.Generator().manual_seed(1),
    )
    normalised = (expected[0] - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(images, normalised, atol=1e-5, rtol=1e-5)
    assert torch.equal(target, expected[1])
    assert soft is None
    assert images.is_contiguous(memory_format=torch.channels_last)
