"""When a trial counts as hung: a clock that the test turns, and no process at all."""

from __future__ import annotations

import math
from typing import Any

import pytest

from study.ledger.state import State, Trial
from study.scheduler.watchdog import LEAST_SECONDS, MEDIANS, Watchdog, median_epoch

RUNNING = ("t0", "t1")


def state(*epochs: float, gpus: float = 0.0, watched_gpus: float = 0.0) -> State:
    """A study with a trial that reported epochs of so many seconds, and two that run."""
    given: dict[str, Any] = {"label": "ce", "family": "ce", "params": None, "config": {}}
    made = State()
    for name in ("done", *RUNNING):
        trial = Trial(name, 0, "search", **given, seed=0, source=None, started=0, handed_out=0)
        trial.gpus = gpus if name == "done" else watched_gpus
        made.trials[name] = trial
    made.trials["done"].reports = {
        epoch: {"time/epoch_s": seconds} for epoch, seconds in enumerate(epochs, 1)
    }
    made.num_epochs = len(epochs)
    return made


class Watched:
    """A watchdog that is asked twice a second."""

    def __init__(self, study: State, limit: float | None = None, *, begun: bool = True) -> None:
        self.now = 1000.0
        self.watchdog = Watchdog(study, limit, clock=lambda: self.now)
        if begun:
            for trial in RUNNING:
                self.watchdog.heard(trial, "training")

    def hung_after(self, seconds: float, *, beats: tuple[str, ...] = ()) -> dict[str, str]:
        """What is found within so many seconds; the trials in `beats` give a sign at each look."""
        for _ in range(round(2 * seconds)):
            self.now += 0.5
            for trial in beats:
                self.watchdog.heard(trial, "training")
            found = self.watchdog.look(RUNNING)
            if found:
                return found
        return {}


@pytest.mark.parametrize(
    ("epochs", "limit"),
    [((2.0, 3.0, 500.0), LEAST_SECONDS), ((90.0, 80.0, 500.0), 10 * 90.0), ((61.0,), 610.0)],
)
def test_the_limit_is_ten_median_epochs_and_ten_minutes_at_least(
    epochs: tuple[float, ...], limit: float
) -> None:
    watched = Watched(state(*epochs))
    assert watched.hung_after(limit) == {}
    assert set(watched.hung_after(1.0)) == set(RUNNING)


def test_a_trial_that_beats_is_never_ended_and_the_silent_one_beside_it_is() -> None:
    watched = Watched(state(1.0))
    assert set(watched.hung_after(10 * LEAST_SECONDS, beats=("t0",))) == {"t1"}


def test_without_an_epoch_on_that_kind_of_device_there_is_no_limit() -> None:
    assert Watched(state()).hung_after(3 * LEAST_SECONDS) == {}
    first_on_gpu = Watched(state(1.0, gpus=0.0, watched_gpus=1.0))
    assert first_on_gpu.hung_after(3 * LEAST_SECONDS) == {}
    on_gpu = Watched(state(1.0, gpus=0.5, watched_gpus=1.0))
    assert set(on_gpu.hung_after(LEAST_SECONDS + 1)) == set(RUNNING)


def test_an_epoch_that_is_reported_while_a_trial_is_silent_sets_its_limit() -> None:
    study = state()
    watched = Watched(study)
    assert watched.hung_after(2 * LEAST_SECONDS) == {}
    study.trials["done"].reports = {1: {"time/epoch_s": 1.0}}
    study.num_epochs = 1
    assert set(watched.hung_after(1.0)) == set(RUNNING)


@pytest.mark.parametrize("gpus", [0.0, 1.0])
def test_a_given_limit_holds_before_any_epoch_and_for_both_kinds_of_device(gpus: float) -> None:
    watched = Watched(state(watched_gpus=gpus), 20.0)
    assert watched.hung_after(20.0) == {}
    assert set(watched.hung_after(1.0)) == set(RUNNING)
    assert Watched(state(1.0, gpus=gpus), math.inf).hung_after(5 * LEAST_SECONDS) == {}
    assert Watched(state(1.0, gpus=gpus), 9000.0).hung_after(5 * LEAST_SECONDS) == {}


def test_a_process_has_ten_minutes_to_start_under_a_shorter_limit() -> None:
    watched = Watched(state(), 20.0, begun=False)
    assert watched.hung_after(LEAST_SECONDS) == {}
    assert set(watched.hung_after(1.0)) == set(RUNNING)
    longer = Watched(state(), 2 * LEAST_SECONDS, begun=False)
    assert longer.hung_after(2 * LEAST_SECONDS) == {}
    assert Watched(state(), begun=False).hung_after(3 * LEAST_SECONDS) == {}


def test_a_driver_or_machine_that_was_suspended_ends_nobody() -> None:
    watched = Watched(state(1.0))
    watched.hung_after(10.0)
    watched.now += 8 * 3600
    assert watched.watchdog.look(RUNNING) == {}
    assert watched.hung_after(LEAST_SECONDS - 12) == {}
    assert set(watched.hung_after(3.0)) == set(RUNNING)


def test_each_attempt_is_counted_anew() -> None:
    watched = Watched(state(1.0), 20.0)
    watched.hung_after(19.0)
    watched.watchdog.forget("t0")
    assert set(watched.hung_after(2.0)) == {"t1"}
    gone = Watched(state(1.0), 20.0)
    gone.hung_after(19.0)
    gone.watchdog.look(("t1",))
    assert set(gone.hung_after(2.0)) == {"t1"}, "t0 had no process for a moment"


def test_the_reason_says_what_the_trial_did_and_which_limit_it_passed() -> None:
    fast = Watched(state(2.0)).hung_after(LEAST_SECONDS + 1)["t0"]
    assert fast == "hung while training: no sign of life for 600 s (an epoch takes 2 s)"
    slow = Watched(state(70.0)).hung_after(800.0)["t0"]
    assert slow.endswith(f"for 700 s ({MEDIANS} times the median epoch)")
    given = Watched(state(), 20.0).hung_after(30.0)["t0"]
    assert given.endswith("for 20 s (the limit that was given)")
    starting = Watched(state(), 20.0, begun=False).hung_after(700.0)["t0"]
    assert starting.startswith("hung while its process starts: no sign of life for 600 s (the lim")


def test_the_median_is_over_one_kind_of_device_and_finite_times() -> None:
    study = state(1.0, math.nan, 3.0, gpus=1.0)
    assert median_epoch(study, on_gpu=True) == 2.0
    assert math.isnan(median_epoch(study, on_gpu=False))
