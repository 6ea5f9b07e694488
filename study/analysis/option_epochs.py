"""How many epochs of the search each option of each top-level choice got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.core.names import REFERENCE, SEARCH
from study.ledger.state import State, Trial
from study.space.search_space import load_space


@dataclass(frozen=True)
class OptionEpochs:
    """The trials and epochs that one option of a choice got.

    fraction: of the epochs of all searched trials. sampled: of the epochs of the trials that the
    sampler proposed, without those that tune cross entropy. Both are 0 while there are no epochs.
    equal: 1 / number of options.
    """

    path: str
    option: str
    trials: int
    epochs: int
    fraction: float
    sampled: float
    equal: float


def option_epochs(state: State) -> list[OptionEpochs]:
    """Each option of each top-level choice of the space, in the order of the file."""
    if state.study is None:
        return []
    found = []
    for path, options in load_space(state.study.space).choices.items():
        made = [t for t in state.of_stage(SEARCH, REFERENCE) if t.params and path in t.params]
        sampled = [trial for trial in made if trial.stage == SEARCH]
        for option in options:
            own = [t for t in made if t.params and t.params[path] == option]
            found.append(
                OptionEpochs(
                    path=path,
                    option=str(option),
                    trials=len(own),
                    epochs=_epochs(own),
                    fraction=_epochs(own) / max(1, _epochs(made)),
                    sampled=_epochs([t for t in own if t.stage == SEARCH])
                    / max(1, _epochs(sampled)),
                    equal=1 / len(options),
                )
            )
    return found


def _epochs(trials: Sequence[Trial]) -> int:
    return sum(trial.epochs for trial in trials)
