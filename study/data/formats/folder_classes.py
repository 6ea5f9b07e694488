"""classes.yaml of a folder data set: the classes, what stands for them in the labels, the files.

Only the classes are required. The config types are the schema of the file; keys that resemble none
of theirs are notes, and are ignored.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from study.core.errors import InputError, did_you_mean, is_control, line_of, shown
from study.core.names import TEST, TRAIN, VAL
from study.core.validation import validate
from study.core.yaml_file import YamlFile, read_yaml
from study.data.labels import Colour
from study.data.splits import IMAGENET_MEAN, IMAGENET_STD, MAX_CLASSES, UInt8Array, default_palette

LOWEST, HIGHEST = -(2**15), 2**16 - 1  # of a label file's values
IGNORE = "ignore"
SPLIT, NAME, FOLDER = "{split}", "{name}", "{folder}"
OTHER = "other"
TABLE = "table"  # the key of a table that has the split of each image
SYNONYMS = {
    TRAIN: ("training", "trainval", "train_val"),
    VAL: ("valid", "validation"),
    TEST: ("testing",),
}
SPLIT_OF = {word: split for split, words in SYNONYMS.items() for word in (split, *words)}
_PLACES = (
    *("image_dir", "label_dir", "image_suffix", "label_suffix", "image_path", "label_path"),
    "masks",
)  # what says where the files are
_NEAR = 0.8  # likeness from which an unknown key is a mistake and no note
_LIST = (".txt", ".csv", ".lst", ".list", ".json")


def _text(value: Any, info: ValidationInfo) -> str:
    if not isinstance(value, str) or not value:
        hint = "; quote yes, no, on and off" if isinstance(value, bool) else ""
        raise ValueError(
            f"{info.field_name} must be text that is not empty, got {shown(value)}{hint}"
        )
    if is_control(value):
        raise ValueError(f"{info.field_name} must be printable text, got {shown(value)}")
    return value


def _colour(value: Any) -> Colour:
    found = as_colour(value) if isinstance(value, str) else value
    if (
        not isinstance(found, list | tuple)
        or len(found) != 3
        or not all(_is_int(part) and 0 <= part <= 255 for part in found)
    ):
        got = value if isinstance(value, list) else shown(value)
        must = "must be three whole numbers in [0, 255] (RGB) or '#rrggbb'"
        raise ValueError(f"color {must}, got {got}")
    return found[0], found[1], found[2]


def as_colour(text: str) -> Colour | None:
    """The colour that `#rrggbb` or `r, g, b` names; None for other text."""
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
    parts = re.fullmatch(r"\[?\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\]?", text)
    if parts and all(int(part) <= 255 for part in parts.groups()):
        red, green, blue = map(int, parts.groups())
        return red, green, blue
    return None


def _rgb(name: str) -> Callable[[Any], tuple[float, ...]]:
    def check(value: Any) -> tuple[float, ...]:
        if (
            not isinstance(value, list | tuple)
            or len(value) != 3
            or not all(
                isinstance(one, int | float) and not isinstance(one, bool) and 0 <= one <= 1
                for one in value
            )
        ):
            got = value if isinstance(value, list) else shown(value)
            raise ValueError(f"{name} must be three numbers in [0, 1] (RGB), got {got}")
        if name == "std" and min(value) == 0:
            raise ValueError(f"std must be > 0, got {value}")
        return tuple(float(one) for one in value)

    return check


def _entries(value: Any) -> list[Any]:
    """Names, entries, or a mapping of values to names, as a list of entries."""
    if isinstance(value, dict) and value and all(_is_int(key) for key in value):
        return [{"id": key, "name": name} for key, name in value.items()]
    if not isinstance(value, list) or not value:
        got = value if isinstance(value, list) else shown(value)
        kinds = "a list of names or of {id, name, color}"
        raise ValueError(f"classes must be {kinds}, got {got}")
    if len(value) > MAX_CLASSES:
        raise ValueError(f"classes must have at most {MAX_CLASSES} entries, got {len(value)}")
    return [one if isinstance(one, dict) else {"name": one} for one in value]


def _several(value: Any) -> Any:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _with_text_keys(value: Any, info: ValidationInfo) -> Any:
    if value is None:
        hint = "quote a colour: '#ff0000'"
        raise ValueError(f"{info.field_name} must be a mapping, got nothing; {hint}")
    if not isinstance(value, dict):
        return value
    return {str(key): one for key, one in value.items()}


def _splits(value: Any) -> Any:
    """Splits by their own names; whole numbers are a note of how many images there are."""
    if isinstance(value, str) and is_list(value):
        return {TABLE: (value,)}
    if not isinstance(value, dict):
        return value
    if all(_is_int(one) for one in value.values()):
        return {}
    found: dict[str, Any] = {}
    for key, one in value.items():
        split = SPLIT_OF.get(str(key).lower())
        if split is None:
            hint = did_you_mean(key, SYNONYMS)
            raise ValueError(f"unknown split {key!r}{'; ' if hint else ''}{hint}")
        several = one if isinstance(one, list) else [one]
        if isinstance(one, float) and 0 < one < 1:
            if split == TRAIN:
                raise ValueError("train is the rest; give the ratios of val and test")
            found[split] = one
        elif several and all(isinstance(part, str) and part for part in several):
            found[split] = tuple(SPLIT_OF.get(part.lower(), part) for part in several)
        else:
            what = "a list of names (.txt, .csv, .json), a folder, or a ratio between 0 and 1"
            raise ValueError(f"{key} must be {what}, got {shown(one)}")
    if sum(one for one in found.values() if isinstance(one, float)) >= 1:
        raise ValueError("the ratios of val and test must add up to less than 1")
    return found


Text = Annotated[str, BeforeValidator(_text)]
Keys = Annotated[
    tuple[str, ...],
    BeforeValidator(_several, json_schema_input_type=int | str | list[int | str]),
    Field(strict=False),
]
TextByKey = Annotated[dict[str, Text], BeforeValidator(_with_text_keys)]
Value = Annotated[int, Field(ge=0, le=HIGHEST)]
Byte = Annotated[int, Field(ge=0, le=255)]


class _Notable(BaseModel):
    """A mapping in which unknown keys are notes."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class ClassEntry(_Notable):
    """id: what stands in the label files, by default the position; color: RGB or '#rrggbb', what
    stands in painted labels, and what the class is drawn in."""

    id: Value | None = None
    name: Text
    color: (
        Annotated[
            Colour,
            BeforeValidator(_colour, json_schema_input_type=str | tuple[Byte, Byte, Byte]),
            Field(strict=False),
        ]
        | None
    ) = None


class ClassesFile(_Notable):
    """The classes of a folder data set, what stands for them in its labels, and its files."""

    name: Text = Field("folder", description="Name of the data set.")
    classes: Annotated[
        list[ClassEntry],
        BeforeValidator(_entries, json_schema_input_type=list[str | ClassEntry] | dict[int, str]),
    ] = Field(
        default_factory=list,
        description="Names, entries {id, name, color}, or {value: name}. Names without an id have "
        "the values 0, 1, 2, ... that are not ignored. By default the names in `labels`, in order.",
    )
    num_classes: int | None = Field(None, description="Checked against the number of classes.")
    labels: TextByKey = Field(
        default_factory=dict,
        description="What stands in a label file: a value (255), a range (128..255), a colour "
        "('#ff0000', '255, 0, 0') or `other`; and the class that it means, or `ignore`.",
    )
    ignore: Keys = Field((), description="Values, ranges and colours that do not count.")
    ignore_index: int = Field(255, ge=0, le=255, description="The value that does not count.")
    read: Literal["index", "colour", "alpha"] | None = Field(
        None,
        description="What counts in a palette or RGB label that can be read either way; alpha: "
        "how opaque its pixels are, from 0 to 255.",
    )
    resize_labels: bool = Field(
        False,
        description="Whether labels of another size than their images, but of their proportions, "
        "are brought to it, by the nearest pixel.",
    )
    missing_label: Text | None = Field(
        None, description="The class, or `ignore`, of an image without a label file."
    )
    masks: TextByKey = Field(
        default_factory=dict,
        description="One binary mask a class instead of one label an image: a folder "
        "(masks/crack/{split}) or a file ('{name}_crack.png', in label_dir). What is later in the "
        "list is drawn over what is earlier. A file that is missing means none of the class.",
    )
    threshold: int | None = Field(
        None, ge=1, le=255, description="The grey value from which a pixel of `masks` is in."
    )
    image_dir: Text | None = Field(None, description="By default images/{split}.")
    label_dir: Text | None = Field(None, description="By default labels/{split}.")
    image_suffix: Text | None = Field(None, description="What a file has after its name.")
    label_suffix: Text | None = Field(None, description="What a file has after its name.")
    image_path: Text | None = Field(
        None,
        description="In place of image_dir and image_suffix: the path of an image below the root, "
        "with {name}, which may be several times there, * for any text, {split}, and {folder} for "
        "a folder that belongs to the name.",
    )
    label_path: Text | None = Field(
        None, description="In place of label_dir and label_suffix: the path of a label."
    )
    pairs: Keys = Field(
        (),
        description="Tables (.csv, .txt, .tsv, .jsonl) with an image and its label in each row, "
        "where their names do not say which belong together.",
    )
    splits: Annotated[
        dict[str, tuple[str, ...] | float],
        BeforeValidator(
            _splits,
            json_schema_input_type=str
            | dict[
                Literal["train", "val", "test"], str | list[str] | Annotated[float, Field(gt=0)]
            ],
        ),
    ] = Field(
        default_factory=dict,
        description="Of train, val, test: a list of names (train.txt, val.csv), a folder's name "
        "in place of {split} (test: val), names with * in them (train_*), several of these, or a "
        "ratio of train by the hash of the name (0.15). Or a table (.csv) with the split of each "
        "image. Whole numbers are a note.",
    )
    group: Text | None = Field(
        None,
        description="A regular expression with one (group) in the name: images that agree in it "
        "come into one split, and are resampled together.",
    )
    mean: Annotated[tuple[float, ...], BeforeValidator(_rgb("mean"))] = Field(
        IMAGENET_MEAN, description="Of the images, RGB on a scale of 0..1."
    )
    std: Annotated[tuple[float, ...], BeforeValidator(_rgb("std"))] = Field(
        IMAGENET_STD, description="Of the images, RGB on a scale of 0..1."
    )


@dataclass(frozen=True, eq=False)
class Meaning:
    """What stands in label files, and the class that it means; ignored is the ignore_index.

    Attributes:
        values: value -> class.
        colours: colour -> class; empty unless labels can be read by colour.
        other: the class of everything else, if that is stated.
        by_colour: whether labels are to be read by colour (True), by value (False), or whichever
            is known (None).
        has_ranges: whether values are cut, so that blurred labels can be read.
        ignores_255: whether it is stated that 255 does not count.
    """

    values: Mapping[int, int]
    colours: Mapping[Colour, int]
    other: int | None
    by_colour: bool | None
    has_ranges: bool
    ignores_255: bool


@dataclass(frozen=True, eq=False)
class Classes:
    """Class c is names[c], drawn in palette[c]. `stated` is the file as it is.

    Attributes:
        meaning: what stands in label files.
        masks: of each mask, in drawing order, its class and where its files are.
        unmasked: the class of the pixels of no mask.
        missing: the class of images without a label file; None if each must have one.
    """

    names: tuple[str, ...]
    palette: UInt8Array  # (C, 3)
    ignore_index: int
    meaning: Meaning
    masks: tuple[tuple[int, str], ...]
    unmasked: int
    missing: int | None
    stated: ClassesFile
    file: YamlFile

    def error(self, key: str, offence: str, **more: Any) -> InputError:
        """The error line for a key of the file."""
        return _error(self.file, key, offence, **more)


def read_classes(file: Path) -> Classes:
    """Read and check the file. Raises InputError with the file, the line and the key."""
    content = read_yaml(file)
    return _Reader(content).classes()


class _Reader:
    def __init__(self, file: YamlFile) -> None:
        self.file = file
        self._refuse_near_misses(file.data, ClassesFile, "", ("names",))
        data = dict(file.data)
        self.key = "names" if "names" in data and "classes" not in data else "classes"
        data["classes"] = data.pop(self.key, None)
        if data["classes"] is None and (data.get("labels") or data.get("masks")):
            del data["classes"]
        if isinstance(data.get("classes"), list):
            for position, entry in enumerate(data["classes"]):
                if isinstance(entry, dict):
                    where = f"{self.key}/{position}"
                    self._refuse_near_misses(entry, ClassEntry, where)
        lines = {
            re.sub(r"^names(?=/|$)", "classes", key) if self.key == "names" else key: line
            for key, line in file.lines.items()
        }
        self.stated = validate(ClassesFile, data, file=file.file, lines=lines)

    def classes(self) -> Classes:
        stated = self.stated
        entries = stated.classes or [ClassEntry(name=name) for name in self._implied()]
        names = [entry.name for entry in entries]
        for position, name in enumerate(names):
            if name in names[:position]:
                raise self._error(f"{self.key}/{position}/name", f"duplicate class {name!r}")
        if stated.num_classes not in (None, len(names)):
            must = f"must be {len(names)}, the number of listed classes"
            raise self._error("num_classes", f"num_classes {must}, got {stated.num_classes}")
        values = self._own_values(entries)
        if sorted(values) == [*range(len(values))]:  # ids are the classes' order then
            entries = [entries[values.index(index)] for index in range(len(values))]
            values = sorted(values)
            names = [entry.name for entry in entries]
        self.names = names
        self.ignored = stated.ignore_index if stated.ignore_index >= len(names) else 255
        palette = default_palette(len(names))
        for index, entry in enumerate(entries):
            if entry.color is not None:
                palette[index] = entry.color
        for what in ("image", "label"):
            self._check_path(what)
        for key in _PLACES if stated.pairs else ():
            if key in stated.model_fields_set:
                raise self._error(key, f"{key} has no meaning beside pairs")
        masks, unmasked = self._masks()
        missing = stated.missing_label
        return Classes(
            names=tuple(names),
            palette=palette,
            ignore_index=self.ignored,
            meaning=self._meaning(entries, values),
            masks=masks,
            unmasked=unmasked,
            missing=None if missing is None else self._class("missing_label", missing),
            stated=stated,
            file=self.file,
        )

    def _implied(self) -> list[str]:
        """The classes that `masks` or `labels` name; those of masks lie on a background."""
        stated = self.stated
        named = [name for name in (stated.masks or stated.labels.values()) if name != IGNORE]
        on = [stated.missing_label or "background"] if stated.masks else []
        return [*dict.fromkeys([*(one for one in on if one != IGNORE), *named])]

    def _own_values(self, entries: list[ClassEntry]) -> list[int]:
        """The value that each class has by its id or position."""
        skipped = {value for key in self.stated.ignore for value in self._values("ignore", key)}
        if self.stated.ignore_index < len(entries):
            skipped.add(self.stated.ignore_index)
        free = [value for value in range(len(entries) + len(skipped)) if value not in skipped]
        values = [
            free[position] if entry.id is None else entry.id
            for position, entry in enumerate(entries)
        ]
        for position, value in enumerate(values):
            if value in values[:position]:
                raise self._error(f"{self.key}/{position}/id", f"duplicate id {value}")
            if value in skipped:
                where = "ignore" if self.stated.ignore else "ignore_index"
                message = f"{value} is the id of class {entries[position].name!r}"
                raise self._error(where, message, hint="an ignored value is no class")
        return values

    def _meaning(self, entries: list[ClassEntry], own: list[int]) -> Meaning:
        stated = self.stated
        values: dict[int, tuple[int, str]] = {}
        colours: dict[Colour, tuple[int, str]] = {}
        other = None
        texts = [("labels", key, name) for key, name in stated.labels.items()]
        texts += [("ignore", key, IGNORE) for key in stated.ignore]
        if "ignore_index" in stated.model_fields_set:
            texts.append(("ignore_index", str(stated.ignore_index), IGNORE))
        for where, key, name in texts:
            place = f"labels/{key}" if where == "labels" else where
            index = self._class(place, name)
            if key == OTHER and where == "labels":
                other = index
                continue
            colour = as_colour(key)
            found: Iterable[Any] = [colour] if colour else self._values(place, key)
            known: dict[Any, tuple[int, str]] = colours if colour else values
            for one in found:
                if one in known and known[one][1] != place:
                    message = f"{one} is mapped twice, here and in {known[one][1]}"
                    raise self._error(place, message)
                known[one] = index, place
        stated_colours = bool(colours)
        named = {self._class("labels", name) for name in stated.labels.values() if name != IGNORE}
        for index, (entry, value) in enumerate(zip(entries, own, strict=True)):
            if entry.id is None and (index in named or stated_colours):
                continue
            if value in values and values[value][0] != index:
                message = f"{value} is the value of class {entry.name!r} already"
                hint = f"map what stands for {entry.name!r}, too"
                raise self._error(values[value][1], message, hint=hint)
            values[value] = index, self.key
        painted = {index for index, _ in colours.values()}
        own_colours = {
            index: entry.color
            for index, entry in enumerate(entries)
            if entry.color is not None and index not in painted
        }
        differ = len({*own_colours.values()}) == len(own_colours)
        if stated_colours or (len(own_colours) == len(entries) and differ):
            for index, own_colour in own_colours.items():
                if own_colour in colours:
                    message = f"{own_colour} is the colour of class {entries[index].name!r}"
                    raise self._error(colours[own_colour][1], f"{message} already")
                colours[own_colour] = index, self.key
        says_255 = 255 in values
        if not says_255 and stated.ignore_index == 255:
            values[255] = self.ignored, "ignore_index"
        return Meaning(
            values={value: index for value, (index, _) in values.items()},
            colours={colour: index for colour, (index, _) in colours.items()},
            other=other,
            by_colour=True
            if stated_colours and stated.read is None
            else None
            if stated.read is None
            else stated.read == "colour",
            has_ranges=any(".." in key for key in (*stated.labels, *stated.ignore)),
            ignores_255=says_255 and values[255][1] != "ignore_index",
        )

    def _values(self, place: str, key: str) -> range:
        """The values of a key: `7`, or `128..255`."""
        found = re.fullmatch(r"\s*(-?\d+)\s*(?:\.\.\s*(-?\d+)\s*)?", key)
        if found is None:
            if as_colour(key) is not None:
                return range(0)
            what = "a value (255), a range (128..255), a colour ('#ff0000')"
            allowed = f"{what} or `{OTHER}`" if place.startswith("labels") else what
            raise self._error(place, f"must be {allowed}, got {key!r}")
        low, high = int(found[1]), int(found[2] or found[1])
        if not LOWEST <= low <= high <= HIGHEST:
            must = f"must be from low to high, in [{LOWEST}, {HIGHEST}]"
            raise self._error(place, f"{must}, got {key!r}")
        return range(low, high + 1)

    def _class(self, key: str, name: str) -> int:
        """The class of that name, or the ignored one."""
        if name == IGNORE:
            if IGNORE in self.names:
                message = f"{IGNORE!r} is a class here, and the word for what does not count"
                raise self._error(key, message, hint="rename the class")
            return self.ignored
        if name not in self.names:
            raise self._error(
                key, f"unknown class {name!r}", hint=did_you_mean(name, self.names),
                allowed=(*self.names, IGNORE),
            )  # fmt: skip
        return self.names.index(name)

    def _masks(self) -> tuple[tuple[tuple[int, str], ...], int]:
        stated = self.stated
        if not stated.masks:
            if stated.threshold is not None:
                hint = "`labels: {0..127: NAME, 128..255: NAME}` cuts the values of labels"
                raise self._error("threshold", "threshold is for `masks`", hint=hint)
            return (), self.ignored
        for key in ("labels", "ignore", "read"):
            if key in stated.model_fields_set:
                raise self._error(key, f"{key} has no meaning beside `masks`")
        masks = tuple(
            (self._class(f"masks/{name}", name), where) for name, where in stated.masks.items()
        )
        if stated.missing_label is not None:
            return masks, self._class("missing_label", stated.missing_label)
        bare = [name for name in self.names if name not in stated.masks]
        if len(bare) != 1:
            what = f"classes without a mask: {', '.join(bare)}" if bare else "all have a mask"
            raise self._error(
                "masks",
                f"the pixels of no mask need one class, got {what}",
                hint="`missing_label: NAME` or `missing_label: ignore` says what they are",
            )
        return masks, self._class("masks", bare[0])

    def _check_path(self, what: str) -> None:
        """A path has a name in it, and nothing else says where the files are."""
        given = getattr(self.stated, f"{what}_path")
        if given is None:
            return
        if NAME not in given:
            raise self._error(f"{what}_path", f"{what}_path must contain {NAME}, got {given!r}")
        for other in (f"{what}_dir", f"{what}_suffix"):
            if other in self.stated.model_fields_set:
                raise self._error(other, f"{other} has no meaning beside {what}_path")

    def _refuse_near_misses(
        self,
        given: Mapping[Any, Any],
        model: type[BaseModel],
        above: str,
        more: tuple[str, ...] = (),
    ) -> None:
        known = (*model.model_fields, *more)
        for key in map(str, given):
            close = difflib.get_close_matches(key, known, 1, cutoff=_NEAR)
            if close and key not in known:
                where = f"{above}/{key}" if above else key
                hint = f"did you mean {close[0]!r}?"
                raise self._error(where, f"unknown key {key!r}", hint=hint)

    def _error(self, key: str, offence: str, **more: Any) -> InputError:
        return _error(self.file, key, offence, **more)


def is_list(part: str) -> bool:
    """Whether the part of a split is a file with names."""
    return part.lower().endswith(_LIST)


def _error(file: YamlFile, key: str, offence: str, **more: Any) -> InputError:
    return InputError(offence, file=file.file, line=line_of(key, file.lines), key=key, **more)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
