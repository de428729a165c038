"""Servers that fail or deceive, through the two commands that fetch: the file, or one sentence and no file."""

import errno
import hashlib
import re
from urllib.request import urlopen

import pytest

from tests.reliability.alone import download_alone, in_time
from tests.reliability.fetching import DATA, TOOLS, Tool, left_in, run, sealed, sound_zip
from tests.reliability.network_faults import FAULTS, Fault
from tests.reliability.warm import warm_server
from tests.tools.data.fetch.archives import tree
from tests.tools.data.fetch.loopback import serve

SUBJECT = "network faults"


@pytest.fixture(scope="module", autouse=True)
def server(ledger):
    """The process that MONAI's are forked from."""
    if ledger.kept:
        with warm_server():
            yield
    else:
        yield


def is_borne(tool: Tool, fault: Fault, content: bytes, tmp_path) -> tuple[bool, object]:
    """Whether a command has the file in the end, or ends with the right sentence and no file under its name."""
    known = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content) if fault.sized else None}
    with serve(sealed(tool, content, fault.answer(content))) as server:
        said = run(tool, server.url, tmp_path / "raw", fault.timeout, **known)
    left = left_in(tmp_path)
    if fault.words is None:
        made = tree(tmp_path / "raw" / tool.final)
        expected = {name.removeprefix(f"{tool.final}/"): content for name, content in tool.members.items()}
        found = {name.removeprefix(f"{tool.final}/"): content for name, content in made.items()}
        right = said.status == 0 and said.seconds < 15 and expected.items() <= found.items()
        return right and set(left) == {name for name in left if name.startswith("raw/")}, (said, sorted(left))
    right = said.is_sentence(fault.status) and bool(re.search(fault.words, said.text))
    return right and all(".part" in name and name.startswith("raw/") for name in left), (said, sorted(left))


def is_borne_alone(fault: Fault, content: bytes, tmp_path) -> bool:
    """Whether MONAI has the file in the end, or says in time that it has not, and leaves nothing under its name."""
    path = tmp_path / "alone" / "scans.zip"
    with serve(fault.answer(content)) as server:
        arguments = (f"{server.url}/scans.zip", path, hashlib.sha256(content).hexdigest())
        status = in_time(download_alone, *arguments, work=tmp_path / "alone_work")
    if status == 0:
        return path.is_file() and path.read_bytes() == content
    return status is not None and not path.exists()


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("tool", TOOLS, ids=[tool.name for tool in TOOLS])
def test_a_fault_costs_one_sentence_or_nothing(ledger, tmp_path, tool, name):
    fault = FAULTS[name]
    path = sound_zip(tool, tmp_path / tool.zip)
    content = path.read_bytes()
    path.unlink()
    right, found = is_borne(tool, fault, content, tmp_path)
    ledger.tell(SUBJECT, f"{tool.name}: {name}", right)
    if ledger.kept and fault.alone and tool is DATA:
        ledger.tell_alone(SUBJECT, f"{tool.name}: {name}", is_borne_alone(fault, content, tmp_path), "MONAI")
    assert right, found


def test_there_are_twenty_and_more():
    assert len(FAULTS) >= 20


def test_a_reset_is_one_to_the_client():
    with serve(FAULTS["reset"].answer(b"")) as server, pytest.raises(ConnectionResetError) as met:
        urlopen(server.url, timeout=10)
    assert met.value.errno == errno.ECONNRESET  # a connection that ends without an answer is of this class too
