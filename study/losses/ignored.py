"""How labels are read: how many classes there are, and which labels are ignored."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable
from typing import Any

from study.core.errors import InputError

VOID = 255  # ignored unless told otherwise; as good as always no class


def whole(number: Any, name: str) -> int:
    """A whole number. Raises InputError for any other."""
    try:
        return operator.index(number)
    except TypeError:
        raise InputError(f"{name} must be a whole number, got {number!r}", key=name) from None


def class_number(given: Any) -> int:
    """The number of classes as it was given. Raises ValueError unless it is 1 or more."""
    found = whole(given, "num_classes")
    if found < 1:
        raise ValueError(f"num_classes must be >= 1, got {found}")
    return found


def ignored_labels(given: Any, num_classes: int) -> tuple[int, ...]:
    """The ignored labels, each once; none for None. Warns where 255 is one of the classes.

    Raises InputError unless it is an integer, several, or None.
    """
    if given is None:
        return ()
    if hasattr(given, "tolist"):
        given = given.tolist()
    many = given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    try:
        found = tuple(dict.fromkeys(whole(one, "ignore_index") for one in many))
    except InputError:
        message = f"ignore_index must be a whole number, or several, got {given!r}"
        hint = "give an integer, a list of integers, or None to ignore nothing"
        raise InputError(message, hint=hint, key="ignore_index") from None
    if VOID in found and num_classes > VOID:
        warnings.warn(
            f"ignore_index {VOID} is one of the {num_classes} classes, which is never learned or "
            "counted: give another label, or None to ignore nothing",
            stacklevel=3,
        )
    return found


def as_given(labels: tuple[int, ...]) -> int | tuple[int, ...] | None:
    """One label, several, or None."""
    return labels[0] if len(labels) == 1 else labels or None


def in_words(labels: tuple[int, ...]) -> str:
    """What follows the range of the classes in an error."""
    return f" or {' or '.join(map(str, labels))} (ignored)" if labels else ", none is ignored"
