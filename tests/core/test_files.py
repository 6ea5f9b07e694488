"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from full_disk import full_at

from study.core.errors import OutputError
from study.core.files import write_text


def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "made" / "on the way" / "a.yaml"
    write_text(path, "old")
    with full_at(100), pytest.raises(OSError, match=r"File too large") as caught:
        write_text(path, "new" * 100)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="not a regular file"):
        write_text(tmp_path / "pipe", "x")
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
