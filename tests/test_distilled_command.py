"""A student trained by `study.train` from an export, and its own export trained again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from tiny_task import TINY

from study.train import main
from study.training.config_file import read_config


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_CACHE_DIR", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write(path: Path, loss: dict) -> str:
    path.write_text(yaml.safe_dump({"task": TINY, "loss": loss, "seed": 2}))
    return str(path)


@pytest.mark.slow
def test_a_student_of_an_export_is_trained_again_to_its_numbers(tmp_path, capsys, monkeypatch):
    cpu = ("--device", "cpu")
    teacher = tmp_path / "teacher"
    assert main([write(tmp_path / "ce.yaml", {}), *cpu, "--out", str(teacher)]) == 0
    plain = write(tmp_path / "kd.yaml", {"distillation": {"mix": 0.5}})
    assert main([plain, *cpu]) == 2
    told = capsys.readouterr().err
    assert "kd.yaml:" in told and "a distilled loss needs a teacher" in told
    out = tmp_path / "student"
    of_export = ("--teacher", str(teacher / "config.yaml"))
    assert main([plain, *cpu, *of_export, "--out", str(out)]) == 0
    capsys.readouterr()
    written = read_config(out / "config.yaml").config.loss.distillation.teacher
    (beside,) = out.glob("teacher-*.safetensors")
    assert written.weights == str(beside)
    assert str(tmp_path) not in (out / "config.yaml").read_text()
    shutil.rmtree(teacher)
    out = out.rename(tmp_path / "another machine")
    monkeypatch.chdir(out)
    assert main(["config.yaml", *cpu]) == 0
    assert "reproduced exactly" in capsys.readouterr().out
    moved = tmp_path / "elsewhere.safetensors"
    shutil.move(out / beside.name, moved)
    assert main([str(out / "config.yaml"), *cpu]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "the teacher's weights are not there" in told and "--teacher FILE" in told
    assert main([str(out / "config.yaml"), *cpu, "--teacher", str(moved)]) == 0
    assert "reproduced exactly" in capsys.readouterr().out
    assert main([str(out / "config.yaml"), *cpu, "--teacher", str(tmp_path / "ce.yaml")]) == 2
    assert "the weights are not those of the teacher" in capsys.readouterr().err
    assert main([write(tmp_path / "ce.yaml", {}), *cpu, "--teacher", str(moved)]) == 2
    assert "--teacher: the loss has no distillation" in capsys.readouterr().err
