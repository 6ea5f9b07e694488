"""Exports: a study's best configs as YAML that `study.train` can reproduce."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.analysis.answer import JUDGED, Answer, Confirmed
from study.core.files import write_text
from study.core.yaml_text import as_yaml
from study.ledger.state import State

FOLDER = "exports"
PARETO = "pareto"
BEST_MIOU, BEST_MACC = "best_miou.yaml", "best_macc.yaml"


def export(state: State, answer: Answer, source: str) -> dict[str, Any]:
    """The config of a trial and the origin of its numbers.

    For a confirmed config it is the confirmation trial with the first seed, so that a re-run also
    gives test metrics; else the trial itself. `provenance/metrics` are exactly those of that
    trial's last epoch; `provenance/confirmed` summarises all seeds.
    """
    assert state.study is not None
    confirmed = answer.config(source)
    trial = state.trials[confirmed.trials[0] if confirmed else source]
    provenance: dict[str, Any] = {
        "study": state.study.name,
        "trial": trial.id,
        "source": source,
        "label": trial.label,
        "stage": trial.stage,
        "task": state.study.task_name,
        "space": state.study.space_name,
        "seed": trial.seed,
        "epochs": trial.epochs,
        "metrics": dict(trial.last),
        "environment": trial.environment or state.study.environment,
        "data": {"fingerprint": state.study.data.get("fingerprint")},
        "confirmed": _confirmation(confirmed, answer) if confirmed else None,
    }
    tree = {key: trial.config[key] for key in ("task", "loss", "optimizer", "seed")}
    return {**tree, "provenance": provenance}


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
                versus["interval_95"] = [against.interval.low, against.interval.high]
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
    data = content["task"]["data"]
    placed = " --data-root DIR" if data.get("root") else ""
    seeds = len(origin["confirmed"]["seeds"]) if origin["confirmed"] else 0
    failed = len(origin["confirmed"].get("failed_seeds", ())) if seeds else 0
    failures = f" ({failed} more failed)" if failed else ""
    judged = (
        f"Confirmed with {seeds} fresh seed{'s' * (seeds > 1)}{failures}, judged on test."
        if seeds
        else "Not confirmed: one seed, judged on val alone."
    )
    lines = [
        f"{title}: {origin['label']}, from study {origin['study']} on task {origin['task']}.",
        judged,
        f"To run it again, to the same numbers: python -m study.train THIS_FILE{placed}",
        "In your own training: study.losses.build_loss(yaml.safe_load(open(THIS_FILE))['loss'],",
        "    num_classes=..., class_counts=...)",
    ]
    return "".join(f"# {line}\n" for line in lines) + as_yaml(content)


def write_exports(folder: Path, state: State, answer: Answer) -> tuple[Path, ...]:
    """Write the exports of the study in `folder`; return the paths of those that exist.

    ``exports/best_miou.yaml``, ``exports/best_macc.yaml`` and ``exports/pareto/<trial>.yaml``;
    outdated files of an earlier state are removed.
    """
    wanted: dict[Path, tuple[str, str]] = {}
    exports = folder / FOLDER
    if answer.best_miou is not None:
        wanted[exports / BEST_MIOU] = ("Best by mean IoU", answer.best_miou)
    if answer.best_macc is not None:
        wanted[exports / BEST_MACC] = ("Best by mean accuracy, mean IoU kept", answer.best_macc)
    for source in answer.pareto:
        wanted[exports / PARETO / f"{source}.yaml"] = ("One of the Pareto set", source)
    for path, (title, source) in wanted.items():
        write_text(path, export_text(title, export(state, answer, source)))
    earlier = [exports / BEST_MIOU, exports / BEST_MACC]
    earlier += [path for path in (exports / PARETO).glob("t*.yaml") if path.stem[1:].isdecimal()]
    for path in earlier:
        if path not in wanted:
            path.unlink(missing_ok=True)
    return tuple(wanted)
