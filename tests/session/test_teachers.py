"""The teachers of a study are found, checked and shown before it starts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from folder_data import write_folder
from tiny_task import TINY, colours, tiny_data

from study.core.errors import InputError
from study.losses.config import TaskTeacher, WeightsTeacher
from study.session.options import Options
from study.session.prepare import Prepared, describe_plan, prepare, reopen
from study.session.teachers import _leaks, recorded, refuse_new
from study.space.search_space import load_space
from study.training.weights import save_weights

SPACE: dict[str, Any] = {
    "loss": {"distillation": {"mix": {"float": {"low": 0.2, "high": 0.8}}}},
    "study": {
        "num_trials": 2,
        "reference_trials": 1,
        "baselines": ["ce", "jml_kd"],
        "rungs": None,
        "confirm": {"top": 1, "num_seeds": 1},
    },
}


def prepared(tmp_path: Path, space: dict[str, Any], task: Any = TINY, **more: Any) -> Prepared:
    given = {"storage": tmp_path / "studies", "tracking_uri": f"sqlite:///{tmp_path}/m.db"}
    return prepare(Options.of({"space": space, "task": task, **given, **more}))


def space(teacher: Any = None, **study: Any) -> dict[str, Any]:
    named = {} if teacher is None else {"teacher": teacher}
    return {**SPACE, "study": {**SPACE["study"], **named, **study}}


def refusal(tmp_path: Path, space: dict[str, Any], task: Any = TINY) -> str:
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, space, task)
    assert not (tmp_path / "studies").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(tmp_path: Path, tree: dict[str, Any], name: str = "large.yaml") -> str:
    (tmp_path / name).write_text(yaml.safe_dump(tree))
    return str(tmp_path / name)


def large(tmp_path: Path, **changes: Any) -> str:
    data = {**TINY["data"], "size": [48, 64]}
    return written(tmp_path, {**TINY, "data": data, "budget": {"epochs": 4}, **changes})


def export(tmp_path: Path, model: Any = None) -> str:
    data = tiny_data()
    torch.manual_seed(0)
    save_weights(tmp_path / "w.safetensors", colours(data.num_classes), data)
    content = (tmp_path / "w.safetensors").read_bytes()
    tree = {
        "task": {**TINY, "model": model or {"factory": "tiny_task:colours"}},
        "loss": {},
        "weights": {"file": "w.safetensors", "sha256": hashlib.sha256(content).hexdigest()},
    }
    return written(tmp_path, tree, "export.yaml")


def test_the_plan_shows_the_epochs_and_the_work_of_a_teacher(tmp_path: Path) -> None:
    name = large(tmp_path)
    found = prepared(tmp_path, space({"task": name}))
    text = describe_plan(found, Options.of({"gpus_per_trial": 0}))
    lines = text.splitlines()
    # twice the pixels and twice the epochs
    assert (
        f"teacher, trained first: {name} with cross entropy, 4 epochs, about the work of 4" in text
    )
    assert lines[-2].startswith("warning") or "worst case" in text
    assert "if nobody is stopped, and 4 of the teacher" in text
    assert found.plan.teachers == (name,) and found.plan.teacher_epochs == (4,)
    line = found.first_line
    assert line is not None and line.teachers is not None
    again = recorded(found.space, line.teachers, None)
    assert again.tasks == found.teachers.tasks
    assert again.default == TaskTeacher(task=name)


def test_an_export_is_recorded_by_its_weights(tmp_path: Path) -> None:
    model = {"factory": "tiny_task:colours"}
    told = refusal(tmp_path, space({"export": export(tmp_path, model)}))
    assert told.startswith(
        "study/teacher/export: the network of the export is code that would be run: "
        "tiny_task:colours; if you trust it, give it as {factory: ...}"
    )


def test_a_distilled_loss_without_a_teacher_is_refused(tmp_path: Path) -> None:
    told = refusal(tmp_path, space())
    assert told.startswith("study/teacher: missing required key 'teacher': a loss of the study is")
    plain = {"study": {**SPACE["study"], "baselines": ["ce"]}}
    assert prepared(tmp_path, plain).teachers.tasks == {}


def test_a_teacher_of_no_loss_is_refused(tmp_path: Path) -> None:
    idle = {"study": {**SPACE["study"], "baselines": ["ce"], "teacher": {"task": large(tmp_path)}}}
    told = refusal(tmp_path, idle)
    assert told.startswith("study/teacher: no loss of the study learns from it; leave it out, or")


@pytest.mark.parametrize(
    ("teacher", "line"),
    [
        ({"export": "/nowhere.yaml"}, "study/teacher/export: no export at '/nowhere.yaml'"),
        ({"task": "nowhere"}, "study/teacher/task: "),
        ({"factory": "tiny_task:failing"}, "study/teacher/factory: tiny_task:failing(num_classes="),
        ({"factory": "tiny_task:smaller"}, "study/teacher/factory: a teacher's logits must have"),
        ({"wights": "x"}, "study/teacher: a teacher must be {export: FILE.yaml}, {task: NAME} or"),
    ],
)
def test_a_teacher_that_is_not_there_is_refused_at_its_key(
    tmp_path: Path, teacher: dict[str, str], line: str
) -> None:
    assert refusal(tmp_path, space(teacher)).startswith(line)


def test_a_teachers_task_must_fit_and_train(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    data = {"format": "folder", "size": [32, 32], "root": str(tmp_path / "data")}
    other = large(tmp_path, data=data)
    told = refusal(tmp_path, space({"task": other}))
    assert told.startswith(f"study/teacher: the teacher {other} knows other classes: ")
    broken = large(tmp_path, model={**TINY["model"], "arch": "unett"})
    told = refusal(tmp_path, space({"task": broken}))
    assert told.startswith(f"study/teacher/task: the teacher {broken}: segmentation-models-pytorch")
    own = written(tmp_path, {"trial": "mine:train", "budget": {"epochs": 1}}, "own.yaml")
    told = refusal(tmp_path, space({"task": own}))
    assert told.startswith("study/teacher/task: a teacher's task must be trained by this package")


def test_a_training_of_ones_own_is_refused_with_a_way_out(tmp_path: Path) -> None:
    task = {"trial": "own_trainings:ours", "budget": {"epochs": 1}, "objectives": ["val/miou"]}
    told = refusal(tmp_path, space({"factory": "tiny_task:colours"}), task)
    assert "distillation is for tasks that this package trains" in told
    baselines = {"study": {**SPACE["study"], "teacher": {"factory": "tiny_task:colours"}}}
    assert "distillation is for tasks" in refusal(tmp_path, baselines, task)


def test_a_teacher_that_has_seen_what_judges_its_students_is_warned_of() -> None:
    data = replace(tiny_data(), rule="by hand")
    assert list(_leaks("large", data, data)) == []
    seen = replace(data, train=replace(data.train, names=data.test.names))
    (told,) = _leaks("large", seen, data)
    assert told.startswith("the teacher large is trained on 8 images that are val or test here")


def test_the_model_of_an_export_needs_no_code(tmp_path: Path) -> None:
    """A network of segmentation-models-pytorch: recorded, and taken up again by the ledger."""
    from study.config.task import SmpModel
    from study.ledger.journal import Ledger
    from study.training.models import build_model

    data = tiny_data()
    model = build_model(SmpModel.model_validate(TINY["model"]), data.num_classes)
    path = export(tmp_path, TINY["model"])
    save_weights(tmp_path / "w.safetensors", model, data)
    content = (tmp_path / "w.safetensors").read_bytes()
    tree = yaml.safe_load(Path(path).read_text())
    tree["weights"]["sha256"] = hashlib.sha256(content).hexdigest()
    written(tmp_path, tree, "export.yaml")
    found = prepared(tmp_path, space({"export": path}), name="s")
    teacher = found.teachers.exports[path]
    assert isinstance(teacher, WeightsTeacher)
    assert teacher.weights == str(tmp_path / "w.safetensors")
    found.folder.mkdir(parents=True)
    ledger = Ledger(found.folder)
    assert found.first_line is not None
    ledger.append(found.first_line)
    ledger.close()
    again = reopen("s", Options.of({"storage": tmp_path / "studies"}))
    assert again.teachers.exports == {path: teacher}
    assert not again.names_code


def test_a_space_that_is_searched_from_now_on_names_no_new_teacher(tmp_path: Path) -> None:
    known = large(tmp_path)
    teachers = prepared(tmp_path, space({"task": known})).teachers
    refuse_new(load_space(space({"task": known})), teachers)
    refuse_new(load_space({"study": SPACE["study"] | {"baselines": ["ce"]}}), teachers)
    other = {"loss": {"distillation": {"teacher": {"task": "other.yaml"}}}}
    with pytest.raises(InputError, match=r"distillation/teacher: a study keeps its teachers \(.*"):
        refuse_new(load_space({**space({"task": known}), **other}), teachers)
