from __future__ import annotations

import pytest

from study.config.task import TaskConfig
from study.core.errors import InputError
from study.core.validation import as_number, validate
from study.core.yaml_file import parse_yaml
from study.losses.config import LossConfig

TASK = """\
data:
  format: synthetic
  size: [64, 80]
  num_train: 24
  num_val: 8
  num_test: 8
model: {arch: unet, encoder: resnet18}
optimizer: {name: adamw, lr: 1.0e-2}
batch_size: 4
budget: {epochs: 8}
"""


def error_of(model, text: str, **where) -> str:
    file = parse_yaml(text, "f.yaml")
    with pytest.raises(InputError) as caught:
        validate(model, file.data, file=file.file, lines=file.lines, **where)
    return str(caught.value)


def test_good_data_become_the_typed_config():
    file = parse_yaml(TASK)
    assert validate(TaskConfig, file.data) == TaskConfig.model_validate(file.data)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "num_val:",
            "numval:",
            "5: data/numval: a known key must stand here (format, size, num_train, num_val, "
            "num_test, seed, ambiguity, noise, rarity), but got 'numval'; "
            "did you mean 'num_val'?",
        ),
        ("  num_val: 8\n", "", "1: data/num_val: `num_val` must be given, but it is not there"),
        ("64, 80", "4, 80", "3: data/size/0: `8 <= size[0] <= 32768` must hold, but got 4"),
        ("[64, 80]", "64", "3: data/size: a list must stand here, but got 64"),
        (
            "synthetic",
            "syntetic",
            "1: data: the kind must be one of synthetic, folder, cityscapes, voc, synthia, "
            "deepglobe, camvid, factory, but got 'syntetic'; did you mean 'synthetic'?",
        ),
        (
            "  format: synthetic\n",
            "",
            "1: data: one of the known kinds must be given, but it is not there",
        ),
        (
            "1.0e-2",
            "1e-2",
            "8: optimizer/lr: a number must stand here, but got the text '1e-2' (write 1.0e-2)",
        ),
        (
            "adamw",
            "adam",
            "8: optimizer: `name` must be one of adamw, sgd, but got 'adam'; did you mean 'adamw'?",
        ),
        (
            "epochs: 8",
            "epochs: 8.5",
            "10: budget/epochs: a whole number must stand here, but got 8.5",
        ),
        (
            "epochs: 8",
            "steps: 80",
            "10: budget/reports: `reports` must be given, but it is not there",
        ),
        ("{epochs: 8}", "", "10: budget: a mapping must stand here, but got nothing"),
        ("batch_size: 4", "batch_size: 0", "9: batch_size: `1 <= batch_size` must hold, but got 0"),
        (
            "batch_size: 4",
            "batch_size: true",
            "9: batch_size: a whole number must stand here, but got true",
        ),
        (
            "batch_size: 4",
            "batch_size: 4\nprecision: fp23",
            "10: precision: one of auto, bf16, fp16, fp32 must stand here, but got the text "
            "'fp23'; did you mean 'fp32'?",
        ),
        (
            "num_train: 24",
            "num_train: 1000000000000",
            "4: data/num_train: `1 <= num_train <= 10000000` must hold, but got 1000000000000",
        ),
        (
            "[64, 80]",
            "[64, 40000]",
            "3: data/size/1: `8 <= size[1] <= 32768` must hold, but got 40000",
        ),
        (
            "{epochs: 8}",
            "{steps: 10000000000, reports: 2}",
            "10: budget/steps: `1 <= steps <= 1000000000` must hold, but got 10000000000",
        ),
        (
            "batch_size: 4",
            "batch_size: 4\naugment: {scale: [1.0e+300, 2.0]}",
            "10: augment/scale/0: `0.01 <= scale[0] <= 100` must hold, but got 1e+300",
        ),
        (
            "batch_size: 4",
            "batch_size: 4\naugment: {scale: [2.0, 0.5]}",
            "10: augment/scale: `low <= high` must hold, but got 2 and 0.5",
        ),
        ("batch_size: 4\n", "", " batch_size: `batch_size` must be given, but it is not there"),
    ],
)
def test_an_error_says_where_what_must_hold_and_what_came(old, new, message):
    assert old in TASK
    assert error_of(TaskConfig, TASK.replace(old, new)) == f"f.yaml:{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "recall: {ema_momentum: 1.0}",
            "1: loss/recall/ema_momentum: `0 <= ema_momentum < 1` must hold, but got 1.0",
        ),
        (
            "class_weights: {scheme: inverse_frequency,\n exponnt: 1}",
            "2: loss/class_weights/exponnt: a known key must stand here (scheme, exponent), "
            "but got 'exponnt'; did you mean 'exponent'?",
        ),
        (
            "class_weights: {scheme: manual, weights: [1, -1]}",
            "1: loss/class_weights/weights/1: `0 <= weights[1]` must hold, but got -1",
        ),
        (
            "pooling: {kind: top}",
            "1: loss/pooling: `kind` must be one of mean, max, ohem, but got 'top'",
        ),
        ("pooling: {p: 2}", "1: loss/pooling: `kind` must be given, but it is not there"),
        (
            "jaccard: {mix: .nan}",
            "1: loss/jaccard/mix: a finite number must stand here, but got nan",
        ),
    ],
)
def test_key_paths_are_those_of_the_file_also_inside_of_unions(text, message):
    root = parse_yaml(text)
    lines = {f"loss/{key}": line for key, line in root.lines.items()}
    with pytest.raises(InputError) as caught:
        validate(LossConfig, root.data, file="f.yaml", lines=lines, root="loss")
    assert str(caught.value) == f"f.yaml:{message}"


def test_a_typo_is_told_before_the_key_it_leaves_missing():
    text = TASK.replace("batch_size", "batchsize")
    assert "did you mean 'batch_size'?" in error_of(TaskConfig, text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1e-3", " (write 1.0e-3)"),
        ("1e3", " (write 1.0e+3)"),
        ("-2.5E4", " (write -2.5e+4)"),
        ("0.1", " (write 0.1 without quotes)"),
        ("inf", " (write .inf)"),
        ("nan", ""),
        ("many", ""),
        (None, ""),
    ],
)
def test_text_that_was_meant_as_a_number_is_told_how_to_become_one(text, hint):
    assert as_number(text) == hint
    if "write" in hint:
        written = hint.removeprefix(" (write ").removesuffix(")").removesuffix(" without quotes")
        assert parse_yaml(f"a: {written}").data["a"] == float(text)
