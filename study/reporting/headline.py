"""The top of a report: the question, the answer in three sentences, its use and what it cost."""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from study.analysis.answer import Answer, Confirmed
from study.analysis.classes import Classes
from study.analysis.rules import ARGMAX, prefix_of
from study.config.own_training import OwnTrainingTask
from study.config.task import TrialConfig
from study.core.names import CE, STOPPED_EARLY, TEACHER, TEST
from study.ledger.plan import Plan
from study.ledger.state import State
from study.losses.spelt import spelt
from study.reporting.exports import BEST_MIOU, FOLDER
from study.reporting.live import duration
from study.reporting.remains import with_longer_budgets
from study.reporting.study_status import GPU, device_hours
from study.reporting.tables import percent, points
from study.search.warm_start import STUDIES
from study.storage.weights import SUFFIX

DATA = {
    "synthetic": "drawn street scenes",
    "camvid": "CamVid",
    "cityscapes": "Cityscapes",
    "voc": "PASCAL VOC 2012",
    "synthia": "SYNTHIA",
    "deepglobe": "DeepGlobe Land Cover",
    "folder": "images in folders",
}


def question(state: State, answer: Answer) -> str:
    """What the study asks, with its data and its network."""
    assert state.study is not None
    study = state.study
    task, facts = study.judged_task, study.judged_data
    data, model = task.get("data", {}), task.get("model", {})
    told = [] if study.has_own_training else [DATA.get(data.get("format"), "data of a factory")]
    if counts := facts.get("num_images"):
        told.append(", ".join(f"{count} {split}" for split, count in counts.items()) + " images")
    if classes := facts.get("class_names"):
        told.append(f"{len(classes)} classes")
    network = model.get("factory") or f"{model.get('arch')} with encoder {model.get('encoder')}"
    if study.has_own_training:
        network = f"trained by {OwnTrainingTask.model_validate(task).trained_by}"
    proxy = f", searched on its proxy {answer.proxy}" if answer.proxy else ""
    about = f"{'; '.join(told)}{proxy}".removeprefix(", ")
    about = f" ({about})" if about else ""
    return (
        f"Which loss makes a network ({network}) segment {answer.task}{about} "
        "with the best mean IoU, in which a rare class counts as much as a frequent one, and is "
        "it better than cross entropy, tuned with equal care?"
    )


def sentences(state: State, answer: Answer, classes: Classes) -> Iterator[str]:
    """The answer in at most three sentences: which loss and by how much, how sure, at what price;
    and one for each longer budget.

    Text in backticks is a name.
    """
    winner, reference = answer.config(answer.best_miou), answer.reference
    if not answer.confirmed or winner is None:
        yield from _so_far(state, answer)
        return
    key = answer.primary.test_miou
    at = "at the argmax" if answer.primary == ARGMAX else "at the decision rule tuned on val"
    measured = f"mean IoU on test {at}: {percent(winner.mean(key))} %"
    full = in_full(state, winner)
    if reference is None:
        yield f"`{winner.label}` is best by val: {full}; {measured}."
        yield "There is no cross entropy to compare it with, so it is not known to be a gain."
    elif winner is reference:
        others = sum(config.family != CE for config in answer.configs)
        yield (
            f"{_capital(answer.reference_name)} is best by val: of {others} other confirmed "
            f"loss{'es' * (others != 1)} none is better; {measured}."
        )
        rival = next((config for config in answer.configs if config.family != CE), None)
        if rival is not None:
            yield f"The best other loss, `{rival.label}` ({in_full(state, rival)}), " + (
                f"differs from it: {_how_sure(rival, answer)}"
            )
    else:
        yield (
            f"`{winner.label}` is best by val: {full}; {measured}, where "
            f"{answer.reference_name} has {percent(reference.mean(key))} %."
        )
        yield _capital(_how_sure(winner, answer))
        yield _price(winner, reference, answer, classes)
    yield from with_longer_budgets(answer)


def _so_far(state: State, answer: Answer) -> Iterator[str]:
    ended = sum(trial.end is not None for trial in state.trials.values())
    yield f"Not answered yet: nothing is confirmed; {ended} trials have ended."
    best = state.trials.get(answer.best_miou or "")
    if best is not None:
        on = f" of the proxy {answer.proxy}" if answer.proxy else ""
        value = best.last.get(answer.primary.val_miou, math.nan)
        yield (
            f"The best so far, by one seed on val{on}, is `{best.label}` with a mean IoU of "
            f"{percent(value)} %."
        )


def in_full(state: State, config: Confirmed) -> str:
    """The loss of a confirmed config in full words, with its papers."""
    return spelt(TrialConfig.model_validate(state.trials[config.source].config).loss)


def _how_sure(config: Confirmed, answer: Answer) -> str:
    """The difference to the reference, its intervals, and what they say."""
    key, reference = answer.primary.test_miou, answer.reference_name
    against = config.versus.get(key)
    if against is None:
        return f"it is not compared with {reference}."
    said = f"the difference to {reference} is {points(against.difference)} points"
    seeds = f"{len(config.seeds)} seed{'s' * (len(config.seeds) > 1)}"
    if against.interval is None:
        return f"{said} with {seeds}, which is too few to say how sure that is."
    low, high = points(against.interval.low), points(against.interval.high)
    verdict = "not told apart from none"
    if against.is_gain:
        verdict = "a gain beyond the spread of seeds"
    elif against.interval.high < 0:
        verdict = "a loss beyond the spread of seeds"
    text = f"{said}, {verdict}: its 95 % interval over {seeds} is {low} to {high}"
    if images := config.images.get(key):
        text += f", that over the choice of test images {points(images.low)} to "
        text += points(images.high)
    return f"{text}."


def _price(winner: Confirmed, reference: Confirmed, answer: Answer, classes: Classes) -> str:
    prefix = prefix_of(answer.primary.test_miou)
    gains = {}
    for row in classes.rows:
        key = f"{prefix}iou/{row.name}"
        gain = winner.mean(key) - reference.mean(key)
        if math.isfinite(gain):
            gains[row.name] = gain
    precision = winner.mean(f"{prefix}mprec") - reference.mean(f"{prefix}mprec")
    end = f"; mean precision changes by {points(precision)}." if math.isfinite(precision) else "."
    if classes.split != TEST or not gains:
        return f"What each class gains or pays is not known{end}"
    most, least = max(gains, key=gains.__getitem__), min(gains, key=gains.__getitem__)
    paid = "no class pays"
    if gains[least] < 0:
        paid = f"`{least}` pays most ({points(gains[least])})"
    up = sum(gain > 0 for gain in gains.values())
    return (
        f"Of {len(gains)} classes {up} gain in IoU, `{most}` most ({points(gains[most])} points), "
        f"and {paid}{end}"
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def cost(state: State, price: float | None = None) -> str:
    """What the study cost so far: dates, time at work, epochs, hours of devices, what was saved.
    price: of a GPU-hour."""
    assert state.study is not None
    plan = Plan.from_dict(state.study.plan)
    began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(state.study.time))
    sessions = len(state.sessions)
    device, hours = device_hours(state)
    own, target = state.work[False].epochs, state.work[True].epochs
    epochs = f"{own} epochs"
    if plan.has_target:
        epochs += f" of {state.study.task_name} and {target} of {state.study.judged_task_name}"
    if taught := state.work[TEACHER].epochs:
        epochs += f", and {taught} of teachers"
    text = (
        f"Begun {began}, {duration(at_work(state))} at work in {sessions} "
        f"session{'s' * (sessions != 1)}: {len(state.trials)} trials, {epochs}, "
        f"{hours:.3g} {device}-hours of training."
    )
    stopped = [trial for trial in state.trials.values() if trial.status == STOPPED_EARLY]
    saved = sum(plan.epochs_of(one.stage, one.budget) - one.epochs for one in stopped)
    if saved:
        part = saved / (saved + own + target)
        text += f" Early stopping saved {saved} epochs of {len(stopped)} trials, {part:.0%} of all."
    return text if price is None else f"{text} {_money(state, price, saved)}"


def _money(state: State, price: float, saved: int) -> str:
    """What the training cost at a price of a GPU-hour. saved: epochs of the study's own task."""
    device, hours = device_hours(state)
    if device != GPU:
        return f"It has no price: it trained on CPUs, and {price:g} is that of a GPU-hour."
    text = f"At {price:g} per GPU-hour that is {price * hours:.2f}"
    work = state.work[False]
    if saved and work.timed:
        spared = price * saved * work.epoch_s * state.sessions[-1].gpus_per_trial / 3600
        text += f"; the saved epochs would have been about {spared:.2f} more"
    return f"{text}."


def at_work(state: State) -> float:
    """Seconds from each session's start to the last that happened in it."""
    happened = [time for trial in state.trials.values() for time in trial.report_times.values()]
    happened += [trial.end.time for trial in state.trials.values() if trial.end]
    starts = [*(session.time for session in state.sessions), math.inf]
    return sum(
        max((at for at in happened if start <= at < end), default=start) - start
        for start, end in pairwise(starts)
    )


def use(folder: Path, state: State) -> list[str]:
    """The commands that use the winner, for a shell and for Python; none where it has no export."""
    export = folder / FOLDER / BEST_MIOU
    if state.study is None or not export.is_file():
        return []
    task = state.study.judged_task
    if state.study.has_own_training:
        written = [
            "# the loss as a file that needs torch alone:",
            f"python -m study.export {shlex.quote(_shown(folder))} --format python",
        ]
        return [
            *(written if state.study.judged_data.get("class_names") else []),
            "# its training once more, by your own code:",
            f"python -m study.train {shlex.quote(_shown(export))} --trust",
        ]
    trust = any("factory" in task.get(part, {}) for part in ("data", "model"))
    path, flag = shlex.quote(_shown(export)), " --trust" * trust
    if not export.with_suffix(SUFFIX).is_file():
        return [
            "# its weights are not kept; this trains them:",
            f"python -m study.train {path}{flag} --out DIR",
        ]
    code = f"study.load({_shown(export)!r}{', trust=True' * trust}).predict('picture.png').classes"
    return [
        "# masks and overlays of pictures of any size:",
        f"python -m study.predict {path} IMAGES{flag} --out DIR",
        "# in Python:",
        f"import study; classes = {code}",
    ]


def reproduce(folder: Path, state: State) -> list[str]:
    """The commands that repeat the study and its winner, as far as the ledger knows them."""
    assert state.study is not None
    study = state.study
    plan = Plan.from_dict(study.plan)
    again = shlex.quote(f"{study.name}-again")
    files = {"": "space.yaml", "--task ": "task.yaml"}
    if study.confirm_task is not None:
        files["--confirm-task "] = "confirm_task.yaml"
    given = [f"{flag}{shlex.quote(_shown(folder / name))}" for flag, name in files.items()]
    given += [f"--num-trials {plan.num_trials}", f"--confirm-seeds {plan.confirm_seeds}"]
    confirm = (study.space.get("study") or {}).get("confirm") or {}
    longer = sorted({*plan.confirm_budgets} - {1, *confirm.get("budgets", ())})
    given += [f"--longer {longer[0]}"] if longer else []
    given += ["--ablate"] if plan.confirm_ablations and not confirm.get("ablate") else []
    warm = (study.prior or {}).get(STUDIES, ())
    names = " ".join(shlex.quote(one["name"]) for one in warm)
    given += [f"--warm-start {names}"] if warm else []
    given += [f"--seed {study.seed}", f"--name {again}"]
    if state.sessions:
        given.append(f"--cpus-per-trial {state.sessions[-1].cpus_per_trial:g}")
    alone = state.most_slots <= 1
    given += ["--max-concurrent 1"] if alone and state.sessions else []
    lines = [
        "# the whole study anew" + _unlike(plan, alone),
        f"python -m study.run {' '.join(given)}",
    ]
    lines += [f"python -m study.run --resume {again} --longer {more}" for more in longer[1:]]
    export = folder / FOLDER / BEST_MIOU
    if export.is_file():
        lines += [
            "# the winner's training alone, to the numbers that its export states:",
            f"python -m study.train {shlex.quote(_shown(export))}"
            + " --trust" * study.has_own_training,
        ]
    return lines


def _unlike(plan: Plan, alone: bool) -> str:
    if plan.extended:
        return " (trials were added to it later, so that it proposed others):"
    if alone:
        return ":"
    return " (several trials ran at once: proposals follow the order in which they end):"


def _shown(path: Path) -> str:
    """The path as a command may name it here: relative where it is below the working folder."""
    path, here = path.resolve(), Path(os.getcwd())
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
