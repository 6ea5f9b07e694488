"""Compact and shared mappings: metrics and configs of thousands of trials in little memory."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

_layouts: dict[tuple[str, ...], dict[str, int]] = {}


class MetricRow(Mapping[str, float]):
    """An immutable mapping from text to float.

    All rows with the same keys share them, so a value takes 8 bytes; in a dict it takes 60 or more.
    """

    __slots__ = ("_layout", "_values")

    def __init__(self, values: Mapping[str, float]) -> None:
        keys = tuple(values)
        if keys not in _layouts:
            _layouts[keys] = {sys.intern(key): offset for offset, key in enumerate(keys)}
        self._layout = _layouts[keys]
        self._values = array("d", list(values.values()))  # from a list: no spare capacity

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
    """Shares equal configs: consecutive trials differ in few parts of their trees."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, dict[str, Any]]] = {}

    def shared(self, tree: dict[str, Any], path: str) -> dict[str, Any]:
        """An equal tree that shares its parts with the last tree of this path; do not change it.

        Trees are compared by their `repr`, so 1 and 1.0 differ.
        """
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
