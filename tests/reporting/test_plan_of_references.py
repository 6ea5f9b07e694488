"""The plan of a study whose every searched trial tunes cross entropy."""

from __future__ import annotations

from study.preparation import make_plan
from study.reporting.plan import plan_text
from study.space import load_space, load_task


def test_options_are_promised_no_share_where_the_sampler_has_no_trial() -> None:
    settings = {"num_trials": 3, "reference_trials": 3}
    space = load_space({"loss": {"focal_gamma": {"choice": [0.0, 2.0]}}, "study": settings})
    task = load_task("tiny")
    plan = make_plan(space, task.config, num_trials=None, seed=0)
    text = plan_text(plan, space, task, name="s", takes_over=None)
    assert "0 by the sampler" in text
    assert "equal share" not in text
