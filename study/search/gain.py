"""What a search could still find: the expected gain of going on.

Gaussian processes as that of the search (`model`) are fitted to the trials' objectives at the end
of their schedules, each with another kernel of the model's grid; each counts by how likely it makes
the trials. With f a joint draw over the points that the search would look at and the trials, and T
the trials that the confirmation would take, those of which the process expects most,

    gain = E[ max over points and trials of f - max over T of f ].

So the answer is compared to the best that there may be, and not to the next trial: it is the
simple regret, which Makarova et al. 2022 ("Automatic Termination for Hyperparameter Optimization")
bound from above, in expectation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from study.search.encoding import Encoder
from study.search.history import History
from study.search.model import (
    Apart,
    even_sample,
    likelihoods,
    linear_algebra,
    nearby_points,
)
from study.space.settings import FEWEST_TO_STOP

KERNELS, DRAWS = 12, 20  # kernels that are drawn, and draws of f with each
BEST = 8  # trials whose neighbours are looked at
LIKELY = 0.95
STREAM = 3  # apart from the draws of proposals
JITTER = 1e-6  # on the diagonal of a covariance that is drawn from


@dataclass(frozen=True)
class Gain:
    """In the objective's own unit: the mean, and what it does not exceed with the chance LIKELY."""

    expected: float
    likely: float


def expected_gains(history: History, *, epochs: int, top: int, salt: tuple[int, ...]) -> list[Gain]:
    """The gain of going on by each objective; none while there are too few trials that did not
    fail, or an objective that is the same for all of them.

    Args:
        history: the trials so far.
        epochs: of the whole schedule.
        top: how many trials the confirmation takes.
        salt: whole numbers that decide the draws.
    """
    rows, ends = history.ends(epochs, FEWEST_TO_STOP)
    if not len(rows) or not np.ptp(ends, axis=0).all():
        return []
    rng = np.random.default_rng((*salt, STREAM))
    with linear_algebra().limit(limits=1):
        return [expected_gain(rows, of_one, history.encoder, rng, top=top) for of_one in ends.T]


def expected_gain(
    rows: np.ndarray, ends: np.ndarray, encoder: Encoder, rng: np.random.Generator, *, top: int
) -> Gain:
    """The gain of going on after at least two trials, whose ends are not all the same.

    Args:
        rows: of the trials, (trials, columns).
        ends: their values at the end of the schedule, (trials,).
        encoder: of the rows.
        rng: of the draws.
        top: how many trials the confirmation takes.
    """
    spread = float(ends.std())
    scores = (ends - ends.mean()) / spread
    some = even_sample(rows, scores)
    grid = likelihoods(rows[some], scores[some], encoder)
    best = max(likelihood for likelihood, _ in grid)
    chances = np.exp(np.array([likelihood - best for likelihood, _ in grid]))
    counts = rng.multinomial(KERNELS, chances / chances.sum())
    good = rows[np.argsort(-scores, kind="stable")[:BEST]]
    points = np.concatenate([rows, nearby_points(encoder, good, rng)])
    apart = Apart.of(points, points, encoder.sizes)
    gains = []
    for (_, kernel), count in zip(grid, counts, strict=True):
        if not count:
            continue
        among = kernel(apart)
        towards = among[:, : len(rows)]
        factor = cho_factor(among[: len(rows), : len(rows)] + kernel.noise * np.eye(len(rows)))
        solved = cho_solve(factor, scores)
        signal = float(scores @ solved) / len(rows)
        mean = towards @ solved
        left = among - towards @ cho_solve(factor, towards.T) + JITTER * np.eye(len(points))
        normal = rng.normal(size=(len(points), count * DRAWS))
        drawn = mean[:, None] + np.sqrt(signal) * np.linalg.cholesky(left) @ normal
        taken = np.argsort(-mean[: len(rows)], kind="stable")[:top]
        gains.append(drawn.max(axis=0) - drawn[taken].max(axis=0))
    found = spread * np.concatenate(gains)
    return Gain(float(found.mean()), float(np.quantile(found, LIKELY)))
