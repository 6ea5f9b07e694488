"""A small terminal that wraps its rows anew when it is resized, as those of today do."""

from __future__ import annotations

import io
import re

_PIECE = re.compile(r"\x1b\[\??([0-9;]*)([A-Za-z])|\r\n|.", re.DOTALL)


class Terminal(io.StringIO):
    """What is written to it becomes rows; it knows line ends, cursor up and erase in line."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self._rows: list[tuple[str, bool]] = [("", False)]  # whether it goes on in the next
        self._row = self._column = 0

    def isatty(self) -> bool:
        return True

    @property
    def rows(self) -> list[str]:
        """Those that are not empty."""
        return [text.rstrip() for text, _ in self._rows if text.strip()]

    def write(self, text: str) -> int:
        for piece in _PIECE.finditer(text):
            if piece[2] == "A":
                self._row = max(0, self._row - int(piece[1] or 1))
            elif piece[2] == "K":
                self._rows[self._row] = ("", False)
            elif piece[0] in ("\n", "\r\n"):
                self._next_row()
            elif piece[0] == "\r":
                self._column = 0
            elif not piece[2]:
                self._put(piece[0])
        return len(text)

    def _next_row(self) -> None:
        self._row, self._column = self._row + 1, 0
        if self._row == len(self._rows):
            self._rows.append(("", False))

    def _put(self, letter: str) -> None:
        if self._column == self.width:
            self._rows[self._row] = (self._rows[self._row][0], True)
            self._next_row()
        text, goes_on = self._rows[self._row]
        column = self._column
        text = text.ljust(column)[:column] + letter + text[column + 1 :]
        self._rows[self._row] = (text, goes_on)
        self._column += 1

    def resize(self, width: int) -> None:
        """Wrap all rows anew; the cursor stays at its letter."""
        lines, at = [""], (0, 0)
        for index, (text, goes_on) in enumerate(self._rows):
            if index == self._row:
                at = len(lines) - 1, len(lines[-1]) + self._column
            lines[-1] += text
            if not goes_on:
                lines.append("")
        rows: list[tuple[str, bool]] = []
        for index, line in enumerate(lines[:-1]):
            starts = range(0, max(1, len(line)), width)
            if index == at[0]:
                place = min(at[1] // width, len(starts) - 1)
                self._row, self._column = len(rows) + place, at[1] - place * width
            rows += [(line[start : start + width], start != starts[-1]) for start in starts]
        self.width, self._rows = width, rows
