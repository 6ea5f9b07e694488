"""Carving train and val anew, for data sets whose own val split is no fair sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from study.config import Resplit
from study.errors import InputError
from study.names import TRAIN, VAL

Placed = tuple[str, str]  # (the split whose folder holds the image, its name)


def resplit(
    rule: Resplit, names: Mapping[str, Sequence[str]]
) -> dict[str, list[tuple[Placed, int]]]:
    """New train and val as lists of ((folder split, name), block id), in name order.

    The pooled splits, thinned, are sorted by name and cut into blocks of `rule.block`; of every
    `rule.every` blocks the last goes to val. Neighbouring frames thus stay on one side, but for
    those at the ends of a block.

    Raises InputError when no block is left for val.
    """
    for split in rule.thin:
        if split not in rule.pool:
            message = f"must name pooled splits {list(rule.pool)}, but got {split}"
            raise InputError(message, key="data/resplit/thin")
    pool = [
        (name, split)
        for split in dict.fromkeys(rule.pool)
        for name in sorted(names[split])[:: rule.thin.get(split, 1)]
    ]
    carved: dict[str, list[tuple[Placed, int]]] = {TRAIN: [], VAL: []}
    for position, (name, split) in enumerate(sorted(pool)):
        block = position // rule.block
        part = VAL if block % rule.every == rule.every - 1 else TRAIN
        carved[part].append(((split, name), block))
    if not carved[VAL]:
        raise InputError(
            f"val gets every {rule.every}th block of {rule.block} images, so the pool must have "
            f"more than {rule.block * (rule.every - 1)} images, but has {len(pool)}",
            key="data/resplit",
        )
    return carved
