"""`python -m study.data convert TOOL SRC DST`: turn annotations into a folder data set."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from study.core.console import Parser, run_command, show
from study.core.errors import InputError
from study.core.files import expanded, resolved
from study.core.names import TEST, VAL
from study.data.convert import arrays, folders, raster
from study.data.convert.coco import read_coco
from study.data.convert.cvat import read_cvat
from study.data.convert.darwin import read_darwin
from study.data.convert.datumaro import read_datumaro
from study.data.convert.encord import read_encord
from study.data.convert.export import Export, Source
from study.data.convert.labelbox import read_labelbox
from study.data.convert.labelme import read_labelme
from study.data.convert.labelstudio import read_labelstudio
from study.data.convert.regions import read_regions
from study.data.convert.rle import read_rle
from study.data.convert.superannotate import read_superannotate
from study.data.convert.supervisely import read_supervisely
from study.data.convert.via import read_via
from study.data.convert.write import (
    BACKGROUND,
    Options,
    Order,
    Unlabelled,
    Written,
    write_folder,
)
from study.data.convert.yolo import read_yolo
from study.data.labels import IGNORED
from study.data.splits import SPLITS

TOOLS: Mapping[str, Callable[[Source], Export]] = {
    "coco": read_coco,
    "labelme": read_labelme,
    "cvat": read_cvat,
    "labelstudio": read_labelstudio,
    "yolo": read_yolo,
    "rle": read_rle,
    "rle-rows": partial(read_rle, order="C"),
    "via": read_via,
    "supervisely": read_supervisely,
    "darwin": read_darwin,
    "regions": read_regions,
    "datumaro": read_datumaro,
    "encord": read_encord,
    "labelbox": read_labelbox,
    "superannotate": read_superannotate,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code.

    An export that cannot be used gives exit code 2 and one line, and nothing is written.
    """
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in _WITHOUT_EXPORT:
        return _WITHOUT_EXPORT[words[0]](words[1:])
    parser = Parser("data convert", __doc__)
    parser.add_argument(
        "tool",
        metavar="TOOL",
        choices=TOOLS,
        help=f"{', '.join(TOOLS)}; arrays, folders: see `convert arrays --help`",
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="the export: a folder or a file")
    parser.add_argument("target", metavar="DST", type=Path, help="the new folder")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder that holds the images (default: SRC)"
    )
    parser.add_argument(
        "--boxes", action="store_true", help="draw the boxes of detection labels as filled objects"
    )
    parser.add_argument(
        "--order",
        choices=get_args(Order),
        default="file",
        help="which objects lie on top: later ones (file), or smaller ones (area)",
    )
    parser.add_argument(
        "--unlabelled",
        choices=get_args(Unlabelled),
        default="background",
        help="pixels outside of all objects: class `background`, or ignored",
    )
    parser.add_argument(
        "--link", action="store_true", help="make hard links to the images instead of copies"
    )
    return run_command(parser, _convert, argv)


def _convert(arguments: argparse.Namespace) -> int:
    raster.require()
    images = arguments.images and expanded(arguments.images, "--images")
    source = Source.of(expanded(arguments.source, "SRC"), images)
    export = TOOLS[arguments.tool](source)
    if not any(picture.split for picture in export.pictures):
        export.pictures = [source.in_split(picture) for picture in export.pictures]
    options = Options(arguments.boxes, arguments.order, arguments.unlabelled, arguments.link)
    written = write_folder(export, arguments.target, options)
    unused = {one for some in source.images.values() for one in some}
    unused -= {picture.file for picture in export.pictures}
    export.notes["images below SRC that are not in the export"] += len(unused)
    show(*_summary(export, written, options), f"written: {arguments.target}")
    show(f"next: python -m study.init {shlex.quote(str(arguments.target))}")
    return 0


def _arrays_main(argv: Sequence[str]) -> int:
    parser = Parser("data convert arrays", arrays.__doc__ or "")
    parser.add_argument("source", metavar="SRC", type=Path, help="the folder of arrays")
    parser.add_argument("target", metavar="DST", type=Path, help="the new folder")
    parser.add_argument(
        "--range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="the values of images that become 0 and 255, such as -160 240 of a CT",
    )
    parser.add_argument(
        "--bands",
        type=int,
        nargs=3,
        metavar=("RED", "GREEN", "BLUE"),
        help="which bands of an image become red, green and blue, from 1 on, such as 4 3 2",
    )
    return run_command(parser, _convert_arrays, argv)


def _convert_arrays(arguments: argparse.Namespace) -> int:
    if arguments.bands and min(arguments.bands) < 1:
        raise InputError(f"bands count from 1 on, got {arguments.bands}", key="--bands")
    if arguments.range and not -math.inf < arguments.range[0] < arguments.range[1] < math.inf:
        message = f"LOW must be below HIGH, and both finite, got {arguments.range}"
        raise InputError(message, key="--range")
    root, target = resolved(arguments.source, "SRC"), resolved(arguments.target, "DST")
    written = arrays.convert_arrays(root, target, span=arguments.range, bands=arguments.bands or ())
    show(f"pictures: {written.pictures}")
    show(*(f"  {place}: {role}" for place, role in written.roles.items()))
    show(*(f"note: {what}: {number}" for what, number in written.notes.items()))
    show(f"written: {arguments.target}")
    show(f"next: python -m study.init {shlex.quote(str(arguments.target))}")
    return 0


def _folders_main(argv: Sequence[str]) -> int:
    parser = Parser("data convert folders", folders.__doc__ or "")
    parser.add_argument("source", metavar="SRC", type=Path, help="the folder of all of them")
    parser.add_argument("target", metavar="DST", type=Path, help="the new folder")
    for what in ("images", "labels"):
        parser.add_argument(
            f"--{what}",
            metavar="TEXT",
            default="",
            help=f"what the paths of the {what} have in them, where several could be meant",
        )
    return run_command(parser, _convert_folders, argv)


def _convert_folders(arguments: argparse.Namespace) -> int:
    raster.require()
    root, target = resolved(arguments.source, "SRC"), resolved(arguments.target, "DST")
    texts = {"images": arguments.images, "labels": arguments.labels}
    told = folders.convert_folders(root, target, **texts)
    show(*(_summary(*told.masks, Options(order="area")) if told.masks else _images(told.images)))
    if not told.masks:
        show(*(f"note: {what}: {number}" for what, number in told.notes.items() if number))
    show(f"written: {arguments.target}")
    show(f"next: python -m study.init {shlex.quote(str(arguments.target))}")
    return 0


_WITHOUT_EXPORT = {"arrays": _arrays_main, "folders": _folders_main}


def _images(by_split: Mapping[str, int]) -> Iterator[str]:
    of = {"in one folder": by_split.get("", 0)} | {one: by_split.get(one, 0) for one in SPLITS}
    yield f"images: {', '.join(f'{where} {number}' for where, number in of.items() if number)}"


def _summary(export: Export, written: Written, options: Options) -> Iterator[str]:
    yield from _images(written.images)
    if TEST in written.rule and written.rule[TEST] == VAL:
        yield "splits: the export has no test, so val is test, and val is carved from train"
    elif written.rule:
        shares = " and ".join(f"{share:.0%} {split}" for split, share in written.rule.items())
        yield f"splits: {shares} by the hash of the name"
    length = max(9, *map(len, written.classes))
    total = written.pixels.sum()
    yield f"  {'class':{length}}{'objects':>9}{'pixels %':>10}"
    ids = {**dict(enumerate(written.classes)), IGNORED: "(ignored)"}
    for index, name in ids.items():
        share = 100 * written.pixels[index] / total
        if index != IGNORED or share:
            yield f"  {name:{length}}{written.objects[name] or '-':>9}{share:10.3f}"
    if written.pixels[0] == 0 and written.classes[0] == BACKGROUND:
        yield "warning: no pixel is background; --unlabelled ignore leaves this class out"
    if written.empty:
        yield f"images without any object: {written.empty}"
    yield from (f"note: {what}: {number}" for what, number in export.notes.items() if number)
    if written.specks:
        yield f"warning: objects too small for a pixel: {written.specks}"
    if written.overlap:
        rule = "later objects cover earlier ones"
        rule = rule if options.order == "file" else "smaller objects cover larger ones"
        share = 100 * written.overlap / total
        yield f"overlap: {share:.3f} % of the pixels have two classes; {rule}"
    if written.hidden:
        hint = "; --order area puts small ones on top" if options.order == "file" else ""
        yield f"warning: objects that lie below others altogether: {written.hidden}{hint}"
