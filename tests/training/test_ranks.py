"""Ranks that share the batches of one trial: Gloo between processes on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_parts import trained
from tiny_task import run, timeless, tiny, tiny_data

from study.core.errors import InputError
from study.data import SegmentationData
from study.training.environment import environment
from study.training.provenance import Environment, Provenance
from study.training.ranks import (
    RankLost,
    Ranks,
    as_error,
    check_ranks,
    device_of,
    error_text,
)
from study.training.trainer import EpochReport, train

pytestmark = pytest.mark.usefixtures("one_thread")

TESTS = Path(__file__).parents[1]
GROUP: dict[str, Any] = {"factory": "rank_parts:precise"}
TEACHER = {"factory": "rank_parts:precise"}
BATCH: dict[str, Any] = {"factory": "rank_parts:precise", "kwargs": {"norm": "batch"}}
AUX = {"factory": "rank_parts:precise", "kwargs": {"aux": True}, "aux": 1}
CROPPED = {"flip": 0.5, "scale": [0.6, 1.6], "crop": [24, 24], "jitter": 0.2}


def distilled(labels: str, **more: Any) -> dict[str, Any]:
    return {"distillation": {"teacher": TEACHER, "mix": 0.5, "labels": labels, **more}}


LOSSES: dict[str, dict[str, Any]] = {
    "recall": {"recall": {"ema_momentum": 0.9}, "class_weights": {"scheme": "median_frequency"}},
    "jaccard over the batch": {"jaccard": {"mix": 0.6, "average": "batch"}},
    "jaccard mixture": {"jaccard": {"mix": 0.5, "average": {"batch": 0.5, "image": 0.5}}},
    "jaccard by image and class": {"jaccard": {"mix": 0.5, "average": "image", "smooth": 1.0}},
    "ohem": {"pooling": {"kind": "ohem", "threshold": 0.3, "min_kept": 0.2}},
    "max pooling": {"pooling": {"kind": "max", "p": 1.5, "ratio": 0.25}},
    "normalizer": {
        "class_weights": {"scheme": "inverse_frequency", "exponent": 0.5},
        "normalizer": "weight",
        "focal_gamma": 2.0,
        "label_smoothing": 0.1,
    },
    "adjusted": {"logit_adjustment": {"tau": 1.0}},
    "teacher, cached": distilled("cached", temperature=2.0) | {"jaccard": {"mix": 0.3}},
    "teacher, online": distilled("online"),
}
TASKS: dict[str, dict[str, Any]] = {
    "batch norm": {"model": BATCH},
    "auxiliary head": {"model": AUX},
    "windows": {"augment": CROPPED},
    "uneven shares": {"batch_size": 7},
    "a share without an image": {"model": BATCH, "batch_size": 23},
    "an encoder without an image": {
        "model": {"factory": "rank_parts:doubled"},
        "batch_size": 23,
        "optimizer": {"name": "sgd", "lr": 0.1},
    },
    "clipped": {"optimizer": {"name": "sgd", "lr": 0.1, "clip_norm": 0.01}},
    "an encoder's batch norm": {
        "model": {"factory": "rank_parts:doubled"},
        "optimizer": {"name": "sgd", "lr": 0.1},
    },
}


def config_of(name: str) -> dict[str, Any]:
    task = {"model": GROUP} | TASKS.get(name, {})
    loss = LOSSES.get(name, {"recall": {"ema_momentum": 0.9}, "jaccard": {"mix": 0.3}})
    return tiny(loss, **task).model_dump(mode="json")


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return tiny_data()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[EpochReport]]:
    """What rank 0 of two reports of each config; both train them one after another."""
    folder, names = tmp_path_factory.mktemp("meet"), [*LOSSES, *TASKS]
    configs = [config_of(name) for name in names]
    path = os.pathsep.join(one for one in sys.path if one)
    with subprocess.Popen(
        [sys.executable, str(TESTS / "rank_parts.py"), str(folder)],
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as other:
        assert other.stdin is not None
        other.stdin.write(json.dumps(configs) + "\n")
        other.stdin.flush()
        try:
            found = trained(configs, 0, folder)
        finally:
            other.kill()
    return dict(zip(names, found, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LOSSES, *TASKS])
def test_two_ranks_equal_one_process_with_the_same_batch(data, of_two, name):
    config = tiny().model_validate(config_of(name))
    for one, two in zip(run(config, data, evaluate_test=True), of_two[name], strict=True):
        expected = timeless(one)
        assert timeless(two).keys() == expected.keys()
        for key, value in expected.items():
            assert two.metrics[key] == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), key
        if one.evidence is not None:
            assert two.evidence is not None
            for split in ("val", "test"):
                a, b = one.evidence.splits[split], two.evidence.splits[split]
                assert (a.counts == b.counts).all()


@pytest.mark.slow
def test_a_resumed_training_of_two_ranks_equals_the_uninterrupted_one_bit_for_bit(data, tmp_path):
    noisy = {"factory": "rank_parts:precise", "kwargs": {"norm": "batch", "dropout": 0.3}}
    config = tiny({"recall": {"ema_momentum": 0.9}}, model=noisy, budget={"epochs": 3})
    whole = []
    for report in train(config, data=data, device="cpu", ranks=2):
        whole.append(timeless(report))
        report.save(tmp_path / f"{report.epoch}.pt")
    resumed = run(config, data, resume_from=tmp_path / "1.pt", ranks=2)
    assert [timeless(report) for report in resumed] == whole[1:]
    alone = run(config, data)
    assert timeless(alone[0])["train/loss"] != whole[0]["train/loss"], "dropout of each rank"
    run(config, data, resume_from=tmp_path / "2.pt")  # of the same training, by one process


@pytest.mark.slow
def test_ranks_draw_other_random_numbers_in_every_step(data, tmp_path):
    model = {"factory": "rank_parts:Drawing", "kwargs": {"folder": str(tmp_path)}}
    run(tiny(model=model, budget={"epochs": 2}), data, ranks=2)
    draws = [path.read_text().split() for path in tmp_path.iterdir()]
    assert len(draws) == 2 and len(draws[0]) == len(draws[1]) > 2
    assert len({*draws[0], *draws[1]}) == 2 * len(draws[0])


def children() -> set[str]:
    """The processes below this one."""
    found = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {pid for file in found for pid in file.read_text().split()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ("kill", RankLost, "rank 1: was ended by signal 9"),
        ("gpu memory", torch.OutOfMemoryError, "rank 1: CUDA out of memory"),
        ("memory", MemoryError, "rank 1: raised RuntimeError"),
        ("a fault", RuntimeError, "rank 1: raised ValueError: a fault"),
    ],
)
def test_what_ends_a_rank_ends_the_training_by_its_name(data, monkeypatch, fault, error, text):
    monkeypatch.setenv("RANK_FAULT", fault)
    before = children()
    with pytest.raises(error, match=text):
        run(tiny(model=GROUP), data, ranks=2)
    assert children() == before
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_a_training_that_is_left_leaves_no_process(data):
    before = children()
    reports = train(tiny(model=GROUP, budget={"epochs": 5}), data=data, device="cpu", ranks=2)
    next(reports)
    assert children() > before
    reports.close()
    assert children() == before


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [False, True])
def test_a_rank_dies_with_the_process_that_started_it(tmp_path, stopped):
    """Also where it is stopped, and cannot look after itself."""
    slow = {"factory": "rank_parts:precise", "kwargs": {"pause": 0.2}}
    code = f"""
import torch
from tiny_task import tiny
from study.training.trainer import train
torch.set_num_threads(1)
config = tiny(model={slow!r}, budget={{"epochs": 500}})
for report in train(config, device="cpu", ranks=2):
    print(report.epoch, flush=True)
"""
    path = os.pathsep.join(one for one in sys.path if one)
    first = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "1\n"
    tasks = Path(f"/proc/{first.pid}/task").glob("*/children")
    (rank,) = [pid for file in tasks for pid in file.read_text().split()]
    if stopped:
        os.kill(int(rank), 19)
    first.kill()
    first.wait()
    until = time.monotonic() + 60
    while alive(rank) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(rank)


def alive(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(("count", "size"), [(4, 2), (7, 2), (3, 4), (64, 5)])
def test_the_shares_of_a_batch_are_the_batch(count, size):
    shares = [Ranks(rank, size).share(count) for rank in range(size)]
    assert [one for share in shares for one in range(count)[share]] == list(range(count))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) == -(-count // size)


def test_one_rank_sends_nothing_and_returns_what_it_is_given():
    alone, part = Ranks(), torch.rand(2, 3)
    assert alone.whole(part, 2) is part
    assert alone.gathered(part, 2) is part
    assert alone.labels(part, 2) is part


@pytest.mark.parametrize(
    ("ranks", "images", "text"),
    [
        (5, 24, "--ranks: 5 ranks cannot share a batch of 4 images; each needs one at least"),
        (3, 2, "3 ranks cannot share a batch of 2 images"),
        (0, 24, "ranks must be from 1 to 64, got 0"),
        (65, 24, "ranks must be from 1 to 64, got 65"),
    ],
)
def test_ranks_without_an_image_each_are_refused(ranks, images, text):
    with pytest.raises(InputError, match=text):
        check_ranks(tiny().trained_here, ranks, images)


def test_each_rank_has_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cuda = torch.device("cuda")
    assert [str(device_of(cuda, rank, 2)) for rank in range(2)] == ["cuda:0", "cuda:1"]
    assert device_of(torch.device("cpu"), 1, 2) == torch.device("cpu")
    assert device_of(torch.device("cuda:1"), 0, 1) == torch.device("cuda:1")
    with pytest.raises(InputError, match="3 ranks need a GPU each, and torch finds 2"):
        device_of(cuda, 0, 3)
    with pytest.raises(InputError, match="the device is cuda:1; give cuda"):
        device_of(torch.device("cuda:1"), 0, 2)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
        (MemoryError("much"), MemoryError),
        (InputError("no file"), InputError),
        (RankLost("gone"), RankLost),
        (ValueError("a"), RuntimeError),
    ],
)
def test_an_error_crosses_to_rank_0_as_plain_text_by_its_kind(error, kind):
    said = json.loads(json.dumps(error_text(error)))
    found = as_error(3, said)
    assert type(found) is kind
    assert "rank 3: " in str(found)


def test_the_number_of_ranks_is_recorded_where_it_is_not_one_and_compared():
    assert "ranks" not in environment(tiny(), "cpu")
    here = environment(tiny(), "cpu", ranks=2)
    assert here["ranks"] == 2
    record = Provenance(seed=0, metrics={"val/miou": 0.5}, environment=Environment(ranks=1))
    verdict = record.compare({"val/miou": 0.4}, here, "")
    assert verdict.accepted
    assert "  ranks: was 1, is 2" in verdict.lines
    verdict = record.compare({"val/miou": 0.4}, environment(tiny(), "cpu"), "")
    assert not verdict.accepted
