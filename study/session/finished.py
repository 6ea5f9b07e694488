"""What a study has come to, for a notebook or a script."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from study.core.errors import InputError
from study.ledger.state import State

if TYPE_CHECKING:
    import pandas as pd

    from study.analysis.answer import Answer
    from study.inference import Predictor

Role = Literal["best_miou", "best_macc", "reference"]


@dataclass(frozen=True, repr=False)
class Finished:
    """The result of a session. A notebook shows the answer's sentences, table and plots.

    Attributes:
        folder: The folder of the study, with its ledger, exports and report.
        state: The state of the study.
        answer: The answer so far.
        exports: The paths of the exported configs.
        unsent: The number of ledger lines that MLflow lacks.
        unshipped: What the bucket of the study lacks, as text; empty if it lacks nothing.
        interrupted: Whether Ctrl-C or SIGTERM ended the session, before the study was finished or
            its budget was spent.
    """

    folder: Path
    state: State
    answer: Answer
    exports: tuple[Path, ...]
    unsent: int
    unshipped: str
    interrupted: bool

    def __repr__(self) -> str:
        done = "finished" if self.state.finished else "unfinished"
        best = self.state.trials.get(self.answer.best_miou or "")
        told = f", best_miou: {best.label}" if best else ""
        return f"<study {self.answer.study!r}, {done}, {len(self.state.trials)} trials{told}>"

    def _repr_html_(self) -> str:
        from study.reporting.html import in_short

        return in_short(self.state, self.answer)

    @property
    def best(self) -> Path | None:
        """The export of the config with the highest mIoU on val; None if there is none yet."""
        return self._exported("best_miou")

    def table(self) -> pd.DataFrame:
        """The confirmed configs: a row for each config and decision rule, figures in 0..1; empty
        before a confirmation. Columns as in ``tables/confirmed.csv``."""
        import pandas as pd

        from study.reporting.table_files import confirmed_records

        return pd.DataFrame([*confirmed_records(self.answer)])

    def curves(self) -> pd.DataFrame:
        """Every report: a row for each trial and epoch, with the trial's stage, label, seed and
        status, and a column for each metric."""
        import pandas as pd

        rows = [
            {
                "trial": trial.id, "stage": trial.stage, "label": trial.label, "seed": trial.seed,
                "status": trial.status, "epoch": epoch, **metrics,
            }
            for trial in self.state.trials.values()
            for epoch, metrics in sorted(trial.reports.items())
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def load(self, role: Role = "best_miou", *, device: str = "cpu") -> Predictor:
        """The network of an export, ready to use: see `study.load`.

        Raises:
            InputError: if there is no such export, or it has no weights.
        """
        from study.inference import load

        export = self._exported(role)
        if export is None:
            names = [path.stem for path in self.exports]
            raise InputError.unknown("export", role, names)
        return load(export, device=device)

    def _exported(self, role: str) -> Path | None:
        return next((path for path in self.exports if path.stem == role), None)
