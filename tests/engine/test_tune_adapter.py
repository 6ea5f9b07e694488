"""What is read out of Ray's words for a lost trial."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.engine.tune_adapter import _fault
from study.scheduler.retries import LOST, MEMORY

LOW = """Failure # 1 (occurred at 2026-11-21_16-44-34)
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.2, \
ID: cfd4) was 22.46GB used / 23.54GB limit (0.954)
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
Refer to the documentation on how to address the out of memory issue.
"""
DIED = """Failure # 1 (occurred at 2026-11-21_16-44-34)
The actor died unexpectedly before finishing this task.
\tclass_name: ImplicitFunc
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit \
detail: End of file. Some common causes include: (1) the process was killed by the OOM killer due \
to high memory usage, (2) ray stop --force was called, (3) ...
"""
RAISED = """Failure # 1 (occurred at 2026-11-21_16-44-34)
ray.exceptions.RayTaskError(AcceleratorError): ray::ImplicitFunc.train()
  File "worker.py", line 1, in run
torch.AcceleratorError: CUDA error: unspecified launch failure
"""
NO_WORD = "its process died: killed, perhaps by the system for want of memory, or crashed"


@pytest.mark.parametrize(
    ("text", "cause", "reason"),
    [
        (LOW, MEMORY, "out of memory: ended by Ray, for its node was low on memory, 22.46GB of "
         "23.54GB in use"),
        (DIED, LOST, NO_WORD),
        ("", LOST, NO_WORD),
        (RAISED, LOST, "torch.AcceleratorError: CUDA error: unspecified launch failure"),
    ],
)  # fmt: skip
def test_the_reason_is_one_line(tmp_path: Path, text: str, cause: str, reason: str) -> None:
    (tmp_path / "error.txt").write_text(text)
    trial: Any = SimpleNamespace(error_file=str(tmp_path / "error.txt"), pickled_error_file=None)
    assert _fault(trial) == (cause, reason)
