"""How a command ends, and what it prints: one line for an error, exit codes, pipes that close."""

from __future__ import annotations

import argparse
import errno
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, NoReturn, TextIO, cast

from study.core.errors import InputError, OutputError, did_you_mean

LONGEST = 2000  # characters of one line
EXIT_OUTPUT_ERROR = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141  # as a shell has it of a process that SIGPIPE ended
OUTPUT_ERRNOS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EIO, errno.EROFS, errno.ESTALE),
    *(errno.EACCES, errno.EPERM),
    *(errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
)
CLUSTER_GONE = errno.EHOSTDOWN


class PipeSafeStream:
    """A stream that outlives its reader: once nobody reads it, what is written goes nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            _discard(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            _discard(self._stream)


def _discard(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def pipe_safe_output() -> Iterator[None]:
    """For a command whose work is worth more than what it prints: it goes on where the reader of
    its output is gone."""
    stdout = sys.stdout
    sys.stdout = cast(TextIO, PipeSafeStream(stdout))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = stdout


def exit_code(command: Callable[[], int | None]) -> int:
    """Run a command; bad input becomes one line on stderr and exit code 2, a file that cannot be
    written or a Ray cluster that is gone one line and exit code 1, Ctrl-C exit code 130. Where
    nobody reads what is printed any more, as in `| head -1`, it ends with 141 and without a word.
    """
    _print_what_can_be_printed()
    try:
        return _run_and_report(command)
    except BrokenPipeError:
        if not any(_is_unread(stream) for stream in (sys.stdout, sys.stderr)):
            raise
        return EXIT_UNREAD
    finally:
        _flush_or_discard()


def _run_and_report(command: Callable[[], int | None]) -> int:
    try:
        try:
            return command() or 0
        finally:
            _flush()
    except InputError as error:
        text = str(error)
        more = f" ... ({len(text)} characters)" if len(text) > LONGEST else ""
        print(f"error: {text[:LONGEST]}{more}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        if not isinstance(error, OutputError) and error.errno not in (*OUTPUT_ERRNOS, CLUSTER_GONE):
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"error: {where}{error.strerror}", file=sys.stderr)
        return EXIT_OUTPUT_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _print_what_can_be_printed() -> None:
    """A question mark for each letter that an output lacks, such as ± in ASCII."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _flush() -> None:
    """Write out what is printed: at the interpreter's exit it were too late for a clear line."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, "stdout") from error


def _is_unread(stream: TextIO) -> bool:
    """Whether it is a pipe or a socket whose other end is closed."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), select.POLLOUT)
    except (AttributeError, OSError, ValueError):  # there is none, or it is no file of the system
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _flush_or_discard() -> None:
    """Drop what cannot be printed, so that the interpreter does not try it again at its exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            _discard(stream)


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are bad input like any other: one line."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        key, found, offence = message.removeprefix("argument ").partition(": ")
        if message.startswith("argument ") and found:
            raise InputError(offence, key=key)
        if key == "unrecognized arguments":
            name = offence.split()[0].partition("=")[0]
            hint = did_you_mean(name, self._option_string_actions) or "see --help"
            raise InputError("unknown argument", hint=hint, key=name)
        if key == "the following arguments are required":
            raise InputError(f"missing required argument {offence}")
        raise InputError(message)
