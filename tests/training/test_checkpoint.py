"""A training goes on from its checkpoint as if nothing had been, or says why it cannot."""

from __future__ import annotations

import random
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_disk import full_at
from tiny_task import (
    CONVOLUTION,
    NOISY,
    STATEFUL_LOSS,
    TINY,
    run,
    timeless,
    tiny,
    tiny_data,
)

from study.core.errors import InputError
from study.data import SegmentationData, open_data
from study.training.checkpoint import IncompatibleCheckpoint, load_checkpoint, save_checkpoint
from study.training.trainer import REMEMBERED, train

HERE = Path(__file__).parents[1]
CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return tiny_data()


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(TINY["model"], marks=pytest.mark.slow),
        CONVOLUTION,
        NOISY,
    ],
)
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_resumed_training_equals_the_uninterrupted_one_bit_for_bit(data, tmp_path, model, epoch):
    config = tiny(STATEFUL_LOSS, model=model, budget={"epochs": 3})
    whole = []
    for report in train(config, data=data, device="cpu"):
        whole.append(report)
        report.save(tmp_path / f"{report.epoch}.pt")
    torch.rand(7)
    np.random.rand(7)
    random.random()
    resumed = []
    for report in train(config, data=data, device="cpu", resume_from=tmp_path / f"{epoch}.pt"):
        resumed.append(report)
        report.save(tmp_path / f"resumed-{report.epoch}.pt")
    assert [timeless(report) for report in resumed] == [timeless(r) for r in whole[epoch:]]
    expected, got = (
        torch.load(tmp_path / name, weights_only=True)["state"] for name in ("3.pt", "resumed-3.pt")
    )
    del got["reports"], expected["reports"]  # seconds are their own
    assert_equal(got, expected)
    assert run(config, data, resume_from=tmp_path / "3.pt") == []


def assert_equal(got: Any, expected: Any) -> None:
    assert type(got) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert torch.equal(got, expected)
    elif isinstance(expected, dict):
        assert list(got) == list(expected)
        for key, value in expected.items():
            assert_equal(got[key], value)
    elif isinstance(expected, list):
        for one, other in zip(got, expected, strict=True):
            assert_equal(one, other)
    else:
        assert got == expected


def test_a_report_cannot_be_saved_once_training_has_moved_on(data, tmp_path):
    reports = train(tiny(model=CONVOLUTION), data=data, device="cpu")
    first = next(reports)
    next(reports)
    with pytest.raises(RuntimeError, match="epoch 1 must be saved before the next report"):
        first.save(tmp_path / "late.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_or_foreign_checkpoint_is_refused_by_name(data, tmp_path):
    config = tiny(model=CONVOLUTION)
    good = tmp_path / "good.pt"
    next(iter(train(config, data=data, device="cpu"))).save(good)
    content = good.read_bytes()
    (tmp_path / "truncated.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_text("epoch: 3\n")
    torch.save({"epoch": 1}, tmp_path / "foreign.pt")
    torch.save(HERE, tmp_path / "object.pt")
    for name in ("truncated", "empty", "text", "foreign", "object", "absent"):
        file = tmp_path / f"{name}.pt"
        with pytest.raises(InputError, match=f"^{file}: .*checkpoint") as caught:
            run(config, data, resume_from=file)
        assert "\n" not in str(caught.value)
    others = [
        (config.model_copy(update={"seed": 3}), data),
        (tiny({"focal_gamma": 1.0}, model=CONVOLUTION), data),
        (config, replace(data, fingerprint="other")),
    ]
    for other, its_data in others:
        with pytest.raises(InputError, match="of another config or other data"):
            run(other, its_data, resume_from=good)


@pytest.mark.slow
def test_a_bit_that_has_changed_is_a_damaged_checkpoint_or_changes_nothing(data, tmp_path):
    config = tiny(STATEFUL_LOSS, model=CONVOLUTION)
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    reports = []
    for report in train(config, data=data, device="cpu"):
        reports.append(timeless(report))
        if report.epoch == 1:
            report.save(good)
    content = good.read_bytes()
    places = random.Random(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(content)
        damaged[places.randrange(len(content))] ^= 1 << places.randrange(8)
        bad.write_bytes(damaged)
        try:
            found = run(config, data, resume_from=bad)
        except InputError as error:
            assert str(error).startswith(f"{bad}: ") and "checkpoint" in str(error)
            refused += 1
        else:
            assert [timeless(report) for report in found] == reports[1:]
    assert refused > 30  # the rest is padding and what nobody reads


def test_a_tensor_that_a_changed_bit_turns_into_a_folder_is_damage(data, tmp_path):
    config = tiny(STATEFUL_LOSS, model=CONVOLUTION)
    file = tmp_path / "one.pt"
    next(iter(train(config, data=data, device="cpu"))).save(file)
    damaged = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        entry = archive.start_dir
        for record in archive.infolist():
            if record.filename.endswith("/data/0"):
                break
            entry = damaged.index(b"PK\x01\x02", entry + 1)
    damaged[entry + 38] |= 0x10  # the attribute of a folder
    file.write_bytes(damaged)
    with pytest.raises(InputError, match=r"cannot read the checkpoint: .*/data/0 has attributes"):
        run(config, data, resume_from=file)


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, "gone", 7])
@pytest.mark.parametrize("key", ["identity", "state", "model", "optimizer", "loss", "rng", "epoch"])
def test_a_checkpoint_that_lacks_a_part_is_refused_by_name(data, tmp_path, key, value):
    config = tiny(STATEFUL_LOSS, model=CONVOLUTION)
    file = tmp_path / "one.pt"
    next(iter(train(config, data=data, device="cpu"))).save(file)
    content = torch.load(file, weights_only=True)
    part = content if key in content else content["state"]
    if value == "gone":
        del part[key]
    elif key == "epoch" and value == 7:
        part[key] = [7]
    else:
        part[key] = value
    torch.save(content, file)
    with pytest.raises(InputError, match=f"^{file}: the checkpoint ") as caught:
        run(config, data, resume_from=file)
    assert "\n" not in str(caught.value)


WIDTH = 1


def edited(num_classes):
    """A model whose code changes: `WIDTH` is not part of its config."""
    from torch import nn

    return nn.Conv2d(3, num_classes, WIDTH, padding=WIDTH // 2)


def test_a_model_whose_code_has_changed_under_a_checkpoint_is_named_in_one_line(
    data, tmp_path, monkeypatch
):
    config = tiny(model={"factory": f"{__name__}:edited"})
    file = tmp_path / "one.pt"
    next(iter(train(config, data=data, device="cpu"))).save(file)
    monkeypatch.setitem(globals(), "WIDTH", 3)
    with pytest.raises(
        IncompatibleCheckpoint, match=f"^{file}: the checkpoint does not fit the model's"
    ) as caught:
        run(config, data, resume_from=file)
    assert "\n" not in str(caught.value)
    assert "size mismatch for weight" in str(caught.value)


def test_moved_data_resume_as_long_as_they_are_the_same(data, tmp_path):
    here, there = (
        tiny(
            model=CONVOLUTION,
            data={"format": "folder", "root": root, "size": [32, 48]},
        )
        for root in ("/here", "/there")
    )
    next(iter(train(here, data=data, device="cpu"))).save(tmp_path / "one.pt")
    assert len(run(there, data, resume_from=tmp_path / "one.pt")) == 1


def test_a_checkpoint_that_fails_to_write_leaves_the_old_one(tmp_path):
    file = tmp_path / "folder" / "state.pt"
    save_checkpoint(file, {"epoch": 1}, identity="x")
    with pytest.raises(AttributeError):
        save_checkpoint(file, {"epoch": lambda: 2}, identity="x")
    assert [path.name for path in file.parent.iterdir()] == ["state.pt"]
    assert load_checkpoint(file, identity="x", device=CPU) == {"epoch": 1}


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_named_and_leaves_the_old_one(tmp_path):
    file = tmp_path / "state.pt"
    save_checkpoint(file, {"weights": torch.zeros(10)}, identity="x")
    with full_at(50_000), pytest.raises(OSError, match="File too large") as caught:
        save_checkpoint(file, {"weights": torch.zeros(100_000)}, identity="x")
    assert caught.value.filename == str(file)
    assert list(tmp_path.iterdir()) == [file]
    assert load_checkpoint(file, identity="x", device=CPU)["weights"].shape == (10,)


@pytest.mark.slow
def test_reports_that_never_arrived_come_again_and_then_training_goes_on(tmp_path, data):
    config = tiny(budget={"epochs": 4})
    whole = []
    for report in train(config, data=data, device="cpu"):
        whole.append(report)
        if report.epoch == 3:
            report.save(tmp_path / "3.pt")
    path = tmp_path / "3.pt"
    follows = list(train(config, data=data, device="cpu", resume_from=path, reported=1))
    assert [report.epoch for report in follows] == list(range(2, len(whole) + 1))
    assert [report.again for report in follows[:3]] == [True, True, False]
    assert [report.metrics for report in follows[:2]] == [report.metrics for report in whole[1:3]]
    rest = list(train(config, data=data, device="cpu", resume_from=path, reported=3))
    assert [report.epoch for report in rest] == list(range(4, len(whole) + 1))


@pytest.mark.slow
def test_a_checkpoint_that_is_ahead_and_does_not_remember_is_refused(tmp_path):
    few = {"format": "synthetic", "size": [16, 16], "num_train": 4, "num_val": 2, "num_test": 2}
    end = REMEMBERED + 2
    config = tiny(model=CONVOLUTION, data=few, augment={}, budget={"epochs": end})
    data = open_data(config.task.data)
    for report in train(config, data=data, device="cpu"):
        report.save(tmp_path / f"{report.epoch}.pt")

    def resumed(epoch, reported):
        file = tmp_path / f"{epoch}.pt"
        return train(config, data=data, device="cpu", resume_from=file, reported=reported)

    assert [report.again for report in resumed(end - 1, 1)] == [True] * REMEMBERED + [False]
    for reported, epoch in ((0, end - 1), (end - 1, end)):
        with pytest.raises(
            InputError, match=f"the checkpoint lacks reports after epoch {reported}"
        ):
            list(resumed(epoch, reported))
