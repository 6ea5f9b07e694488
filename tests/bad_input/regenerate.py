"""Writes the error that each case of this folder gives into the first line of its file.

    python -m tests.bad_input.regenerate

Run it after a change to an error message, then read the difference before you commit it.

A case is a YAML file. The first word of its name says what reads it: a search space, a task, the
config of one trial, or, for `run`, a command line with the folder that it runs in. In such a case
`varies` holds regular expressions for what differs between machines; the first line has a `*` for
each, and HERE for the folder.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

FOLDER = Path(__file__).resolve().parent
TESTS = FOLDER.parent
if str(TESTS) not in sys.path:
    sys.path.append(str(TESTS))

from folder_data import quadrants, write_folder  # noqa: E402

from study.config.task import load_task  # noqa: E402
from study.core.errors import InputError  # noqa: E402
from study.run import main as run_command  # noqa: E402
from study.space.search_space import load_space  # noqa: E402
from study.training.config_file import read_config  # noqa: E402

READERS: dict[str, Callable[[Path], object]] = {
    "space": load_space,
    "task": load_task,
    "trial": read_config,
}
CASES = sorted(path.name for path in FOLDER.glob("*.yaml"))
COMMANDS = [name for name in CASES if name.startswith("run_")]
FILES = [name for name in CASES if name not in COMMANDS]
TASK: dict[str, Any] = {
    "data": {"format": "folder", "size": [32, 32]},
    "model": {"arch": "unet", "encoder": "resnet18"},
    "optimizer": {"name": "adamw", "lr": 0.01},
    "batch_size": 2,
    "budget": {"epochs": 2},
}


def expected(name: str) -> str:
    """The error in the first line of a case."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return text.partition("\n")[0].removeprefix("# error: ")


def error_of_file(name: str) -> str:
    """The error that reading the case's own file gives, or an empty text."""
    with contextlib.chdir(FOLDER):
        try:
            READERS[name.partition("_")[0]](Path(name))
        except InputError as error:
            return str(error)
    return ""


def set_up(case: dict[str, Any], here: Path) -> None:
    """A study that is taken, and a small data set with its task, spoilt as the case says; a space
    and a second task, where the case holds one."""
    (here / "studies" / "taken").mkdir(parents=True)
    town = write_folder(here / "town")
    if "space" in case:
        (here / "space.yaml").write_text(case["space"])
    (here / "town.yaml").write_text(yaml.safe_dump({**TASK, **case.get("task", {})}))
    if "target" in case:
        (here / "big.yaml").write_text(yaml.safe_dump({**TASK, **case["target"]}))
    spoil = case.get("spoil", {})
    for name in spoil.get("remove", ()):
        (town / name).unlink()
    for name, to in spoil.get("copy", {}).items():
        shutil.copyfile(town / name, town / to)
    for name, text in spoil.get("write", {}).items():
        (town / name).write_text(text)
    for name, value in spoil.get("label", {}).items():
        label = quadrants()
        label[3, 4] = value
        Image.fromarray(label).save(town / name)


def load_case(name: str) -> dict[str, Any]:
    """What a case of a command line says."""
    found = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def error_of_command(case: dict[str, Any], here: Path) -> tuple[int, str]:
    """Exit code and error line of the case's command, run in the folder that `set_up` made."""
    captured = io.StringIO()
    ray_address = os.environ.pop("RAY_ADDRESS", None)
    try:
        with (
            contextlib.chdir(here),
            contextlib.redirect_stderr(captured),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            code = run_command(case["arguments"])
    finally:
        if ray_address is not None:
            os.environ["RAY_ADDRESS"] = ray_address
    line = captured.getvalue().removeprefix("error: ").removesuffix("\n")
    line = line.replace(str(here), "HERE")
    for pattern in case.get("varies", ()):
        line = re.sub(pattern, "*", line)
    return code, line


def _rewrite(name: str, error: str) -> bool:
    path = FOLDER / name
    text = path.read_text(encoding="utf-8")
    new = f"# error: {error}\n" + text.partition("\n")[2]
    path.write_text(new, encoding="utf-8")
    return new != text


def main() -> int:
    """Rewrites the first lines; prints each that changed."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STUDY_CACHE_DIR"] = f"{folder}/cache"
        for name in CASES:
            here = Path(folder).resolve() / name
            here.mkdir()
            if name in FILES:
                error = error_of_file(name)
            else:
                case = load_case(name)
                set_up(case, here)
                _, error = error_of_command(case, here)
            if not error:
                failed.append(name)
            elif _rewrite(name, error):
                print(f"{name}\n    {error}")
    if failed:
        print(f"no error in {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
