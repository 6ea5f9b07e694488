from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import make_study
from rich.console import Console

from study.analysis.ablation import Ablated, Effect
from study.analysis.answer import Answer, answer
from study.analysis.longer import LadderEntry, Longer
from study.analysis.statistics import Comparison, Interval
from study.reporting import tables
from study.reporting.remains import remaining_gains
from study.reporting.tables import conclusions, p_value, plain_table, points, print_answer, rows
from study.storage.studies import load


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    folder = make_study(tmp_path_factory.mktemp("studies") / "demo")
    return answer(load(folder), folder)


@pytest.mark.slow
def test_a_row_says_what_a_config_is_and_how_it_compares(found: Answer) -> None:
    by_trial = {row[1]: row for row in rows(found)}
    assert [row[1] for row in rows(found)] == [config.source for config in found.configs]
    reference, best = found.reference, found.config(found.best_miou)
    assert reference is not None and best is not None
    assert by_trial[reference.source][0] == f"{reference.label} (tuned CE)"
    assert by_trial[reference.source][5:7] == ("reference", "")
    row = by_trial[best.source]
    against = best.versus["test/miou"]
    assert against.interval is not None
    assert "(best mIoU" in row[0]
    assert row[4] == f"{100 * best.mean('test/miou'):.2f} ± {100 * best.sd('test/miou'):.2f}"
    assert row[5] == (
        f"{100 * against.difference:+.2f} "
        f"[{100 * against.interval.low:+.2f}, {100 * against.interval.high:+.2f}]"
    )


def test_the_plain_table_is_aligned_and_without_escapes(found: Answer) -> None:
    out = io.StringIO()
    print_answer(found, out)
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()
    column = lines[0].index("trial")
    for line, config in zip(lines[1:], found.configs, strict=False):
        assert line[column:].startswith(config.source)
    assert plain_table(found) in out.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_table_keeps_its_figures_whole(found: Answer, width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(tables.table(found))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= width
    for row in rows(found):
        for cell in (row[4], row[5], row[7], row[8]):
            assert cell in shown


@pytest.mark.parametrize("width", [40, 50, 64, 80, 140])
def test_a_narrow_terminal_shows_every_config_and_its_figures(
    found: Answer, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = io.StringIO()
    print_answer(found, out)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert max(map(len, shown.partition("Ranked by")[0].splitlines())) <= width
    for row in rows(found):
        assert row[1] in shown
        for cell in (row[3], row[4], row[5], row[7], row[8]):
            assert cell in shown
    assert ("┃" in shown) == (width >= 80)


def test_the_gains_over_both_cross_entropies_are_one_line(found: Answer) -> None:
    line = next(line for line in conclusions(found) if line.startswith("best_miou"))
    for over in (found.reference, found.default_ce):
        gain = found.gain(found.best_miou, over, "test/miou")
        assert gain is not None
        assert f"{100 * gain.absolute:+.2f} points ({100 * gain.relative:+.1f} %)" in line


@pytest.mark.parametrize(
    ("until", "said"),
    [
        ("start", ["missing: no trial has"]),
        (
            "search",
            [
                "best so far",
                "cross entropy tuned over 4 learning rates: x0.5 ",
                "missing: the search is not over",
            ],
        ),
    ],
)
def test_an_unfinished_study_says_what_is_missing(
    tmp_path: Path, until: str, said: list[str]
) -> None:
    folder = make_study(tmp_path / "demo", until=until)
    out = io.StringIO()
    print_answer(answer(load(folder), folder), out)
    assert len(out.getvalue().splitlines()) == len(said)
    for line in said:
        assert line in out.getvalue()


def test_two_seeds_show_no_interval_and_the_reason(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "demo", num_seeds=2)
    found = answer(load(folder), folder)
    assert not any("[" in cell for row in rows(found) for cell in row)
    assert "note: fewer than 3 seeds: no interval" in list(conclusions(found))


def test_small_numbers_are_not_rounded_to_nothing() -> None:
    assert p_value(0.0004) == "<0.001"
    assert p_value(0.04567) == "0.046"
    assert p_value(None) == ""
    assert points(0.01234) == "+1.23"
    assert tables.percent(float("nan")) == "-"


def test_where_cross_entropy_is_best_it_is_said_among_what(found: Answer) -> None:
    assert found.reference is not None
    source = found.reference.source
    lines = list(conclusions(replace(found, best_miou=source, best_macc=source)))
    assert lines[0].endswith(
        "it is tuned cross entropy: none of 2 confirmed losses was better on val"
    )
    assert lines[1].endswith("none of 2 confirmed losses was better on val and kept mIoU")
    alone = tuple(config for config in found.configs if config.family == "ce")
    lines = list(conclusions(replace(found, configs=alone, best_miou=source, best_macc=source)))
    assert "it is tuned cross entropy, and no other loss is confirmed" in lines[0]


def test_a_reference_that_was_not_tuned_is_not_called_so(found: Answer) -> None:
    untuned = replace(found, tuned=False, ladder=())
    said = "\n".join([*conclusions(untuned), plain_table(untuned)])
    assert "tuned" not in said
    assert "over default cross entropy, not told apart from default cross entropy" in said
    assert "tuned" in "\n".join([*conclusions(found), plain_table(found)])


def test_a_config_is_named_by_its_trial_and_its_failed_seeds_are_counted(found: Answer) -> None:
    best = found.config(found.best_miou)
    assert best is not None
    assert next(conclusions(found)).startswith(f"best_miou: {best.label} ({best.source}), test")
    failing = replace(best, failed=(9,))
    shown = replace(found, configs=(failing,))
    assert rows(shown)[0][2] == "3, 1 failed"
    console = Console(file=io.StringIO(), width=140)
    console.print(tables.table(shown))
    assert "3 seeds, 1 failed" in console.file.getvalue()  # type: ignore[attr-defined]


def test_without_a_reference_a_line_ends_with_the_figure(found: Answer) -> None:
    best = found.config(found.best_miou)
    assert best is not None
    alone = replace(found, configs=(replace(best, versus={}),))
    figure = tables.with_sd(best, "test/miou")
    assert next(conclusions(alone)) == (
        f"best_miou: {best.label} ({best.source}), test mIoU {figure}"
    )


def test_nothing_is_called_best_before_it_is_confirmed(found: Answer) -> None:
    early = replace(found, confirmed=False)
    assert not any("best" in row[0] for row in rows(early))
    assert not any(tables.is_best(config, early) for config in early.configs)
    assert any(tables.is_best(config, found) for config in found.configs)


@pytest.fixture(scope="module")
def two_rules(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    folder = make_study(tmp_path_factory.mktemp("studies") / "demo", rules=True)
    return answer(load(folder), folder)


@pytest.mark.slow
def test_every_config_has_a_row_for_each_rule(two_rules: Answer) -> None:
    shown = rows(two_rules)
    assert [(row[1], row[3]) for row in shown] == [
        (config.source, rule) for config in two_rules.configs for rule in ("tuned rule", "argmax")
    ]
    for config, tuned, argmax in zip(two_rules.configs, shown[::2], shown[1::2], strict=True):
        assert tuned[4] == tables.percent(config.mean("val/tuned/miou"))
        assert argmax[4] == tables.percent(config.mean("val/miou"))
        for row, miou, macc in (
            (tuned, "test/tuned/miou", "test/tuned_macc/macc"),
            (argmax, "test/miou", "test/macc"),
        ):
            assert row[5:7] == (tables.with_sd(config, miou), tables.versus(config, miou))
            assert row[8:10] == (tables.with_sd(config, macc), tables.versus(config, macc))
        assert tuned[11] == tables.percent(config.mean("test/tuned/mprec"))
        assert argmax[11] == tables.percent(config.mean("test/mprec"))
        assert tuned[12] == f"{config.mean('test/nll'):.3f}"
        assert tuned[13] == tables.percent(config.mean("test/calibration_error"))
    assert {len(row) for row in shown} == {len(tables.columns(two_rules))}


@pytest.mark.slow
def test_a_wide_row_has_the_rules_side_by_side(two_rules: Answer) -> None:
    heads = tables.wide_columns(two_rules)
    for config, row in zip(two_rules.configs, tables.wide_rows(two_rules), strict=True):
        cells = dict(zip(heads, row, strict=True))
        for head, key in (
            ("test mIoU, tuned rule", "test/tuned/miou"),
            ("test mIoU, argmax", "test/miou"),
            ("test mAcc, tuned rule", "test/tuned_macc/macc"),
            ("test mAcc, argmax", "test/macc"),
        ):
            lines = cells[head].split("\n")
            assert lines[:2] == [tables.with_sd(config, key), tables.versus(config, key)]


@pytest.mark.slow
@pytest.mark.parametrize("width", [40, 80, 140])
def test_both_rules_fit_a_terminal(
    two_rules: Answer, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = io.StringIO()
    print_answer(two_rules, out)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).partition("Ranked by")[0]
    assert max(map(len, shown.splitlines())) <= width
    for row in rows(two_rules):
        for cell in row[3:7] + row[8:10] + row[11:13]:
            assert cell in shown
    assert ("┃" in shown) == (width > 40)


@pytest.mark.slow
def test_the_figures_of_a_rule_stand_in_the_line_of_its_name(two_rules: Answer) -> None:
    console = Console(file=io.StringIO(), width=140)
    console.print(tables.table(two_rules))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    for row in rows(two_rules):
        assert any(row[3] in line and row[5] in line and row[8] in line for line in lines)


@pytest.mark.slow
def test_the_conclusions_judge_both_rules_and_name_what_limits_them(two_rules: Answer) -> None:
    lines = list(conclusions(replace(two_rules, notes=("tau at the edge",))))
    assert [line.split("`")[0] for line in lines[:2]] == [
        line.split("`")[0] for line in remaining_gains(two_rules)
    ]
    best = two_rules.config(two_rules.best_miou)
    assert best is not None
    for rule, key in (("at its tuned rule", "test/tuned/miou"), ("at argmax", "test/miou")):
        assert any(
            line.startswith("best_miou") and f"test mIoU {rule} {tables.with_sd(best, key)}" in line
            for line in lines
        )
    assert "note: tau at the edge" in lines


@pytest.mark.slow
def test_the_explanation_names_what_the_study_has(found: Answer, two_rules: Answer) -> None:
    for word in ("tuned rule", "nll", "calibration", "which describes"):
        assert word in tables.explanation(two_rules)
        assert word not in tables.explanation(found)


def test_a_note_of_the_answer_is_a_conclusion(found: Answer) -> None:
    said = list(conclusions(replace(found, notes=("it was rising",))))
    assert said.count("note: it was rising") == 1


def test_a_longer_budget_is_a_sentence_of_the_answer(two_rules: Answer) -> None:
    worse = Longer(
        4, Comparison(0.105, Interval(0.09, 0.12)), Comparison(-0.014, Interval(-0.03, -0.001)), 3
    )
    open_ = replace(worse, budget=2, gain=Comparison(0.002, Interval(-0.01, 0.014)))
    found = replace(two_rules, longer=(open_, worse), ablation_of="inverse_sqrt", epochs=8)
    said = [text for text in conclusions(found) if "times the budget adds" in text]
    assert said == [
        "2 times the budget adds +10.5 [+9.0, +12.0] points of test mIoU to "
        f"{found.reference_name}; `inverse_sqrt` with as much training differs from it by +0.2 "
        "[-1.0, +1.4], both at their best decision rule, not told apart from 0 "
        f"({found.task}, 3 seeds, 16 epochs).",
        "4 times the budget adds +10.5 [+9.0, +12.0] points of test mIoU to "
        f"{found.reference_name}; `inverse_sqrt` with as much training differs from it by -1.4 "
        "[-3.0, -0.1], both at their best decision rule, worse beyond the spread of seeds "
        f"({found.task}, 3 seeds, 32 epochs).",
    ]
    assert not [text for text in conclusions(two_rules) if "times the budget" in text]


def test_the_ladder_is_shown_line_by_line(found: Answer) -> None:
    entries = (
        LadderEntry("default", 0.4, 3),
        LadderEntry("tuned", 0.41, 1, Comparison(0.01)),
        LadderEntry("longer", 0.45, 3, Comparison(0.04, Interval(0.01, 0.07))),
    )
    said = list(conclusions(replace(found, ladder=entries)))
    start = next(index for index, text in enumerate(said) if text.startswith("ladder"))
    assert said[start + 1 : start + 4] == [
        "- default: 40.00, 3 seeds",
        "- tuned: 41.00, 1 seed, step +1.00",
        "- longer: 45.00, 3 seeds, step +4.00 [+1.00, +7.00]",
    ]
    assert not any(text.startswith("ladder") for text in conclusions(replace(found, ladder=())))


def test_the_ablation_is_shown_line_by_line_with_its_verdicts(found: Answer) -> None:
    gain = Comparison(0.02, Interval(0.01, 0.03))
    harm = Comparison(-0.02, Interval(-0.03, -0.01))
    none = Comparison(0.02, Interval(-0.01, 0.05))
    parts = (
        Ablated("recall", 3, Effect(0.40, gain), Effect(0.50, harm)),
        Ablated("class weights", 1, Effect(0.41, none), Effect(0.52, Comparison(0.01))),
    )
    assert not any("switched off" in line for line in conclusions(found))
    said = list(conclusions(replace(found, ablation=parts, ablation_of="the winner")))
    (start,) = (index for index, line in enumerate(said) if "switched off" in line)
    assert said[start].startswith("the winner, each of its parts")
    assert "95 % interval of each by itself" in said[start]
    assert said[start + 1 : start + 3] == [
        "- without recall: mIoU 40.00, it adds +2.00 [+1.00, +3.00]: earns its place; "
        "mean accuracy 50.00, it adds -2.00 [-3.00, -1.00]: does harm; 3 seeds",
        "- without class weights: mIoU 41.00, it adds +2.00 [-1.00, +5.00]: not told apart from "
        "none; mean accuracy 52.00, it adds +1.00; 1 seed",
    ]
