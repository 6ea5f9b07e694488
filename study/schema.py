"""JSON Schemas of task and search space files, for editors: `python -m study.schema`.

Generated from the config types. In a search space every leaf may also be a range or a choice, and
every subtree a choice of named subtrees; see `grammar`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from study.config.task import TaskConfig, TrialOptimizer
from study.core.console import Parser, exit_code
from study.core.files import made_folder, write_text
from study.losses import PRESETS
from study.losses.config import LossConfig
from study.space.grammar import FloatRange, IntRange
from study.space.settings import OBJECTIVES, StudySettings

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
REF = "#/$defs/{model}"


def task_schema() -> Schema:
    """Of `study/tasks/*.yaml`."""
    return {"$schema": DIALECT, **TaskConfig.model_json_schema(), "title": "A task"}


def space_schema() -> Schema:
    """Of `search_spaces/*.yaml`."""
    names, schema = models_json_schema(
        [
            (model, "validation")
            for model in (LossConfig, TrialOptimizer, StudySettings, FloatRange, IntRange)
        ],
        ref_template=REF,
    )
    fixed = ("StudySettings", "Rungs", "Confirm", "FloatRange", "IntRange")
    definitions = {
        name: one if name in fixed else _opened(one) for name, one in schema["$defs"].items()
    }
    study = definitions["StudySettings"]["properties"]
    study["objectives"]["items"] = {"enum": list(OBJECTIVES)}
    study["baselines"]["items"] = {"enum": list(PRESETS)}
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
    """An object's schema with every property open to search."""
    properties = {key: _searched(one) for key, one in model.get("properties", {}).items()}
    return {**model, "properties": properties}


def _searched(schema: Schema) -> Schema:
    """The schema of a key: a constant of its own kind, a range, or a choice."""
    notes: Schema = {
        key: schema[key] for key in ("title", "description", "default") if key in schema
    }
    constant = {key: value for key, value in schema.items() if key not in notes}
    if "oneOf" in constant:
        # a member's tag may be a choice too, so that exactly one need not match
        constant = {"anyOf": constant["oneOf"]}
    options = [constant]
    if constant.get("type") in ("number", "integer"):
        options += [_only("float", {"$ref": REF.format(model="FloatRange")})]
        options += [_only("int", {"$ref": REF.format(model="IntRange")})]
    listed = {"type": "array", "minItems": 1, "items": constant}
    named = {"type": "object", "minProperties": 1, "additionalProperties": constant}
    return {**notes, "anyOf": [*options, _only("choice", {"anyOf": [listed, named]})]}


def _only(key: str, schema: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {key: schema},
        "required": [key],
        "additionalProperties": False,
    }


def files() -> dict[str, str]:
    """File name -> text of the two schemas."""
    schemas = {"task": task_schema(), "search_space": space_schema()}
    return {
        f"{name}.schema.json": json.dumps(schema, indent=2) + "\n"
        for name, schema in schemas.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the schemas into a folder."""
    parser = Parser(prog="python -m study.schema", description=main.__doc__)
    parser.add_argument(
        "--write", default="schemas", metavar="DIR", help="folder to write into (default: schemas)"
    )
    return exit_code(lambda: _write(parser.parse_args(arguments).write))


def _write(target: str) -> None:
    folder = made_folder(target, "--write")
    for name, text in files().items():
        write_text(folder / name, text)
    print("\n".join(str(folder / name) for name in files()))


if __name__ == "__main__":
    sys.exit(main())
