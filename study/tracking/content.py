"""The MLflow content of a study as plain values: a pure function of the ledger's state."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from study.core.names import COMPLETED, CONFIRM, FAILED, STOPPED_EARLY, TUNED, TUNED_MACC, VAL
from study.ledger.records import StudyRecord
from study.ledger.state import State, Trial

FINAL, FINAL_OF_TARGET = "final", "final_target"
STUDY_STAGE = "study"
PARENT = "mlflow.parentRunId"
CHANGING = ("epochs_seen", "status", "reason")
TAGS = (
    "study", "study_began", "trial_id", "stage", "family", "label", "lr", "source", "ablated",
    "target", *CHANGING, PARENT,
)  # fmt: skip
MAX_KEY, MAX_VALUE = 250, 5000
RUNNING, WAITING = "RUNNING", "SCHEDULED"
RUN_STATUS = {COMPLETED: "FINISHED", STOPPED_EARLY: "FINISHED", FAILED: "FAILED"}
_NOT_IN_KEYS = re.compile(r"[^/\w.\- :]")

Point = tuple[str, float, int, int]
"""Key, value, timestamp in ms, epoch."""


def key_of(key: str) -> str:
    """Turn a key into one that MLflow accepts: other characters become `_`, empty path steps
    vanish."""
    steps = [step.strip() for step in _NOT_IN_KEYS.sub("_", key).split("/")]
    return "/".join("_" if step in (".", "..") else step for step in steps if step)[:MAX_KEY]


def text(value: Any) -> str:
    """A param's value as text: text unchanged, everything else as YAML users write it (null,
    true, .inf)."""
    if isinstance(value, str):
        return value[:MAX_VALUE]
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)[:MAX_VALUE]


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a config by path, joined with `/`. Lists and empty mappings are
    leaves."""
    for key, value in tree.items():
        path = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, path)
        elif not isinstance(value, Mapping):
            yield path, value


def trial_params(trial: Trial) -> dict[str, str]:
    """The resolved config by leaf path, and the names of the choices that led to it."""
    values = dict(trial.params or {})
    for path, value in leaves(trial.config):
        if value is not None or path not in values:
            values[path] = value
    short = {"stage": trial.stage, "family": trial.family} | _learning_rate(trial)
    return short | {key_of(path): text(value) for path, value in values.items()}


def _learning_rate(trial: Trial) -> dict[str, str]:
    """The rate at which a trial trains: the task's own times the factor."""
    rate = trial.config.get("task", {}).get("optimizer", {}).get("lr")
    if rate is None:
        return {}
    return {"lr": f"{rate * trial.config.get('optimizer', {}).get('lr_scale', 1.0):.4g}"}


def study_tags(study: StudyRecord) -> dict[str, str]:
    """The tags that all runs of a study share. The time distinguishes studies of one name."""
    began = datetime.fromtimestamp(study.time, UTC).isoformat(timespec="milliseconds")
    return {"study": study.name, "study_began": began}


def trial_name(trial: Trial) -> str:
    """The run name of a trial, short enough for a column."""
    seed = f" seed {trial.seed}" if trial.stage == CONFIRM else ""
    return f"{trial.id} {trial.label}{seed}"


def trial_tags(study: StudyRecord, trial: Trial) -> dict[str, str]:
    """The tags of a trial, for filtering."""
    tags = {
        **study_tags(study),
        "trial_id": trial.id,
        "stage": trial.stage,
        "family": trial.family,
        "label": trial.label,
        "epochs_seen": str(trial.epochs),
        **_learning_rate(trial),
    }
    if trial.source is not None:
        tags["source"] = trial.source
    if trial.ablated:
        tags["ablated"] = trial.ablated
    if trial.on_target:
        tags["target"] = study.judged_task_name
    if trial.end is not None:
        tags |= {"status": trial.end.status, "reason": trial.end.reason}
    return {key: value[:MAX_VALUE] for key, value in tags.items()}


def milliseconds(time: float) -> int:
    """Convert seconds to MLflow's milliseconds."""
    return round(time * 1000)


def trial_points(trial: Trial, epochs: Iterable[int] | None = None) -> list[Point]:
    """The metrics of these epochs (default all), at the time of their first report.

    The same report always gives the same points, so MLflow drops repeated ones. Infinities, which
    it would replace by the largest float, are left out.
    """
    points = []
    for epoch in sorted(trial.reports) if epochs is None else epochs:
        when = milliseconds(trial.report_times[epoch])
        points += [
            (key_of(key), value, when, epoch)
            for key, value in trial.reports[epoch].items()
            if not math.isinf(value)
        ]
    return points


def final_points(trial: Trial) -> list[Point]:
    """``final/miou``, ``final/tuned/miou`` and the like of val, without those of single classes,
    only for trials that reached the full budget and no longer one: whoever sorts by them compares
    equal budgets. ``final_target/`` for those of a target, whose budget and data are others. They
    are at step 0, which MLflow draws as bars with the runs' names."""
    if trial.status != COMPLETED or not trial.reports or trial.budget > 1:
        return []
    when = milliseconds(trial.report_times[trial.epochs])
    found, head = [], FINAL_OF_TARGET if trial.on_target else FINAL
    for key, value in trial.last.items():
        split, _, name = key.partition("/")
        metric = name.removeprefix(f"{TUNED}/").removeprefix(f"{TUNED_MACC}/")
        if split == VAL and "/" not in metric and not math.isinf(value):
            found.append((f"{head}/{name}", value, when, 0))
    return found


def run_status(trial: Trial, *, live: bool) -> str:
    """MLflow's status of a trial: FINISHED (also one that was stopped early, see its tag `status`),
    FAILED; else RUNNING while a driver lives, SCHEDULED when it must be resumed."""
    if trial.end is not None:
        return RUN_STATUS[trial.end.status]
    return RUNNING if live else WAITING


def digest(
    status: str,
    ended: int | None,
    tags: Mapping[str, str],
    params: Mapping[str, str],
    metrics: Mapping[str, float],
) -> str:
    """Digest of what MLflow shows of a run beside its curves: equal for equal content."""
    own = {key: tags[key] for key in TAGS if key in tags}
    shown = [status, ended, *(sorted(part.items()) for part in (own, params, metrics))]
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def trial_digest(study: StudyRecord, trial: Trial, parent: str) -> str:
    """The `digest` of the run of a trial that has ended."""
    assert trial.end is not None
    return digest(
        run_status(trial, live=False),
        milliseconds(trial.end.time),
        {**trial_tags(study, trial), PARENT: parent},
        trial_params(trial),
        {point[0]: point[1] for point in trial_points(trial) + final_points(trial)},
    )


def study_params(study: StudyRecord) -> dict[str, str]:
    """The params of the study's own run: task, space, seed, plan and data."""
    values: dict[str, Any] = {
        "task": study.task_name,
        "space": study.space_name,
        "seed": study.seed,
    }
    values |= dict(leaves({"plan": study.plan, "data": study.data}))
    if study.confirm_task_name is not None:
        values["confirm_task"] = study.confirm_task_name
        values |= dict(leaves({"confirm_data": study.judged_data}))
    return {key_of(path): text(value) for path, value in values.items()}


def study_status(state: State, *, live: bool) -> str:
    """MLflow's status of the parent run."""
    if state.finished:
        return RUN_STATUS[COMPLETED]
    return RUNNING if live else WAITING


def study_note(study: StudyRecord) -> str:
    """The Markdown text of the study's page."""
    target = ""
    if study.confirm_task_name is not None:
        target = (
            f", confirmed on the target `{study.confirm_task_name}`: the trials with a tag "
            f"`target`, which have `{FINAL_OF_TARGET}/` instead of `{FINAL}/`"
        )
    return (
        f"Study **{study.name}**: space `{study.space_name}` on task `{study.task_name}`{target}."
        "\n\n"
        f"Its trials: filter by `tags.study = '{study.name}'`; the full-budget ones have "
        "`final/miou` and `final/macc`, and at their tuned decision rules `final/tuned/miou` and "
        "`final/tuned_macc/macc`: sort by these. Stages: baseline, reference (tuned cross "
        "entropy), search, confirm (fresh seeds, judged on test: `test/miou`)."
    )


def answer_note(study: StudyRecord, answer: Mapping[str, Any]) -> str:
    """The study's page once there is an answer: its sentences, its table, where its trials are.
    Of a table that is too long the last lines are left out."""
    sentences = "".join(f"* {_plain(line)}\n" for line in answer["conclusions"])
    left = MAX_VALUE - len(study_note(study)) - 100
    if len(sentences) > left:
        sentences = sentences[: sentences.rfind("\n", 0, left) + 1]
    rows = answer["table"].splitlines(keepends=True)
    while rows and sum(map(len, rows)) + len(sentences) > left:
        rows.pop()
    table = "".join(rows) if len(rows) > 2 else ""
    return "\n".join(part for part in (sentences, table, study_note(study)) if part)


def _plain(line: str) -> str:
    """Text in which Markdown finds no markup but code in backticks."""
    return re.sub(r"([\\*_<>\[\]#|])", r"\\\1", line)


def answer_points(answer: Mapping[str, Any], ended: float) -> list[Point]:
    """The numbers of a confirmed answer, at step 0."""
    if not answer["confirmed"]:
        return []
    return [
        (key_of(key), value, milliseconds(ended), 0) for key, value in answer["metrics"].items()
    ]
