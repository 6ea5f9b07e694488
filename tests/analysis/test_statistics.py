from __future__ import annotations

import math

import numpy as np
import pytest

from study.analysis.statistics import Comparison, compare, mean, sd, spreads_apart

# Blood counts of animals under two drugs and of a control group: Dunnett (1955), table 1.
CONTROL = [7.40, 8.50, 7.20, 8.24, 9.84, 8.32]
DRUG_A = [9.76, 8.80, 7.68, 9.36]
DRUG_B = [12.80, 9.68, 12.16, 9.20, 10.55]


def half_width(comparison: Comparison) -> float:
    assert comparison.interval is not None
    return (comparison.interval.high - comparison.interval.low) / 2


def test_dunnetts_own_example() -> None:
    found = compare({"a": DRUG_A, "b": DRUG_B}, CONTROL)
    assert found["a"].p == pytest.approx(0.620, abs=0.002)
    assert found["b"].p == pytest.approx(0.0059, abs=0.0003)
    assert found["a"].difference == pytest.approx(8.90 - 8.25)
    assert found["b"].interval is not None and found["b"].interval.low > 0


@pytest.mark.parametrize(("num_candidates", "tabulated"), [(1, 2.776), (2, 2.86), (3, 2.88)])
def test_intervals_have_the_tabulated_critical_value(num_candidates: int, tabulated: float) -> None:
    """Two-sided 5 %, three values each: d of Dunnett (1964) at 4, 6 and 8 degrees of freedom."""
    values = [-1.0, 0.0, 1.0]  # pooled sd 1, so that the half width is d * sqrt(2 / 3)
    found = compare({str(i): values for i in range(num_candidates)}, values)
    for comparison in found.values():
        assert half_width(comparison) / math.sqrt(2 / 3) == pytest.approx(tabulated, abs=0.01)


def test_the_intervals_of_a_study_hold_together_in_95_percent() -> None:
    rng = np.random.default_rng(1)
    groups = rng.normal(size=(4000, 4, 3))  # three candidates and the control, three seeds, no gain
    pooled = np.sqrt(groups.var(axis=2, ddof=1).mean(axis=1))
    first = compare({str(i): list(groups[0, i]) for i in range(3)}, list(groups[0, 3]))
    critical = half_width(first["0"]) / pooled[0]
    means = groups.mean(axis=2)
    differences = np.abs(means[:, :3] - means[:, 3:])
    covered = (differences <= critical * pooled[:, None]).all(axis=1).mean()
    assert covered == pytest.approx(0.95, abs=0.01)


def test_a_spread_unlike_the_others_is_noted_and_changes_no_figure() -> None:
    even = [-1.0, 0.0, 1.0]
    plain = compare({"a": even, "b": even}, even)
    assert {comparison.note for comparison in plain.values()} == {""}
    for loud, groups, control in (
        ("a", {"a": [-5.0, 0.0, 5.0], "b": even}, even),
        ("the reference", {"a": even, "b": even}, [-5.0, 0.0, 5.0]),
    ):
        found = compare(groups, control)
        for comparison in found.values():
            assert comparison.note.startswith(f"{loud} spreads over seeds far more than the others")
            pooled = math.sqrt((25 + 1 + 1) / 3)
            assert half_width(comparison) == pytest.approx(half_width(plain["a"]) * pooled)


@pytest.mark.parametrize(
    ("ratio", "num_others", "noted"),
    [
        (9.9, 1, False),
        (10.0, 1, True),
        (4.2, 2, False),
        (4.3, 2, True),
        (3.2, 3, False),
        (3.4, 3, True),
    ],
)
def test_a_spread_is_noted_from_the_one_percent_point_of_f(
    ratio: float, num_others: int, noted: bool
) -> None:
    """F(2, 2), F(2, 4), F(2, 6) at 0.99: 99.0, 18.0, 10.92."""
    others = {str(index): [-1.0, 0.0, 1.0] for index in range(num_others)}
    assert spreads_apart({"a": [-ratio, 0.0, ratio], **others}) == ["a"] * noted


def test_the_same_values_give_the_same_digits() -> None:
    assert compare({"a": DRUG_A, "b": DRUG_B}, CONTROL) == compare(
        {"a": DRUG_A, "b": DRUG_B}, CONTROL
    )


def test_a_p_below_five_percent_goes_with_an_interval_without_zero() -> None:
    rng = np.random.default_rng(3)
    for shift in (0.0, 1.5, 3.0, 6.0):
        control = list(rng.normal(size=3))
        (found,) = compare({"a": list(rng.normal(shift, 1, 3))}, control).values()
        assert found.interval is not None and found.p is not None
        assert (found.p < 0.05) == (found.interval.low > 0 or found.interval.high < 0)


def test_fewer_than_three_seeds_have_no_interval() -> None:
    found = compare({"a": [0.5, 0.6], "b": [0.5, 0.6, 0.7]}, [0.4, 0.5, 0.6])
    assert found["a"].interval is None and found["a"].p is None
    assert found["a"].difference == pytest.approx(0.05)
    assert "fewer than 3 seeds" in found["a"].note
    assert found["b"].interval is not None and not found["b"].note
    few = compare({"b": [0.5, 0.6, 0.7]}, [0.4, 0.5])["b"]
    assert few.interval is None and "fewer than 3 seeds" in few.note


def test_values_without_spread_have_no_interval() -> None:
    found = compare({"a": [0.5, 0.5, 0.5]}, [0.4, 0.4, 0.4])["a"]
    assert found.interval is None and found.p is None and "spread" in found.note
    assert found.difference == pytest.approx(0.1)


def test_mean_and_sd() -> None:
    assert mean([1.0, 2.0, 6.0]) == 3.0
    assert sd([1.0, 2.0, 6.0]) == pytest.approx(math.sqrt(7.0))
    assert math.isnan(sd([1.0])) and math.isnan(mean([]))
