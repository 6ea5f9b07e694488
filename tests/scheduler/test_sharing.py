"""How many trials share a GPU: arithmetic on readings, at its edges."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from study.scheduler.sharing import LEAST_GAIN, MARGIN, Room, find_share, unmeasured
from study.training.sharing import NotMeasured, Reading

GIB = 2**30
FREE = Room(trials_by_cpu=9)


class Device:
    """Gives the readings of a device, and keeps what was asked for."""

    def __init__(
        self,
        rates: Sequence[float],
        *,
        memory: float | Sequence[float] = 3.0,
        context: float = 0.5,
        total: float = 24.0,
    ) -> None:
        self.rates = rates
        self.memory = [memory] * 3 if isinstance(memory, float) else memory
        self.context, self.total = context, total
        self.asked: list[int] = []

    def __call__(self, trainings: int) -> Reading:
        self.asked.append(trainings)
        if trainings > len(self.rates):
            raise NotMeasured("out of GPU memory")
        peak, context, total = (
            int(GIB * each) for each in (self.memory[trainings - 1], self.context, self.total)
        )
        return Reading(trainings, self.rates[trainings - 1], peak, context, total, steps=1)


@pytest.mark.parametrize(
    ("rates", "trials", "asked"),
    [
        ([410, 640, 650], 2, [1, 2, 3]),
        ([410, 640, 720], 3, [1, 2, 3]),
        ([100, 110, 121], 3, [1, 2, 3]),  # just 10 % each
        ([100, 109, 999], 1, [1, 2]),  # a third is not asked for where a second is of no use
        ([100, 90, 80], 1, [1, 2]),
    ],
)
def test_a_trial_more_must_raise_the_images_per_second_of_all(
    rates: list[float], trials: int, asked: list[int]
) -> None:
    device = Device(rates)
    assert find_share(device, FREE).trials == trials
    assert device.asked == asked
    assert LEAST_GAIN == 0.1


@pytest.mark.parametrize(
    ("total", "trials", "asked"), [(23.3, 3, [1, 2, 3]), (22.4, 2, [1, 2]), (14.9, 1, [1])]
)
def test_the_memory_must_hold_each_with_a_margin_and_its_context(
    total: float, trials: int, asked: list[int]
) -> None:
    """7.75 GiB each: three do fit into 23.25 GiB, two into 15.5."""
    device = Device([100, 200, 300], memory=6.5, context=0.6, total=total)
    assert MARGIN == 0.1
    assert find_share(device, FREE).trials == trials
    assert device.asked == asked


def test_the_largest_peak_counts() -> None:
    device = Device([100, 200, 300], memory=[3.0, 12.0, 3.0])
    share = find_share(device, FREE)
    assert (share.trials, device.asked) == (1, [1, 2])
    assert "two need 27.4 GiB" in share.text


@pytest.mark.parametrize(
    ("room", "trials", "asked", "why"),
    [
        (Room(3), 3, [1, 2, 3], "as more than three are not tried"),
        (Room(2), 2, [1, 2], "as three lack a CPU each"),
        (Room(1), 1, [], "as two lack a CPU each; nothing was measured"),
        (Room(0), 1, [], "as two lack a CPU each; nothing was measured"),
        (Room(9, most=2), 2, [1, 2], "as --max-concurrent lets no GPU have three"),
        (Room(9, most=1), 1, [], "as --max-concurrent lets no GPU have two; nothing was measured"),
    ],
)
def test_what_cannot_be_is_not_measured(
    room: Room, trials: int, asked: list[int], why: str
) -> None:
    device = Device([100, 200, 300])
    share = find_share(device, room)
    assert (share.trials, device.asked) == (trials, asked)
    assert share.text.endswith(why)


@pytest.mark.parametrize(("measured", "trials"), [(0, 1), (1, 1), (2, 2)])
def test_where_a_measurement_fails_the_trials_before_it_count(measured: int, trials: int) -> None:
    share = find_share(Device([100, 200, 300][:measured]), FREE)
    assert share.trials == trials
    word = ("one", "two", "three")[measured]
    assert share.text.endswith(f"as {word} could not be measured: out of GPU memory")


def test_the_line_says_what_was_measured_and_decided() -> None:
    share = find_share(Device([410.4, 640, 650], memory=3.1), FREE)
    assert share.text == (
        "3.1 of 24 GiB and 410 images/s for one trial, 640 for two, 650 for three: 2 trials share "
        "a GPU, as three gain 1.56 % over two, less than 10 %"
    )
    slow = find_share(Device([3.14, 3.0]), FREE)
    assert "3.1 images/s for one trial, 3 for two: one trial has a GPU, as two gain " in slow.text
    assert unmeasured("no torch").text == (
        "one trial has a GPU, as one could not be measured: no torch"
    )


@pytest.mark.parametrize(("rates", "gpus"), [([1], 1), ([1, 2], 0.5), ([1, 2, 3], 0.3333)])
def test_the_part_of_a_gpu_is_one_that_ray_counts(rates: list[float], gpus: float) -> None:
    share = find_share(Device(rates), FREE)
    assert share.gpus == gpus
    assert share.trials * share.gpus <= 1
