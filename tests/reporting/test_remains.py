from __future__ import annotations

from dataclasses import replace

import pytest

from study.analysis.answer import Answer, Confirmed
from study.analysis.rules import ARGMAX, TUNED
from study.analysis.statistics import Comparison, Interval
from study.reporting.remains import remaining_gains

Points = tuple[float, float, float]


def compared(points: Points | float) -> Comparison:
    """A comparison in points: (difference, low, high), or the difference alone."""
    if isinstance(points, float):
        return Comparison(points / 100, note="fewer than 3 seeds: no interval")
    difference, low, high = (point / 100 for point in points)
    return Comparison(difference, Interval(low, high), 0.5)


def config(source: str, family: str, argmax: Points | float, tuned: Points | float) -> Confirmed:
    """A config with these differences, the same for both metrics."""
    keys = {
        ARGMAX.test_miou: argmax, ARGMAX.test_macc: argmax,
        TUNED.test_miou: tuned, TUNED.test_macc: tuned,
    }  # fmt: skip
    levels = {
        ARGMAX.test_miou: 0.50, ARGMAX.test_macc: 0.60,
        TUNED.test_miou: 0.519, TUNED.test_macc: 0.65,
    }  # fmt: skip
    return Confirmed(
        source, source, family, source == "ce", False, ("x", "y", "z"), (1, 2, 3),
        {key: (level,) * 3 for key, level in levels.items()},
        {key: compared(points) for key, points in keys.items()} if source != "ce" else {}, {},
    )  # fmt: skip


def found(argmax: Points | float, tuned: Points | float, best: str = "recall") -> Answer:
    configs = (config("recall", "recall", argmax, tuned), config("ce", "ce", 0.0, 0.0))
    return Answer(
        "s", "camvid", "joint", configs, best, best, True, True, (), (),
        rules=(TUNED, ARGMAX), epochs=16,
    )  # fmt: skip


def test_what_remains_of_a_gain_stands_with_task_seeds_and_length() -> None:
    miou, macc = remaining_gains(found((6.3, 4.1, 8.5), (1.1, 0.2, 2.0)))
    assert miou == (
        "Of the +6.3 [+4.1, +8.5] points of test mIoU that `recall` gains over tuned cross entropy "
        "at argmax, +1.1 [+0.2, +2.0] remain when both are measured at their best decision rule "
        "(camvid, 3 seeds, 16 epochs)."
    )
    assert macc == miou.replace("mIoU", "mean accuracy")


@pytest.mark.parametrize(
    ("argmax", "tuned", "parts"),
    [
        ((6.3, 4.1, 8.5), (0.2, -0.7, 1.1), ["+0.2 [-0.7, +1.1] remain", "not told apart from 0"]),
        (
            (0.4, -0.5, 1.3),
            (-2.3, -3.2, -1.4),
            ["seems to gain", "none remain", "-2.3 [-3.2, -1.4], worse beyond the spread of seeds"],
        ),
        (
            (3.0, 2.1, 3.9),
            (-0.1, -1.0, 0.8),
            ["`recall` gains", "none remain", "is -0.1 [-1.0, +0.8], not told apart from 0"],
        ),
        (
            (1.7, 0.8, 2.6),
            (4.1, 3.2, 5.0),
            [
                "gains +1.7 [+0.8, +2.6] points of test mIoU over",
                "at argmax, and +4.1 [+3.2, +5.0]",
            ],
        ),
        (
            (-0.3, -1.2, 0.6),
            (0.9, 0.1, 1.7),
            [
                "gains nothing over tuned",
                "-0.3 [-1.2, +0.6]",
                "the difference is +0.9 [+0.1, +1.7]",
            ],
        ),
        (6.3, 1.1, ["Of the +6.3 points", "+1.1 remain", "fewer than 3 seeds: no interval"]),
    ],
)
def test_the_words_fit_the_sign_and_the_interval(
    argmax: Points | float, tuned: Points | float, parts: list[str]
) -> None:
    sentence = next(remaining_gains(found(argmax, tuned)))
    for part in parts:
        assert part in sentence
    assert ("not told apart" in sentence) == (
        not isinstance(tuned, float) and tuned[1] <= 0 <= tuned[2]
    )


def test_where_cross_entropy_wins_the_sentence_is_of_its_own_rule() -> None:
    miou, macc = remaining_gains(found((1.0, 0.5, 1.5), (-1.0, -1.5, -0.5), best="ce"))
    assert miou == (
        "None of 1 confirmed losses was better than tuned cross entropy on val when each is "
        "measured at its best decision rule; its own rule moves its test mIoU by +1.9 points from "
        "argmax (camvid, 3 seeds, 16 epochs)."
    )
    assert "on val and kept mIoU when" in macc and "mean accuracy by +5.0 points" in macc
    answer = found((1.0, 0.5, 1.5), (1.0, 0.5, 1.5), best="ce")
    alone = next(remaining_gains(replace(answer, configs=answer.configs[1:])))
    assert alone.startswith("No loss but cross entropy is confirmed")


def test_the_seeds_of_both_sides_are_counted() -> None:
    answer = found(1.0, 1.0)
    few = replace(answer.configs[0], seeds=(1, 2))
    sentence = next(remaining_gains(replace(answer, configs=(few, answer.configs[1]))))
    assert sentence.endswith("(camvid, 2 and 3 seeds, 16 epochs).")


def test_nothing_is_said_of_what_is_not_known() -> None:
    answer = found((6.3, 4.1, 8.5), (1.1, 0.2, 2.0))
    for lacking in (
        replace(answer, rules=(ARGMAX,)),
        replace(answer, confirmed=False),
        replace(answer, configs=answer.configs[:1]),
    ):
        assert list(remaining_gains(lacking)) == []
