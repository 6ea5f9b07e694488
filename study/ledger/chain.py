"""The checksums that chain the lines of a ledger.

The check of a line is the SHA-256 of the check before it and of the line's own bytes, as 16
hexadecimal digits. It stands last in the line: ``{"kind": "finish", "time": 0.0, "check": "..."}``.
A changed, removed, inserted or moved line therefore breaks the chain. Only removed last lines are
not noticed: what is left is the ledger of an earlier moment.

Lines of formats 2 and 3 have no checks. If such a study is resumed, the first check covers all the
lines before it.
"""

from __future__ import annotations

import hashlib
import json
import re

KEY = "check"
_SEAL = re.compile(rf', "{KEY}": "([0-9a-f]{{16}})"\}}\Z')


def parts(line: str) -> tuple[str, str | None]:
    """Split a line into the JSON of its record, and its check or None."""
    line = line.rstrip("\r\n")
    found = _SEAL.search(line)
    return (line, None) if found is None else (f"{line[: found.start()]}}}", found[1])


def is_torn(line: bytes) -> bool:
    """Whether a last line without its newline is only the beginning of a line.

    A machine that loses its power may leave zeros in place of what was being written.
    """
    text = line.rstrip(b"\0").decode(errors="replace")
    if not text.startswith("{"):
        return not text
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return True
    return False


class Chain:
    """The chain of one ledger, line after line from the first."""

    def __init__(self) -> None:
        self._check = ""
        self._is_sealed = False

    def sealed(self, text: str) -> str:
        """The next line, without its newline, given the JSON of its record."""
        self._advance(text)
        self._is_sealed = True
        return f'{text[:-1]}, "{KEY}": "{self._check}"}}'

    def verified(self, line: bytes) -> str:
        """The JSON of the next line's record.

        Raises:
            ValueError: the line does not continue the chain.
        """
        text, check = parts(line.decode())
        if check is None and self._is_sealed:
            raise ValueError("it has no checksum, unlike the lines before it")
        self._advance(text)
        if check is not None and check != self._check:
            raise ValueError(
                "its checksum does not match: this line was changed, or lines before it were "
                "removed, added or moved"
            )
        self._is_sealed = check is not None
        return text

    def _advance(self, text: str) -> None:
        self._check = hashlib.sha256((self._check + text).encode()).hexdigest()[:16]
