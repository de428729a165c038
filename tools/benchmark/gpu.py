"""All that a GPU has to show, in one command that goes on where it stopped.

Question: how much faster than what they replace are the kernels and networks of the collection on this GPU, are their
numbers right there, and what does a training step still spend its time on? The parts come in order of importance, each
with a csv of its own that is whole after every row; ``failures-*.csv`` says what has no row, and why. Remove a line of
it to have that case tried again.
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET  # what is parsed is pytest's own report
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import RegInputError, in_one_line
from common.report import save_figure

from ..repository import REPOSITORY
from ..repository import commit as commit_here
from . import curves, epoch, lncc, network
from .cases import Case, Sheet, run_cases
from .measuring import check_device, file_name, stack_of
from .network_variants import FAST_LNCC, VARIANTS
from .profile import STEP_VARIANTS, add_differences, profile_cases

__all__ = ["PARTS", "PLANS", "Plan", "benchmark_gpu"]

PARTS = ("tests", "lncc", "epoch", "network", "profile", "curves")
Grid = tuple[int, ...]


class Plan(NamedTuple):
    """What is measured.

    ``lncc`` holds grids (B, C, *S) with a window each; ``peers`` what runs beside our own backends; ``others`` are the
    backends of all grids but the first.
    """

    tests: tuple[str, tuple[str, ...]]
    lncc: tuple[tuple[Grid, int], ...]
    backends: tuple[str, ...]
    others: tuple[str, ...]
    size: Grid
    networks: tuple[str, ...]
    all_networks: tuple[str, ...]
    variants: tuple[str, ...]
    runs: int
    warmup: int
    steps: int
    """Of the curves' trainings."""


COMPILED = tuple(name for name in lncc.LNCC_BACKENDS if name.startswith(lncc.COMPILED))
SIDES = ((80, 96, 112), (160, 192, 224), (256, 256, 256))
PLANS = {
    "full": Plan(
        ("gpu", ()),
        (
            ((1, 1, *SIDES[1]), 9),
            ((2, 16, 128, 128, 128), 7),
            *(((1, 1, *side), k) for side in SIDES for k in (9, 7, 5) if (side, k) != (SIDES[1], 9)),
        ),
        ("triton", "fused_lncc", "five_conv", "group_conv", "monai", "separable", *COMPILED),
        ("triton", "fused_lncc", "five_conv", "group_conv", "monai", "separable"),
        SIDES[1],
        FAST_LNCC,
        tuple(VARIANTS),
        tuple(STEP_VARIANTS),
        runs=7,
        warmup=3,
        steps=200,
    ),
    "small": Plan(
        ("not gpu and not slow", ("tests/common/test_stopwatch.py",)),
        (((1, 1, 9, 10, 11), 3), ((2, 2, 8, 8, 8), 3)),
        ("five_conv", "fused_lncc", "separable"),
        ("five_conv", "separable"),
        (16, 16, 32),
        ("VoxelMorph-1",),
        ("VoxelMorph-1",),
        ("plain", "fused Adam"),
        runs=1,
        warmup=1,
        steps=8,
    ),
}


def benchmark_gpu(
    out: Path,
    minutes: float = 9.0,
    *,
    parts: Sequence[str] | None = None,
    sizes: str = "full",
    threads: int = 8,
    device: str = "cuda",
    commit: str | None = None,
    command: str = "",
    say: Callable[[str], None] = print,
) -> list[str]:
    """Measure what the folder does not hold yet, until the minutes are over.

    Args:
        out: folder of the csv files, at most eight files in all.
        minutes: after which no case goes on; what it cut off is left for the next run.
        parts: of :data:`PARTS`, in this order; all if None.
        sizes: of :data:`PLANS`.
        threads: of torch.
        device: "cuda", or "cpu" to try the command out.
        commit: what to write in the ``commit`` column where git cannot be asked.
        command: what to write in the ``command`` column.
        say: is handed a line for each case that was measured.

    Returns:
        Lines that say what is left, and how to go on.

    Raises:
        RegInputError: unknown parts or sizes, no time, or no such device.
    """
    deadline = time.monotonic() + 60 * minutes
    check_device(device)
    chosen = tuple(parts or PARTS)
    if sizes not in PLANS or set(chosen) - set(PARTS) or not minutes > 0:
        raise RegInputError(
            f"got {minutes} minutes, sizes {sizes!r} and parts {list(chosen)}; expected minutes above 0, one of "
            f"{tuple(PLANS)} and some of {PARTS}."
        )
    plan = PLANS[sizes]
    sheets = sheets_of(Path(out), plan, threads, device, commit or commit_here(), command)
    cases = [case for part in chosen for case in CASES[part](plan, threads, device)]
    left = run_cases(cases, sheets, sheets["failures"], deadline, say)
    draw_curves(sheets["curves"])
    return ending(left, [row["case"] for row in sheets["failures"].rows()], sheets["failures"].path.name, command)


def sheets_of(out: Path, plan: Plan, threads: int, device: str, commit: str, command: str) -> dict[str, Sheet]:
    """The csv of every part, and that of the failures."""
    stack = stack_of(plan.size, device, threads) | {"commit": commit}
    size = {"size": stack.pop("size")}
    runs = {"runs": plan.runs, "warmup": plan.warmup, "command": command}
    columns = {
        "tests": stack | {"command": command},
        "lncc": stack | runs,
        "epoch": size | stack | runs,
        "network": size | stack | runs,
        "profile": stack | runs,
        "curves": stack | {"command": command},
        "failures": stack | {"command": command},
    }
    derived = {"lncc": ratios_by_grid, "epoch": epoch.add_savings, "profile": add_differences}
    return {
        name: Sheet(out / file_name(name, device, threads), values, derived.get(name, lambda rows: None))
        for name, values in columns.items()
    }


def ending(left: Sequence[Case], failed: Sequence[str], failures: str, command: str) -> list[str]:
    """What a reader needs last."""
    lines = [f"{len(failed)} without a result, see {failures}: {'; '.join(failed)}"] if failed else []
    if not left:
        return [*lines, "nothing is left"]
    return [*lines, f"left: {len(left)} ({'; '.join(map(str, left))})", f"go on with the same folder: {command}"]


def suite_cases(plan: Plan, threads: int, device: str) -> list[Case]:
    """All tests that need a GPU, as one case."""
    marker, files = plan.tests
    return [Case("tests", {"marker": marker}, run_tests, (marker, files or gpu_tests()), 240.0)]


def gpu_tests() -> tuple[str, ...]:
    """The files that hold such tests, so that no other has to be imported."""
    files = sorted((REPOSITORY / "tests").rglob("test_*.py"))
    found = [path for path in files if re.search(r"^(?!#).*pytest\.mark\.gpu", path.read_text(), re.M)]
    return tuple(str(path.relative_to(REPOSITORY)) for path in found)


def run_tests(marker: str, files: Sequence[str]) -> dict[str, str | int | float]:
    """Counts of pytest's, and the first reasons."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", marker, "--junitxml", str(report)]
        done = subprocess.run([*command, *files], cwd=REPOSITORY, capture_output=True, text=True)
        if not report.is_file():
            raise RuntimeError(f"pytest ended with status {done.returncode}: {done.stdout[-200:]} {done.stderr[-200:]}")
        suite = ET.parse(report).getroot().find("testsuite")
    counts = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    bad = [(case.get("name"), problem) for case in suite for problem in case if problem.tag in ("failure", "error")]
    return {
        "passed": counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"],
        "failed": counts["failures"] + counts["errors"],
        "skipped": counts["skipped"],
        "seconds": round(float(suite.get("time")), 1),
        "reasons": " | ".join(
            f"{name}: {' '.join(problem.get('message', '').split())[:200]}" for name, problem in bad[:20]
        ),
    }


def lncc_cases(plan: Plan, threads: int, device: str) -> list[Case]:
    """Every backend on the first grid, on the others fewer; of a peer what it can do and what is installed."""
    cases = []
    for index, (grid, window) in enumerate(plan.lncc):
        for backend in plan.others if index else plan.backends:
            if backend == "fused_lncc" and not (device == "cuda" and importlib.util.find_spec(backend)):
                continue
            size, batch = ("x".join(map(str, part)) for part in (grid[2:], grid[:2]))
            key = {"size": size, "window": window, "batch": batch, "backend": backend}
            arguments = (backend, grid, window, plan.runs, plan.warmup, threads, device)
            cases.append(Case("lncc", key, lncc.measure, arguments, 90.0))
    return cases


def ratios_by_grid(rows: list[dict]) -> None:
    """Each row against five convolutions and MONAI's loss on its own grid."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["size"], str(row["window"]), row["batch"]), []).append(row)
    for group in groups.values():
        lncc.add_ratios(group)


def epoch_cases(plan: Plan, threads: int, device: str) -> list[Case]:
    """Every network of the LNCC note by every form of the loss."""
    return [
        Case(
            "epoch",
            {"network": name, "backend": backend},
            epoch.measure,
            (name, backend, plan.size, plan.runs, plan.warmup, threads, device),
        )
        for name in plan.networks
        for backend in epoch.BACKENDS
    ]


def network_cases(plan: Plan, threads: int, device: str) -> list[Case]:
    """Every network of the collection."""
    return [
        Case("network", {"network": name}, network_row, (name, plan.size, plan.runs, plan.warmup, threads, device))
        for name in plan.all_networks
    ]


def network_row(*arguments) -> dict:
    """A registration and a training step."""
    return network.measure_forward(*arguments) | network.measure_training(*arguments)


def step_cases(plan: Plan, threads: int, device: str) -> list[Case]:
    """The profile of the same networks' training steps."""
    variants = [name for name in plan.variants if device == "cuda" or "CUDA" not in name]
    return profile_cases(plan.size, plan.runs, plan.warmup, plan.networks, variants, threads, device)


def curve_cases(plan: Plan, threads: int, device: str) -> list[Case]:
    """One case, because its runs share the rows."""
    return [Case("curves", {"network": curves.NETWORK}, train_curves, (plan.steps, threads, device), 300.0)]


def train_curves(steps: int, threads: int, device: str) -> list[dict]:
    """The losses of every step by every form of the loss, on the bundle's phantom; a small one for few steps."""
    with tempfile.TemporaryDirectory() as folder:
        work, settings = Path(folder), {}
        if steps < 100:
            from common.phantom import write_phantom  # nibabel, which the other parts do without

            settings["dataset_dir"] = str(write_phantom(work / "data", subjects=3, size=(32, 32, 32)).parent)
        runs = curves.runs_of(epoch.BACKENDS)
        return curves.curve_rows(
            {name: curves.losses_of(b, steps, threads, device, str(work / name), settings, up) for name, b, up in runs}
        )


def draw_curves(sheet: Sheet) -> None:
    """The picture beside the curves' csv, once there is one."""
    picture = sheet.path.with_suffix(".png")
    if (rows := sheet.rows()) and not picture.exists():
        names = [name for name, _, _ in curves.runs_of(epoch.BACKENDS)]
        losses = {name: [float(row[name]) for row in rows] for name in names}
        try:
            save_figure(curves.curve_figure(losses, rows[0]), picture)
        except (OSError, ValueError) as error:
            print(f"no picture of the curves: {in_one_line(error)}", file=sys.stderr)


CASES = {
    "tests": suite_cases,
    "lncc": lncc_cases,
    "epoch": epoch_cases,
    "network": network_cases,
    "profile": step_cases,
    "curves": curve_cases,
}
