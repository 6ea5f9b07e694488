from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from study import schema
from study.config.shipped import shipped
from study.core.yaml_file import parse_yaml, read_yaml

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"search_spaces": schema.space_schema, "tasks": schema.task_schema}
SHIPPED = [(kind, path) for kind in KINDS for path in shipped(kind).values()]


def errors(kind: str, text: str) -> list[str]:
    validator = Draft202012Validator(KINDS[kind]())
    return [error.message for error in validator.iter_errors(parse_yaml(text).data)]


@pytest.mark.parametrize("name", sorted(schema.files()))
def test_the_committed_schemas_are_those_of_the_config_types(name):
    assert (ROOT / "schemas" / name).read_text() == schema.files()[name], (
        "run python -m study.schema"
    )


@pytest.mark.parametrize("make", [*KINDS.values(), schema.classes_schema])
def test_a_schema_is_a_schema(make):
    Draft202012Validator.check_schema(make())


@pytest.mark.parametrize(("kind", "path"), SHIPPED, ids=lambda one: getattr(one, "stem", one))
def test_a_shipped_file_satisfies_the_schema_that_it_names(kind, path):
    first = path.read_text().splitlines()[0]
    key, _, relative = first.partition("$schema=")
    assert key == "# yaml-language-server: "
    named = json.loads((path.parent / relative).read_text())
    assert named == KINDS[kind]()
    assert not list(Draft202012Validator(named).iter_errors(read_yaml(path).data))


@pytest.mark.parametrize(
    "text",
    [
        "loss: {recal: null}",
        "loss: {focal_gamma: text}",
        "loss: {focal_gamma: {float: {low: 1}}}",
        "loss: {focal_gamma: {float: {low: 1, high: 2}, log: true}}",
        "loss: {class_weights: {choice: {a: {scheme: inverse}}}}",
        "loss: {class_weights: {scheme: enet, exponent: 1}}",
        "loss: {recall: {ema_momentum: 1.0}}",
        "loss: {normalizer: {choice: [valid, pixels]}}",
        "loss: {smoothing_region: {kind: boundary, width: 4}}",
        "loss: {smoothing_region: {kind: everywhere, width: 3}}",
        "optimizer: {lr: 1}",
        "study: {baselines: [unknown]}",
        "study: {objectives: [miou]}",
        "study: {confirm: {budgets: [1, 0]}}",
        "study: {confirm: {ablate: yes please}}",
        "study: {confirm: {half_width: 0}}",
        "study: {sampler: hyperband}",
        "losses: {}",
    ],
)
def test_a_mistake_in_a_space_is_found_by_the_schema(text):
    assert errors("search_spaces", text)


@pytest.mark.parametrize(
    "text",
    [
        "loss: {choice: {a: {}, b: {recall: {choice: {off: null, on: {ema_momentum: 0.5}}}}}}",
        "loss: {pooling: {kind: max, p: .inf, ratio: {choice: [0.1, 0.2]}}}",
        "loss: {class_weights: {scheme: manual, weights: [1, 2]}}",
        "loss: {normalizer: {choice: [valid, weight]}}",
        "optimizer: {lr_scale: {float: {low: 1, high: 2, step: 0.5}}}",
        "study: {rungs: null, reference_trials: null}",
        "study: {confirm: {budgets: [1, 4], ablate: true}}",
        "study: {confirm: {half_width: 1.5, max_seeds: 8}}",
    ],
)
def test_the_grammar_is_in_the_schema(text):
    assert not errors("search_spaces", text)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("names: [a, b]\nlicence: a note", True),
        ("classes: [{id: 201, name: a, color: '#ff0000'}, b]\nignore: [0, 250..255]", True),
        ("labels: {0: a, 128..255: b}\nsplits: {val: 0.15, test: test.txt}", True),
        ("classes: {0: a, 100: b}\nsplits: {train: 367}", True),
        ("classes: [{id: -1, name: a}]", False),
        ("classes: [{name: a, color: [0, 0, 256]}]", False),
        ("classes: [a]\nread: color", False),
        ("classes: [a]\nsplits: {validate: 0.1}", False),
    ],
)
def test_the_schema_of_classes_knows_its_keys(text, fits):
    validator = Draft202012Validator(schema.classes_schema())
    data = json.loads(json.dumps(parse_yaml(text).data))  # as an editor sees it
    assert validator.is_valid(data) is fits


def test_the_command_writes_every_file(tmp_path, capsys):
    assert schema.main(["--write", str(tmp_path / "new")]) == 0
    written = {path.name: path.read_text() for path in (tmp_path / "new").iterdir()}
    assert written == schema.files()
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.slow
def test_the_command_ends_without_a_word_where_nobody_reads_it(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "study.schema", "--write", str(tmp_path)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
    assert {path.name for path in tmp_path.iterdir()} == schema.files().keys()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--write", ""], "--write: cannot write into folder ''"),
        (["--write", "file"], "--write: cannot write into folder 'file'"),
        (["--write", "file/x"], "--write: cannot write into folder 'file/x'"),
        (["--write", "/proc/nope"], "--write: cannot write into folder '/proc"),
        (["--nope"], "--nope: unknown argument; see --help"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert schema.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {says}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_output_that_a_full_disk_does_not_take_is_one_line(tmp_path):
    command = [sys.executable, "-m", "study.schema", "--write", str(tmp_path)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
