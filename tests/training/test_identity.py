"""The digests of commit de798f6 stay what they were, whatever keys a config gains or loses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from pydantic import BaseModel, Field
from tiny_task import STATEFUL_LOSS, TINY, tiny

from study.config.own_training import OwnTrainingTask
from study.config.task import CheckpointPlan, TaskConfig, TrialConfig
from study.losses.config import Config, LogitAdjustment, LossConfig, MeanPooling
from study.training import identity
from study.training.identity import FIRST_KEYS, digest, first_keys

DIGESTS = Path(__file__).parents[1] / "fixtures" / "de798f6" / "digests.json"
EARLIER = json.loads(DIGESTS.read_text(encoding="utf-8"))
# What a key that is later than de798f6 has to be for the digest to leave it out, by class and key.
# Add the default of a new key here, and never change one: checkpoints without the key would be
# taken for trainings with the new default.
NEUTRAL: dict[str, Any] = {
    "CheckpointPlan/every": "epoch",
    "Evaluation/groups": {},
    "FactoryLoss/kwargs": {},
    "Jaccard/power": 1.0,
    "LossConfig/logit_adjustment": LogitAdjustment(tau=0.0),
    "LogitAdjustment/tau": 0.0,
    "LossConfig/distillation": None,
    "Distillation/teacher": None,
    "Distillation/temperature": 1.0,
    "Distillation/mix": 0.5,
    "Distillation/labels": "auto",
    "FactoryTeacher/kwargs": {},
    "SmpModel/aux": None,
    "SmpModel/aux_weight": 0.5,
    "FactoryModel/aux": 0,
    "FactoryModel/aux_weight": 0.5,
    "AuxHead/stage": 1,
    "AuxHead/channels": 64,
    "AuxHead/dropout": 0.1,
    "TaskConfig/checkpoint": CheckpointPlan(),
}


@pytest.mark.parametrize("item", EARLIER, ids=range(len(EARLIER)))
def test_digests_are_those_of_the_earlier_commit(item: dict[str, Any]) -> None:
    config = TrialConfig.model_validate(item["config"])
    assert digest(config, item["fingerprint"]) == item["digest"]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _all_models(model: type[BaseModel] = TrialConfig) -> dict[str, type[BaseModel]]:
    """The classes that a digest is made of, by name: not those of the data, which a fingerprint
    stands for, nor of trainings of a user's own, whose checkpoints have none."""
    found = {model.__name__: model}
    for key, field in model.model_fields.items():
        if (model, key) != (TaskConfig, "data"):
            for part in {*_models(field.annotation)} - {OwnTrainingTask}:
                found |= _all_models(part)
    return found


def test_every_first_key_is_still_a_key_of_its_config() -> None:
    models = _all_models()
    for name, keys in FIRST_KEYS.items():
        assert name in models, f"{name} is renamed or gone: see FIRST_KEYS"
        present, first = first_keys(models[name]), set(first_keys(models[name]).values())
        assert len(first) == len(keys.split())
        assert present.keys() <= models[name].model_fields.keys(), f"{name}: see FIRST_KEYS"
        later = models[name].model_fields.keys() - present.keys()
        assert not later & first, f"{name}: a later key must not have the name of a first one"


def test_the_neutral_value_of_a_later_key_is_for_good() -> None:
    found = {
        f"{name}/{key}": field.get_default(call_default_factory=True)
        for name, model in _all_models().items()
        for key, field in model.model_fields.items()
        if key not in first_keys(model) and not field.is_required()
    }
    assert found == NEUTRAL


class _Term(Config):
    weight: float = 1.0


class _LaterTerm(_Term):
    power: float = 1.0


class _Sum(Config):
    kind: Literal["sum"] = "sum"


class _Product(Config):
    kind: Literal["product"] = "product"


class _LaterLoss(LossConfig):
    temperature: float = 1.0
    combine: MeanPooling | _Sum | _Product = Field(MeanPooling(), discriminator="kind")
    terms: tuple[_Term, ...] = Field(default_factory=tuple)
    names: dict[str, _Term] = Field(default_factory=dict)


class _LaterTrial(TrialConfig):
    loss: _LaterLoss = _LaterLoss()


def _later(**loss: Any) -> str:
    config = tiny(STATEFUL_LOSS)
    values = {key: getattr(config.loss, key) for key in LossConfig.model_fields}
    later = _LaterLoss(**(values | loss))
    return digest(_LaterTrial(task=config.task, loss=later, seed=config.seed), "data")


def test_a_later_key_enters_where_its_value_is_not_the_default() -> None:
    earlier = digest(tiny(STATEFUL_LOSS), "data")
    assert _later() == earlier
    assert _later(temperature=1.0, combine=MeanPooling(), terms=(), names={}) == earlier
    others = [
        _later(temperature=2.0),
        _later(combine=_Sum()),
        _later(combine=_Product()),
        _later(terms=(_Term(),)),
        _later(terms=(_Term(), _Term())),
        _later(terms=(_Term(weight=2.0),)),
        _later(names={"a": _Term()}),
        _later(names={"b": _Term()}),
        _later(names={"a": _Term(weight=2.0)}),
    ]
    assert len({earlier, *others}) == len(others) + 1


def test_a_later_config_may_have_still_later_keys() -> None:
    assert _later(terms=(_LaterTerm(weight=2.0),)) == _later(terms=(_Term(weight=2.0),))
    assert _later(names={"a": _LaterTerm()}) == _later(names={"a": _Term()})
    assert _later(names={"a": _LaterTerm(power=2.0)}) != _later(names={"a": _Term()})


def test_a_renamed_key_has_its_first_name_in_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    class Evaluation(Config):
        interval: int = 1

    class Task(TaskConfig):
        evaluation: Evaluation = Evaluation()  # type: ignore[assignment]

    class Trial(TrialConfig):
        task: Task

    trees = {every: {"task": {**TINY, "evaluation": {"every": every}}} for every in (1, 5)}
    expected = [digest(TrialConfig.model_validate(tree), "data") for tree in trees.values()]
    monkeypatch.setitem(identity.FIRST_KEYS, "Evaluation", "interval=every")
    renamed = [{"task": {**TINY, "evaluation": {"interval": every}}} for every in trees]
    assert [digest(Trial.model_validate(tree), "data") for tree in renamed] == expected


def test_the_place_of_the_data_does_not_enter_and_their_content_does() -> None:
    here, there = (
        tiny(data={"format": "folder", "root": root, "size": [32, 48]}) for root in ("a", "b")
    )
    assert digest(here, "data") == digest(there, "data") != digest(here, "other data")
