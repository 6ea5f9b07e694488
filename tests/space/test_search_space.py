from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import optuna
import pytest
import yaml

from study.config.shipped import shipped
from study.config.task import TrialOptimizer, load_task
from study.core.errors import InputError
from study.losses import PRESETS
from study.losses.config import FactoryLoss, LossConfig
from study.scheduler.planning import make_plan
from study.search.sampler import stratified
from study.space.search_space import Resolved, load_space

SPACES = sorted(shipped("search_spaces"))
SMALL = {
    "loss": {
        "recall": {
            "choice": {
                "off": None,
                "ema": {"ema_momentum": {"float": {"low": 0.5, "high": 0.99, "log": "to_one"}}},
            }
        },
        "focal_gamma": {"choice": [0.0, 2.0]},
        "jaccard": {"mix": 0.25},
    },
    "optimizer": {"lr_scale": {"float": {"low": 0.25, "high": 4.0, "log": True}}},
}
EMA = {
    "loss/recall": "ema",
    "loss/recall/ema_momentum": 0.93,
    "loss/focal_gamma": 2.0,
    "optimizer/lr_scale": 1.5,
}


def refused(data) -> str:
    with pytest.raises(InputError) as caught:
        load_space(data)
    return str(caught.value)


def test_params_resolve_to_a_whole_config_with_defaults():
    config = load_space(SMALL).resolve(EMA)
    assert config.optimizer == TrialOptimizer(lr_scale=1.5)
    assert config.loss == LossConfig.model_validate(
        {"recall": {"ema_momentum": 0.93}, "focal_gamma": 2.0, "jaccard": {"mix": 0.25}}
    )


def test_the_space_of_the_results_page_confirms_every_preset():
    space = load_space(Path(__file__).parents[2] / "benchmarks" / "results_camvid.yaml")
    settings = space.settings
    taught = {"kd", "jml_kd"}  # they are in the study of distillation
    assert {*settings.baseline_names} == {*PRESETS, "joint_winner"} - taught
    assert space.grid is not None
    assert settings.confirm.top >= len(settings.baseline_names) - 1 + len(space.grid)


def test_the_leaves_of_an_option_exist_only_when_it_is_chosen():
    off = {"loss/recall": "off", "loss/focal_gamma": 0.0, "optimizer/lr_scale": 1.0}
    space = load_space(SMALL)
    assert space.resolve(off).loss.recall is None
    modelled, distributions = space.point(off)
    assert set(modelled) == set(distributions) == set(off)
    with pytest.raises(ValueError, match=r"without a range .* \['loss/recall/ema_momentum'\]"):
        space.resolve({**off, "loss/recall/ema_momentum": 0.9})
    with pytest.raises(ValueError, match="missing param 'loss/recall/ema_momentum'"):
        space.resolve({**off, "loss/recall": "ema"})
    with pytest.raises(ValueError, match="unknown option 'on'"):
        space.resolve({**off, "loss/recall": "on"})


@pytest.mark.parametrize("name", SPACES)
def test_samples_resolve_and_come_back_from_their_config(name):
    space = load_space(name)
    for number in range(30):
        params = stratified(space, seed=1, number=number)
        config = space.resolve(params)
        back = space.params_of(config.loss, config.optimizer)
        assert back is not None
        assert space.resolve(back) == config
        json.dumps(params)


@pytest.mark.parametrize("name", SPACES)
def test_samples_become_optuna_trials(name):
    space = load_space(name)
    for number in range(10):
        params = stratified(space, seed=2, number=number)
        modelled, distributions = space.point(params)
        trial = optuna.trial.create_trial(params=modelled, distributions=distributions, value=0.0)
        again = space.sample(optuna.trial.FixedTrial(trial.params))
        assert again == params


def test_what_optuna_models_is_the_transformed_value_and_params_the_natural_one():
    space = load_space(SMALL)
    modelled, _ = space.point(EMA)
    assert modelled["loss/recall/ema_momentum"] == pytest.approx(0.07)
    assert space.point({**EMA, "loss/recall/ema_momentum": 0.995}) is None


def test_momenta_are_drawn_log_uniformly_below_one():
    space = load_space(SMALL)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.sample(study.ask()) for _ in range(400)]
    values = [p["loss/recall/ema_momentum"] for p in drawn if "loss/recall/ema_momentum" in p]
    share = sum(value > 1 - 0.0707 for value in values) / len(values)
    assert 0.4 < share < 0.6  # 0.0707 is the geometric middle of 0.01 and 0.5


def test_choices_are_those_that_every_trial_makes():
    assert load_space(SMALL).choices == {
        "loss/recall": ("off", "ema"),
        "loss/focal_gamma": (0.0, 2.0),
    }
    nested = {"loss": {"choice": {"a": {"focal_gamma": {"choice": [0, 1]}}, "b": {}}}}
    assert load_space(nested).choices == {"loss": ("a", "b")}


def test_the_reference_is_cross_entropy_with_the_optimiser_open():
    space = load_space("joint")
    _, distributions = space.reference.point({"optimizer/lr_scale": 1.0})
    assert list(distributions) == ["optimizer/lr_scale"]
    config = space.reference.resolve({"optimizer/lr_scale": 2.0})
    assert config == Resolved(LossConfig(), TrialOptimizer(lr_scale=2.0))


def test_cross_entropy_is_a_point_of_the_joint_space_although_the_normalizer_differs():
    params = load_space("joint").params_of(LossConfig(), TrialOptimizer(lr_scale=0.5))
    assert params == {
        "loss/class_weights": "none",
        "loss/recall": "off",
        "loss/pooling": "mean",
        "loss/jaccard": "off",
        "optimizer/lr_scale": 0.5,
    }


def test_a_normalizer_that_matters_is_not_overlooked():
    joint = load_space("joint")
    recall = {"recall": {"ema_momentum": 0.0}}
    assert joint.params_of(LossConfig.model_validate(recall)) is None
    params = joint.params_of(LossConfig.model_validate({**recall, "normalizer": "weight"}))
    assert params is not None
    assert params["loss/recall"] == "instantaneous"


def test_where_labels_stay_sharp_it_does_not_matter_where_they_would_be_smoothed():
    space = load_space(
        {
            "loss": {
                "label_smoothing": {"choice": [0.0, 0.5]},
                "smoothing_region": {"kind": "boundary", "width": 3},
            }
        }
    )
    assert space.params_of(LossConfig()) == {"loss/label_smoothing": 0.0}
    assert space.params_of(LossConfig(label_smoothing=0.5)) is None


def test_no_class_weights_are_those_of_exponent_zero():
    params = load_space("recall").params_of(LossConfig.model_validate(PRESETS["recall"].config))
    assert params is not None
    assert params["loss/class_weights/exponent"] == 0.0


@pytest.mark.parametrize(
    ("name", "presets"),
    [
        ("joint", {"ce", "inverse_sqrt", "lmp", "jml", "recall_normalized"}),
        ("recall", {"ce", "inverse_sqrt", "recall", "recall_ema", "recall_normalized"}),
        ("class_weights", {"median_frequency"}),
        ("max_pooling", {"lmp", "ohem"}),
        ("jaccard", {"jml", "jml_soft", "dice_ce"}),
        ("logit_adjustment", {"logit_adjusted"}),
        ("baselines", {*PRESETS} - {"kd", "jml_kd"}),  # which need a teacher
    ],
)
def test_the_presets_that_a_space_contains(name, presets):
    space = load_space(name)
    losses = {key: LossConfig.model_validate(one.config) for key, one in PRESETS.items()}
    found = {key for key, loss in losses.items() if space.params_of(loss)}
    assert found == presets


def test_the_baselines_space_is_the_table_of_presets():
    space = load_space("baselines")
    alone = {name: one.config for name, one in PRESETS.items() if "distillation" not in one.config}
    assert space.data["loss"]["choice"] == alone
    assert space.settings.num_trials == 3 * len(alone) - 1
    grid = space.grid
    assert grid is not None
    assert len(grid) == 3 * (len(alone) - 1)
    assert "ce" not in {point["loss"] for point in grid}


@pytest.mark.parametrize("name", SPACES)
def test_every_shipped_space_opens_the_learning_rate_and_starts_from_cross_entropy(name):
    space = load_space(name)
    assert space.reference.point({"optimizer/lr_scale": 1.0}) is not None
    assert "ce" in space.settings.baselines


@pytest.mark.parametrize("name", SPACES)
def test_a_space_survives_json_and_its_own_text(name):
    space = load_space(name)
    for data in (json.loads(json.dumps(space.data)), dict(space.data)):
        again = load_space(data, name=name)
        assert (again.name, again.settings) == (name, space.settings)
        for number in range(3):
            params = stratified(space, seed=0, number=number)
            assert stratified(again, seed=0, number=number) == params
    assert load_space(yaml.safe_load(load_space(dict(space.data)).text)).choices == space.choices


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"losses": {}}, "losses: unknown key 'losses'; did you mean 'loss'? (allowed: loss, "),
        ({"loss": 3}, "loss: loss must be a mapping, got 3"),
        (
            {"loss": {"recall": {"ema_momentum": {"float": {"low": 0.5, "high": 1.0}}}}},
            "loss/recall/ema_momentum: ema_momentum must be in [0, 1), got 1.0",
        ),
        (
            {"loss": {"pooling": {"kind": "max", "p": {"float": {"low": 0.9, "high": 2.0}}}}},
            "loss/pooling/p: p must be >= 1, got 0.9",
        ),
        (
            {"loss": {"normalizer": {"choice": ["valid", "pixels"]}}},
            "loss/normalizer: invalid normalizer 'pixels' (allowed: valid, weight)",
        ),
        (
            {"loss": {"choice": {"a": {}, "b": {"focal": 1}}}},
            "loss/focal: unknown key 'focal'; did you mean 'focal_gamma'? (allowed: label_smoo",
        ),
        ({"optimizer": {"lr_scale": {"choice": [0.0, 1.0]}}}, "optimizer/lr_scale: lr_scale must "
         "be > 0, got 0.0"),
        ({"optimizer": {"lr": 0.1}}, "optimizer/lr: unknown key 'lr'; did you mean 'lr_s"),
        ({"study": {"objectives": ["miou"]}}, "study/objectives: unknown objective 'miou'; did "),
        ({"study": {"objectives": []}}, "study/objectives: objectives must not be empty"),
        ({"study": {"objectives": ["val/miou"] * 2}}, "study/objectives: duplicate objective"),
        ({"study": {"baselines": ["lmpp"]}}, "study/baselines: unknown baseline 'lmpp'; did "),
        ({"study": {"num_trials": 2, "reference_trials": 3}}, "study: reference_trials must be at "
         "most num_trials (2), got 3"),
        ({"study": {"rungs": {"first": 0}}}, "study/rungs/first: first must be in (0, 1]"),
        ({"study": {"rungs": {"by": "loss/recall"}}}, "study/rungs/by: by must name a choice "
         "of two or three options that every trial makes, got 'loss/recall' (allowed: none)"),
        (
            {**SMALL, "study": {"sampler": "grid"}},
            "study/sampler: a grid cannot list the values of loss/recall/ema_momentum",
        ),
        (
            {"loss": {"focal_gamma": {"choice": [1, 2]}}, "study": {"sampler": "grid"}},
            "study/num_trials: num_trials - reference_trials must be at most the 2 points",
        ),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_searched_is_refused(data, message):
    assert refused(data).startswith(message)


def test_a_ladder_may_be_split_by_a_choice_of_three():
    space = load_space({**load_space("joint").data, "study": {"rungs": {"by": "loss/recall"}}})
    assert space.settings.rungs is not None
    assert space.settings.rungs.by == "loss/recall"


@pytest.mark.parametrize(
    ("num_trials", "given", "expected"),
    [(16, None, 4), (81, None, 21), (2, None, 2), (16, 5, 5), (16, 1, 1)],
)
def test_a_quarter_of_the_trials_tunes_cross_entropy_but_at_least_four(num_trials, given, expected):
    study = {"num_trials": num_trials} | ({"reference_trials": given} if given else {})
    assert load_space({"study": study}).settings.num_reference_trials == expected


RATES = {"optimizer": {"lr_scale": {"choice": [0.5, 2.0]}}}
RANGE = {"optimizer": {"lr_scale": {"float": {"low": 0.5, "high": 2.0}}}}


@pytest.mark.parametrize(
    ("tree", "study", "expected"),
    [
        (RANGE, {}, 4),
        (RATES, {}, 2),
        (RATES, {"baselines": ["ce"]}, 2),
        ({"optimizer": {"lr_scale": {"choice": [0.5, 1.0, 2.0]}}}, {"baselines": ["ce"]}, 2),
        ({}, {}, 1),
        ({}, {"baselines": ["ce"]}, 0),
        ({}, {"baselines": ["ce"], "reference_trials": 2}, 2),
    ],
)
def test_no_more_trials_tune_cross_entropy_than_there_are_settings(tree, study, expected):
    loss = {"loss": {"jaccard": {"mix": {"float": {"low": 0.1, "high": 0.9}}}}}
    space = load_space({**loss, **tree, "study": study})
    assert space.num_reference_trials == expected
    plan = make_plan(space, load_task("tiny").config, num_trials=None, seed=0)
    assert plan.reference_trials == expected


def test_a_grid_too_large_to_list_is_counted_and_not_listed():
    fine = {"float": {"low": 0.5, "high": 1.5, "step": 1.0e-7}}
    tracemalloc.start()
    space = load_space({"optimizer": {"lr_scale": fine}, "study": {"num_trials": 8}})
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * space.num_points / 10
    assert space.num_points == 10_000_001
    assert space.grid is None
    assert space.num_reference_trials == 4


def test_the_points_of_a_grid_are_counted_with_those_at_cross_entropy():
    tree = {
        "loss": {"jaccard": {"mix": {"float": {"low": 0.0, "high": 0.3, "step": 0.1}}}},
        "optimizer": {"lr_scale": {"choice": [0.5, 1.0, 2.0]}},
    }
    space = load_space(tree)
    assert space.num_points == 12
    assert len(space.grid) == 9
    assert load_space(SMALL).num_points is None


def test_a_space_is_a_file_that_exists_or_a_shipped_name(tmp_path, monkeypatch):
    by_name = load_space("joint")
    assert by_name.name == "joint"
    monkeypatch.chdir(tmp_path)
    assert load_space("search_spaces/joint.yaml") == by_name
    assert load_space("joint.yaml") == by_name
    (tmp_path / "mine.yaml").write_text("optimizer: {lr_scale: {choice: [1, 2]}}")
    assert load_space("mine.yaml").name == "mine"
    assert load_space(tmp_path / "mine.yaml").choices == {"optimizer/lr_scale": (1, 2)}


def test_an_unknown_name_lists_the_known_ones():
    assert refused("jiont") == (
        "search space: 'jiont' not found; did you mean 'joint'? (found: baselines, class_weights, "
        "jaccard, joint, joint_ablated, logit_adjustment, max_pooling, recall)"
    )
    with pytest.raises(InputError, match=r"^task: 'my/tiny.yaml' not found.*synthetic"):
        load_task("my/tiny.yaml")


def test_a_task_is_loaded_by_name_and_from_a_mapping():
    task = load_task("synthetic")
    assert (task.name, task.config.num_epochs) == ("synthetic", 8)
    again = load_task(task.config.model_dump())
    assert (again.name, again.config) == ("custom", task.config)


OWN = {
    "study": {
        "baselines": [
            "ce",
            {"mine": {"loss": {"focal_gamma": 2.0}}},
            {"ours": {"factory": "torch.nn:CrossEntropyLoss", "kwargs": {"label_smoothing": 0.1}}},
        ]
    }
}


def test_a_baseline_may_be_a_loss_of_the_users_own():
    space = load_space(OWN)
    assert space.settings.baseline_names == ("ce", "mine", "ours")
    assert space.settings.baseline_loss("ce") == LossConfig()
    assert space.settings.baseline_loss("mine") == LossConfig(focal_gamma=2.0)
    ours = space.settings.baseline_loss("ours")
    assert isinstance(ours, FactoryLoss) and space.params_of(ours) is None


def test_own_baselines_are_built_before_a_study_and_named_where_they_fail():
    tried = []
    load_space(OWN).check(tried.append)
    assert [type(loss) for loss in tried[-2:]] == [LossConfig, FactoryLoss]

    def fits(loss):
        if isinstance(loss, FactoryLoss):
            raise InputError("it does not fit", key="loss/factory")

    with pytest.raises(InputError, match=r"^study/baselines/2/ours/factory: it does not fit"):
        load_space(OWN).check(fits)


@pytest.mark.parametrize(
    ("baselines", "said"),
    [
        ([{"lmp": {"loss": {}}}], "study/baselines: baseline 'lmp' is a preset; give it another"),
        (["mine", {"my": {"loss": {}}}], "unknown baseline 'mine'"),
        ([{"a": {"loss": {}}}, {"a": {"loss": {}}}], "duplicate baseline 'a'"),
        ([{"a": {"loss": {"focal": 2.0}}}], "study/baselines/0/a/loss/focal: unknown key 'focal'"),
        ([{"a": {"loss": {"focal_gama": 2.0}}}], "did you mean 'focal_gamma'"),
        ([{"a": {"factory": "x:y", "args": {}}}], "unknown key 'args'.*allowed: factory, kwargs"),
        ([{"a": {"loss": {}}, "b": {"loss": {}}}], "must have at most 1 entries, got 2"),
    ],
)
def test_a_baseline_that_is_none_is_named(baselines, said):
    assert re.search(said, refused({"study": {"baselines": baselines}}))
