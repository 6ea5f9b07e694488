"""Data sets of a task: opened, decoded once per machine, shared by all trials."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.data.cache import default_cache_dir
    from study.data.opening import data_faults, data_warnings, open_data, scan_files
    from study.data.splits import SegmentationData, Split

__all__ = [
    "SegmentationData",
    "Split",
    "data_faults",
    "data_warnings",
    "default_cache_dir",
    "open_data",
    "scan_files",
]

_MODULES = {"default_cache_dir": "cache", "SegmentationData": "splits", "Split": "splits"}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for, so that `python -m study.data` can say what it lacks."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'opening')}"), name)
