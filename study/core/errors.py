"""The one exception for bad input, and the one for output that has no place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def printable(text: str) -> str:
    """`text` on one line that any terminal takes: what cannot be printed is written out."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


class InputError(ValueError):
    """Something the user gave cannot be used.

    The text is the one line that is shown: where, the key, what must hold, what came.
    For example ``search_spaces/recall.yaml:14: loss/recall/ema_momentum: `ema_momentum < 1`
    must hold, but got 1.0``.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        self.message, self.file, self.key = message, file, key
        where = f"{file}:{line}" if file is not None and line is not None else file
        parts = [str(part) for part in (where, key) if part not in (None, "")]
        super().__init__(printable(": ".join([*parts, " ".join(message.split())])))

    def below(self, key: str) -> InputError:
        """The same error with its key below another, where it has one and names no file."""
        if self.file is not None or not self._is_in_a_file:
            return self
        return InputError(self.message, key=f"{key}/{self.key}")

    def of_file(self, file: str | None, lines: Mapping[str, int]) -> InputError:
        """The same error with the file that its key stands in, where it names none itself."""
        if file is None or self.file is not None or not self._is_in_a_file:
            return self
        return InputError(self.message, file=file, line=lines.get(str(self.key)), key=self.key)

    @property
    def _is_in_a_file(self) -> bool:
        """Whether the key is one of a YAML file: no flag, and no variable of the environment."""
        return self.key is not None and not self.key.startswith(("-", "$"))


class OutputError(OSError):
    """A file cannot be placed where it belongs, for what is there or on the way there."""
