"""What a trial's process reports, in this process: no Ray."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import full_at
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_task import TINY, tiny

from study.config.task import TrialConfig
from study.core.names import AGAIN_SECONDS, CONFIRM, IN_EPOCH, SEARCH
from study.data import open_data
from study.engine import spot, worker
from study.engine.messages import (
    MESSAGE,
    BeatMessage,
    EpochMessage,
    FailureMessage,
    FaultMessage,
    Message,
    TrialOrder,
    WorkerSettings,
)
from study.engine.probe import Probe, nonce_in
from study.metrics import SegmentationMetrics
from study.scheduler.retries import LOST, MEMORY
from study.storage.checkpoints import checkpoint_key
from study.training.models import build_model
from study.training.ranks import RankLost
from study.training.trainer import train
from study.trials import builtin

WIDTH = 1


def faulty(num_classes: int, fault: str) -> Any:
    """A model that goes wrong in its first training step, in the way that `fault` says."""
    from torch import Tensor, nn

    class Faulty(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            if fault == "exit":
                sys.exit(0)
            if fault == "interrupt":
                raise KeyboardInterrupt
            if fault == "stop":
                next(iter(()))
            if fault == "memory":
                torch.empty(2**60)
            if fault == "system":
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            return super().forward(images)

    return Faulty(3, num_classes, 1)


def huge(num_classes: int) -> Any:
    """A model that fits no machine."""
    return torch.nn.Linear(2**30, 2**30)


def edited(num_classes: int) -> Any:
    """A model whose code changes: `WIDTH` is not part of its config."""
    from torch import nn

    return nn.Conv2d(3, num_classes, WIDTH, padding=WIDTH // 2)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """What the worker tells the driver, without its signs of life."""
    messages: list[Message] = []

    def report(result: dict[str, Message]) -> None:
        (key,) = result
        assert key == MESSAGE
        if not isinstance(result[key], BeatMessage):
            messages.append(result[key])

    monkeypatch.setattr(worker.tune, "report", report)
    return messages


@pytest.fixture
def config() -> TrialConfig:
    return tiny(model={"factory": f"{__name__}:edited"})


def run(
    config: TrialConfig,
    folder: Path,
    reported: int = 0,
    attempt: int = 0,
    *,
    stage: str = SEARCH,
    gpus: float = 0,
    **settings: Any,
) -> None:
    worker.run(order(config, folder, reported, attempt, stage=stage, gpus=gpus, **settings))


def order(
    config: TrialConfig,
    folder: Path,
    reported: int = 0,
    attempt: int = 0,
    *,
    stage: str = SEARCH,
    gpus: float = 0,
    keep_weights: bool = True,
    **settings: Any,
) -> TrialOrder:
    return TrialOrder(
        trial="t0000",
        config=config.model_dump(),
        stage=stage,
        gpus=gpus,
        attempt=attempt,
        reported=reported,
        settings=WorkerSettings(
            folder=str(folder),
            prefix=None,
            num_threads=1,
            rungs=(),
            keep_last=False,
            keep_weights=keep_weights,
            beat_s=3600.0,
            **settings,
        ),
    )


def epochs(sent: list[Message]) -> list[int]:
    assert all(isinstance(message, EpochMessage) for message in sent), sent
    return [message.epoch for message in sent if isinstance(message, EpochMessage)]


def first_checkpoint(config: TrialConfig, folder: Path) -> Path:
    path = folder / checkpoint_key("t0000", 1)
    next(iter(train(config, data=open_data(config.trained_here.data), device="cpu"))).save(path)
    return path


def test_a_damaged_checkpoint_is_no_reason_to_fail(
    tmp_path: Path, config: TrialConfig, sent: list[Message]
) -> None:
    path = first_checkpoint(config, tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    run(config, tmp_path, reported=1)
    assert epochs(sent) == [2], "the first report stands"
    assert sent[0].metrics[AGAIN_SECONDS] > 0  # type: ignore[union-attr]


def test_a_trial_with_checkpoints_by_interval_leaves_a_drained_node_with_its_latest_epoch(
    tmp_path: Path, sent: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave() -> None:
        if sent:
            raise spot.Drained

    class Left(Exception):
        """The process has ended."""

    def end(code: int) -> None:
        raise Left

    monkeypatch.setattr(worker.spot, "leave_if_drained", leave)
    monkeypatch.setattr(worker.os, "_exit", end)
    rarely = tiny(checkpoint={"every": "10m"})
    with pytest.raises(Left):
        run(rarely, tmp_path)
    assert epochs(sent) == [1]
    assert (tmp_path / checkpoint_key("t0000", 1)).is_file()
    monkeypatch.undo()


def test_a_trial_that_was_given_a_gpu_does_not_take_a_cpu_in_silence(
    tmp_path: Path, config: TrialConfig, sent: list[Message]
) -> None:
    run(config, tmp_path, gpus=1.0, gpus_only=True)
    assert sent == [FailureMessage(worker.NO_GPU, by_machine=True)]
    sent.clear()
    run(config, tmp_path, gpus=1.0)
    assert epochs(sent) == [1, 2]


def test_a_node_that_is_not_checked_is_asked_by_its_trial(
    tmp_path: Path, config: TrialConfig, sent: list[Message]
) -> None:
    def lacks(probe: Probe | None) -> str:
        return worker.lacks(order(config, tmp_path, probe=probe))

    assert lacks(None) == ""
    with nonce_in(tmp_path, None, "s") as nonce:
        assert lacks(Probe(folder=tmp_path, nonce=nonce)) == ""
    assert lacks(Probe(folder=tmp_path, nonce=nonce)).startswith("it does not see")


def test_what_a_lost_driver_had_not_heard_of_is_reported_from_the_checkpoint(
    tmp_path: Path, config: TrialConfig, sent: list[Message]
) -> None:
    before = first_checkpoint(config, tmp_path).stat().st_mtime_ns
    run(config, tmp_path, reported=0, attempt=1)
    assert epochs(sent) == [1, 2]
    assert (tmp_path / checkpoint_key("t0000", 1)).stat().st_mtime_ns == before, "not trained again"
    sent.clear()
    run(config, tmp_path, reported=0, attempt=0)
    assert (tmp_path / checkpoint_key("t0000", 1)).stat().st_mtime_ns > before, (
        "a trial that is new"
    )


def test_a_model_that_has_changed_under_its_checkpoint_fails_the_trial_with_one_line(
    tmp_path: Path,
    config: TrialConfig,
    sent: list[Message],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = first_checkpoint(config, tmp_path)
    monkeypatch.setitem(globals(), "WIDTH", 3)
    run(config, tmp_path, reported=1)
    (only,) = sent
    assert isinstance(only, FailureMessage)
    assert only.reason.startswith(
        f"IncompatibleCheckpoint: {path}: the checkpoint does not fit the model's"
    )
    assert "\n" not in only.reason
    assert not only.by_machine


def test_a_checkpoint_that_finds_no_room_is_no_reason_to_fail(
    tmp_path: Path, config: TrialConfig, sent: list[Message]
) -> None:
    open_data(config.trained_here.data)
    with full_at(500):
        run(config, tmp_path)
    assert epochs(sent) == [1, 2]
    assert isinstance(sent[0], EpochMessage)
    assert sent[0].trouble == f"File too large: {tmp_path / checkpoint_key('t0000', 1)}"


def test_a_confirmation_keeps_the_weights_of_its_numbers(
    tmp_path: Path, config: TrialConfig, sent: list[Message]
) -> None:
    run(config, tmp_path, stage=CONFIRM)
    last = sent[-1]
    assert isinstance(last, EpochMessage) and last.no_weights == ""
    file = tmp_path / "weights" / "t0000.safetensors"
    data = open_data(config.trained_here.data)
    with safe_open(file, "pt") as content:
        about = json.loads(content.metadata()["data"])
    model = build_model(config.trained_here.model, len(about["class_names"]))
    model.load_state_dict(load_file(file))
    mean, std = (torch.tensor(about[key])[:, None, None] for key in ("mean", "std"))
    metrics = SegmentationMetrics(data.num_classes, data.ignore_index, calibration=True)
    with torch.inference_mode():
        for pixels, labels in zip(data.val.images, data.val.labels, strict=True):
            image = torch.tensor(pixels).movedim(-1, 0) / 255
            logits = model.eval()(((image - mean) / std)[None])
            metrics.update(logits, torch.tensor(labels)[None])
    assert metrics.compute()["nll"] == pytest.approx(last.metrics["val/nll"], abs=1e-4)


@pytest.mark.parametrize(("stage", "keep_weights"), [(SEARCH, True), (CONFIRM, False)])
def test_no_weights_are_kept_of_a_search_or_where_none_are_wanted(
    tmp_path: Path, config: TrialConfig, sent: list[Message], stage: str, keep_weights: bool
) -> None:
    run(config, tmp_path, stage=stage, keep_weights=keep_weights)
    assert epochs(sent) == [1, 2]
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_weights_that_find_no_room_are_no_reason_to_fail(
    tmp_path: Path, config: TrialConfig, sent: list[Message]
) -> None:
    open_data(config.trained_here.data)
    with full_at(100):
        run(config, tmp_path, stage=CONFIRM)
    assert epochs(sent) == [1, 2]
    last = sent[-1]
    assert isinstance(last, EpochMessage)
    file = tmp_path / "weights" / "t0000.safetensors"
    assert last.no_weights == f"File too large: {file}"
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("exit", "the trial's own code called sys.exit(0)"),
        ("interrupt", "the trial's own code raised KeyboardInterrupt"),
        ("stop", "the trial's own code raised StopIteration"),
    ],
)
def test_a_trial_that_ends_its_process_has_failed_by_its_own_fault(
    tmp_path: Path, sent: list[Message], fault: str, reason: str
) -> None:
    run(tiny(model={"factory": f"{__name__}:faulty", "kwargs": {"fault": fault}}), tmp_path)
    assert sent == [FailureMessage(reason, by_machine=False)]


@pytest.mark.parametrize("fault", ["memory", "system"])
def test_memory_that_torch_or_the_system_refuses_is_a_want_of_memory(
    tmp_path: Path, sent: list[Message], fault: str
) -> None:
    run(tiny(model={"factory": f"{__name__}:faulty", "kwargs": {"fault": fault}}), tmp_path)
    (only,) = sent
    assert isinstance(only, FaultMessage)
    assert only.cause == MEMORY
    assert "allocate memory" in only.reason


def test_memory_that_the_models_factory_lacks_is_no_fault_of_the_factory(
    tmp_path: Path, sent: list[Message]
) -> None:
    run(tiny(model={"factory": f"{__name__}:huge"}), tmp_path)
    assert [type(message) for message in sent] == [FaultMessage]


def test_a_trial_that_tune_ends_says_nothing_more(
    tmp_path: Path, config: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = []

    def report(result: dict[str, Message]) -> None:
        if isinstance(result[MESSAGE], EpochMessage):
            reports.append(result[MESSAGE])
            sys.exit(0)

    monkeypatch.setattr(worker.tune, "report", report)
    with pytest.raises(SystemExit) as end:  # which ends the thread, where a return would hang
        run(config, tmp_path)
    assert end.value.code == 0
    assert epochs(reports) == [1]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the trial says that it does, and its epochs."""
    heard: list[str] = []

    def report(result: dict[str, Message]) -> None:
        message = result[MESSAGE]
        assert isinstance(message, (BeatMessage, EpochMessage))
        heard.append(message.doing if isinstance(message, BeatMessage) else str(message.epoch))

    monkeypatch.setattr(worker.tune, "report", report)
    return heard


def test_a_trial_says_what_it_is_about_to_do_once(
    tmp_path: Path, config: TrialConfig, said: list[str]
) -> None:
    builtin._opened.clear()
    run(config, tmp_path)
    begins = ["setting up its process", "opening its data"]
    ends = [IN_EPOCH, "1", "storing its last checkpoint and weights", "2"]
    assert said == [*begins, "building its model", *ends]
    said.clear()
    run(config, tmp_path, attempt=1)
    assert said[:2] == [begins[0], "loading its checkpoint and model"], "the data is open"


def test_each_step_and_each_evaluated_batch_is_a_sign_of_life(
    tmp_path: Path, config: TrialConfig, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_Beats", lambda every: said.append)
    run(config, tmp_path)
    data = open_data(config.trained_here.data)
    steps = -(-len(data.train.images) // config.trained_here.batch_size)
    batches = -(-len(data.val.images) // (2 * config.trained_here.batch_size))
    assert said[: said.index("1")].count(IN_EPOCH) == 1 + steps + batches


@pytest.mark.parametrize(("pause", "count"), [(9.0, 1), (10.0, 2), (25.0, 2)])
def test_a_sign_of_life_is_repeated_only_after_a_while(
    said: list[str], monkeypatch: pytest.MonkeyPatch, pause: float, count: int
) -> None:
    now = [100.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: now[0])
    beat = worker._Beats(10.0)
    beat("training")
    now[0] += pause
    beat("training")
    beat("training")
    assert said == ["training"] * count
    beat("evaluating")
    assert said[-1] == "evaluating"


def test_a_process_trains_the_target_on_its_own_data_after_a_trial_of_the_proxy(
    sent: list[Message], tmp_path: Path
) -> None:
    weighted = {"class_weights": {"scheme": "inverse_frequency", "exponent": 0.5}}
    proxy = tiny(weighted)
    target = tiny(weighted, data={**TINY["data"], "size": [48, 64], "rarity": 4.0})
    run(proxy, tmp_path)
    run(target, tmp_path, stage=CONFIRM)
    found = sent[-1]
    assert isinstance(found, EpochMessage)
    data = open_data(target.trained_here.data)
    *_, expected = train(target, data=data, device="cpu", evaluate_test=True)
    timeless = {key: item for key, item in found.metrics.items() if not key.startswith("time/")}
    assert timeless == {k: v for k, v in expected.metrics.items() if not k.startswith("time/")}


def test_a_trial_that_loses_a_rank_is_tried_again(
    tmp_path: Path, config: TrialConfig, sent: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def lost(*_: Any, ranks: int, **__: Any) -> Any:
        asked.append(ranks)
        if ranks > 1:
            raise RankLost("rank 1: was ended by signal 9")
        yield

    monkeypatch.setattr(builtin, "train", lost)
    run(config, tmp_path, ranks=2)
    assert sent == [FaultMessage(LOST, "rank 1: was ended by signal 9")]
    assert asked == [2]
