"""What a config refuses, in the project's words: where, which key, what must hold, what came.

pydantic says where an error lies by a `loc` that mixes keys with the tags of unions. Here the loc
is walked along the types, so that the key path is the path in the YAML file, and so that the
message can name the known keys and both bounds of a number.
"""

from __future__ import annotations

import difflib
import itertools
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo

from study.core.errors import InputError

ModelT = TypeVar("ModelT", bound=BaseModel)


def validate(
    model_cls: type[ModelT],
    data: Any,
    *,
    file: str | Path | None = None,
    lines: Mapping[str, int] | None = None,
    root: str = "",
) -> ModelT:
    """The typed config of `data`; the first thing wrong with it is an InputError.

    `root` is the key path of `data` in the file; `lines` gives the line of a key path.
    """
    try:
        return model_cls.model_validate(data)
    except ValidationError as error:
        found = [(_place(model_cls, item["loc"]), item) for item in error.errors()]
    lines = lines or {}
    found = [(place, item) for place, item in found if place.is_likely(data)] or found

    def order(entry: tuple[_Place, Any]) -> tuple[bool, int]:
        place, item = entry
        return item["type"] != "extra_forbidden", _line_of(_join(root, place.path), lines) or 0

    place, item = min(found, key=order)
    key = _join(root, place.path)
    raise InputError(_message(place, item), file=file, line=_line_of(key, lines), key=key)


def did_you_mean(name: Any, known: Iterable[Any]) -> str:
    """`; did you mean 'x'?` where a known name is near, else nothing."""
    text, names = str(name), [str(one) for one in known]
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.66)
    near = near or [one for one in names if text and one.startswith(text)]
    return f"; did you mean {near[0]!r}?" if near else ""


def _join(root: str, path: Sequence[str | int]) -> str:
    return "/".join([*([root] if root else []), *(str(part) for part in path)])


def _line_of(key: str, lines: Mapping[str, int]) -> int | None:
    """The line of the key, else of the nearest key above it."""
    while key and key not in lines:
        key = key.rpartition("/")[0]
    return lines.get(key)


@dataclass(frozen=True)
class _Place:
    """Where a loc points: the key path, the model that holds the last key, the key's constraints,
    and for each union of models on the way (its path, the member judged, all members)."""

    path: tuple[str | int, ...]
    owner: type[BaseModel] | None
    constraints: tuple[Any, ...]
    unions: tuple[tuple[tuple[str | int, ...], type[BaseModel], tuple[Any, ...]], ...]

    def is_likely(self, data: Any) -> bool:
        """False where another member of an untagged union shares more keys with the data."""
        for path, member, members in self.unions:
            value = data
            for part in path:
                value = value[part]
            keys = set(value) if isinstance(value, dict) else set()
            likely = max(members, key=lambda one: len(keys & set(one.model_fields)))
            if member is not likely:
                return False
        return True


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _peel(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(kind) is Annotated:
        inner, *metadata = get_args(kind)
        flat = [item.metadata if isinstance(item, FieldInfo) else [item] for item in metadata]
        return inner, tuple(itertools.chain(*flat))
    return kind, ()


def _has_tag(member: Any, label: Any) -> bool:
    kind, metadata = _peel(member)
    if any(isinstance(item, Tag) and item.tag == label for item in metadata):
        return True
    fields = kind.model_fields.values() if _is_model(kind) else ()
    return any(
        get_origin(field.annotation) is Literal and label in get_args(field.annotation)
        for field in fields
    )


def _names_model(label: Any, model: type[BaseModel]) -> bool:
    """pydantic labels a member by its name, or by `function-after[check(), Name]`."""
    return str(label).rstrip("]").rpartition(" ")[2] == model.__name__


def _place(model_cls: type[BaseModel], loc: Sequence[str | int]) -> _Place:
    kind: Any = model_cls
    constraints: tuple[Any, ...] = ()
    owner: type[BaseModel] | None = None
    path: list[str | int] = []
    unions = []
    rest = list(loc)
    while True:
        kind, metadata = _peel(kind)
        constraints = (*constraints, *metadata)
        if get_origin(kind) in (Union, types.UnionType):
            members = [one for one in get_args(kind) if one is not type(None)]
            if len(members) == 1:
                kind = members[0]
                continue
            if not rest:
                break
            label = rest.pop(0)
            kind, constraints = Any, ()
            for member in members:
                bare = _peel(member)[0]
                if _has_tag(member, label):
                    kind = member
                elif _is_model(bare) and _names_model(label, bare):
                    kind = member
                    models = tuple(_peel(one)[0] for one in members)
                    unions.append((tuple(path), bare, models))
            continue
        if not rest:
            break
        key = rest.pop(0)
        path.append(key)
        constraints = ()
        if _is_model(kind):
            owner = kind
            info = kind.model_fields.get(str(key))
            kind, constraints = (info.annotation, tuple(info.metadata)) if info else (Any, ())
        elif get_origin(kind) in (tuple, list):
            items = [one for one in get_args(kind) if one is not Ellipsis]
            index = key if isinstance(key, int) else 0
            kind = items[min(index, len(items) - 1)] if items else Any
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
            rest = [part for part in rest if part != "[key]"]
        else:
            kind = Any
    return _Place(tuple(path), owner, constraints, tuple(unions))


def shown(value: Any) -> str:
    """A value as an error message shows it."""
    if isinstance(value, str):
        return f"the text {value!r}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def as_number(text: Any) -> str:
    """` (write 1.0e-3)` for a text that was meant as a number, else nothing.

    YAML 1.1 reads a number with an exponent only if it has a dot and the exponent a sign.
    """
    if not isinstance(text, str):
        return ""
    try:
        value = float(text)
    except ValueError:
        return ""
    if not abs(value) < float("inf"):
        return " (write .inf)" if value == float("inf") else ""
    match = re.fullmatch(r"\s*([-+]?[0-9_.]+)[eE]([-+]?)([0-9]+)\s*", text)
    if not match:
        return f" (write {text.strip()} without quotes)"
    mantissa, sign, exponent = match.groups()
    return f" (write {mantissa if '.' in mantissa else mantissa + '.0'}e{sign or '+'}{exponent})"


def _bounds(name: str, constraints: Iterable[Any]) -> str:
    """`0 <= name < 1`, from the field's own constraints."""
    low = high = ""
    for item in constraints:
        match item:
            case annotated_types.Ge(ge=bound):
                low = f"{bound} <= "
            case annotated_types.Gt(gt=bound):
                low = f"{bound} < "
            case annotated_types.Le(le=bound):
                high = f" <= {bound}"
            case annotated_types.Lt(lt=bound):
                high = f" < {bound}"
    return f"`{low}{name}{high}`"


_WANTED = {
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}


def _message(place: _Place, item: Any) -> str:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    name = str(place.path[-1]) if place.path else "it"
    if name.isdigit() and len(place.path) > 1:
        name = f"{place.path[-2]}[{name}]"
    if kind == "extra_forbidden" and place.owner is not None:
        known = list(place.owner.model_fields)
        return (
            f"a known key must stand here ({', '.join(known) or 'there is none'}), "
            f"but got {name!r}{did_you_mean(name, known)}"
        )
    if kind == "missing":
        return f"`{name}` must be given, but it is not there"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _tag_message(place, kind, value, context)
    if kind == "literal_error":
        words = re.findall(r"'[^']*'|\w+(?=,| or |$)", context["expected"])
        names = [word[1:-1] if word.startswith("'") else word.lower() for word in words]
        return (
            f"one of {', '.join(names)} must stand here, but got {shown(value)}"
            f"{did_you_mean(value, names)}"
        )
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return f"{_bounds(name, place.constraints)} must hold, but got {value!r}"
    if kind in _WANTED:
        number = as_number(value) if "number" in _WANTED[kind] else ""
        return f"{_WANTED[kind]} must stand here, but got {shown(value)}{number}"
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    wanted = item["msg"][0].lower() + item["msg"][1:]
    return f"{wanted}, but got {shown(value)}"


def _tag_message(place: _Place, kind: str, value: Any, context: Mapping[str, Any]) -> str:
    """A tagged union whose tag is missing or unknown. A tag function is named by its call."""
    tag = str(context["discriminator"]).strip("'")
    by_key = not tag.endswith("()")
    if kind == "union_tag_not_found":
        what = f"`{tag}`" if by_key else "one of the known kinds"
        return f"{what} must be given, but it is not there"
    known = re.findall(r"'([^']*)'", context["expected_tags"])
    got = context["tag"]
    what = f"`{tag}` must be one of" if by_key else "the kind must be one of"
    return f"{what} {', '.join(known)}, but got {got!r}{did_you_mean(got, known)}"
