"""Finds the params that resolve to a given config: leaves and options that agree with it.

Two configs count as the same if they differ only in fields that have no effect.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from study.losses.config import Boundary, InverseFrequency, LossConfig, NoClassWeights
from study.space.grammar import Branch, Choice, Constant, Leaf, Node

Params = dict[str, Any]


def product(parts: list[list[Params]]) -> Iterator[Params]:
    """Every combination of one entry per part, merged."""
    for combination in itertools.product(*parts):
        yield {path: value for part in combination for path, value in part.items()}


def candidates(node: Node, value: Any, unused: frozenset[str]) -> Iterator[Params]:
    """Params that agree with a config in every part that the file writes; the rest is unchecked."""
    match node:
        case Constant(path=path, value=constant):
            if isinstance(constant, dict) or path in unused or _plain(constant) == _plain(value):
                yield {}
        case Leaf(path=path):
            try:
                node.to_sampler(value)
            except ValueError:
                return
            yield {path: value}
        case Choice(path=path, options=options):
            for name, option in options.items():
                for params in candidates(option, value, unused):
                    yield {path: name, **params}
        case Branch(children=children):
            # an unused field may be of another form than the config's: boundary beside everywhere
            needed = {
                key: child
                for key, child in children.items()
                if not (isinstance(child, Constant) and child.path in unused)
            }
            if isinstance(value, Mapping) and needed.keys() <= value.keys():
                parts = [
                    list(candidates(child, value[key], unused)) for key, child in needed.items()
                ]
                yield from product(parts)


def unused_fields(loss: LossConfig) -> frozenset[str]:
    """Key paths of the fields that have no effect in this loss."""
    unused = set()
    if _is_unweighted(loss) and loss.recall is None:
        unused.add("loss/normalizer")
    if loss.label_smoothing == 0:
        unused |= {"loss/jaccard/target"}
        unused |= {f"loss/smoothing_region/{key}" for key in Boundary.model_fields}
    if loss.jaccard.mix == 0:
        unused |= {f"loss/jaccard/{key}" for key in type(loss.jaccard).model_fields if key != "mix"}
    return frozenset(unused)


def equivalent_forms(loss: LossConfig) -> Iterator[LossConfig]:
    """All ways to write the same loss: exponent 0 is the same as no class weights."""
    yield loss
    if _is_unweighted(loss):
        for weights in (NoClassWeights(), InverseFrequency(scheme="inverse_frequency", exponent=0)):
            if weights != loss.class_weights:
                yield loss.model_copy(update={"class_weights": weights})


def _is_unweighted(loss: LossConfig) -> bool:
    weights = loss.class_weights
    return isinstance(weights, NoClassWeights) or (
        isinstance(weights, InverseFrequency) and weights.exponent == 0
    )


def effective(tree: Any, unused: frozenset[str], path: str = "") -> dict[str, Any]:
    """Flat leaves of a config, without the unused ones."""
    if not isinstance(tree, Mapping):
        return {} if path in unused else {path: _plain(tree)}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= effective(value, unused, f"{path}/{key}" if path else str(key))
    return flat


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
