"""What an accelerator asks for: no step waits for the device, and it computes what a CPU computes.

On the meta device nothing has a value, so any look at one fails: that needs no accelerator.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from losses.variants import AXES, each
from torch.utils._python_dispatch import TorchDispatchMode

from study.losses import build_loss

COUNTS = [[400, 90, 10, 0], [300, 0, 150, 50]]
CONFIGS = AXES | {
    "four_at_once": {
        "class_weights": {"scheme": "inverse_frequency", "exponent": 0.5},
        "recall": {"ema_momentum": 0.9},
        "pooling": {"kind": "max"},
        "jaccard": {"mix": 0.5},
    },
    "ohem_focal_boundary_class": {
        "label_smoothing": 0.3,
        "smoothing_region": {"kind": "boundary"},
        "focal_gamma": 2.0,
        "pooling": {"kind": "ohem"},
        "jaccard": {"mix": 0.5, "target": "smoothed", "average": "class", "classes": "all"},
    },
}
every_config = each(CONFIGS, few=["ce", "everything"])
every_kind = pytest.mark.parametrize("kind", ["hard", "keep", "soft"])
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def make(config, device):
    return build_loss(config, num_classes=4, class_counts=COUNTS).to(device)


def batch(kind, device, seed=0, shape=(2, 24, 20)):
    """Logits, target, keep; a fifth of the pixels ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape[0], 4, *shape[1:], generator=generator)
    target = torch.randint(0, 3, shape, generator=generator)
    ignored = torch.rand(shape, generator=generator) < 0.2
    keep = None if kind == "hard" else (~ignored).to(device)
    if kind == "soft":
        soft = torch.softmax(2 * torch.randn(logits.shape, generator=generator), 1)
        return logits.to(device).requires_grad_(), soft.to(device), keep
    target[ignored] = 255
    return logits.to(device).requires_grad_(), target.to(device), keep


class OnlyOn(TorchDispatchMode):
    """Refuses a tensor with a shape on any other device: it would have to be copied."""

    def __init__(self, device):
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves((args, kwargs, found)):
            if isinstance(value, torch.Tensor) and value.ndim > 0:
                assert value.device.type == self.device, f"{func} on {value.device}"
        return found


@pytest.mark.slow
@every_config
@every_kind
@pytest.mark.parametrize("measured", [False, True], ids=["plain", "measured"])
def test_no_step_looks_at_a_value(config, kind, measured):
    loss = make(config, "meta")
    loss.measure_gradients = measured
    logits, target, keep = batch(kind, "meta")
    with OnlyOn("meta"):
        value = loss(logits, target, keep)
        (gradient,) = torch.autograd.grad(3 * value, logits)
    assert value.device.type == "meta"
    assert gradient.shape == logits.shape
    with torch.no_grad(), OnlyOn("meta"):
        loss.eval()(logits, target, keep)
        loss.terms()


@pytest.mark.slow
def test_the_accelerators_form_gives_the_golden_numbers_too(tmp_path):
    """On a CPU, with the losses' questions after the device answered the other way."""
    root = Path(__file__).parents[2]
    shutil.copytree(root / "study", tmp_path / "study")
    asked = 0
    for module in (tmp_path / "study" / "losses").glob("*.py"):
        text, found = re.subn(r'(device\.type [!=]= )"cpu"', r'\1"none"', module.read_text("utf-8"))
        module.write_text(text, "utf-8")
        asked += found
    assert asked > 0
    golden = root / "tests" / "losses" / "test_golden.py"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-n=0", "-q", "-p", "no:cacheprovider", golden],
        cwd=tmp_path,  # whose `study` comes first
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-2000:]


@needs_cuda
@every_config
@every_kind
def test_no_step_on_cuda_waits_for_the_device(config, kind):
    loss, logits_target_keep = make(config, "cuda"), batch(kind, "cuda")

    def step():
        value = loss(*logits_target_keep)
        torch.autograd.grad(value, logits_target_keep[0])
        loss.terms()

    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
@every_config
@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_cuda_computes_what_a_cpu_computes(config, kind, dtype):
    found = {}
    for device in ("cpu", "cuda"):
        loss, (logits, target, keep) = make(config, device), batch(kind, device)
        logits = logits.detach().to(dtype).requires_grad_()
        values = loss(logits, target, keep), loss(logits, target, keep)  # recall moves in between
        (gradient,) = torch.autograd.grad(values[1], logits)
        found[device] = [each.detach().cpu().double() for each in (*values, gradient)]
    rtol = {torch.float64: 1e-9, torch.float32: 1e-5}.get(dtype, 1e-2)
    scale = float(found["cpu"][2].abs().max())
    torch.testing.assert_close(found["cuda"][:2], found["cpu"][:2], rtol=min(rtol, 1e-5), atol=0)
    torch.testing.assert_close(found["cuda"][2], found["cpu"][2], rtol=rtol, atol=rtol * scale)


@needs_cuda
def test_the_state_follows_the_input_to_cuda():
    loss = make(CONFIGS["everything"], "cpu")
    loss(*batch("hard", "cuda"))
    assert {state.device.type for state in loss.state_dict().values()} == {"cuda"}
