"""How well a proxy, the small task of a search, foretells its target, the task that is confirmed.

A config has one value on the proxy's val, of the trial that was searched, and a mean over seeds on
the target. Spearman's rank correlation is over the configs that have both; they are the proxy's
best and cross entropies, not a sample of the space. The regret is what one loses who takes the
proxy's best by val: test mIoU on the target of the best by the target's val minus that of the
proxy's pick, paired by seed. It is below 0 where val and test of the target disagree. The proxy has
no test figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.analysis.longer import paired
from study.analysis.selection import value
from study.analysis.statistics import Comparison, mean
from study.ledger.state import Trial

FEWEST = 3  # configs for a rank correlation


@dataclass(frozen=True)
class Foretold:
    """What the proxy foretold.

    configs: how many have values of both tasks. correlations: Spearman's by objective; empty for
    fewer than three configs, and without an objective in which they differ. pick, best: the best by
    val, of the proxy and of the target. regret: None where no seed has both on the target.
    """

    configs: int
    correlations: Mapping[str, float]
    pick: Trial
    best: Trial
    regret: Comparison | None


def foretold(
    sources: Sequence[Trial],
    judged: Mapping[str, Sequence[Trial]],
    best: Trial,
    *,
    objectives: Sequence[str],
    val: str,
    test: str,
) -> Foretold | None:
    """Compare the ranking of a proxy with its target's; None where no config has a value on val.

    Args:
        sources: the searched trials of the configs that were to be confirmed.
        judged: the judged confirmations of each that has some, by source.
        best: the source of the target's best config by mean val.
        objectives: the metrics of val by which both tasks rank.
        val, test: the metric of val that picks one config, and that of test which judges it.
    """
    rated = [trial for trial in sources if math.isfinite(value(trial, val))]
    if not rated:
        return None
    pick = max(rated, key=lambda trial: value(trial, val))
    both = [trial for trial in rated if judged.get(trial.id)]
    correlations = {key: _spearman(both, judged, key) for key in objectives}
    ours, theirs = (
        {trial.seed: value(trial, test) for trial in judged.get(one.id, ())} for one in (best, pick)
    )
    regret = paired([ours[seed] - theirs[seed] for seed in ours if seed in theirs])
    known = {key: rho for key, rho in correlations.items() if math.isfinite(rho)}
    return Foretold(len(both), known, pick, best, regret)


def _spearman(sources: Sequence[Trial], judged: Mapping[str, Sequence[Trial]], key: str) -> float:
    """NaN for fewer than three configs, where one lacks a value and where all are equal."""
    proxy = [value(source, key) for source in sources]
    target = [mean([value(trial, key) for trial in judged[source.id]]) for source in sources]
    if len(sources) < FEWEST or not all(map(math.isfinite, (*proxy, *target))):
        return math.nan
    if min(len(set(proxy)), len(set(target))) < 2:
        return math.nan
    from scipy.stats import spearmanr

    return float(spearmanr(proxy, target).statistic)
