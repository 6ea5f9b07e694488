"""Where the data of a task are, for tasks that read files."""

from __future__ import annotations

from pathlib import Path

from study.config.own_training import OwnTrainingTask
from study.config.task import FileData, Task
from study.core.errors import InputError
from study.core.files import resolved


def with_root(task: Task, data_root: Path | None, flag: str = "--data-root") -> Task:
    """The task with the absolute path of its data, which `data_root` replaces if it is given."""
    if isinstance(task, OwnTrainingTask) or not isinstance(task.data, FileData):
        if data_root is not None:
            hint = f"leave {flag} out"
            raise InputError("the task reads no data folder", hint=hint, key=flag)
        return task
    root, key = task.data.root, "data/root"
    if data_root is not None:
        root, key = str(data_root), flag
    if root is None:
        hint = "add it, or give --data-root DIR"
        raise InputError("missing required key 'root'", hint=hint, key="data/root")
    data = task.data.model_copy(update={"root": str(resolved(root, key))})
    return task.model_copy(update={"data": data})
