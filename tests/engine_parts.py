"""A model and data for the engine's tests: they can log their process, fail and hang on purpose."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

from study.config.task import SyntheticData
from study.data import SegmentationData, open_data

LONG = 3600


def hang() -> None:
    """Wait in C without letting any other thread of Python run, as a deadlock does."""
    ctypes.PyDLL(None).sleep(LONG)


class Small(nn.Module):
    """One convolution per class and a bias: a model that learns colours."""

    def __init__(self, num_classes: int, fault: str | None = None, pause: float = 0.0) -> None:
        super().__init__()
        self.fault = fault
        self.pause = pause
        self.saved = 0
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, num_classes, 1),
        )

    def forward(self, images):
        time.sleep(self.pause)
        if self.fault == ("hang in a step" if self.training else "hang in evaluation"):
            time.sleep(LONG)
        if self.fault == "hang with the lock":
            hang()
        if self.fault == "device":
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")
        if self.fault == "gpu memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        if self.fault == "disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.body(images)

    def state_dict(self, *args, **kwargs):
        """Called for every checkpoint."""
        self.saved += 1
        if self.fault == "hang in the last checkpoint" and self.saved == 2:
            time.sleep(LONG)
        return super().state_dict(*args, **kwargs)


def data(log: str, faults: dict[str, str] | None = None) -> SegmentationData:
    """Tiny scenes. Each opening adds a line to `log`; the n-th one may hang as `faults` say."""
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\n")
    if str(len(Path(log).read_text().splitlines())) in (faults or {}):
        time.sleep(LONG)
    return open_data(
        SyntheticData(format="synthetic", size=(32, 48), num_train=8, num_val=4, num_test=4)
    )


def build(
    num_classes: int, log: str, faults: dict[str, str] | None = None, pause: float = 0.0
) -> nn.Module:
    """Each building appends the process id and how many arenas malloc may use to `log`; the n-th
    one may go wrong as `faults` say.
    Every batch takes `pause` seconds longer, but not of the first, which checks the model."""
    with open(log, "a") as file:
        file.write(f"{os.getpid()} {os.environ.get('MALLOC_ARENA_MAX')}\n")
    count = len(Path(log).read_text().splitlines())
    fault = (faults or {}).get(str(count))
    if fault == "raise":
        raise RuntimeError("the model would not be built")
    if fault == "memory":
        raise MemoryError("no more memory")
    if fault == "hang in the factory":
        time.sleep(LONG)
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return Small(num_classes, fault, pause if count > 1 else 0.0)


def data_of_this_node() -> SegmentationData:
    """Tiny scenes, which are others where the variable OTHER_DATA is set."""
    num_train = 10 if os.environ.get("OTHER_DATA") else 8
    return open_data(
        SyntheticData(format="synthetic", size=(32, 48), num_train=num_train, num_val=4, num_test=4)
    )
