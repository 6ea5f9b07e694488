"""Factories of users' models and data, named `package.module:function` in a task file."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, NoReturn, TextIO, cast

from study.core.errors import InputError, deed, is_out_of_memory

_SPEC = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


HELD_SECONDS = 2.0


class WrongArguments(SystemExit):
    """What argparse finds wrong with the command line, in place of its usage text."""


@contextmanager
def parsers_raise() -> Iterator[None]:
    """Let a parser of arguments raise WrongArguments where it would print its usage and exit."""
    parsers_error = argparse.ArgumentParser.error
    argparse.ArgumentParser.error = _refuse  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        argparse.ArgumentParser.error = parsers_error  # type: ignore[method-assign]


@contextmanager
def faults_named(what: str, *, key: str) -> Iterator[None]:
    """Turn every exception of users' code, and its exit, into one line that begins with `what`.

    What the code prints in its first seconds is shown once these are over; where it exits before,
    as a parser of arguments does behind its usage text, the line ends with the last of it.
    Ctrl-C passes through, and a want of memory: its cause is the machine, not the code.
    """
    out, err = _Held(sys.stdout), _Held(sys.stderr)
    try:
        with (
            parsers_raise(),
            redirect_stdout(cast(TextIO, out)),
            redirect_stderr(cast(TextIO, err)),
        ):
            yield
    except (InputError, KeyboardInterrupt):
        raise
    except WrongArguments as error:
        message = f"{what} parsed the command line, which is not its own: {error}"
        raise InputError(message, hint="give a factory its values as kwargs", key=key) from error
    except SystemExit as error:
        said = [line.strip() for line in (out.drop() + err.drop()).splitlines() if line.strip()]
        last = f"; it said: {said[-1]:.200}" if said else ""
        raise InputError(f"{what} {deed(error)}{last}", key=key) from error
    except BaseException as error:
        if is_out_of_memory(error):
            raise
        raise InputError(f"{what} {deed(error)}", key=key) from error
    finally:
        out.release()
        err.release()


class _Held:
    """A stream that keeps what is written for some seconds, then passes it on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._kept: list[str] = []
        self._until = time.monotonic() + HELD_SECONDS

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # click asks whether bytes may be written
            raise TypeError(f"a stream of text takes str, got {type(text).__name__}")
        if time.monotonic() < self._until:
            self._kept.append(text)
        else:
            self.release()
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            self._stream.flush()

    def drop(self) -> str:
        """Forget what is kept, and return it."""
        kept, self._kept = "".join(self._kept), []
        return kept

    def release(self) -> None:
        """Pass on what is kept, and all that is written from now on."""
        self._until = 0.0
        if self._kept:
            self._stream.write(self.drop())


def _refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    raise WrongArguments(message)


def load_factory(spec: str, *, key: str = "factory") -> Callable[..., Any]:
    """Import the callable that `spec` names.

    spec: ``package.module:function``; nested attributes (``module:Class.method``) work. The working
    directory is searched after all installed packages, also for imports that the factory makes
    later.
    key: the task key that holds the spec, for messages.

    Raises InputError if the spec has another form, the module is not found or fails to import, the
    attribute is missing, or it is not callable.
    """
    if not _SPEC.fullmatch(spec):
        raise InputError(
            f"a factory must have the form package.module:function, got {spec!r}", key=key
        )
    module_name, _, path = spec.partition(":")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        with faults_named(f"{spec}: importing {module_name}", key=key):
            found: Any = importlib.import_module(module_name)
    except InputError as error:
        missing = _missing(error.__cause__, module_name)
        if missing is None:
            raise
        hint = f"install it or put it into {here}"
        raise InputError(f"no module named {missing!r}", hint=hint, key=key) from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise InputError(f"no {name!r} in {spec!r}", key=key)
        found = getattr(found, name)
    if not callable(found):
        message = f"{spec!r} must be callable, got an object of type {type(found).__name__}"
        raise InputError(message, key=key)
    return found


def call_factory(spec: str, kwargs: dict[str, Any], *, key: str = "factory") -> Any:
    """Load and call a factory; turn its exceptions into one line that names it."""
    factory = load_factory(spec, key=key)
    with faults_named(f"{spec}({', '.join(kwargs)})", key=key):
        return factory(**kwargs)


def _missing(error: BaseException | None, module_name: str) -> str | None:
    """Which of the named module and its parents is absent; None if only one of its imports is."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    return error.name if f"{module_name}.".startswith(f"{error.name}.") else None
