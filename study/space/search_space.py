"""A search space: what may be searched, as a mapping between flat params and trial configs.

`params` are the values of the leaves and choices that are active in one trial, by key path:
`{"loss/recall": "ema", "loss/recall/ema_momentum": 0.93, "optimizer/lr_scale": 1.2}`. They
hold values as a config does; `point` turns them into what a sampler models (see `grammar`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial

from study.config.shipped import SEARCH_SPACES, open_shipped
from study.config.task import Task, TrialConfig, TrialOptimizer
from study.core.errors import InputError, did_you_mean, line_of
from study.core.names import CE
from study.core.validation import validate
from study.losses import family
from study.losses.config import FactoryLoss, LossConfig
from study.losses.describe import describe
from study.space.grammar import (
    Branch,
    Choice,
    Constant,
    Leaf,
    Node,
    assemble,
    compile_tree,
    num_points,
    searched,
)
from study.space.membership import candidates, effective, equivalent_forms, product, unused_fields
from study.space.settings import StudySettings

LOSS, OPTIMIZER, STUDY = "loss", "optimizer", "study"
MOST_POINTS = 100_000  # of a grid: each is resolved before a study starts
Params = dict[str, Any]
Point = tuple[Params, dict[str, BaseDistribution]]


@dataclass(frozen=True)
class Resolved:
    """The part of a trial's config that a search space decides; the task decides the rest."""

    loss: LossConfig
    optimizer: TrialOptimizer

    @property
    def family(self) -> str:
        """The family of the loss."""
        return family(self.loss)

    @property
    def label(self) -> str:
        """The loss in a few words."""
        return describe(self.loss)

    def of_trial(self, task: Task, seed: int) -> dict[str, Any]:
        """The whole config of a trial of a task, as its ledger line holds it."""
        # pydantic takes instances as they are: each was checked when it was made
        whole = TrialConfig(task=task, loss=self.loss, optimizer=self.optimizer, seed=seed)
        return whole.model_dump()

    def model_dump(self) -> dict[str, Any]:
        """Both as one tree `{"loss": ..., "optimizer": ...}`."""
        return {LOSS: self.loss.model_dump(), OPTIMIZER: self.optimizer.model_dump()}


@dataclass(frozen=True)
class SearchSpace:
    """A compiled search space; `text` and `data` are what it was read from."""

    name: str
    text: str
    settings: StudySettings
    tree: Branch
    file: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    lines: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    _distributions: dict[tuple[str, ...], dict[str, BaseDistribution]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def sample(self, trial: BaseTrial) -> Params:
        """Ask an Optuna trial for every active leaf and choice."""
        params: Params = {}
        assemble(self.tree, lambda node: _suggest(trial, node), params, {})
        return params

    def resolve(self, params: Mapping[str, Any]) -> Resolved:
        """The typed configs that `params` stand for, checked once, with every default filled in.

        Args:
            params: one value for each active leaf and choice, by key path.

        Raises:
            ValueError: where `params` are not exactly the active leaves and choices.
            InputError: where a value is outside of what a loss or an optimizer allows.
        """
        lines: dict[str, int] = {}
        tree, _ = self._assembled(params, lines)
        return Resolved(
            validate(LossConfig, tree[LOSS], file=self.file, lines=lines, root=LOSS),
            validate(TrialOptimizer, tree[OPTIMIZER], file=self.file, lines=lines, root=OPTIMIZER),
        )

    def params_of(
        self, loss: LossConfig | FactoryLoss, optimizer: TrialOptimizer | None = None
    ) -> Params | None:
        """The params that resolve to this config, or None where the space does not contain it.
        Without `optimizer`, that of the task itself.

        Fields without effect do not count (see `membership`): without class weights and recall,
        `normalizer` does nothing; at `mix: 0` nothing else of the Jaccard term does.
        """
        if isinstance(loss, FactoryLoss):
            return None
        unused = unused_fields(loss)
        for form in equivalent_forms(loss):
            wanted = Resolved(form, optimizer or TrialOptimizer()).model_dump()
            flat = effective(wanted, unused)
            for params in candidates(self.tree, wanted, unused):
                if effective(self.resolve(params).model_dump(), unused) == flat:
                    return params
        return None

    def point(self, params: Mapping[str, Any]) -> Point | None:
        """The params as a sampler models them and the distributions of their leaves and choices.

        None if the space does not contain these params. Points of the same leaves and choices share
        their distributions.
        """
        try:
            active = self._active(params)
            converted = _for_sampler(active, params)
        except ValueError:
            return None
        paths = tuple(active)
        if paths not in self._distributions:
            self._distributions[paths] = {path: node.distribution for path, node in active.items()}
        return converted, self._distributions[paths]

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """Top-level choices, those that every trial makes: path -> options."""
        return {
            node.path: tuple(node.distribution.choices)
            for node in _unconditional(self.tree)
            if isinstance(node.distribution, CategoricalDistribution)
        }

    @property
    def reference(self) -> SearchSpace:
        """The same space at the neutral loss: only the optimiser's leaves are left."""
        children = {**self.tree.children, LOSS: Constant(LOSS, None, {})}
        return replace(self, tree=replace(self.tree, children=children))

    @property
    def num_reference_trials(self) -> int:
        """How many of the searched trials tune cross entropy.

        As many as the settings say. If they leave it open, at most as many as the optimiser's
        leaves have points, without the one that the baseline `ce` has tried.
        """
        asked = self.settings.num_reference_trials
        reference = self.reference
        points = reference.num_points
        if self.settings.reference_trials is not None or points is None:
            return asked
        known = CE in self.settings.baseline_names and reference.params_of(LossConfig()) is not None
        return min(asked, points - known)

    @property
    def num_points(self) -> int | None:
        """How many points there are, those at the neutral loss included, or None where a range has
        no steps. Does not list them."""
        return num_points(self.tree)

    @cached_property
    def grid(self) -> list[Params] | None:
        """All points, in the order of the file, or None where a range has no steps or there are
        more than `MOST_POINTS`.

        Points at the neutral loss are left out if there are others, because the reference trials
        tune cross entropy.
        """
        if self.num_points is None or self.num_points > MOST_POINTS:
            return None
        points = list(_points(self.tree))
        unused = unused_fields(LossConfig())
        neutral = effective(LossConfig().model_dump(), unused, LOSS)
        others = [
            params
            for params in points
            if effective(self.resolve(params).loss.model_dump(), unused, LOSS) != neutral
        ]
        return others or points

    def _active(self, params: Mapping[str, Any]) -> dict[str, Leaf | Choice]:
        return self._assembled(params, {})[1]

    def _assembled(
        self, params: Mapping[str, Any], lines: dict[str, int]
    ) -> tuple[Any, dict[str, Leaf | Choice]]:
        """The config tree of `params` and its active leaves and choices; fills in lines."""
        active: dict[str, Leaf | Choice] = {}

        def pick(node: Leaf | Choice) -> Any:
            if node.path not in params:
                raise ValueError(f"missing param {node.path!r} (found: {sorted(params)})")
            value = params[node.path]
            if isinstance(node, Choice) and value not in node.options:
                raise ValueError(
                    f"{node.path}: unknown option {value!r} (allowed: {sorted(node.options)})"
                )
            active[node.path] = node
            return value

        tree = assemble(self.tree, pick, {}, lines)
        if extra := params.keys() - active.keys():
            raise ValueError(f"params without a range or a choice: {sorted(extra)}")
        return tree, active

    def check(self, fits: Callable[[LossConfig | FactoryLoss], object] | None = None) -> None:
        """Resolve every option and both ends of every range, and build the user's own baselines; an
        InputError names what fails.

        fits: raises InputError for a loss that a trial could not train with.
        """
        for fixed in self._corners():
            self._resolve_corner(fixed, fits)
        for place, own in self.settings.own_baselines.items():
            try:
                if fits is not None:
                    fits(own)
            except InputError as error:
                below = "" if isinstance(own, FactoryLoss) else f"/{LOSS}"
                key = f"{STUDY}/baselines/{place}{below}{str(error.key).removeprefix(LOSS)}"
                line = line_of(key, self.lines)
                raise InputError(error.message, file=self.file, line=line, key=key) from error

    def check_objectives(self, measured: Sequence[str]) -> None:
        """Raise an InputError for an objective that is not among what is measured."""
        key = f"{STUDY}/objectives"
        for name in self.settings.objectives:
            if name not in measured:
                error = InputError.unknown("objective", name, measured, key=key)
                raise error.of_file(self.file, self.lines)

    @property
    def corners(self) -> list[Resolved]:
        """Every option and both ends of every range, the others at their first."""
        return [self._resolve_corner(fixed, None) for fixed in self._corners()]

    def _corners(self) -> Iterator[Params]:
        yield {}
        for node, conditions in conditional(self.tree, {}):
            for end in node.ends if isinstance(node, Leaf) else tuple(node.options):
                yield {**conditions, node.path: end}

    def _resolve_corner(
        self, fixed: Mapping[str, Any], fits: Callable[[LossConfig], object] | None
    ) -> Resolved:
        params: Params = {}
        lines: dict[str, int] = {}
        assemble(self.tree, lambda node: fixed.get(node.path, _first(node)), params, lines)
        corner = self.resolve(params)
        try:
            if fits is not None:
                fits(corner.loss)
        except InputError as error:
            raise error.of_file(self.file, lines) from error
        return corner


def _first(node: Leaf | Choice) -> Any:
    return node.ends[0] if isinstance(node, Leaf) else next(iter(node.options))


def _for_sampler(active: Mapping[str, Leaf | Choice], params: Mapping[str, Any]) -> Params:
    return {
        path: node.to_sampler(params[path]) if isinstance(node, Leaf) else params[path]
        for path, node in active.items()
    }


def _suggest(trial: BaseTrial, node: Leaf | Choice) -> Any:
    match node.distribution:
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(node.path, choices)
        case FloatDistribution(low=low, high=high, log=log, step=step):
            value = trial.suggest_float(node.path, low, high, log=log, step=step)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(node.path, low, high, log=log, step=step)
        case other:
            raise AssertionError(f"no such range: {other}")
    assert isinstance(node, Leaf)
    return node.from_sampler(value)


def _unconditional(node: Node) -> Iterator[Leaf | Choice]:
    match node:
        case Leaf() | Choice():
            yield node
        case Branch(children=children):
            for child in children.values():
                yield from _unconditional(child)


def conditional(
    node: Node, conditions: dict[str, str]
) -> Iterator[tuple[Leaf | Choice, dict[str, str]]]:
    """Every leaf and choice below a node, with the option of each choice that makes it active; more
    than once where several do."""
    match node:
        case Leaf():
            yield node, conditions
        case Choice(path=path, options=options):
            yield node, conditions
            for name, option in options.items():
                yield from conditional(option, {**conditions, path: name})
        case Branch(children=children):
            for child in children.values():
                yield from conditional(child, conditions)


def _points(node: Node) -> Iterator[Params]:
    match node:
        case Constant():
            yield {}
        case Leaf(path=path):
            for value in node.grid or ():
                yield {path: value}
        case Choice(path=path, options=options):
            for name, option in options.items():
                for params in _points(option):
                    yield {path: name, **params}
        case Branch(children=children):
            yield from product([list(_points(child)) for child in children.values()])


def load_space(ref: str | Path | Mapping[str, Any], *, name: str | None = None) -> SearchSpace:
    """The search space of a file that exists, of a shipped name, or of a mapping.

    `name` is the file's stem unless given.

    Everything in it is checked: the grammar, the study's settings, every option of every choice
    and both ends of every range against what a loss allows. InputError names file, line and key.
    """
    source, stem = open_shipped(SEARCH_SPACES, ref)
    file, lines = source.file, source.lines
    known = (LOSS, OPTIMIZER, STUDY)
    for key in source.data:
        if key not in known:
            line = lines.get(str(key))
            raise InputError.unknown("key", key, known, file=file, line=line, key=str(key))
    settings = validate(
        StudySettings, source.data.get(STUDY, {}), file=file, lines=lines, root=STUDY
    )
    children = {
        key: compile_tree(source.data.get(key, {}), key, file=file, lines=lines)
        for key in (LOSS, OPTIMIZER)
    }
    space = SearchSpace(
        name or stem,
        source.text,
        settings,
        Branch("", None, children),
        file=file,
        data=source.data,
        lines=lines,
    )
    space.check()
    check_settings(space)
    return space


def check_settings(space: SearchSpace) -> None:
    """Refuse settings that do not fit what is searched: an InputError with line and key."""
    settings, choices, lines = space.settings, space.choices, space.lines

    def error(key: str, offence: str, **more: Any) -> InputError:
        return InputError(offence, **more, file=space.file, line=lines.get(key), key=key)

    if settings.rungs is not None and settings.rungs.by is not None:
        by = settings.rungs.by
        known = [path for path, options in choices.items() if len(options) in (2, 3)]
        if by not in known:
            raise error(
                f"{STUDY}/rungs/by",
                f"by must name a choice of two or three options that every trial makes, got {by!r}",
                allowed=known,
                hint=did_you_mean(by, known),
            )
    if settings.sampler == "grid":
        for node in searched(space.tree):
            if node.prior is not None:
                raise error(
                    f"{STUDY}/sampler",
                    f"a grid tries every point, so the prior of {node.path} does nothing",
                    hint="leave it out",
                )
        count, grid = space.num_points, space.grid
        if count is not None and count > MOST_POINTS:
            leaves = [node for node in searched(space.tree) if isinstance(node, Leaf)]
            largest = max(leaves, key=lambda leaf: leaf.num_values or 0)
            raise error(
                f"{STUDY}/sampler",
                f"a grid must have at most {MOST_POINTS} points, got {count} "
                f"({largest.path} alone has {largest.num_values} values)",
            )
        if grid is None:
            open_leaf = next(
                node.path
                for node in searched(space.tree)
                if isinstance(node, Leaf) and node.grid is None
            )
            raise error(
                f"{STUDY}/sampler",
                f"a grid cannot list the values of {open_leaf}",
                hint="give its range a step",
            )
        proposed = settings.num_trials - space.num_reference_trials
        if proposed > len(grid):
            raise error(
                f"{STUDY}/num_trials",
                f"num_trials - reference_trials must be at most the {len(grid)} points of the "
                f"grid, got {proposed}",
            )
