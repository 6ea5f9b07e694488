"""An exported network for tests: its files, as a study leaves them, and its training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from tiny_task import run, tiny, tiny_data

from study.data import SegmentationData
from study.metrics.exported import decision_block
from study.storage.weights import weights_block
from study.training.trainer import EpochReport

Change = Callable[[dict[str, Any]], None]


class Exported(NamedTuple):
    path: Path
    report: EpochReport
    data: SegmentationData

    def changed(self, folder: Path, change: Change) -> Path:
        """A copy of the export in another folder, changed; its weights beside it."""
        content = yaml.safe_load(self.path.read_text())
        change(content)
        weights = self.path.with_suffix(".safetensors")
        (folder / weights.name).write_bytes(weights.read_bytes())
        copy = folder / self.path.name
        copy.write_text(yaml.safe_dump(content, sort_keys=False))
        return copy


def export_network(folder: Path) -> Exported:
    """Train the tiny task and export it with its decision rule and weights."""
    data, config = tiny_data(), tiny()
    (*_, last) = run(config, data, evaluate_test=True)
    weights = folder / "best_miou.safetensors"
    last.save_weights(weights)
    counts = np.sum(data.train.class_counts, axis=0)
    content = config.model_dump(mode="json")
    content |= decision_block(last.metrics["val/tau_miou"], counts) | weights_block(weights)
    path = folder / "best_miou.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return Exported(path, last, data)
