"""The model of the search: a tree of Parzen estimators (Bergstra et al., NeurIPS 2011) over a tree.

The good trials are the best part of the judged ones by their standing, the bad ones are all others.
A density of each is a mixture of one kernel for each of its trials, and of the prior:

    density(x) = (prior(x) + sum_i w_i prod_j kernel_j(x_j | x_ij)) / (1 + sum_i w_i)

over the leaves and choices j that are active in x; a trial in which one of them is not active says
nothing about it, which is a factor of 1. So a leaf of an option is modelled together with all that
every trial has, such as the learning rate. A kernel is a normal distribution along a range, cut off
at its ends, or the trial's own option. Candidates are drawn from the good density, and the one with
the highest good(x) / bad(x) is proposed. Trials that run and are not judged yet count as bad: they
keep others away.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri

from study.search.encoding import Encoder

GOOD = 0.25  # the part of the judged trials that are good
CANDIDATES = 32
WIDTH = 0.2  # of a kernel along a range, for one trial
NARROWEST = 0.03
OTHER = 0.3  # the chance of a draw from another option than the kernel's, for one trial


class Parzen:
    """A density over a space from rows of trials.

    Args:
        rows: (trials, columns) of an encoder.
        weights: of the trials; the prior has the weight 1.
    """

    def __init__(self, encoder: Encoder, rows: np.ndarray, weights: np.ndarray) -> None:
        self._encoder = encoder
        self._rows = rows
        self._weights = weights
        count = max(1.0, float(weights.sum()))
        num = len(encoder.columns)
        self._width = max(NARROWEST, WIDTH * count ** (-1 / (4 + num / 2)))
        self._other = OTHER * count**-0.5

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Rows of points that are drawn from the density."""
        sizes = self._encoder.sizes
        prior = self._encoder.uniform(count, rng)
        chances = np.append(self._weights, 1.0)
        kernels = rng.choice(len(chances), size=count, p=chances / chances.sum())
        everywhere = rng.random((count, len(sizes)))
        everywhere = np.where(sizes > 0, np.floor(everywhere * sizes), everywhere)
        centers = np.concatenate([self._rows, np.full((1, len(sizes)), np.nan)])[kernels]
        low, high = ndtr(-centers / self._width), ndtr((1 - centers) / self._width)
        chance = low + rng.random(centers.shape) * (high - low)
        near = np.clip(centers + self._width * ndtri(chance), 0.0, 1.0)
        stays = (sizes == 0) | (rng.random(centers.shape) >= self._other)
        drawn = np.where(sizes > 0, centers, near)
        drawn = np.where(np.isnan(centers) | ~stays, everywhere, drawn)
        return np.where((kernels == len(self._rows))[:, None], prior, self._encoder.active(drawn))

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Of points, (points, columns), up to the prior's own density, which is taken as 1."""
        if not len(self._rows):
            return np.zeros(len(points))
        x, mine = points[:, None, :], self._rows[None, :, :]
        sizes = self._encoder.sizes
        with np.errstate(invalid="ignore"):
            inner = _normal(x, mine, self._width)
            same = np.where(x == mine, 1 - self._other, 0.0) * sizes + self._other
        factors = np.where(sizes > 0, same, inner)
        factors = np.where(np.isnan(x) | np.isnan(mine), 1.0, factors)
        logs = np.log(np.maximum(factors, 1e-12)).sum(axis=2)
        logs = np.concatenate([logs + np.log(self._weights), np.zeros((len(points), 1))], axis=1)
        return np.asarray(logsumexp(logs, axis=1) - np.log(1 + self._weights.sum()))


def _normal(x: np.ndarray, mean: np.ndarray, width: float) -> np.ndarray:
    """The density of a normal distribution that is cut off at 0 and 1."""
    inside = ndtr((1 - mean) / width) - ndtr(-mean / width)
    height = np.exp(-(((x - mean) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
    return np.asarray(height / inside)


def candidates(
    encoder: Encoder,
    rows: np.ndarray,
    standings: np.ndarray,
    pending: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Rows of points to try, the most promising first.

    Args:
        rows: of the judged trials, (trials, columns).
        standings: of them, (trials,).
        pending: of those that run, (trials, columns).
    """
    order = np.argsort(-standings, kind="stable")
    num_good = max(2, round(GOOD * len(order)))
    good = Parzen(encoder, rows[order[:num_good]], np.ones(num_good))
    others = np.concatenate([rows[order[num_good:]], pending])
    bad = Parzen(encoder, others, np.ones(len(others)))
    drawn = good.draw(CANDIDATES, rng)
    worth = good.log_density(drawn) - bad.log_density(drawn)
    return drawn[np.argsort(-worth, kind="stable")]
