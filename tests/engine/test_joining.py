"""A cluster that `ray start` made: a study joins it, or says in one line why it cannot."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine.test_engine import SPACE, task

from benchmarks.raylets import Cluster
from study.core.names import COMPLETED
from study.engine import cluster
from study.engine.ray_internals import AUTH_MODE, AUTH_TOKEN_HERE, TOKEN_MODE
from study.storage.studies import load

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
FLAGS = ("--head", "--block", "--port=0", "--num-cpus=1", "--include-dashboard=false")
START_SECONDS, STOP_SECONDS = 60.0, 10.0
CONNECT = """
import sys
from study.core.console import exit_code
from study.engine import cluster

def run():
    cluster.connect(sys.argv[1])
    cluster.disconnect()

sys.exit(exit_code(run))
"""
# For a node on which the package is not installed, while the file beside this one says so.
HIDE = """
import pathlib, sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "study" and pathlib.Path(__file__).with_name("hidden").exists():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
"""


@dataclass(frozen=True)
class Head:
    """A running `ray start --head`, in a session and a temporary folder of its own."""

    folder: Path
    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return (self.folder / "ray" / "ray_current_cluster").read_text().strip()

    def wait(self) -> None:
        """Until it answers."""
        end = time.monotonic() + START_SECONDS
        while not (self.folder / "ray" / "ray_current_cluster").is_file():
            said = (self.folder / "out").read_text()
            assert self.process.poll() is None and time.monotonic() < end, said
            time.sleep(0.1)

    def stop(self) -> None:
        """End every process of its session, and no other."""
        self.process.terminate()
        end = time.monotonic() + STOP_SECONDS
        while self._left() and time.monotonic() < end:
            self.process.poll()
            time.sleep(0.1)
        for process in self._left():
            os.kill(process, signal.SIGKILL)
        self.process.wait()

    def _left(self) -> list[int]:
        """The processes of its session that are not over, itself among them."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                number, _, rest = stat.read_text().partition(" (")
            except OSError:  # over by now
                continue
            state, _, _, session = rest.rpartition(") ")[2].split()[:4]
            if int(session) == self.process.pid and state != "Z":
                found.append(int(number))
        return found


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """One for all tests here: it takes seconds to start."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets need a short path
    (folder / "sitecustomize.py").write_text(HIDE)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    own = {"HOME": str(folder), "RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
    outside = {**inherited, **own}
    paths = (str(path) for path in (folder, ROOT, ROOT / "tests"))
    with open(folder / "out", "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *FLAGS],
            cwd=folder,
            env={**outside, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    head = Head(folder, process, {**outside, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"})
    try:
        head.wait()
        yield head
    finally:
        head.stop()
        shutil.rmtree(folder, ignore_errors=True)


def run_study(folder: Path, head: Head, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The smallest study: cross entropy alone, one trial searched, one seed."""
    settings = {"num_trials": 1, "baselines": ["ce"]}
    space: dict[str, Any] = {**SPACE, "study": {**SPACE["study"], **settings}}
    (folder / "space.yaml").write_text(yaml.safe_dump(space))
    (folder / "task.yaml").write_text(yaml.safe_dump(task(folder / "pids")))
    return subprocess.run(
        [sys.executable, "-m", "study.run", "space.yaml", "--task", "task.yaml", *arguments],
        cwd=folder,
        env=dict(head.environment),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(900)
def test_a_study_joins_the_cluster_that_ray_start_left_running_here(
    tmp_path: Path, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_study(tmp_path, head, "--name", "s")
    assert done.returncode == 0, done.stderr
    words = f"the Ray cluster running here ({head.address})"
    first, second, third, *_ = done.stdout.splitlines()
    assert first == f"joining {words} ..."
    assert second == f"s on {words}: 1 trial at a time, 1 CPU each"
    assert third.startswith("warning: in no image of test, so not judged: ")
    state = load(tmp_path / "studies" / "s")
    assert state.sessions[0].cluster == words
    assert {trial.status for trial in state.trials.values()} == {COMPLETED}
    (driver, _), *log = [line.split() for line in (tmp_path / "pids").read_text().splitlines()]
    arenas = {arenas for pid, arenas in log if pid != driver}  # which builds the report's networks
    assert arenas == {"1"}, "or what a trial frees is not kept for it"
    assert head.process.poll() is None, "who joins a cluster leaves it running"
    monkeypatch.setenv("RAY_TMPDIR", str(head.folder))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster.where(None) == (head.address, words), "a dry run names it, too"


@pytest.mark.timeout(900)
def test_a_cluster_that_cannot_import_the_package_is_one_line_and_exit_code_2(
    tmp_path: Path, head: Head
) -> None:
    (head.folder / "hidden").touch()
    done = run_study(tmp_path, head, "--address", head.address)
    (head.folder / "hidden").unlink()
    assert done.returncode == 2
    host = head.address.rpartition(":")[0]
    assert done.stderr.startswith(f"error: no node of the Ray cluster can train: node {host} (")
    assert done.stderr.endswith(
        "): this package cannot be imported there: ModuleNotFoundError: No module named 'study'\n"
    )
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "studies").exists()


@pytest.mark.timeout(900)
def test_a_missing_token_and_a_wrong_one_are_one_line_each(tmp_path: Path) -> None:
    token = "12ab" * 50
    secret = {AUTH_MODE: TOKEN_MODE, AUTH_TOKEN_HERE: token}
    with Cluster("--num-cpus=0", environment=secret) as there:
        environment = {k: v for k, v in there.environment.items() if k not in secret}
        environment |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}

        def connect(**more: str) -> tuple[int, str]:
            done = subprocess.run(
                [sys.executable, "-c", CONNECT, there.address],
                env=environment | more,
                capture_output=True,
                text=True,
                check=False,
            )
            return done.returncode, done.stderr

        start = f"error: --address: the Ray cluster at {there.address}"
        copy = "copy ~/.ray/auth_token from the cluster's head"
        missing = f"{start} asks for a token, and this machine has none; {copy}\n"
        assert connect() == (2, missing)
        assert connect(RAY_AUTH_MODE="token") == (2, missing)
        assert connect(RAY_AUTH_MODE="disabled") == (
            2,
            f"{start} asks for a token, which RAY_AUTH_MODE=disabled keeps back; "
            "unset RAY_AUTH_MODE\n",
        )
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("another")
        assert connect() == (2, f"{start} refuses the token of this machine; {copy}\n")
        (tmp_path / ".ray" / "auth_token").write_text(f"{token}\n")
        assert connect() == (0, "")
