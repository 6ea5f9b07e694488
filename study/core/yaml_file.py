"""YAML input files: their data, and the line of every key for error messages.

Reads what `yaml.safe_load` reads, with three differences: a repeated key is an error; aliases and
merge keys are errors (a file states each thing in one place); and the keys `on`, `off`, `yes`, `no`
stay words, where YAML 1.1 would turn them into true and false.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from study.core.errors import InputError, shown
from study.core.validation import validate

__all__ = ["YamlFile", "parse_yaml", "read_yaml", "validate"]


@dataclass(frozen=True)
class YamlFile:
    """A parsed file. `lines` maps each key path, joined by `/`, to its line (1-based)."""

    file: str | None
    text: str
    data: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(
                None, None, "aliases are not allowed; write the value out", mark
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # PyYAML raises on `2024-13-45`, and on a value that does not fit its tag
            kind = node.tag.rpartition(":")[2]
            reason = f" ({error})" if type(error) is ValueError else ""
            got = repr(node.value) if isinstance(node, yaml.ScalarNode) else f"a {node.id}"
            raise yaml.constructor.ConstructorError(
                None, None, f"invalid {kind} {got}{reason}", node.start_mark
            ) from error


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _mark_lines(node: yaml.Node, path: str, lines: dict[str, int], file: str | None) -> None:
    """Fill `lines` below a node; reject keys that are repeated or not plain text."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            below = f"{path}/{index}" if path else str(index)
            lines[below] = _line(item)
            _mark_lines(item, below, lines, file)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        tag = key.tag.rpartition(":")[2]
        if not isinstance(key, yaml.ScalarNode) or tag in ("null", "merge"):
            what = getattr(key, "value", None)
            what = repr(what) if isinstance(what, str) else f"a {key.id}"
            raise InputError(
                f"a key must be plain text, got {what}", file=file, line=_line(key), key=path
            )
        if tag == "bool":
            key.tag = "tag:yaml.org,2002:str"
        below = f"{path}/{key.value}" if path else key.value
        if below in lines:
            raise InputError(
                f"duplicate key (first defined on line {lines[below]})",
                file=file,
                line=_line(key),
                key=below,
            )
        lines[below] = _line(key)
        _mark_lines(value, below, lines, file)


def _one_line(error: yaml.MarkedYAMLError) -> tuple[str, int | None]:
    mark = error.problem_mark or error.context_mark
    parts = [str(part) for part in (error.context, error.problem) if part]
    text = re.sub(r"\bbut (found|got) ", "got ", ", ".join(parts))
    return text, None if mark is None else mark.line + 1


def parse_yaml(text: str, file: str | None = None) -> YamlFile:
    """Parse the mapping in a YAML text; raises InputError with the line for anything else."""
    lines: dict[str, int] = {}
    node: yaml.Node | None = None
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                _mark_lines(node, "", lines, file)
            data = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        message, line = _one_line(error)
        hint = "indent with spaces" if r"'\t'" in message else ""
        raise InputError(f"invalid YAML: {message}", hint=hint, file=file, line=line) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"invalid YAML: {error.reason}", file=file, line=line) from error
    except InputError:
        raise
    except (ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"invalid YAML: {error}", file=file) from error
    if data is None:
        raise InputError("the file is empty", hint="it must hold a mapping", file=file)
    if not isinstance(data, dict):
        raise InputError(
            f"the file must hold a mapping, got {shown(data)}",
            file=file,
            line=None if node is None else _line(node),
        )
    return YamlFile(file=file, text=text, data=data, lines=lines)


def read_yaml(path: str | Path) -> YamlFile:
    """Parse a file; raises InputError for a missing or unreadable file, too."""
    if Path(path).is_fifo():
        raise InputError("not a regular file", file=path)  # reading a pipe would wait for ever
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("file not found", file=path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"the file is not UTF-8 text: {error.reason}", file=path) from error
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror}", file=path) from error
    return parse_yaml(text, str(path))
