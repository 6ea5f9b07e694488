"""Files that are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from full_disk import full_at

from study.core.files import write_text


def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "made" / "on the way" / "a.yaml"
    write_text(path, "old")
    with full_at(100), pytest.raises(OSError, match=r"File too large") as caught:
        write_text(path, "new" * 100)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
