"""Every option of every top-level choice gets at least half of its equal share of the epochs.

Proposing each option equally often does not bring that about: a trial that is stopped at the first
rung spends a fraction of one that is not, and a model proposes what it thinks well of. So before
each proposal the account is drawn up. An option of k is due a trial where it would have less
than 1 / (2 k) of the epochs if the next trial went to another option and to its end. What runs
counts against the option: its own trials as if the next rung stopped them, those of the others as
if they went on to the end.

No option then falls short of half of its equal share by more than the epochs of one full trial,
however many trials there are, so in a long search its part of the epochs is no less than half of
the equal one. In a search of 16 trials of 8 epochs with a rung at 3, whatever is stopped, nothing
is missing of two options, at most 1 epoch of three and 1.3 of five (simulated; see its test). It
holds where the first rung is late enough for stopped trials to add up to such a part: not where
rungs at 1 of 60 epochs stop every trial of an option. Failed trials count as stopped at the first
rung, so that an option that always fails does not use up the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Due = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class EpochsUsed:
    """A searched trial's epochs: at least and at most, which differ while it runs.

    proposed: by the sampler. The others tune cross entropy; their part of the epochs is given.
    """

    params: Mapping[str, Any]
    least: int
    most: int
    proposed: bool = True


def below_minimum_share(
    choices: Mapping[str, Sequence[Any]], used: Sequence[EpochsUsed], full: int
) -> Due:
    """Of each top-level choice the options that have least, where they are due a trial: the next
    proposal must be one of them. The most urgent choice comes first.

    Args:
        choices: path -> options.
        used: the searched trials so far.
        full: the epochs of a trial that nobody stops.
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
    """Epochs that an option certainly has beyond half of its equal share; negative where it lacks
    some. The lesser of two accounts: of all searched trials, and of the sampler's alone."""
    part = 1 / (2 * num_options)
    accounts = []
    for counted in (used, [item for item in used if item.proposed]):
        made = [item for item in counted if path in item.params]
        own = sum(item.least for item in made if item.params[path] == option)
        others = sum(item.most for item in made if item.params[path] != option)
        accounts.append(own - part * (own + others))
    return min(accounts)
