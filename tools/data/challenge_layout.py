"""What a Learn2Reg archive says of itself: ``<NAME>_dataset.json`` names its scans, what comes with them, its pairs.

The lists that are read, as the challenge's releases since 2020 have them:

    training                 scans {"image", "label"?, "mask"?, "keypoints"?, "landmarks"?}
    training_paired_images   pairs {"fixed", "moving"} of one patient; then training is on these pairs
    registration_val         pairs to validate on; "validation" in LUMIR
    registration_test, test  pairs to test on; "test" may also hold scans, whose labels often stay with the challenge

Paths begin with "./" or "/" and are below the folder of the file. Whatever is not there, is there twice, has another
type or leads out of the folder is a sentence of one error.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.datalist import refuse_constant, unique_keys
from common.errors import RegInputError
from common.preflight import refuse

__all__ = ["Challenge", "Scan", "name_of", "read_challenge"]

ENDING = "_dataset.json"
IMAGES = "imagesTr"
PARTS = {"label": "label", "seg": "label", "mask": "mask", "keypoints": "keypoints", "landmarks": "landmarks"}
"""What may come with an image, by its key in the file."""
SECTIONS = {
    "training": ("training_paired_images",),
    "validation": ("registration_val", "validation"),
    "testing": ("registration_test", "test_paired_images", "test"),
}
"""Where the pairs of a section stand."""
SCAN_LISTS = ("training", "validation", "test")
HIDDEN = ("registration_test", "test_paired_images", "test")  # the challenge may keep these files to itself
FOLDERS = {"label": "labels", "mask": "masks", "keypoints": "keypoints", "landmarks": "landmarks"}
"""Beside images<part>: where the parts of a scan lie that the file does not name."""
TABLES = ("keypoints", "landmarks")


@dataclass(frozen=True)
class Scan:
    """One scan and what comes with it."""

    name: str
    """The image's file name without its ending, which is an id in every release."""
    image: Path
    label: Path | None = None
    mask: Path | None = None
    keypoints: Path | None = None
    """Found by a program, the same line in both scans of a pair: voxels of the image."""
    landmarks: Path | None = None
    """As ``keypoints``, found by a person."""


@dataclass(frozen=True)
class Challenge:
    """What one archive holds."""

    root: Path
    """Folder of ``imagesTr``."""
    name: str
    modality: str
    licence: str
    labels: dict[int, str]
    """Value to name, without the background; empty where there are none."""
    sizes: tuple[tuple[int, ...], ...]
    """Shapes that an image may have; empty if the file says nothing."""
    scans: dict[str, Scan]
    training: tuple[str, ...]
    """Scans to make pairs of; those to validate or test on are not among them."""
    training_pairs: tuple[tuple[str, str], ...]
    """(fixed, moving); where there are any they are what to train on."""
    validation: tuple[tuple[str, str], ...]
    testing: tuple[tuple[str, str], ...]
    hidden: int = 0
    """Test pairs whose files the challenge kept."""


def find_description(raw: Path, name: str | None = None) -> Path:
    """The archive's own ``<NAME>_dataset.json`` at or below ``raw``.

    Args:
        raw: folder of the unpacked archive.
        name: of the data set, where several lie below the folder.

    Raises:
        RegInputError: if there is none, or more than one.
    """
    pattern = f"{name or '*'}{ENDING}"
    found = sorted(filter(is_shown, raw.rglob(pattern)), key=lambda path: len(path.parts))
    if not found:
        raise RegInputError(f"no {pattern} found under {raw}, expected the archive's own; unpack the archive there.")
    if len({path.read_bytes() for path in found}) > 1:
        raise RegInputError(
            f"{len(found)} files under {raw} describe a data set ({', '.join(map(str, found))}), expected one; give "
            f"--name or the folder of one archive."
        )
    return found[-1]  # of copies the one that lies with the files


def is_shown(path: Path) -> bool:
    """Whether a path is none of those that macOS adds to zip files."""
    return not any(part.startswith(("._", "__MACOSX")) for part in path.parts)


def read_challenge(raw: Path, name: str | None = None) -> Challenge:
    """Read the archive's description and see that every file it names is there.

    Args:
        raw: folder of the unpacked archive.
        name: of the data set, where several lie below the folder.

    Raises:
        RegInputError: with every finding about the description.
    """
    path = find_description(raw, name)
    reader = Reader(path, load(path))
    challenge = reader.challenge()
    refuse(reader.sentences)
    return challenge


def root_of(path: Path) -> Path:
    """Where the files of a description are: its folder, or a folder in there if it was fetched beside the archive."""
    if (path.parent / IMAGES).is_dir():
        return path.parent
    nested = [p.parent for depth in ("*", "*/*") for p in path.parent.glob(f"{depth}/{IMAGES}") if is_shown(p)]
    return nested[0] if len(nested) == 1 else path.parent


def load(path: Path) -> dict[str, Any]:
    """The JSON object of a file; a byte order mark is accepted."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text, object_pairs_hook=unique_keys, parse_constant=refuse_constant)
    except (OSError, ValueError, RecursionError) as error:  # JSON and Unicode errors are ValueErrors
        raise RegInputError(f"{path} cannot be read ({error}), expected one JSON object; fetch it again.") from error
    if not isinstance(content, dict):
        raise RegInputError(f"{path} holds a JSON {type(content).__name__}, expected an object; fetch it again.")
    return content


class Reader:
    """Reads one description and collects what is wrong with it.

    Args:
        path: of the description.
        content: what it says.
    """

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = path
        self.root = root_of(path)
        self.content = content
        self.sentences: list[str] = []
        keys = dict.fromkeys((*SCAN_LISTS, *(key for keys in SECTIONS.values() for key in keys)))
        entries = {key: self.entries(key) for key in keys}
        self.pairs = {key: self.paths_of_pairs(key, entries[key]) for key in keys}
        self.scans = self.find_scans(entries)
        self.listed = [name_of(e["image"]) for e in entries["training"] if isinstance(e.get("image"), str)]

    def challenge(self) -> Challenge:
        """What the archive holds, of use only if there are no sentences."""
        pairs = {section: [p for key in keys for p in self.names_of_pairs(key)] for section, keys in SECTIONS.items()}
        validated, tested = ({n for p in pairs[part] for n in p} for part in ("validation", "testing"))
        if both := sorted(validated & tested):
            self.say(f"validates and tests on {', '.join(both)}", "no scan in both lists", "mend the pairs")
        held_out = validated | tested
        return Challenge(
            root=self.root,
            name=self.text("name") or self.path.name.removesuffix(ENDING),
            modality=", ".join(dict.fromkeys(map(str, values_of(self.content.get("modality", "unknown"))))),
            licence=self.text("licence") or self.text("license"),
            labels=self.labels(),
            sizes=self.sizes(),
            scans=self.scans,
            training=tuple(name for name in self.listed if name in self.scans and name not in held_out),
            training_pairs=tuple(pair for pair in pairs["training"] if not held_out & set(pair)),
            validation=tuple(pairs["validation"]),
            testing=tuple(pairs["testing"]),
            hidden=sum(len(self.pairs[key]) for key in HIDDEN) - len(pairs["testing"]),
        )

    def say(self, found: str, expected: str, todo: str = "mend it or complete the archive") -> None:
        """Keep one sentence."""
        self.sentences.append(f"{self.path} {found}, expected {expected}; {todo}.")

    def entries(self, key: str) -> list[dict[str, Any]]:
        """The objects of a list that may be missing; a path alone is an image, as older releases write it."""
        value = self.content.get(key, [])
        if not isinstance(value, list):
            self.say(f"has {key} of type {type(value).__name__}", "a list of objects")
            return []
        entries = [{"image": item} if isinstance(item, str) else item for item in value]
        for index, item in enumerate(entries):
            if not isinstance(item, dict):
                self.say(f"has {key}[{index}] of type {type(item).__name__}", "an object")
        return [item for item in entries if isinstance(item, dict)]

    def paths_of_pairs(self, key: str, entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
        """(fixed, moving) as a list writes them, without the entries that are single scans."""
        pairs = []
        for entry in filter(is_pair, entries):
            paths = [self.checked(f"{role} in {key}", entry.get(role)) for role in ("fixed", "moving")]
            if None not in paths:
                pairs.append((paths[0], paths[1]))
        for (fixed, moving), count in Counter((name_of(f), name_of(m)) for f, m in pairs).items():
            if count > 1:
                self.say(f"has the pair {fixed}, {moving} {count} times in {key}", "it once", "remove the others")
            if fixed == moving:
                self.say(f"has {fixed} as fixed and moving in {key}", "two scans", "mend the pair")
        return pairs

    def checked(self, where: str, value: Any) -> str | None:
        """A path of the description if it is one and stays below the folder."""
        if not isinstance(value, str) or not value.strip("./"):
            self.say(f"has {where} {value!r}", "a path")
            return None
        if ".." in Path(value).parts or "\\" in value or ":" in value:
            self.say(f"has {where} '{value}'", "a path below its own folder", "fetch the archive from its publisher")
            return None
        return value

    def find_scans(self, entries: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Scan]:
        """Every scan that a list names or that is part of a pair, by name."""
        scans: dict[str, Scan] = {}
        for key in SCAN_LISTS:
            for entry in entries[key]:
                if not is_pair(entry):
                    self.add(scans, key, entry)
        for key, pairs in self.pairs.items():
            for image in (path for pair in pairs for path in pair):
                if name_of(image) not in scans:
                    self.add(scans, key, {"image": image})
        return scans

    def add(self, scans: dict[str, Scan], key: str, entry: Mapping[str, Any]) -> None:
        """Take up one scan with what comes with it; one that the challenge keeps to itself is passed over."""
        image = self.checked(f"image in {key}", entry.get("image"))
        if image is None or (key in HIDDEN and not self.file(image).is_file()):
            return
        name = name_of(image)
        if name in scans:
            self.say(f"names the scan {name} in {key} again", "it once", "remove the others")
            return
        parts = self.unnamed_parts(image)
        for word, part in PARTS.items():
            if word in entry and (path := self.checked(f"{word} in {key}", entry[word])) is not None:
                parts[part] = self.existing(f"{word} in {key}", path, part in TABLES)
        scans[name] = Scan(name, self.existing(f"image in {key}", image), **parts)

    def file(self, path: str) -> Path:
        """A path of the description on this machine."""
        return self.root / path.removeprefix(".").lstrip("/")

    def existing(self, where: str, path: str, is_table: bool = False) -> Path:
        """The file of a path; some releases write a table of points with the ending of its image."""
        file = self.file(path)
        if is_table and not file.is_file():
            file = file.with_name(f"{name_of(path)}.csv")
        if not file.is_file():
            self.say(f"has {where} '{path}', which is not there", "every file that it names")
        return file

    def unnamed_parts(self, image: str) -> dict[str, Path]:
        """What lies in the usual folders under the name of an image, whether the description names it or not."""
        file = self.file(image)
        if not file.parent.name.startswith("images"):
            return {}
        suffix = file.parent.name.removeprefix("images")
        paths = {part: file.parent.with_name(f"{folder}{suffix}") / file.name for part, folder in FOLDERS.items()}
        paths |= {part: paths[part].with_name(f"{name_of(image)}.csv") for part in TABLES}
        return {part: path for part, path in paths.items() if path.is_file()}

    def names_of_pairs(self, key: str) -> list[tuple[str, str]]:
        """The pairs of a list by the names of their scans; those that the challenge keeps to itself are left out."""
        names = []
        for pair in self.pairs[key]:
            lacking = [path for path in pair if name_of(path) not in self.scans]
            if len(lacking) == 1:
                self.say(f"has a pair in {key} with '{lacking[0]}', which is not there", "both of its scans")
            if not lacking:
                names.append((name_of(pair[0]), name_of(pair[1])))
        return names

    def text(self, key: str) -> str:
        """A text on one line, or nothing."""
        value = self.content.get(key, "")
        if not isinstance(value, str):
            self.say(f"has {key} {value!r}", "a text")
            return ""
        return " ".join(value.split())

    def labels(self) -> dict[int, str]:
        """Label names, from ``{value: name}`` or one such object for each modality, without the background."""
        value = self.content.get("labels", {})
        is_flat = isinstance(value, dict) and all(isinstance(name, str) for name in value.values())
        tables = [value] if is_flat else values_of(value)
        if not all(isinstance(table, dict) and all(map(is_label, table.items())) for table in tables):
            self.say(f"has labels {value!r}", "an object {value: name}")
            return {}
        names = {int(number): name for table in tables for number, name in table.items()}
        return {number: names[number] for number in sorted(names) if number > 0}

    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes that it gives, one for each modality."""
        value = self.content.get("tensorImageShape", {})
        shapes = values_of(value)
        if not all(isinstance(shape, list) and shape and all(map(is_size, shape)) for shape in shapes):
            self.say(f"has tensorImageShape {value!r}", "whole numbers of voxels")
            return ()
        return tuple(dict.fromkeys(tuple(shape) for shape in shapes))


def is_pair(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of a list is meant as a pair."""
    return "fixed" in entry or "moving" in entry


def values_of(value: Any) -> list[Any]:
    """The values of an object, else the value alone."""
    return list(value.values()) if isinstance(value, dict) else [value]


def is_label(item: tuple[str, Any]) -> bool:
    """Whether an item of a label table has a whole number and a name."""
    return item[0].isdecimal() and isinstance(item[1], str)


def is_size(value: Any) -> bool:
    """Whether a JSON value is a number of voxels."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def name_of(path: str) -> str:
    """A file's name without its ending."""
    name = Path(path).name
    return next((name.removesuffix(end) for end in (".nii.gz", ".nii", ".csv") if name.endswith(end)), name)
