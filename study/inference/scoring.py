"""Scores an exported network on labelled pictures, as the study's own evaluation does."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from study.config.task import Data, FileData, FolderData
from study.core.errors import InputError
from study.core.names import TEST, TRAIN, VAL
from study.data import open_data, scan_files
from study.data.formats.folder import CLASSES_FILE, folder_scan
from study.data.formats.folder_classes import SPLIT_OF
from study.data.formats.folder_splits import UNDIVIDED
from study.data.scan import Scan
from study.inference.predictor import Predictor
from study.metrics import SegmentationMetrics
from study.metrics.counts import class_metrics, metrics_from_counts, present_classes

ALL = "all"
SPLITS = (TRAIN, VAL, TEST, ALL)
Image = NDArray[np.uint8]
Sample = tuple[str, Image, Image]  # name, (H, W, 3), (H, W)


@dataclass(frozen=True)
class Labelled:
    """Labelled pictures of one size, with the classes that their labels mean."""

    name: str
    class_names: tuple[str, ...]
    ignore_index: int
    samples: Iterable[Sample]


@dataclass(frozen=True)
class Score:
    """metrics: as in `study.metrics`, at the export's rule, and as `argmax/<metric>` at the argmax.
    images: by name, its mean IoU, pixel accuracy and the IoU of each class that it shows, at the
    rule."""

    metrics: dict[str, float]
    images: list[tuple[str, dict[str, float]]] = field(repr=False)


def folder_of(root: Path, predictor: Predictor, split: str) -> Labelled:
    """The labelled pictures of a folder data set, brought to the size of the training.

    Without a classes.yaml, labels hold the network's own class ids, and 255 is ignored. With split
    `all` every pair counts, whether or not the folder says how it is divided.

    Raises:
        InputError: for any fault of the files.
    """
    if predictor.size is None:
        hint = "give a task, whose data have one"
        raise InputError("the export's data have no size", hint=hint, key="DATA")
    config = FolderData(
        format="folder", root=str(root), size=predictor.size, fit=predictor.fit, duplicates="warn"
    )
    described = root / CLASSES_FILE
    with tempfile.TemporaryDirectory() as folder:
        if not described.exists():
            described = Path(folder) / CLASSES_FILE
            stated: dict[str, object] = {"classes": [*predictor.class_names]}
            if not any((root / "images" / name).is_dir() for name in SPLIT_OF):
                if split != ALL:
                    message = f"the folder does not say which of its images are {split}"
                    raise InputError(message, hint="--split all takes them all", file=root)
                stated["splits"] = {VAL: 0.1, TEST: 0.1}  # one folder; it does not matter which
            text = yaml.safe_dump(stated, allow_unicode=True)
            described.write_text(text, encoding="utf-8")
        scan = folder_scan(config, root, described)
    return _of_scan(scan, split)


def data_of(config: Data, predictor: Predictor, data_root: Path | None, split: str) -> Labelled:
    """The labelled pictures of a task's data. Raises InputError for any fault of them."""
    if isinstance(config, FileData):
        if predictor.size is not None:
            config = config.model_copy(update={"size": predictor.size, "fit": predictor.fit})
        return _of_scan(scan_files(config, data_root), split)
    data = open_data(config, begun=True)
    chosen = [part for name, part in data.splits.items() if split in (name, ALL)]
    samples = [
        (name, part.images[index], part.labels[index])
        for part in chosen
        for index, name in enumerate(part.names)
    ]
    return Labelled(data.name, data.class_names, data.ignore_index, samples)


def _of_scan(scan: Scan, split: str) -> Labelled:
    faults = [fault for fault in scan.findings.faults if split != ALL or fault.kind != UNDIVIDED]
    if faults:
        raise faults[0].counted(sum(one.kind == faults[0].kind for one in faults))
    pairs = scan.findings.pairs if split == ALL else [pair for pair, _ in scan.members()[split]]
    if not pairs:
        raise InputError(f"split {split} has no images", hint=scan.rule, key="--split")
    samples: Iterator[Sample] = ((pair.name, *scan.read(pair)) for pair in pairs)
    return Labelled(scan.name, scan.table.names, scan.table.ignore_index, samples)


def score(predictor: Predictor, labelled: Labelled, *, batch_size: int = 8) -> Score:
    """Score the network.

    Raises:
        InputError: for a class that the network does not know, and for a file that cannot be used.
    """
    ids = _ids(predictor.class_names, labelled)
    num_classes = len(predictor.class_names)
    at_rule, at_argmax = (
        SegmentationMetrics(num_classes, class_names=predictor.class_names) for _ in range(2)
    )
    names: list[str] = []
    device = predictor.mean.device
    with torch.inference_mode():
        for batch in _batches(labelled.samples, batch_size):
            images = torch.from_numpy(np.stack([image for _, image, _ in batch]))
            labels = torch.from_numpy(ids[np.stack([label for *_, label in batch])]).long()
            logits = predictor.logits(images.permute(0, 3, 1, 2).to(device))
            at_rule.update(predictor.decision(logits), labels.to(device))
            at_argmax.update(logits.argmax(1), labels.to(device))
            names += [name for name, *_ in batch]
    counts = at_rule.image_counts().cpu().numpy()
    metrics = at_rule.compute()
    metrics |= {f"argmax/{key}": value for key, value in at_argmax.compute().items()}
    images_of = [
        (name, dict(_of_image(count, predictor.class_names)))
        for name, count in zip(names, counts, strict=True)
    ]
    return Score(metrics, images_of)


def _ids(known: Sequence[str], labelled: Labelled) -> NDArray[np.uint8]:
    """The network's class of each value of a decoded label, (256,)."""
    ids = np.full(256, 255, np.uint8)
    for value, name in enumerate(labelled.class_names):
        if name not in known:
            raise InputError(
                f"the network has no class {name!r}",
                allowed=known,
                hint="call it as the network does in classes.yaml, or map it to `ignore`",
                key="DATA",
            )
        ids[value] = known.index(name)
    return ids


def _batches(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _of_image(counts: NDArray[np.int64], names: Sequence[str]) -> Iterator[tuple[str, float]]:
    summed = metrics_from_counts(counts)
    yield "miou", float(summed["miou"])
    yield "acc", float(summed["acc"])
    for name, value, shown in zip(
        names, class_metrics(counts)["iou"], present_classes(counts), strict=True
    ):
        if shown:
            yield f"iou/{name}", float(value)
