"""`python -m study.predict EXPORT IMAGES --out DIR`: segment pictures with an exported network.

IMAGES are files and folders of any size. Each gets masks/NAME.png (class ids, in the colours of the
classes) and overlays/NAME.png; classes.json names the ids. A picture is resized to the
size of the training, and its classes are resized back to the picture's own size. Some pictures are
larger than those of the training, but show objects at the same size, such as aerial images and
slides. Use --window for them.

The same in Python: `study.load(EXPORT).predict(picture)`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from study.core.console import Parser, run_command, show
from study.core.errors import InputError, deed, printable
from study.core.files import is_free, made_folder

EXIT_SOME_FAILED = 1
MUCH_LARGER = 2.0  # times the size of the training, from which --window is mentioned


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, which is 1 if a picture could not be read."""
    parser = Parser("predict", __doc__)
    parser.add_argument(
        "export", type=Path, metavar="EXPORT", help="an export, such as exports/best_miou.yaml"
    )
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGES", help="files and folders")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new or empty folder for the results"
    )
    parser.add_argument(
        "--window",
        metavar="HEIGHTxWIDTH",
        help="predict overlapping windows of this size, without resizing the pictures",
    )
    parser.add_argument(
        "--margin",
        type=int,
        metavar="PIXELS",
        help="drop the predictions this close to an inner edge of a window (default: a quarter of "
        "the window's shorter side)",
    )
    parser.add_argument(
        "--probabilities", action="store_true", help="also write the class probabilities: NAME.npz"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one")
    parser.add_argument(
        "--trust", action="store_true", help="import the functions (code) that the export names"
    )
    return run_command(parser, _predict, argv)


def _predict(options: argparse.Namespace) -> int:
    window = None if options.window is None else _window(options.window)
    margin = _margin(options.margin, window)
    if not is_free(options.out):
        raise InputError(f"out must be a new or empty folder, got {options.out}", key="--out")

    from study.inference.loading import load
    from study.inference.pictures import Writer, find_pictures
    from study.inference.predictor import opened
    from study.training.environment import resolve_device

    pictures = find_pictures(options.images)
    predictor = load(options.export, device=resolve_device(options.device), trust=options.trust)
    writer = Writer(made_folder(options.out, "--out"), predictor)
    failed, larger = 0, 0
    for one in pictures:
        try:
            image = opened(one.file)
        except InputError as error:
            show(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        try:
            found = predictor.predict(
                image, window=window, margin=margin, probabilities=options.probabilities
            )
        except Exception as error:  # the network may be anyone's
            height, width = image.shape[:2]
            what = f"the network fails on {one.file} ({height}x{width}): {deed(error)}"
            show(f"error: {printable(what)}", file=sys.stderr)
            failed += 1
            continue
        writer.write(one.name, image, found)
        larger += window is None and _is_much_larger(image.shape[:2], predictor.size)
    done = len(pictures) - failed
    show(f"{done} picture{'s' * (done != 1)} predicted: {options.out}")
    if larger:
        assert predictor.size is not None
        size = "x".join(map(str, predictor.size))
        show(
            f"note: {larger} of them are more than twice as large as the {size} that the network "
            f"learned from, to which they were brought; if they show things at the size that "
            f"its training images did, use --window {size}"
        )
    return EXIT_SOME_FAILED if failed else 0


def _is_much_larger(shape: tuple[int, ...], size: tuple[int, int] | None) -> bool:
    return size is not None and all(
        have > MUCH_LARGER * learned for have, learned in zip(shape, size, strict=True)
    )


def _window(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and 8 <= int(part) <= 2**15 for part in parts):
        raise InputError(
            f"window must be HEIGHTxWIDTH in pixels, each from 8 to 32768, got {text!r}",
            hint="for example 512x1024",
            key="--window",
        )
    height, width = (int(part) for part in (parts * 2)[:2])
    return height, width


def _margin(given: int | None, window: tuple[int, int] | None) -> int | None:
    if given is None:
        return None
    if window is None:
        raise InputError("margin is of windows", hint="give --window, too", key="--margin")
    most = (min(window) - 1) // 2
    if not 0 <= given <= most:
        raise InputError(f"margin must be in [0, {most}], got {given}", key="--margin")
    return given


if __name__ == "__main__":
    sys.exit(main())
