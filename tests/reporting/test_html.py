from __future__ import annotations

import csv
import html.parser
import io
import itertools
import json
import re
import shutil
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ledgers import CLASS_NAMES, chained, make_study

from study import report as report_command
from study.analysis import evidence
from study.analysis.answer import Confirmed, answer
from study.analysis.classes import classes
from study.analysis.importance import Importance, Importances
from study.analysis.option_epochs import option_epochs
from study.core.names import BASELINE, CONFIRM, SEARCH
from study.ledger.chain import parts
from study.ledger.journal import LEDGER
from study.ledger.state import State
from study.reporting import headline, plots
from study.reporting import html as html_report
from study.reporting.class_table import rarest_line
from study.reporting.html import _figures, results_csv, study_picture, write_page, write_report
from study.reporting.remains import remaining_gains
from study.reporting.tables import percent, points, print_answer
from study.storage.studies import load

pytestmark = pytest.mark.slow

PNG = b"\x89PNG\r\n"
NO_PICTURES = "they are not asked for"


class Checker(html.parser.HTMLParser):
    """Collects what a page would load from elsewhere, and its open tags."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.open: list[str] = []
        self.images: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        for key in ("src", "href"):
            link = given.get(key)
            if link and not link.startswith("data:"):
                self.outside.append(link)
        if given.get("role") == "img":
            self.images.append(given.get("aria-label") or "")
        if tag == "img":
            self.images.append(given.get("alt") or "")
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_study(tmp_path_factory.mktemp("studies") / "demo")
    state = load(made)
    write_report(made, state, answer(state, made))
    return made


def test_the_page_needs_no_other_file_and_shows_every_plot(folder: Path) -> None:
    checker = Checker()
    checker.feed((folder / "report.html").read_text(encoding="utf-8"))
    assert checker.outside == [] and checker.open == []
    assert checker.images == ["pareto", "differences", "per_class", "curves", "parallel"]
    for name in checker.images:
        assert (folder / "plots" / f"{name}.png").read_bytes().startswith(PNG)


def test_the_page_holds_the_answer(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    state = load(folder)
    for trial in state.trials:
        assert f"<td>{trial}</td>" in page
    found = answer(state, folder)
    assert re.search(f"<h2>best_miou(, best_macc)?: {found.best_miou}</h2>", page)
    assert len(re.findall(r'<tr class="best">', page)) == len({found.best_miou, found.best_macc})


def test_the_page_shows_how_the_epochs_were_shared_out(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    for item in option_epochs(load(folder)):
        cells = (item.path, item.option, str(item.trials), str(item.epochs), f"{item.fraction:.1%}")
        assert "".join(f"<td>{cell}</td>" for cell in cells) in page


def test_every_confirmation_has_its_pictures(folder: Path) -> None:
    for trial in load(folder).of_stage(CONFIRM):
        names = {path.name for path in (folder / "plots" / trial.id).iterdir()}
        assert names == {"per_class.png", "confusion.png"}


def test_the_csv_holds_every_trial_to_the_last_digit(folder: Path) -> None:
    state = load(folder)
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [row["trial"] for row in rows] == list(state.trials)
    for row, trial in zip(rows, state.trials.values(), strict=True):
        assert {key: float(row[key]) for key in trial.last} == trial.last
        assert row["status"] == trial.status
        assert float(row["optimizer/lr_scale"]) == trial.config["optimizer"]["lr_scale"]
        assert (row["test/miou"] != "") == (trial.stage == CONFIRM)


@pytest.mark.parametrize("until", ["start", "baselines", "select"])
def test_an_unfinished_study_has_a_report(
    tmp_path: Path, until: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study(tmp_path / "demo", until=until)
    arguments = ["demo", "--storage", str(tmp_path), "--picture", str(tmp_path / "all.png")]
    assert report_command.main(arguments) == 0
    assert str(folder / "report.html") in capsys.readouterr().out
    assert "<p>What is missing:</p><ul><li>" in (folder / "report.html").read_text()
    if until == "start":
        assert not (tmp_path / "all.png").exists(), "there is nothing to draw"
    else:
        assert (tmp_path / "all.png").read_bytes().startswith(PNG)


def test_text_from_a_user_is_escaped(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "demo", until="baselines", task_name="<script>x</script>")
    state = load(folder)
    page = write_page(folder, state, answer(state, folder), NO_PICTURES).read_text()
    assert "<script>x" not in page and "&lt;script&gt;x" in page


NAMES = (
    *("$\\frac{$", "$x_i$", "a_b^c", "[bold]road[/]", "<b>&amp;</b>", "sky\u202e\x1b[31m\x07\nx"),
    *("w" * 500, "\u6b69\u9053"),
)


def named_otherwise(folder: Path, place: Path) -> Path:
    """The study with the classes NAMES."""

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {renamed(key): renamed(item) for key, item in value.items()}
        if isinstance(value, list):
            return list(map(renamed, value))
        if not isinstance(value, str):
            return value
        head, _, last = value.rpartition("/")
        new = dict(zip(CLASS_NAMES, NAMES, strict=True)).get(last, last)
        return f"{head}/{new}" if head else new

    shutil.copytree(folder, place)
    lines = (folder / LEDGER).read_bytes().splitlines()
    told = [json.dumps(renamed(json.loads(parts(line.decode())[0]))).encode() for line in lines]
    (place / LEDGER).write_bytes(chained(told))
    for path in (place / evidence.FOLDER).iterdir():
        found = evidence.read(path)
        assert found is not None
        evidence.write(path, NAMES, found.splits)
    return place


def test_names_of_classes_are_shown_as_they_are(
    folder: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    place = named_otherwise(folder, tmp_path / "demo")
    state = load(place)
    found = answer(state, place)
    page = write_page(place, state, found, NO_PICTURES).read_text()
    study_picture(state, found, tmp_path / "all.png")
    assert not [one for one in recwarn if "Glyph" in str(one.message)]
    assert not set(page) & set("\x1b\x07\u202e")
    assert "&lt;b&gt;&amp;amp;&lt;/b&gt;" in page and "sky\\u202e" in page
    axes = dict(_figures(state, found))["per_class"].axes[0]
    told = [label.get_text() for label in axes.get_yticklabels()]
    assert {*NAMES[:5]} < {*told}
    assert all(len(one) <= 44 and one.isprintable() for one in told)


def test_classes_that_are_lacking_are_noted_beside_the_answer(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = load(folder)
    assert state.study is not None
    lacking = {**state.study.data, "warnings": ["in test but in no image of train: <car>"]}
    state.study = replace(state.study, data=lacking)
    page = write_page(folder, state, answer(state, folder), NO_PICTURES).read_text()
    note = '<p class="note">warning: in test but in no image of train: &lt;car&gt;</p>'
    assert page.index(note) < page.index("<table")
    print_answer(answer(state, folder))
    assert "warning: in test but in no image of train: <car>" in capsys.readouterr().out


def test_classes_are_shown_from_frequent_to_rare(folder: Path) -> None:
    state = load(folder)
    found = answer(state, folder)
    best, reference = found.config(found.best_miou), found.reference
    assert best is not None and reference is not None
    made, axes = plots.figure(4, 4)
    plots.per_class(axes[0, 0], found, best, CLASS_NAMES)
    shown = [label.get_text() for label in axes[0, 0].get_yticklabels()]
    assert shown == list(CLASS_NAMES)[::-1]
    widths = [bar.get_width() for bar in axes[0, 0].patches][::-1]
    gains = [
        100 * (best.mean(f"test/iou/{name}") - reference.mean(f"test/iou/{name}"))
        for name in CLASS_NAMES
    ]
    assert widths == pytest.approx(gains)
    assert made is not None


def with_objectives(folder: Path, *objectives: str) -> State:
    state = load(folder)
    assert state.study is not None
    plan = {**state.study.plan, "objectives": list(objectives)}
    state.study = replace(state.study, plan=plan)
    return state


def test_the_front_is_drawn_in_the_plane_of_the_two_objectives(folder: Path) -> None:
    for objectives, drawn in (
        (("val/mprec", "val/acc"), True),
        (("val/miou",), False),
        (("val/miou", "val/macc", "val/acc"), False),
    ):
        state = with_objectives(folder, *objectives)
        found = answer(state, folder)
        _, axes = plots.figure(4, 4)
        plots.pareto(axes[0, 0], state, found)
        front = [line for line in axes[0, 0].lines if line.get_label() == "Pareto front"]
        assert bool(front) == drawn
        if drawn:
            assert axes[0, 0].get_xlabel() == "val/mprec (%)"
            ys = list(front[0].get_ydata())
            xs = list(front[0].get_xdata())
            assert sorted(xs, reverse=True) == xs and sorted(ys) == ys
            best = max(100 * t.last["val/acc"] for t in state.completed(BASELINE, SEARCH))
            assert max(ys) >= best


def test_what_a_forest_cannot_predict_is_a_sentence_and_no_plot(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = Importance("loss/mix", 0.5, 0.1)
    results = {"val/miou": Importances(0.6, 20, (item,)), "val/macc": Importances(-0.3, 20, ())}
    monkeypatch.setattr(html_report, "importances", lambda state, key: results[key])
    state = load(folder)
    found = answer(state, folder)
    (axes,) = dict(_figures(state, found, results))["importance"].axes
    assert len(axes.patches) == 1 and "R² 0.60 on 20 trials" in axes.get_title()
    page = write_page(tmp_path, state, found, NO_PICTURES).read_text()
    assert "val mean accuracy: no pattern" in page and "(R² -0.30 on 20 trials" in page
    assert "val mIoU: no pattern" not in page
    results["val/miou"] = results["val/macc"]
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "importance.png").write_bytes(b"of an earlier report")
    page = write_report(tmp_path, state, found).read_text()
    assert 'aria-label="importance"' not in page and "val mIoU: no pattern" in page
    assert not (tmp_path / "plots" / "importance.png").exists()


LONG = "inverse frequency^0.33 + recall(ema 0.93) + max-pooling(p 1.7, ratio 0.35) + jaccard 0.75"


def test_the_name_of_a_config_in_a_plot_tells_it_from_its_likes(folder: Path) -> None:
    found = answer(load(folder), folder)
    best = found.config(found.best_miou)
    assert best is not None
    one, other = (replace(best, source=s, label=LONG) for s in ("t0010", "t0011"))
    names = [plots.config_name(config) for config in (one, other)]
    assert names[0] != names[1]
    assert " ".join(names[0].split()) == f"t0010 {LONG}", "nothing is cut"


def test_titles_stay_in_the_picture_however_long_the_names_of_classes(folder: Path) -> None:
    state = load(folder)
    found = answer(state, folder)
    assert state.study is not None
    longer = {f"test/iou/{name}": f"test/iou/{name} of some other kind" for name in CLASS_NAMES}

    def renamed(config: Confirmed) -> Confirmed:
        metrics = {longer.get(key, key): values for key, values in config.metrics.items()}
        return replace(config, label=LONG, metrics=metrics)

    names = [name.removeprefix("test/iou/") for name in longer.values()]
    state.study = replace(state.study, data={**state.study.data, "class_names": names})
    shown = replace(found, configs=tuple(map(renamed, found.configs)))
    figure = dict(_figures(state, shown))["per_class"]
    figure.canvas.draw()
    for axes in figure.axes:
        for text in (axes.title, axes._right_title, axes.xaxis.label):  # type: ignore[attr-defined]
            box = text.get_window_extent()
            assert not text.get_text() or (box.x0 >= 0 and box.x1 <= figure.bbox.x1)


def overlaps(axes: Any) -> bool:
    renderer = axes.figure.canvas.get_renderer()
    boxes = [label.get_window_extent(renderer) for label in axes.get_yticklabels()]
    boxes.append(axes.title.get_window_extent(renderer))
    legend = axes.get_legend()
    boxes += [legend.get_window_extent(renderer)] if legend else []
    return any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.mark.parametrize("count", [1, 2, 30])
def test_long_names_and_many_configs_do_not_overlap(folder: Path, count: int) -> None:
    state = load(folder)
    found = answer(state, folder)
    best, reference = found.config(found.best_miou), found.reference
    assert best is not None and reference is not None
    many = tuple(replace(best, source=f"t{n:04d}", label=LONG) for n in range(900, 900 + count))
    shown = replace(found, configs=(*many, reference))
    figures = dict(_figures(state, shown))
    figures["differences"].canvas.draw()
    for axes in figures["differences"].axes:
        assert not overlaps(axes)
    width, height = figures["per_class"].get_size_inches()
    assert width < 13 and height <= 50


def test_the_picture_of_a_study_is_one_png(folder: Path, tmp_path: Path) -> None:
    state = load(folder)
    path = tmp_path / "docs" / "study.png"
    study_picture(state, answer(state, folder), path)
    assert path.read_bytes().startswith(PNG)
    assert "trial,stage,label" in results_csv(state).splitlines()[0]


def test_text_in_results_csv_is_one_line_and_no_formula(folder: Path) -> None:
    reasons = ("=1+1", "-2", "@SUM(A1)", "+3", "line\nline\x1b[31m", "a = b")
    state = load(folder)
    trials = [*state.trials.values()][: len(reasons)]
    for trial, reason in zip(trials, reasons, strict=True):
        assert trial.end is not None
        trial.end = replace(trial.end, reason=reason)
    state.trials = {trial.id: trial for trial in trials}
    rows = [*csv.DictReader(io.StringIO(results_csv(state)))]
    shown = ["'=1+1", "'-2", "'@SUM(A1)", "'+3", r"line\nline\x1b[31m", "a = b"]
    assert [row["reason"] for row in rows] == shown


@pytest.fixture(scope="module")
def two_rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_study(tmp_path_factory.mktemp("studies") / "rules", rules=True)
    state = load(made)
    write_report(made, state, answer(state, made))
    return made


def test_the_page_of_measured_rules_has_both_columns_and_their_curves(two_rules: Path) -> None:
    page = (two_rules / "report.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(page)
    assert checker.outside == [] and checker.open == []
    assert checker.images == ["rules", "differences", "per_class", "curves", "parallel"]
    found = answer(load(two_rules), two_rules)
    for sentence in remaining_gains(found):
        before, label, after = sentence.split("`")
        assert f"{before}<code>{label}</code>{after}" in page
    for column in ("test mIoU, tuned rule", "test mAcc, argmax", "test nll, cal. error"):
        assert f"<th>{column}</th>" in page
    assert len(re.findall('<tr class="best">', page)) == len({found.best_miou, found.best_macc})


def test_the_csv_has_the_metrics_of_both_rules(two_rules: Path) -> None:
    rows = csv.DictReader((two_rules / "results.csv").read_text().splitlines())
    state = load(two_rules)
    for row in rows:
        last = state.trials[row["trial"]].last
        assert float(row["val/tuned/miou"]) == last["val/tuned/miou"]
        if row["stage"] == CONFIRM:
            for key in ("test/miou", "test/tuned/miou", "test/tuned_macc/macc", "test/nll"):
                assert float(row[key]) == last[key]


def test_the_curve_of_a_config_is_the_mean_of_its_seeds_and_holds_its_rules(
    two_rules: Path,
) -> None:
    found = answer(load(two_rules), two_rules)
    _, axes = plots.figure(8, 6)
    plots.rule_curves(axes[0, 0], found)
    lines = {line.get_label(): line for line in axes[0, 0].lines}
    left, right = axes[0, 0].get_xlim()
    bottom, top = axes[0, 0].get_ylim()
    marks = [
        (line.get_marker(), float(xs[0]), float(ys[0]))
        for line in axes[0, 0].lines
        if len(xs := line.get_xdata()) == 1 and len(ys := line.get_ydata())
    ]
    for config in found.configs:
        line = lines[plots.config_name(config)]
        for index in (0, 15, 22):
            mean = [sum(curve[index][i] for curve in config.curves) / 3 for i in (0, 1)]
            drawn = (line.get_xdata()[index], line.get_ydata()[index])
            assert drawn == pytest.approx([100 * value for value in mean])
        for marker, across, up in (
            ("o", "test/macc", "test/miou"),
            ("D", "test/tuned/macc", "test/tuned/miou"),
            ("s", "test/tuned_macc/macc", "test/tuned_macc/miou"),
        ):
            at = (marker, 100 * config.mean(across), 100 * config.mean(up))
            assert at in marks and left < at[1] < right and bottom < at[2] < top
    assert len(axes[0, 0].collections) == len(found.configs)


def test_a_difference_is_drawn_at_each_rule(two_rules: Path) -> None:
    found = answer(load(two_rules), two_rules)
    _, axes = plots.figure(8, 6)
    plots.forest(axes[0, 0], found, "macc")
    drawn = {
        float(line.get_xdata()[0]): line.get_markerfacecolor()
        for line in axes[0, 0].lines
        if line.get_marker() == "o" and len(line.get_xdata())
    }
    for config in found.configs:
        if config.versus:
            tuned = drawn[100 * config.versus["test/tuned_macc/macc"].difference]
            argmax = drawn[100 * config.versus["test/macc"].difference]
            assert tuned != "white" and argmax == "white"


def test_the_classes_are_those_of_the_tuned_rule(two_rules: Path) -> None:
    found = answer(load(two_rules), two_rules)
    best, reference = found.config(found.best_miou), found.reference
    assert best is not None and reference is not None
    _, axes = plots.figure(4, 4)
    plots.per_class(axes[0, 0], found, best, CLASS_NAMES)
    keys = [f"test/tuned/iou/{name}" for name in CLASS_NAMES[::-1]]
    gains = [100 * (best.mean(key) - reference.mean(key)) for key in keys]
    assert [bar.get_width() for bar in axes[0, 0].patches] == pytest.approx(gains)


def test_names_and_legends_of_two_rules_do_not_overlap(two_rules: Path) -> None:
    state = load(two_rules)
    found = answer(state, two_rules)
    many = tuple(replace(c, label=LONG, source=f"t{n:04d}") for n, c in enumerate(found.configs))
    figures = dict(_figures(state, replace(found, configs=many)))
    figures["per_class"].canvas.draw()
    left, right = (
        axes.xaxis.label.get_window_extent() for axes in figures["per_class"].axes[:2]
    )  # of two lines each, so that they are read apart
    assert right.x0 - left.x1 > left.width / 8
    for name in ("differences", "rules"):
        figures[name].canvas.draw()
        for axes in figures[name].axes:
            assert not overlaps(axes)
            legend = axes.get_legend()
            assert legend is not None
            box = legend.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figures[name].bbox.x1


def test_the_legend_of_learning_curves_names_the_winner_and_the_reference(folder: Path) -> None:
    state = load(folder)
    found = answer(state, folder)
    assert found.best_miou is not None and found.reference is not None
    figure = dict(_figures(state, found))["curves"]
    (legend,) = figure.legends
    told = [text.get_text() for text in legend.get_texts()]
    assert any(one.startswith(f"winner: {found.best_miou} ") for one in told)
    assert any(one.startswith(f"reference: {found.reference.source} ") for one in told)
    assert "rung" in told
    many = tuple(
        replace(found.configs[0], source=trial.id, is_reference=False)
        for trial in state.of_stage(BASELINE, SEARCH)
    )
    figure = dict(_figures(state, replace(found, configs=(*many, *found.configs))))["curves"]
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len([one for one in told if one.startswith(("winner", "reference", "confirmed"))]) == 8


def test_what_is_under_the_pointer_is_told(folder: Path) -> None:
    state = load(folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    titles = re.findall(r'<g class="tip"><title>([^<]*)</title>', page)
    best = answer(state, folder).best_miou
    assert best is not None
    last = state.trials[best].last["val/miou"]
    head = f"{best} {state.trials[best].label}\n"
    assert f"{head}epoch 8: {100 * last:.2f} %" in titles
    assert any(one.startswith(head) and "loss/jaccard" not in one for one in titles)
    told = [one for one in titles if "loss/jaccard/mix: " in one]
    assert len(told) == len([trial for trial in state.trials.values() if trial.params]) - 1, (
        "each line of the parallel coordinates but that of a trial which ended before the rung"
    )


def test_a_parameter_that_a_trial_lacks_lies_below_its_axis(folder: Path) -> None:
    state = load(folder)
    one, other, third = state.of_stage(SEARCH)[:3]
    one.params = {"loss/jaccard": "on", "loss/jaccard/mix": 0.2, "loss/same": 1.0}
    other.params = {"loss/jaccard": "off", "loss/same": 1.0}
    third.params = {"loss/jaccard": "on", "loss/jaccard/mix": 0.8, "loss/same": 1.0}
    trials = {trial.id: trial for trial in (one, other, third)}
    values = {one.id: 0.3, other.id: 0.2, third.id: 0.4}
    _, axes = plots.figure(6, 4)
    plots.parallel(axes[0, 0], trials, values, "val mIoU (%)", third.id)
    drawn = [list(line.get_ydata()) for line in axes[0, 0].lines if len(line.get_xdata()) == 3]
    assert drawn == [
        pytest.approx([0, plots.UNUSED, 0]),
        pytest.approx([1, 0, 0.5]),
        pytest.approx([1, 1, 1]),
    ]
    assert [tick.get_text() for tick in axes[0, 0].get_xticklabels()] == [
        "jaccard",
        "jaccard/\nmix",
        "val mIoU (%)",
    ]


def cut_off(folder: Path, place: Path, lines: int) -> State:
    """The study as it was when its ledger had so many lines."""
    shutil.copytree(folder / evidence.FOLDER, place / evidence.FOLDER, dirs_exist_ok=True)
    held = (folder / LEDGER).read_bytes().splitlines(keepends=True)
    (place / LEDGER).write_bytes(b"".join(held[:lines]))
    return load(place)


def test_no_figure_of_an_unfinished_study_has_an_empty_axes(
    two_rules: Path, tmp_path: Path
) -> None:
    count = len((two_rules / LEDGER).read_bytes().splitlines())
    seen = set()
    for lines in [*range(1, 20), *range(20, count, 41), count]:
        state = cut_off(two_rules, tmp_path, lines)
        for name, figure in _figures(state, answer(state, tmp_path)):
            seen.add(name)
            for axes in figure.axes:
                drawn = [
                    line for line in axes.lines if np.size(line.get_xdata()) and line.get_gid()
                ]
                assert not axes.axison or drawn or axes.patches, (lines, name)
    assert seen == {*html_report.FIGURES} - {"importance"}


def test_an_epoch_that_is_not_evaluated_has_no_curve_yet(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "demo", until="baselines")
    state = load(folder)
    for trial in state.trials.values():
        trial.reports = {1: {"train/loss": 1.0}}
        trial.end = None
    assert dict(_figures(state, answer(state, folder))) == {}


def test_a_price_stands_in_the_sentence_of_the_cost(
    two_rules: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_off(two_rules, tmp_path, 40)
    assert report_command.main([str(tmp_path), "--price-per-gpu-hour", "2.5"]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    (told,) = re.findall("<p>(Begun .*)</p>", page)
    assert told == headline.cost(load(tmp_path), 2.5) and "2.5 is that of a GPU-hour" in told


def test_the_rarest_classes_are_summed_up(two_rules: Path) -> None:
    state = load(two_rules)
    found = classes(state, two_rules, answer(state, two_rules))
    rarest = found.rows[:3]
    assert [row.name for row in rarest] == ["sign", "pole", "person"]
    best, base = (
        sum(figures.iou for row in rarest if (figures := of(row))) / 3
        for of in (attrgetter("winner"), attrgetter("reference"))
    )
    line = rarest_line(found)
    assert line == (
        f"Mean IoU of the rarest (sign, pole, person): the winner's {percent(best, 1)} %, the "
        f"reference's {percent(base, 1)} % ({points(best - base)} points)."
    )
    assert f"<p>{line.replace(chr(39), '&#x27;')}</p>" in (two_rules / "report.html").read_text()
    assert rarest_line(replace(found, rows=())) == ""


def test_the_report_says_what_a_warm_start_took_over(folder: Path) -> None:
    state = load(folder)
    assert state.study is not None
    one = {"name": "earlier", "trials": 9, "left_out": {"not in this space": 4}, "lacks": [],
           "points": [[{}, [0.0]]] * 5}  # fmt: skip
    warm = replace(state, study=replace(state.study, prior={"studies": [one]}))
    line = "arm start from earlier: 5 of its 9 trials; left out: 4 not in this space"
    found = answer(state, folder)
    assert line not in "".join(html_report._search_part(state, found, {}, {}))
    assert line in "".join(html_report._search_part(warm, found, {}, {}))
