"""Tabulated learning curves as a problem: a CSV or Parquet file, of this program or any other.

One row is one epoch of one training. Its columns:

    config/PATH    a value of the config, at its path in the search space; empty where not active
    epoch          1, 2, ... without a gap; a training that ends before the longest has failed
    seed           optional: trainings of one config that differ only in it tell the noise
    seconds        optional: of the epoch (default: 60)
    any other      a metric

The search space is a file beside it, `NAME.space.yaml` (`study.space.tree_space`), or the one that
is given. Without one, each config column is a range from its least to its greatest number (in the
logarithm if these are positive and differ by a factor of 100), or a choice if it is text or has at
most 12 values; the one metric that there is, or those that are given, are the objectives.

A point of the space gets the curve of the nearest config of the table: by the sum over its leaves
of the squared distance in their ranges, 1 where an option differs or only one of both is active.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study.core.errors import InputError
from study.search.encoding import Encoder
from study.simulation.problem import Curve, Params, Scale
from study.space.grammar import Choice, Leaf, searched
from study.space.search_space import SearchSpace
from study.space.tree_space import load_any

CONFIG, EPOCH, SEED, SECONDS = "config/", "epoch", "seed", "seconds"
LISTED, LOG_FROM = 12, 100
USUAL_SECONDS = 60.0
SUFFIXES = (".csv", ".parquet")
RECORDED = "recorded"  # the table that ships
RECORDED_FILE = Path(__file__).parent / "recorded.csv"
TRAINED = "150 trained configs of the joint space on the synthetic task; no made-up problem"


class TableProblem:
    """A table of curves over a space. Raises InputError for rows that are no curves of it."""

    def __init__(
        self, name: str, frame: pd.DataFrame, space: SearchSpace, *, file: str | None = None
    ) -> None:
        self.name, self.space = name, space
        self._encoder = Encoder(space)
        objectives = space.settings.objectives
        frame = _with_negated(frame, objectives, file)
        nodes = {node.path: node for node in searched(space.tree)}
        paths = [path for path in nodes if CONFIG + path in frame]
        for column in frame.columns:
            if column.startswith(CONFIG) and column.removeprefix(CONFIG) not in nodes:
                raise InputError.unknown(
                    "leaf", column.removeprefix(CONFIG), nodes, file=file, key=column
                )
        for path in nodes:
            if path not in paths:
                raise InputError(f"missing column {CONFIG + path!r}", file=file)
        keys = [CONFIG + path for path in paths] + [SEED] * (SEED in frame)
        configs: dict[str, tuple[dict[str, Any], list[Curve]]] = {}
        epochs = 0
        for _, rows in frame.groupby(keys, sort=False, dropna=False):
            line = int(rows.index[0]) + 2
            params = {
                path: _value(nodes[path], rows[CONFIG + path].iloc[0], file, line)
                for path in paths
                if not _is_empty(rows[CONFIG + path].iloc[0])
            }
            if space.point(params) is None:
                active = ", ".join(f"{path}: {value}" for path, value in params.items())
                raise InputError(f"the space does not hold {active}", file=file, line=line)
            if list(rows[EPOCH]) != list(range(1, len(rows) + 1)):
                raise InputError(
                    f"epochs must be 1, 2, ... for each config and seed, got {list(rows[EPOCH])}",
                    hint=f"tell trainings of one config apart by a column {SEED!r}",
                    file=file,
                    line=line,
                    key=EPOCH,
                )
            epochs = max(epochs, len(rows))
            metrics = {name: rows[name].to_numpy(float) for name in objectives}
            seconds = rows[SECONDS].to_numpy(float) if SECONDS in rows else None
            curve = Curve(
                metrics, np.full(len(rows), USUAL_SECONDS) if seconds is None else seconds
            )
            configs.setdefault(repr(sorted(params.items())), (params, []))[1].append(curve)
        self.epochs = epochs
        self._curves = [curves for _, curves in configs.values()]
        self._rows = np.array([self._encoder.row(params) for params, _ in configs.values()])
        self._worth = np.array([self._mean(curves) for curves in self._curves])
        if np.isnan(self._worth).all():
            raise InputError("no training has all epochs", file=file)

    def __len__(self) -> int:
        return len(self._curves)

    @property
    def num_curves(self) -> int:
        """Trainings, repeats with other seeds included."""
        return sum(map(len, self._curves))

    def _mean(self, curves: Sequence[Curve]) -> np.ndarray:
        names = self.space.settings.objectives
        ends = [[c.metrics[name][-1] for name in names] for c in curves if len(c) == self.epochs]
        return np.mean(ends, axis=0) if ends else np.full(len(names), np.nan)

    def _nearest(self, params: Params | None) -> int:
        if params is None:  # a baseline that the space does not hold is as the median config
            worth = np.where(np.isnan(self._worth[:, 0]), -np.inf, self._worth[:, 0])
            return int(np.argsort(worth)[len(worth) // 2])
        row = self._encoder.row(params)
        gap = self._rows - row
        gap = np.where(self._encoder.sizes > 0, gap != 0, gap)
        one_is_active = np.isnan(self._rows) != np.isnan(row)
        gap = np.where(np.isnan(self._rows) | np.isnan(row), one_is_active, gap)
        return int(np.argmin((gap**2).sum(axis=1)))

    def curve(self, params: Params | None, seed: int) -> Curve:
        """One of the nearest config's, by the seed."""
        curves = self._curves[self._nearest(params)]
        return curves[seed % len(curves)]

    def truth(self, params: Params | None) -> np.ndarray:
        """The nearest config's mean over its seeds at the last epoch; NaN if all have failed."""
        return np.asarray(self._worth[self._nearest(params)])

    def alike(self) -> TableProblem:
        """Itself: an earlier study has tried other configs of it, by other seeds."""
        return self

    @cached_property
    def scale(self) -> Scale:
        """The median and the best of the table's configs."""
        return Scale(np.nanmedian(self._worth, axis=0), np.nanmax(self._worth, axis=0))


def load_table(
    path: Path, *, space: str | Path | None = None, objectives: Sequence[str] = ()
) -> TableProblem:
    """The problem of a CSV or Parquet file. Raises InputError with file and row."""
    file = str(path)
    frame = _read(path)
    if EPOCH not in frame:
        raise InputError(f"missing column {EPOCH!r}", found=frame.columns, file=file)
    if not any(column.startswith(CONFIG) for column in frame):
        raise InputError(f"no column begins with {CONFIG!r}", found=frame.columns, file=file)
    if frame.empty:
        raise InputError("no rows", file=file)
    frame = frame.sort_values(EPOCH, kind="stable").sort_index(kind="stable")
    if space is None and space_beside(path).is_file():
        space = space_beside(path)
    found = load_any(_derived(frame, objectives, file)) if space is None else load_any(space)
    return TableProblem(path.stem, frame, found, file=file)


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be read: {reason}", file=str(path)) from error


def _derived(frame: pd.DataFrame, objectives: Sequence[str], file: str) -> dict[str, Any]:
    """A search space of the config columns."""
    tree: dict[str, Any] = {}
    for column in frame.columns:
        if not column.startswith(CONFIG):
            continue
        values = frame[column]
        if values.isna().any():
            hint = f"write the search space beside it, as {Path(file).stem}.space.yaml"
            message = "an empty value, so the space has options"
            line = int(values.isna().idxmax()) + 2
            raise InputError(message, hint=hint, file=file, line=line, key=column)
        at = tree
        *above, last = column.removeprefix(CONFIG).split("/")
        for key in above:
            at = at.setdefault(key, {})
        at[last] = _range_of(values)
    metrics = _metrics(frame)
    if not objectives and len(metrics) != 1:
        raise InputError(
            f"{len(metrics)} metrics", found=metrics, hint="name the objectives",
            file=file, key="--objectives",
        )  # fmt: skip
    return {**tree, "study": {"objectives": list(objectives or metrics)}}


def _metrics(frame: pd.DataFrame) -> list[str]:
    known = (EPOCH, SEED, SECONDS)
    return [name for name in frame.columns if not name.startswith(CONFIG) and name not in known]


def _range_of(values: pd.Series) -> dict[str, Any]:
    distinct = sorted(set(values.tolist()), key=str)
    if not pd.api.types.is_numeric_dtype(values) or len(distinct) <= LISTED:
        if pd.api.types.is_numeric_dtype(values):
            distinct.sort()
        return {"choice": distinct}
    low, high = values.min().item(), values.max().item()
    kind = "int" if pd.api.types.is_integer_dtype(values) else "float"
    return {kind: {"low": low, "high": high, "log": bool(low > 0 and high / low >= LOG_FROM)}}


def _with_negated(frame: pd.DataFrame, objectives: Sequence[str], file: str | None) -> pd.DataFrame:
    """With a column for each objective: the negative one of `-loss` is that of `loss`."""
    added = {}
    for name in objectives:
        plain = name.removeprefix("-")
        if plain not in _metrics(frame):
            raise InputError.unknown("objective", plain, _metrics(frame), file=file)
        column = frame[name] if name in frame else -frame[plain]
        if not pd.api.types.is_numeric_dtype(column):
            raise InputError("an objective must be numbers", file=file, key=plain)
        added[name] = column
    return frame.assign(**added)


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _value(node: Leaf | Choice, cell: Any, file: str | None, line: int) -> Any:
    """The cell as a value of the leaf or an option of the choice."""
    cell = cell.item() if isinstance(cell, np.generic) else cell
    options = getattr(node.distribution, "choices", None)
    try:
        if options is not None:
            return next(one for one in options if one == cell or str(one) == str(cell))
        assert isinstance(node, Leaf)
        return int(cell) if isinstance(node.low, int) else float(cell)
    except (ValueError, StopIteration):
        raise InputError(
            f"no value of this leaf: {cell!r}", file=file, line=line, key=CONFIG + node.path
        ) from None


def space_beside(path: Path) -> Path:
    """Where the search space of a table is."""
    return path.with_suffix(".space.yaml")
