"""What a training run survives, counted: kills, damaged checkpoints; and whether it repeats itself.

The runs are the bundle's own ``train.json`` on a phantom of 32 voxels a side, each in a process of its own. Kills are
SIGKILL at moments drawn evenly from the length of an undisturbed run, start and validation included; a run is resumed
and killed again until it ends by itself, and its end must be bitwise that of the undisturbed run.
"""

import hashlib
import io
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import torch

from common.checkpoint import load_checkpoint
from common.errors import RegInputError
from common.phantom import write_phantom

from ..repository import REPOSITORY, commit
from .measuring import device_name, file_name, write

__all__ = ["benchmark_training", "damaged_copies"]

BUNDLE = REPOSITORY / "bundles" / "eoir"
SETTINGS = {"max_epochs": 8, "steps_per_epoch": 4, "val_interval": 2, "channels": 4, "lr_decay_power": 0.9}
TRUNCATIONS = 5


def benchmark_training(
    out: Path,
    kills: int = 50,
    damages: int = 305,
    seed: int = 0,
    *,
    threads: int = 1,
    command: str,
    say: Callable[[str], None] = print,
) -> Path:
    """Run the three checks and write a row each: what was tried, what passed, and what plain torch would have seen.

    Args:
        out: folder for the csv, whose name tells device and stack.
        kills: SIGKILLs at random moments, each followed by a resume.
        damages: copies of a checkpoint, five truncated and the others with one bit turned.
        seed: of moments and bits; the runs keep the bundle's.
        threads: of torch.
        command: what to write in the ``command`` column.
        say: gets a line after each check.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: for counts that are too small.
    """
    if kills < 1 or damages < TRUNCATIONS:
        raise RegInputError(f"kills is {kills} and damages {damages}, expected at least 1 and {TRUNCATIONS}.")
    stack = {"device": device_name("cpu"), "torch": torch.__version__, "threads": threads, "commit": commit()}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row in checks(Path(folder), kills, damages, random.Random(seed), threads):
            rows.append(row | stack | {"command": command})
            say(f"{row['check']}: {row['passed']} of {row['tried']} ({row['detail']})")
    return write(Path(out) / file_name("training", "cpu", threads), rows)


def checks(folder: Path, kills: int, damages: int, rng: random.Random, threads: int) -> Iterator[dict]:
    """The rows, as they are done."""
    write_phantom(folder / "data", subjects=6, size=(32, 32, 32))
    runs = Runs(folder, threads)
    seconds = runs.run("whole")
    yield same_seed(runs)
    yield killed(runs, kills, seconds, rng)
    yield damaged(next((folder / "whole/models/checkpoints").glob("*.pt")), damages, rng)


class Runs:
    """Trainings in processes of their own, which begin with everything imported.

    Args:
        folder: holds ``data`` and gets a folder for each run.
        threads: of torch.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder = folder
        self.threads = threads
        self.context = get_context("forkserver")
        self.context.set_forkserver_preload(["monai.bundle", "monai.engines", "common.engine", "common.inference"])

    def start(self, name: str, resume: bool = False, **settings):
        """Begin a run under a name; a process."""
        arguments = (self.folder / name, self.folder / "data", resume, self.threads, SETTINGS | settings)
        process = self.context.Process(target=train, args=arguments)
        process.start()
        return process

    def run(self, name: str, **settings) -> float:
        """Run to the end; seconds that it took."""
        begin = time.perf_counter()
        process = self.start(name, **settings)
        process.join()
        if process.exitcode:
            raise RuntimeError(f"the run '{name}' failed with exit status {process.exitcode}")
        return time.perf_counter() - begin

    def end_of(self, name: str) -> str:
        """Hash over every bit of a run's best weights, last weights and newest checkpoint."""
        models = self.folder / name / "models"
        newest = max((models / "checkpoints").glob("epoch_*.pt"))
        contents = [load_checkpoint(path) for path in (models / "model.pt", models / "last.pt", newest)]
        return hashlib.sha256("".join(map(bits, contents)).encode()).hexdigest()


def train(folder: Path, data: Path, resume: bool, threads: int, settings: dict) -> None:
    """One run of the bundle's train.json."""
    workflow = prepared(folder, data, resume, threads, settings)
    workflow.run()
    workflow.finalize()


def prepared(folder: Path, data: Path, resume: bool, threads: int, settings: dict):
    """The bundle's training workflow, initialized; its output goes to the run's log."""
    from monai.bundle import ConfigWorkflow

    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(threads)
    places = {"dataset_dir": str(data), "ckpt_dir": str(folder / "models"), "output_dir": str(folder / "eval")}
    workflow = ConfigWorkflow(
        config_file=str(BUNDLE / "configs" / "train.json"),
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        workflow_type="train",
        bundle_root=str(BUNDLE),
        device="$torch.device('cpu')",
        resume=resume,
        **places,
        **settings,
    )
    workflow.initialize()
    return workflow


def bits(value: object) -> str:
    """Every bit of a nest of containers and tensors as text."""
    if isinstance(value, torch.Tensor):
        digest = hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
        return f"{value.dtype}{tuple(value.shape)}{digest}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{bits(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(bits, value)) + "]"
    return repr(value)


def same_seed(runs: Runs) -> dict:
    """Two runs of one seed, and one of another that has to differ."""
    begin = time.perf_counter()
    runs.run("again")
    runs.run("other", seed=1)
    whole, again, other = (runs.end_of(name) for name in ("whole", "again", "other"))
    return {
        "check": "the same seed twice gives the same bits",
        "tried": 1,
        "passed": int(whole == again),
        "plain_torch": "",
        "detail": f"another seed gives {'the same' if other == whole else 'others'}",
        "seconds": round(time.perf_counter() - begin, 1),
    }


def killed(runs: Runs, kills: int, seconds: float, rng: random.Random) -> dict:
    """Kill and resume until all kills are spent; each chain of them ends in a run that finishes."""
    begin = time.perf_counter()
    expected = runs.end_of("whole")
    done = passed = chains = leftovers = 0
    while done < kills:
        name, used = f"chain_{chains}", 0
        process = runs.start(name)
        while True:
            process.join(rng.uniform(0, seconds) if done + used < kills else None)
            if process.exitcode is not None:
                break
            process.kill()
            process.join()
            used += 1
            leftovers += len(list((runs.folder / name).rglob(".*.pt")))
            process = runs.start(name, resume=True)
        good = process.exitcode == 0 and runs.end_of(name) == expected
        clean = not list((runs.folder / name).rglob(".*.pt"))
        passed += used if good and clean else 0
        done += used
        chains += 1
    return {
        "check": "kills at random moments, resumed",
        "tried": done,
        "passed": passed,
        "plain_torch": "",
        "detail": f"{chains} runs ended bitwise as the undisturbed one; {leftovers} half-written files were removed",
        "seconds": round(time.perf_counter() - begin, 1),
    }


def damaged(checkpoint: Path, damages: int, rng: random.Random) -> dict:
    """Load damaged copies of a checkpoint with our reader and with torch's."""
    begin = time.perf_counter()
    path = checkpoint.with_name("damaged.pt")
    refused = by_torch = 0
    for copy in damaged_copies(checkpoint.read_bytes(), damages, rng):
        path.write_bytes(copy)
        refused += refuses(lambda: load_checkpoint(path))
        by_torch += refuses(lambda copy=copy: torch.load(io.BytesIO(copy), weights_only=True))
    return {
        "check": "damaged checkpoints refused",
        "tried": damages,
        "passed": refused,
        "plain_torch": by_torch,
        "detail": f"{TRUNCATIONS} truncated, the others with one bit turned; {checkpoint.stat().st_size} bytes",
        "seconds": round(time.perf_counter() - begin, 1),
    }


def damaged_copies(data: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """Copies truncated to 0, 1/4, 1/2, 3/4 and all but one byte, then copies with one bit turned."""
    for length in (0, len(data) // 4, len(data) // 2, 3 * len(data) // 4, len(data) - 1):
        yield data[:length]
    for _ in range(count - TRUNCATIONS):
        place = rng.randrange(8 * len(data))
        copy = bytearray(data)
        copy[place // 8] ^= 1 << place % 8
        yield bytes(copy)


def refuses(load: Callable) -> bool:
    """Whether a reader raises."""
    try:
        load()
    except Exception:  # torch's reader raises errors of many kinds on bytes of any kind
        return True
    return False
