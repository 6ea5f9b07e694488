"""The leaf grammar of a search space: a YAML tree to a tree of constants, ranges and choices.

    0.5, [1, 2], text, null                         a constant
    {float: {low, high, log?, step?, prior?}}       log: true (log-uniform) or
                                                    to_one (1 - value log-uniform, for momenta)
    {int: {low, high, log?, step?, prior?}}
    {choice: [scalar, ...]}                         the scalar is the recorded value
    {choice: {name: subtree, ...}}                  the name is recorded under the node's own path,
                                                    the leaves of its subtree exist only if chosen

A `prior` is the value at which the user believes the best: of a range inside it, of a choice beside
it, as {choice: ..., prior: name}. Bounds are inclusive. The path of a node, joined by `/`, skips
the words `choice` and the names of options: `loss/recall/ema_momentum` has one distribution in a
file, whatever option it is under.

A range is an `optuna.distributions` object, in the coordinate in which it is uniform or
log-uniform: for `to_one` that is 1 - value. Only `Leaf.from_sampler` and `Leaf.to_sampler` convert
between the two; everything outside a sampler holds the values of a config.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import Field, model_validator

from study.core.errors import InputError, did_you_mean, shown
from study.core.validation import validate
from study.losses.config import Config

Scalar = None | bool | int | float | str
DIGITS = 6  # significant digits of a sampled number: readable, and far finer than any effect
LOG_AND_STEP = "log and step cannot be combined; remove one of them"
LARGEST_INT = 2**53  # beyond, the sampler's numbers are no longer exact
_KINDS = ("float", "int", "choice")
PRIOR = "prior"


class FloatRange(Config):
    """An inclusive range of numbers. prior: where the user believes the best."""

    low: float
    high: float
    log: Literal[False, True, "to_one"] = False
    step: float | None = Field(None, gt=0)
    prior: float | None = None

    @model_validator(mode="after")
    def _check(self) -> FloatRange:
        _check_bounds(self.low, self.high)
        if self.step is not None and self.log:
            raise ValueError(LOG_AND_STEP)
        if self.log is True and self.low <= 0:
            raise ValueError(f"low must be > 0 where log is true, got {self.low}")
        if self.log == "to_one" and self.high >= 1:
            raise ValueError(f"high must be < 1 where log is to_one, got {self.high}")
        if self.log is True and math.isinf(self.high / self.low):
            raise ValueError(
                f"high / low must be a finite number, got low {self.low} and high {self.high}"
            )
        if self.step is not None:
            _check_step(self.low, self.high, self.step)
        _check_prior(self)
        return self

    def distribution(self) -> FloatDistribution:
        """The range as Optuna's distribution, in the coordinate of the sampler."""
        if self.log == "to_one":
            return FloatDistribution(1 - self.high, 1 - self.low, log=True)
        return FloatDistribution(self.low, self.high, log=bool(self.log), step=self.step)


class IntRange(Config):
    """An inclusive range of whole numbers. prior: where the user believes the best."""

    low: int
    high: int
    log: bool = False
    step: int | None = Field(None, ge=1)
    prior: int | None = None

    @model_validator(mode="after")
    def _check(self) -> IntRange:
        _check_bounds(self.low, self.high)
        if self.step is not None and self.log:
            raise ValueError(LOG_AND_STEP)
        if self.log and self.low < 1:
            raise ValueError(f"low must be >= 1 where log is true, got {self.low}")
        _check_step(self.low, self.high, self.step or 1)
        _check_prior(self)
        return self

    def distribution(self) -> IntDistribution:
        """The range as Optuna's distribution."""
        return IntDistribution(self.low, self.high, log=self.log, step=self.step or 1)


def _check_bounds(low: float, high: float) -> None:
    if not low <= high:
        raise ValueError(f"low must be <= high, got low {low} and high {high}")
    if isinstance(low, int) and max(abs(low), abs(high)) > LARGEST_INT:
        raise ValueError(f"low and high must be within +-2^53, got low {low} and high {high}")
    if math.isinf(high - low):
        raise ValueError(f"high - low must be a finite number, got low {low} and high {high}")


def _check_step(low: float, high: float, step: float) -> None:
    try:
        steps = (high - low) / step
        whole = round(steps)
    except OverflowError:
        raise ValueError(f"step is too small for this range, got {step}") from None
    if abs(steps - whole) > 1e-8:
        raise ValueError(
            f"high - low must be a multiple of step, got low {low}, high {high} and step {step}"
        )


def _check_prior(spec: FloatRange | IntRange) -> None:
    if spec.prior is None:
        return
    if not spec.low <= spec.prior <= spec.high:
        raise ValueError(f"prior must be in [{spec.low}, {spec.high}], got {spec.prior}")
    steps = (spec.prior - spec.low) / (spec.step or 1)
    if spec.step is not None and abs(steps - round(steps)) > 1e-8:
        raise ValueError(
            f"prior must be low plus a multiple of step, got low {spec.low}, step {spec.step} and "
            f"prior {spec.prior}"
        )


@dataclass(frozen=True)
class Constant:
    """A value that no trial changes."""

    path: str
    line: int | None
    value: Any


@dataclass(frozen=True)
class Leaf:
    """A range or a choice of scalars: one value per trial. prior: where the user believes the
    best."""

    path: str
    line: int | None
    distribution: BaseDistribution
    low: float | None = None
    high: float | None = None
    to_one: bool = False
    prior: Any = None

    def from_sampler(self, value: Any) -> Any:
        """The value as a config holds it, from the one the sampler works with."""
        if not isinstance(self.distribution, FloatDistribution):
            return value
        if self.distribution.step is not None:
            return value
        digits = DIGITS - 1 - math.floor(math.log10(abs(value))) if value else DIGITS
        rounded = round(1 - value if self.to_one else value, digits)
        assert self.low is not None and self.high is not None
        return min(max(rounded, self.low), self.high)

    def to_sampler(self, value: Any) -> Any:
        """The inverse of `from_sampler`; a ValueError where the value is not in the range."""
        if isinstance(self.distribution, CategoricalDistribution):
            for choice in self.distribution.choices:
                if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                    return choice
            raise ValueError(f"{self.path}: {value!r} is not a choice")
        assert self.low is not None and self.high is not None
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not self.low <= value <= self.high:
            raise ValueError(
                f"{self.path}: value must be in [{self.low}, {self.high}], got {value!r}"
            )
        inner = value
        if self.to_one:
            assert isinstance(self.distribution, FloatDistribution)
            inner = min(max(1 - value, self.distribution.low), self.distribution.high)
        if not self.distribution._contains(self.distribution.to_internal_repr(inner)):
            raise ValueError(f"{self.path}: {value!r} is not on a step of the range")
        return inner

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values to check before a study starts: all choices, or both ends."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.distribution.choices
        return (self.low, self.high)

    @property
    def num_values(self) -> int | None:
        """How many values there are, or None in a range without steps. Does not list them."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return len(choices)
            case IntDistribution(low=low, high=high, step=step):
                return (high - low) // step + 1
            case FloatDistribution(low=low, high=high, step=step) if step is not None:
                return round((high - low) / step) + 1
        return None

    @property
    def grid(self) -> tuple[Any, ...] | None:
        """All values, where they can be listed."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return tuple(choices)
            case IntDistribution(low=low, high=high, step=step):
                return tuple(range(low, high + 1, step))
            case FloatDistribution(low=low, high=high, step=step) if step is not None:
                count = self.num_values or 0
                return tuple(min(round(low + i * step, 12), high) for i in range(count))
        return None


@dataclass(frozen=True)
class Choice:
    """A choice between named subtrees; the name is the recorded value. prior: the option that the
    user believes the best."""

    path: str
    line: int | None
    options: Mapping[str, Node]
    prior: str | None = None

    @property
    def distribution(self) -> CategoricalDistribution:
        """Over the names of the options."""
        return CategoricalDistribution(tuple(self.options))


@dataclass(frozen=True)
class Branch:
    """A mapping."""

    path: str
    line: int | None
    children: Mapping[str, Node]


Node = Constant | Leaf | Choice | Branch
Pick = Callable[[Leaf | Choice], Any]


@dataclass(frozen=True)
class _Source:
    file: str | None
    lines: Mapping[str, int]

    def below(self, yaml_path: str, path: str) -> dict[str, int]:
        """Lines of a subtree, under the path that messages show."""
        return {
            path + key.removeprefix(yaml_path): line
            for key, line in self.lines.items()
            if key == yaml_path or key.startswith(yaml_path + "/")
        }

    def error(self, offence: str, yaml_path: str, path: str, hint: str = "") -> InputError:
        line = self.lines.get(yaml_path)
        return InputError(offence, hint=hint, file=self.file, line=line, key=path)


def compile_tree(
    value: Any, path: str, *, file: str | None = None, lines: Mapping[str, int] | None = None
) -> Node:
    """The tree below a top-level key of a search space. Bad grammar is an InputError."""
    node = _compile(value, path, path, _Source(file, lines or {}))
    seen: dict[str, Leaf | Choice] = {}
    for item in searched(node):
        first = seen.setdefault(item.path, item)
        if not _same(first, item):
            raise InputError(
                f"the distribution differs from that on line {first.line}",
                hint="a path has one distribution in a file",
                file=file,
                line=item.line,
                key=item.path,
            )
    return node


def _same(first: Leaf | Choice, second: Leaf | Choice) -> bool:
    if first.prior != second.prior:
        return False
    if isinstance(first, Leaf) and isinstance(second, Leaf):
        return (first.distribution, first.to_one) == (second.distribution, second.to_one)
    return type(first) is type(second) and first.distribution == second.distribution


def _compile(value: Any, yaml_path: str, path: str, source: _Source) -> Node:
    line = source.lines.get(yaml_path)
    if not isinstance(value, dict):
        return Constant(path, line, value)
    kinds = [kind for kind in _KINDS if kind in value]
    if not kinds:
        children = {
            str(key): _compile(item, f"{yaml_path}/{key}", f"{path}/{key}", source)
            for key, item in value.items()
        }
        return Branch(path, line, children)
    kind, spec = kinds[0], value[kinds[0]]
    for other in value:
        if other != kind and (kind, other) != ("choice", PRIOR):
            hint = f"put it into the {kind}" if other == PRIOR else ""
            message = f"key {other!r} is not allowed beside {kind!r}"
            raise source.error(message, yaml_path, path, hint)
    if kind == "choice":
        node = _compile_choice(spec, yaml_path, path, source)
        return _with_prior(node, value.get(PRIOR), yaml_path, source)
    model: type[FloatRange | IntRange] = FloatRange if kind == "float" else IntRange
    below = {path: line} if line else {}
    below |= source.below(f"{yaml_path}/{kind}", path)
    spec_range = validate(model, spec, file=source.file, lines=below, root=path)
    return Leaf(
        path,
        line,
        spec_range.distribution(),
        low=spec_range.low,
        high=spec_range.high,
        to_one=spec_range.log == "to_one",
        prior=spec_range.prior,
    )


def _with_prior(node: Leaf | Choice, prior: Any, yaml_path: str, source: _Source) -> Leaf | Choice:
    """A choice with the option that the user believes the best."""
    if prior is None:
        return node
    assert isinstance(node.distribution, CategoricalDistribution)
    options = node.distribution.choices
    for option in options:
        if option == prior and isinstance(option, bool) == isinstance(prior, bool):
            return replace(node, prior=option)  # type: ignore[arg-type]
    raise InputError(
        f"prior must be an option of the choice, got {shown(prior)}",
        hint=did_you_mean(str(prior), map(str, options)),
        allowed=options,
        file=source.file,
        line=source.lines.get(f"{yaml_path}/{PRIOR}"),
        key=f"{node.path}/{PRIOR}",
    )


def _compile_choice(spec: Any, yaml_path: str, path: str, source: _Source) -> Leaf | Choice:
    line = source.lines.get(yaml_path)
    below = f"{yaml_path}/choice"
    if not isinstance(spec, (list, dict)) or not spec:
        got = f"an empty {'list' if isinstance(spec, list) else 'mapping'}"
        got = got if isinstance(spec, (list, dict)) else shown(spec)
        message = f"choice must be a list of values or a mapping of named options, got {got}"
        raise source.error(message, yaml_path, path)
    if isinstance(spec, dict):
        options = {
            str(name): _compile(item, f"{below}/{name}", path, source)
            for name, item in spec.items()
        }
        return Choice(path, line, options)
    for index, item in enumerate(spec):
        if not isinstance(item, Scalar) or (isinstance(item, float) and math.isnan(item)):
            message = f"the items of a list of choices must be scalars, got {shown(item)}"
            hint = "" if isinstance(item, float) else "name such options"
            raise source.error(message, f"{below}/{index}", path, hint)
        if item in spec[:index]:
            raise source.error(f"duplicate choice {shown(item)}", f"{below}/{index}", path)
    return Leaf(path, line, CategoricalDistribution(tuple(spec)))


def searched(node: Node) -> Iterator[Leaf | Choice]:
    """Every leaf and choice of a tree, in the order of the file."""
    match node:
        case Leaf():
            yield node
        case Choice(options=options):
            yield node
            for option in options.values():
                yield from searched(option)
        case Branch(children=children):
            for child in children.values():
                yield from searched(child)


def num_points(node: Node) -> int | None:
    """How many points a tree has, or None where a range has no steps. Does not list them."""
    match node:
        case Leaf():
            return node.num_values
        case Choice(options=options):
            counts = [num_points(option) for option in options.values()]
            return None if None in counts else sum(filter(None, counts))
        case Branch(children=children):
            counts = [num_points(child) for child in children.values()]
            return None if None in counts else math.prod(filter(None, counts))
    return 1


def assemble(node: Node, pick: Pick, params: dict[str, Any], lines: dict[str, int]) -> Any:
    """The config tree for one pick per active leaf and choice; fills in params and lines."""
    if node.line is not None:
        lines[node.path] = node.line
    match node:
        case Constant(value=value):
            return value
        case Branch(children=children):
            return {key: assemble(child, pick, params, lines) for key, child in children.items()}
        case Leaf(path=path):
            params[path] = pick(node)
            return params[path]
        case Choice(path=path, options=options):
            params[path] = pick(node)
            return assemble(options[params[path]], pick, params, lines)
