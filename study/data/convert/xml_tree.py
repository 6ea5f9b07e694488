"""The tree of an XML file, whose elements know their lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from study.core.errors import InputError
from study.data.convert.export import Place, read_text

LINE = "line of the file"  # an attribute that no XML can have


def parsed(file: Path) -> ElementTree.Element:
    """The tree of an XML file, whose elements know their line.

    A document type is refused, and with it all entities: those that expand without end, and those
    that read other files.
    """
    parser, builder = expat.ParserCreate("UTF-8"), ElementTree.TreeBuilder()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {**attributes, LINE: str(parser.CurrentLineNumber)})

    def refuse(*_: Any) -> None:
        message = "the file declares a document type, which no export does"
        raise InputError(message, file=file, line=parser.CurrentLineNumber)

    parser.StartElementHandler, parser.EndElementHandler = start, builder.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        parser.Parse(read_text(file).encode(), True)
    except expat.ExpatError as error:
        message = f"the file is not XML: {expat.ErrorString(error.code)}"
        raise InputError(message, hint="export it again", file=file, line=error.lineno) from error
    root: ElementTree.Element = builder.close()
    return root


def place_of(element: ElementTree.Element | None, place: Place) -> Place:
    if element is None:
        return place
    return replace(place, line=int(element.attrib[LINE]), key=element.tag)
