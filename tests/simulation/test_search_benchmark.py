"""The benchmark of the search, and the tables that docs/search.md makes of its regrets."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from benchmarks import search
from benchmarks.search import HYPERBAND, STOCK, Search, Searches, peer, with_priors
from docs import searches
from study.search.sampler import MODEL, RANDOM
from study.simulation.families import FamilyProblem
from study.simulation.run import Settings
from study.space.grammar import searched

MADE_UP = [
    Search(family, 8, seed, method, {16: 0.5 + 0.1 * seed + offset, 64: 0.25 * offset})
    for family, shift in (("smooth", 0.0), ("joint", 0.2))
    for seed in (1, 2, 3)
    for method, offset in ((MODEL, 0.1 * seed), (RANDOM, 0.3 + shift))
]


def test_a_file_gives_back_the_searches_that_were_written(tmp_path: Path) -> None:
    file = tmp_path / "found.csv"
    longer = Search("smooth", 2, 9, MODEL, {16: 1 / 3, 200: 0.5})
    search.write(file, [*MADE_UP, longer])
    assert (
        file.read_text(encoding="utf-8").splitlines()[0] == "family,workers,seed,method,16,64,200"
    )
    back = search.read(file)
    assert [one[:4] for one in back] == [one[:4] for one in [*MADE_UP, longer]]
    assert back[-1].regrets == {16: 0.3333, 200: 0.5}
    assert back[0].regrets == pytest.approx(MADE_UP[0].regrets)


def test_a_difference_is_the_mean_over_families_paired_by_seed() -> None:
    found = Searches(MADE_UP).less(RANDOM, 16)
    assert found is not None
    by_seed = np.array([0.1, 0.2, 0.3]) - (0.3 + 0.5) / 2
    low, high = stats.t.interval(0.95, 2, by_seed.mean(), stats.sem(by_seed))
    assert (found.mean, found.low, found.high) == pytest.approx((by_seed.mean(), low, high))
    assert Searches(MADE_UP).less(STOCK, 16) is None


def test_a_pair_leaves_out_what_the_other_has_not_searched() -> None:
    some = [one for one in MADE_UP if one.method == MODEL or one.family == "smooth"]
    found = Searches(some).less(RANDOM, 16)
    assert found is not None and found.mean == pytest.approx(0.2 - 0.3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [STOCK, HYPERBAND])
def test_another_pair_searches_and_gets_better(name: str) -> None:
    problem = FamilyProblem("smooth", 1)
    found = peer(name, problem, 1, Settings(workers=4, trainings=6))
    assert found == peer(name, problem, 1, Settings(workers=4, trainings=6))
    spent, regrets = zip(*found, strict=True)
    assert all(a < b for a, b in pairwise(spent))
    assert max(spent) <= 6 * problem.epochs
    assert regrets[-1] <= regrets[0] < 1


def test_priors_are_those_of_a_good_config_or_of_a_bad_one() -> None:
    worth = {}
    for right in (True, False):
        problem = with_priors("options", 3, right=right)
        nodes = {node.path: node for node in searched(problem.space.tree)}
        params = {path: node.prior for path, node in nodes.items() if node.prior is not None}
        assert problem.space.point(params) is not None
        worth[right] = float(np.mean(problem.truth(params)))
    regret = {right: FamilyProblem("options", 3).scale.regret(np.array(w)).mean()
              for right, w in worth.items()}  # fmt: skip
    assert regret[True] < 0.1 and regret[False] > 1.0


def test_hyperband_is_left_out_where_a_problem_has_two_objectives() -> None:
    settings = Settings(trainings=2)
    assert search._regrets(HYPERBAND, "joint", 1, settings, [2]) is None
    assert search._regrets(RANDOM, "joint", 1, settings, [2]) is not None


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """What docs/regrets/ has of the families, by other code."""
    return pd.read_csv(searches.HERE / "families.csv")


def test_the_table_of_the_page_is_that_of_the_file(frame: pd.DataFrame) -> None:
    heads, *rows = searches.methods(searches.recorded().families)
    assert heads[2] == "less random, with early stopping"
    for number, mean, *others in rows:
        regret = frame.set_index(["family", "seed", "method"])[number].unstack()
        assert mean == f"{regret[MODEL].mean():.2f}"
        less = (regret[MODEL] - regret[RANDOM]).groupby("seed").mean()
        low, high = stats.t.interval(0.95, len(less) - 1, less.mean(), stats.sem(less))
        assert others[0] == f"{less.mean():+.2f} [{low:+.2f}, {high:+.2f}]"


def test_the_speed_up_is_that_to_what_random_proposals_have_at_the_end(frame: pd.DataFrame) -> None:
    numbers = [int(name) for name in frame.columns if name.isdigit()]
    by_family = frame.groupby(["family", "method"])[[str(number) for number in numbers]].mean()
    for family, found in searches.speed_ups(searches.recorded()).items():
        aim = by_family.loc[(family, RANDOM), "64"]
        mine = by_family.loc[(family, MODEL)].to_numpy()
        reached = [number for number, mean in zip(numbers, mine, strict=True) if mean <= aim]
        if not reached:
            assert found == 1.0
            continue
        before = max((number for number in numbers if number < reached[0]), default=reached[0])
        assert 64 / reached[0] <= found * (1 + 1e-9) and found <= 64 / before * (1 + 1e-9)


@pytest.mark.slow
def test_the_picture_is_the_scripts() -> None:
    figure = searches.picture(searches.recorded())
    legend = figure.axes[0].get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [*searches.NAMES.values()]
    width, height = figure.get_size_inches() * searches.DPI
    with Image.open(searches.PICTURE) as shown:
        assert shown.size == (int(width), int(height))
