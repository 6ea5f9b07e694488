"""The tutorial runs as it is shown, with a smaller network, and has the pictures of its script."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import yaml
from documentation import ROOT, page
from PIL import Image

from docs import tutorial_pictures

MOST_BYTES = 600_000  # of all pictures together


def test_the_page_shows_each_picture_that_the_script_draws_with_a_description() -> None:
    shown = re.findall(r"!\[([^\]]*)\]\(tutorial/(\w+)\.png\)", page("tutorial.md"))
    assert [name for _, name in shown] == [*tutorial_pictures.PICTURES]
    assert all(len(description.split()) > 3 for description, _ in shown)


def test_the_pictures_are_there_and_small() -> None:
    files = {file.stem: file for file in tutorial_pictures.HERE.iterdir()}
    assert files.keys() == tutorial_pictures.PICTURES.keys()
    assert sum(file.stat().st_size for file in files.values()) < MOST_BYTES
    for file in files.values():
        with Image.open(file) as image:
            assert image.format == "PNG" and image.width >= 420


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorial_runs_as_it_is_shown(tmp_path: Path) -> None:
    printed = ""
    for block, output in tutorial_pictures.run(tmp_path):
        printed += output
        if "budget" in block:
            _shrink(tmp_path / "streets" / "task.yaml")
    study = tmp_path / "studies" / "streets"
    assert (study / "report.html").is_file() and (tmp_path / "sheet.png").is_file()
    assert (study / "exports" / "best_miou_loss.py").is_file()
    assert len(list((tmp_path / "predicted" / "masks").iterdir())) == 16
    assert "reproduced exactly" in printed
    for name, content in tutorial_pictures.pictures(tmp_path / tutorial_pictures.SHEET):
        shown = tutorial_pictures.HERE / f"{name}.png"
        with Image.open(io.BytesIO(content)) as new, Image.open(shown) as old:
            assert new.size == old.size, name


def _shrink(file: Path) -> None:
    task = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert task["budget"] == {"epochs": 2}  # as the tutorial has set it
    task["budget"] = {"epochs": 1}
    tiny = ROOT / "study" / "tasks" / "tiny.yaml"
    task["model"] = yaml.safe_load(tiny.read_text(encoding="utf-8"))["model"]
    file.write_text(yaml.safe_dump(task), encoding="utf-8")
