"""A function of the user's own as the training of a trial."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from study.config.own_training import FunctionTrial
from study.core.errors import InputError
from study.core.factories import WrongArguments, load_factory, parsers_raise
from study.trials.context import Stopped, TrialContext

KEY = "trial/function"


def load_function(trial: FunctionTrial) -> Callable[..., Any]:
    """Import the function. Raises InputError where it is not there, or does not take a context and
    the kwargs."""
    function = load_factory(trial.function, key=KEY)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return function
    try:
        signature.bind(object(), **trial.kwargs)
    except TypeError as error:
        given = ", ".join(["context", *trial.kwargs])
        raise InputError(
            f"{trial.function}{signature} cannot be called with ({given}): {error}", key=KEY
        ) from error
    return function


def train_function(context: TrialContext, trial: FunctionTrial) -> None:
    """Call the function with the context.

    Raises:
        InputError: where it ends before its last epoch, parses arguments that it is not given, or
            fails: with the place in its own code.
    """
    function = load_function(trial)
    context.listen()
    context.beat("in its function, before the first epoch")
    try:
        with _no_command_line():
            function(context, **trial.kwargs)
    except WrongArguments as error:
        message = f"{trial.function} parsed a command line, of which a trial has none: {error}"
        raise InputError(message, hint="give its values as kwargs", key=KEY) from error
    except (InputError, Stopped, SystemExit, KeyboardInterrupt):
        raise
    except Exception as error:
        error.add_note(_place(error, function))
        raise
    if not context.has_stopped and context.reported < context.num_epochs:
        raise InputError(
            f"{trial.function} returned after {context.reported} of {context.num_epochs} epochs"
        )


@contextmanager
def _no_command_line() -> Iterator[None]:
    """Let a parser of arguments find none, and so give its defaults: the words in `sys.argv` are
    those of a worker, or of `study.train`."""
    words = sys.argv
    sys.argv = words[:1]
    try:
        with parsers_raise():
            yield
    finally:
        sys.argv = words


def _place(error: BaseException, function: Callable[..., Any]) -> str:
    """`train.py:33`: the last line of the function's own folder that the error came through; else
    the last line at all."""
    frames = traceback.extract_tb(error.__traceback__)
    try:
        folder = str(Path(inspect.getfile(inspect.unwrap(function))).parent)
    except TypeError:
        folder = os.getcwd()
    own = [frame for frame in frames if str(Path(frame.filename)).startswith(folder + os.sep)]
    last = (own or list(frames))[-1]
    return f"{Path(last.filename).name}:{last.lineno}"
