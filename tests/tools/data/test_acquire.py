"""From a server on this machine to a prepared data set by one command; what is wrong ends in one sentence."""

import hashlib
import io
import zipfile
from functools import partial

import pytest
from typer.testing import CliRunner

from common.datalist import read_datalist
from common.errors import RegInputError
from tools.__main__ import app
from tools.data import acquire as acquire_module
from tools.data import catalog, lung_ct
from tools.data import prepared as prepared_module
from tools.data.acquire import acquire
from tools.data.source import RemoteFile

from .fetch.loopback import send, serve
from .test_lung_ct import TWO, contents, zenodo

SOURCE = next(source for source in lung_ct.SOURCES if source.name == "lung-ct")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Zenodo's training.zip with two cases of a phantom chest."""
    raw = zenodo(tmp_path_factory.mktemp("zenodo"))
    return packed({name: content for name, content in contents(raw).items()})


def packed(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)


def offered(server, content, **changes):
    """The data set as this server has it: two cases, prepared in this process."""
    known = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} | changes
    file = RemoteFile("training.zip", f"{server.url}/training.zip", **known)
    return SOURCE._replace(files=(file,), prepare=partial(lung_ct.prepare, workers=1, cases=TWO))


def test_one_command_fetches_unpacks_and_prepares(archive, tmp_path, monkeypatch):
    with serve(send(archive)) as server:
        source = offered(server, archive)
        monkeypatch.setattr(catalog, "sources", lambda: [source])
        monkeypatch.setattr(acquire_module, "acquire", partial(acquire, allow_http=True))
        words = ["data", "download", "lung-ct", "--raw", tmp_path / "raw", "--out", tmp_path / "out", "--quiet"]
        result = CliRunner().invoke(app, list(map(str, words)))
        assert result.exit_code == 0, result.output
        assert result.output.strip().endswith("datalist.json")
        assert len(read_datalist(str(tmp_path / "out"), "testing", check_files=True)) == 4
        before, asked = contents(tmp_path / "out"), len(server.requests)
        assert CliRunner().invoke(app, list(map(str, words))).exit_code == 0
        assert contents(tmp_path / "out") == before and len(server.requests) == asked  # nothing is fetched again


def test_without_out_the_raw_files_are_there(archive, tmp_path):
    with serve(send(archive)) as server:
        assert acquire(offered(server, archive), tmp_path, allow_http=True, quiet=True) == tmp_path
    assert (tmp_path / "training" / "training" / "scans" / "case_001_exp.nii.gz").is_file()


def test_the_official_address_is_no_plain_http(archive, tmp_path):
    with serve(send(archive)) as server, pytest.raises(RegInputError, match="http"):
        acquire(offered(server, archive), tmp_path, quiet=True)


@pytest.mark.parametrize("published", [True, False])
def test_a_truncated_archive_leaves_nothing(archive, tmp_path, published):
    cut = archive[: len(archive) // 2]
    with serve(send(cut)) as server:
        source = offered(server, archive) if published else offered(server, cut, sha256=None, size=None)
        with pytest.raises(RegInputError) as error:
            acquire(source, tmp_path / "raw", tmp_path / "out", allow_http=True, quiet=True)
    assert_one_sentence_and_nothing(error, tmp_path)


def test_another_archive_than_the_published_one_leaves_nothing(archive, tmp_path):
    other = bytearray(archive)
    other[100] ^= 1
    with serve(send(bytes(other))) as server, pytest.raises(RegInputError, match=r"(?i)sha-?256") as error:
        acquire(offered(server, archive), tmp_path / "raw", tmp_path / "out", allow_http=True, quiet=True)
    assert_one_sentence_and_nothing(error, tmp_path)


@pytest.mark.parametrize("name", ["../../evil.txt", "/tmp/regbundles_evil.txt", "scans/..\\evil.txt"])
def test_an_archive_that_reaches_out_of_its_folder_leaves_nothing(tmp_path, name):
    content = packed({"training/scans/case_001_exp.nii.gz": b"x", name: b"evil"})
    with serve(send(content)) as server, pytest.raises(RegInputError, match="do not unpack it") as error:
        source = offered(server, content, sha256=None)
        acquire(source, tmp_path / "raw", tmp_path / "out", allow_http=True, quiet=True)
    assert_one_sentence_and_nothing(error, tmp_path)


def assert_one_sentence_and_nothing(error, folder):
    """No file but the empty ones that a lock may leave, and no folder but the two that were asked for."""
    assert "\n" not in str(error.value)
    assert [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size] == []
    assert {path.name for path in folder.rglob("*") if path.is_dir()} <= {"raw", "out"}


def test_an_archive_stays_where_its_folder_is_taken_by_something_else(archive, tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "mine.txt").write_text("mine")
    with serve(send(archive)) as server, pytest.raises(RegInputError, match="move it away"):
        acquire(offered(server, archive, sha256=None), tmp_path, allow_http=True, quiet=True)
    assert (tmp_path / "training.zip").read_bytes() == archive
    assert (tmp_path / "training" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("published", [True, False])
def test_a_bad_archive_for_a_folder_that_is_there_goes_unless_its_publisher_vouches_for_it(tmp_path, published):
    content = packed({"../evil": b""})
    (tmp_path / "training").mkdir()
    with serve(send(content)) as server, pytest.raises(RegInputError, match="do not unpack it"):
        source = offered(server, content, **({} if published else {"sha256": None}))
        acquire(source, tmp_path, allow_http=True, quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["training", *(["training.zip"] * published)]


def test_an_archive_that_this_machine_cannot_place_stays(archive, tmp_path):
    """500 MB are not lost because of a name."""
    (tmp_path / "training").symlink_to(tmp_path / "training.zip")
    with serve(send(archive)) as server, pytest.raises(RegInputError, match="move it away"):
        acquire(offered(server, archive, sha256=None), tmp_path, allow_http=True, quiet=True)
    assert (tmp_path / "training.zip").read_bytes() == archive


def test_terms_are_for_a_person_to_accept(archive, tmp_path):
    with serve(send(archive)) as server:
        source = offered(server, archive)._replace(terms="sign the data use agreement")
        with pytest.raises(RegInputError, match=r"sign the data use agreement.*--accept"):
            acquire(source, tmp_path / "raw", tmp_path / "out", allow_http=True)
        assert server.requests == [] and not (tmp_path / "raw").exists()
        acquire(source, tmp_path / "raw", accept=True, allow_http=True, quiet=True)
    assert (tmp_path / "raw" / "training.zip").is_file()


def test_what_needs_a_login_is_not_fetched(tmp_path):
    words = ["data", "download", "malc", "--raw", str(tmp_path / "raw"), "--accept"]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, RegInputError) and not (tmp_path / "raw").exists()
    assert "neuromorphometrics.com" in str(result.exception)
    assert "regbundles data prepare malc --raw FOLDER --out FOLDER" in str(result.exception)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("a.zip", "a"), ("a.b.tar.gz", "a.b"), ("IXI-T1.tar", "IXI-T1"), ("x.TGZ", "x"), ("a.nii.gz", None)],
)
def test_archives_are_unpacked_beside_themselves(name, folder):
    file = RemoteFile(name, "https://a/b")
    assert acquire_module.is_archive(file) is (folder is not None)
    assert folder is None or acquire_module.unpacked_name(file) == folder
