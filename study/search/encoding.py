"""Points of a search space as rows of numbers, for a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from study.space.axis import axis_of
from study.space.grammar import Branch, Choice, Leaf, Node, searched
from study.space.search_space import SearchSpace

Conditions = tuple[tuple[int, int], ...]  # (column, number of the option), all of which must hold


class Encoder:
    """Params as rows of numbers, a column for each path: the position in a range, or the number of
    an option; NaN where the leaf or choice is not active.

    `sizes`: the number of options of each column; 0 for a range. `is_conditional`: only some trials
    have it.
    """

    def __init__(self, space: SearchSpace) -> None:
        nodes = {node.path: node for node in searched(space.tree)}
        self.columns = {path: column for column, path in enumerate(nodes)}
        self._axes = [axis_of(node) if isinstance(node, Leaf) else None for node in nodes.values()]
        self.options: list[tuple[Any, ...]] = [
            () if axis is not None else tuple(getattr(node.distribution, "choices", ()))
            for node, axis in zip(nodes.values(), self._axes, strict=True)
        ]
        self.sizes = np.array([len(options) for options in self.options])
        self._conditions: list[list[Conditions]] = [[] for _ in nodes]
        for column, conditions in self._conditional(space.tree, ()):
            self._conditions[column].append(conditions)
        self.is_conditional = np.array([() not in over for over in self._conditions])

    def _conditional(self, node: Node, over: Conditions) -> Iterator[tuple[int, Conditions]]:
        match node:
            case Leaf(path=path):
                yield self.columns[path], over
            case Choice(path=path, options=options):
                column = self.columns[path]
                yield column, over
                for number, option in enumerate(options.values()):
                    yield from self._conditional(option, (*over, (column, number)))
            case Branch(children=children):
                for child in children.values():
                    yield from self._conditional(child, over)

    def row(self, params: Mapping[str, Any]) -> np.ndarray:
        """The numbers of a point."""
        row = np.full(len(self.columns), np.nan)
        for path, value in params.items():
            column = self.columns[path]
            axis = self._axes[column]
            row[column] = (
                self.options[column].index(value) if axis is None else axis.position(value)
            )
        return row

    def params(self, row: np.ndarray) -> dict[str, Any]:
        """The point of a row; of a range with steps, the nearest value."""
        found = {}
        for path, column in self.columns.items():
            if not np.isnan(row[column]):
                axis, number = self._axes[column], float(row[column])
                options = self.options[column]
                found[path] = options[int(number)] if axis is None else axis.value(number)
        return found

    def active(self, rows: np.ndarray) -> np.ndarray:
        """The rows with NaN where their own options leave a column out."""
        found = np.full(rows.shape, np.nan)
        for column, alternatives in enumerate(self._conditions):  # a choice before what is below it
            on = np.zeros(len(rows), bool)
            for conditions in alternatives:
                on |= np.all([found[:, at] == number for at, number in conditions] or [[True]], 0)
            found[on, column] = rows[on, column]
        return found

    def everywhere(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Rows of random numbers for all columns, even along each range and over each choice."""
        rows = rng.random((count, len(self.columns)))
        return np.where(self.sizes > 0, np.floor(rows * self.sizes), rows)

    def uniform(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Rows of random points of the space."""
        return self.active(self.everywhere(count, rng))
