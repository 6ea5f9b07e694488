"""Metrics of parts of a split that are added up, in one process and over several."""

from __future__ import annotations

import multiprocessing
import tempfile
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed

from study.metrics import SegmentationMetrics

OPTIONS: dict[str, Any] = {
    "class_counts": [50, 30, 9, 1],
    "calibration": True,
    "groups": {"rare": ["2", "3"]},
}


def batches(seed=0, number=7):
    random = torch.Generator().manual_seed(seed)
    for _ in range(number):
        logits = torch.randn(3, 4, 6, 5, generator=random)
        target = torch.randint(0, 4, (3, 6, 5), generator=random)
        target[torch.rand(3, 6, 5, generator=random) < 0.2] = 255
        yield logits, target


def measured(some):
    metrics = SegmentationMetrics(4, **OPTIONS)
    for logits, target in some:
        metrics.update(logits, target)
    return metrics


def assert_same(found, expected):
    one, other = found.compute(), expected.compute()
    assert one == pytest.approx(other, rel=1e-12, nan_ok=True)
    np.testing.assert_array_equal(found.confusion, expected.confusion)
    np.testing.assert_array_equal(found.image_counts(), expected.image_counts())
    np.testing.assert_array_equal(found.curve, expected.curve)
    np.testing.assert_array_equal(found.rule_counts(0.3), expected.rule_counts(0.3))


@pytest.mark.parametrize("cut", [0, 1, 4, 7])
def test_merged_parts_measure_what_the_whole_does(cut):
    every = [*batches()]
    whole, first, second = measured(every), measured(every[:cut]), measured(every[cut:])
    first.compute()  # what it has copied to the host is out of date afterwards
    first.merge(second)
    assert_same(first, whole)
    assert_same(second, measured(every[cut:]))
    second.update(*every[0])  # the merged one keeps its own counts
    assert_same(first, whole)


def test_merged_with_a_diverged_part_is_diverged():
    every = [*batches()]
    bad = every[0][0].clone()
    bad[0, 0] = torch.nan
    whole = measured(every[1:])
    whole.merge(measured([(bad, every[0][1])]))
    assert np.isnan(whole.compute()["miou"])


def test_reset_forgets_everything():
    metrics = measured(batches(seed=1))
    metrics.compute()
    metrics.reset()
    assert metrics.confusion.sum() == 0
    for batch in batches():
        metrics.update(*batch)
    assert_same(metrics, measured(batches()))


@pytest.mark.parametrize(
    "other",
    [
        SegmentationMetrics(3),
        SegmentationMetrics(4, ignore_index=0, **OPTIONS),
        SegmentationMetrics(4, **OPTIONS | {"class_counts": None}),
        SegmentationMetrics(4, **OPTIONS | {"class_counts": [50, 30, 9, 2]}),
        SegmentationMetrics(4, **OPTIONS | {"calibration": False}),
        SegmentationMetrics(4, **OPTIONS | {"groups": {}}),
        SegmentationMetrics(4, class_names=["a", "b", "c", "d"], **OPTIONS | {"groups": {}}),
    ],
)
def test_metrics_of_something_else_are_not_merged(other):
    metrics = measured(batches(number=1))
    before = metrics.confusion.clone()
    with pytest.raises(ValueError, match=r"^both must have the same classes"):
        metrics.merge(other)
    assert torch.equal(metrics.confusion, before)


def test_sync_without_other_processes_changes_nothing():
    metrics = measured(batches())
    metrics.sync()
    metrics.update(*next(batches()))
    assert metrics.confusion.sum() > measured(batches()).confusion.sum()


def _one_of(rank, processes, file, results):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=processes
    )
    every = [*batches()]
    mine = [[], every[:4], every[4:]][rank]
    metrics = measured(mine)
    metrics.sync()
    refused = []
    for again in (metrics.sync, lambda: metrics.update(*every[0]), lambda: metrics.merge(metrics)):
        try:
            again()
        except ValueError as error:
            refused.append(str(error))
    results.put((rank, metrics.compute(), metrics.image_counts().numpy(), refused))
    metrics.reset()
    metrics.update(*every[0])
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.slow
def test_synced_processes_all_measure_what_one_does():
    """Ranks with other numbers of batches, one of them with none."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_one_of, args=(rank, 3, f"{folder}/file", results))
            for rank in range(3)
        ]
        for process in processes:
            process.start()
        found = [results.get(timeout=300) for _ in processes]
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
    whole = measured(batches())
    for _, values, images, refused in found:
        assert values == pytest.approx(whole.compute(), rel=1e-12, nan_ok=True)
        np.testing.assert_array_equal(images, whole.image_counts())
        assert refused == ["the processes' batches are added up already; reset() comes first"] * 3
