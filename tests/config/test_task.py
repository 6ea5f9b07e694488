"""Tasks: a key that has been renamed is read by its old name for ever."""

from __future__ import annotations

import pytest

from study.config.task import Evaluation, TaskConfig, load_task
from study.core.errors import InputError
from study.core.validation import validate
from study.core.yaml_file import parse_yaml

TASK = """
data: {format: FORM, size: [64, 64], KEYS}
model: {arch: unet, encoder: resnet18}
optimizer: {name: adamw, lr: 0.1}
batch_size: 4
budget: {epochs: 8}
"""


def task(form: str, keys: str) -> TaskConfig:
    source = parse_yaml(TASK.replace("FORM", form).replace("KEYS", keys), "f.yaml")
    return validate(TaskConfig, source.data, file=source.file, lines=source.lines)


@pytest.mark.parametrize("form", ["voc", "deepglobe"])
def test_val_share_is_the_old_name_of_val_fraction(form: str) -> None:
    old = task(form, "val_share: 0.4")
    assert old == task(form, "val_fraction: 0.4")
    dumped = old.model_dump()
    assert dumped["data"]["val_fraction"] == 0.4
    assert "val_share" not in dumped["data"]
    assert load_task(dumped).config == old


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("val_share: 1.0", r"data/val_share: .*got 1\.0$"),
        (
            "val_fraction: 0.4, val_share: 0.4",
            r"data/val_share: unknown key 'val_share' \(allowed: .*val_fraction\)$",
        ),
        ("val_share: 1.5", r"data/val_share: val_share must be < 1, got 1.5$"),
        (
            "val_fracton: 0.4",
            r"data/val_fracton: .*did you mean 'val_fraction'\? \(allowed: .*sbd, val_fraction\)$",
        ),
    ],
)
def test_an_error_at_a_renamed_key_names_what_is_written(keys: str, said: str) -> None:
    with pytest.raises(InputError, match=f"^f.yaml:2: {said}"):
        task("voc", keys)


NAMES = ("road", "sky", "pole", "sign")
COUNTS = (900, 90, 9, 1)


@pytest.mark.parametrize(
    ("group", "classes"),
    [
        ("[pole, sign]", ["pole", "sign"]),
        ("[sign, pole, sign]", ["sign", "pole"]),
        ("{below: 0.01}", ["pole", "sign"]),
        ("{below: 0.009}", ["sign"]),
        ("{without: [road, sky]}", ["pole", "sign"]),
    ],
)
def test_a_group_has_the_classes_that_it_names(group: str, classes: list[str]) -> None:
    source = parse_yaml(f"groups: {{some: {group}}}", "f.yaml")
    evaluation = validate(Evaluation, source.data)
    assert evaluation.members(NAMES, COUNTS) == {"some": classes}
    again = Evaluation.model_validate(evaluation.model_dump())
    assert again.members(NAMES, COUNTS) == {"some": classes}
