"""The files that come with the package, search spaces and tasks: found by name, opened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from study.core.errors import InputError, did_you_mean
from study.core.yaml_file import YamlFile, parse_yaml, read_yaml
from study.core.yaml_text import as_yaml

SEARCH_SPACES, TASKS = "search_spaces", "tasks"
_PACKAGE = Path(__file__).resolve().parents[1]
# A wheel carries the search spaces inside the package; a checkout has them at its root.
_FOLDERS = {
    SEARCH_SPACES: (_PACKAGE / "_search_spaces", _PACKAGE.parent / "search_spaces"),
    TASKS: (_PACKAGE / "tasks",),
}


def shipped(kind: str) -> dict[str, Path]:
    """name -> file of every shipped file of a kind (`search_spaces` or `tasks`)."""
    folder = next((one for one in _FOLDERS[kind] if one.is_dir()), None)
    files = sorted(folder.glob("*.yaml")) if folder else []
    return {file.stem: file for file in files}


def find(kind: str, ref: str | Path) -> Path:
    """The file that `ref` means: a path that exists, else a shipped name.

    `joint`, `joint.yaml` and `search_spaces/joint.yaml` all name the shipped file.
    """
    path = Path(ref)
    if os.path.isfile(path):
        return path
    known = shipped(kind)
    if path.suffix in ("", ".yaml") and path.parent.name in ("", kind) and path.stem in known:
        return known[path.stem]
    raise InputError(
        f"{str(ref)!r} not found",
        found=known,
        hint=did_you_mean(path.stem, known),
        key=_noun(kind),
    )


def _noun(kind: str) -> str:
    """`search space` or `task`."""
    return kind.replace("_", " ").removesuffix("s")


def open_shipped(kind: str, ref: str | Path | Mapping[str, Any]) -> tuple[YamlFile, str]:
    """The content and the name of what `ref` means: a path that exists, a shipped name, or the
    content itself, whose name is `custom`."""
    if isinstance(ref, Mapping):
        try:
            return parse_yaml(as_yaml(ref)), "custom"
        except yaml.representer.RepresenterError as error:
            raise InputError(
                f"{_noun(kind)} must be made of numbers, text, lists and mappings, "
                f"got a {type(error.args[-1]).__name__}"
            ) from error
    path = find(kind, ref)
    return read_yaml(path), path.stem
