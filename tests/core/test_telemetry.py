"""Whatever a study is entered by, it tells nobody."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

import study
from study.core.errors import InputError
from study.core.telemetry import OFF


@pytest.mark.parametrize("command", ["run", "train", "track", "export", "report", "data.__main__"])
def test_every_command_turns_the_telemetry_of_what_it_uses_off(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in OFF:
        monkeypatch.setenv(name, "asked for")
    assert importlib.import_module(f"study.{command}").main(["no_such_thing.yaml"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert {name: os.environ[name] for name in OFF} == OFF


def test_a_study_in_a_notebook_turns_it_off_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OFF:
        monkeypatch.setenv(name, "asked for")
    with pytest.raises(InputError):
        study.run_study("no_such_space")
    assert {name: os.environ[name] for name in OFF} == OFF
