"""Whether studies can be compared: in what they differ but the loss, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.analysis.answer import Answer
from study.config.task import task_of
from study.ledger.plan import Plan
from study.ledger.state import State


@dataclass(frozen=True)
class Differences:
    """apart: why figures of the studies cannot be compared, a line for each reason. limits: what
    else is unlike."""

    apart: tuple[str, ...]
    limits: tuple[str, ...]


def differences(studies: Mapping[str, tuple[State, Answer]]) -> Differences:
    """In what the given studies, by their names, differ. Empty where it is the loss alone."""
    apart, limits = {}, {}
    for name, (state, answer) in studies.items():
        apart[name] = dict(_conditions(state, answer))
        limits[name] = dict(_circumstances(state, answer))
    return Differences(tuple(_unlike(apart)), tuple(_unlike(limits)))


def _conditions(state: State, answer: Answer) -> Iterator[tuple[str, str]]:
    """What must be equal for equal terms, in words."""
    assert state.study is not None
    study = state.study
    facts = study.judged_data
    task = task_of(study.judged_task).model_dump(mode="json")
    counts = ", ".join(f"{n} {split}" for split, n in facts.get("num_images", {}).items())
    names = facts.get("class_names", ())
    content = f"fingerprint {str(facts.get('fingerprint', 'unknown'))[:12]}, {counts} images"
    yield "data", "seen by its own training alone" if study.has_own_training else content
    yield "classes", f"{len(names)}: {', '.join(names)}" if names else "not named"
    yield "training", _flat(task.get("trial", "this package's"))
    yield "image size", " x ".join(map(str, task.get("data", {}).get("size") or ())) or "its own"
    yield "network", _flat(task.get("model", "its own"))
    plan = Plan.from_dict(study.plan)
    yield "epochs of a confirmation", str(plan.confirm_epochs or plan.epochs)
    for what in ("batch_size", "optimizer", "lr_schedule", "augment", "precision"):
        yield what.replace("_", " "), _flat(task.get(what, "its own"))
    yield "metric that ranks", answer.primary.val_miou if state.num_epochs else "none yet"


def _circumstances(state: State, answer: Answer) -> Iterator[tuple[str, str]]:
    """What may differ without making figures incomparable, but limits what they say."""
    assert state.study is not None
    study = state.study
    plan = Plan.from_dict(study.plan)
    yield "name of the task", study.judged_task_name
    yield "state", "confirmed" if answer.confirmed else "not confirmed yet"
    yield "reference", answer.reference_name if answer.reference else "none yet"
    counts = sorted({len(config.seeds) for config in answer.configs})
    yield "seeds of a config", " to ".join(map(str, dict.fromkeys(counts[:1] + counts[-1:])))
    yield "first seed", str(plan.seed)
    proxy = f"{study.task_name}, a proxy" if study.confirm_task_name else "the task itself"
    yield "searched on", proxy
    yield "searched trials", str(plan.search_size(state.search_ended_after))
    yield "rates at which cross entropy is tuned", str(plan.reference_trials)
    yield "device", ", ".join(sorted(_devices(state))) or "none yet"
    versions = study.environment.get("versions", {})
    yield "torch", str(versions.get("torch", "unknown"))


def _devices(state: State) -> set[str]:
    return {
        str(trial.environment["device_name"])
        for trial in state.trials.values()
        if "device_name" in trial.environment
    }


def _flat(tree: Any) -> str:
    """A tree of settings in one line, those that are off left out."""
    if isinstance(tree, Mapping):
        told = {key: item for key, item in tree.items() if item not in (None, {}, ())}
        return ", ".join(f"{key} {_flat(item)}" for key, item in sorted(told.items()))
    if isinstance(tree, (list, tuple)):
        return " ".join(map(_flat, tree))
    return str(tree)


def _unlike(told: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """A line for each thing that is not the same in all studies."""
    first = next(iter(told.values()))
    for what in first:
        groups: dict[str, list[str]] = {}
        for name, things in told.items():
            groups.setdefault(things[what], []).append(name)
        if len(groups) > 1:
            yield f"{what}: " + "; ".join(_group(names, item) for item, names in groups.items())


def _group(names: Sequence[str], item: str) -> str:
    return f"{item or 'none yet'} ({', '.join(names)})"
