"""How well a proxy foretells its target: on made-up values of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import CLASS_NAMES, make_study

from study.analysis.answer import Answer, answer
from study.analysis.classes import classes, classes_so_far
from study.analysis.proxy import Foretold, foretold
from study.core.names import CONFIRM, SEARCH
from study.ledger.records import ReportRecord, TrialRecord
from study.ledger.state import State, Trial
from study.reporting.class_table import class_explanation
from study.reporting.html import results_csv, write_page
from study.reporting.tables import conclusions, title
from study.storage.studies import load

VAL, MACC, TEST = "val/tuned/miou", "val/tuned_macc/macc", "test/tuned/miou"
FRACTIONS = [0.01, 0.30, 0.20, 0.15, 0.14, 0.1, 0.06, 0.04]


def compared(
    proxy: Sequence[float],
    val: Sequence[float],
    test: Sequence[Sequence[float]],
    objectives: Sequence[str] = (VAL,),
) -> Foretold | None:
    """Configs with these values: of the proxy, the mean of the target, and of test by seed."""
    state = State()
    for index, number in enumerate(proxy):
        state.apply(TrialRecord(f"p{index}", 0, SEARCH, f"loss {index}", "x", None, {}, 0))
        state.apply(ReportRecord(f"p{index}", 0, 8, {VAL: number, MACC: 1 - number}))
    judged: dict[str, list[Trial]] = {}
    for index, seeds in enumerate(test):
        for seed, number in enumerate(seeds):
            name, spread = f"c{index}-{seed}", 0.2 * (seed - (len(seeds) - 1) / 2)
            record = TrialRecord(name, 0, CONFIRM, "x", "x", None, {}, seed, source=f"p{index}")
            state.apply(record)
            values = {VAL: val[index] + spread, MACC: val[index] + spread, TEST: number}
            state.apply(ReportRecord(name, 0, 3, values))
            judged.setdefault(f"p{index}", []).append(state.trials[name])
    sources = [state.trials[f"p{index}"] for index in range(len(proxy))]
    best = max((i for i in range(len(test)) if test[i]), key=lambda index: val[index])
    return foretold(sources, judged, sources[best], objectives=objectives, val=VAL, test=TEST)


def test_the_rank_correlation_is_of_the_proxys_val_with_the_mean_of_the_targets() -> None:
    proxy, target = [0.30, 0.40, 0.50, 0.60, 0.70], [0.8, 0.2, 0.5, 0.6, 0.9]
    found = compared(proxy, target, [[0.5, 0.5]] * 5, (VAL, MACC))
    assert found is not None
    # ranks 1 2 3 4 5 and 4 1 2 3 5: differences 3 1 1 1 0, and 1 - 6 * 12 / (5 * 24) = 0.4
    assert found.correlations == pytest.approx({VAL: 0.4, MACC: -0.4})
    assert found.configs == 5


def test_equal_values_share_a_rank() -> None:
    found = compared([0.3, 0.3, 0.5], [0.1, 0.2, 0.3], [[0.5]] * 3)
    assert found is not None
    assert found.correlations[VAL] == pytest.approx(0.75**0.5)


def test_the_regret_is_of_test_on_the_target_paired_by_seed() -> None:
    test = [[0.50, 0.54, 0.60], [0.58, 0.60, 0.68], [0.9, 0.9, 0.9]]
    found = compared([0.7, 0.6, 0.5], [0.4, 0.6, 0.5], test)
    assert found is not None and found.regret is not None
    assert (found.pick.id, found.best.id) == ("p0", "p1"), "val chooses, test does not"
    assert found.regret.difference == pytest.approx((0.08 + 0.06 + 0.08) / 3)
    assert found.regret.interval is not None
    assert found.regret.interval.low < found.regret.difference < found.regret.interval.high


def test_a_regret_may_be_below_none_where_val_and_test_disagree() -> None:
    found = compared([0.7, 0.6, 0.5], [0.4, 0.6, 0.5], [[0.6], [0.5], [0.5]])
    assert found is not None and found.regret is not None
    assert found.regret.difference == pytest.approx(-0.1)
    assert found.regret.interval is None


@pytest.mark.parametrize(
    ("proxy", "target"),
    [([0.3, 0.4], [0.3, 0.4]), ([0.3, 0.3, 0.3], [0.3, 0.4, 0.5]), ([0.3, 0.4, 0.5], [0.3] * 3)],
    ids=["two configs", "equal on the proxy", "equal on the target"],
)
def test_without_ranks_there_is_no_correlation(proxy: list[float], target: list[float]) -> None:
    found = compared(proxy, target, [[0.5, 0.5]] * len(proxy))
    assert found is not None
    assert found.correlations == {}
    assert found.configs == len(proxy)


def test_a_pick_that_failed_on_the_target_is_still_the_pick() -> None:
    found = compared([0.7, 0.6, 0.5], [0.9, 0.6, 0.5], [[], [0.5], [0.5]])
    assert found is not None
    assert (found.pick.id, found.best.id, found.configs, found.regret) == ("p0", "p1", 2, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose confirmations are on a target, with other frequencies of the classes."""
    return make_study(tmp_path_factory.mktemp("proxy") / "s", rules=True, target=FRACTIONS)


@pytest.fixture(scope="module")
def found(folder: Path) -> Answer:
    return answer(load(folder), folder)


def test_the_answer_says_how_the_rankings_compare_and_what_the_pick_costs(found: Answer) -> None:
    assert title(found) == "s: joint on town, searched on its proxy synthetic"
    said = [
        line for line in conclusions(found) if line.startswith("proxy synthetic, target town: ")
    ]
    assert found.foretold is not None
    rhos = found.foretold.correlations
    assert list(rhos) == [VAL, MACC]
    assert f"over {len(found.configs)} confirmed configs is {rhos[VAL]:+.2f} by {VAL}, " in said[0]
    assert found.foretold.pick.id in said[1] and "regret" in said[1]
    assert "warning: target town: the fog is thick" in list(conclusions(found))


def foretold_lines(found: Answer, **changes: object) -> list[str]:
    assert found.foretold is not None
    changed = replace(found, foretold=replace(found.foretold, **changes))  # type: ignore[arg-type]
    return [line for line in conclusions(changed) if line.startswith("proxy ")]


def test_too_few_configs_are_said_plainly(found: Answer) -> None:
    first, _ = foretold_lines(found, configs=2, correlations={})
    assert first.endswith(
        ": 2 confirmed configs, too few for a rank correlation of the two tasks' val"
    )
    first, _ = foretold_lines(found, configs=0, correlations={})
    assert ": no confirmed configs, too few" in first


def test_a_pick_without_figures_and_one_without_regret_are_said_plainly(found: Answer) -> None:
    assert found.foretold is not None
    other = found.foretold.pick
    assert foretold_lines(found, pick=other, best=other)[1].endswith("too: no regret")
    stranger = replace(other, id="t9999")
    assert foretold_lines(found, pick=stranger, regret=None)[1].endswith("no regret is known")


def test_the_classes_are_those_of_the_targets_training_data(folder: Path, found: Answer) -> None:
    state = load(folder)
    table = classes(state, folder, found)
    assert [row.name for row in table.rows][:2] == [CLASS_NAMES[0], CLASS_NAMES[7]]
    assert [row.share for row in table.rows] == sorted(FRACTIONS)
    confirmed = {config.source: config for config in found.configs}
    for row in table.rows:
        assert row.best is not None
        source, _, iou = row.best
        assert iou == confirmed[source].mean(f"val/tuned/iou/{row.name}")
    before = classes_so_far(state)
    assert before.rows[0].name == CLASS_NAMES[7], "as rare as on the proxy"
    assert class_explanation(before).split(", ")[-2].endswith("of the proxy synthetic")


def test_the_csv_of_trials_names_the_task_of_each(folder: Path) -> None:
    state = load(folder)
    head, *rows = [line.split(",") for line in results_csv(state).splitlines()]
    place, stage = head.index("task"), head.index("stage")
    plain = [row for row in rows if '"' not in ",".join(row[: place + 1])]
    assert {(row[stage] == CONFIRM, row[place]) for row in plain} == {
        (True, "town"),
        (False, "synthetic"),
    }


@pytest.mark.slow
def test_the_report_tells_the_tasks_apart(folder: Path, found: Answer) -> None:
    page = write_page(folder, load(folder), found, "no weights").read_text(encoding="utf-8")
    assert "those of stage confirm on town, all others on its proxy synthetic" in page
    assert "proxy synthetic, target town: " in page
