"""Runs `study.data convert` and reads what it wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from study.data.__main__ import main


@dataclass
class Converted:
    """The new folder, and what the command has printed."""

    root: Path
    printed: str

    @property
    def description(self) -> Any:
        return yaml.safe_load((self.root / "classes.yaml").read_text())

    @property
    def names(self) -> list[str]:
        return [
            one["name"] if isinstance(one, dict) else one for one in self.description["classes"]
        ]

    def label(self, name: str = "a", split: str = "") -> np.ndarray:
        """(H, W) class ids."""
        with Image.open(self.root / "labels" / split / f"{name}.png") as image:
            assert image.mode == "P"
            return np.asarray(image)

    def mask(self, class_name: str, name: str = "a", split: str = "") -> np.ndarray:
        return self.label(name, split) == self.names.index(class_name)


@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Converted]:
    def run(tool: str, source: Path, *flags: str) -> Converted:
        target = tmp_path / "converted"
        code = main(["convert", tool, str(source), str(target), *flags])
        out, err = capsys.readouterr()
        assert code == 0, err
        return Converted(target, out)

    return run


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The line for an export that cannot be used, which leaves nothing behind."""

    def run(tool: str, source: Path, *flags: str) -> str:
        target = tmp_path / "new" / "converted"
        code = main(["convert", tool, str(source), str(target), *flags])
        out, err = capsys.readouterr()
        assert code == 2 and out == "" and err.count("\n") == 1, (code, out, err)
        assert not target.parent.exists() or [*target.parent.iterdir()] == []
        return err

    return run
