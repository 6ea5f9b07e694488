from __future__ import annotations

import pytest

from study.config.task import TaskConfig
from study.core.errors import InputError
from study.core.validation import validate
from study.core.yaml_file import parse_yaml
from study.core.yaml_text import number_hint
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
            "5: data/numval: unknown key 'numval'; did you mean 'num_val'? (allowed: format, size, "
            "num_train, num_val, num_test, seed, ambiguity, noise, rarity)",
        ),
        ("  num_val: 8\n", "", "1: data/num_val: missing required key 'num_val'"),
        ("64, 80", "4, 80", "3: data/size/0: size[0] must be in [8, 32768], got 4"),
        ("[64, 80]", "64", "3: data/size: size must be a list, got 64"),
        (
            "synthetic",
            "syntetic",
            "2: data/format: unknown format 'syntetic'; did you mean 'synthetic'? (allowed: "
            "synthetic, folder, cityscapes, voc, synthia, deepglobe, camvid)",
        ),
        (
            "  format: synthetic\n",
            "",
            "1: data: missing required key 'format' (allowed: synthetic, folder, cityscapes, voc, "
            "synthia, deepglobe, camvid)",
        ),
        (
            "1.0e-2",
            "1e-2",
            "8: optimizer/lr: lr must be a number, got '1e-2'; write 1.0e-2",
        ),
        (
            "adamw",
            "adam",
            "8: optimizer/name: unknown name 'adam'; did you mean 'adamw'? (allowed: adamw, sgd)",
        ),
        (
            "epochs: 8",
            "epochs: 8.5",
            "10: budget/epochs: epochs must be a whole number, got 8.5",
        ),
        (
            "epochs: 8",
            "steps: 80",
            "10: budget/reports: missing required key 'reports'",
        ),
        ("{epochs: 8}", "", "10: budget: budget must be a mapping, got nothing"),
        (
            "batch_size: 4",
            "batch_size: 0",
            "9: batch_size: batch_size must be in [1, 1000000], got 0",
        ),
        (
            "batch_size: 4",
            "batch_size: true",
            "9: batch_size: batch_size must be a whole number, got true",
        ),
        (
            "batch_size: 4",
            "batch_size: 4\nprecision: fp23",
            "10: precision: invalid precision 'fp23'; did you mean 'fp32'? (allowed: auto, bf16, "
            "fp16, fp32)",
        ),
        (
            "num_train: 24",
            "num_train: 1000000000000",
            "4: data/num_train: num_train must be in [1, 10000000], got 1000000000000",
        ),
        (
            "[64, 80]",
            "[64, 40000]",
            "3: data/size/1: size[1] must be in [8, 32768], got 40000",
        ),
        (
            "{epochs: 8}",
            "{steps: 10000000000, reports: 2}",
            "10: budget/steps: steps must be in [1, 1000000000], got 10000000000",
        ),
        (
            "batch_size: 4",
            "batch_size: 4\naugment: {scale: [1.0e+300, 2.0]}",
            "10: augment/scale/0: scale[0] must be in [0.01, 100], got 1e+300",
        ),
        (
            "batch_size: 4",
            "batch_size: 4\naugment: {scale: [2.0, 0.5]}",
            "10: augment/scale: scale must be [low, high] with low <= high, got [2, 0.5]",
        ),
        ("[64, 80]", "[64]", "3: data/size/1: missing required entry 'size[1]'"),
        ("[64, 80]", "[64, 80, 3]", "3: data/size: size must have at most 2 entries, got 3"),
        (
            "data:\n",
            "data: camvid\nmore:\n",
            "2: more: unknown key 'more'; did you mean 'model'? (allowed: data, augment, model, "
            "optimizer, lr_schedule, batch_size, budget, evaluation, precision, deterministic, "
            "checkpoint)",
        ),
        (
            "synthetic",
            "[a]",
            "2: data/format: unknown format \"['a']\" (allowed: synthetic, folder, "
            "cityscapes, voc, synthia, deepglobe, camvid)",
        ),
        (
            "batch_size: 4",
            "batch_size: {a: 1}",
            "9: batch_size: batch_size must be a whole number, got a mapping",
        ),
        (
            "{arch: unet, encoder: resnet18}",
            "{factory: 'a:b', kwargs: 3}",
            "7: model/kwargs: kwargs must be a mapping, got 3",
        ),
        (
            "{arch: unet, encoder: resnet18}",
            "{factory: 'a:b', arch: unet}",
            "7: model/arch: unknown key 'arch' (allowed: factory, kwargs, aux, aux_weight)",
        ),
        (
            "{epochs: 8}",
            "{steps: 2, reports: 3}",
            "10: budget: reports must be <= steps, got 3 reports and 2 steps",
        ),
        (
            "{epochs: 8}",
            "{epochs: 8, step: 80}",
            "10: budget/step: unknown key 'step' (allowed: epochs)",
        ),
        (
            "batch_size: 4",
            "batch_size: 4\naugment: {crop: [8, 4]}",
            "10: augment/crop/1: crop[1] must be in [8, 32768], got 4",
        ),
        (
            "synthetic",
            "3",
            "2: data/format: unknown format '3' (allowed: synthetic, folder, "
            "cityscapes, voc, synthia, deepglobe, camvid)",
        ),
        ("batch_size: 4\n", "", " batch_size: missing required key 'batch_size'"),
    ],
)
def test_an_error_says_where_and_what_is_wrong_and_what_is_allowed(old, new, message):
    assert old in TASK
    assert error_of(TaskConfig, TASK.replace(old, new)) == f"f.yaml:{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "recall: {ema_momentum: 1.0}",
            "1: loss/recall/ema_momentum: ema_momentum must be in [0, 1), got 1.0",
        ),
        (
            "class_weights: {scheme: inverse_frequency,\n exponnt: 1}",
            "2: loss/class_weights/exponnt: unknown key 'exponnt'; did you mean 'exponent'? "
            "(allowed: scheme, exponent)",
        ),
        (
            "class_weights: {scheme: manual, weights: [1, -1]}",
            "1: loss/class_weights/weights/1: weights[1] must be >= 0, got -1",
        ),
        (
            "pooling: {kind: top}",
            "1: loss/pooling/kind: unknown kind 'top' (allowed: mean, max, ohem)",
        ),
        (
            "pooling: {p: 2}",
            "1: loss/pooling: missing required key 'kind' (allowed: mean, max, ohem)",
        ),
        (
            "jaccard: {mix: .nan}",
            "1: loss/jaccard/mix: mix must be a finite number, got nan",
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
        ("1e-3", "write 1.0e-3"),
        ("1e3", "write 1.0e+3"),
        ("-2.5E4", "write -2.5e+4"),
        ("0.1", "write 0.1 without quotes"),
        ("inf", "write .inf"),
        ("nan", ""),
        ("many", ""),
        (None, ""),
    ],
)
def test_text_that_was_meant_as_a_number_is_told_how_to_become_one(text, hint):
    assert number_hint(text) == hint
    if "write" in hint:
        written = hint.removeprefix("write ").removesuffix(" without quotes")
        assert parse_yaml(f"a: {written}").data["a"] == float(text)


@pytest.mark.parametrize(("given", "words"), [("[batch]", "a list"), ("null", "nothing")])
def test_what_is_no_word_is_told_the_words(given: str, words: str) -> None:
    told = error_of(LossConfig, f"jaccard: {{average: {given}}}")
    assert f"average must be one of these, got {words} (allowed: batch, image, class)" in told
