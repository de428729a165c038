"""Rows 22 to 56 of the table: shapes, types, values and positions that an image should not have, or may."""

import gzip
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from .bad_case import Bad, Good
from .bad_files import patched
from .study import Study

__all__ = ["CASES", "labels", "mapped"]

NEW_GRID = ("register", "infer", "evaluate")  # which take two images on different grids
DIM, DATATYPE, BITPIX, PIXDIM = 40, 70, 72, 76  # bytes of a NIfTI header
SLOPE, UNITS, CODES, QUATERNION, SFORM = 112, 123, 252, 256, 280
ROTATED = np.array([[0.9, -0.3, 0.1], [0.25, 0.85, -0.4], [0.05, 0.4, 0.9]])
SHEARED = np.array([[1, 0.1, 0], [0, 1, 0], [0, 0, 1]])
OBLIQUE = np.linalg.qr(ROTATED)[0] * np.sign(np.diag(np.linalg.qr(ROTATED)[1]))  # a rotation by about 30 degrees


def shaped(name: str, *shape: int) -> Callable[[Study], Path]:
    """Noise of another shape."""
    return lambda study: study.save(name, np.random.default_rng(0).integers(0, 99, shape).astype(np.int16))


def flat(study: Study) -> Path:
    """The middle slice, and its labels, as images of two axes."""
    study.save("slice_seg.nii.gz", study.voxels("label")[:, :, 13], part="label")
    return study.save("slice.nii.gz", study.voxels()[:, :, 13])


def field(study: Study) -> Path:
    """A displacement field."""
    path = study.save("field.nii.gz", np.zeros((*study.voxels().shape, 1, 3), np.float32))
    image = nib.load(path)
    image.header.set_intent(1007)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), path)
    return path


def rgb(study: Study) -> Path:
    """Colors."""
    return study.save("rgb.nii.gz", np.zeros(study.voxels().shape, [("R", "u1"), ("G", "u1"), ("B", "u1")]))


def with_values(*values: float, kind: type = np.float32) -> Callable[[Study], Path]:
    """The scan with these values at its first voxels of the brain."""

    def make(study: Study) -> Path:
        voxels = study.voxels().astype(kind)
        voxels[tuple(np.argwhere(study.voxels("label"))[: len(values)].T)] = values
        return study.save("values.nii.gz", voxels)

    return make


def mapped(change: Callable[[np.ndarray], np.ndarray], part: str = "image") -> Callable[[Study], None]:
    """Both scans with every voxel's value changed, so that they stay alike."""

    def make(study: Study) -> None:
        for files in (study.other, study.subject):
            image = nib.load(files[part])
            files[part] = files[part].with_name(f"mapped_{files[part].name}")
            nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), files[part])

    return make


def big_endian(study: Study) -> None:
    image = nib.load(study.subject["image"])
    header = nib.Nifti1Header(endianness=">")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, header), study.data / "big.nii.gz")
    study.use(study.data / "big.nii.gz")


def labels(left: float, right: float, kind: type) -> Callable[[Study], Path]:
    """The label map with its two values replaced."""

    def make(study: Study) -> Path:
        found = study.voxels("label")
        changed = np.where(found == 3, left, np.where(found == 7, right, 0)).astype(kind)
        return study.save("changed_seg.nii.gz", changed, part="label")

    return make


def scaled(study: Study) -> None:
    """Stored upside down, and put right by slope and intercept."""
    image = nib.load(study.subject["image"])
    stored = nib.Nifti1Image((10 - np.asarray(image.dataobj)).astype(np.int16), image.affine)
    nib.save(stored, study.data / "scaled.nii.gz")
    content = bytearray(gzip.decompress((study.data / "scaled.nii.gz").read_bytes()))
    content[SLOPE : SLOPE + 8] = struct.pack("<2f", -1, 10)
    (study.data / "scaled.nii.gz").write_bytes(gzip.compress(bytes(content)))
    study.use(study.data / "scaled.nii.gz")


def header(*patches: tuple[int, bytes]) -> Callable[[Study], Path]:
    """Image and label with other bytes in their headers."""

    def make(study: Study) -> Path:
        patched(study, *patches, name="header_seg.nii.gz", part="label")
        return patched(study, *patches, name="header.nii.gz")

    return make


def turned(world: np.ndarray) -> Callable[[Study], None]:
    """Both scans in another world, where their axes lie otherwise."""

    def make(study: Study) -> None:
        for files in (study.other, study.subject):
            for part, path in files.items():
                image = nib.load(path)
                files[part] = path.with_name(f"turned_{path.name}")
                nib.save(nib.Nifti1Image(np.asarray(image.dataobj), world @ image.affine), files[part])

    return make


def sheared(study: Study) -> Path:
    """Scans whose axes are not at right angles; the fixed one's grid is that of the results, which ITK would refuse."""
    turned(world(SHEARED))(study)
    return study.other["image"]


def stored_as(codes: str) -> Callable[[Study], Path]:
    """The scan under test, stored in another order of axes; every voxel stays where it was."""

    def make(study: Study) -> Path:
        own = nib.io_orientation(nib.load(study.subject["image"]).affine)
        turn = nib.orientations.ornt_transform(own, nib.orientations.axcodes2ornt(tuple(codes)))
        for part, path in list(study.subject.items()):
            nib.save(nib.load(path).as_reoriented(turn), study.data / f"{codes}_{part}.nii.gz")
            study.use(study.data / f"{codes}_{part}.nii.gz", part)
        return study.subject["image"]

    return make


def cropped(study: Study) -> Path:
    """The scan under test with a margin of empty slices cut off, more on one side than on the other."""
    for part, path in list(study.subject.items()):
        image = nib.load(path)
        nib.save(image.slicer[2:-1, 3:, 1:-2], study.data / f"cropped_{part}.nii.gz")
        study.use(study.data / f"cropped_{part}.nii.gz", part)
    return study.subject["image"]


def moved(mm: float) -> Callable[[Study], Path]:
    """The scan so far to the right that nothing of it meets the other one."""
    far = np.eye(4)
    far[0, 3] = mm

    def make(study: Study) -> Path:
        for part in ("label", "image"):
            image = nib.load(study.subject[part])
            study.save(f"far_{part}.nii.gz", np.asarray(image.dataobj), far @ image.affine, part)
        return study.subject["image"]

    return make


def world(linear: np.ndarray) -> np.ndarray:
    """(4, 4) of a (3, 3)."""
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    return matrix


def rows(*numbers: float) -> tuple[int, bytes]:
    """The first row of the sform."""
    return SFORM, struct.pack("<4f", *numbers)


def pixdim(*numbers: float) -> tuple[int, bytes]:
    """The sizes of a voxel, after the sign of the third axis."""
    return PIXDIM + 4, struct.pack("<3f", *numbers)


def codes(qform: int, sform: int) -> tuple[int, bytes]:
    """Whether the header states a qform and an sform."""
    return CODES, struct.pack("<2h", qform, sform)


Unfit = partial(Bad, alone=False)  # a sound file of what no registration can use
Unusual = partial(Good, alone=False)  # for a registration, not for whoever reads it
NAN = float("nan")
WARPED = ("warped",)
WORLD = ("displacement", "affine")  # which turn with the world
ADAM = 2.1e-3  # between weights after one step of 1e-3, which goes as far whatever the gradient's size
HD95_SHEARED = 0.5  # mm: of oblique steps that the shear makes longer
metal = with_values(30000, 30000, kind=np.int16)
on_offset = mapped(lambda values: (10 + values * 1e-5).astype(np.float32))
CASES = (
    Unfit(22, "one slice with a volume", flat, r"axes|24 x 28 voxels|shape \(24, 28\), expected 3 axes"),
    Unfit(23, "a time series", shaped("series.nii.gz", 24, 28, 26, 3), r"shape \(24, 28, 26, 3\), expected"),
    Good(23, "a trailing axis of one", lambda s: s.save("one.nii.gz", s.voxels()[..., None])),
    Unfit(24, "a displacement field", field, "is a displacement field"),
    Unfit(25, "a single slice", shaped("slice.nii.gz", 1, 28, 26), r"shape \(1, 28, 26\), expected 2 voxels an axis"),
    Bad(26, "an axis of no voxel", header((DIM + 4, struct.pack("<h", 0))), "no image that can be read|expected"),
    Unfit(27, "colors", rgb, "holds RGB voxels"),
    Unfit(28, "complex numbers", lambda s: s.save("complex.nii.gz", s.voxels() * 1j), "holds complex128 voxels"),
    Bad(29, "an unknown data type", header((DATATYPE, struct.pack("<h", 3))), "no image that can be read"),
    Bad(29, "nine axes", header((DIM, struct.pack("<h", 9))), "no image that can be read"),
    Bad(29, "a negative size", header((DIM + 2, struct.pack("<h", -24))), "no image that can be read|expected"),
    Good(30, "big-endian", big_endian),
    Unfit(32, "a label that ran over", labels(3, -1, kind=np.int8), "labels from -1 to 3"),
    Good(33, "a slope of 0", header((SLOPE, struct.pack("<2f", 0, 0)))),
    Good(33, "an infinite slope", header((SLOPE, struct.pack("<2f", np.inf, 0))), said="scale inf"),
    Good(34, "a slope of -1", scaled),
    Unfit(35, "one NaN", with_values(NAN), r"1 NaN or infinite voxels, the first at \(\d+, \d+, \d+\)"),
    Unfit(36, "infinite voxels", with_values(np.inf, -np.inf), "2 NaN or infinite voxels"),
    Unfit(37, "nothing but NaN", lambda s: s.save("nan.nii.gz", s.voxels() * np.float32(NAN)), "NaN or infinite"),
    Unfit(38, "one value everywhere", lambda s: s.save("flat.nii.gz", s.voxels() * 0 + 7), "is 7 everywhere"),
    Unfit(39, "zeros", lambda s: s.save("zeros.nii.gz", s.voxels() * 0), "is 0 everywhere"),
    Unfit(39, "labels of zero", labels(0, 0, kind=np.uint8), "has no labelled voxel"),
    Unusual(40, "values of 1e-4", mapped(lambda v: (v * 1e-7).astype(np.float32)), atol=1e-2, unlike=("warped",)),
    Unusual(
        41, "0.01 of contrast on an offset of 10", on_offset, mapped(np.float32), ("register", "infer"), 0.1, WARPED
    ),
    Unusual(41, "the same offset to score", on_offset, mapped(np.float32), ("evaluate",)),
    Unusual(41, "the same offset to prepare", on_offset, mapped(np.float32), ("prepare",), 1e-3),
    Unusual(41, "the same offset to train on", on_offset, mapped(np.float32), ("train",), ADAM),
    Unusual(42, "metal to score", metal, by=("evaluate",)),
    Unusual(42, "metal to prepare", metal, by=("prepare",), unlike=("image",)),
    Unusual(42, "metal to train on", metal, by=("train",), atol=ADAM),
    Unusual(42, "metal", metal, by=("register", "infer"), atol=3.0, unlike=WARPED),
    Good(43, "negative voxel sizes beside an sform", header(pixdim(-6, -6, -6), codes(0, 1))),
    Good(44, "voxel sizes of NaN beside an sform", header(pixdim(NAN, NAN, NAN), codes(0, 1)), said="sform"),
    Good(44, "voxel sizes of 0 beside an sform", header(pixdim(0, 0, 0), codes(0, 1)), said="sform|voxel"),
    Bad(45, "voxel sizes of 0 and a qform alone", header(pixdim(0, 0, 0), codes(1, 0)), "and no sform"),
    Bad(46, "no position", header(codes(0, 0)), "states no position"),
    Bad(47, "NaN in the sform", header(rows(NAN, 0, 0, 0)), "expected an invertible one"),
    Bad(48, "an sform of rank 2", header(rows(0, 0, 0, 0)), "expected an invertible one"),
    Unfit(49, "a sheared fixed scan", sheared, "right angles.*resample the fixed", ("register", "infer")),
    Unusual(
        49, "sheared scans of a cohort", turned(world(SHEARED)), by=("prepare", "train"), atol=1e-6, unlike=("affine",)
    ),
    Unusual(49, "sheared scans to score", turned(world(SHEARED)), by=("evaluate",), atol=HD95_SHEARED),
    Good(50, "an sform and a qform apart", header(codes(1, 2), (QUATERNION, struct.pack("<f", 0.3))), said="apart"),
    Good(51, "oblique scans", turned(world(OBLIQUE)), atol=1e-3, unlike=WORLD),
    Good(52, "left-handed scans", turned(world(np.diag([-1, 1, 1]))), atol=1e-3, unlike=WORLD),
    Unusual(53, "another orientation", stored_as("SPR"), by=NEW_GRID, atol=2e-2),
    Unfit(53, "another orientation in a cohort", stored_as("SPR"), "LAS", by=("prepare", "train")),
    Unusual(54, "another size", cropped, by=NEW_GRID, atol=2e-2),
    Unfit(54, "another size in a cohort", cropped, "24.* 28.* 26", by=("prepare", "train")),
    Unfit(55, "scans that do not meet", moved(4000), "lies wholly outside the fixed image", by=("register", "infer")),
    Unfit(55, "scans of one study that do not meet", moved(4000), "different fields of view", ("prepare",)),
    Good(56, "a header in meters", header((UNITS, b"\1")), said="metres"),
    Good(56, "a header in micrometers", header((UNITS, b"\3")), said="micrometres"),
)
