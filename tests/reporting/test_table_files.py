"""The tables of a report as files, and the answer's numbers for programs."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from ledgers import CLASS_NAMES, make_study

from study.analysis.answer import Answer, answer
from study.analysis.classes import classes
from study.ledger.state import State
from study.reporting.table_files import latex, markdown, summary, write_tables
from study.reporting.tables import conclusions, rows
from study.storage.studies import load


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State, Answer]:
    folder = make_study(tmp_path_factory.mktemp("studies") / "demo", rules=True)
    state = load(folder)
    found = answer(state, folder)
    write_tables(folder, found, classes(state, folder, found))
    return folder, state, found


def table(path: Path) -> list[dict[str, str]]:
    return [*csv.DictReader(path.read_text(encoding="utf-8").splitlines())]


def test_the_confirmed_configs_by_rule_with_all_that_is_known(
    made: tuple[Path, State, Answer],
) -> None:
    folder, _, found = made
    held = table(folder / "tables" / "confirmed.csv")
    expected = [(config, rule) for config in found.configs for rule in found.rules]
    assert len(held) == len(expected) > 2
    for row, (config, rule) in zip(held, expected, strict=True):
        assert (row["config"], row["trial"]) == (config.label, config.source)
        assert (row["rule"], int(row["seeds"])) == (rule.name, len(config.seeds))
        for key, short in ((rule.test_miou, "test_miou"), (rule.test_macc, "test_macc")):
            values = config.metrics[key]
            assert float(row[short]) == pytest.approx(np.mean(values))
            assert float(row[f"{short}_sd"]) == pytest.approx(np.std(values, ddof=1))
            against = config.versus.get(key)
            if against is None:
                assert config.is_reference and row[f"{short}_gain"] == ""
            else:
                assert against.interval is not None
                interval = (float(row[f"{short}_gain_low"]), float(row[f"{short}_gain_high"]))
                assert interval == (against.interval.low, against.interval.high)
                assert float(row[f"{short}_gain"]) == against.difference


def test_the_classes(made: tuple[Path, State, Answer]) -> None:
    folder, state, found = made
    held = table(folder / "tables" / "classes.csv")
    assert {row["class"] for row in held} == {*CLASS_NAMES}
    for row, of in zip(held, classes(state, folder, found).rows, strict=True):
        assert row["class"] == of.name and float(row["train_fraction"]) == of.share
        assert of.winner is not None and float(row["winner_iou"]) == of.winner.iou


def test_the_same_as_markdown_and_latex(made: tuple[Path, State, Answer]) -> None:
    folder, _, found = made
    for name, count in (("confirmed", len(rows(found))), ("classes", len(CLASS_NAMES))):
        lines = (folder / "tables" / f"{name}.md").read_text(encoding="utf-8").splitlines()
        assert len(lines) == count + 2
        bars = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(bars) == 1, "each line has all cells"
        body = (folder / "tables" / f"{name}.tex").read_text(encoding="utf-8")
        cells = {len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines() if "&" in line}
        assert len(cells) == 1 and body.count(r"\\") == count + 1


def test_text_with_marks_of_its_own() -> None:
    cells = [("a|b_c*", "50 % ± 2"), ("x & $y^2$\n\\z", "<b>")]
    assert markdown(("k", "v"), cells).splitlines()[2:] == [
        r"| a\|b\_c\* | 50 % ± 2 |",
        r"| x & $y^2$; \\z | \<b\> |",
    ]
    assert latex(("k", "v"), cells).splitlines()[4:6] == [
        r"a|b\_c* & 50 \% $\pm$ 2 \\",
        r"x \& \$y\textasciicircum{}2\$; \textbackslash{}z & $<$b$>$ \\",
    ]


def test_the_answer_for_programs(made: tuple[Path, State, Answer]) -> None:
    folder, _, found = made
    told = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    assert told == summary(found)
    best = found.config(found.best_miou)
    assert best is not None and told["best_miou"] == best.label and told["confirmed"]
    numbers = told["metrics"]
    assert numbers["best_miou/test/tuned/miou"] == best.mean("test/tuned/miou")
    assert numbers["best_miou/seeds"] == len(best.seeds)
    assert numbers["best_miou/test/tuned/miou/gain"] == best.versus["test/tuned/miou"].difference
    assert "reference/test/miou" in numbers
    assert not any(key.startswith("reference/") and "gain" in key for key in numbers)
    assert told["conclusions"] == [*conclusions(found)]


def test_before_a_confirmation_there_is_no_table(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "demo", rules=True, until="search")
    state = load(folder)
    found = answer(state, folder)
    (folder / "tables").mkdir()
    (folder / "tables" / "confirmed.md").write_text("of an earlier state")
    write_tables(folder, found, classes(state, folder, found))
    assert not (folder / "tables" / "confirmed.md").exists()
    told = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    assert (told["confirmed"], told["table"], told["metrics"]) == (False, "", {})
