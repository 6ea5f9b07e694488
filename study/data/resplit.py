"""Rules that split val off from train: by blocks of neighbours, or by name hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence

from study.config.task import Resplit
from study.core.errors import InputError
from study.core.names import TRAIN, VAL
from study.data.scan import Pair

Placed = tuple[str, str]  # (the split whose folder holds the image, its name)


def resplit(
    rule: Resplit, names: Mapping[str, Sequence[str]]
) -> dict[str, list[tuple[Placed, int]]]:
    """Split the pooled images into a new train and val: lists of ((folder split, name), block id),
    in name order.

    The pooled splits, thinned, are sorted by name and cut into blocks of `rule.block` images; the
    last of every `rule.every` blocks goes to val. Neighbouring frames thus stay in one split,
    except those at the ends of a block.

    Raises InputError if no block is left for val, or if the rule is made for other data.
    """
    for split in rule.thin:
        if split not in rule.pool:
            message = f"thin names the split {split!r}, which is not in pool"
            raise InputError(message, allowed=rule.pool, key="data/resplit/thin")
    for split, count in rule.of.items():
        if (found := len(names.get(split, ()))) != count:
            raise InputError(
                f"the rule is made for {count} {split} images, these data have {found}",
                hint="leave `resplit` out: train and val are then those of the folders",
                key="data/resplit/of",
            )
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
            f"the pool must have more than {rule.block * (rule.every - 1)} images, got {len(pool)}",
            hint=f"val gets one of every {rule.every} blocks of {rule.block} images",
            key="data/resplit",
        )
    return carved


def carved_pairs(
    rule: Resplit, pairs: Mapping[str, Sequence[Pair]]
) -> dict[str, list[tuple[Pair, int]]]:
    """Apply `resplit` to pairs: new train and val, each pair with its block id."""
    named: dict[str, dict[str, Pair]] = {
        split: {pair.name: pair for pair in pairs[split]} for split in rule.pool
    }
    carved = resplit(rule, {split: [*some] for split, some in named.items()})
    return {
        part: [(named[split][name], block) for (split, name), block in placed]
        for part, placed in carved.items()
    }


def in_words(rule: Resplit | None) -> str:
    """Describe how train and val were made."""
    if rule is None:
        return "train and val are as published"
    thinned = "".join(f", 1 in {n} of {split}" for split, n in rule.thin.items())
    return (
        f"train and val are {' and '.join(dict.fromkeys(rule.pool))} pooled{thinned}, in blocks of "
        f"{rule.block} images in name order, every {rule.every}th of them val"
    )


def in_blocks(
    pairs: Sequence[Pair], block: int, sequence: Callable[[Pair], str] = lambda pair: ""
) -> list[tuple[Pair, int]]:
    """Number the pairs, in order, by block: runs of up to `block` pairs of one sequence."""
    placed: list[tuple[Pair, int]] = []
    number, length = -1, 0
    for pair in pairs:
        if not placed or length == block or sequence(pair) != sequence(placed[-1][0]):
            number, length = number + 1, 0
        placed.append((pair, number))
        length += 1
    return placed


def in_fraction(name: str, fraction: float) -> bool:
    """Whether the hash of a name falls into the lowest `fraction` of all hashes.

    The result for a name does not depend on which other names exist.
    """
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) < fraction * 2**64
