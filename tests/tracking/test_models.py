"""The exported networks of a study in MLflow: logged once, opened without pickles, registered when
asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from exported_network import export_network
from ledgers import make_study

from study import load, track, tracking
from study.core.errors import InputError
from study.inference.mlflow_model import _load_pyfunc
from study.tracking.models import requirements

pytestmark = pytest.mark.slow


@dataclass
class Place:
    """A study with one exported network, and the store that it is written to."""

    folder: Path
    uri: str

    def track(self, *more: str) -> int:
        return track.main([str(self.folder), "--tracking-uri", self.uri, *more])

    @property
    def export(self) -> Path:
        return self.folder / "exports" / "best_miou.yaml"

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.uri)

    @property
    def models(self) -> list[Any]:
        experiment = self.client.get_experiment_by_name("synthetic")
        return [*self.client.search_logged_models([experiment.experiment_id])]

    def versions(self, name: str) -> list[Any]:
        return [*self.client.search_model_versions(f"name = '{name}'")]

    def load(self, uri: str, **options: Any) -> Any:
        import mlflow

        mlflow.set_tracking_uri(self.uri)
        return mlflow.pyfunc.load_model(uri, **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = make_study(
        tmp_path_factory.mktemp("studies") / "v1.2", with_evidence=False, until="baselines"
    )
    (folder / "exports").mkdir()
    export_network(folder / "exports")
    return Place(folder, tracking.default_uri(folder.parent))


def test_an_upload_that_is_cut_off_is_a_line_and_is_made_up_for(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    def away(*_: object) -> None:
        raise OSError("no room\nat all")

    with monkeypatch.context() as without_room:
        without_room.setattr(MlflowClient, "log_model_artifacts", away)
        assert place.track() == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "the exported networks are not in MLflow: OSError: no room"
    assert told[1].endswith("5 trials are in MLflow")
    (begun,) = place.models
    assert begun.status == "PENDING"
    assert place.track() == 0
    (made,) = place.models
    assert made.model_id == begun.model_id and made.status == "READY"


def test_it_gives_the_classes_that_the_export_gives(place: Place) -> None:
    assert place.track() == 0
    (model,) = place.models
    assert model.name == "v1_2-best_miou" and model.tags["study"] == "v1.2"
    run = place.client.get_run(model.source_run_id)
    assert run.data.tags["stage"] == "study"
    assert [one.model_id for one in run.outputs.model_outputs] == [model.model_id]
    opened = place.load(model.model_uri)
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    classes = opened.predict(picture)
    assert classes.dtype == np.uint8 and len(np.unique(classes)) > 1
    np.testing.assert_array_equal(classes, load(place.export).predict(picture).classes)
    with pytest.raises(Exception, match="uint8"):
        opened.predict(picture / 255)


def test_it_holds_no_pickle_and_names_no_place_to_install_from(place: Place) -> None:
    assert place.track() == 0
    (model,) = place.models
    root = Path(model.artifact_location.removeprefix("file://"))
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert files >= {"MLmodel", "requirements.txt", "data/best_miou.yaml"}
    assert {Path(name).suffix for name in files} == {"", ".txt", ".yaml", ".safetensors"}
    for name in files - {"data/best_miou.safetensors"}:
        assert "http" not in (root / name).read_text() and "--" not in (root / name).read_text()


def test_it_is_a_version_once_and_stays_when_the_export_is_another(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.track("--register", "streets") == 0
    assert place.track("--register", "streets") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "streets" in line]
    assert said == [
        "registered as streets version 1: models:/streets/1",
        "streets version 1 is this network already",
    ]
    (version,), (first,) = place.versions("streets"), place.models
    assert version.source == f"models:/{first.model_id}"
    before = place.load("models:/streets/1")
    place.export.write_text(f"# another\n{place.export.read_text()}")
    assert place.track() == 0
    second, kept = place.models
    assert kept.model_id == first.model_id, "the registry refers to it"
    place.export.write_text(f"# once more\n{place.export.read_text()}")
    assert place.track("--register", "streets") == 0
    third, kept = place.models
    assert second.model_id not in (third.model_id, kept.model_id), "nothing refers to it"
    assert [int(one.version) for one in place.versions("streets")] == [2, 1]
    picture = np.zeros((16, 16, 3), np.uint8)
    after = place.load("models:/streets/2")
    np.testing.assert_array_equal(before.predict(picture), after.predict(picture))


def test_a_factory_of_the_users_own_is_imported_only_when_trusted(
    place: Place, tmp_path: Path
) -> None:
    content = yaml.safe_load(place.export.read_text())
    content["task"]["model"] = {"factory": "nowhere:model"}
    (tmp_path / place.export.name).write_text(yaml.safe_dump(content))
    weights = place.export.with_suffix(".safetensors")
    (tmp_path / weights.name).write_bytes(weights.read_bytes())
    for given in (None, {"trust": False}, {"trust": "yes"}):
        with pytest.raises(InputError, match="trust"):
            _load_pyfunc(str(tmp_path), given)
    with pytest.raises(InputError, match="no module named 'nowhere'"):
        _load_pyfunc(str(tmp_path), {"trust": True})


@pytest.mark.parametrize("name", ["a/b", "a:b", " "])
def test_a_name_that_the_registry_would_refuse_is_bad_input(
    place: Place, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.track("--register", name) == 2
    assert "without / and :" in capsys.readouterr().err


def test_a_study_without_weights_has_nothing_to_register(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    young = make_study(place.folder.parent / "young", until="baselines")
    assert track.main([str(young), "--tracking-uri", place.uri, "--register", "streets"]) == 2
    assert "no network of the export best_miou" in capsys.readouterr().err


def test_requirements_are_of_whatever_build() -> None:
    assert requirements({"versions": {"torch": "2.15.0+cu132", "timm": "1.0.31"}}) == [
        "segmentation-loss-study",
        "torch==2.15.0",
        "timm==1.0.31",
    ]
