"""The classes one by one: how often each occurs, who finds it, and which ones cross entropy misses.

Where the reference is confirmed, figures are means over seeds on test, at the primary rule; before
that, of the best trials so far on val. A class is missed where the reference's argmax has no pixel
of it right with any seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.analysis import evidence
from study.analysis.answer import Answer, Confirmed, Leaders
from study.analysis.rules import ARGMAX, prefix_of, rules_of
from study.analysis.selection import ranked, reference_trial, value
from study.analysis.statistics import mean
from study.core.names import BASELINE, IN_BATCHES, REFERENCE, SEARCH, TEST, VAL
from study.ledger.state import State, Trial

FINDS = 0.01  # IoU from which a config is said to find a class


@dataclass(frozen=True)
class Figures:
    """IoU, recall and precision of a class; NaN where they are not measured."""

    iou: float
    recall: float
    precision: float


@dataclass(frozen=True)
class ClassRow:
    """A class of the task.

    share: of the training pixels. images: how many hold it, by split; empty in a study that an
    earlier version began. best: the searched trial or baseline with the highest val IoU, its label
    and that IoU; of the confirmed configs, by their means over seeds, where these are of another
    task. missed: what is known of a class that the reference misses, in words.
    """

    name: str
    share: float
    images: Mapping[str, int]
    reference: Figures | None
    winner: Figures | None
    best: tuple[str, str, float] | None
    missed: str = ""


@dataclass(frozen=True)
class Classes:
    """The classes, the rarest in training first. split: where the figures are measured, of the
    task `proxy` where that is not the one that is judged."""

    split: str
    rows: tuple[ClassRow, ...]
    proxy: str = ""


def classes(state: State, folder: Path, answer: Answer) -> Classes:
    """The table of classes; without rows where no trial has reached the full budget."""
    if not answer.confirmed or answer.reference is None:
        return classes_so_far(state)
    sides = (answer.reference, answer.config(answer.best_miou))
    told = Missed(folder, answer, never_in_a_window(state, answer.reference))
    data = state.study.judged_data if state.study else {}
    key = f"{prefix_of(answer.primary.val_miou)}iou/"

    def best(name: str) -> tuple[str, str, float] | None:
        if not answer.proxy:
            return _best(state, key + name)
        rated = [one for one in answer.configs if not math.isnan(one.mean(key + name))]
        found = max(rated, key=lambda one: one.mean(key + name), default=None)
        return None if found is None else (found.source, found.label, found.mean(key + name))

    prefix = prefix_of(answer.primary.test_miou)
    return Classes(TEST, tuple(_rows(data, prefix, sides, best, told.words)))


def classes_so_far(state: State) -> Classes:
    """The table of classes of the best cross entropy and the best trial so far, on val."""
    key = rules_of(state)[0].val_miou
    full = state.completed(BASELINE, REFERENCE, SEARCH)
    sides = (reference_trial(state), next(iter(ranked(full, key)), None))
    prefix, study = prefix_of(key), state.study
    if study is None or not full:
        return Classes(VAL, ())
    rows = _rows(study.data, prefix, sides, lambda name: _best(state, f"{prefix}iou/{name}"))
    return Classes(VAL, tuple(rows), study.task_name if study.confirm_task_name else "")


def rarest(state: State, ahead: Leaders, most: int) -> tuple[ClassRow, ...]:
    """The rarest classes in training, with the figures on val of the reference and of the config
    that is ahead by mIoU, where both have them."""
    study = state.study
    if study is None or ahead.reference is None or ahead.miou is None:
        return ()
    prefix = prefix_of(rules_of(state)[0].val_miou)
    data = study.judged_data if ahead.confirmed else study.data
    sides = (ahead.reference, ahead.miou)
    return tuple(_rows(data, prefix, sides, lambda name: None))[:most]


def _best(state: State, key: str) -> tuple[str, str, float] | None:
    """The searched trial or baseline that has the highest value."""
    best = next(iter(ranked(state.completed(BASELINE, REFERENCE, SEARCH), key)), None)
    return None if best is None else (best.id, best.label, value(best, key))


def _rows(
    data: Mapping[str, Any],
    prefix: str,
    sides: tuple[Confirmed | Trial | None, Confirmed | Trial | None],
    best: Callable[[str], tuple[str, str, float] | None],
    missed: Callable[[str, float], str] = lambda name, share: "",
) -> Iterator[ClassRow]:
    names, shares, images = _described(data)
    for index in sorted(range(len(names)), key=lambda one: shares[one]):
        name, share = names[index], shares[index]
        reference, winner = (
            None if side is None else _figures(side, prefix, name) for side in sides
        )
        holding = {at: counts[index] for at, counts in images.items()}
        told = missed(name, share)
        yield ClassRow(name, share, holding, reference, winner, best(name), told)


def _described(data: Mapping[str, Any]) -> tuple[list[str], list[float], dict[str, list[int]]]:
    names = list(data.get("class_names", ()))
    shares = list(data.get("class_fraction", ()))
    shares = shares if len(shares) == len(names) else [math.nan] * len(names)
    return names, shares, dict(data.get("class_images", {}))


def _figures(of: Confirmed | Trial, prefix: str, name: str) -> Figures:
    found = []
    for metric in ("iou", "recall", "precision"):
        key = f"{prefix}{metric}/{name}"
        found.append(of.mean(key) if isinstance(of, Confirmed) else value(of, key))
    return Figures(*found)


class Missed:
    """Tells of a class that the reference misses at its argmax: whether it predicts it elsewhere,
    and what finds it. unseen: the classes that were in no window that the reference trained on."""

    def __init__(self, folder: Path, answer: Answer, unseen: Collection[str] = ()) -> None:
        assert answer.reference is not None
        self._answer, self._reference = answer, answer.reference
        self._unseen = unseen
        self._decided = _decided(folder, answer.reference)

    def words(self, name: str, share: float) -> str:
        """In words; empty for a class that is found or is not in test."""
        recalls = self._reference.metrics.get(f"{TEST}/recall/{name}")
        if recalls is None or any(recalls):
            return ""
        if share == 0:
            return "no training pixel"
        if name in self._unseen:
            return "; ".join(["never in a window that it trained on", *self._found(name)])
        decided = self._decided.get(name)
        first = "missed" if decided is None else "never predicted"
        if decided:
            first = "predicted, never where it is"
        return "; ".join([first, *self._found(name)])

    def _found(self, name: str) -> Iterator[str]:
        rule = self._answer.primary
        prefix = prefix_of(rule.test_miou)
        key = f"{prefix}iou/{name}"
        own = self._reference.mean(key)
        if rule != ARGMAX and own >= FINDS:
            yield f"found by the decision rule alone (IoU {100 * own:.1f})"
            return
        others = [one for one in self._answer.configs if one is not self._reference]
        finders = [one for one in others if one.mean(key) >= FINDS]
        if not finders:
            yield "found by no confirmed config"
            return
        best = max(finders, key=lambda one: one.mean(key))
        price = self._others(best, prefix, name) - self._others(self._reference, prefix, name)
        yield (
            f"found by {best.label} (IoU {100 * best.mean(key):.1f}; the other classes' mean IoU "
            f"{100 * price:+.1f})"
        )

    def _others(self, config: Confirmed, prefix: str, name: str) -> float:
        head = f"{prefix}iou/"
        keys = [one for one in config.metrics if one.startswith(head) and one != head + name]
        return mean([config.mean(key) for key in keys])


def never_in_a_window(state: State, reference: Confirmed) -> set[str]:
    """The classes that no batch of the reference's trainings held, with any seed; empty where no
    training tells."""
    told: dict[str, float] = {}
    for trial in reference.trials:
        for report in state.trials[trial].reports.values():
            for key in report:
                if key.startswith(f"{IN_BATCHES}/"):
                    name = key.removeprefix(f"{IN_BATCHES}/")
                    told[name] = told.get(name, 0.0) + report[key]
    return {name for name, total in told.items() if total == 0}


def _decided(folder: Path, reference: Confirmed) -> dict[str, int]:
    """How many pixels of test the reference calls each class, over all seeds, at the argmax; empty
    without the evidence of each."""
    total: dict[str, int] = {}
    for trial in reference.trials:
        found = evidence.read(evidence.path_of(folder, trial))
        if found is None or TEST not in found.splits:
            return {}
        columns = found.splits[TEST].confusion.sum(0)
        for name, count in zip(found.class_names, columns, strict=True):
            total[name] = total.get(name, 0) + int(count)
    return total
