"""The top of a report: right at every moment of a study, and without a look at the rest."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledgers import CLASS_NAMES, FREQUENCIES, make_study

from study.analysis.answer import Answer, answer
from study.analysis.classes import classes
from study.core.names import STOPPED_EARLY
from study.ledger.records import SessionRecord
from study.ledger.state import State
from study.reporting import headline
from study.reporting.tables import percent, points
from study.run import parser
from study.storage.studies import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("studies") / "demo", rules=True)


@pytest.fixture(scope="module")
def state(folder: Path) -> State:
    return load(folder)


def said(state: State, found: Answer, folder: Path) -> list[str]:
    return [*headline.sentences(state, found, classes(state, folder, found))]


def test_three_sentences_say_which_loss_how_sure_and_at_what_price(
    folder: Path, state: State
) -> None:
    found = answer(state, folder)
    winner, reference = found.config(found.best_miou), found.reference
    assert winner is not None and reference is not None and winner is not reference
    which, sure, price = said(state, found, folder)
    key = "test/tuned/miou"
    assert which.startswith(f"`{winner.label}` is best by val: cross entropy with ")
    assert f"{percent(winner.mean(key))} %, where tuned cross entropy has" in which
    assert percent(reference.mean(key)) in which and "arXiv" in which
    against = winner.versus[key]
    assert against.interval is not None
    assert points(against.difference) in sure and points(against.interval.low) in sure
    assert "over 3 seeds is" in sure
    assert "over the choice of test images" in sure
    gains = {
        name: winner.mean(f"test/tuned/iou/{name}") - reference.mean(f"test/tuned/iou/{name}")
        for name in CLASS_NAMES
    }
    most, least = max(gains, key=gains.__getitem__), min(gains, key=gains.__getitem__)
    assert f"`{most}` most ({points(gains[most])} points)" in price
    assert f"Of 8 classes {sum(gain > 0 for gain in gains.values())} gain in IoU" in price
    paid = f"`{least}` pays most ({points(gains[least])})" if gains[least] < 0 else "no class pays"
    assert paid in price


def test_the_interval_says_how_sure_a_gain_is(folder: Path, state: State) -> None:
    found = answer(state, folder)
    winner = found.config(found.best_miou)
    assert winner is not None
    against = winner.versus["test/tuned/miou"]
    assert against.interval is not None
    for low, high, verdict in (
        (0.01, 0.02, "a gain beyond the spread of seeds"),
        (-0.01, 0.02, "not told apart from none"),
        (-0.02, -0.01, "a loss beyond the spread of seeds"),
        (None, None, "too few to say how sure that is"),
    ):
        shown = None
        if low is not None and high is not None:
            shown = replace(against.interval, low=low, high=high)
        versus = {**winner.versus, "test/tuned/miou": replace(against, interval=shown)}
        configs = (replace(winner, versus=versus), *found.configs[1:])
        assert verdict in said(state, replace(found, configs=configs), folder)[1]


def test_cross_entropy_that_no_loss_beats_is_the_answer(folder: Path, state: State) -> None:
    found = answer(state, folder)
    reference = found.reference
    assert reference is not None
    which, sure = said(state, replace(found, best_miou=reference.source), folder)
    rival = next(config for config in found.configs if config.family != "ce")
    assert which.startswith("Tuned cross entropy is best by val: of 2 other confirmed losses none ")
    assert rival.label in sure and points(rival.versus["test/tuned/miou"].difference) in sure


@pytest.mark.parametrize("until", ["start", "baselines", "select"])
def test_an_unfinished_study_has_no_answer_yet(tmp_path: Path, until: str) -> None:
    folder = make_study(tmp_path / "demo", until=until)
    state = load(folder)
    found = answer(state, folder)
    first, *rest = said(state, found, folder)
    ended = {"start": 0, "baselines": 5, "select": 21}[until]
    assert first == f"Not answered yet: nothing is confirmed; {ended} trials have ended."
    assert bool(rest) == (until != "start")
    assert "0 trials" in headline.cost(state) or until != "start"
    assert headline.use(folder, state) == []


def test_a_confirmation_that_is_under_way_is_no_answer_yet(folder: Path, state: State) -> None:
    found = replace(answer(state, folder), confirmed=False)
    assert said(state, found, folder)[0].startswith("Not answered yet")


def test_the_question_names_data_and_network(tmp_path: Path, folder: Path, state: State) -> None:
    asked = headline.question(state, answer(state, folder))
    for part in ("unet with encoder tu-mobilenetv3_small_050", "synthetic (drawn street scenes; "):
        assert part in asked
    assert "24 train, 24 val, 24 test images; 8 classes" in asked
    other = make_study(tmp_path / "demo", rules=True, target=FREQUENCIES.tolist())
    proxied = load(other)
    assert proxied.study is not None and proxied.study.confirm_task is not None
    larger = {**proxied.study.confirm_task, "model": {"factory": "mine:net", "kwargs": {}}}
    proxied.study = replace(proxied.study, confirm_task=larger)
    asked = headline.question(proxied, answer(proxied, other))
    assert "a network (mine:net)" in asked
    assert "segment town (" in asked and "searched on its proxy synthetic)" in asked
    assert re.search(r"\d+ epochs of synthetic and \d+ of town", headline.cost(load(other)))


def test_the_cost_counts_what_was_trained_and_what_was_not(state: State) -> None:
    told = headline.cost(state)
    stopped = [trial for trial in state.trials.values() if trial.status == STOPPED_EARLY]
    saved = sum(8 - trial.epochs for trial in stopped)
    assert f"{len(state.trials)} trials, {state.num_epochs} epochs, " in told
    assert f"saved {saved} epochs of {len(stopped)} trials" in told
    assert "CPU-hours" in told and saved > 0


def test_a_price_is_of_gpu_hours(folder: Path) -> None:
    state = load(folder)
    free = headline.cost(state)
    told = headline.cost(state, 2.5)
    assert told.startswith(free) and "trained on CPUs, and 2.5 is that of a GPU-hour" in told
    state.sessions = [replace(state.sessions[-1], gpus_per_trial=0.5)]
    state.gpu_s = 7200.0
    saved = sum(8 - one.epochs for one in state.trials.values() if one.status == STOPPED_EARLY)
    more = 2.5 * saved * state.work[False].epoch_s * 0.5 / 3600
    told = headline.cost(state, 2.5)
    assert "2 GPU-hours of training" in told and "At 2.5 per GPU-hour that is 5.00;" in told
    assert f"the saved epochs would have been about {more:.2f} more." in told
    assert more > 0 and "per GPU-hour" not in headline.cost(state)


def test_the_price_of_a_study_that_has_not_begun_is_nothing(tmp_path: Path) -> None:
    state = load(make_study(tmp_path / "demo", until="start"))
    state.sessions = [replace(state.sessions[-1], gpus_per_trial=1.0)]
    assert headline.cost(state, 2.5).endswith("At 2.5 per GPU-hour that is 0.00.")


def test_a_pause_between_sessions_is_not_timeat_work(folder: Path) -> None:
    state = load(folder)
    (first,) = state.sessions
    ends = [trial.end.time for trial in state.trials.values() if trial.end]
    seconds = max(ends) - first.time
    later = SessionRecord(2, "local", 1, 1.0, 0.0, "", time=max(ends) + 86_400.0)
    state.sessions.append(later)
    assert headline.at_work(state) == pytest.approx(seconds)
    last = state.trials[max(state.trials)]
    assert last.end is not None
    last.end = replace(last.end, time=later.time + 7.0)
    assert headline.at_work(state) == pytest.approx(seconds + 7.0, abs=0.5)
    assert "in 2 sessions" in headline.cost(state)


def test_the_commands_are_those_of_this_study(
    folder: Path, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    line = headline.reproduce(folder, state)[1]
    given = vars(parser().parse_args(shlex.split(line.removeprefix("python -m study.run"))))
    assert (given["space"], given["task"]) == ("demo/space.yaml", "demo/task.yaml")
    assert (given["num_trials"], given["confirm_seeds"], given["seed"]) == ("16", "3", "0")
    export = folder / "exports" / "best_miou.yaml"
    export.parent.mkdir()
    export.write_text("")
    assert headline.use(folder, state)[1].startswith("python -m study.train demo/exports/best_miou")
    export.with_suffix(".safetensors").write_text("")
    shell, python = headline.use(folder, state)[1::2]
    assert shell == "python -m study.predict demo/exports/best_miou.yaml IMAGES --out DIR"
    assert "study.load('demo/exports/best_miou.yaml').predict(" in python
    monkeypatch.chdir(tmp_path)
    assert str(export) in headline.reproduce(folder, state)[-1]
    assert state.study is not None
    code = {**state.study.task, "model": {"factory": "a.b:c", "kwargs": {}}}
    state.study = replace(state.study, task=code)
    assert all("trust" in one.lower() for one in headline.use(folder, state)[1::2])


def test_the_command_of_a_study_with_a_warm_start_names_the_earlier_studies(
    folder: Path, state: State
) -> None:
    assert state.study is not None
    prior = {"studies": [{"name": name} for name in ("one", "the-other")]}
    warm = replace(state, study=replace(state.study, prior=prior))
    given = {}
    for name, one in (("cold", state), ("warm", warm)):
        command = headline.reproduce(folder, one)[1]
        given[name] = parser().parse_args(shlex.split(command)[3:]).warm_start
    assert given == {"cold": None, "warm": ["one", "the-other"]}


def test_the_command_repeats_longer_trainings_that_the_space_does_not_ask_for(
    folder: Path,
) -> None:
    state = load(folder)
    assert state.study is not None

    def given(**changes: Any) -> list[Any]:
        assert state.study is not None
        study = replace(state.study, plan={**state.study.plan, **changes})
        lines = [
            line
            for line in headline.reproduce(folder, replace(state, study=study))
            if "study.run" in line
        ]
        found = [parser().parse_args(shlex.split(line)[3:]) for line in lines]
        return [(one.resume, one.longer, one.ablate) for one in found]

    assert given() == [(None, None, None)]
    assert given(confirm_budgets=[1, 4], confirm_ablations=2) == [(None, "4", True)]
    assert given(confirm_budgets=[1, 2, 4]) == [
        (None, "2", None),
        (f"{state.study.name}-again", "4", None),
    ]


def test_a_study_that_was_given_more_trials_says_that_it_cannot_be_repeated(
    folder: Path,
) -> None:
    state = load(folder)
    assert state.study is not None
    assert "added to it later" not in headline.reproduce(folder, state)[0]
    plan = {**state.study.plan, "extended": [[4, 1]]}
    state.study = replace(state.study, plan=plan)
    told = headline.reproduce(folder, state)[0]
    assert (
        told
        == "# the whole study anew (trials were added to it later, so that it proposed others):"
    )
