"""Gives each option of each top-level choice its minimum share: half of an equal part of epochs.

It is not enough to propose each option equally often: a trial that the first rung stops uses a
fraction of the epochs of a full one, and a model proposes what has done well. So the epochs are
counted before each proposal. An option of k is due a trial if it would have less than 1 / (2 k) of
the epochs after the next trial goes to another option and to its end. Running trials count against
the option: its own as if the next rung stopped them, those of other options as if they went on to
the end.

An option then lacks at most the epochs of one full trial of its minimum share, however many trials
there are, so in a long search its part of the epochs is no less than half of an equal one. In a
search of 16 trials of 8 epochs with a rung at 3, whichever trials are stopped, two options lack
nothing, three lack at most 1 epoch and five at most 1.3 (simulated; see the test). This holds if
the first rung is late enough for stopped trials to add up to the minimum share; it does not if a
rung at 1 of 60 epochs stops every trial of an option. Failed trials count as stopped at the first
rung, so that an option that always fails does not use up the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Due = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class EpochsUsed:
    """The epochs of a searched trial, at least and at most; the two differ while it runs.

    proposed: whether the sampler proposed it. The others tune cross entropy, and their number is
    fixed.
    """

    params: Mapping[str, Any]
    least: int
    most: int
    proposed: bool = True


def below_minimum_share(
    choices: Mapping[str, Sequence[Any]], used: Sequence[EpochsUsed], full: int
) -> Due:
    """The options that are due a trial, by choice: those with the fewest epochs, if these are below
    the minimum share. The next proposal must take one of them. The most urgent choice comes first.

    Args:
        choices: path -> options.
        used: the searched trials so far.
        full: the epochs of a trial that no rung stops.
    """
    found: list[tuple[float, str, tuple[Any, ...]]] = []
    for path, options in choices.items():
        margins = {option: margin(path, option, len(options), used) for option in options}
        least = min(margins.values())
        if least < full / (2 * len(options)):
            lacking = tuple(option for option in options if margins[option] == least)
            found.append((least, path, lacking))
    return {path: lacking for _, path, lacking in sorted(found, key=lambda item: item[:2])}


def margin(path: str, option: Any, num_options: int, used: Sequence[EpochsUsed]) -> float:
    """The epochs that an option certainly has beyond its minimum share; negative if it lacks some.

    The lesser of two counts: over all searched trials, and over those of the sampler alone.
    """
    part = 1 / (2 * num_options)
    accounts = []
    for counted in (used, [item for item in used if item.proposed]):
        made = [item for item in counted if path in item.params]
        own = sum(item.least for item in made if item.params[path] == option)
        others = sum(item.most for item in made if item.params[path] != option)
        accounts.append(own - part * (own + others))
    return min(accounts)
