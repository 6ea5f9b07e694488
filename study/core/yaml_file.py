"""YAML input files: their data, and the line of every key for error messages.

Reads what `yaml.safe_load` reads, with these differences: a repeated key is an error; aliases and
merge keys are errors (a file states each thing in one place); so is what JSON has no type for
(dates, bytes, sets), and nesting without end; and the keys `on`, `off`, `yes`, `no` stay words,
where YAML 1.1 would turn them into true and false.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from study.core.errors import InputError, shown
from study.core.validation import validate

__all__ = ["YamlFile", "parse_yaml", "read_yaml", "validate"]

TYPES = ("null", "bool", "int", "float", "str", "seq", "map")
DEEPEST = 64  # levels of mappings and lists
LARGEST = 2**24  # bytes


@dataclass(frozen=True)
class YamlFile:
    """A parsed file. `lines` maps each key path, joined by `/`, to its line (1-based)."""

    file: str | None
    text: str
    data: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise self._refused("aliases are not allowed; write the value out", mark)
        if self.depth > DEEPEST:
            raise self._refused(f"nested deeper than {DEEPEST} levels", mark)
        self.depth += 1
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind == "timestamp" and node.value:
            what = f"a date is not allowed, got {node.value!r}; write it in quotes"
            raise self._refused(what, mark)
        if kind not in (*TYPES, "merge"):  # a merge key is refused as a key
            what = f"!!{kind}" if node.tag != kind else kind
            raise self._refused(f"the type {what} is not allowed", mark)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):  # `1` and `0x1`
            raise self._refused("two keys are equal", node.start_mark)
        return mapping

    @staticmethod
    def _refused(what: str, mark: yaml.Mark | None) -> yaml.MarkedYAMLError:
        return yaml.composer.ComposerError(None, None, what, mark)

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
        raise InputError(f"invalid YAML: {error}", file=file, line=loader.line + 1) from error
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
    try:
        found = Path(path).stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise InputError("not a regular file", file=path)  # reading it might never end
        if found.st_size > LARGEST:
            size = f"{found.st_size / 2**20:.0f} MiB"
            raise InputError(f"the file must be at most 16 MiB, got {size}", file=path)
        text = Path(path).read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise InputError("file not found", file=path) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        message = f"the file is not UTF-8 text: {error.reason}"
        raise InputError(message, file=path, line=line) from error
    except ValueError as error:  # a null byte in the path
        raise InputError(f"cannot read the file: {error}", file=path) from error
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror}", file=path) from error
    return parse_yaml(text, str(path))
