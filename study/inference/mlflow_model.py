"""An export as a model of MLflow: what `mlflow.pyfunc.load_model` calls, by this module's name"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.inference.loading import load
from study.inference.predictor import Predictor, UInt8Array


class Classes:
    """Gives the classes of one picture: `Predictor.predict` as MLflow calls it."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, model_input: UInt8Array) -> UInt8Array:
        """The class ids (H, W) of a picture (H, W, 3), RGB, both uint8."""
        return self.predictor.predict(model_input).classes


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any] | None = None) -> Classes:
    """Open the one export in a folder.

    model_config: `device`, where the network is put, and `trust`, whether a model factory that the
    export names may be imported, as in `study.load`.
    """
    (export,) = Path(data_path).glob("*.yaml")
    settings = {"device": "cpu", "trust": False, **(model_config or {})}
    return Classes(load(export, device=settings["device"], trust=settings["trust"] is True))
