"""Archives that do harm, through the two commands that unpack what they fetch: refused, and nothing is anywhere."""

import hashlib
import re
import shutil

import pytest

from tests.reliability.alone import in_time, unpack_alone
from tests.reliability.archive_attacks import ATTACKS, Attack, sound
from tests.reliability.fetching import BUNDLE, DATA, Tool, left_in, run, sealed
from tests.reliability.warm import warm_server
from tests.tools.data.fetch.loopback import serve

SUBJECT = "archive attacks"
CASES = [(DATA, name) for name in ATTACKS] + [(BUNDLE, name) for name, attack in ATTACKS.items() if not attack.is_tar]
BEHIND = "scans.zip", "scans.zip.sha256"  # of a sound archive whose place is taken


@pytest.fixture(scope="module", autouse=True)
def server(ledger):
    """The process that MONAI's are forked from."""
    if ledger.kept:
        with warm_server():
            yield
    else:
        yield


@pytest.fixture
def outside(tmp_path):
    """A folder that nobody may touch."""
    folder = tmp_path / "outside"
    (folder / "empty").mkdir(parents=True)
    (folder / "readme.txt").write_bytes(b"somebody's")
    return folder


def is_refused_cleanly(tool: Tool, attack: Attack, archive, tmp_path, outside) -> tuple[bool, object]:
    """Whether a command ends with the right sentence, and leaves nothing but what was there; and what it did."""
    folder = tmp_path / "raw"
    attack.prepare(folder / tool.final, outside)
    before = left_in(tmp_path)
    known = {"sha256": hashlib.sha256(archive).hexdigest()} if attack.words is None else {}
    with serve(sealed(tool, archive)) as server:
        said = run(tool, server.url, folder, **known)
    after = left_in(tmp_path)
    new = {path for path in after if before.get(path) != after[path]}
    if attack.words is None:
        right = said.status == 0 and {path.split("/")[0] for path in new} <= {"raw"} and "zeros" not in str(new)
    else:
        new -= {f"raw/{name}" for name in BEHIND} if attack.make is sound else set()
        right = said.is_sentence(2) and bool(re.search(attack.words, said.text)) and not new
    return right and before.items() <= after.items(), (said, sorted(new))


def is_refused_alone(attack: Attack, archive, tmp_path, outside) -> bool:
    """Whether MONAI refuses it in time, and leaves nothing but what was there."""
    folder = tmp_path / "alone" / "place"
    attack.prepare(folder, outside)
    before = left_in(tmp_path)
    status = in_time(unpack_alone, archive, folder, work=tmp_path / "alone_work")
    after = left_in(tmp_path)
    if attack.words is None:
        return status == 0 and (folder / "scans" / "inner.zip").is_file()
    return status not in (0, None) and after == before


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("tool", "name"), CASES, ids=[f"{tool.name}-{name}" for tool, name in CASES])
def test_an_attack_costs_one_sentence_and_leaves_nothing(ledger, tmp_path, outside, tool, name):
    attack = ATTACKS[name]
    tool = tool._replace(zip="scans.tar") if attack.is_tar else tool
    path = tmp_path / tool.zip
    attack.make(tool, path, outside)
    right, found = is_refused_cleanly(tool, attack, path.read_bytes(), tmp_path, outside)
    ledger.tell(SUBJECT, f"{tool.name}: {name}", right)
    if ledger.kept and tool.name == DATA.name:
        shutil.rmtree(tmp_path / "raw", ignore_errors=True)
        ledger.tell_alone(SUBJECT, f"{tool.name}: {name}", is_refused_alone(attack, path, tmp_path, outside), "MONAI")
    assert right, found


def test_there_are_twenty_and_more():
    assert all(sum(tool is one for tool, _ in CASES) >= 20 for one in (DATA, BUNDLE))
