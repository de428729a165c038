"""Downloads and extractions that run out of disk: one sentence, status 3, and all as it was before."""

import subprocess
from pathlib import Path

import pytest

from tests.reliability.alone import download_alone, in_time, on_full_disk, unpack_alone
from tests.reliability.fetching import BUNDLE, DATA, TOOLS, left_in, sound_zip
from tests.reliability.fetching_runs import Offer, Work, command_work, offered, said_by
from tests.reliability.warm import warm_server

SUBJECT = "disk full"
LEAST = 100_000  # bytes that a file may have here; the archives have 300 kB

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def server():
    with warm_server():
        yield


def is_told(work: Work, folder: Path) -> tuple[bool, object]:
    """Whether it ends with one sentence and status 3, and leaves the folder as it was."""
    before = left_in(folder)
    process = work.start(folder)
    process.join()
    said, after = said_by(folder), left_in(folder)
    right = process.exitcode == 3 and len(said.splitlines()) == 1 and "free" in said and after == before
    return right, (process.exitcode, said, sorted(after))


def leaves_nothing_alone(offer: Offer, there: str, content: bytes, folder: Path) -> bool:
    """Whether MONAI says that a download does not fit or, of an archive that is there, its files; and leaves none."""
    folder.mkdir()
    archive, final = folder / offer.tool.zip, folder / offer.tool.final
    if there == "nothing":
        call = (download_alone, offer.url, archive, offer.sha256)
    else:
        archive.write_bytes(content)
        call = (unpack_alone, archive, final)
    before = left_in(folder)
    return in_time(on_full_disk, LEAST, *call, work=folder.with_name("work")) == 1 and left_in(folder) == before


@pytest.mark.parametrize("there", ["nothing", "the archive", "an earlier one"])
@pytest.mark.parametrize("tool", TOOLS, ids=[tool.name for tool in TOOLS])
def test_a_file_that_does_not_fit_leaves_all_as_it_was(ledger, tmp_path, tool, there):
    if tool is BUNDLE and there != "nothing":
        pytest.skip("a bundle never takes the place of another one")
    folder = tmp_path / "raw"
    folder.mkdir()
    content = sound_zip(tool, tmp_path / tool.zip).read_bytes()
    if there != "nothing":
        (folder / tool.zip).write_bytes(content if there == "the archive" else b"earlier")
    with offered(tool, content) as offer:
        more = ["--force"] if there == "an earlier one" else []
        right, found = is_told(command_work(offer, *more, limit=LEAST), folder)
        case = f"{tool.name} over {there}"
        ledger.tell(SUBJECT, case, right)
        if ledger.kept and tool is DATA and there != "an earlier one":  # which MONAI never replaces
            ledger.tell_alone(SUBJECT, case, leaves_nothing_alone(offer, there, content, tmp_path / "alone"), "MONAI")
    assert right, found


@pytest.mark.parametrize("tool", TOOLS, ids=[tool.name for tool in TOOLS])
def test_a_disk_that_is_full_holds_no_stump(ledger, tmp_path, tool):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    content = sound_zip(tool, tmp_path / tool.zip).read_bytes()
    try:
        with offered(tool, content) as offer:  # the archive fits, what is in it does not
            process = command_work(offer).start(disk)
            process.join()
        said, left = said_by(disk), left_in(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    right = process.exitcode == 3 and len(said.splitlines()) == 1 and "free" in said
    right = right and not any(path.startswith((tool.final + "/", ".")) for path in left)
    ledger.tell(SUBJECT, f"{tool.name} on a small disk", right)
    assert right, (process.exitcode, said, sorted(left))
