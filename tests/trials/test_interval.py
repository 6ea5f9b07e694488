"""Checkpoints by interval: what is written, what is trained again, and what is reported again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study.config.task import CheckpointPlan, TrialConfig
from study.core.errors import InputError
from study.core.names import AGAIN_SECONDS, SEARCH
from study.core.validation import validate
from study.training.identity import digest
from study.trials import builtin
from study.trials.builtin import train_task
from study.trials.context import Place, Stopped, TrialContext
from study.trials.message import EpochMessage

Save = Callable[[Path], None]


class Store:
    """Keeps checkpoints in a folder."""

    trouble = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: list[tuple[int, Save]] = []

    def keep(self, epoch: int, save: Save) -> None:
        self.kept.append((epoch, save))

    def write(self) -> None:
        """What a writer does later, from the copies that it was given."""
        for epoch, save in self.kept:
            save(self.folder / f"{epoch}.pt")

    def found(self) -> Iterator[Path]:
        epochs = sorted((int(path.stem) for path in self.folder.glob("*.pt")), reverse=True)
        return iter([self.folder / f"{epoch}.pt" for epoch in epochs])

    def flush(self) -> None:
        """Nothing waits."""


class Study:
    """The other end: notes what it hears, and may end the trial."""

    def __init__(self, end_after: int | None = None, end_at_repeat: int | None = None) -> None:
        self.messages: list[EpochMessage] = []
        self.repeats = 0
        self.end_after, self.end_at_repeat = end_after, end_at_repeat

    def beat(self, doing: str) -> None:
        """Nothing hangs."""

    def report(self, message: EpochMessage) -> None:
        self.messages.append(message)
        if message.epoch == self.end_after:
            raise Stopped

    def repeated(self) -> None:
        self.repeats += 1
        if self.repeats == self.end_at_repeat:
            raise Stopped

    @property
    def epochs(self) -> list[int]:
        return [message.epoch for message in self.messages]


def numbers(message: EpochMessage) -> dict[str, float]:
    return {key: value for key, value in message.metrics.items() if not key.startswith("time/")}


PLACE = Place(trial="t0000", stage=SEARCH, folder=Path(), device="cpu", num_threads=1)


def run(tree: dict[str, Any], store: Store, study: Study, place: Place = PLACE) -> TrialContext:
    config = TrialConfig.model_validate(
        {"task": tree, "loss": {"recall": {"ema_momentum": 0.9}}, "seed": 3}
    )
    context = TrialContext(config, place, study, store)
    train_task(context, config.trained_here)
    return context


@pytest.fixture
def task(tiny_task: dict[str, Any]) -> dict[str, Any]:
    return {**tiny_task, "budget": {"epochs": 6}, "checkpoint": {"every": "10m"}}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch takes four minutes: a checkpoint is due after the third, the sixth, ..."""
    now = [0.0]

    class Time:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    monkeypatch.setattr(builtin, "time", Time)
    take = Study.report

    def report(self: Study, message: EpochMessage) -> None:
        now[0] += 240.0
        take(self, message)

    monkeypatch.setattr(Study, "report", report)
    again = Study.repeated

    def repeated(self: Study) -> None:
        now[0] += 240.0
        again(self)

    monkeypatch.setattr(Study, "repeated", repeated)


@pytest.mark.usefixtures("clock", "one_thread")
def test_what_was_reported_is_trained_again_without_a_report_to_the_same_numbers(
    task: dict[str, Any], tmp_path: Path
) -> None:
    whole = Study()
    run(task, Store(tmp_path / "none"), whole)
    assert whole.epochs == [1, 2, 3, 4, 5, 6]
    store, first = Store(tmp_path), Study(end_after=5)
    left = run(task, store, first)
    assert [epoch for epoch, _ in store.kept] == [4], "12 minutes have passed then"
    assert left.unkept is not None and left.unkept[0] == 5
    store.write()  # long after: the copies are those of their epochs
    second = Study()
    place = replace(PLACE, begun=True, reported=5)
    run(task, store, second, place)
    assert second.epochs == [6]
    assert second.repeats == 1
    assert second.messages[0].metrics[AGAIN_SECONDS] > 0
    found = [numbers(message) for message in (*first.messages, *second.messages)]
    assert found == [numbers(message) for message in whole.messages]


@pytest.mark.usefixtures("clock", "one_thread")
def test_a_session_that_closes_ends_a_trial_in_what_it_trains_again(
    task: dict[str, Any], tmp_path: Path
) -> None:
    study = Study(end_at_repeat=2)
    context = run(task, Store(tmp_path), study, replace(PLACE, begun=True, reported=5))
    assert (study.epochs, study.repeats, context.has_stopped) == ([], 2, True)


@pytest.mark.usefixtures("one_thread")
def test_a_trial_that_must_leave_keeps_its_latest_epoch(
    task: dict[str, Any], tmp_path: Path
) -> None:
    store = Store(tmp_path)
    context = run(task, store, Study(end_after=2))
    assert store.kept == []
    context.keep_unkept()
    ((epoch, save),) = store.kept
    save(tmp_path / f"{epoch}.pt")
    again = Study()
    run(task, store, again, replace(PLACE, begun=True, reported=2))
    assert (again.epochs, again.repeats) == ([3, 4, 5, 6], 0)


@pytest.mark.usefixtures("one_thread")
def test_each_epoch_is_kept_unless_an_interval_is_given(
    tiny_task: dict[str, Any], tmp_path: Path
) -> None:
    store = Store(tmp_path)
    run({**tiny_task, "budget": {"epochs": 3}}, store, Study())
    assert [epoch for epoch, _ in store.kept] == [1, 2]


@pytest.mark.parametrize("every", ["10", "0s", "25h", "often", 10, None])
def test_an_interval_is_a_duration(tiny_task: dict[str, Any], every: Any) -> None:
    from study.config.task import TaskConfig

    with pytest.raises(InputError, match="checkpoint/every"):
        validate(TaskConfig, {**tiny_task, "checkpoint": {"every": every}})


def test_the_neutral_setting_is_in_no_digest(tiny_task: dict[str, Any]) -> None:
    def of(**more: Any) -> str:
        return digest(TrialConfig.model_validate({"task": {**tiny_task, **more}}), "data")

    assert of() == of(checkpoint={"every": "epoch"})


@pytest.mark.parametrize("every", [10, None, True, ["epoch"], "10", "0s", "2d", "never"])
def test_an_interval_that_is_none_is_told_what_it_may_be(every: Any) -> None:
    with pytest.raises(ValueError, match="every must be `epoch`, or a duration from 1s to 24h"):
        CheckpointPlan.model_validate({"every": every})
