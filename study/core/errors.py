"""The exception for bad input, which formats every error line, and the one for failed output."""

from __future__ import annotations

import difflib
import errno
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

MOST_NAMES = 12  # names of a list that a line shows
# What torch and C++ say where Python would raise MemoryError.
_MEMORY_WORDS = ("out of memory", "allocate memory", "not enough memory", "bad_alloc")


def printable(text: str) -> str:
    """`text` on one line that any terminal takes: what cannot be printed is written out.

    All text from outside (class names, files' names, exceptions, servers) passes through it before
    it is shown: line breaks, escape sequences and marks that reverse the writing become `\\n`,
    `\\x1b`, `\\u202e`.
    """
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def is_control(text: str) -> bool:
    """Whether the text holds a control character, a surrogate or a mark that turns the writing."""
    return any(
        unicodedata.category(one) in ("Cc", "Cs") or unicodedata.bidirectional(one) in _TURNING
        for one in text
    )


_SECRETS = (
    (re.compile(r"(://)[^\s'\"]*@"), r"\1***@"),
    (re.compile(r"(://[^\s'\"/:@\[]+:)(?!\d{1,5}(?![\w-]))[^\s'\"/?#]+"), r"\1***"),
    (
        re.compile(
            r"([?&][^\s'\"=&]*(?:key|token|secret|passw|pwd|auth|sig|cred)[^\s'\"=&]*=)[^\s'\"&]+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
)


def masked(text: str) -> str:
    """`text` with stars for the passwords and keys of addresses: `postgresql://***@host/db`."""
    for pattern, stars in _SECRETS:
        text = pattern.sub(stars, text)
    return text


def printable_lines(text: str) -> str:
    """The same for text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """The hint `did you mean 'x'?` where a known name is similar, else an empty text."""
    text, names = str(name), [str(one) for one in known]
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.66)
    near = near or [one for one in names if text and one.startswith(text)]
    return f"did you mean {near[0]!r}?" if near else ""


def shown(value: object) -> str:
    """A value as an error line shows it."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else f"{value!r:.100}"


def line_of(key: str, lines: Mapping[str, int]) -> int | None:
    """The line of a key, else of the nearest key above it."""
    while key and key not in lines:
        key = key.rpartition("/")[0]
    return lines.get(key)


class InputError(ValueError):
    """Something the user gave cannot be used. The text is the one line that the user sees.

    For example ``space.yaml:4: losses: unknown key 'losses'; did you mean 'loss'? (allowed: loss,
    optimizer, study)``: the place, the offence, the hint, and what is allowed.

    Args:
        offence: What is wrong, with the value that was given: ``lr must be > 0, got -1``.
        allowed: The values to choose from, as names or as a phrase.
        found: The existing names, where the given one does not exist.
        hint: A suggestion, such as that of `did_you_mean`.
        file: The file that holds the offence.
        line: The line in the file.
        key: The key path in the file, the command-line flag or the environment variable.
    """

    def __init__(
        self,
        offence: str,
        *,
        allowed: str | Iterable[object] | None = None,
        found: Iterable[object] | None = None,
        hint: str = "",
        file: str | Path | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        text = f"{offence}; {hint}" if hint else offence
        for label, names in (("allowed", allowed), ("found", found)):
            if names is not None:
                text += f" ({label}: {names if isinstance(names, str) else _listed(names)})"
        self.message, self.file, self.key = " ".join(text.split()), file, key
        where = f"{file}:{line}" if file is not None and line is not None else file
        parts = [str(part) for part in (where, key) if part not in (None, "")]
        super().__init__(printable(masked(": ".join([*parts, self.message]))))

    @classmethod
    def unknown(
        cls,
        what: str,
        name: object,
        known: Iterable[object],
        *,
        file: str | Path | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> InputError:
        """`unknown key 'losses'; did you mean 'loss'? (allowed: loss, optimizer, study)`."""
        known = list(known)
        return InputError(
            f"unknown {what} {name!r}",
            allowed=known,
            hint=did_you_mean(name, known),
            file=file,
            line=line,
            key=key,
        )

    def below(self, key: str) -> InputError:
        """The same error with its key below another, where it has one and names no file."""
        if self.file is not None or not self._is_in_a_file:
            return self
        return InputError(self.message, key=f"{key}/{self.key}")

    def of_file(self, file: str | None, lines: Mapping[str, int]) -> InputError:
        """The same error with the file that holds its key, where it names none itself."""
        if file is None or self.file is not None or not self._is_in_a_file:
            return self
        return InputError(self.message, file=file, line=line_of(str(self.key), lines), key=self.key)

    @property
    def _is_in_a_file(self) -> bool:
        """Whether the key is one of a YAML file: no flag, and no variable of the environment."""
        return self.key is not None and not self.key.startswith(("-", "$"))


def _listed(names: Iterable[object]) -> str:
    shown = [str(name) for name in names]
    more = len(shown) - MOST_NAMES
    if more > 0:
        return f"{', '.join(shown[:MOST_NAMES])} and {more} more"
    return ", ".join(shown) or "none"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: a MemoryError, torch's RuntimeErrors, or the system's ENOMEM."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower() if isinstance(error, RuntimeError) else ""
    return isinstance(error, MemoryError) or any(words in text for words in _MEMORY_WORDS)


def deed(error: BaseException) -> str:
    """What code did that raised `error`: `raised KeyError: 'a'`, or `called sys.exit(0)`."""
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
        error = error.__cause__  # a generator makes the one of the other
    if isinstance(error, SystemExit):
        return f"called sys.exit({'' if error.code is None else repr(error.code)})"
    return f"raised {type(error).__name__}: {error}".removesuffix(": ")


class OutputError(OSError):
    """A file cannot be written where it belongs, because of what is there or on the way there."""
