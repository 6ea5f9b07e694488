"""`study.train` on a training of the user's own: one trial without a study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from own_trainings import task

from study import train
from study.config.task import load_task
from study.trials.context import TrialContext

SCRIPT = Path(__file__).with_name("scripts.py")


def leaves(context: TrialContext) -> None:
    sys.exit(0)


def breaks(context: TrialContext) -> None:
    raise KeyError("weights")


def write(folder: Path, the_task: dict[str, Any], **more: Any) -> str:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"task": the_task, "loss": {}, "seed": 1, **more}))
    return str(file)


def provenance(miou: float) -> dict[str, Any]:
    """Of an export of `quick` with these numbers."""
    fingerprint = load_task(task()).config.fingerprint  # type: ignore[union-attr]
    return {"seed": 1, "metrics": {"val/miou": miou}, "data": {"fingerprint": fingerprint}}


def test_each_epoch_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([write(tmp_path, task())]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("training ") and "by the function own_trainings:quick" in lines[0]
    assert [line.partition("  ")[0] for line in lines[1:]] == [f"epoch {n}/3" for n in (1, 2, 3)]


def test_an_export_is_compared_with_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([write(tmp_path, task())]) == 0
    found = float(capsys.readouterr().out.split()[-1])
    export = write(tmp_path, task(), provenance=provenance(round(found, 4)))
    assert train.main([export]) == 2
    assert "names the function 'own_trainings:quick'" in capsys.readouterr().err
    assert train.main([export, "--trust"]) == 1
    assert "not the same numbers: 1 of 1 metrics differ" in capsys.readouterr().out
    assert train.main([export, "--trust", "--seed", "5"]) == 0
    assert "another seed than the export's 1: no numbers to compare" in capsys.readouterr().out


def test_equal_numbers_reproduce_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alike = task("own_trainings:alike")
    fingerprint = load_task(alike).config.fingerprint  # type: ignore[union-attr]
    origin = {**provenance(0.3), "data": {"fingerprint": fingerprint}}
    assert train.main([write(tmp_path, alike, provenance=origin), "--trust"]) == 0
    assert "reproduced exactly: val/miou 0.3000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("leaves", "called sys.exit(0)"),
        ("breaks", "raised KeyError: 'weights' (test_train_command.py:"),
    ],
)
def test_a_function_that_fails_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], function: str, words: str
) -> None:
    assert train.main([write(tmp_path, task(f"{__name__}:{function}"))]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'config.yaml'}:") and words in line


def test_a_data_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([write(tmp_path, task()), "--data-root", str(tmp_path)]) == 2
    assert "--data-root: the task reads no data folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_command_runs_in_the_folder_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = f"{sys.executable} {SCRIPT} saves {{loss_file}} {{folder}} {{stop_file}} {{test}} 2"
    the_task = {"trial": {"command": words}, "budget": {"epochs": 2}, "objectives": ["val/miou"]}
    assert train.main([write(tmp_path, the_task), "--out", "run"]) == 0
    assert (tmp_path / "run" / "saved").exists()
