"""The plan of a study promises nothing that cannot happen."""

from __future__ import annotations

from typing import Any

from study.config.task import load_task
from study.reporting.plan_text import plan_text
from study.scheduler.planning import make_plan
from study.space.search_space import load_space


def text_of(tree: dict[str, Any], **settings: Any) -> str:
    space, task = load_space({**tree, "study": settings}), load_task("tiny")
    plan = make_plan(space, task.config, num_trials=None, seed=0)
    return plan_text(plan, space, task, name="s", takes_over=None)


CHOICE = {"loss": {"focal_gamma": {"choice": [0.0, 2.0]}}}


def test_options_are_promised_no_share_where_the_sampler_has_no_trial() -> None:
    text = text_of(CHOICE, num_trials=3, reference_trials=3)
    assert "search (3): 3 tune cross entropy, 0 by the sampler\n" in text
    assert "fewest trials" not in text
    text = text_of(CHOICE, num_trials=4, reference_trials=3)
    assert "1 by the sampler; stratified random" in text
    assert "fewest trials" in text


def test_a_space_that_leaves_nothing_open_is_warned_of() -> None:
    fixed = {"loss": {"focal_gamma": 2.0}}
    said = "warning: the space leaves nothing open, so these 3 trials are equal"
    assert said in text_of(fixed, num_trials=4).splitlines()
    assert "warning" not in text_of(fixed, num_trials=2)
    assert "warning" not in text_of(CHOICE, num_trials=4)


def test_only_what_there_is_is_confirmed() -> None:
    rates = {**CHOICE, "optimizer": {"lr_scale": {"float": {"low": 0.5, "high": 2.0}}}}
    one = {"top": 1, "num_seeds": 1}
    two = "the two best of tuned cross entropy"
    assert f"confirm: the top 2, {two} and default cross entropy, 3 " in (
        text_of(rates, baselines=["ce"])
    )
    assert "confirm: the top 1 and tuned cross entropy, 1 fresh seed each, judged on test" in (
        text_of(rates, confirm=one, reference_trials=1)
    )
    assert "confirm: the top 1 and default cross entropy, 1 fresh seed each" in (
        text_of(CHOICE, baselines=["ce"], confirm=one)
    )


def test_longer_trainings_are_announced_with_their_epochs() -> None:
    assert "times the epochs" not in text_of(CHOICE)
    text = text_of(CHOICE, num_trials=4, confirm={"top": 1, "num_seeds": 3, "budgets": [1, 2, 4]})
    epochs = 2 * 3 * (2 + 4) * load_task("tiny").config.num_epochs
    assert "for 2 and 4 times the epochs, on the same seeds" in text
    assert f"({epochs} epochs at most)" in text


def test_seeds_that_may_be_added_are_announced_and_in_the_worst_case() -> None:
    assert "needed for" not in text_of(CHOICE)
    confirm = {"top": 1, "num_seeds": 3, "half_width": 1.5, "max_seeds": 7}
    text = text_of(CHOICE, num_trials=4, reference_trials=1, confirm=confirm)
    assert "then up to 7 seeds each" in text and "1.5 points of mIoU" in text
    assert f"worst case: {4 + 2 * 7} trials" in text


def test_an_ablation_is_announced_with_its_most_epochs() -> None:
    tree = {
        "loss": {"focal_gamma": {"choice": [0.0, 2.0]}, "recall": {"choice": {"off": None}}},
        "optimizer": {"lr_scale": {"float": {"low": 0.5, "high": 2.0}}},
    }
    assert "switched off" not in text_of(tree)
    confirm = {"top": 1, "num_seeds": 3, "ablate": True}
    text = text_of(tree, num_trials=4, reference_trials=1, confirm=confirm)
    one = load_task("tiny").config.num_epochs
    assert f"switched off, one at a time, on the same seeds ({2 * 3 * one} epochs at most)" in text
    trials = 4 + (1 + 1) * 3 + 2 * 3
    assert f"worst case: {trials} trials, {trials * one} epochs" in text
