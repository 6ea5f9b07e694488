"""Find, with evidence, the loss that makes a segmentation network learn its rare classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.inference.loading import load
    from study.session.session import run_study

__all__ = ["load", "run_study"]


def __dir__() -> list[str]:
    """For completion: what `__getattr__` gives, too."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """`run_study` and `load` are imported when they are asked for: they bring a lot with them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        if name == "run_study":
            from study.session.session import run_study

            return run_study
        from study.inference.loading import load

        return load
    except ModuleNotFoundError as error:
        from study.core.extras import missing_extra

        if missing := missing_extra(error):
            raise ImportError(f"study.{name}: {missing}", name=error.name) from error
        raise
