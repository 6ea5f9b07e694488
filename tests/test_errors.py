"""What a command says at its end."""

from __future__ import annotations

import errno
import os

import pytest

from study.errors import InputError, exit_code


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM]
)
def test_storage_that_takes_no_more_is_one_line_that_names_the_file(
    capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def command() -> None:
        raise OSError(number, os.strerror(number), "/studies/s/report.html")

    assert exit_code(command) == 1
    told = f"error: /studies/s/report.html: {os.strerror(number)}\n"
    assert capsys.readouterr().err == told


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


def test_names_that_no_terminal_takes_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise InputError("must be readable", file="a\nb\x1b[31m\udcff.png")

    assert exit_code(command) == 2
    assert capsys.readouterr().err == "error: a\\nb\\x1b[31m\\udcff.png: must be readable\n"
