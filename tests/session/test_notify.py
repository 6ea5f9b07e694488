"""A command of the user's own that is run when a session ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.session import notify as module
from study.session.notify import notify

WRITES = 'printf "%s|%s|%s" "$STUDY_NAME" "$STUDY_EVENT" "$STUDY_MESSAGE" > told'


def test_the_command_learns_which_study_has_ended_and_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = "+3.1 points; $(touch ran) `touch ran`\n\x1b[31m"
    assert notify(WRITES, "joint-camvid", "finished", message) == ""
    told = (tmp_path / "told").read_text()
    assert told == r"joint-camvid|finished|+3.1 points; $(touch ran) `touch ran`\n\x1b[31m"
    assert not (tmp_path / "ran").exists()


def test_what_goes_wrong_is_said_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = notify("echo first >&2; echo no mail >&2; exit 3", "s", "failed", "")
    assert failed == "the command of --notify ended with code 3: no mail"
    assert "code 127" in notify("no-such-command-at-all", "s", "failed", "")
    assert notify("read line", "s", "finished", "").startswith("the command of --notify ended")
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    assert "longer than 0 s" in notify("sleep 30", "s", "finished", "")
