"""Factories of users' models and data, named `package.module:function` in a task file."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from study.core.errors import InputError

_SPEC = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


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
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        missing = _missing(error, module_name)
        if missing is not None:
            hint = f"install it or put it into {here}"
            raise InputError(f"no module named {missing!r}", hint=hint, key=key) from error
        message = f"importing {module_name} raised {type(error).__name__}: {error}"
        raise InputError(message, key=key) from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise InputError(f"no {name!r} in {spec!r}", key=key)
        found = getattr(found, name)
    if not callable(found):
        message = f"{spec!r} must be callable, got an object of type {type(found).__name__}"
        raise InputError(message, key=key)
    return found


def call_factory(spec: str, kwargs: dict[str, Any], *, key: str = "factory") -> Any:
    """Load and call a factory; turn its exceptions into one line that names it.

    A MemoryError passes through: its cause is the machine, not the factory.
    """
    factory = load_factory(spec, key=key)
    try:
        return factory(**kwargs)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        message = f"{spec}({', '.join(kwargs)}) raised {type(error).__name__}: {error}"
        raise InputError(message, key=key) from error


def _missing(error: Exception, module_name: str) -> str | None:
    """Which of the named module and its parents is absent; None if only one of its imports is."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    return error.name if f"{module_name}.".startswith(f"{error.name}.") else None
