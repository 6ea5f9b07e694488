"""JSON Schemas of task, search space and classes files, for editors: `python -m study.schema`.

The config types generate them. In a search space, every leaf may also be a range or a choice, and
every subtree may be a choice of named subtrees; see `study.space.grammar`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from study.config.own_training import OwnTrainingTask
from study.config.task import TaskConfig, TrialOptimizer
from study.core.console import Parser, run_command
from study.core.files import made_folder, write_text
from study.losses import PRESETS
from study.losses.config import LossConfig
from study.space.settings import OBJECTIVES, OF_CLASSES, StudySettings

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
REF = "#/$defs/{model}"


def task_schema() -> Schema:
    """The schema of a task: `study/tasks/*.yaml`."""
    own, schema = models_json_schema(
        [(TaskConfig, "validation"), (OwnTrainingTask, "validation")], ref_template=REF
    )
    of_data, of_trial = (own[(model, "validation")] for model in (TaskConfig, OwnTrainingTask))
    trial = schema["$defs"]["OwnTrainingTask"]["properties"]["trial"]
    trial["anyOf"] = [*trial.pop("oneOf"), {"type": "string"}]
    return {
        "$schema": DIALECT,
        "title": "A task",
        "if": {"required": ["trial"]},
        "then": of_trial,
        "else": of_data,
        "$defs": schema["$defs"],
    }


def classes_schema() -> Schema:
    """The schema of the classes.yaml of a folder data set; keys that it does not know are notes."""
    from study.data.formats.folder_classes import ClassesFile

    schema = ClassesFile.model_json_schema()
    properties = schema["properties"]
    return {
        "$schema": DIALECT,
        **schema,
        "title": "The classes of a folder data set",
        "properties": {**properties, "names": properties["classes"]},
    }


def space_schema() -> Schema:
    """The schema of a search space: `search_spaces/*.yaml`."""
    from study.space.grammar import FloatRange, IntRange

    names, schema = models_json_schema(
        [
            (model, "validation")
            for model in (LossConfig, TrialOptimizer, StudySettings, FloatRange, IntRange)
        ],
        ref_template=REF,
    )
    fixed = (
        "StudySettings", "OwnBaseline", "FactoryLoss", "Rungs", "Confirm", "FloatRange", "IntRange",
    )  # fmt: skip
    definitions = {
        name: one if name in fixed else _opened(one) for name, one in schema["$defs"].items()
    }
    study = definitions["StudySettings"]["properties"]
    study["objectives"]["items"] = {
        "anyOf": [
            {"enum": list(OBJECTIVES)},
            {"type": "string", "pattern": f"^({'|'.join(OF_CLASSES)})."},
        ]
    }
    own = study["baselines"]["items"]["oneOf"][1]
    study["baselines"]["items"] = {"anyOf": [{"enum": list(PRESETS)}, own]}
    part = {key: names[(model, "validation")] for key, model in (
        ("loss", LossConfig), ("optimizer", TrialOptimizer), ("study", StudySettings))}  # fmt: skip
    return {
        "$schema": DIALECT,
        "title": "A search space",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "loss": _searched(part["loss"]),
            "optimizer": _searched(part["optimizer"]),
            "study": part["study"],
        },
        "$defs": definitions,
    }


def _opened(model: Schema) -> Schema:
    """The schema of an object whose properties may all be searched."""
    properties = {key: _searched(one) for key, one in model.get("properties", {}).items()}
    return {**model, "properties": properties}


def _searched(schema: Schema) -> Schema:
    """The schema of a key: a constant of its own kind, a range, or a choice."""
    notes: Schema = {
        key: schema[key] for key in ("title", "description", "default") if key in schema
    }
    constant = {key: value for key, value in schema.items() if key not in notes}
    if "oneOf" in constant:
        # a member's tag may be a choice too, which matches several members
        constant = {"anyOf": constant["oneOf"]}
    options = [constant]
    if constant.get("type") in ("number", "integer"):
        options += [_only("float", {"$ref": REF.format(model="FloatRange")})]
        options += [_only("int", {"$ref": REF.format(model="IntRange")})]
    listed = {"type": "array", "minItems": 1, "items": constant}
    named = {"type": "object", "minProperties": 1, "additionalProperties": constant}
    choice = _only("choice", {"anyOf": [listed, named]})
    scalar = {"type": ["string", "number", "boolean"]}
    choice["properties"]["prior"] = {**scalar, "description": "the option believed the best"}
    return {**notes, "anyOf": [*options, choice]}


def _only(key: str, schema: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {key: schema},
        "required": [key],
        "additionalProperties": False,
    }


def files() -> dict[str, str]:
    """The text of the schemas, by file name."""
    schemas = {
        "task": task_schema(),
        "search_space": space_schema(),
        "classes": classes_schema(),
    }
    return {
        f"{name}.schema.json": json.dumps(schema, indent=2) + "\n"
        for name, schema in schemas.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write the JSON Schemas of task, search space and classes files into a folder."""
    parser = Parser("schema", main.__doc__)
    parser.add_argument(
        "--write",
        default="schemas",
        metavar="DIR",
        help="folder for the schemas (default: schemas)",
    )
    return run_command(parser, _write, argv)


def _write(arguments: argparse.Namespace) -> None:
    texts = files()
    folder = made_folder(arguments.write, "--write")
    for name, text in texts.items():
        write_text(folder / name, text)
    print("\n".join(str(folder / name) for name in texts))


if __name__ == "__main__":
    sys.exit(main())
