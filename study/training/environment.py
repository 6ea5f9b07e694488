"""The process, device and precision of a trial, and their record in an export."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from study.config.own_training import OwnTrainingTask
from study.config.task import TaskConfig, TrialConfig
from study.core.errors import InputError

Precision = Literal["bf16", "fp16", "fp32"]
PACKAGE = "segmentation-loss-study"
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
# The numbers of a trial depend on these beside the config, torch and the device.
DISTRIBUTIONS = ("numpy", "segmentation-models-pytorch", "timm", PACKAGE)


def set_up_process(num_threads: int) -> None:
    """Set CPU threads and deterministic kernels for this process; random states stay as they are.

    Equal numbers need equal thread counts: other counts sum in another order. Keeps memory that a
    step frees for the next one.
    """
    torch.set_num_threads(num_threads)
    _keep_freed_memory()
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _keep_freed_memory() -> None:
    """Keep glibc from returning memory to the system.

    A training step frees the memory that the next one allocates again, and on a CPU returning and
    fetching its pages can take a fifth of the time. Does nothing with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def deterministic_kernels(only: bool) -> Iterator[None]:
    """Allow operations without a deterministic kernel inside the block, or with `only` raise a
    RuntimeError that names them. Restores the previous setting afterwards."""
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    mode = torch.get_deterministic_debug_mode()
    try:
        torch.use_deterministic_algorithms(only)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def resolve_device(device: str | None = None) -> torch.device:
    """Return the requested device; by default the CUDA device if there is one, else the CPU.

    Raises InputError for a device that torch does not know, that this machine lacks or that cannot
    compute.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot use device {device!r}: {reason}", key="device") from error
    if resolved.type not in _kinds():
        raise InputError(f"cannot train on device {device!r}", allowed=_kinds(), key="device")
    return resolved


def _kinds() -> list[str]:
    """The device types that can compute on this machine."""
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return ["cpu"] if there is None else ["cpu", there.type]


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """Resolve `auto`: fp32 on the CPU; on a GPU bf16 if it computes in bf16, else fp16."""
    if precision != "auto":
        return precision  # type: ignore[return-value]
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def environment(
    config: TrialConfig | TaskConfig | None = None,
    device: str | torch.device | None = None,
    num_threads: int | None = None,
    ranks: int = 1,
) -> dict[str, Any]:
    """Describe what determines the numbers beside config and data, as plain JSON values.

    Args:
        config: its precision is resolved; default `auto`.
        device: as in `resolve_device`.
        num_threads: those of the training process; default this process's.
        ranks: processes that train together.

    Returns:
        Keys: device ("cpu" or "cuda"), device_name, precision (None where a training of the user's
            own decides it), num_threads, python, versions
            {distribution: version}, commit (None outside a checkout; ends in "+changes" when
            edited); of several, ranks.
    """
    task = config.task if isinstance(config, TrialConfig) else config
    precision = getattr(task, "precision", "auto")
    resolved = device if isinstance(device, torch.device) else resolve_device(device)
    return {
        "device": resolved.type,
        "device_name": _device_name(resolved),
        "precision": None
        if isinstance(task, OwnTrainingTask)
        else resolve_precision(precision, resolved),
        "num_threads": torch.get_num_threads() if num_threads is None else num_threads,
        **({"ranks": ranks} if ranks > 1 else {}),
        "python": platform.python_version(),
        "versions": _versions(),
        "commit": _commit(),
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    # torch chooses its kernels by instruction set, so the name includes it.
    return f"{_cpu_name()} ({torch.backends.cpu.get_cpu_capability()})"


@cache
def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {"torch": str(torch.__version__)}  # with its build, as in 2.15.0+cu132
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _commit() -> str | None:
    here = Path(__file__).resolve().parents[1]
    if not (here.parent / ".git").exists():
        return None
    try:
        commit = _git(here, "rev-parse", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()
