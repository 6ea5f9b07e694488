"""Which folders of a data set hold images, which labels, and how they are divided into splits."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from study.config.task import CamvidData, CityscapesData, FileData, SynthiaData, VocData
from study.core.errors import InputError
from study.core.names import TEST, TRAIN, VAL
from study.data import scan_files
from study.data.first_look.endings import (
    COMPARED,
    beginnings,
    behind,
    images_among,
    kinds,
    masks_of_classes,
    numbered_masks,
)
from study.data.first_look.gather import BARE, UNLABELLED, Several, gather
from study.data.first_look.pictures import (
    BESIDE,
    OBJECTS,
    PHOTO,
    are_alike,
    are_classes,
    are_masks,
    are_recoloured,
    by_area,
    folder_of,
    is_grey,
    kind_order,
    look_like_labels,
    pictures,
)
from study.data.formats.folder_classes import FOLDER, NAME, SPLIT, SPLIT_OF, SYNONYMS, read_classes
from study.data.formats.folder_files import IMAGE_SUFFIXES, FolderFiles
from study.data.formats.folder_hints import (
    OTHER,
    arrays_command,
    called_labels,
    convert_command,
    form_of,
    is_label,
    pair_tables,
    pairing,
    pictures_in,
    split_lists,
    split_of_list,
    split_table,
    templates,
    walk,
    without_pictures,
)
from study.data.scan import Findings
from study.data.splits import SPLITS

PUBLISHED = {
    "cityscapes": ("leftImg8bit", "gtFine"),
    "voc": ("VOCdevkit",),
    "synthia": ("GT/LABELS", "RGB"),
    "camvid": ("701_StillsRaw_full",),
}
"""By format, the folders that a published data set has."""
_FORMATS: Mapping[str, type[FileData]] = {
    "cityscapes": CityscapesData, "voc": VocData, "synthia": SynthiaData, "camvid": CamvidData,
}  # fmt: skip
_WORDS = f"(?i:{'|'.join(sorted(SPLIT_OF, key=len, reverse=True))})"
_ENDINGS = {"label_suffix", "label_path"}
CONSTANT = 0.9  # of the folders with pictures have files of the same names
RATIO = 0.15
MOST_NAMED = 4  # folders in a line
BACKGROUND = "background"
MOST_GROUPED = 0.5  # of the images may be in one group


@dataclass
class Layout:
    """What goes into classes.yaml about files, by key. guesses: which are guesses, and why;
    left_out: folders and files that are taken for neither images nor labels."""

    keys: dict[str, object] = field(default_factory=dict)
    guesses: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def published_format(root: Path) -> str:
    """The format of a published data set whose whole tree lies here, or ""."""
    for name, folders in PUBLISHED.items():
        if all((root / folder).is_dir() for folder in folders):
            config = _FORMATS[name].model_validate({"format": name, "size": [32, 32]})
            try:
                scan = scan_files(config, root)
                scan.members()
                if not scan.findings.faults:
                    return name
            except InputError:
                continue
    return ""


def layout(root: Path, empty: Path, images: str | None, labels: str | None) -> Layout:
    """Find the images, the labels and the splits.

    Args:
        root: of the data set.
        empty: a classes.yaml that says nothing about files.
        images, labels: their folders, where it is known.

    Raises:
        InputError: where no images with labels can be told; the line says what there is.
    """
    found = Layout()
    if not (images or labels) and _by_constant_names(root, found):
        _divide(root, str(found.keys["image_path"]).partition(NAME)[0].rstrip("/"), "", found)
        return found
    image_dirs, label_dirs = _folders(root, found)
    image_dirs = [images] if images else [one for one in image_dirs if one != labels]
    label_dirs = [labels] if labels else [one for one in label_dirs if one != images]
    if len(image_dirs) == 1 and (masks := _masks(root, image_dirs[0], label_dirs)):
        found.keys["masks"] = masks
        found.guesses["masks"] = "each of these folders has the binary masks of one class"
        if BACKGROUND in masks:
            found.keys["missing_label"] = BACKGROUND
        if image_dirs[0] not in ("images", f"images/{SPLIT}"):
            found.keys["image_dir"] = image_dirs[0]
        _divide(root, image_dirs[0], "", found)
        return found
    image_dirs = _with_labels(root, image_dirs, label_dirs, found)
    if not label_dirs and len(image_dirs) > 1 and _hold_both(root, image_dirs):
        image_dirs = [os.path.commonpath(image_dirs) or "."]
    starred = _starred(image_dirs, label_dirs) or _one_star(root, image_dirs, label_dirs)
    if not starred and (len(image_dirs) != 1 or len(label_dirs) > 1):
        raise _unclear(root, image_dirs, label_dirs)
    if (
        len(starred) == 2
        and "*" in starred[0]
        and _name_by_folders(root, image_dirs, label_dirs, starred, found)
    ):
        _divide(root, starred[0], "", found)
        return found
    image_dir, label_dir = image_dirs[0], (label_dirs or image_dirs)[0]
    _name_files(root, image_dir, label_dir, empty, found)
    if len(starred) == 2:
        starred = _with_folders(root, starred, image_dirs)
    for what, one, with_star in zip(
        ("image", "label"), (image_dir, label_dir), starred, strict=False
    ):
        _star(root, what, one, with_star, found)
    _divide(root, (starred or (image_dir,))[0], label_dir, found)
    return found


def layout_by_tables(root: Path) -> Layout | None:
    """The layout that tables of images and their labels give; None without such tables."""
    tables = pair_tables(root)
    if not tables:
        return None
    found = Layout()
    by_split = {split: one for one in tables if (split := split_of_list(Path(one)))}
    if len(by_split) < 2 or TRAIN not in by_split:
        tables = tables[:1]
    found.keys["pairs"] = tables if len(tables) > 1 else tables[0]
    found.guesses["pairs"] = "names do not say which label belongs to an image, but this does"
    _divide(root, ".", "", found)
    found.keys.pop("group", None)
    found.guesses.pop("group", None)
    return found


def _folders(root: Path, found: Layout) -> tuple[list[str], list[str]]:
    """The folders of images, and those of labels."""
    every = templates(root, nested=False)
    if not every:
        raise InputError("no pictures in this folder", hint=without_pictures(root), file=root)
    beside = [one for one in every if BESIDE.search(one)]
    without = BESIDE if len(beside) < len(every) else None
    found.left_out += beside if without else []
    there = templates(root, without=without)
    if len(there) == 1:
        apart = templates(root, nested=False, without=without)
        if len({_looks_like_labels(root, one) for one in apart}) > 1:
            there = apart
    there = [part for one in there for part in _alternatives(root, one)]
    labels = called_labels(there)
    images = [one for one in there if one not in labels]
    if labels and all(OBJECTS.search(one.rpartition("/")[2]) for one in labels):
        labels += [one for one in images if _looks_like_labels(root, one)]
        images = [one for one in images if one not in labels]
    if other := [one for one in labels if not OBJECTS.search(one.rpartition("/")[2])]:
        found.left_out += [one for one in labels if one not in other]
        labels = other
    if not labels and len(images) > 1:
        labels = [one for one in images if _looks_like_labels(root, one)]
        images = [one for one in images if one not in labels]
        for one in labels:
            found.guesses["label_dir"] = f"the pictures of {one} have few colours"
    if labels and len(photos := [one for one in images if not _looks_like_labels(root, one)]) > 0:
        found.left_out += [one for one in images if one not in photos]
        images = photos
    labels = sorted(_one_kind(root, labels, found), key=lambda one: kind_order(one)[:2])
    if not images:
        images = [one for one in labels if not _looks_like_labels(root, one)]
        labels = [one for one in labels if one not in images]
    like = [_looks_like_labels(root, one) for one in (*images, *labels)]
    if len(images) == len(labels) == 1 and like == [True, False]:
        images, labels = labels, images
        found.guesses["label_dir"] = "by its name it has the images, by its colours the labels"
    return images, labels


def _one_kind(root: Path, labels: list[str], found: Layout) -> list[str]:
    """The folders of labels but for those that are the same in all images, such as the field of
    view of a camera, and for those that only paint what others number."""
    if len(labels) < 2:
        return labels
    alike = [one for one in labels if are_alike(pictures(root, one))]
    kept = [one for one in labels if one not in alike] or labels
    for one in [*kept]:
        others = [other for other in kept if other != one]
        painted = len(kept) > 1 and not _is_grey(root, one)
        if painted and any(
            are_recoloured(pictures(root, one), pictures(root, other))
            for other in others
            if _is_grey(root, other)
        ):
            kept = others
    found.left_out += [one for one in labels if one not in kept]
    return kept


def _is_grey(root: Path, template: str) -> bool:
    return all(is_grey(file) for file in pictures(root, template)[:1])


def _alternatives(root: Path, template: str) -> list[str]:
    """The folders below one, if their files have the same names and are no masks of one class
    each; else the one."""
    above = folder_of(root, template)
    if not above.is_dir() or pictures_in(above, below=False):
        return [template]
    apart = templates(root, nested=False)
    own = [folder_of(root, one) for one in apart if one.rpartition("/")[0] == template]
    below = {one: pictures_in(one, below=False) for one in own if one.is_dir()}
    same = {tuple(os.path.splitext(one)[0] for one in files) for files in below.values()}
    if len(below) < 2 or len(same) > 1 or len(next(iter(same))) < 2:
        return [template]
    elsewhere = [one for one in apart if not one.startswith(f"{template}/")]
    if {one.name for one in below} & {one.rpartition("/")[2] for one in elsewhere}:
        return [template]  # rooms, sites: images are divided as their labels are
    if not all(look_like_labels([one / file for file in files]) for one, files in below.items()):
        return [template]
    if all(are_masks([one / file for file in files]) for one, files in below.items()):
        return [template]
    return [f"{template}/{one.name}" for one in below]


def _with_labels(root: Path, images: list[str], labels: list[str], found: Layout) -> list[str]:
    """The folders of images of which there are labels."""
    if len(labels) != 1:
        return images
    word = next((w for w in re.findall(_WORDS, labels[0]) if SPLIT not in labels[0]), "")
    if word and len(images) == 1 and SPLIT in images[0]:
        one = images[0].replace(SPLIT, word)
        if (root / one).is_dir():
            found.left_out.append(f"the other folders of {images[0]}, without labels")
            return [one]
    labelled = _ids(pictures(root, labels[0]))
    fit = [one for one in images if _ids(pictures(root, one)) & labelled]
    found.left_out += [f"{one}, without labels" for one in images if fit and one not in fit]
    called = [one for one in fit if PHOTO.search(one.rpartition("/")[2])]
    if len(fit) > 1 and len(called) == 1:
        found.left_out += [one for one in fit if one not in called]
        return called
    return fit or images


def _ids(files: list[Path]) -> set[str]:
    """The parts of the files' names that not all of them have."""
    parts = [{*re.split(r"[-_. ]", file.stem)} for file in files]
    return set().union(*parts) - (set.intersection(*parts) if len(parts) > 1 else set())


def _name_files(root: Path, image_dir: str, label_dir: str, empty: Path, found: Layout) -> None:
    """Find out by which names images and labels belong together."""
    shared = image_dir == label_dir
    there = pictures(root, label_dir)
    names = [file.name for file in there]
    images = images_among(names) if shared else [file.name for file in pictures(root, image_dir)]
    labels = [file for file in there if not shared or file.name not in images]
    masks = numbered_masks(images, labels, label_dir)
    if masks or (shared and (masks := _some_numbered(root, label_dir))):
        found.keys["masks"] = {"foreground": masks}
        found.guesses["masks"] = "an image has several binary masks, which are put together"
        if image_dir not in ("images", f"images/{SPLIT}"):
            found.keys["image_dir"] = image_dir
        return
    if masks_by_class := masks_of_classes(images, labels, label_dir):
        found.keys["masks"] = masks_by_class
        found.guesses["masks"] = "an image has a binary mask of each class, named behind its name"
        if image_dir not in ("images", f"images/{SPLIT}"):
            found.keys["image_dir"] = image_dir
        return
    files = FolderFiles(root, read_classes(empty), Findings())
    keys = pairing(image_dir, label_dir, files)
    suffixes = {os.path.splitext(one)[1].lower() for one in images}
    if (
        not shared
        and not keys.keys() & {"image_path", "image_suffix"}
        and not any(suffixes <= {*group} for group in IMAGE_SUFFIXES)
    ):
        keys.pop("image_dir", None)
        keys["image_path"] = f"{image_dir}/{NAME}.*"
    if not shared:
        end = _ending(keys, "image")
        if other := [one for one in images if end not in ("", ".*") and not one.endswith(end)]:
            found.left_out.append(f"{len(other)} images that do not end with {end}")
        taken = keys.get("label_path", keys.get("label_suffix", ""))
        ends = behind([os.path.splitext(one)[0] for one in images], names)
        others = [one for one in ends if ends[one] > 1 and not taken.endswith(one)]
        found.left_out += [f"labels that end with {one}" for one in others if len(ends) > 1]
    if shared:
        told = kinds(there)
        if told is not None and (len(told[1]) > 1 or not keys.keys() & _ENDINGS):
            first, *others = told[1]
            keys = {f"{what}_dir": image_dir for what in ("image", "label")}
            keys |= {"image_suffix": told[0], "label_suffix": first}
            found.left_out += [f"what ends with {one}" for one in others]
        if told is None and (begin := beginnings(there)):
            paths = zip(("image", "label"), begin, strict=True)
            keys = {f"{what}_path": f"{image_dir}/{one}".removeprefix("./") for what, one in paths}
        elif told is None and not look_like_labels(labels or there[1::2]):
            raise _unclear(root, [image_dir], [])
    found.keys |= {key: _for_all_splits(value) for key, value in keys.items()}


def _hold_both(root: Path, folders: Sequence[str]) -> bool:
    """Whether each of the folders has images and their labels, told by their endings."""
    ends = [kinds(pictures(root, one)) for one in folders]
    return None not in ends and all(one == ends[0] for one in ends)


def _some_numbered(root: Path, template: str) -> str:
    """The path of the masks of objects that lie beside their images in some folder below."""
    for folder, _ in walk(folder_of(root, template)):
        names = pictures_in(folder, below=False)
        images = images_among(names)
        labels = [folder / name for name in names if name not in images]
        if masks := numbered_masks(images, labels, template):
            return masks
    return ""


def _starred(images: list[str], labels: list[str]) -> tuple[str, ...]:
    """The folders of images and of labels with * in place of the one part in which they differ, as
    for dates; nothing if they differ otherwise."""
    if len(images) != len(labels) or len(images) < 2:
        return ()
    stars = []
    for some_folders in (images, labels):
        parts = [one.split("/") for one in some_folders]
        columns = [_one_form({*column}) for column in zip(*parts, strict=False)]
        differ = [at for at, one in enumerate(columns) if len(one) > 1]
        if len({*map(len, parts)}) > 1 or not differ or differ[-1] - differ[0] >= len(differ):
            return ()
        stars.append([one if len(one) > 1 else one.pop() for one in columns])
    if [one for one in stars[0] if isinstance(one, set)] != [
        one for one in stars[1] if isinstance(one, set)
    ]:
        return ()
    paths = ("/".join("*" if isinstance(p, set) else p for p in one) for one in stars)
    return tuple(re.sub(r"\*(/\*)+", FOLDER, path) for path in paths)


def _by_constant_names(root: Path, found: Layout) -> bool:
    """Find out whether each image has a folder, in which all files are called as in the others,
    such as image.png and mask.png."""
    there = {
        folder.relative_to(root).as_posix(): tuple(sorted(some))
        for folder, names in walk(root)
        if (some := [one for one in names if one in pictures_in(folder, below=False)])
    }
    times = Counter(
        (form_of(str(PurePosixPath(one).parent)), files) for one, files in there.items()
    )
    (above, files), count = times.most_common(1)[0] if times else (("", ()), 0)
    if count < 3 or count < CONSTANT * len(there) or len(files) < 2:
        return False
    folders = [root / one for one, some in there.items() if some == files][:COMPARED]
    kept = [one for one in files if not BESIDE.search(one)]
    labels = [one for one in kept if look_like_labels([folder / one for folder in folders])]
    photos = [one for one in kept if one not in labels]
    if len(photos) != 1 or not labels:
        return False
    above = above.removeprefix(".")
    label = min(labels, key=lambda one: (bool(OBJECTS.search(one)), not is_label(one), one))
    for what, one in (("image", photos[0]), ("label", label)):
        found.keys[f"{what}_path"] = f"{above}/{NAME}/{one}".lstrip("/")
    found.left_out += [f"{one} in each folder" for one in files if one not in (photos[0], label)]
    return True


def _one_form(parts: set[str]) -> set[str]:
    """The parts with {split} in place of words for splits, if they differ in nothing else."""
    forms = {form_of(one) for one in parts}
    return forms if len(parts) > 1 and len(forms) == 1 else parts


def _with_folders(root: Path, starred: tuple[str, ...], images: list[str]) -> tuple[str, ...]:
    """{folder} in place of * where files of several folders are called alike, or may be."""
    names = [file.stem for one in images for file in pictures(root, one)]
    if len({*names}) == len(names) and not any(SPLIT in one for one in starred):
        return starred
    return tuple(one.replace("*", FOLDER) for one in starred)


def _one_star(root: Path, images: list[str], labels: list[str]) -> tuple[str, ...]:
    """The folders of images with * in place of the one part in which they differ, if all their
    labels are in one folder; nothing if not."""
    if len(labels) != 1 or not (starred := _starred(images, images)):
        return ()
    names = [file.stem for one in images for file in pictures(root, one)]
    return starred[:1] if len({*names}) == len(names) else ()


def _name_by_folders(
    root: Path, images: list[str], labels: list[str], starred: tuple[str, ...], found: Layout
) -> bool:
    """Find out whether each image has a folder of its name, with a label or masks in it."""
    at = starred[0].split("/").index("*")
    names = [one.split("/")[at] for one in images]
    there = [pictures(root, one) for one in images]
    if any(
        [file.stem for file in files] != [name] for files, name in zip(there, names, strict=True)
    ):
        return False
    above, beside = (one.replace("*", NAME) for one in starred)
    found.keys["image_path"] = f"{above}/{NAME}{there[0][0].suffix}"
    drawn = [pictures(root, one) for one in labels]
    if all(
        [file.stem for file in files] == [name] for files, name in zip(drawn, names, strict=True)
    ):
        found.keys["label_path"] = f"{beside}/{NAME}{drawn[0][0].suffix}"
        return True
    if not all(look_like_labels(files, 2) for files in drawn):
        return False
    found.keys["masks"] = {"foreground": f"{beside}/*{drawn[0][0].suffix}"}
    found.guesses["masks"] = "an image has several binary masks, which are put together"
    return True


def _star(root: Path, what: str, folder: str, starred: str, found: Layout) -> None:
    """Put the folder with * into the path of the images or labels."""
    suffix = found.keys.pop(f"{what}_suffix", None)
    found.keys.pop(f"{what}_dir", None)
    ends = {one.suffix for one in pictures(root, folder)}
    end = suffix or (ends.pop() if len(ends) == 1 else ".*")
    path = str(found.keys.get(f"{what}_path", f"{folder}/{{name}}{end}"))
    found.keys[f"{what}_path"] = starred + path.removeprefix(folder)


def _unclear(root: Path, images: list[str], labels: list[str]) -> InputError:
    told = "; ".join(
        f"{what}: {', '.join(folders[:MOST_NAMED]) or 'none'}"
        + f" and {len(folders) - MOST_NAMED} more" * (len(folders) > MOST_NAMED)
        for what, folders in (("images", images), ("labels", labels))
    )
    which = " ".join(
        f"--{what} {shlex.quote(folders[0])}"
        for what, folders in (("images", images), ("labels", labels))
        if len(folders) > 1 and labels
    )
    drawn = "`study.data convert` draws those of annotation tools"
    hint = convert_command(root) or arrays_command(root)
    if not hint:
        ways = [gather_command(root), f"`{which}` chooses" if which else ""]
        if "--images" not in which and "--labels" in ways[0]:
            ways.reverse()  # a choice between labels is the shorter way
        hint = ", or ".join(filter(None, ways)) or f"{drawn}; {OTHER}"
    return InputError(f"cannot tell which pictures are labels ({told})", hint=hint, file=root)


def gather_command(root: Path) -> str:
    """The command that gathers images and labels by the words of their paths, where most of the
    images have a label by these; "" where not."""
    chosen: dict[str, str] = {}
    for _ in range(3):
        try:
            found = gather(root, **chosen)
            break
        except Several as error:
            if error.what in chosen:
                return ""
            chosen[error.what] = error.choice
        except InputError:
            return ""
    else:
        return ""
    bare = found.notes[UNLABELLED] + found.notes[BARE]
    if 2 * found.labelled < len(found.labels) + bare and "images" not in chosen:
        return ""
    what = f"{found.labelled} labelled images"
    if len(found.kinds) > 1:
        what += f", of the classes {', '.join(found.kinds)}"
    words = ["folders", str(root), "DST"]
    words += [part for one, text in chosen.items() for part in (f"--{one}", text)]
    return f"`python -m study.data convert {shlex.join(words)}` gathers {what}"


def _for_all_splits(path: str) -> str:
    """A path in whose file's name a word for a split, as in 21_training.tif, is any text."""
    folder, slash, name = path.rpartition("/")
    if SPLIT not in folder or "{name}" not in name:
        return path
    words = "|".join(sorted(SPLIT_OF, key=len, reverse=True))
    return folder + slash + re.sub(rf"(?i)(?<![a-z])({words})(?![a-z])", "*", name)


def _masks(root: Path, image_dir: str, folders: list[str]) -> dict[str, str]:
    """The folder of each class's masks, if these are such folders: binary, and named apart."""
    if len(folders) == 1:
        above = folder_of(root, folders[0])
        below = [one.name for one in sorted(above.iterdir()) if one.is_dir()]
        like = folder_of(root, image_dir)
        drawn = Counter(name for one in below for name in pictures_in(above / one))
        if len(below) < 2 or (like / below[0]).is_dir():
            return {}
        stems = {file.stem for file in pictures(root, image_dir)}
        if {*below} <= stems and 2 * len(below) >= len(stems):
            return _masks_by_image(above, below, folders[0])
        if max(drawn.values(), default=0) < 2:
            return {}
        folders = [f"{folders[0]}/{one}" for one in below]
    if len(folders) < 2:
        return {}
    parts = [{*folder.split("/")} for folder in folders]
    shared = set.intersection(*parts)
    names = ["_".join(p for p in one.split("/") if p not in shared) for one in folders]
    names = [f"class_{name}" if name.isdecimal() else name for name in names]
    binary = all(are_masks(pictures(root, one)) for one in folders)
    stems = {file.stem for file in pictures(root, image_dir)}
    paired = all(stems & {file.stem for file in pictures(root, one)} for one in folders)
    if not binary or not paired or "" in names:
        return {}
    masks = dict(zip(names, folders, strict=True)) if len({*names}) == len(folders) else {}
    return dict(sorted(masks.items(), key=lambda one: one[0] != BACKGROUND))  # below all others


def _masks_by_image(above: Path, below: Sequence[str], at: str) -> dict[str, str]:
    """The paths of the masks, if each image has a folder of its name with binary masks: those of a
    class if they are called alike and hardly overlap, else those of all objects."""
    files = [[above / one / name for name in pictures_in(above / one)] for one in below]
    if not all(look_like_labels(some, 2) for some in files if some):
        return {}
    names = Counter(file.name for some in files for file in some)
    once = [name for name, count in names.items() if count == 1]
    told_apart = all(are_classes(some) for some in files[:COMPARED] if len(some) > 1)
    if once or not told_apart or any(Path(name).stem.isdecimal() for name in names):
        return {"foreground": f"{at}/{NAME}/*"}
    of = {name: [file for some in files for file in some if file.name == name] for name in names}
    return {Path(name).stem: f"{at}/{NAME}/{name}" for name in by_area(of)}


def _looks_like_labels(root: Path, template: str) -> bool:
    return look_like_labels(pictures(root, template))


def _divide(root: Path, image_dir: str, label_dir: str, found: Layout) -> None:
    """Find out how the images are divided, or divide them."""
    if SPLIT in image_dir:
        has = {
            split: all(
                any(name.endswith(end) for name in _of_split(root, one, split))
                for one, end in ((image_dir, ""), (label_dir, _ending(found.keys)))
                if SPLIT in one
            )
            for split in SPLITS
        }
        found.left_out += [
            f"the images of {split}, without labels"
            for split in SPLITS
            if not has[split] and _of_split(root, image_dir, split)
        ]
        if not has[TRAIN]:
            there = [split for split in SPLITS if has[split]]
            message = f"no images of train in {image_dir} (found: {', '.join(there) or 'none'})"
            raise InputError(message, file=root)
        if has[VAL] and not has[TEST]:
            found.keys["splits"] = {TEST: VAL}
            found.guesses["splits"] = "no test split: val is tested on, and carved anew from train"
        elif has[TEST] and not has[VAL]:
            found.keys["splits"] = {VAL: RATIO}
            found.guesses["splits"] = "no val split: a part of train"
        elif not has[VAL] and not has[TEST]:
            found.keys["splits"] = {VAL: RATIO, TEST: RATIO}
            found.guesses["splits"] = "no val and test: parts of train, by the hash of the name"
    elif (table := split_table(root))[0]:
        found.keys["splits"] = table[0]
        if TEST not in table[1]:
            found.guesses["splits"] = "no test split: val is tested on, and carved anew from train"
    elif lists := split_lists(root):
        found.keys["splits"] = {split: lists[split] for split in SPLITS if split in lists}
    elif named := _split_names(_names(root, image_dir)):
        found.keys["splits"] = named
        found.guesses["splits"] = "the names of images begin with a split"
    else:
        found.keys["splits"] = {VAL: RATIO, TEST: RATIO}
        found.guesses["splits"] = "no splits found: parts of all images, by the hash of the name"
    splits = found.keys.get("splits")
    is_drawn = isinstance(splits, dict) and RATIO in splits.values()
    end = _ending(found.keys, "image")
    files = [file for file in pictures(root, image_dir) if file.name.endswith(end)]
    names = [file.name.removesuffix(end) if end else file.stem for file in files]
    if is_drawn and (group := _group(names)):
        found.keys["group"] = group
        found.guesses["group"] = "names that begin alike stay in one split, such as frames"


def _of_split(root: Path, template: str, split: str) -> list[str]:
    """The names of the pictures in a split's folders."""
    return [
        name
        for word in (split, *SYNONYMS[split])
        for form in (word, word.capitalize(), word.upper())
        for folder in root.glob(glob.escape(template).replace("{split}", form).replace(FOLDER, "*"))
        for name in pictures_in(folder)
    ]


def _ending(keys: Mapping[str, object], what: str = "label") -> str:
    """What the names of all labels end with, as far as the keys say; or of all images."""
    end = str(keys.get(f"{what}_path", keys.get(f"{what}_suffix", "")))
    return re.split(r"\*|\{name\}", end)[-1]


def _split_names(names: list[str]) -> dict[str, str]:
    """The patterns of the names of each split, if all begin with a word for one."""
    found = [re.match(rf"({_WORDS})(?![a-z])", name) for name in names]
    words = {match[1] for match in found if match is not None}
    splits = {SPLIT_OF[word.lower()]: f"{word}*" for word in sorted(words)}
    whole = None not in found and len(words) == len(splits) > 1 and TRAIN in splits
    if whole and TEST not in splits:
        splits[TEST] = splits.pop(VAL)
    return {split: splits[split] for split in SPLITS if split in splits} if whole else {}


def _names(root: Path, image_dir: str) -> list[str]:
    return [file.stem for file in pictures(root, image_dir)]


def _group(names: list[str]) -> str:
    """A pattern for the sequences that names tell of: a beginning and a number, several of each."""
    pattern = r"(.+?)[-_ ]?\d+$"
    begins = Counter(match[1] for name in names if (match := re.match(pattern, name)) is not None)
    several = [count for count in begins.values() if count > 1]
    enough = sum(several) == len(names) and len(several) >= 6
    return pattern if enough and max(several) <= MOST_GROUPED * len(names) else ""
