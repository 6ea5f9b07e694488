"""Exports: a study's best configs as YAML that `study.train` can reproduce."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.analysis.answer import JUDGED, Answer, Confirmed
from study.core.files import write_text
from study.core.names import (
    EXPORTS,
    TAU_MACC,
    TAU_MIOU,
    TEACHER,
    VAL,
    VAL_MACC,
    VAL_MIOU,
    VAL_TUNED_MACC,
    VAL_TUNED_MIOU,
)
from study.core.yaml_text import as_yaml
from study.ledger.records import StudyRecord
from study.ledger.state import State, Trial
from study.metrics.exported import decision_block
from study.storage.weights import SUFFIX, TEACHER_FILE, WeightsStore, teacher_file, weights_block

FOLDER = EXPORTS
PARETO = "pareto"
BEST_MIOU, BEST_MACC, REFERENCE = "best_miou.yaml", "best_macc.yaml", "reference.yaml"


@dataclass(frozen=True)
class Rule:
    """Which decision rule an export carries.

    tau: the metric that is its strength. judged_by: the metrics by which the seed is found whose
    numbers the export states, the one that has the median; the first that all seeds have, as
    older studies lack some.
    """

    tau: str
    judged_by: tuple[str, ...]

    def stated(self, config: Confirmed) -> tuple[str, str]:
        """The trial of the median seed, the lower of two, and the metric it is the median of."""
        key = next(key for key in self.judged_by if key in config.metrics)
        pairs = zip(config.metrics[key], config.trials, strict=True)
        order = sorted(pairs, key=lambda pair: (math.isfinite(pair[0]), pair[0]))
        return order[(len(order) - 1) // 2][1], key


BY_MIOU = Rule(f"{VAL}/{TAU_MIOU}", (VAL_TUNED_MIOU, VAL_MIOU))
BY_MACC = Rule(f"{VAL}/{TAU_MACC}", (VAL_TUNED_MACC, VAL_MACC))


def export(state: State, answer: Answer, source: str, rule: Rule = BY_MIOU) -> dict[str, Any]:
    """The config of a trial, its decision rule and the origin of its numbers.

    For a confirmed config it is the confirmation trial with the median seed, so that a re-run also
    gives test metrics; else the trial itself. `provenance/metrics` are exactly those of that
    trial's last epoch; `provenance/confirmed` summarises all seeds. There is no `decision` where
    the trial has measured no rules, which means the argmax.
    """
    assert state.study is not None
    confirmed = answer.config(source)
    name, judged_by = rule.stated(confirmed) if confirmed else (source, None)
    trial = state.trials[name]
    study, on_target = state.study, trial.on_target
    provenance: dict[str, Any] = {
        "study": study.name,
        "trial": trial.id,
        "source": source,
        "label": trial.label,
        "stage": trial.stage,
        "task": study.judged_task_name if on_target else study.task_name,
        **({"searched_on": study.task_name} if on_target else {}),
        "space": study.space_name,
        "seed": trial.seed,
        "epochs": trial.epochs,
        "metrics": dict(trial.last),
        "environment": trial.environment or study.environment,
        "data": {"fingerprint": data_of(study, trial).get("fingerprint")},
        "confirmed": _confirmation(confirmed, answer) if confirmed else None,
    }
    if judged_by is not None:
        provenance["confirmed"]["stated_by_median_of"] = judged_by
    tree = {key: trial.config[key] for key in ("task", "loss", "optimizer", "seed")}
    if (teacher := _teacher(tree)) is not None:
        tree = _with_teacher_at(tree, teacher_file(teacher["sha256"]))
    decision = _decision(study, trial, rule)
    return {**tree, **decision, "provenance": provenance}


def _teacher(tree: Mapping[str, Any]) -> dict[str, Any] | None:
    """The teacher of a config whose loss learns from a file of weights."""
    teacher = (tree["loss"].get("distillation") or {}).get("teacher") or {}
    return teacher if "weights" in teacher else None


def _with_teacher_at(tree: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The config with the file of its teacher's weights."""
    distillation = tree["loss"]["distillation"]
    teacher = {**distillation["teacher"], "weights": file}
    return {
        **tree,
        "loss": {**tree["loss"], "distillation": {**distillation, "teacher": teacher}},
    }


def data_of(study: StudyRecord, trial: Trial) -> dict[str, Any]:
    """What the ledger says of the data that a trial was trained on."""
    return study.judged_data if trial.on_target else study.data


def _decision(study: StudyRecord, trial: Trial, rule: Rule) -> dict[str, Any]:
    """The block `decision`; earlier studies have the class fractions to eight digits."""
    data = data_of(study, trial)
    fractions = data.get("class_counts") or data.get("class_fraction")
    if rule.tau not in trial.last or not fractions:
        return {}
    return decision_block(trial.last[rule.tau], fractions)


def _confirmation(config: Confirmed, answer: Answer) -> dict[str, Any]:
    """The values over seeds, and their difference to the reference."""
    found: dict[str, Any] = {"trials": list(config.trials), "seeds": list(config.seeds)}
    if config.failed:
        found["failed_seeds"] = list(config.failed)
    for key in JUDGED:
        if key not in config.metrics:
            continue
        one: dict[str, Any] = {"values": list(config.metrics[key]), "mean": config.mean(key)}
        if not math.isnan(config.sd(key)):
            one["sd"] = config.sd(key)
        if key in config.versus:
            against = config.versus[key]
            versus: dict[str, Any] = {"difference": against.difference}
            if against.interval is not None:
                versus["interval"] = [against.interval.low, against.interval.high]
                versus["confidence"] = against.confidence
                versus["p"] = against.p
            if against.note:
                versus["note"] = against.note
            if key in config.images:
                versus["test_images_interval_95"] = [
                    config.images[key].low,
                    config.images[key].high,
                ]
            one[f"versus_{answer.reference_name.replace(' ', '_')}"] = versus
        found[key] = one
    if config.is_reference:
        found["is"] = f"{answer.reference_name}, the reference"
    return found


def export_text(title: str, content: Mapping[str, Any]) -> str:
    """The text of the file: a comment that explains it, then the YAML."""
    origin = content["provenance"]
    data = content["task"].get("data")
    placed = " --data-root DIR" if data and data.get("root") else ""
    seeds = len(origin["confirmed"]["seeds"]) if origin["confirmed"] else 0
    failed = len(origin["confirmed"].get("failed_seeds", ())) if seeds else 0
    failures = f" ({failed} more failed)" if failed else ""
    judged = (
        f"Confirmed with {seeds} fresh seed{'s' * (seeds > 1)}{failures}, judged on test."
        if seeds
        else "Not confirmed: one seed, judged on val alone."
    )
    lines = [
        f"{title}: {origin['label']}, from study {origin['study']} on task {origin['task']}"
        + (f", searched on its proxy {origin['searched_on']}." if "searched_on" in origin else "."),
        judged,
    ]
    if seeds:
        key = origin["confirmed"]["stated_by_median_of"]
        lines.append(f"The numbers are those of seed {origin['seed']}, the median by {key}.")
    own = "trial" in content["task"]
    lines += [
        "To run it again, to the same numbers if your training is deterministic:"
        if own
        else f"To run it again, to the same numbers: python -m study.train THIS_FILE{placed}",
        *["    python -m study.train THIS_FILE --trust"] * own,
        "In your own training: study.losses.build_loss(yaml.safe_load(open(THIS_FILE))['loss'],",
        "    num_classes=..., class_counts=...), counts of shape (images, C), with your",
        "    learning rate times optimizer/lr_scale;",
        "    then classes = study.metrics.build_decision(THIS_FILE)(logits)",
    ]
    if own:
        lines.append(f"What that training wrote is in trials/{origin['trial']} of the study.")
        return "".join(f"# {line}\n" for line in lines) + as_yaml(content)
    if (teacher := _teacher(content)) is not None:
        lines += [
            f"Weights of its teacher, to keep beside this file: {Path(teacher['weights']).name}"
        ]
    why_none = "None of its weights are kept." if seeds else "Only confirmed trials keep weights."
    if "weights" in content:
        lines += [
            f"Weights of that training, for its task's model: {content['weights']['file']}",
            "To use them: study.load(THIS_FILE) in Python, or",
            "    python -m study.predict THIS_FILE IMAGES --out DIR",
        ]
    else:
        lines.append(f"{why_none} To make them: the command above with --out DIR.")
    return "".join(f"# {line}\n" for line in lines) + as_yaml(content)


def wanted_exports(exports: Path, answer: Answer) -> dict[Path, tuple[str, str, Rule]]:
    """The exports of an answer below the folder `exports`: each with its title, the trial that it
    comes from, and its rule."""
    wanted: dict[Path, tuple[str, str, Rule]] = {}
    if answer.best_miou is not None:
        wanted[exports / BEST_MIOU] = ("Best by mean IoU", answer.best_miou, BY_MIOU)
    if answer.best_macc is not None:
        title = "Best by mean accuracy, mean IoU kept"
        wanted[exports / BEST_MACC] = (title, answer.best_macc, BY_MACC)
    if answer.reference is not None:
        title = f"The reference, {answer.reference_name}"
        wanted[exports / REFERENCE] = (title, answer.reference.source, BY_MIOU)
    for source in answer.pareto:
        path = exports / PARETO / f"{source}.yaml"
        wanted[path] = ("One of the Pareto set", source, BY_MIOU)
    return wanted


def write_exports(
    folder: Path, state: State, answer: Answer, weights: WeightsStore
) -> tuple[Path, ...]:
    """Write the exports of the study in `folder`; return the paths of those that exist.

    ``exports/best_miou.yaml``, ``exports/best_macc.yaml``, ``exports/reference.yaml`` once it is
    confirmed, and ``exports/pareto/<trial>.yaml``; outdated files of an earlier state are removed.
    They come with the weights of the confirmed trial whose numbers they state, if they are stored;
    once the study is finished, no others stay in the store. The weights of their teachers are
    ``exports/teacher-<sha256>.safetensors``.
    """
    exports = folder / FOLDER
    wanted = wanted_exports(exports, answer)
    chosen = [exports / name for name in (BEST_MIOU, BEST_MACC, REFERENCE)]
    stated, taught = set(), set[Path]()
    for path, (title, source, rule) in wanted.items():
        content = export(state, answer, source, rule)
        if (teacher := _teacher(content)) is not None:
            file = exports / teacher["weights"]
            given = _teacher(state.trials[content["provenance"]["trial"]].config)
            assert given is not None
            if weights.copy_teacher(given["weights"], given["sha256"], file):
                content = _with_teacher_at(content, os.path.relpath(file, path.parent))
                taught.add(file)
            else:
                content = _with_teacher_at(content, given["weights"])
        origin = content.pop("provenance")
        stated.add(origin["trial"])
        content |= {**_weights(path, origin["trial"], weights), "provenance": origin}
        write_text(path, export_text(title, content))
    if state.finished:
        weights.keep_only(stated.union(trial.id for trial in state.of_stage(TEACHER)))
    pareto = [path for path in (exports / PARETO).glob("t*.yaml") if path.stem[1:].isdecimal()]
    for path in [*chosen, *pareto]:
        if path not in wanted:
            path.unlink(missing_ok=True)
            path.with_suffix(SUFFIX).unlink(missing_ok=True)
    _remove_others(exports, taught)
    return tuple(wanted)


def _remove_others(exports: Path, taught: Collection[Path]) -> None:
    """Remove the weights of teachers that no export has any more."""
    for path in exports.glob(TEACHER_FILE.format("*")):
        if path not in taught:
            path.unlink(missing_ok=True)


def _weights(path: Path, trial: str, weights: WeightsStore) -> dict[str, Any]:
    """Copy the trial's weights beside the export at `path`, and name them; none may be stored."""
    file = path.with_suffix(SUFFIX)
    if not weights.copy(trial, file):
        file.unlink(missing_ok=True)
        return {}
    return weights_block(file)
