"""Commands that run out of disk: one sentence, status 3, no half a file, and what was there before is there yet."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from common.checkpoint import load_checkpoint
from tests.reliability.alone import in_time, on_full_disk, save_image_alone, save_weights_alone
from tests.reliability.commands import (
    Command,
    evaluate_command,
    prepare_command,
    register_command,
    train_command,
)
from tests.reliability.results import hidden, same_whenever
from tests.reliability.warm import limit_files, run, warm_server

SUBJECT = "disk full"
MAKERS = {command.__name__.split("_")[0]: command for command in (prepare_command, register_command, evaluate_command)}
TABLES = ("metrics.csv", "failures.csv")
LEAST = 3000  # bytes that what a command says may take
WITHOUT_PAGES = {"prepare": [], "register": ["--no-report"], "evaluate": ["--reports", "0"]}  # pages never end a run
OTHERWISE = {"prepare": ["--window", "0,500"], "register": ["--no-inverse", "--force"], "evaluate": ["--labels", "1,2"]}
"""What makes another result of the same data."""
SENTENCE = re.compile(r"could not be written \(.*\); free space or choose another folder\.$")


@pytest.fixture(scope="module", autouse=True)
def server():
    with warm_server():
        yield


@pytest.fixture(scope="module", params=list(MAKERS))
def finished(request, tmp_path_factory) -> tuple[Command, Path]:
    """A command and what it writes where there is room."""
    folder, made = tmp_path_factory.mktemp(request.param), MAKERS[request.param]
    words = made(folder).words
    command = Command(request.param, lambda out: [*words(out), *WITHOUT_PAGES[request.param]])
    assert run(command.words(folder / "out"), folder / "said") == 0, (folder / "said").read_text()
    return command, folder / "out"


def limits(folder: Path) -> list[int]:
    """One byte too few for each file that a command writes, the largest first."""
    sizes = {path.stat().st_size - 1 for path in folder.rglob("*") if path.is_file()}
    return sorted((size for size in sizes if size > LEAST), reverse=True)


def spread(values: list[int], count: int) -> list[int]:
    """So many of them, or all, from the first to the last."""
    count = min(count, len(values))
    return [values[round(k * (len(values) - 1) / max(count - 1, 1))] for k in range(count)]


@pytest.mark.parametrize(("count", "chosen"), [(1, [9]), (2, [9, 1]), (3, [9, 5, 1]), (20, [9, 7, 5, 3, 1])])
def test_limits_are_spread_over_all_sizes_and_none_twice(count, chosen):
    assert spread([9, 7, 5, 3, 1], count) == chosen


def is_told(said: Path) -> bool:
    """Whether the last line is the sentence, and none is a traceback's."""
    text = said.read_text()
    return bool(SENTENCE.search(text.rstrip())) and "Traceback" not in text


def is_whole(folder: Path, finished: Path) -> bool:
    """Whether what lies there is whole: what the command writes where there is room, and nothing else."""
    return results(folder).items() <= results(finished).items() and hidden(folder.parent) == []


def results(folder: Path) -> dict[str, str]:
    """What a command has made, without the tables of the pairs that are done and of those that failed."""
    found = same_whenever(folder) if folder.exists() else {}
    return {name: value for name, value in found.items() if name not in TABLES}


def images_of(folder: Path, limit: int) -> list[Path]:
    """Images that are one byte larger than a limit: of what a command writes, they alone are a library's files."""
    return [path for path in folder.rglob("*.nii.gz") if path.stat().st_size - 1 == limit]


def leaves_no_stump(image: Path, folder: Path) -> bool:
    """Whether nibabel says of an image that its file is one byte too large, and leaves none."""
    copy = folder / "alone.nii.gz"
    save_image_alone(image, copy)
    size = copy.stat().st_size
    copy.unlink()
    status = in_time(on_full_disk, size - 1, save_image_alone, image, copy, work=folder / "work")
    return status == 1 and not copy.exists()


def leaves_the_earlier(checkpoint: Path, folder: Path) -> bool:
    """Whether torch says so of a checkpoint, and leaves the one that it was to take the place of."""
    copy = folder / "alone.pt"
    save_weights_alone(checkpoint, copy)
    before = copy.read_bytes()
    status = in_time(on_full_disk, len(before) - 1, save_weights_alone, checkpoint, copy, work=folder / "work")
    return status == 1 and copy.read_bytes() == before


@pytest.mark.slow
def test_no_half_a_file_is_left_where_a_file_does_not_fit(ledger, count, finished, tmp_path):
    command, full = finished
    wrong = []
    for limit in spread(limits(full), count(20, 2)):
        folder = tmp_path / str(limit)
        folder.mkdir()
        status = run(command.words(folder / "out"), folder / "said", limit_files, limit)
        right = status == 3 and is_told(folder / "said") and is_whole(folder / "out", full)
        case = f"{command.name}: no file above {limit} bytes"
        ledger.tell(SUBJECT, case, right)
        for image in images_of(full, limit)[: ledger.kept]:
            ledger.tell_alone(SUBJECT, case, leaves_no_stump(image, folder), "nibabel")
        wrong += [] if right else [(limit, status, (folder / "said").read_text()[-600:])]
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_no_half_a_file_is_left_on_a_full_disk(ledger, finished, tmp_path, share):
    command, full = finished
    disk, said = tmp_path / "disk", tmp_path / "said"
    disk.mkdir()
    size = int(share * sum(path.stat().st_size for path in full.rglob("*")))
    if shutil.which("mount") is None or subprocess.run(mount(disk, size), capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        status = run(command.words(disk / "out"), said)
        right = status == 3 and is_told(said) and is_whole(disk / "out", full)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    ledger.tell(SUBJECT, f"{command.name}: {share:.0%} of the disk that it needs", right)
    assert right, (status, said.read_text()[-600:])


def mount(folder: Path, size: int) -> list[str]:
    """The command that makes a folder a disk of so many bytes."""
    return ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]


@pytest.mark.slow
def test_an_earlier_result_stays_where_the_new_one_does_not_fit(ledger, finished, tmp_path):
    command, full = finished
    shutil.copytree(full, tmp_path / "out")
    before = results(tmp_path / "out")
    words = [*command.words(tmp_path / "out"), *OTHERWISE[command.name]]
    status = run(words, tmp_path / "said", limit_files, LEAST)
    after = results(tmp_path / "out")
    right = status == 3 and is_told(tmp_path / "said") and after == before and hidden(tmp_path) == []
    ledger.tell(SUBJECT, f"{command.name}: over an earlier result", right)
    assert right, (status, (tmp_path / "said").read_text()[-600:], set(before) ^ set(after))


@pytest.mark.slow
@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_what_training_leaves_is_whole_where_a_checkpoint_does_not_fit(ledger, tmp_path, which):
    """The largest is the state of the run; where not even weights fit, a page is what first does not."""
    command, out = train_command(tmp_path), tmp_path / "out"
    assert run(command.words(out), tmp_path / "said") == 0, (tmp_path / "said").read_text()[-600:]
    before, sizes = checkpoints(out), [path.stat().st_size for path in out.rglob("*.pt")]
    limit = {"largest": max, "smallest": min}[which](sizes) - 1
    status = run([*command.words(out), "--seed", "1"], tmp_path / "second", limit_files, limit)
    last, after = (tmp_path / "second").read_text().splitlines()[-1], checkpoints(out)
    right = status != 0 and bool(SENTENCE.search(last)) and hidden(out) == []
    right = right and before.keys() == after.keys() and (which == "largest" or before == after)
    case = f"train: room for all but the {which} checkpoint"
    ledger.tell(SUBJECT, case, right)
    if ledger.kept:
        checkpoint = {"largest": max, "smallest": min}[which](out.rglob("*.pt"), key=lambda path: path.stat().st_size)
        ledger.tell_alone(SUBJECT, case, leaves_the_earlier(checkpoint, tmp_path), "torch")
    assert right, (status, last, before, after)


def checkpoints(folder: Path) -> dict[str, str]:
    """Hashes of all checkpoints below a folder by their names, whatever folder they were moved to; each can be read."""
    for path in folder.rglob("*.pt"):
        load_checkpoint(path)
    return {Path(name).name: value for name, value in same_whenever(folder).items() if name.endswith(".pt")}
