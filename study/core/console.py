"""The frame of every command: its arguments, one line for an error, exit codes, closed pipes."""

from __future__ import annotations

import argparse
import errno
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, NoReturn, TextIO, cast

from study.core import telemetry
from study.core.errors import InputError, OutputError, did_you_mean, is_out_of_memory, printable
from study.core.extras import missing_extra

LONGEST = 2000  # characters of an error line
EXIT_OUTPUT_ERROR = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141  # what a shell reports for a process that SIGPIPE ended
OUTPUT_ERRNOS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EIO, errno.EROFS, errno.ESTALE),
    *(errno.EACCES, errno.EPERM),
    *(errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
)
CLUSTER_GONE = errno.EHOSTDOWN


class PipeSafeStream:
    """A stream that discards what is written to it once its reader has gone."""

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


def show(*lines: object, file: TextIO | None = None, flush: bool = False) -> None:
    """Print each on one line, with what no terminal should get of it written out: `printable`."""
    for line in lines:
        print(printable(str(line)), file=file, flush=flush)


def _discard(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def pipe_safe_output() -> Iterator[None]:
    """Let a command continue when the reader of its output has gone.

    For a command whose work is worth more than what it prints.
    """
    stdout = sys.stdout
    sys.stdout = cast(TextIO, PipeSafeStream(stdout))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = stdout


def exit_code(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit code.

    1: a file cannot be written, the Ray cluster is gone, or memory has run out; one line on stderr
    says which.
    2: bad input, or a package that is not installed; one line on stderr says what. 130: Ctrl-C.
    141: nobody reads the output any more, as in `| head -1`; nothing is printed. A command may
    return other codes, with None for 0.
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
        except ModuleNotFoundError as error:
            if missing := missing_extra(error):
                raise missing from error
            raise
        finally:
            _flush()
    except InputError as error:
        text = str(error)
        more = f" ... ({len(text)} characters)" if len(text) > LONGEST else ""
        show(f"error: {text[:LONGEST]}{more}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        ours = (*OUTPUT_ERRNOS, errno.ENOMEM, CLUSTER_GONE)
        if not isinstance(error, OutputError) and error.errno not in ours:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        show(f"error: {where}{error.strerror}", file=sys.stderr)
        return EXIT_OUTPUT_ERROR
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        show(f"error: out of memory: {error}", file=sys.stderr)
        return EXIT_OUTPUT_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _print_what_can_be_printed() -> None:
    """Print a question mark for each character that the output cannot encode, such as ±."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _flush() -> None:
    """Flush stdout now. When the interpreter exits, it would be too late for a clear line."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, "stdout") from error


def _is_unread(stream: TextIO) -> bool:
    """Whether the stream is a pipe or a socket whose other end is closed."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), select.POLLOUT)
    except (AttributeError, OSError, ValueError):  # no stream, or one without a descriptor
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _flush_or_discard() -> None:
    """Discard what cannot be printed, so that the interpreter does not try again when it exits."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            _discard(stream)


class Parser(argparse.ArgumentParser):
    """The arguments of `python -m study.COMMAND`. A wrong argument raises InputError."""

    def __init__(self, command: str, description: str | None) -> None:
        super().__init__(
            prog=f"python -m study.{command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse the arguments. An unknown flag raises InputError with the nearest known flag."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].partition("=")[0]
            hint = did_you_mean(name, self._option_string_actions) or "see --help"
            raise InputError("unknown argument", hint=hint, key=name)
        return found

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        key, found, offence = message.removeprefix("argument ").partition(": ")
        if message.startswith("argument ") and found:
            raise InputError(offence, key=key)
        if key == "the following arguments are required":
            raise InputError(f"missing required argument {offence}")
        raise InputError(message)


def run_command(
    parser: Parser,
    command: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None,
) -> int:
    """Parse the arguments, run the command and return its exit code; see `exit_code`.

    The telemetry of the libraries is off.
    """

    def run() -> int | None:
        arguments = parser.parse_args(argv)
        telemetry.turn_off()
        return command(arguments)

    return exit_code(run)
