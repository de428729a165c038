"""What a newcomer waits for and gets: every bundle's train.json as it is, on the phantom, then scored."""

import csv
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import RegInputError

from ..evaluate import evaluate
from ..repository import REPOSITORY
from ..weights import trained_names
from .measuring import apart, check_device, file_name, stack_of, write

__all__ = ["BUNDLES", "benchmark_defaults"]

BUNDLES = ("voxelmorph", "lku_net", "transmorph")
BEFORE = "before"


def benchmark_defaults(
    out: Path,
    bundles: Sequence[str] = BUNDLES,
    *,
    work: Path,
    settings: Mapping[str, Any] | None = None,
    threads: int = 2,
    device: str = "cpu",
    command: str = "",
    say: Callable[[str], None] = print,
) -> Path:
    """Seconds of every bundle's training by default, and Dice of the validation and test pairs before and after it.

    The seconds are those of the whole command ``monai.bundle run``: imports and the writing of the phantom count.

    Args:
        out: folder for ``defaults-<device>-<stack>.csv``.
        bundles: names of folders whose networks are trained.
        work: folder for phantoms, weights and scores, kept; the bundles' own folders stay as they are.
        settings: values by the ids of train.json that differ from it.
        threads: of torch and numba.
        device: "cpu" or "cuda".
        command: what to write in the ``command`` column.
        say: is handed a line for each bundle.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: an unknown bundle, no such device, a work folder that is in use, or a training that fails.
    """
    check_device(device)
    if not bundles:
        raise RegInputError(f"got no bundle; expected some of {', '.join(BUNDLES)}.")
    for name in bundles:
        trained_names(name, REPOSITORY / "bundles")
        if Path(work, name).exists():
            raise RegInputError(f"{Path(work, name)} is there already; expected a folder to fill; name another --work.")
    rows = []
    for name in bundles:
        folder = Path(work, name).absolute()
        seconds = train(name, folder, settings or {}, threads, device)
        row = {"bundle": name, "training_s": round(seconds, 1), **apart(score, name, folder, threads, device)}
        say(f"{name}: {row['training_s']} s, test Dice {row['testing_dice_before']} to {row['testing_dice_after']}")
        stack = stack_of((), device, threads)
        rows.append({**row, **{key: stack[key] for key in stack if key != "size"}, "command": command})
    return write(Path(out) / file_name("defaults", device, threads), rows)


def train(name: str, folder: Path, settings: Mapping[str, Any], threads: int, device: str) -> float:
    """Seconds of the command that trains the bundle into ``folder``; RegInputError with its last line if it fails."""
    bundle = REPOSITORY / "bundles" / name
    ids = {
        **settings,
        "bundle_root": str(bundle),
        "ckpt_dir": str(folder / "models"),
        "output_dir": str(folder / "eval"),
        "dataset_dir::dataset_dir": str(folder / "phantom"),
        "device": f"$torch.device('{device}')",
    }
    words = [f"--{key}={value}" for key, value in ids.items()]
    config = str(bundle / "configs" / "train.json")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, *words]
    folder.mkdir(parents=True)
    log = folder / "training.log"
    started = time.perf_counter()
    with log.open("w") as file:
        environment = os.environ | threads_of(threads)
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        last = next((line for line in reversed(log.read_text(errors="replace").split("\n")) if line.strip()), "")
        raise RegInputError(
            f"{name} could not be trained (status {done.returncode}): {last.strip() or 'it said nothing'}"
        )
    return time.perf_counter() - started


def threads_of(threads: int) -> dict[str, str]:
    """The variables that processes take their number of threads from."""
    return {key: str(threads) for key in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}


def score(name: str, folder: Path, threads: int, device: str) -> dict[str, float]:
    """Mean Dice of both sections' pairs by ``regbundles evaluate``; alters the process's environment."""
    os.environ |= threads_of(threads)
    method = re.sub("[^A-Za-z0-9]+", "-", name)
    values = {"ckpt_path": folder / "models" / "model.pt", "device": device}
    found = {}
    for section in ("validation", "testing"):
        scores = folder / f"scores-{section}"
        sources = [f"{BEFORE}=none", f"{method}={REPOSITORY / 'bundles' / name}"]
        overrides = [f"{method}:{key}={value}" for key, value in values.items()]
        evaluate(str(folder / "phantom"), section, sources, str(scores), overrides=overrides, reports=0, say=str)
        with (scores / "pairs.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for when, named in (("before", BEFORE), ("after", method)):
            dice = statistics.mean(float(row["dice"]) for row in rows if row["method"] == named)
            found[f"{section}_dice_{when}"] = round(dice, 4)
    return found
