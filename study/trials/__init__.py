"""What trains a trial: this package, a function of the user's, or a command.

    from study.trials import TrialContext

A task with `trial: package.module:function` trains by that function, which gets a TrialContext.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.trials.context import TrialContext

__all__ = ["TrialContext"]


def __getattr__(name: str) -> Any:
    if name == "TrialContext":
        from study.trials.context import TrialContext

        return TrialContext
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
