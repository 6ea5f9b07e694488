"""The three tasks in study/tasks, and CamVid where a checkout has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from study.config.task import EpochBudget, FolderData, SyntheticData, load_task
from study.data import open_data

CAMVID = Path(__file__).parents[3] / "shared" / "camvid"


@pytest.mark.parametrize(
    ("name", "size", "epochs", "lr"),
    [
        ("synthetic", (64, 80), 8, 1e-2),
        ("camvid", (96, 128), 16, 5e-3),
        ("tiny", (32, 48), 2, 1e-2),
    ],
)
def test_a_shipped_task_is_valid(name, size, epochs, lr):
    task = load_task(name).config
    assert isinstance(task.data, SyntheticData | FolderData)
    assert task.data.size == size
    assert task.budget == EpochBudget(epochs=epochs)
    assert task.optimizer.lr == lr
    assert task.batch_size == 4


def test_the_three_tasks_train_one_model():
    models = [load_task(name).config.model for name in ("synthetic", "camvid", "tiny")]
    assert models[0] == models[1] == models[2]


@pytest.mark.parametrize(("name", "sizes"), [("synthetic", (240, 80, 120)), ("tiny", (24, 8, 8))])
def test_the_synthetic_tasks_state_every_knob(name, sizes):
    data = load_task(name).config.data
    assert isinstance(data, SyntheticData)
    assert (data.num_train, data.num_val, data.num_test) == sizes
    assert data.model_fields_set == set(SyntheticData.model_fields)


@pytest.fixture(scope="module")
def camvid(tmp_path_factory):
    if not CAMVID.is_dir():
        pytest.skip("needs CamVid beside the checkout")
    data = load_task("camvid").config.data
    return open_data(data, data_root=CAMVID, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.mark.slow
def test_camvid_is_split_again_by_blocks(camvid):
    assert [len(split) for split in camvid.splits.values()] == [284, 90, 233]
    pooled = sorted([*camvid.train.names, *camvid.val.names])
    assert list(camvid.val.names) == [
        name for index, name in enumerate(pooled) if index // 30 % 4 == 3
    ]
    assert len(np.unique(camvid.val.groups)) == 3


def test_camvid_test_is_what_was_published(camvid):
    assert list(camvid.test.names) == sorted(
        path.stem for path in (CAMVID / "images" / "test").iterdir()
    )
    assert (camvid.test.class_counts > 0).sum(0).tolist() == [
        *(232, 233, 232, 233, 233, 228, 225, 90, 223, 221, 75)
    ]


def test_camvid_keeps_its_shares_at_this_size(camvid):
    published = [17.65, 25.57, 1.22, 26.96, 9.64, 11.68, 1.05, 1.23, 4.13, 0.66, 0.20]
    counts = camvid.test.class_counts.sum(0)
    assert 100 * counts / counts.sum() == pytest.approx(published, abs=0.05)
