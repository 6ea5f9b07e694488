"""Measures trainings that share a device: the memory of one, and the images per second of several.

Each is a process of its own (`study.training.sharer`), as trials are. It trains the task at its
batch size with a demanding loss: first some steps and an evaluation, for the peak of its memory;
then epoch after epoch, until it is ended. All are timed over one window, which begins once each has
trained for an epoch of it. On a CPU, and on a device whose memory torch does not count, a process'
memory is the peak of its resident size.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from study.config.task import TaskConfig
from study.training.child import started

WARM, EPOCH, ERROR = "warm", "epoch", "error"
SECONDS = 6.0  # of the window
EPOCH_SHARE = 0.15  # of the window, that one training alone takes for an epoch of it
# What takes most memory and time of all axes.
LOSS: Mapping[str, Any] = {
    "class_weights": {"scheme": "inverse_frequency", "exponent": 0.5},
    "recall": {"ema_momentum": 0.9},
    "pooling": {"kind": "max"},
    "jaccard": {"mix": 0.5},
}


class NotMeasured(Exception):
    """A measurement has failed; its text says why."""


@dataclass(frozen=True)
class Reading:
    """What was measured of trainings that share a device.

    Attributes:
        trainings: how many at a time.
        images_per_s: of all of them together, in training.
        memory: peak of one of them, the largest, in bytes.
        context: bytes that a process takes on the device beside that.
        total: bytes that the device has.
        steps: of an epoch of the measurement.
    """

    trainings: int
    images_per_s: float
    memory: int
    context: int
    total: int
    steps: int


def measure(
    task: TaskConfig,
    trainings: int,
    *,
    device: str,
    num_threads: int,
    until: float,
    seconds: float = SECONDS,
    steps: int | None = None,
) -> Reading:
    """Train so many at a time on one device, and read what they take and what they do.

    Leaves no process behind. The random states of this process stay as they are.

    Args:
        task: what they train; its data are opened as a trial opens them.
        trainings: how many.
        device: such as "cuda" or "cpu".
        num_threads: CPU threads of each.
        until: the time by `time.monotonic` at which it gives up.
        seconds: least length of the window.
        steps: of an epoch of the measurement; default as many as take a part of the window.

    Raises:
        NotMeasured: where a training fails, or it takes too long.
    """
    order = {
        "task": task.model_dump(mode="json"),
        "device": device,
        "num_threads": num_threads,
        "fraction": 1 / trainings,
        "epoch_s": EPOCH_SHARE * seconds,
        "steps": steps,
    }
    warm: dict[int, dict[str, Any]] = {}
    marks: dict[int, list[tuple[float, int]]] = {which: [] for which in range(trainings)}
    with _Children(trainings, order) as children:
        while not _is_over(marks, seconds):
            which, kind, said = children.next(until)
            if kind == WARM:
                warm[which] = said
            else:
                marks[which].append((said["at"], said["images"]))
    one = warm[0]
    return Reading(
        trainings=trainings,
        images_per_s=_rate(marks),
        memory=max(each["memory"] for each in warm.values()),
        context=one["context"],
        total=one["total"],
        steps=one["steps"],
    )


Marks = Mapping[int, Sequence[tuple[float, int]]]


def _window(marks: Marks) -> list[list[tuple[float, int]]]:
    """The ends of epochs of each training in the window: from when the last of them has had its
    first one. None, before that."""
    if not all(marks.values()):
        return []
    start = max(of_one[0][0] for of_one in marks.values())
    return [[mark for mark in of_one if mark[0] >= start] for of_one in marks.values()]


def _is_over(marks: Marks, seconds: float) -> bool:
    window = _window(marks)
    if not window or any(len(of_one) < 2 for of_one in window):
        return False
    ends = [mark[0] for of_one in window for mark in of_one]
    return max(ends) - min(ends) >= seconds


def _rate(marks: Marks) -> float:
    return sum(
        (of_one[-1][1] - of_one[0][1]) / (of_one[-1][0] - of_one[0][0]) for of_one in _window(marks)
    )


class _Children:
    """The processes of the trainings. A context: at its end they are gone."""

    def __init__(self, count: int, order: Mapping[str, Any]) -> None:
        self._said: queue.Queue[tuple[int, str]] = queue.Queue()
        self._processes: list[subprocess.Popen[str]] = []
        self._line = json.dumps(order) + "\n"
        self._count = count

    def __enter__(self) -> Self:
        try:
            for which in range(self._count):
                process = started("study.training.sharer")
                self._processes.append(process)
                threading.Thread(target=self._listen, args=[which, process], daemon=True).start()
                assert process.stdin is not None
                with suppress(BrokenPipeError):  # its end says why
                    process.stdin.write(self._line)
                    process.stdin.flush()
        except BaseException:
            self._end()
            raise
        return self

    def _listen(self, which: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._said.put((which, line))
        self._said.put((which, ""))

    def next(self, until: float) -> tuple[int, str, dict[str, Any]]:
        """What one of them says: which, of what kind, and what. Raises NotMeasured."""
        try:
            which, line = self._said.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise NotMeasured("it takes too long") from None
        if not line:
            code = self._processes[which].wait()
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            raise NotMeasured(f"the process of a training was ended {how}")
        kind, _, rest = line.strip().partition(" ")
        said = json.loads(rest)
        if kind == ERROR:
            raise NotMeasured(said["text"])
        return which, kind, said

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
