"""One file per mistake in tests/bad_input/. Its first line says the error that it must give, its
name's first word what reads it. A new case is a new file. (`run_*.yaml` are command lines:
test_run_command.py.)"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from study.config.task import load_task
from study.core.errors import InputError
from study.space.search_space import load_space
from study.train import load_config

FOLDER = Path(__file__).parent / "bad_input"
READERS: dict[str, Callable[[Path], object]] = {
    "space": load_space,
    "task": load_task,
    "trial": load_config,
}
CASES = sorted(
    path.name for path in FOLDER.glob("*.yaml") if path.name.partition("_")[0] in READERS
)


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_with_file_and_key(name, monkeypatch):
    monkeypatch.chdir(FOLDER)
    expected = Path(name).read_text().splitlines()[0].removeprefix("# error: ")
    read = READERS[name.partition("_")[0]]
    with pytest.raises(InputError) as caught:
        read(Path(name))
    assert str(caught.value) == expected


@pytest.mark.parametrize("name", CASES)
def test_the_error_names_its_file(name):
    first = (FOLDER / name).read_text().splitlines()[0]
    assert first.startswith(f"# error: {name}:")
