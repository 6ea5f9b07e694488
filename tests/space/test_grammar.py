from __future__ import annotations

import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from study.core.errors import InputError
from study.core.yaml_file import parse_yaml
from study.space.grammar import Branch, Choice, Constant, Leaf, compile_tree, searched


def compiled(text: str):
    file = parse_yaml(text, "f.yaml")
    return compile_tree(file.data["x"], "x", file="f.yaml", lines=file.lines)


def refused(text: str) -> str:
    with pytest.raises(InputError) as caught:
        compiled(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("leaf", "distribution"),
    [
        ("{float: {low: 1, high: 2.0}}", FloatDistribution(1.0, 2.0)),
        ("{float: {low: 0.1, high: 2.0, log: true}}", FloatDistribution(0.1, 2.0, log=True)),
        ("{float: {low: 0, high: 1, step: 0.25}}", FloatDistribution(0.0, 1.0, step=0.25)),
        ("{float: {low: 0.5, high: 0.75, log: to_one}}", FloatDistribution(0.25, 0.5, log=True)),
        ("{int: {low: 1, high: 9, step: 2}}", IntDistribution(1, 9, step=2)),
        ("{int: {low: 1, high: 9, log: true}}", IntDistribution(1, 9, log=True)),
        ("{choice: [1, text, null]}", CategoricalDistribution((1, "text", None))),
    ],
)
def test_a_range_is_an_optuna_distribution(leaf, distribution):
    node = compiled(f"x: {leaf}")
    assert isinstance(node, Leaf)
    assert node.distribution == distribution


@pytest.mark.parametrize("text", ["0.5", "[1, 2]", "null", "text", ".inf", "[]"])
def test_anything_else_is_a_constant(text):
    node = compiled(f"x: {text}")
    assert isinstance(node, Constant)
    assert node.value == parse_yaml(f"x: {text}").data["x"]


def test_a_named_choice_keeps_its_path_below_its_options():
    node = compiled("x: {a: {choice: {off: null, on: {m: {float: {low: 0, high: 1}}, n: 3}}}}")
    assert isinstance(node, Branch)
    choice = node.children["a"]
    assert isinstance(choice, Choice)
    assert list(choice.options) == ["off", "on"]
    assert [leaf.path for leaf in searched(node)] == ["x/a", "x/a/m"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x:\n  a: {float: {low: 2, high: 1}}", "f.yaml:2: x/a: low must be <= high, got low 2.0"),
        ("x: {int: {low: 2, high: 1}}", "f.yaml:1: x: low must be <= high"),
        ("x: {float: {low: 0, high: 1, log: true}}", "f.yaml:1: x: low must be > 0 where log"),
        ("x: {int: {low: 0, high: 1, log: true}}", "f.yaml:1: x: low must be >= 1 where log"),
        ("x: {float: {low: 0, high: 1, log: to_one}}", "f.yaml:1: x: high must be < 1 where log"),
        ("x: {float: {low: 1.0e-300, high: 1.0e+300, log: true}}", "f.yaml:1: x: high / low"),
        ("x: {float: {low: -1.0e+308, high: 1.0e+308}}", "f.yaml:1: x: high - low"),
        ("x: {int: {low: 0, high: 9007199254740993}}", "f.yaml:1: x: low and high must be within"),
        ("x: {float: {low: 0, high: 1, step: 0.3}}", "f.yaml:1: x: high - low must be a multip"),
        ("x: {int: {low: 0, high: 3, step: 2}}", "f.yaml:1: x: high - low must be a multip"),
        ("x: {float: {low: 1, high: 2, log: true, step: 1}}", "f.yaml:1: x: log and step cannot"),
        ("x: {float: {low: 0,\n high: 1e-3}}", "f.yaml:2: x/high: high must be a number, got "
         "'1e-3'; write 1.0e-3"),
        ("x: {float: {low: 0, high: .inf}}", "f.yaml:1: x/high: high must be a finite number"),
        ("x: {int: {low: 0.5, high: 3}}", "f.yaml:1: x/low: low must be a whole number"),
        ("x: {float: {low: 0}}", "f.yaml:1: x/high: missing required key 'high'"),
        ("x: {float: {low: 0, high: 1, logg: true}}", "f.yaml:1: x/logg: unknown key 'logg'; "
         "did you mean 'log'? (allowed: low, high, log, step, prior)"),
        ("x: {float: {low: 0, high: 1, log: to_zero}}", "f.yaml:1: x/log: invalid log 'to_zero' "
         "(allowed: false, true, to_one)"),
        ("x: {float: 3}", "f.yaml:1: x: x must be a mapping, got 3"),
        ("x:\n  float: {low: 0, high: 1}\n  log: true", "f.yaml:1: x: key 'log' is not allowed "
         "beside 'float'"),
        ("x: {choice: []}", "f.yaml:1: x: choice must be a list of values or a mapping of "
         "named options, got an empty list"),
        ("x: {choice: 3}", "f.yaml:1: x: choice must be a list of values or a mapping of "),
        ("x: {choice: [1,\n [2]]}", "f.yaml:2: x: the items of a list of choices must be scalars"),
        ("x: {choice: [1, .nan]}", "f.yaml:1: x: the items of a list of choices must be scalars"),
        ("x: {choice: [1, 2,\n 1.0]}", "f.yaml:2: x: duplicate choice 1.0"),
        (
            "x:\n  choice:\n    a: {m: {float: {low: 0, high: 1}}}\n"
            "    b: {m: {float: {low: 0, high: 2}}}",
            "f.yaml:4: x/m: the distribution differs from that on line 3; a path has",
        ),
        (
            "x:\n  choice:\n    a: {m: {float: {low: 0.5, high: 0.75}}}\n"
            "    b: {m: {choice: {u: 1, v: 2}}}",
            "f.yaml:4: x/m: the distribution differs from that on line 3",
        ),
    ],
)  # fmt: skip
def test_bad_grammar_is_one_line_with_file_and_key(text, message):
    assert refused(text).startswith(message)


def test_equal_distributions_may_share_a_path():
    node = compiled(
        "x: {choice: {a: {m: {float: {low: 0, high: 1}}}, b: {m: {float: {low: 0, high: 1}}}}}"
    )
    assert [item.path for item in searched(node)] == ["x", "x/m", "x/m"]


@given(st.data())
def test_natural_and_modelled_values_are_inverse(data):
    low = data.draw(st.floats(0.0, 0.9))
    high = data.draw(st.floats(low + 1e-3, 0.99))
    log = data.draw(st.sampled_from([False, True, "to_one"]))
    if log is True:
        low = max(low, 1e-3)
    leaf = compile_tree({"float": {"low": low, "high": high, "log": log}}, "x")
    assert isinstance(leaf, Leaf)
    distribution = leaf.distribution
    assert isinstance(distribution, FloatDistribution)
    modelled = data.draw(st.floats(distribution.low, distribution.high))
    natural = leaf.from_sampler(modelled)
    assert low <= natural <= high
    assert math.isclose(leaf.to_sampler(natural), modelled, rel_tol=1e-5, abs_tol=1e-9)
    assert leaf.from_sampler(leaf.to_sampler(natural)) == natural


def test_both_ends_of_a_momentum_range_are_reached_and_it_is_dense_near_one():
    leaf = compiled("x: {float: {low: 0.5, high: 0.99, log: to_one}}")
    low, high = leaf.distribution.low, leaf.distribution.high
    assert (leaf.from_sampler(low), leaf.from_sampler(high)) == (0.99, 0.5)
    assert leaf.from_sampler(math.sqrt(low * high)) == pytest.approx(1 - math.sqrt(0.005), abs=1e-6)


def test_sampled_numbers_are_short():
    leaf = compiled("x: {float: {low: 0.5, high: 0.99, log: to_one}}")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        value = leaf.from_sampler(trial.suggest_float("x", 0.01, 0.5, log=True))
        assert len(str(value)) <= 9


@pytest.mark.parametrize("value", [1.01, -0.1, math.nan, "0.5", None, True, 0.3])
def test_a_value_outside_of_a_range_is_refused(value):
    leaf = compiled("x: {float: {low: 0, high: 1, step: 0.25}}")
    with pytest.raises(ValueError, match=r"^x: "):
        leaf.to_sampler(value)


def test_grids_list_every_value():
    assert compiled("x: {float: {low: 0, high: 0.3, step: 0.1}}").grid == (0.0, 0.1, 0.2, 0.3)
    assert compiled("x: {int: {low: 1, high: 7, step: 3}}").grid == (1, 4, 7)
    assert compiled("x: {choice: [b, a]}").grid == ("b", "a")
    assert compiled("x: {float: {low: 0, high: 1}}").grid is None


def test_a_prior_is_a_value_of_its_leaf() -> None:
    for text, prior in (
        ("{float: {low: 0, high: 1, prior: 0.5}}", 0.5),
        ("{float: {low: 0, high: 1, step: 0.25, prior: 0.75}}", 0.75),
        ("{float: {low: 0.9, high: 0.99, log: to_one, prior: 0.95}}", 0.95),
        ("{int: {low: 1, high: 9, log: true, prior: 9}}", 9),
        ("{choice: [a, b], prior: b}", "b"),
        ("{choice: [0, true], prior: true}", True),
        ("{choice: {a: {}, b: 1}, prior: b}", "b"),
        ("{choice: [a, b]}", None),
    ):
        found = compiled(f"x: {text}").prior
        assert found == prior and type(found) is type(prior), text


@pytest.mark.parametrize(
    ("text", "offence"),
    [
        ("{float: {low: 0, high: 1, prior: 2}}", "1: x: prior must be in [0.0, 1.0], got 2.0"),
        ("{int: {low: 1, high: 9, prior: 0}}", "1: x: prior must be in [1, 9], got 0"),
        ("{int: {low: 1, high: 9, step: 2, prior: 4}}", "1: x: prior must be low plus a multiple "
         "of step, got low 1, step 2 and prior 4"),
        ("{choice: {mean: 1, max: 2}, prior: men}", "1: x/prior: prior must be an option of the "
         "choice, got 'men'; did you mean 'mean'? (allowed: mean, max)"),
        ("{choice: [1, 2], prior: true}", "1: x/prior: prior must be an option of the choice, got "
         "true (allowed: 1, 2)"),
        ("{float: {low: 0, high: 1}, prior: 0.5}", "1: x: key 'prior' is not allowed beside "
         "'float'; put it into the float"),
        ("{choice: {a: {y: {float: {low: 0, high: 1}}}, "
         "b: {y: {float: {low: 0, high: 1, prior: 0.5}}}}}",
         "1: x/y: the distribution differs from that on line 1; a path has one distribution"),
    ],
)  # fmt: skip
def test_a_prior_that_its_leaf_does_not_hold_is_refused(text: str, offence: str) -> None:
    assert f"f.yaml:{offence}" in refused(f"x: {text}")
