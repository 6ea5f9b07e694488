"""Runs a command beside a trial's process, and ends it with all its children when that wants it.

`python supervise.py FOLDER STOP_FILE CWD GRACE WORD...` runs the words as a command in CWD, its
output and errors into FOLDER/output.log. It ends the command once its own standard input closes: so
also where the trial's process was killed. First STOP_FILE appears; after GRACE seconds the command
gets SIGTERM; after as many again, SIGKILL. What the command leaves behind is killed. At the end a
line of JSON says its exit code. Needs the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

LOG = "output.log"
TICK = 0.1
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # prctl.h


_prctl = getattr(ctypes.CDLL(None), "prctl", lambda *_: -1)  # elsewhere than on Linux they escape


def _adopt_orphans() -> None:
    """Become the parent of grandchildren whose parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _die_with_parent() -> None:
    """Let this process be killed where its parent is, as Ray kills the children of a process."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _children() -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def _kill_what_is_left(group: int) -> int:
    """Kill the rest of the group and all adopted processes; return how many there were."""
    left: set[int] = set()
    with contextlib.suppress(OSError):
        os.killpg(group, 0)
        _signal(group, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            while True:  # those that have ended already are nobody's fault
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
        alive = _children()
        if not alive:
            break
        left.update(alive)
        for pid in alive:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return len(left)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.poll() is not None


def main() -> int:
    """Run the command to its end, or until standard input closes."""
    folder, stop_file, cwd, grace, *words = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _adopt_orphans()
    with open(Path(folder) / LOG, "ab", buffering=0) as log:
        try:
            process = subprocess.Popen(
                words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=_die_with_parent,  # noqa: PLW1509  no threads here
            )  # fmt: skip
        except OSError as error:
            print(json.dumps({"cannot_start": f"{error.strerror}: {words[0]}"}), flush=True)
            return 0
    stopped = False
    while process.poll() is None:
        ready, _, _ = select.select([0], [], [], TICK)
        if ready and not os.read(0, 4096):
            stopped = True
            break
    if stopped:
        with contextlib.suppress(OSError):  # the command may have removed the folder
            Path(stop_file).touch()
        if not _wait(process, float(grace)):
            _signal(process.pid, signal.SIGTERM)
            _wait(process, float(grace))
        _signal(process.pid, signal.SIGKILL)
        process.wait()
    if left := _kill_what_is_left(process.pid):
        note = f"study: the command left {left} process{'es' * (left > 1)} behind, now killed\n"
        with contextlib.suppress(OSError), open(Path(folder) / LOG, "ab") as log:
            log.write(note.encode())
    with contextlib.suppress(OSError):
        print(json.dumps({"code": process.returncode}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
