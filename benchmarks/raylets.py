"""Several Ray nodes on one machine, each a real `ray start` that can be killed like a machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from study.engine.ray_internals import HEAD_STARTED, TRIAL_TITLE

ROOT = Path(__file__).parents[1]
START_SECONDS = 60.0
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": ""}


def processes() -> Iterator[tuple[int, int, str]]:
    """Process id, session id and title of every process that is not over."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(") ")[2].split()
            title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # over by now
            continue
        if stat[0] != "Z":
            yield int(folder.name), int(stat[3]), title.strip()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        return int(there.getsockname()[1])


class Node:
    """One `ray start`, in a session of its own: raylet, workers, on the head also the GCS."""

    def __init__(self, arguments: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self._log = log
        flag = "--node-ip-address="
        self.ip = next((a.removeprefix(flag) for a in arguments if a.startswith(flag)), "")
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments],
                env=dict(environment),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it has started."""
        end = time.monotonic() + START_SECONDS
        while HEAD_STARTED.encode() not in self._log.read_bytes():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(self._log.read_text())
            time.sleep(0.1)

    @property
    def pids(self) -> list[int]:
        """All its processes."""
        return [pid for pid, session, _ in processes() if session == self.process.pid]

    @property
    def workers(self) -> list[int]:
        """Its trials' processes."""
        return [
            pid
            for pid, session, title in processes()
            if session == self.process.pid and TRIAL_TITLE in title
        ]

    def kill(self) -> None:
        """As a machine dies: every process at once, no goodbye."""
        while found := self.pids:
            for pid in found:
                kill(pid)
            self.process.poll()
            time.sleep(0.05)
        self.process.wait()


def kill(pid: int) -> None:
    """kill -9; a process that is over by now is as good."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class Cluster:
    """A head and nodes that join it; a context manager that leaves nothing behind.

    Args:
        head: flags of the head's `ray start`, such as ``--num-cpus=1``.
        environment: more variables for every node; `PYTHONPATH` should lead to what trials import.
    """

    def __init__(self, *head: str, environment: Mapping[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets: a short path
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        own = {"HOME": str(self.folder), "RAY_TMPDIR": str(self.folder), **QUIET}
        self.environment = {**inherited, **own, **(environment or {})}
        self.port = free_port()
        self._flags = ("--head", f"--port={self.port}", "--include-dashboard=false", *head)
        self._count = 0
        self.head = self._start(*self._flags)
        self.nodes: list[Node] = []

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    def _start(self, *flags: str) -> Node:
        self._count += 1
        node = Node([*flags], self.folder / f"node{self._count}.log", self.environment)
        try:
            node.wait()
        except RuntimeError:
            node.kill()
            raise
        return node

    def join(self, *flags: str) -> Node:
        """One more node."""
        node = self._start(f"--address={self.address}", *flags)
        self.nodes.append(node)
        return node

    def restart(self) -> None:
        """A new head in the place of one that was killed. Nodes have to join anew."""
        self.head = self._start(*self._flags)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for node in (*self.nodes, self.head):
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
