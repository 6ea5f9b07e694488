"""Studies side by side: the numbers of each, and what forbids a comparison said on top."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledgers import CLASS_NAMES, make_study

from study import report
from study.analysis.comparable import differences
from study.reporting.compare import Side, compare, sides, write_comparison
from study.reporting.tables import percent, points
from study.storage.studies import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Side]:
    """Two studies on equal terms."""
    place = tmp_path_factory.mktemp("studies")
    folders = [make_study(place / name, rules=True, seed=n) for n, name in enumerate("ab")]
    return sides([(folder, load(folder)) for folder in folders])


def with_study(side: Side, **changed: Any) -> Side:
    state = replace(side.state)
    assert state.study is not None
    state.study = replace(state.study, **changed)
    return replace(side, state=state)


def page_of(place: Path, shown: list[Side]) -> str:
    page, *_ = write_comparison(place / "page.html", shown, compare(shown))
    return page.read_text(encoding="utf-8")


def records(path: Path) -> list[dict[str, str]]:
    return [*csv.DictReader(path.read_text(encoding="utf-8").splitlines())]


def test_studies_on_equal_terms_have_no_warning(pair: list[Side], tmp_path: Path) -> None:
    unlike = compare(pair)
    assert unlike.apart == () and unlike.limits == ()
    page = page_of(tmp_path, pair)
    assert "Equal terms" in page and "not comparable" not in page
    for side in pair:
        winner = side.answer.config(side.answer.best_miou)
        assert winner is not None and winner.label in page
        for key in ("test/tuned/miou", "test/tuned_macc/macc", "test/miou", "test/macc"):
            against = winner.versus[key]
            assert against.interval is not None
            interval = f"[{points(against.interval.low)}, {points(against.interval.high)}]"
            assert f"{points(against.difference)} {interval} points" in page


def test_the_csv_has_every_confirmed_config_of_every_study(
    pair: list[Side], tmp_path: Path
) -> None:
    page_of(tmp_path, pair)
    held = records(tmp_path / "page.csv")
    expected = [
        (side.name, config.source, rule.name)
        for side in pair
        for config in side.answer.configs
        for rule in side.answer.rules
    ]
    assert [(row["study"], row["trial"], row["rule"]) for row in held] == expected
    best = pair[1].answer.configs[0]
    row = next(row for row in held if (row["study"], row["trial"]) == ("b", best.source))
    assert float(row["test_miou"]) == best.mean("test/tuned/miou")


def test_the_classes_stand_side_by_side(pair: list[Side], tmp_path: Path) -> None:
    page = page_of(tmp_path, pair)
    for column in ("pixels", "a: reference", "a: winner", "b: gain"):
        assert f"<th>{column}</th>" in page
    held = records(tmp_path / "page_classes.csv")
    assert len(held) == 2 * len(CLASS_NAMES)
    for side in pair:
        for one in side.classes.rows:
            assert one.reference is not None
            assert f"<td>{percent(one.reference.iou, 1)}</td>" in page


def test_other_classes_have_no_table(pair: list[Side], tmp_path: Path) -> None:
    one, other = pair
    rows = tuple(replace(row, name=f"{row.name}s") for row in other.classes.rows)
    page = page_of(tmp_path, [one, replace(other, classes=replace(other.classes, rows=rows))])
    assert "the studies have other classes" in page
    assert not (tmp_path / "page_classes.csv").exists()


def changed_task(side: Side, **parts: Any) -> Side:
    assert side.state.study is not None
    return with_study(side, task={**side.state.study.task, **parts})


def changed_data(side: Side, **parts: Any) -> Side:
    assert side.state.study is not None
    return with_study(side, data={**side.state.study.data, **parts})


def with_size(side: Side) -> Side:
    assert side.state.study is not None
    return changed_task(side, data={**side.state.study.task["data"], "size": (32, 48)})


def with_epochs(side: Side) -> Side:
    assert side.state.study is not None
    return with_study(side, plan={**side.state.study.plan, "epochs": 80})


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("data", lambda side: changed_data(side, fingerprint="dead" * 16)),
        ("classes", lambda side: changed_data(side, class_names=[*CLASS_NAMES, "dog"])),
        ("image size", with_size),
        ("network", lambda side: changed_task(side, model={"arch": "fpn", "encoder": "resnet18"})),
        ("epochs of a confirmation", with_epochs),
        ("batch size", lambda side: changed_task(side, batch_size=5)),
        ("optimizer", lambda side: changed_task(side, optimizer={"name": "sgd", "lr": 0.1})),
        ("lr schedule", lambda side: changed_task(side, lr_schedule={"name": "cosine"})),
        ("augment", lambda side: changed_task(side, augment={"flip": 0.25})),
    ],
)
def test_what_is_not_equal_is_said_on_top(
    pair: list[Side], tmp_path: Path, what: str, change: Callable[[Side], Side]
) -> None:
    shown = [pair[0], change(pair[1])]
    apart = compare(shown).apart
    assert [line.partition(":")[0] for line in apart] == [what]
    assert "(a)" in apart[0] and "(b)" in apart[0]
    page = page_of(tmp_path, shown)
    assert page.index("not comparable") < page.index(f"<li>{what}:") < page.index("<table")


def test_a_study_without_measured_rules_is_ranked_by_another_metric(
    pair: list[Side], tmp_path: Path
) -> None:
    folder = make_study(tmp_path / "old")
    shown = [*pair, *sides([(folder, load(folder))])]
    (line,) = compare(shown).apart
    assert line == "metric that ranks: val/tuned/miou (a, b); val/miou (old)"
    assert "<th>test mIoU, tuned rule</th>" in page_of(tmp_path, shown)


def test_a_setting_at_its_default_is_no_difference(pair: list[Side]) -> None:
    assert compare([pair[0], changed_task(pair[1], deterministic=False)]).apart == ()


def test_what_limits_a_comparison_is_told_apart_from_what_forbids_it(pair: list[Side]) -> None:
    renamed = with_study(pair[1], task_name="town")
    unlike = compare([pair[0], renamed])
    assert unlike.apart == ()
    assert unlike.limits == ("name of the task: synthetic (a); town (b)",)


@pytest.mark.parametrize("until", ["start", "baselines", "search", "select"])
def test_a_study_without_confirmations_is_shown_with_what_it_has(
    pair: list[Side], tmp_path: Path, until: str
) -> None:
    folder = make_study(tmp_path / "young", rules=True, until=until)
    shown = [*sides([(folder, load(folder))]), pair[0]]
    page = page_of(tmp_path, shown)
    assert "not confirmed yet" in page
    assert ("best so far by one seed on val" in page) == (until != "start")
    assert ("nothing is known yet of young" in page) == (until == "start")
    first, *_ = records(tmp_path / "page.csv")
    assert (first["study"], first["confirmed"], first["test_miou"]) == ("young", "False", "")
    assert differences({side.name: (side.state, side.answer) for side in shown}).limits


def test_the_command_writes_the_page_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        make_study(tmp_path / "studies" / name, until="baselines")
    before = sorted((tmp_path / "studies").rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert report.main(["a", "b"]) == 0
    assert (tmp_path / "compare.html").is_file() and (tmp_path / "compare.csv").is_file()
    assert "side by side: compare.html" in capsys.readouterr().out
    assert report.main(["a", "studies/b", "--out", "other/page.html"]) == 0
    assert (tmp_path / "other" / "page_classes.csv").is_file()
    assert sorted((tmp_path / "studies").rglob("*")) == before, "no study is changed"


def test_studies_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [make_study(tmp_path / place / "demo", until="baselines") for place in "ab"]
    shown = sides([(folder, load(folder)) for folder in folders])
    assert [side.name for side in shown] == [str(folder) for folder in folders]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a", "a"], "NAME: the study 'a' is named twice"),
        (["a", "./a"], "NAME: the study './a' is named twice"),
        (["a", "c"], "no study named 'c' in ./"),
        (["a", "b", "--out", "page.txt"], "--out: must end with .html, got 'page.txt'"),
        (["a", "--out", "page.html"], "--out: is for several studies"),
        (["a", "b", "--picture", "all.png"], "--picture: is of one study"),
        (["a", "b", "--price-per-gpu-hour", "-1"], "--price-per-gpu-hour: must be a number"),
        (["a", "b", "--price-per-gpu-hour", "nan"], "--price-per-gpu-hour: must be a number"),
    ],
)
def test_wrong_input_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    said: str,
) -> None:
    for name in ("a", "b"):
        make_study(tmp_path / name, until="start")
    monkeypatch.chdir(tmp_path)
    assert report.main([*given, "--storage", "."]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {said}") and told.count("\n") == 1
    assert not list(tmp_path.glob("*.html"))
