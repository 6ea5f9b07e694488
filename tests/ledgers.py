"""A finished study made of numbers: plausible curves, rungs, failures, evidence; no training.

`make_study(folder)` writes it through the real ledger, so that it reads like any other. With
`rules=True` its trials are measured at every decision rule too, as those of today are; without, it
is a study of an earlier version.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from study.analysis import evidence
from study.analysis.selection import select
from study.config.task import TrialConfig
from study.core.names import (
    BASELINE,
    COMPLETED,
    CONFIRM,
    FAILED,
    REFERENCE,
    SEARCH,
    STOPPED_EARLY,
    TUNED,
    TUNED_MACC,
    VAL_TUNED_MACC,
    VAL_TUNED_MIOU,
)
from study.ledger.chain import Chain, parts
from study.ledger.journal import Ledger
from study.ledger.plan import Plan
from study.ledger.records import (
    EndRecord,
    FinishRecord,
    ReportRecord,
    RungRecord,
    SessionRecord,
    StudyRecord,
    TrialRecord,
)
from study.ledger.state import State
from study.metrics.counts import counts_of_confusion
from study.metrics.decision import ARGMAX, TAUS, Taus, choose_taus
from study.metrics.evidence import SplitEvidence

CLASS_NAMES = ("road", "building", "sky", "tree", "car", "person", "pole", "sign")
FREQUENCIES = np.array([0.35, 0.25, 0.18, 0.12, 0.06, 0.02, 0.015, 0.005])
EPOCHS, RUNG, IMAGES, PIXELS = 8, 3, 24, 5120
TASK = {
    "data": {
        "format": "synthetic",
        "size": (64, 80),
        "num_train": 24,
        "num_val": IMAGES,
        "num_test": IMAGES,
        "seed": 0,
    },
    "model": {"arch": "unet", "encoder": "tu-mobilenetv3_small_050", "encoder_weights": None},
    "optimizer": {"name": "adamw", "lr": 1e-2, "weight_decay": 1e-4},
    "batch_size": 4,
    "budget": {"epochs": EPOCHS},
}
PLAN = Plan(
    seed=0,
    epochs=EPOCHS,
    objectives=("val/miou", "val/macc"),
    sampler="tpe",
    num_trials=16,
    reference_trials=3,
    baselines=("ce", "recall", "median_frequency", "lmp", "jml"),
    rungs=(RUNG,),
    reduction_factor=3,
    split_by=None,
    confirm_top=2,
    confirm_seeds=3,
)
ENVIRONMENT = {
    "commit": "0123abc",
    "device": "cpu",
    "device_name": "a processor",
    "python": "3.11.9",
    "versions": {"torch": "2.15.0"},
    "precision": "fp32",
    "num_threads": 1,
}
# label, family, loss, how much of the rare classes it finds, what that costs elsewhere
BASELINES: list[tuple[str, str, dict[str, Any], float, float]] = [
    ("ce", "ce", {}, 0.52, 0.0),
    ("recall", "recall", {"recall": {"ema_momentum": 0.0}}, 0.60, 0.02),
    (
        "median_frequency",
        "class_weights",
        {"class_weights": {"scheme": "median_frequency"}},
        0.66,
        0.04,
    ),
    ("lmp", "pooling", {"pooling": {"kind": "max", "p": float("inf"), "ratio": 0.3}}, 0.56, 0.01),
    ("jml", "jaccard", {"jaccard": {"mix": 0.75}}, 0.58, 0.0),
]


@dataclass
class Numbers:
    """Draws the metrics of a trial from how well it finds rare classes."""

    rng: np.random.Generator
    sharpness: float = 0.5
    splits: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for split in ("val", "test"):
            shares = self.rng.dirichlet(FREQUENCIES * 30, size=IMAGES)
            self.splits[split] = np.stack([self.rng.multinomial(PIXELS, row) for row in shares])

    def confusions(self, split: str, rare: float, cost: float, epoch: int) -> np.ndarray:
        """(n, C, C) per image: rare classes are found late and by some losses only."""
        rarity = np.linspace(0, 1, len(FREQUENCIES))
        recall = (
            (1 - rarity) * (0.95 - cost) + rarity * rare + self.rng.normal(0, 0.02, rarity.size)
        )
        recall = np.clip(recall * (1 - np.exp(-epoch / (1.0 + rarity))), 0.01, 0.99)
        confused = np.tile(FREQUENCIES, (rarity.size, 1))
        np.fill_diagonal(confused, 0)
        table = confused / confused.sum(1, keepdims=True) * (1 - recall)[:, None]
        np.fill_diagonal(table, recall)
        return self.rng.multinomial(self.splits[split], table)

    def at_rules(self, split: str, confusions: np.ndarray) -> np.ndarray:
        """(taus, n, C, C): a pixel of class c is decided j with p(c, j) pi_j^-(sharpness tau)."""
        summed = confusions.sum(0) + 0.5
        shift = -self.sharpness * np.multiply.outer(TAUS, np.log(FREQUENCIES))
        tables = summed * np.exp(shift)[:, None, :]
        tables /= tables.sum(2, keepdims=True)
        found = np.rint(self.splits[split][None, :, :, None] * tables[:, None]).astype(np.int64)
        found[ARGMAX] = confusions
        return found


def metrics_of(confusion: np.ndarray) -> dict[str, float]:
    """The plain metrics of a (C, C) matrix, rows = target."""
    hits, support, claimed = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    iou = hits / (support + claimed - hits)
    recall, precision = hits / support, hits / np.maximum(claimed, 1)
    values = {
        "miou": iou.mean(),
        "macc": recall.mean(),
        "mprec": precision.mean(),
        "acc": hits.sum() / support.sum(),
    }
    for name, i, r, p in zip(CLASS_NAMES, iou, recall, precision, strict=True):
        values |= {f"iou/{name}": i, f"recall/{name}": r, f"precision/{name}": p}
    return {key: float(item) for key, item in values.items()}


def tuned_metrics_of(curve: np.ndarray, taus: Taus) -> dict[str, float]:
    """The metrics of a curve (taus, C, C) at the two rules of a training."""
    found: dict[str, float] = {}
    for prefix, tau in ((TUNED, taus.miou), (TUNED_MACC, taus.macc)):
        values = metrics_of(curve[TAUS.index(tau)])
        found |= {f"{prefix}/{key}": item for key, item in values.items()}
    return found


def evidence_of(confusions: np.ndarray, at_rules: np.ndarray | None, taus: Taus) -> SplitEvidence:
    """The evidence of a split from its images' matrices at the argmax, and at every rule."""
    counts, groups = counts_of_confusion(confusions), np.arange(IMAGES) // 4
    if at_rules is None:
        return SplitEvidence(confusions.sum(0), counts, groups)
    tuned, tuned_macc = (
        counts_of_confusion(at_rules[TAUS.index(tau)]) for tau in (taus.miou, taus.macc)
    )
    return SplitEvidence(confusions.sum(0), counts, groups, at_rules.sum(1), tuned, tuned_macc)


def objectives(rules: bool) -> tuple[str, ...]:
    """The objectives of a study with or without measured decision rules."""
    return (VAL_TUNED_MIOU, VAL_TUNED_MACC) if rules else PLAN.objectives


def trial_config(loss: dict[str, Any], lr_scale: float = 1.0, seed: int = 0) -> dict[str, Any]:
    """A resolved config as trials record it."""
    config = {"task": TASK, "loss": loss, "optimizer": {"lr_scale": lr_scale}, "seed": seed}
    return TrialConfig.model_validate(config).model_dump(mode="json")


@dataclass
class StudyWriter:
    """Writes trials one after another."""

    folder: Path
    ledger: Ledger
    numbers: Numbers
    rules: bool = False
    on_target: bool = False
    quality: dict[str, tuple[float, float]] = field(default_factory=dict)

    def trial(
        self,
        stage: str,
        label: str,
        family: str,
        config: dict[str, Any],
        quality: tuple[float, float],
        *,
        stop: int = EPOCHS,
        status: str = COMPLETED,
        reason: str = "full budget",
        source: str | None = None,
        resumed: bool = False,
        with_evidence: bool = True,
        finished: bool = True,
    ) -> str:
        """One trial from its hand-out to its end; `resumed` hands it out twice."""
        number = len(self.ledger.state.trials)
        trial = f"t{number:04d}"
        params = None
        if stage == SEARCH:
            params = {
                "optimizer/lr_scale": config["optimizer"]["lr_scale"],
                "loss/jaccard": "on",
                "loss/jaccard/mix": config["loss"]["jaccard"]["mix"],
            }
        first = TrialRecord(
            trial, number, stage, label, family, params, config, config["seed"], source=source,
            on_target=self.on_target and stage == CONFIRM,
        )  # fmt: skip
        self.ledger.append(first)
        self.quality[trial] = quality
        last_confusions: dict[str, np.ndarray] = {}
        last_rules: dict[str, np.ndarray] = {}
        taus = Taus(0.0, 0.0)
        for epoch in range(1, stop + 1):
            splits = ["val"] + (["test"] if stage == CONFIRM and epoch == EPOCHS else [])
            last_confusions = {s: self.numbers.confusions(s, *quality, epoch) for s in splits}
            metrics = {
                "train/loss": 2.0 * np.exp(-epoch / 3),
                "lr": 1e-2 * (1 - epoch / EPOCHS) ** 0.9,
            }
            for split, confusions in last_confusions.items():
                values = metrics_of(confusions.sum(0))
                metrics |= {f"{split}/{key}": item for key, item in values.items()}
            if self.rules:
                last_rules = {s: self.numbers.at_rules(s, c) for s, c in last_confusions.items()}
                taus = choose_taus(last_rules["val"].sum(1))
                for split, at_rules in last_rules.items():
                    values = tuned_metrics_of(at_rules.sum(1), taus)
                    if epoch == EPOCHS:
                        values |= {"nll": 1.0 - quality[0] + quality[1], "calibration_error": 0.02}
                    metrics |= {f"{split}/{key}": item for key, item in values.items()}
                metrics |= {"val/tau_miou": taus.miou, "val/tau_macc": taus.macc}
            metrics["time/epoch_s"] = 1.25
            where = ENVIRONMENT if epoch == 1 else None
            self.ledger.append(ReportRecord(trial, 0, epoch, metrics, environment=where))
            if epoch == RUNG and stage not in (BASELINE, CONFIRM):
                values = {key: metrics[key] for key in objectives(self.rules)}
                keep = status != STOPPED_EARLY
                self.ledger.append(RungRecord(trial, epoch, "all", values, keep, "top third"))
            if resumed and epoch == 5:
                again = copy.deepcopy(first)
                self.ledger.append(TrialRecord(**{**again.__dict__, "attempt": 1}))
                repeated = {**metrics, "time/epoch_s": 9.75}
                self.ledger.append(ReportRecord(trial, 1, epoch, repeated))
        if finished:
            self.ledger.append(EndRecord(trial, status, reason, stop))
        if stage == CONFIRM and with_evidence:
            splits_evidence = {
                split: evidence_of(confusions, last_rules.get(split), taus)
                for split, confusions in last_confusions.items()
            }
            evidence.write(evidence.path_of(self.folder, trial), CLASS_NAMES, splits_evidence)
        return trial


def make_study(
    folder: Path,
    *,
    num_seeds: int = 3,
    until: str = "finish",
    with_evidence: bool = True,
    seed: int = 0,
    task_name: str = "synthetic",
    rules: bool = False,
    target: Sequence[float] | None = None,
) -> Path:
    """Write a study into `folder` (its name is the study's) and return the folder.

    until: `start`, `baselines`, `search`, `select` or `finish`: where the writing stops.
    target: the class frequencies of another task, `town`, that is confirmed on.
    """
    rng = np.random.default_rng(seed)
    ledger = Ledger(folder)
    try:
        writer = StudyWriter(folder, ledger, Numbers(rng), rules, target is not None)
        _write(writer, num_seeds, until, with_evidence, task_name, target)
    finally:
        ledger.close()
    return folder


def _write(
    writer: StudyWriter,
    num_seeds: int,
    until: str,
    with_evidence: bool,
    task_name: str,
    target: Sequence[float] | None,
) -> None:
    ledger, rng = writer.ledger, writer.numbers.rng
    asked = objectives(writer.rules)
    plan = replace(PLAN, objectives=asked, confirm_seeds=num_seeds)
    of_target: dict[str, Any] = {}
    if target is not None:
        plan = replace(plan, confirm_epochs=EPOCHS)
        facts = {
            "fingerprint": "beef" * 16,
            "class_names": list(CLASS_NAMES),
            "class_fraction": list(target),
            "warnings": ["the fog is thick"],
        }
        of_target = {
            "confirm_task_name": "town", "confirm_task": TASK, "confirm_data": facts,
        }  # fmt: skip
    data = {
        "fingerprint": "f00d" * 16,
        "class_names": list(CLASS_NAMES),
        "num_images": {"train": 24, "val": IMAGES, "test": IMAGES},
        "class_fraction": FREQUENCIES.tolist(),
    }
    choice = {"off": {"mix": 0.0}, "on": {"mix": {"float": {"low": 0.2, "high": 0.95}}}}
    rates = {"float": {"low": 0.25, "high": 4.0, "log": True}}
    space = {"loss": {"jaccard": {"choice": choice}}, "optimizer": {"lr_scale": rates}}
    ledger.append(
        StudyRecord(
            name=writer.folder.name,
            seed=0,
            task_name=task_name,
            task=TASK,
            space_name="joint",
            space=space,
            plan=plan.as_dict(),
            data=data,
            environment=ENVIRONMENT,
            **of_target,
        )
    )
    ledger.append(SessionRecord(1, "local", 2, 1.0, 0.0, ""))
    if until == "start":
        return
    for label, family, loss, rare, cost in BASELINES:
        writer.trial(BASELINE, label, family, trial_config(loss), (rare, cost))
    if until == "baselines":
        return
    for scale, rare in ((0.5, 0.50), (1.7, 0.55), (3.1, 0.48)):
        writer.trial(REFERENCE, f"ce lr x{scale:.2g}", "ce", trial_config({}, scale), (rare, 0.0))
    for index in range(13):
        mix, scale = float(rng.uniform(0.2, 0.95)), float(rng.uniform(0.25, 4))
        loss = {"recall": {"ema_momentum": 0.9}, "jaccard": {"mix": mix}}
        ending: dict[str, Any] = {}
        if index % 2:
            ending = {
                "stop": RUNG,
                "status": STOPPED_EARLY,
                "reason": "below the top third at epoch 3",
            }
        if index == 4:
            ending = {"stop": 2, "status": FAILED, "reason": "diverged: loss is nan"}
        rare = 0.5 if index % 2 else 0.56 + 0.005 * index
        writer.trial(
            SEARCH,
            f"recall(ema 0.9) + jaccard {mix:.2g}",
            "recall+jaccard",
            trial_config(loss, scale),
            (rare, 0.005),
            resumed=index == 6,
            **ending,
        )
    if until == "search":
        return
    selection = select(ledger.state, top=2)
    ledger.append(selection)
    if until == "select":
        return
    for repeat in range(num_seeds):
        for source in selection.sources:
            trial = ledger.state.trials[source]
            writer.trial(
                CONFIRM,
                trial.label,
                trial.family,
                {**trial.config, "seed": 1000 + repeat},
                writer.quality[source],
                source=source,
                with_evidence=with_evidence,
            )
    ledger.append(FinishRecord())


def chained(lines: Iterable[bytes]) -> bytes:
    """The bytes of a ledger of other lines than the one they were taken from."""
    chain = Chain()
    return b"".join(f"{chain.sealed(parts(line.decode())[0])}\n".encode() for line in lines)


def numbers(state: State) -> dict[str, dict[int, dict[str, float]]]:
    """All metrics of all trials, but times."""
    return {
        trial.id: {
            epoch: {key: value for key, value in row.items() if not key.startswith("time/")}
            for epoch, row in trial.reports.items()
        }
        for trial in state.trials.values()
    }
