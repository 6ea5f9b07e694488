"""Find, with evidence, the loss that makes a segmentation network learn its rare classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.session.session import run_study

__all__ = ["run_study"]


def __getattr__(name: str) -> Any:
    """`run_study` is imported when it is asked for: it brings a lot with it."""
    if name == "run_study":
        from study.session.session import run_study

        return run_study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
