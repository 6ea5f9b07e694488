"""What a command says at its end."""

from __future__ import annotations

import errno
import os

import pytest

from study.errors import InputError, exit_code


def test_a_full_disk_is_one_line_that_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/studies/s/report.html")

    assert exit_code(command) == 1
    assert capsys.readouterr().err == "error: /studies/s/report.html: No space left on device\n"


def test_an_error_of_the_system_that_is_no_full_disk_is_not_hidden() -> None:
    def command() -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "gone")

    with pytest.raises(FileNotFoundError):
        exit_code(command)


def test_bad_input_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise InputError("`0 < lr` must hold", file="task.yaml", line=3, key="optimizer/lr")

    assert exit_code(command) == 2
    assert capsys.readouterr().err == "error: task.yaml:3: optimizer/lr: `0 < lr` must hold\n"
