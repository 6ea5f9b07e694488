"""The process, device and precision of a trial, and the record of them that an export carries."""

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

from study.config.task import TaskConfig, TrialConfig
from study.core.errors import InputError

Precision = Literal["bf16", "fp16", "fp32"]
PACKAGE = "segmentation-loss-study"
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
# What the numbers of a trial depend on beside the config, torch and the device.
DISTRIBUTIONS = ("numpy", "segmentation-models-pytorch", "timm", PACKAGE)


def set_up_process(num_threads: int) -> None:
    """CPU threads and deterministic kernels for this process; random numbers stay as they are.

    Equal numbers need equal thread counts: sums over several threads are taken in another order.
    Memory that a step frees is kept for the next one.
    """
    torch.set_num_threads(num_threads)
    _keep_freed_memory()
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _keep_freed_memory() -> None:
    """Let glibc hand no memory back to the system: a training step frees what the next one asks
    for again, and on a CPU a fifth of its time can go into pages that are returned and fetched.
    Where the C library is another one, nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def deterministic_kernels(only: bool) -> Iterator[None]:
    """Inside, torch runs an operation that has no deterministic kernel, or raises RuntimeError
    that names it where `only` is set. What was set before is set again afterwards."""
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
    """The device that was asked for, else the CUDA device where there is one, else the CPU.

    Raises InputError for a device that torch does not know, that is not here or that does not
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
    """What computes here."""
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return ["cpu"] if there is None else ["cpu", there.type]


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """`auto` is fp32 on the CPU; on a GPU bf16 where it computes in it, else fp16."""
    if precision != "auto":
        return precision  # type: ignore[return-value]
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def environment(
    config: TrialConfig | TaskConfig | None = None,
    device: str | torch.device | None = None,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """What decides the numbers beside the config and the data, as plain JSON values.

    config: whose precision is resolved, default `auto`. device: as in `resolve_device`.
    num_threads: of the process that trains, default this one's.
    Keys: device ("cpu" or "cuda"), device_name, precision, num_threads, python, versions
    {distribution: version}, commit (None outside a checkout; ends in "+changes" when edited).
    """
    task = config.task if isinstance(config, TrialConfig) else config
    precision = "auto" if task is None else task.precision
    resolved = device if isinstance(device, torch.device) else resolve_device(device)
    return {
        "device": resolved.type,
        "device_name": _device_name(resolved),
        "precision": resolve_precision(precision, resolved),
        "num_threads": torch.get_num_threads() if num_threads is None else num_threads,
        "python": platform.python_version(),
        "versions": _versions(),
        "commit": _commit(),
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    # Kernels are chosen by instruction set, so it belongs to the name.
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
