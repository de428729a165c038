"""SVF beside picsl-greedy and SyN on pairs of native scans: overlap against smoothness against time.

Every method starts from one affine file per pair, reads the two scans and writes its field as .nii.gz inside its clock;
importing and compiling, which a process does once, are timed apart. Fields are scored by one program. Rows are appended
as they are made, so that a run that was stopped goes on.
"""

import csv
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from common.errors import RegEnvError, RegInputError
from common.geometry import mm_to_ddf, total_displacement_mm, warp_mm
from common.metrics import dice, folds, ndv, sdlogj
from common.transform_files import read_displacement, write_displacement

from ..data.malc_layout import LABELS
from ..repository import commit
from .bundle_in_process import BundleInProcess
from .measuring import device_name

__all__ = ["PAIRS", "benchmark_pairs"]

PAIRS = tuple(
    (fixed, moving)
    for fixed, movings in (("1000", "1001 1002 1006 1007 1008"), ("1036", "1009 1010 1011 1012 1017"))
    for moving in movings.split()
)
SVF_POINTS = (  # over the bundle's defaults, which were chosen on 1014 and 1015 onto 1013
    {"divergence_weight": 0.8},
    {"divergence_weight": 0.4},
    {"divergence_weight": 0.2},
    {"divergence_weight": 0.1},
    {"divergence_weight": 0.1, "levels": [[8, 8, 20], [4, 4, 20], [2, 2, 10], [2, 1, 8]]},
)
RADII = (2, 4)  # of greedy's NCC, voxels
SMOOTHINGS = (
    "1.5vox 0.5vox",
    "1.732vox 0.7071vox",
    "2vox 1vox",
)  # of greedy's update and field; the second its default
SCHEDULES = ("100x50x10", "100x100x20")  # greedy's iterations at a quarter, half and full resolution
SYN_ITERATIONS = (40, 20, 0)  # at 1/4, 1/2 and full resolution: what ANTsPy takes by itself
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE = "-d 3 -a -dof 12 -ia-image-centers -n 100x50x10 -m NCC 2x2x2"


@dataclass(frozen=True)
class Point:
    """One method with one setting: ``register(fixed, moving, affine, out)`` makes the displacement field ``out``."""

    method: str
    setting: str
    register: Callable[[Path, Path, Path, Path], None]


def benchmark_pairs(
    data: Path, out: Path, methods: Sequence[str] = ("svf", "greedy", "syn"), threads: int = 2, limit: int | None = None
) -> Path:
    """Register :data:`PAIRS` with every point of the methods and append what is missing to ``out/pairs-malc-*.csv``.

    Args:
        data: folder of ``<id>_SS.nii.gz`` and ``<id>_glm.nii.gz``, native scans and labels.
        out: where the csv goes.
        methods: of "svf", "greedy" (picsl-greedy) and "syn" (antspyx).
        threads: of every method.
        limit: number of pairs, the first ones; all by default.

    Raises:
        RegInputError: for an unknown method or a missing scan.
        RegEnvError: without the package of a method.
    """
    files = [(data / f"{f}_SS.nii.gz", data / f"{m}_SS.nii.gz") for f, m in PAIRS[:limit]]
    missing = [path for pair in files for path in (*pair, *map(labels_of, pair)) if not path.is_file()]
    if missing:
        raise RegInputError(f"{missing[0]} is missing, expected native scans and labels of MALC; name their folder.")
    torch.set_num_threads(threads)
    started = time.perf_counter()
    points = [point for method in methods for point in points_of(method, threads)]
    greedy = load_greedy()  # the affine of every method
    warm_up(points, files[0])
    print(f"start-up, imports and compilation: {time.perf_counter() - started:.1f} s", flush=True)
    path = out / f"pairs-malc-{threads}threads.csv"
    done = {(row["fixed"], row["moving"], row["method"], row["setting"]) for row in read(path)}
    with tempfile.TemporaryDirectory() as work:
        for fixed, moving in files:
            affine = out / "affine" / f"{name(fixed)}_{name(moving)}.mat"  # kept: the next run goes on from the same
            for point in points:
                if (name(fixed), name(moving), point.method, point.setting) in done:
                    continue
                if not affine.exists():
                    affine.parent.mkdir(parents=True, exist_ok=True)
                    greedy(f"{AFFINE} -i {fixed} {moving} -o {affine} -threads {threads} -seed 1")
                    append(path, {**row_of(fixed, moving, threads), **initial_scores(fixed, moving, affine)})
                append(path, {**row_of(fixed, moving, threads), **measure(point, fixed, moving, affine, Path(work))})
    return path


def measure(point: Point, fixed: Path, moving: Path, affine: Path, work: Path) -> dict[str, str | float]:
    """Seconds and scores of one registration."""
    field = work / "field.nii.gz"
    field.unlink(missing_ok=True)
    wall, cpu = time.perf_counter(), cpu_seconds()
    point.register(fixed, moving, affine, field)
    seconds = {"seconds": round(time.perf_counter() - wall, 2), "cpu_seconds": round(cpu_seconds() - cpu, 2)}
    ddf_mm, _ = read_displacement(field)
    return {"method": point.method, "setting": point.setting, **scores(ddf_mm, fixed, moving, affine), **seconds}


def initial_scores(fixed: Path, moving: Path, affine: Path) -> dict[str, str | float]:
    """Those of the affine alone."""
    ddf_mm = torch.zeros(1, 3, *nib.load(fixed).shape)
    return {"method": "affine", "setting": "", **scores(ddf_mm, fixed, moving, affine), "seconds": 0, "cpu_seconds": 0}


def scores(ddf_mm: torch.Tensor, fixed: Path, moving: Path, affine: Path) -> dict[str, float]:
    """Dice over the 134 labels (nearest), SDlogJ, NDV and folds of the deformable part, over the whole fixed grid."""
    grid, other = nib.load(fixed).affine, nib.load(moving).affine
    ddf = mm_to_ddf(ddf_mm, grid)
    total = total_displacement_mm(ddf, grid, grid, tuple(ddf.shape[2:]), np.loadtxt(affine))
    fixed_label, moving_label = (
        torch.from_numpy(np.asarray(nib.load(labels_of(path)).dataobj, dtype=np.int32))[None, None]
        for path in (fixed, moving)
    )
    warped = warp_mm(moving_label.float(), other, total, grid, mode="nearest").round().int()
    overlap = dice(warped, fixed_label, [int(label) for label in LABELS], moving_label)[0].nanmean()
    return {
        "dice": round(float(overlap), 5),
        "sdlogj": round(float(sdlogj(ddf)), 5),
        "ndv_percent": round(float(ndv(ddf)), 6),
        "folds": int(folds(ddf).count),
    }


def points_of(method: str, threads: int) -> Iterator[Point]:
    """Every setting of a method."""
    if method == "svf":
        for settings in SVF_POINTS:
            yield Point("svf", ", ".join(f"{key} {value}" for key, value in settings.items()), svf(settings))
    elif method == "greedy":
        greedy = load_greedy()
        for schedule in SCHEDULES:
            for radius in RADII:
                for smoothing in SMOOTHINGS:
                    options = f"-sv -n {schedule} -m NCC {radius}x{radius}x{radius} -s {smoothing}"
                    yield Point("greedy", options, greedy_with(greedy, f"{options} -wp 0 -threads {threads}"))
    elif method == "syn":
        yield Point("syn", f"CC radius 4, {'x'.join(map(str, SYN_ITERATIONS))}", load_syn())
    else:
        raise RegInputError(f"the method is '{method}', expected svf, greedy or syn; choose of these.")


def svf(settings: Mapping[str, object]) -> Callable[[Path, Path, Path, Path], None]:
    """The bundle as its inference.json has it, its reading and intensities included."""
    bundle = BundleInProcess("svf", (), {**settings, "network_def::progress": False})

    def register(fixed: Path, moving: Path, affine: Path, out: Path) -> None:
        write_displacement(out, bundle(fixed, moving, np.loadtxt(affine)).own, nib.load(fixed).affine)

    return register


def load_greedy() -> Callable[[str], None]:
    """Runs a command line of greedy in this process, its output left out."""
    try:
        from picsl_greedy import Greedy3D
    except ImportError as error:
        raise RegEnvError(
            f"greedy needs picsl-greedy ({error}); install it with `pip install picsl-greedy`."
        ) from error
    return lambda command: Greedy3D().execute(f"{command} -V 0")


def greedy_with(greedy: Callable[[str], None], options: str) -> Callable[[Path, Path, Path, Path], None]:
    """Greedy with some options, the field written as exactly as float32 is."""

    def register(fixed: Path, moving: Path, affine: Path, out: Path) -> None:
        greedy(f"-d 3 -i {fixed} {moving} -it {affine} -o {out} {options}")

    return register


def load_syn() -> Callable[[Path, Path, Path, Path], None]:
    """ANTs' SyN with cross-correlation, steps and smoothing as in ``tools.syn``."""
    from ..syn import PARAMETERS, load_ants

    ants = load_ants()

    def register(fixed: Path, moving: Path, affine: Path, out: Path) -> None:
        with tempfile.TemporaryDirectory() as work:
            initial = Path(work) / "initial.mat"
            matrix = LPS @ np.loadtxt(affine) @ LPS  # greedy writes RAS
            start = ants.create_ants_transform("AffineTransform", matrix=matrix[:3, :3], translation=matrix[:3, 3])
            ants.write_transform(start, str(initial))
            settings = PARAMETERS | {"reg_iterations": SYN_ITERATIONS, "initial_transform": str(initial)}
            images = [ants.image_read(str(path)) for path in (fixed, moving)]
            result = ants.registration(*images, outprefix=f"{work}/", **settings)
            shutil.move(result["fwdtransforms"][0], out)

    return register


def warm_up(points: Sequence[Point], pair: tuple[Path, Path]) -> None:
    """Compile what is compiled at the first call, on a corner of the images."""
    first = next((point for point in points if point.method == "svf"), None)
    if first is None:
        return
    with tempfile.TemporaryDirectory() as work:
        corner = [Path(work) / path.name for path in pair]
        for path, target in zip(pair, corner, strict=True):
            image = nib.load(path)
            nib.save(image.slicer[60:100, 60:100, 60:100], target)
        affine = Path(work) / "affine.mat"
        start = np.eye(4)
        start[:3, 3] = nib.load(corner[1]).affine[:3, 3] - nib.load(corner[0]).affine[:3, 3]
        np.savetxt(affine, start)
        first.register(*corner, affine, Path(work) / "field.nii.gz")


def row_of(fixed: Path, moving: Path, threads: int) -> dict[str, str | float]:
    """What every row begins with."""
    stack = {"device": device_name("cpu"), "threads": threads, "commit": commit()}
    return {**stack, "fixed": name(fixed), "moving": name(moving)}


def labels_of(image: Path) -> Path:
    """The label map beside a scan."""
    return image.with_name(image.name.replace("_SS", "_glm"))


def name(image: Path) -> str:
    """The subject's number."""
    return image.name.removesuffix("_SS.nii.gz")


def cpu_seconds() -> float:
    """Of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a csv, none without it."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: Mapping[str, str | float]) -> None:
    """Add a row, the header first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
