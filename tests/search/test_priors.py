"""Priors by hand: a part of the draws and of the model's mean, which results overrule."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from one_worker import proposals

from study.core.errors import InputError
from study.search.encoding import Encoder
from study.search.priors import near_priors, prior_term
from study.search.sampler import MODEL, stratified
from study.space.search_space import SearchSpace, load_space
from study.space.tree_space import load_any

TREE: dict[str, Any] = {
    "rate": {"float": {"low": 1e-4, "high": 1.0, "log": True, "prior": 0.01}},
    "momentum": {"float": {"low": 0.5, "high": 0.99, "log": "to_one"}},
    "layers": {"int": {"low": 1, "high": 9, "prior": 9}},
    "way": {"choice": {"a": {}, "b": {"x": {"float": {"low": 0.0, "high": 1.0, "prior": 0.0}}}},
            "prior": "b"},
}  # fmt: skip


def plain(tree: Any) -> Any:
    """Without priors."""
    if not isinstance(tree, dict):
        return tree
    return {key: plain(value) for key, value in tree.items() if key != "prior"}


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_any(TREE)


def test_half_of_the_draws_lie_near_the_priors(space: SearchSpace) -> None:
    points = [stratified(space, seed=0, number=number) for number in range(200)]
    without = [stratified(load_any(plain(TREE)), seed=0, number=number) for number in range(200)]
    assert Counter(one["way"] for one in without) == {"a": 100, "b": 100}
    assert 140 <= sum(one["way"] == "b" for one in points) <= 160  # 150 are expected

    def near(found: list[Any]) -> float:
        return float(np.mean([abs(np.log10(one["rate"]) + 2) < 0.8 for one in found]))

    assert near(without) < 0.5 and 0.6 < near(points) < 0.8
    assert sum(one["layers"] == 9 for one in points) > 2 * sum(
        one["layers"] == 9 for one in without
    )
    assert all(space.point(one) is not None for one in points)
    far = [one for one in points if abs(np.log10(one["rate"]) + 2) > 1.2]
    assert len(far) > 20 and {"a", "b"} == {one["way"] for one in far}


def test_a_space_without_priors_draws_what_it_drew(space: SearchSpace) -> None:
    bare = load_any(plain(TREE))
    assert near_priors(bare, np.random.default_rng(0)) == {}
    assert prior_term(bare, Encoder(bare)) is None
    points = [stratified(bare, seed=0, number=number) for number in range(40)]
    others = [stratified(space, seed=0, number=number) for number in range(40)]
    same = sum(one == other for one, other in zip(points, others, strict=True))
    assert 10 <= same <= 30  # the other half of the draws are those of a space without priors


def test_the_models_mean_is_highest_at_the_priors(space: SearchSpace) -> None:
    encoder = Encoder(space)
    term = prior_term(space, encoder)
    assert term is not None
    rows = encoder.uniform(400, np.random.default_rng(5))
    expected = term(rows)
    assert abs(expected.mean()) < 0.2 and 0.8 < expected.std() < 1.2
    at = encoder.row({"rate": 0.01, "momentum": 0.9, "layers": 9, "way": "b", "way/x": 0.0})
    assert term(at[None])[0] > expected.max() - 0.05
    columns = encoder.columns
    for path in ("rate", "layers", "way/x"):
        off = at.copy()
        off[columns[path]] = 0.5 if path != "rate" else 1.0
        assert term(off[None])[0] < term(at[None])[0] - 0.1, path
    assert set(np.round(term.points(4)[:, columns["layers"]], 6)) == {1.0}


def modelled(value: Any, tree: Any, count: int = 20) -> list[float]:
    """The values of what the model proposes in a study of one worker."""
    found = proposals(load_any(tree), value, count, seed=2)
    return [value(params) for by, params in found if by == MODEL]


def wide(prior: float | None) -> dict[str, Any]:
    leaf: dict[str, Any] = {"low": 0.0, "high": 1.0}
    leaf |= {} if prior is None else {"prior": prior}
    return {f"x{number}": {"float": leaf} for number in range(8)}


def peak(params: Any) -> float:
    return -float(sum((value - 0.8) ** 2 for value in params.values()))


def test_a_right_prior_helps_the_model_and_a_wrong_one_is_overruled() -> None:
    right, none, wrong = (modelled(peak, wide(prior)) for prior in (0.8, None, 0.2))
    assert np.mean(right[:5]) > np.mean(none[:5]) + 0.2
    assert np.mean(wrong[-5:]) > -1.2  # at the prior it is -2.9


def test_a_grid_refuses_a_prior() -> None:
    tree = {"loss": {"jaccard": {"mix": {"choice": [0.25, 0.5], "prior": 0.5}}},
            "study": {"sampler": "grid", "num_trials": 2, "reference_trials": 1}}  # fmt: skip
    with pytest.raises(InputError, match="study/sampler: a grid tries every point, so the prior of "
                       "loss/jaccard/mix does nothing; leave it out"):  # fmt: skip
        load_space(tree)
