"""Half of an equal share for every option, whatever is stopped and whatever the sampler likes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from search.test_simulation import simulate

from study.search.quota import EpochsUsed, below_minimum_share, margin
from study.search.sampler import propose
from study.space.search_space import load_space

PATH = "loss/recall"
Stops = Callable[[int, np.random.Generator], bool]
STOPPED: dict[str, Stops] = {
    "one": lambda option, rng: option == 1,
    "all_but_one": lambda option, rng: option != 0,
    "by_chance": lambda option, rng: rng.random() < 2 / 3,
}


def search(
    num_options: int, num_trials: int, full: int, rung: int, slots: int, stops: Stops, seed: int
) -> list[EpochsUsed]:
    """A search whose sampler, where it may choose, has one favourite: the account at its end. One
    trial in eight tunes cross entropy, which is option 0, and is not stopped."""
    rng = np.random.default_rng(seed)
    favourite = int(rng.integers(num_options))
    done: list[EpochsUsed] = []
    running: list[tuple[int, bool]] = []

    def end_first() -> None:
        option, proposed = running.pop(0)
        epochs = rung if proposed and stops(option, rng) else full
        done.append(EpochsUsed({PATH: option}, epochs, epochs, proposed))

    for index in range(num_trials):
        if len(running) == slots:
            end_first()
        now = [EpochsUsed({PATH: o}, rung if p else full, full, p) for o, p in running]
        due = below_minimum_share({PATH: range(num_options)}, done + now, full)
        proposed = index % 8 != 0
        option = int(rng.choice(due[PATH])) if PATH in due else favourite
        running.append((option if proposed else 0, proposed))
    while running:
        end_first()
    return done


def least_share(used: list[EpochsUsed], num_options: int) -> float:
    """Of an equal share."""
    epochs = [sum(s.most for s in used if s.params[PATH] == o) for o in range(num_options)]
    return min(epochs) / sum(epochs) * num_options


@pytest.mark.slow
@pytest.mark.parametrize("stops", STOPPED)
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize(("num_options", "missing"), [(2, 0.0), (3, 1.0), (5, 1.3)])
def test_in_a_study_of_sixteen_trials_at_most_an_epoch_or_so_is_missing(
    num_options: int, missing: float, slots: int, stops: str
) -> None:
    for seed in range(30):
        used = search(num_options, 16, 8, 3, slots, STOPPED[stops], seed)
        for option in range(num_options):
            assert margin(PATH, option, num_options, used) >= -missing - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(("full", "rung"), [(8, 3), (60, 6)])
def test_no_option_is_ever_short_by_more_than_a_full_trial(full: int, rung: int) -> None:
    for num_options, slots, stops, seed in product((2, 3, 5), (1, 8), STOPPED, range(3)):
        used = search(num_options, 200, full, rung, slots, STOPPED[stops], seed)
        for option in range(num_options):
            assert margin(PATH, option, num_options, used) >= -full
        assert least_share(used, num_options) > 0.45


def test_what_runs_counts_against_an_option() -> None:
    choices = {PATH: ("off", "on")}
    running = [EpochsUsed({PATH: "off"}, 3, 8), EpochsUsed({PATH: "on"}, 3, 8)]
    assert margin(PATH, "on", 2, running) == 3 - (3 + 8) / 4
    assert below_minimum_share(choices, running, 8) == {PATH: ("off", "on")}
    ended = [EpochsUsed({PATH: "off"}, 8, 8), EpochsUsed({PATH: "on"}, 3, 3)]
    assert below_minimum_share(choices, ended, 8) == {PATH: ("on",)}
    assert (
        below_minimum_share(
            choices, [EpochsUsed({PATH: "off"}, 8, 8), EpochsUsed({PATH: "on"}, 8, 8)], 8
        )
        == {}
    )


def test_reference_trials_do_not_stand_in_for_what_the_sampler_proposes() -> None:
    used = [EpochsUsed({PATH: "off"}, 8, 8, proposed=False)] * 9 + [
        EpochsUsed({PATH: "on"}, 8, 8)
    ] * 3
    assert below_minimum_share({PATH: ("off", "on")}, used, 8) == {PATH: ("off",)}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_sampler_proposes_what_is_owed(sampler: str) -> None:
    space = load_space("joint")
    one_sided = {"loss/recall": "off", "loss/pooling": "mean", "loss/jaccard": "on"}
    used = [EpochsUsed(one_sided, 8, 8)] * 9
    for number in range(6):
        proposal = propose(space, [], seed=0, number=number, sampler=sampler, used=used, full=8)
        params = proposal.params
        assert params["loss/recall"] != "off"
        assert params["loss/pooling"] == "max"
        assert params["loss/jaccard"] == "off"


def test_a_grid_is_taken_in_an_order_that_gives_each_option_its_share() -> None:
    space = load_space(
        {
            "loss": {"jaccard": {"choice": {"low": {"mix": 0.2}, "high": {"mix": 0.8}}}},
            "optimizer": {"lr_scale": {"float": {"low": 0.5, "high": 2.0, "step": 0.5}}},
            "study": {"sampler": "grid", "num_trials": 8, "reference_trials": 1},
        }
    )
    grid = space.grid
    assert grid is not None
    used: list[EpochsUsed] = []
    for number in range(len(grid)):
        proposal = propose(space, [], seed=0, number=number, sampler="grid", used=used, full=8)
        used.append(EpochsUsed(proposal.params, 8, 8))
    taken = [item.params for item in used]
    assert len(taken) == 8 and all(point in taken for point in grid)
    options = [params["loss/jaccard"] for params in taken]
    for size in range(2, 9):
        assert min(options[:size].count(option) for option in ("low", "high")) >= size / 4


def test_the_rule_leaves_a_study_its_early_stopping() -> None:
    for seed in range(3):
        assert 4 <= sum(not trial.kept for trial in simulate(seed, fair=True)) <= 11
