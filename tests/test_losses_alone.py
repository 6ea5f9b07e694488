"""docs/losses_alone.md: its code runs as it stands, without the packages of the extra `study`."""

from __future__ import annotations

from pathlib import Path

import pytest
from documentation import blocks, page
from test_extras import without_the_extra


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom_without_the_extra(tmp_path: Path) -> None:
    code = "\n".join(blocks(page("losses_alone.md"), "python"))
    done = without_the_extra(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == code.count("\nprint(")


@pytest.mark.slow
def test_a_file_of_the_same_name_gives_the_error_that_the_page_names(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text("", encoding="utf-8")
    done = without_the_extra("from study.losses import build_loss", tmp_path)
    last = done.stderr.splitlines()[-1]
    assert f"`{last}`" in page("losses_alone.md")
