"""The contract with a training of the user's own, in this process: no Ray."""

from __future__ import annotations

import argparse
import copy
import io
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import own_trainings
import pytest
import torch
from own_trainings import CLASSES, Heard, context, task

from study.core.errors import InputError
from study.core.names import CONFIRM, IN_EPOCH
from study.losses import LossConfig, build_loss
from study.losses.digest import loss_digest
from study.metrics import SegmentationMetrics
from study.trials.context import Stopped, TrialContext
from study.trials.function import train_function
from study.trials.run import run_trial

LABELS = torch.tensor([[[0, 1], [2, 1]]])


def call(loss: torch.nn.Module) -> torch.Tensor:
    return loss(torch.zeros(1, 3, 2, 2, requires_grad=True), LABELS)


def test_a_function_trains_its_trial_and_every_report_arrives(tmp_path: Path) -> None:
    heard = Heard(stop_after=3)
    made = context(tmp_path, heard=heard, loss={"focal_gamma": 2.0}, optimizer={"lr_scale": 3.0})
    run_trial(made)
    assert heard.epochs == [1, 2, 3]
    assert made.has_stopped
    assert (made.lr_scale, made.seed, made.num_epochs) == (3.0, 0, 3)
    values = heard.reports[-1][1]
    assert values.keys() == {"val/miou", "val/iou/pole", "time/epoch_s"}
    assert IN_EPOCH in heard.beats


def test_the_loss_the_seed_and_the_learning_rate_reach_the_function(tmp_path: Path) -> None:
    def last(name: str, **config: Any) -> float:
        heard = Heard(stop_after=3)
        run_trial(context(tmp_path / name, heard=heard, **config))
        return heard.reports[-1][1]["val/miou"]

    plain = last("plain")
    assert last("again") == plain
    assert last("loss", loss={"recall": {"ema_momentum": 0.5}}) != plain
    assert last("seed", seed=3) != plain
    assert last("lr", optimizer={"lr_scale": 2.0}) != plain


def test_the_loss_is_that_of_the_config_with_the_classes_of_the_task(tmp_path: Path) -> None:
    config = {"class_weights": {"scheme": "inverse_frequency", "exponent": 0.5}}
    made = context(tmp_path, task(classes=CLASSES), loss=config)
    expected = build_loss(config, num_classes=3, class_counts=CLASSES["pixels"])
    assert call(made.build_loss()) == call(expected)
    others = build_loss(config, num_classes=3, class_counts=[1, 2, 3])
    assert call(made.build_loss(class_counts=[1, 2, 3])) == call(others) != call(expected)
    ignored = made.build_loss(ignore_index=2)
    assert call(ignored) != call(expected)


def test_without_classes_the_function_has_to_give_them(tmp_path: Path) -> None:
    made = context(tmp_path)
    with pytest.raises(InputError, match="build_loss needs num_classes; give it, or let the task"):
        made.build_loss()
    with pytest.raises(InputError, match="classes: the task names no classes"):
        made.metrics()


@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        ([2], "epoch 2 is reported as the first; each must be reported once, and epoch 1 was not: "
         "report it without val, if it has none"),
        ([1, 1], "epoch 1 is reported after epoch 1; each must be reported once"),
        ([1, 3], "epoch 3 is reported after epoch 1; each must be reported once, and epoch 2 was"),
        ([1, 2, 3, 4], "epoch 4 is reported, and the budget is 3"),
        ([0], "an epoch must be a whole number from 1, got 0"),
        ([True], "an epoch must be a whole number from 1, got True"),
        ([1.0], r"an epoch must be a whole number from 1, got 1\.0"),
    ],
)  # fmt: skip
def test_epochs_come_once_and_in_order(tmp_path: Path, epochs: list[Any], message: str) -> None:
    made = context(tmp_path)
    call(made.build_loss(3))
    for epoch in epochs[:-1]:
        made.report(epoch, {"val/miou": 0.5})
    with pytest.raises(InputError, match=f"^{message}"):
        made.report(epochs[-1], {"val/miou": 0.5})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"val/miou": 41.3}, "val/miou must be in 0..1, got 41.3; report 0.413"),
        ({"val/iou/pole": -0.1}, "val/iou/pole must be in 0..1, got -0.1"),
        ({"val/miou": "0.4"}, "val/miou must be a number, got '0.4'"),
        ({"val/miou": True}, "val/miou must be a number, got True"),
        ({"val/miou": None}, "val/miou must be a number, got None"),
        ({"": 1.0}, "the name of a metric must be text, got ''"),
        ({"train": SegmentationMetrics(3)}, "metrics must be those of val or test, got 'train'"),
    ],
)
def test_a_value_that_is_none_is_named(
    tmp_path: Path, values: dict[Any, Any], message: str
) -> None:
    made = context(tmp_path)
    call(made.build_loss(3))
    with pytest.raises(InputError) as error:
        made.report(1, values)
    assert str(error.value) == message


def test_numbers_of_any_kind_and_scale_are_taken_where_they_are_no_fractions(
    tmp_path: Path,
) -> None:
    heard = Heard()
    made = context(tmp_path, heard=heard)
    call(made.build_loss(3))
    values: dict[str, Any] = {
        "train/loss": torch.tensor(7.5), "val/boundary_px": np.float32(41.5), "val/miou": np.nan,
    }  # fmt: skip
    assert made.report(1, values)
    found = heard.reports[0][1]
    assert (found["train/loss"], found["val/boundary_px"]) == (7.5, 41.5)
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize(
    ("stage", "values", "message"),
    [
        ("search", {"val/iou/pole": 0.5, "miou": 0.4},
         "the last epoch must report val/miou; it reported val/iou/pole, miou$"),
        (CONFIRM, {"val/miou": 0.5}, "the last epoch must report test/miou; a confirmation is"),
    ],
)  # fmt: skip
def test_the_last_epoch_has_what_the_answer_needs(
    tmp_path: Path, stage: str, values: dict[str, float], message: str
) -> None:
    made = context(tmp_path, stage=stage)
    call(made.build_loss(3))
    for epoch in (1, 2):
        made.report(epoch, values)
    with pytest.raises(InputError, match=f"^{message}"):
        made.report(3, values)


@pytest.mark.parametrize("stage", ["search", CONFIRM])
def test_the_last_epoch_is_judged_by_a_number(tmp_path: Path, stage: str) -> None:
    made = context(tmp_path, task(classes=CLASSES, epochs=1), stage=stage)
    call(made.build_loss())
    val = made.metrics()  # which nobody has updated
    name = "val/miou" if stage == "search" else "test/miou"
    values = {"val": val} if stage == "search" else {"val/miou": 0.5, "test/miou": float("nan")}
    with pytest.raises(InputError, match=f"^{name} of the last epoch is nan; was it measured on"):
        made.report(1, values)


def test_a_network_of_one_channel_is_measured_at_its_two_classes(tmp_path: Path) -> None:
    two = {"names": ["back", "crack"], "pixels": [90, 10]}
    made = context(tmp_path, task(classes=two, epochs=1))
    labels, logits = torch.tensor([[[0, 1], [1, 0]]]), torch.tensor([[[[-1.0, 2.0], [3.0, 1.0]]]])
    assert made.build_loss(num_classes=1)(logits, labels).isfinite()
    val = made.metrics(num_classes=1)
    val.update(logits, labels)
    assert val.compute()["iou/crack"] == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="classes: the task names 2 classes, and metrics are"):
        made.metrics(num_classes=3)


def test_a_training_knows_where_it_is_judged(tmp_path: Path) -> None:
    made = context(tmp_path, task(epochs=6), rungs=(2, 4))
    assert [epoch for epoch in range(1, 7) if made.is_judged(epoch)] == [2, 4, 6]


def test_metrics_of_logits_give_all_numbers_and_the_evidence(tmp_path: Path) -> None:
    heard = Heard()
    made = context(tmp_path, task(classes=CLASSES, epochs=1), heard, stage=CONFIRM)
    call(made.build_loss())
    generator = torch.Generator().manual_seed(0)
    val, test = made.metrics(), made.metrics()
    for one in (val, test):
        for _ in range(2):
            labels = torch.randint(3, (2, 4, 4), generator=generator)
            one.update(torch.randn(2, 3, 4, 4, generator=generator), labels)
    made.report(1, {"val": val, "test": test, "train/loss": 0.5})
    values = heard.reports[0][1]
    expected = {f"val/{key}": value for key, value in val.compute().items()}
    expected |= {f"test/{key}": value for key, value in test.compute(val.taus()).items()}
    assert {k: v for k, v in values.items() if k in expected} == expected
    assert "test/nll" in values and "val/tuned/miou" in values
    assert heard.evidence is not None
    with np.load(io.BytesIO(heard.evidence)) as arrays:
        assert arrays["class_names"].tolist() == CLASSES["names"]
        assert arrays["test_confusion"].sum() == 4 * 16
        assert arrays["test_groups"].tolist() == [0, 1, 2, 3]
        assert np.array_equal(arrays["test_counts"], test.image_counts().numpy())
        taus = val.taus()
        assert taus is not None
        assert np.array_equal(arrays["test_tuned_counts"], test.rule_counts(taus.miou))


def test_evidence_is_left_by_the_last_epoch_of_a_confirmation_alone(tmp_path: Path) -> None:
    heard = Heard()
    made = context(tmp_path, task(classes={"names": ["a", "b", "c"]}, epochs=2), heard)
    call(made.build_loss())
    for epoch in (1, 2):
        metrics = made.metrics()
        metrics.update(torch.zeros(1, 2, 2, dtype=torch.int64), LABELS)
        made.report(epoch, {"val": metrics})
        assert heard.evidence is None


def test_a_training_that_never_calls_its_loss_fails_by_name(tmp_path: Path) -> None:
    made = context(tmp_path)
    made.build_loss(3)
    with pytest.raises(InputError, match="the training has not called the loss of its trial"):
        made.report(1, {"val/miou": 0.5})


def test_a_training_that_calls_another_loss_fails_with_both_digests(tmp_path: Path) -> None:
    made = context(tmp_path, loss={"focal_gamma": 1.0})
    call(build_loss({"focal_gamma": 2.0}, num_classes=3))
    theirs, expected = (loss_digest(LossConfig(focal_gamma=gamma)) for gamma in (2.0, 1.0))
    with pytest.raises(InputError) as error:
        made.report(1, {"val/miou": 0.5})
    assert theirs in str(error.value) and expected in str(error.value)


def test_a_further_loss_beside_its_own_does_no_harm(tmp_path: Path) -> None:
    made = context(tmp_path, loss={"focal_gamma": 1.0})
    call(build_loss({}, num_classes=3))
    call(made.build_loss(3))
    assert made.report(1, {"val/miou": 0.5})


def test_a_loss_of_the_users_own_is_heard_too(tmp_path: Path) -> None:
    made = context(tmp_path, loss={"factory": "torch.nn:CrossEntropyLoss"})
    loss = made.build_loss(3)
    assert made.echoes() == []  # not of the small batch that it was tried on
    call(loss)
    assert made.report(1, {"val/miou": 0.5})


def test_the_verdict_reaches_the_function_once_and_ends_it_the_second_time(tmp_path: Path) -> None:
    made = context(tmp_path, heard=Heard(stop_after=1))
    call(made.build_loss(3))
    assert made.report(1, {"val/miou": 0.5}) is False
    with pytest.raises(Stopped):
        made.report(2, {"val/miou": 0.5})


class Locked(Heard):
    """Another end that cannot be copied, as that of a study."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_the_loss_can_be_copied_and_pickled(tmp_path: Path) -> None:
    heard = Locked()
    made = context(tmp_path, heard=heard)
    loss = made.build_loss(3)
    assert call(copy.deepcopy(loss)) == call(pickle.loads(pickle.dumps(loss)))
    assert heard.beats == [IN_EPOCH]  # of the copy in this process
    assert made.report(1, {"val/miou": 0.5})


def resumable(made: TrialContext, upto: int) -> list[float]:
    """A training that can be interrupted: a weight, and the state of a loss."""
    weight = torch.zeros(1, 3, 2, 2, requires_grad=True)

    def load(path: Path) -> None:
        weight.data = torch.load(path)

    done = made.resume(lambda path: torch.save(weight.data, path), load)
    loss = made.build_loss(3)
    for epoch in range(done + 1, upto + 1):
        value = loss(weight, LABELS)
        (gradient,) = torch.autograd.grad(value, weight)
        weight.data -= gradient
        made.report(epoch, {"val/miou": float(value.detach()) / 10})
    return weight.data.flatten().tolist()


STATEFUL = {"recall": {"ema_momentum": 0.9}}


def test_an_interrupted_training_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    whole, first, second = Heard(), Heard(), Heard()
    expected = resumable(context(tmp_path / "a", task(epochs=6), whole, loss=STATEFUL), 6)
    resumable(context(tmp_path / "b", task(epochs=6), first, loss=STATEFUL), 4)
    again = context(tmp_path / "b", task(epochs=6), second, loss=STATEFUL, reported=4, begun=True)
    assert resumable(again, 6) == expected
    assert second.epochs == [5, 6]
    numbers = [values["val/miou"] for _, values in first.reports + second.reports]
    assert numbers == [values["val/miou"] for _, values in whole.reports]


@pytest.mark.parametrize("kept", ["both", "one"])
def test_a_loss_for_each_head_keeps_its_own_state(tmp_path: Path, kept: str) -> None:
    heads = {"both": 2, "one": 1}[kept]  # one, as in a checkpoint of an earlier version

    def begin(made: TrialContext, number: int) -> list[Any]:
        made.resume(lambda path: path.touch(), lambda path: None)
        return [made.build_loss(3) for _ in range(number)]

    made = context(tmp_path, task(epochs=6), loss=STATEFUL)
    losses = begin(made, heads)
    for number, loss in enumerate(losses):
        logits = torch.zeros(1, 3, 2, 2)
        logits[:, number] = 1
        loss(logits, LABELS)
    made.report(1, {"val/miou": 0.1})
    again = context(tmp_path, task(epochs=6), loss=STATEFUL, reported=1, begun=True)
    found = [loss.recall.value.tolist() for loss in begin(again, 2)]
    expected = [loss.recall.value.tolist() for loss in losses] + [[0.0] * 3] * (2 - heads)
    assert found == expected
    assert found[0] != found[1]


def test_probabilities_in_place_of_logits_are_refused(tmp_path: Path) -> None:
    loss = context(tmp_path, task()).build_loss(3)
    message = "the loss was given probabilities, which sum to 1 .* takes logits; leave out the soft"
    with pytest.raises(InputError, match=message):
        loss(torch.randn(1, 3, 2, 2).softmax(1), LABELS)
    for logits in (torch.zeros(1, 3, 2, 2), torch.randn(1, 3, 2, 2).log_softmax(1)):
        loss = context(tmp_path, task()).build_loss(3)
        assert loss(logits.requires_grad_(), LABELS).isfinite()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    resumable(context(tmp_path, task(epochs=6), loss=STATEFUL), 3)
    (tmp_path / "checkpoints" / "3.pt").write_bytes(b"PK\x03\x04 cut")
    heard = Heard()
    again = context(tmp_path, task(epochs=6), heard, loss=STATEFUL, reported=3, begun=True)
    resumable(again, 6)
    assert heard.epochs == [3, 4, 5, 6]


def test_what_starts_again_may_begin_at_any_epoch_that_is_known(tmp_path: Path) -> None:
    heard = Heard()
    made = context(tmp_path, heard=heard, reported=2, begun=True)
    train_function(made, made.config.task.trial)  # type: ignore[union-attr, arg-type]
    assert heard.epochs == [1, 2, 3]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"nothing": 1}, r"own_trainings:quick\(context.*cannot be called with \(context, nothing"),
    ],
)
def test_a_function_of_other_arguments_is_refused(
    tmp_path: Path, kwargs: dict[str, Any], message: str
) -> None:
    trial = {"function": "own_trainings:quick", "kwargs": kwargs}
    with pytest.raises(InputError, match=message):
        run_trial(context(tmp_path, {"trial": trial, "budget": {"epochs": 1}}))


def test_a_function_that_returns_early_and_one_that_fails_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="test_context:idle returned after 0 of 3 epochs"):
        run_trial(context(tmp_path, task(f"{__name__}:idle")))
    with pytest.raises(KeyError) as error:
        run_trial(context(tmp_path, task(f"{__name__}:broken")))
    assert error.value.__notes__[-1].startswith("test_context.py:")


def test_a_function_that_parses_arguments_has_their_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["worker.py", "--node-ip-address=127.0.0.1"]
    monkeypatch.setattr(sys, "argv", words)
    heard = Heard(stop_after=3)
    run_trial(context(tmp_path, task(f"{__name__}:parses"), heard))
    assert heard.epochs == [1, 2, 3]
    assert sys.argv is words
    trial = {"function": f"{__name__}:parses", "kwargs": {"required": True}}
    message = (
        f"^trial/function: {__name__}:parses parsed a command line, of which a trial has none: the "
        "following arguments are required: --size; give its values as kwargs"
    )
    with pytest.raises(InputError, match=message):
        run_trial(context(tmp_path, task(trial)))


def parses(context: TrialContext, *, required: bool = False) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=2, required=required)
    assert parser.parse_args().size == 2
    own_trainings.quick(context)


def idle(context: TrialContext) -> None:
    """Does nothing."""


def broken(context: TrialContext) -> None:
    raise KeyError("weights")


def test_kwargs_reach_the_function(tmp_path: Path) -> None:
    trial = {"function": "own_trainings:quick", "kwargs": {"leave_out": ["val/iou/pole"]}}
    heard = Heard(stop_after=1)
    run_trial(context(tmp_path, {"trial": trial, "budget": {"epochs": 2}}, heard))
    assert "val/iou/pole" not in heard.reports[0][1]
    assert own_trainings.quick.__kwdefaults__ == {"leave_out": ()}
