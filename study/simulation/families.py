"""Made-up problems in families, each instance of which differs: what is hard about a search.

The worth of a config is a sum over its leaves of a peak at a place that the instance draws, plus
an offset of each option; options move the peak of the learning rate. It is scaled so that the
median random config is worth 0.45 and the best of 2,048 random ones 0.70. A curve saturates:

    value(t) = worth * (1 - exp(-t / pace)) + noise(seed, t) + noise(seed)
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from study.search.encoding import Encoder
from study.simulation.problem import Curve, Params, Scale
from study.space.tree_space import load_any

MEDIAN, BEST, LEAST = 0.45, 0.70, 0.02
NUM_RANDOM = 2048
MOVED, OTHER_INSTANCE = 0.2, 10_000  # of a problem that is alike

NETWORK: Mapping[str, Any] = {
    "learning_rate": {"float": {"low": 1e-4, "high": 1.0, "log": True}},
    "schedule": {"choice": ["cosine", "linear", "constant"]},
    "momentum": {"float": {"low": 0.5, "high": 0.99, "log": "to_one"}},
    "width": {"int": {"low": 16, "high": 512, "log": True}},
    "regulariser": {
        "choice": {
            "none": {},
            "decay": {"decay": {"float": {"low": 1e-6, "high": 1e-2, "log": True}}},
            "dropout": {
                "rate": {"float": {"low": 0.0, "high": 0.7}},
                "layers": {"int": {"low": 1, "high": 4}},
            },
        }
    },
    "study": {"objectives": ["objective"]},
}
WIDE: Mapping[str, Any] = {
    **{f"x{i}": {"float": {"low": 0.0, "high": 1.0}} for i in range(12)},
    "study": {"objectives": ["objective"]},
}
OPTIONS: Mapping[str, Any] = {
    **{f"choice{i}": {"choice": [f"option{k}" for k in range(2 + i % 3)]} for i in range(6)},
    "learning_rate": {"float": {"low": 1e-4, "high": 1.0, "log": True}},
    "study": {"objectives": ["objective"]},
}


@dataclass(frozen=True)
class Family:
    """A kind of problem.

    pace: of a curve, as a part of its schedule. crossing: how much slower good configs are, in
    parts of the pace. late: the part of the schedule before which some configs learn nothing.
    noise: sd of one evaluation. seed_noise: sd between seeds. easy: what one option gains. failing:
    about how many configs diverge. interaction: how far options move the best learning rate, and
    leaves each other, in parts of a range. sparse: the part of the leaves that matters.
    tradeoff: how unlike the objectives are, from 0 to 1.
    """

    about: str
    space: str | Mapping[str, Any] = field(default_factory=lambda: NETWORK)
    epochs: int = 24
    pace: float = 0.2
    crossing: float = 0.0
    late: float = 0.0
    noise: float = 0.006
    seed_noise: float = 0.006
    easy: float = 0.0
    failing: float = 0.0
    interaction: float = 0.12
    sparse: float = 1.0
    tradeoff: float = 0.5


FAMILIES: Mapping[str, Family] = {
    "smooth": Family("well-behaved curves that hardly cross"),
    "crossing": Family("good configs learn slowly and overtake late", pace=0.15, crossing=4.0),
    "easy": Family("one option is better than everything else", easy=1.5),
    "joint": Family("the losses of joint.yaml, two objectives", space="joint", epochs=8, pace=0.3),
    "noisy": Family("evaluations and seeds differ as much as good configs", noise=0.03,
                    seed_noise=0.03),
    "failing": Family("a third of the configs diverges", failing=0.33),
    "valley": Family("leaves depend on each other", interaction=0.35),
    "late": Family("some configs learn nothing for a third of the schedule", late=0.35),
    "wide": Family("twelve leaves, of which a quarter matters", space=WIDE, sparse=0.25),
    "options": Family("choices, hardly any ranges", space=OPTIONS),
    "joint_crossing": Family("as joint, with curves that cross", space="joint", epochs=8, pace=0.3,
                             crossing=2.0, noise=0.01),
}  # fmt: skip


class FamilyProblem:
    """An instance of a family: the same for the same number.

    moved: how far all that the instance draws for its configs' worth is moved towards what another
    one has drawn, from 0 to 1.
    """

    def __init__(self, name: str, instance: int, *, moved: float = 0.0) -> None:
        self.name = name
        self._instance = instance
        self.family = family = FAMILIES[name]
        self.epochs = family.epochs
        self.space = load_any(family.space)
        self._encoder = encoder = Encoder(self.space)
        rng = np.random.default_rng([zlib.crc32(name.encode()), instance])
        num, sizes = len(self.space.settings.objectives), encoder.sizes
        count, most = len(sizes), max(1, int(sizes.max()))
        ranges = [path for path, column in encoder.columns.items() if not sizes[column]]
        rate = next((path for path in ranges if path.endswith(("rate", "scale"))), ranges[0])
        self._rate = encoder.columns[rate]  # what options move
        self._peaks = 0.1 + 0.8 * _alike(rng.random((1 + num, count)), family.tradeoff)
        matters = rng.random(count) < family.sparse
        matters[self._rate] = True
        self._weights = matters * rng.gamma(2.0, 1.0, (num, count))
        self._offsets = 0.4 * _alike(rng.normal(size=(1 + num, count, most)), family.tradeoff)
        self._shifts = family.interaction * rng.normal(size=(count, most))
        self._paces = rng.normal(size=(count, most))
        self._turns = family.interaction * rng.normal(size=count)
        choices = np.flatnonzero(sizes)
        if family.easy and len(choices):
            column = rng.choice(choices)
            self._offsets[:, column, rng.integers(sizes[column])] += family.easy
        if moved:
            other = FamilyProblem(name, instance + OTHER_INSTANCE)
            for drawn in ("_peaks", "_weights", "_offsets", "_shifts", "_paces", "_turns"):
                mixed = (1 - moved) * getattr(self, drawn) + moved * getattr(other, drawn)
                setattr(self, drawn, mixed)
        raw = self._raw(encoder.uniform(NUM_RANDOM, rng))
        self._middle, self._span = np.median(raw, 0), raw.max(0) - np.median(raw, 0)
        heat = self._heat(encoder.uniform(NUM_RANDOM, rng))
        self._limit = float(np.quantile(heat, 1 - family.failing)) if family.failing else math.inf
        worth = self._worths(encoder.uniform(NUM_RANDOM, rng))
        self.scale = Scale(np.nanmedian(worth, 0), np.nanmax(worth, 0))

    def alike(self) -> FamilyProblem:
        """This instance, moved a little towards another one."""
        return FamilyProblem(self.name, self._instance, moved=MOVED)

    def _chosen(self, table: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The sum over the choices of what a table (..., columns, options) has of each."""
        total = np.zeros((*table.shape[:-2], len(rows)))
        for column in np.flatnonzero(self._encoder.sizes):
            on = ~np.isnan(rows[:, column])
            total[..., on] += table[..., column, rows[on, column].astype(int)]
        return total

    def _raw(self, rows: np.ndarray) -> np.ndarray:
        """(rows, objectives), before it is scaled."""
        total = self._chosen(self._offsets, rows)
        moved = self._chosen(self._shifts, rows)
        before = np.zeros(len(rows))
        for column in np.flatnonzero(self._encoder.sizes == 0):
            place = rows[:, column]
            off = 2 * self._turns[column] * before + moved * (column == self._rate)
            peak = np.clip(self._peaks[:, column, None] + off, 0.03, 0.97)
            loss = self._weights[:, column, None] * (place - peak) ** 2
            total -= np.where(np.isnan(place), 0.0, loss)
            before = np.where(np.isnan(place), before, place - 0.5)
        return total.T

    def _heat(self, rows: np.ndarray) -> np.ndarray:
        """How near to divergence: a high learning rate, and options that bear less of it."""
        rate = rows[:, self._rate]
        return np.where(np.isnan(rate), 0.0, rate) + self._chosen(self._shifts, rows)

    def _worths(self, rows: np.ndarray) -> np.ndarray:
        scaled = (self._raw(rows) - self._middle) / self._span
        worth = np.maximum(MEDIAN + (BEST - MEDIAN) * scaled, LEAST)
        return np.where((self._heat(rows) > self._limit)[:, None], np.nan, worth)

    def truth(self, params: Params | None) -> np.ndarray:
        """The worth by objective; NaN where the training diverges."""
        if params is None:
            return np.full(len(self.space.settings.objectives), MEDIAN)
        return np.asarray(self._worths(self._encoder.row(params)[None])[0])

    def curve(self, params: Params | None, seed: int) -> Curve:
        """A saturating curve with the noise of its seed."""
        family, objectives = self.family, self.space.settings.objectives
        text = repr(sorted((params or {}).items()))
        rng = np.random.default_rng([zlib.crc32(text.encode()), seed])
        worth, pace, late = self.truth(params), family.pace, 0.0
        diverges = bool(np.isnan(worth).any())
        worth = np.where(np.isnan(worth), MEDIAN, worth)
        worth = worth + family.seed_noise * rng.normal(size=len(worth))
        if params is not None:
            mood = float(self._chosen(self._paces, self._encoder.row(params)[None])[0])
            good = float(np.clip((worth.mean() - MEDIAN) / (BEST - MEDIAN), -1.0, 1.0))
            pace *= math.exp(0.2 * mood) * max(1 + family.crossing * good, 0.3)
            late = family.late * (mood > 0)
        at = np.arange(1, self.epochs + 1) / self.epochs
        grown = 1 - np.exp(-np.maximum(at - late, 0.0) / pace)
        grown /= grown[-1]  # all come to their worth at the end
        values = worth * grown[:, None] + family.noise * rng.normal(size=(self.epochs, len(worth)))
        length = int(rng.integers(1, self.epochs)) if diverges else self.epochs
        seconds = np.full(length, 60 * math.exp(0.2 * rng.normal()))
        metrics = {name: values[:length, index] for index, name in enumerate(objectives)}
        return Curve(metrics, seconds)


def _alike(draws: np.ndarray, unlike: float) -> np.ndarray:
    """For each objective its own draw, mixed with the first one, which all share."""
    return np.asarray((1 - unlike) * draws[:1] + unlike * draws[1:])
