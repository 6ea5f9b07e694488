"""Validates data with a pydantic model and reports the first fault as one InputError.

pydantic locates a fault by a `loc` that mixes keys of the data with tags and labels of unions. A
walk along the data tells them apart: a part that the data hold is a key, any other is a tag. What
pydantic's error does not carry, such as the known keys or both bounds of a number, comes from the
model's JSON schema at the same place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from study.core.errors import InputError, did_you_mean, line_of, shown
from study.core.yaml_text import number_hint

ModelT = TypeVar("ModelT", bound=BaseModel)
Key = str | int
Schema = Mapping[str, Any]

_SIGNS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_WANTED = {
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    **dict.fromkeys(("int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "a mapping"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
}


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
        schema = model_cls.model_json_schema()
        faults = [_Fault(item, data, schema, root, lines or {}) for item in error.errors()]
    likely = [fault for fault in faults if fault.is_likely] or faults
    fault = min(likely, key=lambda one: (one.kind != "extra_forbidden", one.line or 0))
    raise fault.error(partial(InputError, file=file, line=fault.line, key=fault.key))


class _Fault:
    """One of pydantic's errors, at its key in the data.

    `owners` are the schemas of the mapping that holds the key, `options` those of its value: one,
    or the members of a union.
    """

    def __init__(
        self, item: Any, data: Any, schema: Schema, root: str, lines: Mapping[str, int]
    ) -> None:
        self.kind, self.loc, self.value = item["type"], item["loc"], item["input"]
        self.message, self.context = item["msg"], item.get("ctx", {})
        if self.kind.startswith("union_tag") and not isinstance(self.value, dict):
            self.kind = "dict_type"
        if self.kind == "invalid_key":
            self.kind = "extra_forbidden"
        is_missing = self.kind == "missing"
        readings = _readings(self.loc[:-1] if is_missing else self.loc, data)
        path, _ = max(readings, key=lambda one: (one[1] is self.value, len(one[0])))
        path = (*path, self.loc[-1]) if is_missing else path
        self.last = path[-1] if path else None
        self.holder, self.owners = data, _members(schema, schema)
        for key in path[:-1]:
            self.owners = _members(_below(_likely(self.owners, self.holder), key), schema)
            self.holder = self.holder[key]
        owner = _likely(self.owners, self.holder)
        self.options = _members(_below(owner, self.last), schema) if path else self.owners
        self.is_likely = not path or self._fits(owner)
        if self.kind == "union_tag_invalid":
            path = (*path, self._tag()[0])
        self.key = "/".join([*([root] if root else []), *map(str, path)])
        self.line = line_of(self.key, lines)

    def _fits(self, owner: Schema) -> bool:
        """Whether it is a fault of this member of a union, which fits the data best."""
        known = owner.get("required", ()) if self.kind == "missing" else _properties(owner)
        fits = (self.last in known) != (self.kind == "extra_forbidden")
        return fits or "properties" not in owner

    def _tag(self) -> tuple[str, list[Any]]:
        """The key that tells the members of a tagged union apart, and the values that it takes."""
        fields = [item for one in self.options for item in _properties(one).items()]
        tags = [(key, field["const"]) for key, field in fields if "const" in field]
        return tags[0][0], [value for _, value in tags]

    def error(self, say: Callable[..., InputError]) -> InputError:
        """The line for it; `say` knows the place."""
        above, _, name = self.key.rpartition("/")
        name = f"{above.rpartition('/')[2]}[{name}]" if name.isdigit() and above else name
        name, got = name or "the input", shown(self.value)
        if wanted := _WANTED.get(self.kind):
            hint = number_hint(self.value) if "number" in wanted else ""
            return say(f"{name} must be {wanted}, got {got}", hint=hint)
        match self.kind:
            case "extra_forbidden":
                owners = [one for one in self.owners if self.last not in _properties(one)]
                likely = _likely(owners, self.holder)
                chosen = [likely] if _properties(likely) else owners
                known = list(dict.fromkeys(key for one in chosen for key in _properties(one)))
                return say(f"unknown key {name!r}", allowed=known, hint=did_you_mean(name, known))
            case "missing":
                what = "entry" if isinstance(self.last, int) else "key"
                return say(f"missing required {what} {name!r}")
            case "union_tag_not_found":
                tag, known = self._tag()
                return say(f"missing required key {tag!r}", allowed=known)
            case "union_tag_invalid":
                tag, known = self._tag()
                got = self.context["tag"]
                return say(f"unknown {tag} {got!r}", allowed=known, hint=did_you_mean(got, known))
            case "literal_error":
                words = re.findall(r"'[^']*'|\w+(?=,| or |$)", self.context["expected"])
                known = [word[1:-1] if word.startswith("'") else word.lower() for word in words]
                if self.value is None or isinstance(self.value, (list, dict)):
                    return say(f"{name} must be one of these, got {got}", allowed=known)
                what = "unknown key" if self.loc[-1] == "[key]" else f"invalid {name}"
                return say(f"{what} {got}", allowed=known, hint=did_you_mean(self.value, known))
            case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
                interval = _interval(self.options) or self._bound()
                return say(f"{name} must be {interval}, got {self.value!r}")
            case "too_short":
                least = self.context["min_length"]
                entries = "entry" if least == 1 else "entries"
                return say(f"{name} must have at least {least} {entries}, got {len(self.value)}")
            case "too_long":
                most = self.context["max_length"]
                return say(f"{name} must have at most {most} entries, got {len(self.value)}")
            case "value_error":
                error = self.context["error"]
                return say(error.message if isinstance(error, InputError) else str(error))
        return say(f"invalid {name} {got}: {self.message[:1].lower()}{self.message[1:]}")

    def _bound(self) -> str:
        """The bound that the value is beyond, for a key that the schema calls otherwise."""
        ((kind, bound),) = self.context.items()
        return f"{_BOUNDS[kind]} {bound:g}"


def _readings(loc: Sequence[Key], data: Any) -> list[tuple[tuple[Key, ...], Any]]:
    """Every reading of a loc beside the data: the path of keys, and the value there."""
    if not loc:
        return [((), data)]
    found = _readings(loc[1:], data)
    with suppress(LookupError, TypeError):
        found += [((loc[0], *path), value) for path, value in _readings(loc[1:], data[loc[0]])]
    return found


def _members(schema: Schema, root: Schema) -> list[Schema]:
    """The members of a union, or the schema itself, without references."""
    if "$ref" in schema:
        return _members(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    options = schema.get("anyOf", schema.get("oneOf"))
    return [schema] if options is None else [one for o in options for one in _members(o, root)]


def _properties(schema: Schema) -> Schema:
    return schema.get("properties", {})


def _below(schema: Schema, key: Key | None) -> Schema:
    """The schema of an entry of a mapping or a list."""
    if isinstance(key, int):
        found = dict(enumerate(schema.get("prefixItems", ()))).get(key, schema.get("items"))
    else:
        found = _properties(schema).get(str(key), schema.get("additionalProperties"))
    return found if isinstance(found, dict) else {}


def _likely(members: Sequence[Schema], data: Any) -> Schema:
    """The member whose tag the data have, else the one that shares most keys with them, else one
    for a mapping of any keys where they are one."""

    def is_mapping(member: Schema) -> bool:
        return isinstance(data, dict) and isinstance(member.get("additionalProperties"), dict)

    def fit(member: Schema) -> tuple[int, int, bool]:
        known = _properties(member)
        shared = [key for key in known if isinstance(data, dict) and key in data]
        return (
            sum(known[key].get("const", ...) == data[key] for key in shared),
            len(shared),
            is_mapping(member),
        )

    return max(members, key=fit, default={})


def _interval(options: Sequence[Schema]) -> str:
    """`in [0, 1)`, or `>= 0` where there is one bound."""
    bounds = {key: bound for one in options for key, bound in one.items()}
    sides = [(sign, bounds[key]) for key, sign in _SIGNS.items() if key in bounds]
    if len(sides) < 2:
        return "".join(f"{sign} {bound}" for sign, bound in sides)
    (above, low), (below, high) = sides
    return f"in {'[' if above == '>=' else '('}{low}, {high}{']' if below == '<=' else ')'}"
