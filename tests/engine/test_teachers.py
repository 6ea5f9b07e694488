"""Real processes: a study that is killed while its teacher is trained, and its exports."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import yaml
from engine.test_engine import task
from engine.test_survival import Study

from study.core.names import BASELINE, COMPLETED, SEARCH, TEACHER
from study.ledger.journal import read
from study.ledger.records import ReportRecord
from study.train import main

pytestmark = pytest.mark.ray

SPACE = {
    "loss": {"distillation": {"mix": {"float": {"low": 0.3, "high": 0.7}}}},
    "study": {
        "teacher": {"task": "large.yaml"},
        "num_trials": 2,
        "reference_trials": 1,
        "baselines": ["kd"],
        "rungs": None,
        "confirm": {"top": 1, "num_seeds": 1},
    },
}


@pytest.mark.timeout(900)
def test_a_study_killed_in_its_teachers_stage_goes_on_and_its_students_are_reproduced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path, pause=0.1)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    large = {**task(tmp_path / "pids"), "budget": {"epochs": 4}}
    large["data"] = {**large["data"], "size": [48, 64]}
    large["model"]["kwargs"]["pause"] = 0.1
    (tmp_path / "large.yaml").write_text(yaml.safe_dump(large))
    tree = yaml.safe_load((tmp_path / "task.yaml").read_text())
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({**tree, "budget": {"epochs": 2}}))
    process = study.begin("--no-weights")
    study.wait_for_reports(2, process)
    process.kill()
    process.wait()
    before = study.state
    assert [trial.stage for trial in before.trials.values()] == [TEACHER]
    (tmp_path / "large.yaml").unlink()  # the ledger says what is trained
    resumed = study.start("--resume", "s", "--trust")
    out, err = resumed.communicate()
    assert resumed.returncode == 0, (out, err)
    state = study.state
    assert state.finished
    assert {trial.status for trial in state.trials.values()} == {COMPLETED}
    (teacher,) = state.of_stage(TEACHER)
    reports = [r for r in read(study.ledger) if isinstance(r, ReportRecord) and r.trial == "t0000"]
    assert len(reports) <= 5, "at most one epoch of the teacher is trained again"
    weights = study.ledger.parent / "weights" / f"{teacher.id}.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    students = [t for t in state.of_stage(BASELINE, SEARCH) if t.family == "distillation"]
    assert len(students) == 2
    for trial in students:
        assert trial.config["loss"]["distillation"]["teacher"]["sha256"] == digest
        assert trial.last["train/teacher_pixel"] > 0

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    exports = study.ledger.parent / "exports"
    found = [
        path
        for path in [exports / "best_miou.yaml", *exports.glob("pareto/*.yaml")]
        if yaml.safe_load(path.read_text())["loss"]["distillation"] is not None
    ]
    assert found
    assert main([str(found[0]), "--device", "cpu", "--trust"]) == 0
    assert "reproduced exactly" in capsys.readouterr().out
    moved = tmp_path / "moved.safetensors"
    weights.unlink()
    (kept,) = exports.glob("teacher-*.safetensors")
    shutil.move(kept, moved)
    assert main([str(found[0]), "--device", "cpu", "--trust"]) == 2
    assert "the teacher's weights are not there" in capsys.readouterr().err
    assert main([str(found[0]), "--device", "cpu", "--trust", "--teacher", str(moved)]) == 0
    assert "reproduced exactly" in capsys.readouterr().out
