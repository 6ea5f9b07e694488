"""The exported networks of a study as logged models of MLflow, and in its model registry."""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from study.core.errors import InputError
from study.core.files import write_text
from study.core.names import EXPORTS
from study.ledger.records import StudyRecord
from study.tracking import content

LOADER = "study.inference.mlflow_model"
PACKAGE = "segmentation-loss-study"
WEIGHTS, DATA = ".safetensors", "data"
REGISTERED = "best_miou"
DIGEST, ROLE = "export_sha256", "export"
READY = "READY"


@dataclass(frozen=True)
class Models:
    """The networks of one study in MLflow.

    Args:
        client: MLflow's.
        experiment, run: the ids of the study's experiment and of its own run.
        study: the first line of its ledger.
        folder: where its exports are.
    """

    client: Any
    experiment: str
    run: str
    study: StudyRecord
    folder: Path

    def write(self, on_success: Callable[[], None] = lambda: None) -> None:
        """Log every export that has weights, once: one that is there with the same content stays,
        one with another content is replaced, unless a version in the registry refers to it."""
        exports = [*self._exports()]
        there = self._there() if exports else {}
        for export in exports:
            digest = hashlib.sha256(export.read_bytes()).hexdigest()
            held = there.get(export.stem, [])
            same = [model for model in held if model.tags.get(DIGEST) == digest]
            if not any(model.status == READY for model in same):
                self._log(export, digest, same[0] if same else None)
            for model in held:
                if model not in same and not self._versions(model):
                    self.client.delete_logged_model(model.model_id)
            on_success()

    def register(self, name: str) -> str:
        """Make the network of the export `best_miou` a version of a registered model, unless it is
        one; the registered model is made if there is none. Returns a line that says so.

        Raises:
            InputError: if there is no such network in MLflow, or the registry refuses it.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self._register(name)
        except MlflowException as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"MLflow does not register it: {reason}", key="--register") from error

    def _register(self, name: str) -> str:
        import mlflow
        from mlflow.exceptions import MlflowException

        mlflow.set_tracking_uri(self.client.tracking_uri)  # the registry looks the model up there
        model = next(
            (one for one in self._there().get(REGISTERED, []) if one.status == READY), None
        )
        if model is None:
            raise InputError(
                f"MLflow has no network of the export {REGISTERED}",
                hint="a study has one once a config is confirmed, unless run with --no-weights",
                key="--register",
            )
        for version in self._versions(model):
            if version.name == name:
                return f"{name} version {version.version} is this network already"
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"models:/{model.model_id}"
        version = self.client.create_model_version(
            name, source, run_id=self.run, model_id=model.model_id
        )
        return f"registered as {name} version {version.version}: models:/{name}/{version.version}"

    def _exports(self) -> Iterator[Path]:
        for path in sorted((self.folder / EXPORTS).glob("*.yaml")):
            if path.with_suffix(WEIGHTS).is_file():
                yield path

    def _there(self) -> dict[str, list[Any]]:
        """The study's models by role, the newest first."""
        found: dict[str, list[Any]] = {}
        token = None
        while True:
            page = self.client.search_logged_models(
                [self.experiment], f"source_run_id = '{self.run}'", page_token=token
            )
            for model in page:
                found.setdefault(model.tags.get(ROLE, ""), []).append(model)
            token = page.token
            if not token:
                return found

    def _versions(self, model: Any) -> list[Any]:
        return [*self.client.search_model_versions(f"source_path = 'models:/{model.model_id}'")]

    def _log(self, export: Path, digest: str, begun: Any) -> None:
        """Log a model, or go on with one of the same content whose upload was cut off."""
        from mlflow.entities import LoggedModelOutput

        config = yaml.safe_load(export.read_text(encoding="utf-8"))
        model = begun or self.client.create_logged_model(
            self.experiment,
            f"{self.study.name}-{export.stem}".replace(".", "_"),
            source_run_id=self.run,
            tags={**content.study_tags(self.study), ROLE: export.stem, DIGEST: digest},
            params=_params(config),
            model_type="semantic segmentation",
        )
        outputs = self.client.get_run(self.run).outputs
        if all(one.model_id != model.model_id for one in outputs.model_outputs):
            self.client.log_outputs(self.run, [LoggedModelOutput(model.model_id, step=0)])
        for path in (export, export.with_suffix(WEIGHTS)):
            self.client.log_model_artifact(model.model_id, str(path), DATA)
        with tempfile.TemporaryDirectory() as folder:
            self._describe(Path(folder), model)
            self.client.log_model_artifacts(model.model_id, folder)
        self.client.finalize_logged_model(model.model_id, READY)

    def _describe(self, folder: Path, model: Any) -> None:
        """Write the files by which MLflow loads the model wherever this package is installed."""
        import numpy as np
        from mlflow.models import Model, ModelSignature
        from mlflow.pyfunc import add_to_model
        from mlflow.types import Schema, TensorSpec

        byte = np.dtype(np.uint8)
        described = Model(
            artifact_path=model.artifact_location,
            run_id=self.run,
            model_uuid=model.model_id,
            model_id=model.model_id,
            signature=ModelSignature(
                inputs=Schema([TensorSpec(byte, (-1, -1, 3))]),
                outputs=Schema([TensorSpec(byte, (-1, -1))]),
            ),
        )
        add_to_model(
            described,
            loader_module=LOADER,
            data=DATA,
            python_env="python_env.yaml",
            model_config={"device": "cpu", "trust": False},
        )
        described.save(str(folder / "MLmodel"))
        environment = {
            "python": self.study.environment.get("python", platform.python_version()),
            "build_dependencies": ["pip"],
            "dependencies": ["-r requirements.txt"],
        }
        write_text(folder / "python_env.yaml", json.dumps(environment))
        lines = "".join(f"{line}\n" for line in requirements(self.study.environment))
        write_text(folder / "requirements.txt", lines)


def requirements(environment: Mapping[str, Any]) -> list[str]:
    """The distributions that a network was trained with, by name and version, of whatever build."""
    versions = {PACKAGE: "", **environment.get("versions", {})}
    return [
        f"{name}=={version.partition('+')[0]}" if version else name
        for name, version in versions.items()
    ]


def _params(config: Mapping[str, Any]) -> dict[str, str]:
    """What an export says of its network in short: its origin and its loss."""
    origin = config.get("provenance", {})
    short = {key: origin[key] for key in ("trial", "label", "task", "seed") if key in origin}
    loss = dict(content.leaves({"loss": config.get("loss", {})}))
    return {content.key_of(key): content.text(value) for key, value in (short | loss).items()}
