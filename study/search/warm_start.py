"""What is known before a study's first trial: the standings of earlier studies (a warm start), and
the priors of the space (`priors`).

Of each earlier study a Gaussian process (`model.expectation`) says how high a point would stand
there. Standings have no unit, so the task, the data and the metric may be others. The mean m_s of
each earlier study s enters the model of the present one as a term w_s m_s(x), whose weight is
learnt (`model.weights`): it shrinks to 0 where the two disagree. What is left is told by the
study's own trials, and the more there are, the less the term matters where they lie.

The ledger's first line holds the points and their standings, so a resumed study needs no other
study's folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from study.config.task import TrialOptimizer
from study.core.errors import InputError
from study.core.names import CONFIRM, TEACHER
from study.ledger.plan import Plan
from study.ledger.state import State, Trial
from study.losses.config import LossConfig
from study.search.encoding import Encoder
from study.search.history import History, observation, thinned
from study.search.model import expectation
from study.search.priors import PriorTerm, prior_term
from study.space.search_space import Params, SearchSpace

STUDIES = "studies"
DIGITS = 4  # of a standing
ELSEWHERE, UNJUDGED, THINNED = "not in this space", "without a result", "more than a model takes"


def taken_from(name: str, state: State, space: SearchSpace) -> dict[str, Any]:
    """What a space takes over from a study, as the ledger holds it.

    A trial of its search is taken over if the space holds its config: leaves that the config lacks
    have their defaults. Its standing is that among those that are taken over, by each objective of
    the space; for one that the study does not have, the mean over those that it has.

    Args:
        name: of the earlier study.
        state: of its ledger.
        space: that of the new study, whose settings name the objectives.

    Returns:
        `name`, `trials` (of its search), `left_out` (why: how many), `lacks` (objectives) and
        `points`: pairs of params and standings.
    """
    assert state.study is not None
    plan = Plan.from_dict(state.study.plan)
    own = space.settings.objectives
    settings = space.settings.model_copy(update={"objectives": plan.objectives})
    history = History(replace(space, settings=settings))
    left_out: Counter[str] = Counter()
    kept: list[Params] = []
    trials = [trial for trial in state.trials.values() if trial.stage not in (CONFIRM, TEACHER)]
    for trial in trials:
        params = _params(space, trial)
        if not _is_judged(trial):
            left_out[UNJUDGED] += 1
        elif params is None:
            left_out[ELSEWHERE] += 1
        else:
            history.put(len(history), observation(plan, trial, params))
            kept.append(params)
    standings = history.standings()
    columns = [
        standings[:, plan.objectives.index(key)] if key in plan.objectives else standings.mean(1)
        for key in own
    ]
    found = np.stack(columns, 1)
    numbers = thinned(found)
    left_out[THINNED] += len(found) - len(numbers)
    return {
        "name": name,
        "trials": len(trials),
        "left_out": dict(+left_out),
        "lacks": [key for key in own if key not in plan.objectives],
        "points": [[kept[n], found[n].round(DIGITS).tolist()] for n in numbers],
    }


def _is_judged(trial: Trial) -> bool:
    """Whether it has reached a rung or its end, or has failed by its own fault."""
    if trial.end is not None and trial.end.by_machine:
        return False
    return bool(trial.rungs) or trial.status is not None


def _params(space: SearchSpace, trial: Trial) -> Params | None:
    """The params of a trial of another study; None where the space does not hold its config."""
    loss = trial.config.get("loss")
    if loss is None:  # of a tree that is no loss
        params = trial.params or {}
        return dict(params) if space.point(params) is not None else None
    try:
        optimizer = TrialOptimizer.model_validate(trial.config.get("optimizer") or {})
        return space.params_of(LossConfig.model_validate(loss), optimizer)
    except (ValidationError, InputError):
        return None


@dataclass(frozen=True)
class Prior:
    """The earlier studies of a warm start and the priors of a space, in the rows of an encoder.

    points: of each study the rows (trials, columns) and the standings (trials, objectives).
    term: what the priors of the space expect, where it has any.
    """

    encoder: Encoder
    points: Sequence[tuple[np.ndarray, np.ndarray]] = ()
    term: PriorTerm | None = None
    _means: dict[int, list[Callable[[np.ndarray], np.ndarray]]] = field(
        default_factory=dict, init=False, repr=False
    )

    @classmethod
    def of(cls, tree: Mapping[str, Any] | None, space: SearchSpace, encoder: Encoder) -> Prior:
        """What a ledger's first line holds, without what lies outside of the space, which may have
        been changed on resume."""
        found = []
        for one in (tree or {}).get(STUDIES, ()):
            inside = [(p, s) for p, s in one["points"] if space.point(p) is not None]
            if inside:
                rows = np.array([encoder.row(params) for params, _ in inside])
                found.append((rows, np.array([standing for _, standing in inside], float)))
        return cls(encoder, found, prior_term(space, encoder))

    def __bool__(self) -> bool:
        return bool(self.points) or self.term is not None

    def means(self, objective: int) -> list[Callable[[np.ndarray], np.ndarray]]:
        """Of each study, and of the priors: what is expected of rows, (points, columns) ->
        (points,)."""
        if objective not in self._means:
            self._means[objective] = [
                expectation(rows, standings[:, objective], self.encoder)
                for rows, standings in self.points
            ] + ([] if self.term is None else [self.term])
        return self._means[objective]

    def best(self, objective: int, count: int) -> np.ndarray:
        """The rows that stood highest, at most `count` of each study, and as many at the priors."""
        found = [
            rows[np.argsort(-standings[:, objective], kind="stable")[:count]]
            for rows, standings in self.points
        ]
        if self.term is not None:
            found.append(self.term.points(count))
        return np.concatenate(found)

    def together(self, objective: int) -> tuple[np.ndarray, np.ndarray]:
        """The points of all studies: rows and standings by one objective."""
        rows, standings = zip(*self.points, strict=True)
        return np.concatenate(rows), np.concatenate(standings)[:, objective]
