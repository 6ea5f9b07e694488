"""What every test gets: a cache of its own session, one thread, no telemetry; a task of seconds."""

from __future__ import annotations

import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import s3
import torch
import yaml
from ray_commands import starts_ray
from xdist.scheduler import LoadScopeScheduling

from study.core import telemetry
from study.losses.digest import ECHO
from study.storage.s3.bucket import S3Prefix
from study.training.environment import set_up_process

telemetry.turn_off()
os.environ.setdefault("RAY_worker_niceness", "0")  # 15 would starve trials beside the other process
torch.set_num_threads(1)

ENGINE = ("tests/chaos/", "tests/engine/")
TINY_TASK = Path(__file__).parents[1] / "study" / "tasks" / "tiny.yaml"


class RayApart(LoadScopeScheduling):
    """One process runs the files of the engine with tests that start Ray, one test after another;
    the others run everything else, whole studies among it, which kill nothing and watch no clock.
    (Groups of xdist 3.8 have no effect with pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "ray" if file.startswith(ENGINE) and starts_ray_in(file) else nodeid


@cache
def starts_ray_in(file: str) -> bool:
    """Whether a file of tests has one that is marked so."""
    return "mark.ray" in (Path(__file__).parents[1] / file).read_text()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> RayApart:
    """Hand out the tests of a run in several processes."""
    return RayApart(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked long, unless `-m` speaks of it as `.ci/long` does."""
    if "long" not in config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


@pytest.fixture(autouse=True)
def no_losses_are_listened_to() -> Iterator[None]:
    """A test that has listened leaves nothing behind for the next."""
    yield
    os.environ.pop(ECHO, None)


@pytest.fixture(scope="session", autouse=True)
def cache_of_this_session() -> Iterator[None]:
    """Data caches, and the working folders of studies in a bucket, go to a folder that is gone
    afterwards, also those of child processes."""
    with (
        tempfile.TemporaryDirectory(prefix="study-cache-") as folder,
        pytest.MonkeyPatch.context() as env,
    ):
        env.setenv("STUDY_CACHE_DIR", folder)
        env.setenv("STUDY_WORK_DIR", f"{folder}/work")
        yield


@pytest.fixture(scope="session")
def started_ray() -> Iterator[list[str]]:
    """The commands by which Ray, or a study, was started since somebody last looked."""
    found: list[str] = []
    begin = subprocess.Popen.__init__

    def noted(process: Any, args: Any, *others: Any, **options: Any) -> None:
        if starts_ray(args):
            found.append(" ".join(map(str, args))[:200])
        begin(process, args, *others, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", noted)
        yield found


@pytest.fixture(autouse=True)
def ray_is_marked(request: pytest.FixtureRequest, started_ray: list[str]) -> Iterator[None]:
    """Fails a test that starts Ray and is not marked `ray`: the inner loop would wait for it."""
    yield
    commands, started_ray[:] = started_ray[:], []
    if commands and request.node.get_closest_marker("ray") is None:
        pytest.fail(f"mark this test `ray`: it has started {commands[0]}")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.Server]:
    """An S3 server on loopback, one for all tests."""
    server = s3.Server()
    yield server
    server.close()


@pytest.fixture
def prefix(s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> S3Prefix:
    """An empty prefix on that server; the user's own AWS settings are out of the way."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in s3.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return S3Prefix.parse(s3_server.uri(uuid.uuid4().hex[:8]))


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
