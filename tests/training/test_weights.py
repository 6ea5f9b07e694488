"""Weights as safetensors: any model's state, read by safetensors alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_task import tiny_data
from torch import nn

from study.training.weights import save_weights


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3))
    layers.append(layers[2])  # its weights have two names
    return layers.to(memory_format=torch.channels_last)


def test_a_models_state_is_read_again_to_the_last_bit(tmp_path: Path) -> None:
    written, other = model(), model(seed=1)
    save_weights(tmp_path / "a.safetensors", written, tiny_data())
    other.load_state_dict(load_file(tmp_path / "a.safetensors"))
    for name, value in written.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    save_weights(tmp_path / "b.safetensors", written, tiny_data())
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_file_says_the_classes_and_how_images_are_normalised(tmp_path: Path) -> None:
    data = tiny_data()
    save_weights(tmp_path / "a.safetensors", model(), data)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        about = json.loads(file.metadata()["data"])
    assert about == {
        "class_names": list(data.class_names),
        "mean": list(data.mean),
        "std": list(data.std),
        "palette": data.palette.tolist(),
    }


def test_a_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Odd(nn.Conv2d):
        def get_extra_state(self) -> Any:
            return {"calls": 3}

    with pytest.raises(ValueError, match="tensors alone, '_extra_state' is dict"):
        save_weights(tmp_path / "a.safetensors", Odd(3, 2, 1), tiny_data())
    assert list(tmp_path.iterdir()) == []
