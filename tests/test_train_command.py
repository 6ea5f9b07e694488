from __future__ import annotations

import hashlib
import json
import re
import sys
from typing import Any

import pytest
import torch
import yaml
from full_disk import full_at
from safetensors.torch import load_file
from tiny_task import CONVOLUTION, TINY

from study.config.task import load_task
from study.data import open_data
from study.metrics import Decision, build_decision
from study.metrics.decision import log_prior
from study.train import main
from study.training.config_file import read_config
from study.training.provenance import Provenance

TREE: dict[str, Any] = {
    "task": {**TINY, "model": CONVOLUTION},
    "loss": {"focal_gamma": 1.0},
    "seed": 2,
}
AGAIN = ("--device", "cpu", "--trust")  # an export, whose model comes from a factory


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_CACHE_DIR", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write(path, tree):
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(path)


def exported(tmp_path):
    out = tmp_path / "first"
    assert main([write(tmp_path / "plain.yaml", TREE), "--device", "cpu", "--out", str(out)]) == 0
    return out / "config.yaml"


def test_a_config_trains_and_prints_a_line_per_epoch(tmp_path, capsys):
    assert main([write(tmp_path / "plain.yaml", TREE), "--device", "cpu"]) == 0
    first, *epochs = capsys.readouterr().out.splitlines()
    assert "2 epochs, seed 2" in first
    assert [line.split("  ")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert all("train/loss" in line and "val/miou" in line for line in epochs)
    assert all("test/" not in line for line in epochs)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "file"), [(1_000, "metrics.jsonl"), (20_000, "checkpoint.pt")])
def test_a_full_disk_ends_it_with_one_line(tmp_path, capsys, size, file):
    config = write(tmp_path / "plain.yaml", TREE)
    assert main([config, "--device", "cpu"]) == 0  # the cache is there
    capsys.readouterr()
    with full_at(size):
        assert main([config, "--device", "cpu", "--out", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert err == f"error: {tmp_path / 'out' / file}: File too large\n"


def test_what_it_writes_reproduces_itself_exactly(tmp_path, capsys):
    config = exported(tmp_path)
    assert sorted(path.name for path in config.parent.iterdir()) == [
        "checkpoint.pt",
        "config.safetensors",
        "config.yaml",
        "metrics.jsonl",
    ]
    lines = (config.parent / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    torch.set_num_threads(2)
    assert main([str(config), *AGAIN]) == 0
    out = capsys.readouterr().out
    assert "1 CPU threads" in out.splitlines()[-4]
    assert out.splitlines()[-1].startswith("reproduced exactly: val/miou 0.")


@pytest.mark.parametrize(("tau", "key"), [(None, "val/tau_miou"), (0.7, "val/tau_macc")])
def test_what_it_writes_carries_its_rule_and_its_weights(tmp_path, tau, key):
    """That of mean accuracy, where the export that is trained again has that one."""
    tree = dict(TREE)
    if tau is not None:
        tree["decision"] = {"tau": tau, "log_prior": [-0.1] * 11}
        tree["provenance"] = {"seed": 2, "metrics": {"val/tau_miou": 0.1, "val/tau_macc": tau}}
    config, out = write(tmp_path / "plain.yaml", tree), tmp_path / "out"
    assert main([config, "--device", "cpu", "--seed", "3", "--out", str(out), "--trust"]) in (0, 1)
    found = yaml.safe_load((out / "config.yaml").read_text())
    pixels = open_data(load_task(tree["task"]).config.data).train.class_counts.sum(0)
    expected = Decision(tuple(log_prior(pixels)), found["provenance"]["metrics"][key])
    assert build_decision(out / "config.yaml") == expected
    weights = out / found["weights"]["file"]
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == found["weights"]["sha256"]
    state = torch.load(out / "checkpoint.pt", weights_only=True)["state"]["model"]
    read = load_file(weights)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in read)


def test_without_weights_it_writes_none(tmp_path):
    config, out = write(tmp_path / "plain.yaml", TREE), tmp_path / "out"
    assert main([config, "--device", "cpu", "--out", str(out), "--no-weights"]) == 0
    assert not list(out.glob("*.safetensors"))
    assert "weights" not in yaml.safe_load((out / "config.yaml").read_text())


@pytest.mark.slow
def test_other_numbers_under_equal_conditions_are_a_failure(tmp_path, capsys):
    config = exported(tmp_path)
    tree = yaml.safe_load(config.read_text())
    tree["provenance"]["metrics"]["val/miou"] += 1e-15
    assert main([write(config, tree), *AGAIN]) == 1
    out = capsys.readouterr().out
    assert "not the same numbers: 1 of" in out
    assert "val/miou: was" in out
    assert "though device, versions, threads, precision and data are equal" in out


@pytest.mark.slow
def test_other_numbers_elsewhere_are_explained_by_what_differs(tmp_path, capsys):
    config = exported(tmp_path)
    tree = yaml.safe_load(config.read_text())
    tree["provenance"]["metrics"]["val/miou"] = 0.75
    tree["provenance"]["environment"]["versions"]["torch"] = "1.0"
    tree["provenance"]["data"]["fingerprint"] = "abc"
    assert main([write(config, tree), *AGAIN]) == 0
    out = capsys.readouterr().out
    assert f"torch: was 1.0, is {torch.__version__}" in out
    assert "data: was abc, is " in out


@pytest.mark.slow
def test_an_export_judged_on_test_is_compared_on_test(tmp_path, capsys):
    config = exported(tmp_path)
    tree = yaml.safe_load(config.read_text())
    tree["provenance"]["metrics"]["test/miou"] = 2.0
    assert main([write(config, tree), *AGAIN]) == 1
    assert "test/miou: was 2, is 0." in capsys.readouterr().out


def test_an_export_is_compared_at_its_tuned_rules_and_at_their_taus(tmp_path, capsys):
    config = exported(tmp_path)
    tree = yaml.safe_load(config.read_text())
    tree["decision"] = {"tau": 0.5, "log_prior": [-0.1] * 11}
    tree["weights"] = {"file": "best_miou.safetensors", "sha256": "0"}
    metrics = tree["provenance"]["metrics"]
    tuned = {"val/tuned/miou", "val/tuned_macc/macc", "val/tau_miou", "val/tau_macc"}
    assert tuned <= metrics.keys()
    tree["provenance"]["metrics"] = {key: metrics[key] for key in tuned}
    capsys.readouterr()
    assert main([write(config, tree), *AGAIN]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert (
        last
        == f"reproduced exactly: val/tuned/miou {metrics['val/tuned/miou']:.4f} (all 4 metrics)"
    )
    tree["provenance"]["metrics"]["val/tau_miou"] += 0.1
    assert main([write(config, tree), *AGAIN]) == 1
    assert "  val/tau_miou: was " in capsys.readouterr().out


@pytest.mark.slow
def test_another_seed_is_trained_and_not_compared(tmp_path, capsys):
    config = exported(tmp_path)
    assert main([str(config), *AGAIN, "--seed", "7"]) == 0
    out = capsys.readouterr().out
    assert "seed 7" in out
    assert "another seed than the export's 2" in out
    assert "reproduced" not in out


def test_the_recorded_precision_is_restored_and_a_stated_one_kept(tmp_path):
    origin = Provenance.model_validate(
        {"seed": 0, "metrics": {}, "environment": {"precision": "bf16"}}
    )
    read = read_config(write_path(tmp_path, TREE))
    assert read.provenance is None
    assert origin.restore(read.config).task.precision == "bf16"
    stated = read_config(
        write_path(tmp_path, {**TREE, "task": {**TREE["task"], "precision": "fp32"}})
    ).config
    assert origin.restore(stated).task.precision == "fp32"


@pytest.mark.slow
def test_the_command_trains_in_the_recorded_precision(tmp_path, capsys):
    origin = {"seed": 2, "metrics": {}, "environment": {"precision": "bf16"}}
    config = write(tmp_path / "config.yaml", {**TREE, "provenance": origin})
    assert main([config, *AGAIN]) == 0
    assert ", bf16, " in capsys.readouterr().out.splitlines()[0]


def write_path(folder, tree):
    path = folder / "config.yaml"
    write(path, tree)
    return path


def leaves_in_training(num_classes):
    """A model that ends the program at its second batch."""

    class Leaves(torch.nn.Conv2d):
        calls = 0

        def forward(self, images):
            self.calls += 1
            if self.calls > 4:  # two sizes are checked before
                sys.exit(0)
            return super().forward(images)

    return Leaves(3, num_classes, 1)


def test_a_model_that_ends_the_program_is_one_line(tmp_path, capsys):
    tree = {
        **TREE,
        "task": {**TREE["task"], "model": {"factory": f"{__name__}:leaves_in_training"}},
    }
    assert main([str(write_path(tmp_path, tree)), "--device", "cpu"]) == 2
    told = f"error: {tmp_path}/config.yaml:"
    err = capsys.readouterr().err
    assert err.startswith(told)
    assert err.endswith(": task/model: the training's own code called sys.exit(0)\n")


def test_a_task_can_be_a_shipped_name(tmp_path):
    config = read_config(write_path(tmp_path, {"task": "synthetic"}), seed=4).config
    assert config.task == load_task("synthetic").config
    assert config.seed == 4


def with_task(**changes):
    return {**TREE, "task": {**TREE["task"], **changes}}


def with_origin(**environment):
    return {**TREE, "provenance": {"seed": 0, "metrics": {}, "environment": environment}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({**TREE, "seed": "zero"}, "config.yaml:"),
        ({**TREE, "seed": "zero"}, "seed"),
        ({**TREE, "losss": {}}, "losss"),
        ({**TREE, "task": "nowhere"}, "nowhere"),
        ({**TREE, "loss": {"recall": {"ema_momentum": 1.0}}}, "loss/recall/ema_momentum"),
        ({**TREE, "provenance": {"seed": 1}}, "provenance/metrics"),
        ({**TREE, "task": "nowhere"}, "config.yaml:"),
        (with_task(model={"factory": "no.where:f"}), "config.yaml:"),
        (with_task(model={"factory": "no.where:f"}), ": task/model/factory: "),
        (
            with_task(model={"factory": "tiny_task:small_images_only"}),
            ": task/model: the model fails",
        ),
        (with_task(model={"factory": "tiny_task:small_images_only"}), "at most 24 rows"),
        (with_task(model={"arch": "unet", "encoder": "timm-zzz"}), ": task/model/encoder: "),
        (
            with_task(
                model={"factory": "tiny_task:convolution"},
                optimizer={"name": "adamw", "lr": 0.1, "encoder_lr_scale": 0.1},
            ),
            ": task/optimizer/encoder_lr_scale: ",
        ),
        (
            {**TREE, "loss": {"class_weights": {"scheme": "manual", "weights": [1]}}},
            ": loss/class_weights/weights: weights must have one entry per class (",
        ),
        (
            {**TREE, "loss": {"class_weights": {"scheme": "effective_number", "kappa": 1.0e-9}}},
            ": loss/class_weights/kappa: kappa times the number of pixels must be > 1",
        ),
        (
            with_task(data={"format": "folder", "size": [16, 16], "root": "a\0b"}),
            "task/data/root: ",
        ),
        ({**TREE, "task": "a" * 5000}, "... (5"),
        (
            with_origin(num_threads=-3),
            "provenance/environment/num_threads: num_threads must be in [1, 4096]",
        ),
        (
            with_origin(precision="fp64"),
            "provenance/environment/precision: invalid precision 'fp64'",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, tree, says):
    assert main([write(tmp_path / "config.yaml", tree), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error


def test_a_missing_file_an_absent_device_and_a_full_folder_are_bad_input(tmp_path, capsys):
    good = write(tmp_path / "config.yaml", TREE)
    full = str(tmp_path)
    cases = [
        [str(tmp_path / "absent.yaml")],
        [good, "--device", "cuda:63"],
        [good, "--out", full],
        [good, "--seed", "-1"],
    ]
    for arguments in cases:
        assert main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_divergence_is_one_line_and_exit_code_1(tmp_path, capsys):
    task = {**TREE["task"], "optimizer": {"name": "sgd", "lr": 1.0e38}}
    config = write(tmp_path / "config.yaml", {**TREE, "task": task})
    assert main([config, "--device", "cpu"]) == 1
    assert capsys.readouterr().err.startswith("diverged: ")


def test_out_that_is_a_file_is_bad_input(tmp_path, capsys):
    config = write(tmp_path / "plain.yaml", TREE)
    assert main([config, "--out", config]) == 2
    assert "--out: out must be a new or empty folder" in capsys.readouterr().err


@pytest.mark.parametrize("below", ["plain.yaml/x", "x" * 300])
def test_out_that_cannot_be_made_is_found_before_training(tmp_path, capsys, below):
    config = write(tmp_path / "plain.yaml", TREE)
    assert main([config, "--device", "cpu", "--out", str(tmp_path / below)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: --out: cannot write into folder ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_seed_too_large_is_the_flags_and_not_the_files(tmp_path, capsys):
    config = write(tmp_path / "plain.yaml", TREE)
    assert main([config, "--seed", str(10**23)]) == 2
    assert capsys.readouterr().err == (f"error: --seed: seed must be in [0, 2**63), got {10**23}\n")


def test_an_error_in_a_task_of_its_own_file_names_that_file(tmp_path, capsys):
    task = {**TREE["task"], "model": {"factory": "no.where:f"}}
    file = write(tmp_path / "mytask.yaml", task)
    assert main([write(tmp_path / "config.yaml", {**TREE, "task": file}), "--device", "cpu"]) == 2
    assert re.search(r"mytask.yaml:\d+: model/factory: ", capsys.readouterr().err)


def test_what_stands_in_no_file_is_not_placed_in_one(tmp_path, capsys, monkeypatch):
    task = {**TREE["task"], "data": {"format": "folder", "size": [16, 16]}}
    config = write(tmp_path / "config.yaml", {**TREE, "task": task})
    assert main([config, "--device", "cpu", "--data-root", "~nosuchuser/x"]) == 2
    assert capsys.readouterr().err.startswith("error: --data-root: unknown home folder in '~nosuch")
    monkeypatch.setenv("STUDY_CACHE_DIR", "~nosuchuser/x")
    assert main([write(tmp_path / "other.yaml", TREE), "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith("error: $STUDY_CACHE_DIR: unknown home folder in")


@pytest.mark.slow
def test_a_config_is_trained_by_two_ranks_and_its_export_says_so(tmp_path, capsys):
    config, out = write(tmp_path / "plain.yaml", TREE), tmp_path / "out"
    assert main([config, "--device", "cpu", "--ranks", "2", "--out", str(out)]) == 0
    assert "1 CPU threads in 2 ranks" in capsys.readouterr().out.splitlines()[0]
    tree = yaml.safe_load((out / "config.yaml").read_text())
    assert tree["provenance"]["environment"]["ranks"] == 2
    assert main([config, "--device", "cpu", "--ranks", "5"]) == 2
    expected = "error: --ranks: 5 ranks cannot share a batch of 4 images; each needs one at least"
    assert capsys.readouterr().err.startswith(expected)
