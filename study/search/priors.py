"""Priors by hand: where the user believes the best value of a leaf, or the best option.

They are a part of the search in two ways, and results overrule both. Every second stratified or
random proposal has all leaves with a prior near it: a range at a normal distribution of sd NEAR
parts of it around the prior, a choice at its prior. And the model's mean has a term, with a weight
that is learnt like that of an earlier study:

    b(x) = sum over leaves j with a prior p_j of  exp(-(x_j - p_j)^2 / (2 WIDE^2))   along a range,
                                                  1 at the prior, else 0             of a choice

each standardised over the space, and 0 where the leaf is not active.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution

from study.search.encoding import Encoder
from study.space.axis import axis_of
from study.space.grammar import Leaf, searched
from study.space.search_space import SearchSpace

FRACTION = 0.5  # of the proposals that lie near the priors
NEAR, WIDE = 0.1, 0.2  # sd, in parts of a range: of the draws, and of what the model expects
POINTS = 512  # over which a term is standardised


def near_priors(space: SearchSpace, rng: np.random.Generator) -> dict[str, Any]:
    """The leaves and choices with a prior, near it, as a sampler has them; none in the other half
    of the cases."""
    with_prior = [node for node in searched(space.tree) if node.prior is not None]
    if not with_prior or rng.random() >= FRACTION:
        return {}
    found: dict[str, Any] = {}
    for node in with_prior:
        if isinstance(node.distribution, CategoricalDistribution):
            found[node.path] = node.prior
            continue
        assert isinstance(node, Leaf)
        axis = axis_of(node)
        assert axis is not None
        place = axis.position(node.prior) + NEAR * rng.normal()
        found[node.path] = node.to_sampler(axis.value(float(np.clip(place, 0.0, 1.0))))
    return found


class PriorTerm:
    """What the priors of a space expect of rows; its mean over the space is 0, its sd 1."""

    def __init__(self, encoder: Encoder, places: dict[int, float]) -> None:
        self._encoder = encoder
        self._columns = np.array(list(places))
        self._places = np.array(list(places.values()))
        self._of_choice = encoder.sizes[self._columns] > 0
        rows = encoder.uniform(POINTS, np.random.default_rng(0))
        terms = self._terms(rows)
        self._middle, self._spread = np.nanmean(terms, 0), np.nanstd(terms, 0)
        self._spread[self._spread == 0] = 1.0
        self._scale = 1.0
        self._scale = float(self(rows).std()) or 1.0

    def _terms(self, rows: np.ndarray) -> np.ndarray:
        off = rows[:, self._columns] - self._places
        along = np.exp(-(off**2) / (2 * WIDE**2))
        at = np.where(np.isnan(off), np.nan, off == 0)
        return np.where(self._of_choice, at, along)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(points, columns) -> (points,)"""
        terms = (self._terms(rows) - self._middle) / self._spread
        return np.asarray(np.nansum(terms, axis=1) / self._scale)

    def points(self, count: int) -> np.ndarray:
        """Rows at the priors, elsewhere random."""
        rows = self._encoder.everywhere(count, np.random.default_rng(1))
        rows[:, self._columns] = self._places
        return self._encoder.active(rows)


def prior_term(space: SearchSpace, encoder: Encoder) -> PriorTerm | None:
    """What the priors of a space expect; None where it has none."""
    places: dict[int, float] = {}
    for node in searched(space.tree):
        prior: Any = node.prior
        if prior is None:
            continue
        column = encoder.columns[node.path]
        axis = axis_of(node) if isinstance(node, Leaf) else None
        options = encoder.options[column]
        places[column] = float(options.index(prior) if axis is None else axis.position(prior))
    return PriorTerm(encoder, places) if places else None
