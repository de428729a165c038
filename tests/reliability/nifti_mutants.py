"""NIfTI files with a few wrong bytes, and what may be read from each of them.

A loader reads a mutant rightly in one of four ways:

1. it refuses it, with one of our errors;
2. it returns the voxels and the affine of the original: the bytes say nothing of the picture, or a header says
   elsewhere what they said (no corner of the grid may have moved by more than ``CORNER_MM``);
3. it returns something else, and has logged a warning that names the file;
4. all that changed the picture is in a field that says a thing once and says something possible: ``scl_slope`` and
   ``scl_inter``, and ``srow`` in a file without a qform. Another writer might have meant it, so no loader can know.
   Then exactly what these bytes say has to come back, by the reckoning here, which uses no reader.

Everything else is wrong: an error of another kind, more than ``SECONDS`` or ``MEMORY``, another picture without a word.

A body that is not compressed carries no checksum, so nobody can tell one number from another in it: there the mutants
are longer or shorter, as transfers and full disks make them. A gzip stream is changed in every way.
"""

import gzip
import io
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import nibabel as nib
import numpy as np

__all__ = ["BASES", "MEMORY", "SECONDS", "Base", "Mutant", "body_mutants", "header_mutants", "mutant", "same"]

SECONDS = 10
MEMORY = 2 << 30  # bytes of address space above what the process has at its start
CORNER_MM = 0.02  # twice what common.nifti_header lets sform and qform differ
HEADER = 352  # bytes, with the flag of extensions
SCALE = range(112, 120)  # scl_slope, scl_inter
SFORM = range(280, 328)  # srow_x, srow_y, srow_z
SIZE = (13, 11, 9)
OBLIQUE = np.array([[0.2, -1.4, 0.1, 30], [1.9, 0.3, 0.4, -40], [-0.3, 0.1, 2.4, 15], [0, 0, 0, 1.0]])


@dataclass(frozen=True)
class Base:
    """A sound file.

    Attributes:
        name: of the file.
        content: of the file, not compressed.
        stored: voxels as they are stored, (X, Y, Z).
        labels: whether it is read as a label map.
        once: places in the header that say a thing which is said nowhere else.
    """

    name: str
    content: bytes
    stored: np.ndarray
    labels: bool
    once: tuple[range, ...]

    @property
    def compressed(self) -> bool:
        """Whether its name says so."""
        return self.name.endswith(".gz")

    @property
    def original(self) -> tuple[np.ndarray, np.ndarray]:
        """The voxels and the affine of the sound file."""
        return said_by(self, self.content)


@dataclass(frozen=True)
class Mutant:
    """A changed copy.

    Attributes:
        base: what was changed.
        name: of the case.
        file: bytes of the file.
        said: the voxels and the affine that may come back: the original's, with what is said once as the bytes say it.
    """

    base: Base
    name: str
    file: bytes
    said: tuple[np.ndarray, np.ndarray]


def rigid(affine: np.ndarray) -> np.ndarray:
    """The nearest affine without shears, which a quaternion can hold."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / sizes)
    found = affine.copy()
    found[:3, :3] = left @ right * sizes
    return found


def base(name: str, dtype: type, *, qform: bool = True, scale: tuple[float, float] | None = None, labels=False) -> Base:
    """A sound file of random voxels, oblique and anisotropic."""
    voxels = np.random.default_rng(0).integers(0, 90, SIZE).astype(dtype)
    image = nib.Nifti1Image(voxels, rigid(OBLIQUE))
    if qform:
        image.set_qform(image.affine, code=1)
        image.set_sform(image.affine, code=1)
    if scale is not None:
        image.header.set_slope_inter(*scale)
    stream = io.BytesIO()
    image.to_stream(stream)
    content = bytearray(stream.getvalue())
    if scale is not None:  # nibabel scales what it writes back, so the numbers themselves go in behind the header
        content[HEADER:] = voxels.astype(np.dtype(dtype).newbyteorder("<")).tobytes("F")
        content[SCALE.start : SCALE.stop] = struct.pack("<2f", *scale)
    return Base(name, bytes(content), voxels, labels, (SCALE,) if qform else (SCALE, SFORM))


@cache
def bases() -> tuple[Base, ...]:
    """Files as scanners' converters, nibabel, FSL and segmentation programs write them."""
    return (
        base("scan.nii.gz", np.int16),
        base("plain.nii", np.float32),
        base("scaled.nii.gz", np.int16, scale=(2.5, -10.0)),
        base("labels.nii.gz", np.uint8, labels=True),
        base("sform.nii.gz", np.int16, qform=False),
    )


BASES = bases()


def header_mutants(count: int, seed: int = 0) -> Iterator[Mutant]:
    """Copies with one to four other bytes in the header, compressed afterwards if the original is."""
    rng = random.Random(seed)
    for number in range(count):
        original = BASES[number % len(BASES)]
        content = bytearray(original.content)
        for place in rng.sample(range(HEADER), rng.randint(1, 4)):
            content[place] ^= rng.randint(1, 255)
        yield mutant(original, f"header {number}", bytes(content))


def mutant(original: Base, name: str, content: bytes) -> Mutant:
    """A file of this content."""
    file = gzip.compress(content, 1, mtime=0) if original.compressed else content
    return Mutant(original, name, file, said_by(original, content))


def said_by(original: Base, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The voxels and the affine of an original, by what a mutant's header says of it once."""
    header = bytearray(original.content[:HEADER])
    for places in original.once:
        header[places.start : places.stop] = content[places.start : places.stop]
    slope, inter = struct.unpack_from("<2f", header, SCALE.start)
    scaled = bool(np.isfinite(slope)) and slope != 0
    with np.errstate(all="ignore"):
        voxels = original.stored * np.float64(slope) + np.float64(inter) if scaled else original.stored
    affine = np.vstack([np.reshape(struct.unpack_from("<12f", header, SFORM.start), (3, 4)), [0, 0, 0, 1]])
    return voxels.astype(np.float64), affine


def body_mutants(count: int, seed: int = 1) -> Iterator[Mutant]:
    """Copies whose bytes behind the header, or anywhere in the gzip stream, were lost, added or changed."""
    rng = random.Random(seed)
    for number in range(count):
        original = BASES[number % len(BASES)]
        if original.compressed:
            file = changed_stream(gzip.compress(original.content, 1, mtime=0), rng)
        else:
            file = other_length(original.content, HEADER, rng)
        yield Mutant(original, f"body {number}", file, original.original)


def changed_stream(stream: bytes, rng: random.Random) -> bytes:
    """One to four bits turned, bytes replaced, or pieces lost or added."""
    kind = rng.randrange(3)
    if kind == 2:
        return other_length(stream, 0, rng)
    changed = bytearray(stream)
    for place in rng.sample(range(len(stream)), rng.randint(1, 4)):
        changed[place] ^= 1 << rng.randrange(8) if kind == 0 else rng.randint(1, 255)
    return bytes(changed)


def other_length(content: bytes, start: int, rng: random.Random) -> bytes:
    """Cut at the end, a piece missing from the middle, or one there twice; nothing before ``start`` changes."""
    first = rng.randrange(start, len(content))
    last = min(len(content), first + rng.choice([1, 2, 16, 512, len(content)]))
    piece = content[first:last]
    return rng.choice([content[:first], content[:first] + content[last:], content[:last] + piece + content[last:]])


def same(said: tuple[np.ndarray, np.ndarray], voxels: np.ndarray, affine: np.ndarray) -> bool:
    """Whether what came back is what was said: voxels as float32 holds them, corners within ``CORNER_MM``."""
    if voxels.shape != said[0].shape:
        return False
    corners = np.array([[*(np.array(corner) * (np.array(SIZE) - 1)), 1] for corner in np.ndindex(2, 2, 2)])
    with np.errstate(all="ignore"):
        moved = np.abs(corners @ (affine - said[1]).T).max()
        expected = said[0].astype(np.float32)
    largest = np.abs(expected).max()
    atol = 1e-5 * largest if np.isfinite(largest) else 0.0
    return bool(moved <= CORNER_MM) and np.allclose(voxels, expected, rtol=0, atol=atol)
