"""What every test gets: a cache of its own session, one thread, no telemetry; a task of seconds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from study import telemetry
from study.environment import set_up_process

telemetry.turn_off()
torch.set_num_threads(1)

TINY_TASK = Path(__file__).parents[1] / "study" / "tasks" / "tiny.yaml"


@pytest.fixture(scope="session", autouse=True)
def cache_of_this_session() -> Iterator[None]:
    """Data caches go to a folder that is gone afterwards, also those of child processes."""
    before = os.environ.get("STUDY_CACHE_DIR")
    with tempfile.TemporaryDirectory(prefix="study-cache-") as folder:
        os.environ["STUDY_CACHE_DIR"] = folder
        yield
    if before is None:
        del os.environ["STUDY_CACHE_DIR"]
    else:
        os.environ["STUDY_CACHE_DIR"] = before


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The process as a trial of one thread sets it up."""
    before = torch.get_num_threads()
    set_up_process(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_task() -> dict[str, Any]:
    """The tree of the `tiny` task, whose epochs take a fraction of a second; yours to change."""
    tree = yaml.safe_load(TINY_TASK.read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree
