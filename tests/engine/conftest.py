"""Clusters of several raylets on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.raylets import Cluster, kill

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without CPUs."""
    with Cluster("--num-cpus=0", environment={"PYTHONPATH": str(ROOT)}) as there:
        yield there


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended, whatever happens."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        kill(process.pid)
        process.wait()
