"""A task whose trials are a training of the user's own: what is checked before a study starts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from own_trainings import CLASSES, task

from study.config.own_training import OwnTrainingTask
from study.config.task import load_task
from study.core.errors import InputError
from study.ledger.journal import Ledger
from study.session.options import Options
from study.session.own_training import both, check, facts, with_objectives
from study.session.prepare import prepare, reopen
from study.space.search_space import SearchSpace, load_space

COMMAND = {"command": "python train.py {loss_file}"}
SPACE: dict[str, Any] = {"study": {"num_trials": 2, "reference_trials": 1, "baselines": ["ce"]}}


def space(*baselines: Any) -> SearchSpace:
    return load_space({"study": {"baselines": list(baselines)}})


def own(**changes: Any) -> OwnTrainingTask:
    return OwnTrainingTask.model_validate({**task(), **changes})


def command(words: str) -> dict[str, str]:
    return {"command": words}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trial": "own_trainings:nobody"}, "trial/function: no 'nobody' in"),
        ({"trial": "nowhere.at_all:train"}, "trial/function: no module named 'nowhere'"),
        ({"trial": {"function": "own_trainings:quick", "kwargs": {"x": 1}}},
         "trial/function: own_trainings:quick"),
        ({"trial": command("no-such-program {loss_file}")}, "trial/command: no program 'no-such-"),
        ({"trial": command("python no_such_file.py {loss_file}")},
         "trial/command: no file 'no_such_file.py' in"),
        ({"trial": command("GPUS=1 python {loss_file}")},
         "trial/command: no program 'GPUS=1' to run; write env: {GPUS: '1'} beside the command"),
        ({"trial": command("cd there && python {loss_file}")},
         "trial/command: no program 'cd' to run; a command has no shell; for one write bash -c"),
        ({"trial": command("~/nowhere/python {loss_file}")},
         "trial/command: no program '~/nowhere/python' to run; write the whole path"),
        ({"trial": command("python {loss_python}")}, "classes: {loss_python} needs the classes"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_said_before_the_study(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        check(space("ce"), own(**changes))
    assert str(error.value).startswith(message)


def test_losses_are_checked_against_the_classes_of_the_task() -> None:
    weights = {"scheme": "manual", "weights": [1.0, 2.0]}
    mine = {"mine": {"loss": {"class_weights": weights}}}
    with pytest.raises(InputError, match="weights"):
        check(space(mine), own(classes=CLASSES))
    check(space(mine), own())  # nobody knows the classes: its trial will fail


def test_a_loss_of_the_users_own_cannot_be_written_as_python() -> None:
    ours = {"ours": {"factory": "torch.nn:CrossEntropyLoss"}}
    the_task = own(trial=command("python {loss_python}"), classes=CLASSES)
    with pytest.raises(InputError, match="cannot hold a loss of your own: 0/ours"):
        check(space(ours), the_task)


@pytest.mark.parametrize(
    ("changes", "names", "words"),
    [
        ({}, ["ce"], ["does not see the data", "names no classes"]),
        ({"classes": CLASSES}, ["ce"], ["does not see the data"]),
        ({"classes": CLASSES}, ["median_frequency"], ["the data", "pixels of each image"]),
        ({"classes": CLASSES, "objectives": None}, ["ce"], ["the data"]),
        ({"classes": {"names": ["a", "b"]}, "objectives": None}, ["ce"],
         ["the data", "objectives: [val/miou]"]),
        ({"classes": CLASSES, "objectives": None, "trial": COMMAND}, ["ce"],
         ["the data", "objectives: [val/miou]", "has no {seed}", "has no {lr_scale}"]),
    ],
)  # fmt: skip
def test_the_limits_are_warned_of(
    changes: dict[str, Any], names: list[str], words: list[str]
) -> None:
    found = facts(own(**changes), space(*names))["warnings"]
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))


def test_what_the_ledger_says_of_it() -> None:
    found = facts(own(classes=CLASSES), space("ce"))
    assert found["class_names"] == CLASSES["names"]
    assert found["class_counts"] == CLASSES["pixels"]
    assert sum(found["class_fraction"]) == pytest.approx(1)
    others = [own(classes=CLASSES), own(trial="own_trainings:ours", classes=CLASSES), own()]
    assert len({one.fingerprint for one in others}) == 3
    assert own(budget={"epochs": 9}).fingerprint == own().fingerprint


def test_the_objectives_of_the_task_go_before_those_of_the_space() -> None:
    assert with_objectives(space("ce"), own()).settings.objectives == ("val/miou",)
    unchanged = space("ce")
    assert with_objectives(unchanged, own(objectives=None)) is unchanged
    assert with_objectives(unchanged, load_task("tiny").config) is unchanged


def test_a_task_and_its_target_are_of_one_kind() -> None:
    assert both(own(), own()) == (own(), own())
    for pair in ((own(), load_task("tiny").config), (load_task("tiny").config, own())):
        with pytest.raises(InputError, match="a target must be trained as its proxy is"):
            both(*pair)


@pytest.mark.slow
def test_a_study_of_a_function_is_prepared(tmp_path: Path) -> None:
    target = task(epochs=5, classes=CLASSES)
    options = Options.of(
        {
            "space": SPACE,
            "task": task(classes=CLASSES),
            "confirm_task": target,
            "storage": tmp_path,
            "name": "s",
        }
    )
    found = prepare(options)
    assert found.plan.objectives == ("val/miou",)
    assert (found.plan.epochs, found.plan.confirm_epochs) == (3, 5)
    assert found.first_line is not None and found.first_line.has_own_training
    assert found.names_code
    other = {**target, "classes": {"names": ["a", "b", "c"]}}
    with pytest.raises(InputError, match=r"the classes of the target .* are not those"):
        prepare(Options.of({**options.model_dump(), "confirm_task": other}))


def test_a_folder_of_data_is_refused(tmp_path: Path) -> None:
    given = {"space": SPACE, "task": task(), "data_root": tmp_path, "storage": tmp_path}
    with pytest.raises(InputError, match="the task reads no data folder"):
        prepare(Options.of(given))


SCRIPT = """from beside import SIZE


def train(context):
    loss = context.build_loss()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "trial", [command("python mine.py {loss_file}"), {"function": "mine_own:train"}], ids=str
)
def test_on_resume_it_is_said_what_has_changed(
    trial: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("mine_own", "beside"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    for name in ("mine.py", "mine_own.py"):
        (tmp_path / name).write_text(SCRIPT)
    (tmp_path / "beside.py").write_text("SIZE = 1\n")
    given = {"space": SPACE, "task": task(trial, classes=CLASSES), "storage": "s", "name": "a"}
    prepared = prepare(Options.of(given))
    assert prepared.first_line is not None
    ledger = Ledger(prepared.folder)
    ledger.append(prepared.first_line)
    ledger.close()
    options = Options(storage=Path("s"))
    assert reopen("a", options, trust=True).data_faults == ()
    (tmp_path / "beside.py").write_text("SIZE = 2\n")
    (tmp_path / "new.py").touch()
    (said,) = reopen("a", options, trust=True).data_faults
    assert said.startswith(
        "the training is not the one that the study began with (changed: beside.py): its trials"
    )
    (tmp_path / "beside.py").unlink()
    (said,) = reopen("a", options, trust=True).data_faults
    assert "(gone: beside.py)" in said


@pytest.mark.slow
def test_a_study_is_not_resumed_without_its_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "venv" / "python"
    program.parent.mkdir()
    program.symlink_to(sys.executable)
    trial = command("venv/python -c pass {loss_file}")
    given = {"space": SPACE, "task": task(trial, classes=CLASSES), "storage": "s", "name": "a"}
    prepared = prepare(Options.of(given))
    assert prepared.first_line is not None
    ledger = Ledger(prepared.folder)
    ledger.append(prepared.first_line)
    ledger.close()
    program.unlink()
    with pytest.raises(InputError, match="trial/command: no program 'venv/python' to run"):
        reopen("a", Options(storage=Path("s")), trust=True)
