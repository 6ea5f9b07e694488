"""The model of the search: a Gaussian process over the space (Rasmussen & Williams, 2006).

It is fitted to the standings of the judged trials (`history`). The kernel is a product over the
leaves and choices j of

    k_j = exp(-r_j (x_j - y_j)^2)   along a range, with positions in [0, 1]
    k_j = exp(-r_j) or 1            where the options of a choice differ or not

and, for a leaf that only some trials have, of c^2 + (1 - c^2) k_j where both points have it, c
where one has it, and 1 where none has. So a leaf of an option is modelled together with all that
every trial has, such as the learning rate. The relevances r_j and the noise are the most likely
ones of a grid. Trainings of one config with several seeds tell the noise.

Of random points and of neighbours of the best trials, each gets a draw from what the model expects
of it, a normal distribution, and the highest is proposed (Thompson sampling; here the draws of
points are independent). Trials that run and are not judged yet are taken to come to what the model
expects of them, so the model is surer there and others keep away (Ginsbourger et al., 2010).

With a warm start (`warm_start`), the process models what is left after what earlier studies expect,
each times a weight that is learnt.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import nnls
from threadpoolctl import ThreadpoolController

from study.search.encoding import Encoder

Mean = Callable[[np.ndarray], np.ndarray]
"""What is expected of rows: (points, columns) -> (points,)."""

RELEVANCES = (0.3, 1.0, 3.0, 8.0)  # of a range; of a choice a part of it
OF_CHOICE = (0.1, 0.4)
NOISES = (0.03, 0.15, 0.5)  # variances, as parts of the signal's
SHARED = 0.6  # c: the correlation of an option's trials with those that lack its leaf
MOST_FITTED = 64  # trials to which relevances are fitted
RANDOM_POINTS, NEIGHBOURS = 1024, 128
BEST = 8  # trials whose neighbours are looked at, at most
WEIGHT, DOUBT = 0.7, 0.5  # of an earlier study: what is expected before any evidence, and its sd
MOST_WEIGHT = 1.5
STEP, SWITCH = 0.1, 0.15  # along a range; the chance of another option


@dataclass(frozen=True)
class Apart:
    """How far points are apart, for each column as (first, second) arrays: a squared distance
    before relevances or, of a choice, whether the options differ; and where one point, or none, has
    the column, None where all have it."""

    gaps: tuple[np.ndarray, ...]
    one: tuple[np.ndarray | None, ...]
    none: tuple[np.ndarray | None, ...]

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray, sizes: np.ndarray) -> Apart:
        """Of rows of an encoder with these sizes."""
        gaps, one, none = [], [], []
        for column, size in enumerate(sizes):
            a, b = first[:, None, column], second[None, :, column]
            lacks_a, lacks_b = np.isnan(a), np.isnan(b)
            gaps.append(a != b if size > 0 else np.nan_to_num(a - b) ** 2)
            some = bool(lacks_a.any() or lacks_b.any())
            one.append(lacks_a != lacks_b if some else None)
            none.append(lacks_a & lacks_b if some else None)
        return cls(tuple(gaps), tuple(one), tuple(none))


@dataclass(frozen=True)
class Kernel:
    """The relevance of each column, whether only some trials have it, and the variance of the
    noise as a part of the signal's."""

    relevance: np.ndarray
    shared: np.ndarray
    noise: float

    def __call__(self, apart: Apart) -> np.ndarray:
        """The correlation of points that are so far apart."""
        product = np.ones(apart.gaps[0].shape) if apart.gaps else np.ones((0, 0))
        columns = zip(self.relevance, self.shared, apart.gaps, apart.one, apart.none, strict=True)
        for relevance, shared, gap, one, none in columns:
            if gap.dtype == bool:
                factor = np.where(gap, *_factor(relevance, shared, np.array([1.0, 0.0])))
            else:
                factor = _factor(relevance, shared, gap)
            if one is not None and none is not None:
                factor[one] = shared
                factor[none] = 1.0
            product *= factor
        return product


def _factor(relevance: float, shared: float, gap: np.ndarray) -> np.ndarray:
    """The correlation along one column that both points have."""
    common = shared**2
    return np.asarray(common + (1 - common) * np.exp(-relevance * gap))


def _likelihood(matrix: np.ndarray, scores: np.ndarray) -> float:
    """The marginal log-likelihood at the best signal variance, without constants."""
    count = len(scores)
    lower = np.linalg.cholesky(matrix)
    half = np.linalg.solve(lower, scores)
    return float(
        -count / 2 * math.log(max(float(half @ half), 1e-12) / count) - np.log(np.diag(lower)).sum()
    )


def likelihoods(
    rows: np.ndarray, scores: np.ndarray, encoder: Encoder
) -> list[tuple[float, Kernel]]:
    """The kernels of a grid, each after the log-likelihood of the scores under it."""
    shared = np.where(encoder.is_conditional, SHARED, 0.0)
    apart = Apart.of(rows, rows, encoder.sizes)
    found = []
    for along, between in itertools.product(RELEVANCES, OF_CHOICE):
        relevance = np.where(encoder.sizes > 0, between * along, along)
        clean = Kernel(relevance, shared, 0.0)
        matrix = clean(apart)
        for noise in NOISES:
            likelihood = _likelihood(matrix + noise * np.eye(len(rows)), scores)
            found.append((likelihood, replace(clean, noise=noise)))
    return found


def fitted(rows: np.ndarray, scores: np.ndarray, encoder: Encoder) -> Kernel:
    """The kernel under which the scores are most likely, of a grid; of equal ones the last."""
    found = dict(likelihoods(rows, scores, encoder))
    return found[max(found)]


@cache
def linear_algebra() -> ThreadpoolController:
    """The libraries of linear algebra. With one thread each they sum alike on every machine, and
    leave the cores to trials."""
    return ThreadpoolController().select(user_api="blas")


def _scaled(standings: np.ndarray) -> np.ndarray:
    return np.asarray((standings - standings.mean()) / (standings.std() or 1.0))


def even_sample(rows: np.ndarray, standings: np.ndarray) -> np.ndarray:
    """The trials to which relevances are fitted: evenly from the best to the worst."""
    order = np.argsort(-standings, kind="stable")
    count = len(rows)
    return order[np.linspace(0, count - 1, min(count, MOST_FITTED)).round().astype(int)]


def expectation(rows: np.ndarray, standings: np.ndarray, encoder: Encoder) -> Mean:
    """What trials tell of all points, in standard deviations of their standings: the mean of a
    Gaussian process that is fitted to them.

    Args:
        rows: of the trials, (trials, columns).
        standings: of them, (trials,).
        encoder: of the rows.
    """
    scores = _scaled(standings)
    some = even_sample(rows, standings)
    kernel = fitted(rows[some], scores[some], encoder)
    near = kernel(Apart.of(rows, rows, encoder.sizes))
    solved = cho_solve(cho_factor(near + kernel.noise * np.eye(len(rows))), scores)

    def mean(points: np.ndarray) -> np.ndarray:
        return np.asarray(kernel(Apart.of(points, rows, encoder.sizes)) @ solved)

    return mean


def weights(near: np.ndarray, noise: float, scores: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """How much each earlier expectation counts, (terms,), from 0 to MOST_WEIGHT.

    The scores are taken for  sum_j w_j t_j + g  with w_j ~ N(WEIGHT, DOUBT^2) and g of the Gaussian
    process. The weights are their most likely ones, none below 0: where the trials contradict an
    expectation it is dropped.

    Args:
        near: the correlation of the judged trials, (trials, trials).
        noise: the variance of the noise, as a part of the signal's.
        scores: of the trials, with mean 0, (trials,).
        terms: what was expected of them, each with mean 0, (trials, terms).
    """
    factor = cho_factor(near + noise * np.eye(len(near)))
    signal = max(float(scores @ cho_solve(factor, scores)) / len(scores), 1e-6)
    solved = cho_solve(factor, terms) / signal
    precision = terms.T @ solved + np.eye(terms.shape[1]) / DOUBT**2
    wanted = solved.T @ scores + WEIGHT / DOUBT**2
    root = np.linalg.cholesky(precision).T
    found, _ = nnls(root, np.linalg.solve(root.T, wanted))
    return np.minimum(found, MOST_WEIGHT)


def candidates(
    encoder: Encoder,
    rows: np.ndarray,
    standings: np.ndarray,
    pending: np.ndarray,
    rng: np.random.Generator,
    *,
    means: Sequence[Mean] = (),
    starts: np.ndarray | None = None,
) -> np.ndarray:
    """Rows of points to try, the most promising first.

    Args:
        encoder: of the rows.
        rows: of the judged trials, (trials, columns).
        standings: of them, (trials,).
        pending: of those that run, (trials, columns).
        rng: of the draws.
        means: what earlier studies expect of rows.
        starts: rows whose neighbours are looked at besides those of the best trials.
    """
    count = len(rows)
    scores = _scaled(standings)
    order = np.argsort(-standings, kind="stable")
    some = even_sample(rows, standings)
    kernel = fitted(rows[some], scores[some], encoder)
    everything = np.concatenate([rows, pending])
    apart = Apart.of(everything, everything, encoder.sizes)
    before = _Before(means, rows)
    if means:
        near = kernel(apart)[:count, :count]
        scores = scores - before.learnt(near, kernel.noise, scores)
        kernel = fitted(rows[some], scores[some], encoder)
    near = kernel(apart)
    noisy = near + kernel.noise * np.eye(len(everything))
    factor = cho_factor(noisy[:count, :count])
    solved = cho_solve(factor, scores)
    signal = float(scores @ solved) / count
    if len(pending):
        expected = near[count:, :count] @ solved
        factor = cho_factor(noisy)
        solved = cho_solve(factor, np.concatenate([scores, expected]))
    best = rows[order[: max(3, min(BEST, count // 8))]]
    points = nearby_points(encoder, best if starts is None else np.concatenate([best, starts]), rng)
    towards = kernel(Apart.of(points, everything, encoder.sizes))
    unknown = 1 - np.einsum("ij,ji->i", towards, cho_solve(factor, towards.T))
    spread = np.sqrt(signal * np.maximum(unknown, 1e-9))
    drawn = towards @ solved + spread * rng.normal(size=len(points))
    if means:
        drawn = drawn + before(points)
    return points[np.argsort(-drawn, kind="stable")]


class _Before:
    """What earlier studies expect of points, with their weights, less its mean over the trials."""

    def __init__(self, means: Sequence[Mean], rows: np.ndarray) -> None:
        self._means = means
        terms = self._terms(rows)
        self._middle = terms.mean(axis=0)
        self._centred = terms - self._middle
        self._weights = np.zeros(len(means))

    def _terms(self, rows: np.ndarray) -> np.ndarray:
        found = [mean(rows) for mean in self._means]
        return np.array(found).reshape(len(self._means), len(rows)).T

    def learnt(self, near: np.ndarray, noise: float, scores: np.ndarray) -> np.ndarray:
        """Learn the weights; return what is expected of the trials, (trials,)."""
        self._weights = weights(near, noise, scores, self._centred)
        return np.asarray(self._centred @ self._weights)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(points,)"""
        return np.asarray((self._terms(points) - self._middle) @ self._weights)


def nearby_points(encoder: Encoder, best: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random points, and neighbours of the best trials: a leaf moves a little, or anywhere."""
    anywhere = encoder.everywhere(NEIGHBOURS, rng)
    near = best[rng.integers(len(best), size=NEIGHBOURS)]
    moved = np.clip(near + STEP * rng.normal(size=near.shape), 0.0, 1.0)
    moved = np.where(encoder.sizes > 0, near, moved)
    switched = rng.random(near.shape) < SWITCH
    drawn = np.where(switched | np.isnan(near), anywhere, moved)
    return np.concatenate([encoder.uniform(RANDOM_POINTS, rng), encoder.active(drawn)])
