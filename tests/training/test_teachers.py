"""Teachers of distilled losses: their soft labels under augmentation, and what is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_task import run, timeless, tiny, tiny_data

from study.config.task import Augment
from study.core.errors import InputError
from study.data import SegmentationData
from study.losses.config import FactoryTeacher, TaskTeacher, WeightsTeacher
from study.losses.distillation import softened
from study.training import teachers
from study.training.batches import Batches
from study.training.config_file import read_config
from study.training.identity import digest
from study.training.models import build_model
from study.training.teachers import (
    is_cached,
    open_teacher,
    resolved,
    teaching,
    with_teacher,
)
from study.training.weights import save_weights

CPU = torch.device("cpu")
COLOURS = {"factory": "tiny_task:colours"}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return tiny_data()


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def weights(data, tmp_path_factory):
    """Weights of a network of the tiny task, as an export names them."""
    file = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    model = tiny().trained_here.model
    with torch.random.fork_rng():
        torch.manual_seed(7)
        save_weights(file, build_model(model, data.num_classes), data)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return WeightsTeacher(weights=str(file), sha256=sha256, model=model.model_dump())


def distilled(teacher=COLOURS, mix=0.5, **more):
    given = teacher if isinstance(teacher, dict) else teacher.model_dump()
    return {"distillation": {"teacher": given, "mix": mix, **more}}


def soft_labels(data, loss, steps=0):
    return teaching(tiny(loss).loss, data, CPU, lambda: None)


@pytest.mark.parametrize(
    "config",
    [
        Augment(),
        Augment(flip=0.5),
        Augment(flip=0.5, crop=(16, 24)),
        Augment(flip=0.5, crop=(40, 100)),
        Augment(flip=0.5, scale=(0.6, 1.7)),
        Augment(flip=0.5, scale=(0.6, 1.7), crop=(16, 24)),
    ],
    ids=["whole", "flip", "crop", "larger crop", "scale", "scale and crop"],
)
def test_cached_labels_go_where_their_image_goes(data, own_cache, config):
    """A teacher of single colours sees in the augmented image what its cached labels show there;
    up to interpolation, which acts on colours there and on probabilities here."""
    taught = soft_labels(data, distilled())
    online = soft_labels(data, distilled(labels="online"))
    draw = (np.array([3, 0, 2, 5]), torch.Generator().manual_seed(1))
    batches = Batches(data, CPU, "fp32")
    ((images, target, soft),) = batches.train(data.train, [draw], config, taught.cached)
    assert soft.shape == (4, data.num_classes, *target.shape[1:])
    assert torch.allclose(soft.sum(1), torch.ones(()), atol=1e-5)
    valid = target != data.ignore_index
    apart = (soft - online(images)).abs().amax(1)[valid]
    if config.scale is None:
        assert apart.max() < 1e-3
    else:
        assert apart.mean() < 0.05
        turned = (soft.flip(3) - online(images)).abs().amax(1)[valid]
        assert turned.mean() > 3 * apart.mean()


def test_a_cached_probability_is_off_by_less_than_is_stated(data, own_cache):
    for sharp in (0.1, 1.0, 10.0, 100.0):
        teacher = {**COLOURS, "kwargs": {"sharp": sharp}}
        cached = soft_labels(data, distilled(teacher)).cached
        batches = Batches(data, CPU, "fp32")
        exact = soft_labels(data, distilled(teacher, labels="online"))
        for start, (images, _) in zip(
            range(0, 24, 8), batches.evaluation(data.train, 8), strict=True
        ):
            logs = torch.from_numpy(np.array(cached[start : start + 8])).permute(0, 3, 1, 2)
            shown = logs.float().exp()
            shown = shown / shown.sum(1, keepdim=True)
            for temperature in (1.0, 4.0):  # which raises what is small
                mine, theirs = (softened(p, temperature) for p in (shown, exact(images)))
                assert (mine - theirs).abs().max() < 1e-3


def test_labels_are_computed_once_and_again_for_another_teacher(data, own_cache, monkeypatch):
    asked = []
    write = teachers._write
    monkeypatch.setattr(teachers, "_write", lambda *a: (asked.append(a[0]), write(*a)))
    first = soft_labels(data, distilled())
    again = soft_labels(data, distilled(mix=0.25, temperature=3.0))
    assert len(asked) == 1
    assert np.array_equal(first.cached, again.cached)
    soft_labels(data, distilled({**COLOURS, "kwargs": {"sharp": 1.0}}))
    soft_labels(replace(data, fingerprint="0" * 64), distilled())
    assert len(set(asked)) == len(asked) == 3
    whole = asked[0].read_bytes()
    asked[0].unlink()  # it is mapped
    (own_cache / f".{asked[0].name}.77").write_bytes(b"left by a process that died")
    asked[0].write_bytes(whole[:1000])
    assert np.array_equal(soft_labels(data, distilled()).cached, first.cached)
    assert not list(own_cache.glob(".*npy*"))


def test_what_is_cached_depends_on_the_size_of_the_data_alone(data, monkeypatch):
    assert is_cached("auto", data) and is_cached("cached", data) and not is_cached("online", data)
    needed = data.train.labels.size * data.num_classes * 2
    monkeypatch.setattr(teachers, "MOST_CACHED", needed)
    assert is_cached("auto", data)
    monkeypatch.setattr(teachers, "MOST_CACHED", needed - 1)
    assert not is_cached("auto", data) and is_cached("cached", data)


def test_a_disk_without_room_is_told_with_a_way_out(data, own_cache, monkeypatch):
    monkeypatch.setattr(teachers.shutil, "disk_usage", lambda _: type("", (), {"free": 1000})())
    with pytest.raises(InputError, match=r"loss/distillation/labels: .* MiB free; set .* online"):
        soft_labels(data, distilled())


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["cached", "online"])
def test_a_distilled_training_learns_from_its_teacher_and_goes_on_bit_for_bit(
    data, own_cache, tmp_path, labels
):
    config = tiny({**distilled(labels=labels), "jaccard": {"mix": 0.5}})
    first, last = run(config, data)
    assert {"train/teacher_pixel", "train/teacher_jaccard", "train/grad_norm/teacher_pixel"} <= {
        *last.metrics
    }
    assert last.metrics["train/teacher_pixel"] < first.metrics["train/teacher_pixel"]
    for report in run_saving(config, data, tmp_path / "first.pt"):
        again = report
    assert timeless(again) == timeless(last)
    (resumed,) = run(config, data, resume_from=tmp_path / "first.pt")
    assert timeless(resumed) == timeless(last)


def run_saving(config, data, file):
    from study.training.trainer import train

    for report in train(config, data=data, device="cpu"):
        if report.epoch == 1:
            report.save(file)
        yield report


@pytest.mark.slow
def test_a_checkpoint_is_of_one_teacher(data, own_cache, weights, tmp_path):
    config = tiny(distilled())
    list(run_saving(config, data, tmp_path / "first.pt"))
    for other in (distilled({**COLOURS, "kwargs": {"sharp": 1.0}}), distilled(weights), {}):
        with pytest.raises(InputError, match="of another config or other data"):
            run(tiny(other), data, resume_from=tmp_path / "first.pt")


def test_a_digest_holds_the_teacher_by_content(weights):
    moved = weights.model_copy(update={"weights": "/elsewhere/teacher.safetensors"})
    one, other = (tiny(distilled(teacher)) for teacher in (weights, moved))
    assert digest(one, "data", "abc") == digest(other, "data", "abc")
    assert digest(one, "data", "abc") != digest(one, "data", "abd")


def test_an_export_is_a_teacher_with_its_hash_and_its_model(weights, tmp_path):
    config = tiny()
    tree = config.model_dump(mode="json")
    (tmp_path / "w.safetensors").write_bytes(Path(weights.weights).read_bytes())
    tree["weights"] = {"file": "w.safetensors", "sha256": weights.sha256}
    import yaml

    (tmp_path / "export.yaml").write_text(yaml.safe_dump(tree), "utf-8")
    assert read_config(tmp_path / "export.yaml").weights is not None
    loss = tiny(distilled({"export": str(tmp_path / "export.yaml")})).loss
    found = with_teacher(loss).distillation.teacher
    assert found.sha256 == weights.sha256
    assert found.weights == str(tmp_path / "w.safetensors")
    by_option = with_teacher(tiny({"distillation": {}}).loss, tmp_path / "export.yaml")
    assert by_option.distillation.teacher == found
    elsewhere = with_teacher(tiny(distilled(weights)).loss, tmp_path / "w.safetensors")
    assert elsewhere.distillation.teacher == found


def test_a_teacher_gives_the_probabilities_of_its_weights(data, weights):
    opened = open_teacher(weights, data)
    images = torch.zeros(1, 3, 32, 48)
    with torch.no_grad():
        expected = opened.model.eval()(images).softmax(1)
    found = teaching(tiny(distilled(weights, labels="online")).loss, data, CPU, lambda: None)
    assert torch.equal(found(images), expected)


def refusal(data, teacher):
    with pytest.raises(InputError) as caught:
        open_teacher(teacher, data)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_teacher_that_does_not_fit_is_refused_by_name(data, weights, tmp_path):
    key = "loss/distillation/teacher"
    names = ("sky", *data.class_names[1:-1], "drain")
    assert refusal(replace(data, class_names=names), weights) == (
        f"{key}: the teacher teacher.safetensors knows other classes: {data.class_names[0]} is sky "
        f"here, {data.class_names[-1]} is drain here"
    )
    assert "another normalisation: mean [" in refusal(replace(data, mean=(0, 0, 0)), weights)
    assert "another normalisation: std [" in refusal(replace(data, std=(1, 1, 1)), weights)
    missing = weights.model_copy(update={"weights": str(tmp_path / "none.safetensors")})
    assert refusal(data, missing).startswith(
        f"{key}/weights: the teacher's weights are not there: {tmp_path}/none.safetensors; "
        "`--teacher FILE` says where"
    )
    other = weights.model_copy(update={"sha256": "0" * 64})
    assert refusal(data, other).endswith("not those of the teacher (another sha256)")
    smaller = {**weights.model, "kwargs": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}}
    narrow = weights.model_copy(update={"model": smaller})
    assert "the weights do not fit the export's model" in refusal(data, narrow)
    unknown = weights.model_copy(update={"model": {"arch": "unett", "encoder": "resnet18"}})
    assert refusal(data, unknown).startswith(f"{key}/model/arch: ")
    assert refusal(data, TaskTeacher(task="camvid")).startswith(
        f"{key}/task: the teacher camvid is not trained; a study trains it"
    )


def test_a_factory_that_is_no_teacher_is_refused_by_name(data):
    key = "loss/distillation/teacher/factory"

    def of(name):
        return refusal(data, FactoryTeacher(factory=f"tiny_task:{name}"))

    assert of("failing").startswith(f"{key}: tiny_task:failing(num_classes=11) raised KeyError")
    assert of("none").startswith(f"{key}: ")
    assert of("smaller").startswith(
        f"{key}: a teacher's logits must have shape (1, 11, 32, 48), got (1, 11, 15, 23)"
    )


def test_an_export_without_weights_is_refused(tmp_path):
    import yaml

    tree = tiny().model_dump(mode="json") | {"provenance": {"seed": 0, "metrics": {}}}
    (tmp_path / "export.yaml").write_text(yaml.safe_dump(tree), "utf-8")
    loss = tiny(distilled({"export": str(tmp_path / "export.yaml")})).loss
    with pytest.raises(InputError, match="the export has no weights"):
        resolved(loss.distillation.teacher)
    with pytest.raises(InputError, match=r"teacher/export: no export at '/nowhere\.yaml'"):
        with_teacher(tiny(distilled({"export": "/nowhere.yaml"})).loss)
    with pytest.raises(InputError, match=r"^--teacher: the loss has no distillation"):
        with_teacher(tiny({}).loss, tmp_path / "export.yaml")


def test_a_loss_that_names_no_teacher_is_refused(data):
    with pytest.raises(InputError, match="loss/distillation/teacher: a distilled loss needs a"):
        soft_labels(data, {"distillation": {}})
