"""The tutorial runs as it is shown, with a smaller network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from documentation import ROOT, blocks, page

LIMIT = 600  # seconds for a command


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorial_runs_as_it_is_shown(tmp_path: Path) -> None:
    (script,) = blocks(page("tutorial.md"), "python")
    (tmp_path / "draw.py").write_text(script, encoding="utf-8")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    printed = ""
    for block in blocks(page("tutorial.md"), "bash"):
        done = subprocess.run(
            ["bash", "-e", "-c", block],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        printed += done.stdout
        if "budget" in block:
            _shrink(tmp_path / "streets" / "task.yaml")
    study = tmp_path / "studies" / "streets"
    assert (study / "report.html").is_file() and (tmp_path / "sheet.png").is_file()
    assert (study / "exports" / "best_miou_loss.py").is_file()
    assert len(list((tmp_path / "predicted" / "masks").iterdir())) == 16
    assert "reproduced exactly" in printed


def _shrink(file: Path) -> None:
    task = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert task["budget"] == {"epochs": 2}  # as the tutorial has set it
    task["budget"] = {"epochs": 1}
    tiny = ROOT / "study" / "tasks" / "tiny.yaml"
    task["model"] = yaml.safe_load(tiny.read_text(encoding="utf-8"))["model"]
    file.write_text(yaml.safe_dump(task), encoding="utf-8")
