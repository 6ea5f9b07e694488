"""What a command says at its end."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ledgers import make_study

from study import export, report, run, status
from study.core.console import exit_code
from study.core.errors import InputError
from study.core.names import FAILED, SEARCH
from study.ledger.journal import Ledger
from study.ledger.records import EndRecord, TrialRecord


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


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError("no more"), "error: out of memory: no more\n"),
        (
            RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
            "error: out of memory: [enforce] DefaultCPUAllocator: can't allocate memory: 8 bytes\n",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "error: Cannot allocate memory\n"),
    ],
)
def test_a_want_of_memory_is_one_line(
    capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    def command() -> None:
        raise error

    assert exit_code(command) == 1
    assert capsys.readouterr().err == line


def test_bad_input_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise InputError("lr must be > 0, got 0", file="task.yaml", line=3, key="optimizer/lr")

    assert exit_code(command) == 2
    assert capsys.readouterr().err == "error: task.yaml:3: optimizer/lr: lr must be > 0, got 0\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError.unknown("key", "losses", ["loss"], file="a.yaml", line=4, key="losses"),
         "a.yaml:4: losses: unknown key 'losses'; did you mean 'loss'? (allowed: loss)"),
        (InputError("no study named 'x' in studies/", found=[]),
         "no study named 'x' in studies/ (found: none)"),
        (InputError("too many", found=range(15)),
         "too many (found: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 more)"),
        (InputError("invalid name 'a/b'", allowed="letters only", key="--name"),
         "--name: invalid name 'a/b' (allowed: letters only)"),
        (InputError("lr must be > 0,\n  got 0", hint="try 0.1").of_file("a.yaml", {}),
         "lr must be > 0, got 0; try 0.1"),
        (InputError("wrong", key="a/b/c").of_file("a.yaml", {"a": 3}), "a.yaml:3: a/b/c: wrong"),
        (InputError("wrong", key="mix").below("loss/jaccard"), "loss/jaccard/mix: wrong"),
        (InputError("wrong", key="--mix").below("loss"), "--mix: wrong"),
    ],
)  # fmt: skip
def test_the_place_comes_first_then_the_offence_the_hint_and_what_is_allowed(
    error: InputError, line: str
) -> None:
    assert str(error) == line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--frobnicate"], "--frobnicate: unknown argument; see --help"),
        (["--picturee=x"], "--picturee: unknown argument; did you mean '--picture'?"),
        (["--picture"], "--picture: expected one argument"),
        ([], "missing required argument NAME"),
    ],
)
def test_a_wrong_command_line_is_bad_input(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["x", *arguments] if arguments else []) == 2
    assert capsys.readouterr().err == f"error: {line}\n"


def test_names_that_no_terminal_takes_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise InputError("cannot read it", file="a\nb\x1b[31m\udcff.png")

    assert exit_code(command) == 2
    assert capsys.readouterr().err == "error: a\\nb\\x1b[31m\\udcff.png: cannot read it\n"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://user:hidden@host:5432/db", "postgresql://***@host:5432/db"),
        ("postgresql+psycopg2://user:hid/den@x@host/db", "postgresql+psycopg2://***@host/db"),
        ("ray://user:hidden@head:10001", "ray://***@head:10001"),
        ("s3://KEYhidden:hidden/bucket", "s3://KEYhidden:***/bucket"),
        ("gs://b/x?access_key=hidden&Secret=hidden&a=1", "gs://b/x?access_key=***&Secret=***&a=1"),
        ("http://127.0.0.1:5000/health", "http://127.0.0.1:5000/health"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("sqlite:////home/a:b/mlflow.db", "sqlite:////home/a:b/mlflow.db"),
    ],
)
def test_a_secret_of_an_address_is_stars(address: str, shown: str) -> None:
    assert str(InputError(f"no server at {address}: refused", key=address)) == (
        f"{shown}: no server at {shown}: refused"
    )


@pytest.mark.parametrize("flag", ["--storage", "--address", "--tracking-uri"])
@pytest.mark.parametrize(
    "address",
    [
        *("postgresql://me:hidden@host/db", "ray://me:hidden@host:1", "me:hidden@host:6379"),
        *("s3://KEY:hidden@bucket/x", "s3://bucket/x?secret_key=hidden", "s3://[x"),
        *("http://host:1/?token=hidden", "http://me:hidden@host", "s3://hidden:hidden/b"),
        "s3://bucket/x?scheme=http&scheme=https",
    ],
)
def test_no_password_is_told(
    flag: str,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run.main(["--task", "tiny", "--dry-run", f"--storage={tmp_path}/s", flag, address])
    told = "".join(capsys.readouterr())
    if flag == "--storage" and "://" not in address:
        return  # a folder's name
    assert (code, told.count("\n")) == (2, 1), told
    assert "hidden" not in told.replace("s3://hidden:***", ""), told


def test_status_writes_out_what_moves_the_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(make_study(tmp_path / "demo", until="start"))
    ledger.append(TrialRecord("t0000", 0, SEARCH, "jml", "jaccard", None, {}, 0))
    ledger.append(EndRecord("t0000", FAILED, "ValueError: \x1b[2J\rall is well\x07 \u202e", 0))
    ledger.close()
    assert status.main(["demo", "--storage", str(tmp_path)]) == 0
    assert "jml: ValueError: \\x1b[2J\\rall is well\\x07 \\u202e\n" in capsys.readouterr().out


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    make_study(folder / "demo", until="search")
    return folder


BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}


def unread(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command whose output nobody reads: `command | true`, without its race."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, *arguments]
    try:
        return subprocess.run(
            command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=BUFFERED
        )
    finally:
        os.close(writer)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [("status", "demo"), ("status", "demo", "--json"), ("export", "demo"), ("report", "demo")],
    ids=" ".join,
)
def test_a_command_that_nobody_reads_any_more_ends_without_a_word(
    storage: Path, arguments: tuple[str, ...]
) -> None:
    command, *others = arguments
    done = unread("-m", f"study.{command}", *others, "--storage", str(storage))
    assert (done.returncode, done.stderr) == (141, "")
    if command == "report":
        assert (storage / "demo" / "report.html").is_file()


@pytest.mark.slow
def test_help_that_nobody_reads_ends_without_a_word() -> None:
    done = unread("-m", "study.status", "--help")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
def test_output_that_a_full_disk_does_not_take_is_one_line(storage: Path) -> None:
    command = [sys.executable, "-m", "study.status", "demo", "--storage", str(storage)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=BUFFERED
        )
    assert (done.returncode, done.stderr) == (1, "error: stdout: No space left on device\n")


def test_a_pipe_that_breaks_elsewhere_is_not_hidden() -> None:
    def command() -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    with pytest.raises(BrokenPipeError):
        exit_code(command)


@pytest.mark.slow
def test_a_letter_that_the_output_lacks_is_a_question_mark(tmp_path: Path) -> None:
    make_study(tmp_path / "demo", num_seeds=2)
    code = "import sys; from study import report; report.main(); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "demo", "--storage", str(tmp_path)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mean ? sd over seeds" in done.stdout
    assert done.stdout.endswith("False\n"), "without networks a report needs no torch"


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.slow
@pytest.mark.parametrize("picture", ["", ".", "/proc/x.png", "demo/ledger.jsonl/x.png", "x" * 300])
def test_a_picture_that_cannot_be_written_is_one_line_and_nothing_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    picture: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(make_study(tmp_path / "demo").rglob("*"))
    code = report.main(["demo", "--storage", ".", "--picture", picture])
    captured = capsys.readouterr()
    assert code == (2 if picture in ("", ".") else 1)
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert captured.out == ""
    assert sorted((tmp_path / "demo").rglob("*")) == before


@pytest.mark.slow
def test_what_is_in_the_way_of_a_report_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study(tmp_path / "demo", until="search")
    (folder / "report.html").mkdir()
    told = refused(capsys, report.main(["demo", "--storage", str(tmp_path)]))
    assert told == f"error: {folder / 'report.html'}: Is a directory\n"
    assert not list(folder.glob(".*.partial"))


@pytest.mark.slow
def test_what_is_in_the_way_of_an_export_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study(tmp_path / "demo", until="search")
    exports = folder / "exports"
    exports.write_text("")
    told = refused(capsys, export.main(["demo", "--storage", str(tmp_path)]))
    assert told.startswith(f"error: {exports}") and told.count("\n") == 1
    exports.unlink()
    (exports / "best_miou.yaml").mkdir(parents=True)
    told = refused(capsys, export.main(["demo", "--storage", str(tmp_path)]))
    assert told == f"error: {exports / 'best_miou.yaml'}: Is a directory\n"
