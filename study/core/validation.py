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

_LOW, _HIGH = {"minimum": "[", "exclusiveMinimum": "("}, {"maximum": "]", "exclusiveMaximum": ")"}
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
        self.is_likely = self._fits(owner)
        if self.kind == "union_tag_invalid":
            path = (*path, self._tag())
        self.key = "/".join([*([root] if root else []), *map(str, path)])
        self.line = line_of(self.key, lines)

    def _fits(self, owner: Schema) -> bool:
        """Whether it is a fault of this member of a union, which fits the data best."""
        if self.last is None or "properties" not in owner:
            return True
        known = owner.get("required", ()) if self.kind == "missing" else owner["properties"]
        return (self.last in known) != (self.kind == "extra_forbidden")

    def _tag(self) -> str:
        """The key that tells the members of a tagged union apart."""
        fields = [item for one in self.options for item in one.get("properties", {}).items()]
        return next(key for key, field in fields if "const" in field)

    def error(self, say: Callable[..., InputError]) -> InputError:
        """The line for it; `say` knows the place."""
        above, _, name = self.key.rpartition("/")
        name = f"{above.rpartition('/')[2]}[{name}]" if name.isdigit() and above else name
        name, got = name or "the input", shown(self.value)
        wanted = _WANTED.get(self.kind)
        if wanted or (self.kind == "union_tag_not_found" and not isinstance(self.value, dict)):
            hint = number_hint(self.value) if "number" in (wanted or "") else ""
            return say(f"{name} must be {wanted or 'a mapping'}, got {got}", hint=hint)
        match self.kind:
            case "extra_forbidden":
                owners = [one for one in self.owners if self.last not in one.get("properties", {})]
                known = list(_likely(owners, self.holder).get("properties", {}))
                return say(f"unknown key {name!r}", allowed=known, hint=did_you_mean(name, known))
            case "missing":
                what = "entry" if isinstance(self.last, int) else "key"
                return say(f"missing required {what} {name!r}")
            case "union_tag_not_found":
                fields = [one.get("properties", {}).get(self._tag(), {}) for one in self.options]
                known = [field["const"] for field in fields if "const" in field]
                return say(f"missing required key {self._tag()!r}", allowed=known)
            case "union_tag_invalid":
                tag, known = self.context["tag"], self._quoted("expected_tags")
                hint = did_you_mean(tag, known)
                return say(f"unknown {self._tag()} {tag!r}", allowed=known, hint=hint)
            case "literal_error":
                known = self._quoted("expected")
                what = "unknown key" if self.loc[-1] == "[key]" else f"invalid {name}"
                return say(f"{what} {got}", allowed=known, hint=did_you_mean(self.value, known))
            case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
                return say(f"{name} must be {_interval(self.options)}, got {self.value!r}")
            case "too_short" | "too_long":
                least, most = self.context.get("min_length"), self.context.get("max_length")
                limit = f"at most {most}" if self.kind == "too_long" else f"at least {least}"
                return say(f"{name} must have {limit} entries, got {len(self.value)}")
            case "value_error":
                error = self.context["error"]
                return say(error.message if isinstance(error, InputError) else str(error))
        return say(f"invalid {name} {got}: {self.message[:1].lower()}{self.message[1:]}")

    def _quoted(self, key: str) -> list[str]:
        """The words of a list such as `'a', False or 3` in pydantic's error."""
        words = re.findall(r"'[^']*'|\w+(?=,| or |$)", self.context[key])
        return [word[1:-1] if word.startswith("'") else word.lower() for word in words]


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


def _below(schema: Schema, key: Key | None) -> Schema:
    """The schema of an entry of a mapping or a list."""
    if isinstance(key, int):
        found = dict(enumerate(schema.get("prefixItems", ()))).get(key, schema.get("items"))
    else:
        found = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
    return found if isinstance(found, dict) else {}


def _likely(members: Sequence[Schema], data: Any) -> Schema:
    """The member whose tag the data have, else the one that shares most keys with them."""

    def fit(member: Schema) -> tuple[int, int]:
        known = member.get("properties", {})
        shared = [key for key in known if isinstance(data, dict) and key in data]
        return sum(known[key].get("const", ...) == data[key] for key in shared), len(shared)

    return max(members, key=fit, default={})


def _interval(options: Sequence[Schema]) -> str:
    """`in [0, 1)`, or `>= 0` where there is one bound."""
    bounds = {key: bound for one in options for key, bound in one.items()}
    low = [f"{sign}{bounds[key]}" for key, sign in _LOW.items() if key in bounds]
    high = [f"{bounds[key]}{sign}" for key, sign in _HIGH.items() if key in bounds]
    if low and high:
        return f"in {low[0]}, {high[0]}"
    signs = zip((*_LOW, *_HIGH), (">=", ">", "<=", "<"), strict=True)
    return next(f"{sign} {bounds[key]}" for key, sign in signs if key in bounds)
