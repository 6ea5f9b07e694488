"""What a study of thousands of trials holds thousands of, in little memory."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

_layouts: dict[tuple[str, ...], dict[str, int]] = {}


class MetricRow(Mapping[str, float]):
    """A mapping from text to float, not to be changed. All of the same keys share them: 8 bytes a
    value, where a dict takes 60 and more."""

    __slots__ = ("_layout", "_values")

    def __init__(self, values: Mapping[str, float]) -> None:
        keys = tuple(values)
        if keys not in _layouts:
            _layouts[keys] = {sys.intern(key): offset for offset, key in enumerate(keys)}
        self._layout = _layouts[keys]
        self._values = array("d", list(values.values()))  # of a list: without room to grow

    def __getitem__(self, key: str) -> float:
        return self._values[self._layout[key]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout)

    def __len__(self) -> int:
        return len(self._layout)

    def __contains__(self, key: object) -> bool:
        return key in self._layout

    def __repr__(self) -> str:
        return repr(dict(self))


class ConfigInterner:
    """Shares mappings: one that is written like the last at its offset is that one."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, dict[str, Any]]] = {}

    def shared(self, tree: dict[str, Any], path: str) -> dict[str, Any]:
        """An equal tree, not to be changed, that shares its parts with the last tree of this path.
        1 and 1.0 are not equal here."""
        text = repr(tree)
        if path in self._last and self._last[path][0] == text:
            return self._last[path][1]
        kept = {sys.intern(key): self._part(item, f"{path}/{key}") for key, item in tree.items()}
        self._last[path] = text, kept
        return kept

    def _part(self, value: Any, path: str) -> Any:
        if type(value) is dict:
            return self.shared(value, path)
        return sys.intern(value) if type(value) is str else value
