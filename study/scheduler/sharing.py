"""Decides how many trials share one GPU, by arithmetic on what was measured there.

One trial more is taken as long as the memory holds it, the node has a CPU for each, and it raises
the images per second of all of them together by a stated share. Equal readings give equal answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from study.training.sharing import NotMeasured, Reading

MOST = 3
LEAST_GAIN = 0.10  # of the images per second, by one trial more
MARGIN = 0.10  # of the memory of each
WORDS = ("no trial", "one", "two", "three", "four")
_GIB = 2**30


@dataclass(frozen=True)
class Room:
    """What a GPU's trials have beside it.

    Attributes:
        trials_by_cpu: how many the CPUs hold that belong to the GPU.
        most: how many of the study can be on one GPU at once; None where nothing limits them.
    """

    trials_by_cpu: int
    most: int | None = None


@dataclass(frozen=True)
class Share:
    """How many trials share a GPU, and in a line what was measured and why so many."""

    trials: int
    text: str

    @property
    def gpus(self) -> float:
        """GPUs of a trial, in the steps that Ray counts in."""
        return round(1 / self.trials, 4)


def find_share(measure: Callable[[int], Reading], room: Room) -> Share:
    """Measure one trial, then one more at a time, as long as that may be worth it; decide.

    measure: measures so many trainings at a time; NotMeasured of it ends the search.
    """
    readings: list[Reading] = []
    if why := refusal(2, readings, room):
        return Share(1, f"{_decided(1)}, as {why}; nothing was measured")
    while not why:
        try:
            readings.append(measure(len(readings) + 1))
        except NotMeasured as error:
            return unmeasured(str(error), readings)
        count = len(readings)
        if why := refusal(count, readings, room):
            return Share(count - 1, _text(readings, count - 1, why))
        why = refusal(count + 1, readings, room)
    return Share(count, _text(readings, count, why))


def unmeasured(why: str, readings: Sequence[Reading] = ()) -> Share:
    """As many trials as were measured, and one at least, where one more could not be."""
    trials, more = max(1, len(readings)), WORDS[len(readings) + 1]
    return Share(trials, _text(readings, trials, f"{more} could not be measured: {why}"))


def refusal(count: int, readings: Sequence[Reading], room: Room) -> str:
    """Why so many trials are not to share a GPU, in words; empty where they may, as far as the
    readings of fewer and of so many say."""
    words = WORDS[min(count, MOST + 1)]
    if count < 2:
        return ""
    if count > MOST:
        return f"more than {WORDS[MOST]} are not tried"
    if count > room.trials_by_cpu:
        return f"{words} lack a CPU each"
    if room.most is not None and count > room.most:
        return f"--max-concurrent lets no GPU have {words}"
    if not readings:
        return ""
    needed = count * needed_by_one(readings)
    total = readings[0].total
    if needed > total:
        return f"{words} need {needed / _GIB:.1f} GiB with {_percent(MARGIN)} to spare"
    if len(readings) < count:
        return ""
    gain = readings[count - 1].images_per_s / readings[count - 2].images_per_s - 1
    if gain < LEAST_GAIN:
        found = "nothing" if gain <= 0 else _percent(gain)
        return f"{words} gain {found} over {WORDS[count - 1]}, less than {_percent(LEAST_GAIN)}"
    return ""


def needed_by_one(readings: Sequence[Reading]) -> float:
    """Bytes of the device that a trial needs: the largest peak with its margin, and the context of
    its process."""
    peak = max(each.memory for each in readings)
    return peak * (1 + MARGIN) + readings[0].context


def _decided(trials: int) -> str:
    return "one trial has a GPU" if trials == 1 else f"{trials} trials share a GPU"


def _text(readings: Sequence[Reading], trials: int, why: str) -> str:
    if not readings:
        return f"{_decided(trials)}, as {why}"
    memory = max(each.memory for each in readings) / _GIB
    rates = [f"{_rate(each)} for {WORDS[each.trainings]}" for each in readings]
    rates[0] = f"{_rate(readings[0])} images/s for one trial"
    total = readings[0].total / _GIB
    measured = f"{memory:.1f} of {total:.0f} GiB and {', '.join(rates)}"
    return f"{measured}: {_decided(trials)}, as {why}"


def _rate(reading: Reading) -> str:
    found = reading.images_per_s
    return f"{found:.0f}" if found >= 10 else f"{found:.2g}"


def _percent(part: float) -> str:
    return f"{100 * part:.3g} %"
