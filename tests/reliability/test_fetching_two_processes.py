"""Two processes that fetch the same into the same folder: both end well, one of them fetched."""

import pytest

from tests.reliability.fetching import DATA, TOOLS, left_in, sound_zip
from tests.reliability.fetching_runs import PATIENCE_S, Work, command_work, monai_download, offered, said_by
from tests.reliability.warm import warm_server

SUBJECT = "two processes"
PAUSE_S = 0.02

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def server():
    with warm_server():
        yield


def end_well(work: Work, folder) -> bool:
    """Whether two of them, begun together, do."""
    processes = [work.start(folder) for _ in range(2)]
    for process in processes:
        process.join(PATIENCE_S)
    return [process.exitcode for process in processes] == [0, 0]


@pytest.mark.parametrize("tool", TOOLS, ids=[tool.name for tool in TOOLS])
def test_two_that_fetch_the_same_get_it_once(ledger, tmp_path, tool):
    content = sound_zip(tool, tmp_path / tool.zip).read_bytes()
    with offered(tool, content, PAUSE_S) as offer:
        work = command_work(offer)
        alone, _ = work.in_peace(tmp_path / "peace")
        well = end_well(work, tmp_path / "raw")
        right = well and left_in(tmp_path / "raw") == alone and offer.asked() == 1
        ledger.tell(SUBJECT, tool.name, right)
        if ledger.kept and tool is DATA:
            well_alone = end_well(monai_download(offer), tmp_path / "alone")
            ledger.tell_alone(SUBJECT, tool.name, well_alone and (tmp_path / "alone" / tool.zip).exists(), "MONAI")
    assert right, said_by(tmp_path / "raw")
