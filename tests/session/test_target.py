"""A study whose confirmation trains another task is prepared, refused, left and taken up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from folder_data import write_folder

from study.config.task import FileData, TaskConfig, load_task
from study.core.errors import InputError
from study.core.names import CONFIRM
from study.ledger.journal import Ledger
from study.ledger.records import TrialRecord
from study.scheduler.study_scheduler import StudyScheduler
from study.session.options import Options, argument_names
from study.session.prepare import Prepared, describe_plan, prepare, reopen
from study.storage.studies import find, load

SPACE: dict[str, Any] = {
    "loss": {"jaccard": {"mix": {"float": {"low": 0.1, "high": 0.9}}}},
    "study": {
        "num_trials": 3,
        "reference_trials": 1,
        "baselines": ["ce"],
        "rungs": None,
        "confirm": {"top": 1, "num_seeds": 1},
    },
}


def task(size: int = 32, epochs: int = 1, **changes: Any) -> dict[str, Any]:
    """A task on a folder of images."""
    return {
        "data": {"format": "folder", "size": [size, size]},
        "model": {"factory": "engine_parts:build", "kwargs": {"log": "/dev/null"}},
        "optimizer": {"name": "adamw", "lr": 0.01},
        "batch_size": 2,
        "budget": {"epochs": epochs},
        **changes,
    }


def options(folder: Path, **given: Any) -> Options:
    whole = {"space": SPACE, "task": task(), "storage": folder / "studies", "name": "s", **given}
    return Options.of(whole)


def roots(prepared: Prepared) -> tuple[str | None, str | None]:
    """Where the data of the task and of the target lie."""
    found = []
    for one in (prepared.task, prepared.target):
        data = one.trained_here.data if one is not None else None
        found.append(data.root if isinstance(data, FileData) else None)
    return found[0], found[1]


@pytest.fixture
def town(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "town")


def test_the_first_line_holds_the_target_and_what_its_data_are(tmp_path: Path, town: Path) -> None:
    given = options(tmp_path, data_root=town, confirm_task=task(64, 5))
    prepared = prepare(given)
    assert prepared.target is not None
    line = prepared.first_line
    assert line is not None
    assert line.confirm_task == prepared.target.config.model_dump()
    assert line.confirm_data is not None
    assert line.confirm_data["fingerprint"] != line.data["fingerprint"]
    assert line.confirm_data["class_counts"] != line.data["class_counts"], "of other sizes"
    assert line.plan["confirm_epochs"] == 5
    assert (prepared.plan.epochs, prepared.plan.confirm_epochs) == (1, 5)
    text = describe_plan(prepared, given)
    assert "confirmed on the target custom, 5 epochs a trial: custom is its proxy" in text
    # ce and 3 searched; the top one, tuned and default cross entropy with one seed
    assert "7 trials, 4 epochs of the proxy, 15 of the target if nobody is stopped" in text
    assert f"warning: target custom: {line.confirm_data['warnings'][0]}" in text
    assert f"\nwarning: proxy custom: {line.data['warnings'][0]}" in text


def test_a_space_names_a_target_and_the_option_goes_before_it(tmp_path: Path) -> None:
    space = {**SPACE, "study": {**SPACE["study"], "confirm": {"task": "synthetic"}}}
    in_space = prepare(options(tmp_path, space=space, task="tiny"))
    assert in_space.target is not None
    assert (in_space.target.name, in_space.plan.confirm_epochs) == ("synthetic", 8)
    tree = yaml.safe_load(Path("study/tasks/tiny.yaml").read_text()) | {"budget": {"epochs": 3}}
    (tmp_path / "longer.yaml").write_text(yaml.safe_dump(tree))
    given = options(tmp_path, space=space, task="tiny", confirm_task=tmp_path / "longer.yaml")
    by_option = prepare(given)
    assert by_option.target is not None
    assert (by_option.target.name, by_option.plan.confirm_epochs) == ("longer", 3)


@pytest.mark.parametrize("target", ["tiny", load_task("tiny"), load_task("tiny").config])
def test_a_target_that_is_the_task_itself_is_none(tmp_path: Path, target: Any) -> None:
    with_it = prepare(options(tmp_path, task="tiny", confirm_task=target))
    without = prepare(options(tmp_path, task="tiny"))
    assert with_it.target is None
    assert with_it.plan == without.plan
    assert with_it.first_line is not None
    assert with_it.first_line.confirm_task is None


def test_one_data_root_serves_both_tasks_unless_the_target_has_its_own(
    tmp_path: Path, town: Path
) -> None:
    other = write_folder(tmp_path / "city", train=4)
    both = prepare(options(tmp_path, data_root=town, confirm_task=task(64)))
    assert roots(both) == (str(town), str(town))
    given = options(tmp_path, data_root=town, confirm_task=task(), confirm_data_root=other)
    assert roots(prepare(given)) == (str(town), str(other))
    alone: dict[str, Any] = {"data": {"factory": f"{__name__}:three_classes"}}
    given = options(tmp_path, task=task(**alone), data_root=town, confirm_task=task())
    assert roots(prepare(given)) == (None, str(town))
    given = options(tmp_path, data_root=town, confirm_task=task(**alone))
    assert roots(prepare(given)) == (str(town), None)


def three_classes() -> Any:
    """Data from memory with the classes of the folder."""
    import numpy as np

    from study.data import SegmentationData

    rng = np.random.default_rng(0)

    def split() -> tuple[Any, Any]:
        images = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
        return images, rng.integers(0, 3, (4, 32, 32)).astype(np.uint8)

    names = ["road", "car", "pole"]
    return SegmentationData.from_arrays(
        "three", train=split(), val=split(), test=split(), class_names=names
    )


@pytest.mark.parametrize(
    ("classes", "differs"),
    [
        ("[road, pole, car]", "it has pole as class 1, where that has car"),
        ("[road, car, mast]", "it lacks pole and adds mast"),
        ("[road, car, pole, sky]", "it adds sky"),
    ],
)
def test_other_classes_are_refused_by_name(
    tmp_path: Path, town: Path, classes: str, differs: str
) -> None:
    other = write_folder(tmp_path / "city")
    (other / "classes.yaml").write_text(f"classes: {classes}\n")
    given = options(tmp_path, data_root=town, confirm_task=task(), confirm_data_root=other)
    with pytest.raises(InputError) as caught:
        prepare(given)
    said = "the classes of the target custom are not those of its proxy custom"
    assert str(caught.value) == f"data: {said}: {differs}"
    assert not (tmp_path / "studies").exists()


def test_a_group_of_an_objective_is_to_be_measured_on_both_tasks(
    tmp_path: Path, town: Path
) -> None:
    space = {**SPACE, "study": {**SPACE["study"], "objectives": ["val/tuned/miou/thin"]}}
    given: dict[str, Any] = {"space": space, "data_root": town}

    def prepared(own: dict[str, Any], there: dict[str, Any]) -> Prepared:
        tasks = task(evaluation={"groups": own}), task(64, evaluation={"groups": there})
        return prepare(options(tmp_path, **given, task=tasks[0], confirm_task=tasks[1]))

    with pytest.raises(InputError, match=r"the target custom does not measure .*thin'; name the g"):
        prepared({"thin": ["pole"]}, {"narrow": ["pole"]})
    line = prepared({"thin": ["pole"]}, {"thin": ["pole", "car"]}).first_line
    assert line is not None and line.confirm_data is not None
    said = "the group thin of an objective is pole, car; on the proxy it is pole"
    assert line.confirm_data["warnings"][-1] == said
    line = prepared({"thin": ["pole"]}, {"thin": ["pole"], "wide": ["road"]}).first_line
    assert line is not None and line.confirm_data is not None
    assert said not in line.confirm_data["warnings"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("tinny", "confirm_task: 'tinny' not found; did you mean 'tin"),
        (3, "confirm_task: confirm_task must be "),
    ],
)
def test_a_notebook_names_the_argument(tmp_path: Path, target: object, said: str) -> None:
    with pytest.raises(InputError) as caught, argument_names():
        prepare(options(tmp_path, task="tiny", confirm_task=target))
    assert str(caught.value).startswith(said)


@pytest.fixture
def begun(tmp_path: Path, town: Path) -> Prepared:
    """A study whose baseline is over."""
    write_folder(tmp_path / "city", train=4)
    prepared = prepare(
        options(
            tmp_path,
            data_root=town,
            confirm_task=task(64, 2),
            confirm_data_root=tmp_path / "city",
        )
    )
    assert prepared.first_line is not None
    ledger = Ledger(prepared.folder)
    ledger.append(prepared.first_line)
    assert prepared.target is not None
    scheduler = StudyScheduler(
        ledger,
        prepared.plan,
        prepared.space,
        prepared.task.config,
        target=prepared.target.config,
    )
    first = scheduler.suggest()
    assert isinstance(first, TrialRecord)
    scheduler.on_report(first.trial, 1, dict.fromkeys(prepared.plan.objectives, 0.5))
    ledger.close()
    return prepared


def test_a_resumed_study_confirms_on_the_target_where_its_data_lie_by_now(
    begun: Prepared, tmp_path: Path
) -> None:
    moved = (tmp_path / "city").rename(tmp_path / "village")
    given = Options(storage=tmp_path / "studies", confirm_data_root=moved)
    again = reopen("s", given, trust=True)
    assert again.plan == begun.plan
    assert again.target is not None and begun.target is not None
    assert again.names_code
    ledger = Ledger(again.folder)
    scheduler = StudyScheduler(
        ledger, again.plan, again.space, again.task.config, target=again.target.config
    )
    seen = set()
    while isinstance(step := scheduler.suggest(), TrialRecord):
        config = TaskConfig.model_validate(step.config["task"])
        assert isinstance(config.data, FileData)
        seen.add((step.stage == CONFIRM, config.data.root, config.num_epochs))
        for epoch in range(1, config.num_epochs + 1):
            scheduler.on_report(step.trial, epoch, dict.fromkeys(again.plan.objectives, 0.4))
    ledger.close()
    assert seen == {(False, str(tmp_path / "town"), 1), (True, str(moved), 2)}
    assert load(find("s", tmp_path / "studies")).finished


def test_other_data_of_the_target_are_refused_on_resume(begun: Prepared, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other", train=5)
    given = Options(storage=tmp_path / "studies", confirm_data_root=other)
    with pytest.raises(InputError, match=r"--confirm-data-root: .* not those of the study"):
        reopen("s", given, trust=True)


def test_a_factory_of_the_target_in_a_ledger_is_code(tmp_path: Path) -> None:
    small = load_task("tiny").config.model_dump()
    model = {"factory": "engine_parts:build", "kwargs": {"log": "/dev/null"}}
    prepared = prepare(options(tmp_path, task="tiny", confirm_task={**small, "model": model}))
    assert prepared.names_code
    assert prepared.first_line is not None
    ledger = Ledger(prepared.folder)
    ledger.append(prepared.first_line)
    ledger.close()
    with pytest.raises(InputError, match=r"ledger.jsonl:1: confirm_task/model/factory: a ledger n"):
        reopen("s", Options(storage=tmp_path / "studies"))
