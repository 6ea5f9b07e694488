"""The confirmed configs of a study on test, as the table of docs/results.md.

    python -m benchmarks.results NAME [--storage studies]

Mean ± sd over seeds in percent, best mean val mIoU first; below it the difference to tuned cross
entropy in points with Dunnett's 95 % interval, simultaneous over the configs within each metric.
worst class is the lowest IoU of any class, seed by seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from study.analysis.answer import Confirmed, answer
from study.analysis.statistics import Comparison, compare, mean, sd
from study.storage.studies import find, load

METRICS = {
    "test/miou": "mIoU",
    "test/macc": "mean accuracy",
    "test/mprec": "mean precision",
    "test/miou_image": "mIoU^I",
    "test/miou_class": "mIoU^C",
    "test/miou_worst5": "worst 5 % of images",
    "worst class": "worst class",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("--storage", type=Path, default=Path("studies"))
    options = parser.parse_args()
    folder = find(options.name, options.storage)
    found = answer(load(folder), folder)
    assert found.reference is not None, "tuned cross entropy must be confirmed"
    versus = {
        key: compare(
            {item.source: _by_seed(item, key) for item in found.configs if not item.is_reference},
            _by_seed(found.reference, key),
        )
        for key in METRICS
    }
    print(f"| config | {' | '.join(METRICS.values())} |")
    print("|---" * (1 + len(METRICS)) + "|")
    for item in found.configs:
        cells = [f"{100 * mean(v):.1f} ± {100 * sd(v):.1f}" for v in _columns(item)]
        print(f"| {_name(item)} | {' | '.join(cells)} |")
        if not item.is_reference:
            differences = [_difference(versus[key][item.source]) for key in METRICS]
            print(f"| | {' | '.join(differences)} |")


def _columns(item: Confirmed) -> list[Sequence[float]]:
    return [_values(item, key) for key in METRICS]


def _by_seed(item: Confirmed, key: str) -> dict[int, float]:
    return dict(zip(item.seeds, _values(item, key), strict=True))


def _values(item: Confirmed, key: str) -> Sequence[float]:
    """By seed."""
    if key in item.metrics:
        return item.metrics[key]
    classes = [values for name, values in item.metrics.items() if name.startswith("test/iou/")]
    return [min(values) for values in zip(*classes, strict=True)]


def _name(item: Confirmed) -> str:
    roles = ["tuned"] * item.is_reference + ["default"] * item.is_default_ce
    return item.label + (f" ({', '.join(roles)})" if roles else "")


def _difference(found: Comparison) -> str:
    text = f"{100 * found.difference:+.1f}"
    if found.interval is None:
        return text
    return f"{text} [{100 * found.interval.low:+.1f}, {100 * found.interval.high:+.1f}]"


if __name__ == "__main__":
    main()
