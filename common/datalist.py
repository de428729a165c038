"""The datalist: what the programs that prepare data tell the configs that use it.

``datalist.json`` is the only thing that passes between the two:

    name, modality, orientation, spacing_mm, licence, labels {value: name}
    training              subjects {"image", "label"?, "keypoints"?, "mask"?}, or pairs
    validation, testing   pairs {"fixed", "moving", "fixed_label"?, "moving_label"?, "fixed_keypoints"?, ...}
    atlas                 optional: the one image that may be in several sections

Paths are relative to the file and stay below its folder.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from torch import Tensor

from .dicom import holds_dicom
from .errors import RegInputError
from .preflight import check_image, check_label, findings, refuse
from .volumes import open_volume, spatial_size

__all__ = [
    "PAIR_KEYS",
    "PARTS",
    "SECTIONS",
    "SUBJECT_KEYS",
    "check_datalist",
    "read_datalist",
    "read_header",
    "read_keypoints",
    "read_trained_grid",
]

logger = logging.getLogger(__name__)

SECTIONS = ("training", "validation", "testing")
SPACING_RTOL = 0.01  # by which voxel sizes of one grid may differ: headers are rounded
GRID_NAME = "grid.json"  # beside trained weights
UNKNOWN_GRID = {"name": "", "orientation": None, "spacing_mm": "auto", "labels": {}}
PARTS = ("label", "keypoints", "mask")  # what may come with an image
SUBJECT_KEYS = ("image", *PARTS)
PAIR_KEYS = tuple(f"{role}{part}" for role in ("fixed", "moving") for part in ("", *(f"_{p}" for p in PARTS)))


def read_datalist(dataset_dir: str, section: str, check_files: bool = False) -> list[dict[str, str]]:
    """The items of one section of a prepared data set, with absolute paths.

    Args:
        dataset_dir: folder that holds ``datalist.json``.
        section: "training" (subjects or pairs), "validation" or "testing" (pairs).
        check_files: open every file to its last byte too, with :func:`check_datalist`, and refuse images of different
            size, orientation or voxel size that a network would see voxel by voxel: the two of a pair, all subjects.

    Raises:
        RegInputError: if the file is missing (the message names the command that writes it), is not JSON, or breaks the
            contract anywhere: every finding is in the one message.
    """
    root, content = load_json(dataset_dir)
    if section not in content:
        raise RegInputError(
            f"{root / 'datalist.json'} has the sections {[s for s in SECTIONS if s in content]}, expected '{section}'; "
            f"add it or name another section."
        )
    breaches = structure_findings(content)
    if not breaches:
        breaches = overlap_findings(content) + missing_files(root, content[section], section)
    if breaches:
        raise RegInputError(f"{root / 'datalist.json'} cannot be used: {'; '.join(breaches)}; mend the file.")
    paths = (*SUBJECT_KEYS, *PAIR_KEYS)
    items = [{k: str(root / v) if k in paths else v for k, v in item.items()} for item in content[section]]
    if check_files:
        check_datalist(items)
        refuse(grids_apart(items))
    return items


def read_header(dataset_dir: str) -> dict:
    """What a datalist says of all its images: everything in it but the sections.

    Returns:
        At least ``name`` (str), ``orientation`` (axis codes such as "LIA"), ``spacing_mm`` (floats, array order) and
        ``labels`` ({int: str}, empty if the file has none); other entries as they are.

    Raises:
        RegInputError: if the file is missing, unreadable, or one of these has the wrong type.
    """
    root, content = load_json(dataset_dir)
    header = {key: value for key, value in content.items() if key not in SECTIONS}
    breaches = header_findings(header)
    if breaches:
        raise RegInputError(f"{root / 'datalist.json'} cannot be used: {'; '.join(breaches)}; mend the file.")
    header["spacing_mm"] = [float(s) for s in header["spacing_mm"]]
    header["labels"] = {int(value): name for value, name in header.get("labels", {}).items()}
    return header


def read_trained_grid(weights: str, dataset_dir: str | None) -> dict:
    """Orientation and spacing that a network was trained on: ``grid.json`` beside its weights, else a data set's.

    Args:
        weights: path of the weights, there or not.
        dataset_dir: folder that holds ``datalist.json``; None where two files are registered.

    Returns:
        ``name``, ``orientation``, ``spacing_mm`` and ``labels`` (the data set's), as :func:`read_header`; where there
        is neither file, what leaves the fixed image's grid as it is, after a warning.

    Raises:
        RegInputError: if either file breaks the contract.
    """
    path = Path(weights).parent / GRID_NAME
    header = UNKNOWN_GRID if dataset_dir is None else read_header(dataset_dir)
    if not path.is_file():
        if dataset_dir is None:
            logger.warning("%s is missing: without --orientation and --spacing_mm the fixed image's are kept.", path)
        return header
    try:
        grid = json.loads(path.read_text())
        breaches = header_findings(grid)
    except (OSError, ValueError, AttributeError) as error:
        breaches = [str(error)]
    if breaches:
        raise RegInputError(f"{path} cannot be used: {'; '.join(breaches)}; train again, or copy it from the weights'.")
    return header | grid


def check_datalist(items: Sequence[dict]) -> None:
    """Open every file of a list to its last byte, before anything is trained or evaluated on it.

    Args:
        items: subjects or pairs with absolute paths, as :func:`read_datalist` returns them.

    Raises:
        RegInputError: with one sentence for each file that cannot be used: a damaged image, labels that are not on
            their image's grid, landmarks outside it or not as many as their partner's, a slice with a volume.
    """
    sentences, seen = [], set()
    for item in items:
        subjects = [subject_of(item, role) for role in ("fixed", "moving")] if "fixed" in item else [item]
        for subject in subjects:
            paths = tuple(subject.get(key) for key in SUBJECT_KEYS)
            sentences += [] if paths in seen else subject_findings(subject)
            seen.add(paths)
        if len(subjects) == 2 and all("keypoints" in subject for subject in subjects):
            sentences += findings([(check_counts, *(subject["keypoints"] for subject in subjects))])
    if not sentences:
        marked = [item["keypoints"] for item in items if "keypoints" in item]  # any two subjects may make a pair
        sentences = findings((check_counts, marked[0], other) for other in marked[1:])
        sentences += findings((check_axes, item["fixed"], item["moving"]) for item in items if "fixed" in item)
    refuse(sentences)


def subject_findings(subject: dict) -> list[str]:
    """One sentence for each file of a subject that cannot be used; without an image the others are not looked at."""
    try:
        volume = check_image(subject["image"])
    except RegInputError as error:
        return [str(error)]
    checks = [(check_label, subject[key], volume) for key in ("label", "mask") if key in subject]
    if "keypoints" in subject:
        checks.append((check_keypoints, subject["keypoints"], volume.voxels.shape))
    return findings(checks)


def grids_apart(items: Sequence[dict]) -> list[str]:
    """One sentence for each image that is not laid out as the first of those that it may be registered with."""
    groups = [[item["fixed"], item["moving"]] for item in items if "fixed" in item]
    groups += [[item["image"] for item in items if "image" in item]]
    layouts = {path: layout(path) for path in dict.fromkeys(path for group in groups for path in group)}
    apart = {path: group[0] for group in groups for path in group if not alike(layouts[path], layouts[group[0]])}
    return [
        f"{path} has {layout_text(layouts[path])}, expected {layout_text(layouts[first])} as {first} has; prepare both "
        "on one grid with `regbundles data prepare folder`."
        for path, first in apart.items()
    ]


def layout(path: str) -> tuple[tuple[int, ...], str, np.ndarray]:
    """Size, axis codes and voxel size in mm of an image file."""
    image = open_volume(path)
    size = spatial_size(image.shape)
    codes = "".join(nib.aff2axcodes(image.affine))
    return size, codes[: len(size)], voxel_sizes(image.affine)[: len(size)]


def alike(first: tuple, second: tuple) -> bool:
    """Whether two layouts are the same, but for one percent of a voxel's size."""
    return first[:2] == second[:2] and np.allclose(first[2], second[2], rtol=SPACING_RTOL)


def layout_text(found: tuple) -> str:
    """A layout for a message."""
    size, codes, spacing_mm = found
    return f"{' x '.join(map(str, size))} voxels of {' x '.join(f'{mm:.4g}' for mm in spacing_mm)} mm in {codes}"


def check_keypoints(keypoints: str, size: tuple[int, ...]) -> None:
    """Raise RegInputError unless every landmark lies in its image of ``size`` voxels."""
    size = np.array(size)
    points = read_keypoints(keypoints, len(size)).numpy()
    outside = ((points < -0.5) | (points > size - 0.5)).any(axis=1)
    if outside.any():
        raise RegInputError(
            f"{keypoints} has {outside.sum()} landmarks outside its image, the first {points[outside][0].tolist()} of "
            f"{size.tolist()}, expected voxel coordinates from 0; convert them if they are millimetres."
        )


def check_axes(fixed: str, moving: str) -> None:
    """Raise RegInputError unless two images have as many axes."""
    axes = [len(layout(path)[0]) for path in (fixed, moving)]
    if axes[0] != axes[1]:
        raise RegInputError(
            f"{moving} has {axes[1]} axes and {fixed} {axes[0]}, expected as many; choose two volumes or two slices."
        )


def check_counts(fixed: str, moving: str) -> None:
    """Raise RegInputError unless two tables of landmarks have as many lines; bytes that are no text count, too."""
    try:
        counts = [sum(map(bool, map(bytes.strip, Path(path).read_bytes().splitlines()))) for path in (fixed, moving)]
    except OSError:  # told where each is read
        return
    if counts[0] != counts[1]:
        raise RegInputError(
            f"{fixed} has {counts[0]} landmarks and {moving} {counts[1]}, expected as many; match them line by line."
        )


def subject_of(pair: dict, role: str) -> dict:
    """The fixed or the moving half of a pair, as a subject."""
    keys = {"image": role} | {part: f"{role}_{part}" for part in PARTS}
    return {key: pair[name] for key, name in keys.items() if name in pair}


def read_keypoints(path: str, ndim: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Landmarks (K, ndim) in voxels of the subject's image file.

    Args:
        path: CSV without a header, one landmark a line, one column an array axis.
        ndim: number of columns.
        dtype: of the result.

    Raises:
        RegInputError: if the file has another number of columns, something that is no finite number, or no landmark.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
        points = np.loadtxt(lines, delimiter=",", ndmin=2) if any(map(str.strip, lines)) else np.empty((0, 0))
    except (OSError, ValueError) as error:
        raise RegInputError(f"{path} is not a table of landmarks ({error}), expected {ndim} numbers a line.") from error
    if points.shape[0] == 0 or points.shape[1] != ndim or not np.isfinite(points).all():
        raise RegInputError(
            f"{path} holds a {points.shape[0]} x {points.shape[1]} table, finite: {bool(np.isfinite(points).all())}; "
            f"expected finite voxel coordinates in {ndim} columns without a header."
        )
    return torch.from_numpy(points).to(dtype)


def load_json(dataset_dir: str) -> tuple[Path, dict]:
    """(absolute folder, content) of a data set; a byte order mark is accepted."""
    path = Path(dataset_dir).expanduser().absolute() / "datalist.json"
    if not str(dataset_dir) or not path.is_file():
        raise RegInputError(
            f"{path} is missing; write it with `regbundles data prepare <dataset> --out {path.parent}`."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text, object_pairs_hook=unique_keys, parse_constant=refuse_constant)
    except (OSError, ValueError, RecursionError) as error:  # JSON and Unicode errors are ValueErrors
        raise RegInputError(f"{path} is not a datalist ({error}), expected one JSON object; write it again.") from error
    if not isinstance(content, dict):
        raise RegInputError(f"{path} holds a JSON {type(content).__name__}, expected an object; write it again.")
    return path.parent, content


def unique_keys(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object, refused if it names a key twice."""
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"key '{twice[0]}' is there twice")
    return dict(pairs)


def refuse_constant(name: str) -> None:
    """NaN and Infinity are no JSON."""
    raise ValueError(f"the number {name}")


def header_findings(header: dict) -> list[str]:
    """What is wrong with name, orientation, spacing_mm and labels."""
    breaches = []
    if not isinstance(header.get("name"), str):
        breaches.append(f"name is {header.get('name')!r}, expected a text")
    codes, spacing = header.get("orientation"), header.get("spacing_mm")
    axes = [next((i for i, pair in enumerate(("LR", "PA", "IS")) if c in pair), None) for c in str(codes)]
    if not isinstance(codes, str) or len(axes) not in (2, 3) or None in axes or len(set(axes)) != len(axes):
        breaches.append(f"orientation is {codes!r}, expected axis codes such as 'LIA'")
    if not isinstance(spacing, list) or len(spacing) != len(axes) or not all(is_positive(s) for s in spacing):
        breaches.append(f"spacing_mm is {spacing!r}, expected one positive number an axis")
    labels = header.get("labels", {})
    if not isinstance(labels, dict) or not all(k.isdecimal() and isinstance(v, str) for k, v in labels.items()):
        breaches.append("labels is not an object {value: name} with whole numbers as values")
    return breaches


def is_positive(value: object) -> bool:
    """Whether a JSON value is a number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def structure_findings(content: dict) -> list[str]:
    """What breaks the contract in any section, short of opening files."""
    breaches = []
    for section in (s for s in SECTIONS if s in content):
        items = content[section]
        if not isinstance(items, list):
            breaches.append(f"{section} is a {type(items).__name__}, expected a list")
            continue
        for index, item in enumerate(items):
            breaches += [f"{section}[{index}] {text}" for text in item_findings(item, section)]
        if not breaches:
            breaches += duplicate_findings(items, section)
    return breaches


def item_findings(item: object, section: str) -> list[str]:
    """What is wrong with one item."""
    if not isinstance(item, dict):
        return [f"is a {type(item).__name__}, expected an object"]
    pair = section != "training" or "fixed" in item or "moving" in item
    needed, known = (("fixed", "moving"), PAIR_KEYS) if pair else (("image",), SUBJECT_KEYS)
    breaches = [f"has no '{key}'" for key in needed if key not in item]
    breaches += [f"has the unknown key '{key}', expected {', '.join(known)}" for key in item if key not in known]
    for key, value in ((k, v) for k, v in item.items() if k in known):
        if not isinstance(value, str) or not value:
            breaches.append(f"has {key} {value!r}, expected a path")
        elif Path(value).is_absolute() or ".." in Path(value).parts:
            breaches.append(f"has {key} '{value}', expected a path below the datalist's folder")
    if not breaches and pair and item["fixed"] == item["moving"]:
        breaches.append(f"has '{item['fixed']}' as fixed and moving, expected two images")
    return breaches


def duplicate_findings(items: list[dict], section: str) -> list[str]:
    """Subjects, or pairs, that a section has twice."""
    names = [item.get("image") or f"{item['fixed']} <- {item['moving']}" for item in items]
    return [f"{section} has '{name}' {count} times" for name, count in Counter(names).items() if count > 1]


def overlap_findings(content: dict) -> list[str]:
    """Subjects in more than one section: what was trained on must not be tested on. The atlas is excepted."""
    seen = {
        section: {
            str(Path(item[key])) for item in content[section] for key in ("image", "fixed", "moving") if key in item
        }
        - {str(Path(str(content.get("atlas", ""))))}
        for section in SECTIONS
        if section in content
    }
    return [
        f"{first} and {second} share '{name}'"
        for first, second in combinations(seen, 2)
        for name in sorted(seen[first] & seen[second])
    ]


def missing_files(root: Path, items: list[dict], section: str) -> list[str]:
    """Paths of one section at which there is neither a file nor a folder of DICOM."""
    return [
        f"{section}[{index}] {key} '{value}' does not exist, expected a file"
        for index, item in enumerate(items)
        for key, value in item.items()
        if not os.path.isfile(root / value) and not holds_dicom(root / value)
    ]
