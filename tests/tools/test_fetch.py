"""A packed bundle from a server on this machine: whole under its name, or nothing there and one sentence."""

import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.errors import RegEnvError, RegInputError
from tools import fetch as module
from tools.__main__ import app
from tools.data.fetch.archive import COMPLETE
from tools.fetch import fetch_bundle
from tools.pack import pack

from .data.fetch.archives import info_of, make_zip, tree
from .data.fetch.fetching import HASTY, QUICK
from .data.fetch.loopback import send, serve, status
from .toy import edit_json, write, write_toy

WEIGHTS = {"models/model.pt": b"plain tensors", "models/model.safetensors": b"the same tensors"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A toy bundle's zip and its list of hashes."""
    return pack_toy(write_toy(tmp_path_factory.mktemp("toy")))


def pack_toy(toy: Path) -> Path:
    root = toy.parent.parent
    return pack("toy", root / "out", toy.parent, common_dir=root / "common").parent


def offering(files):
    """A server that has these files, by name, and answers 404 to everything else."""

    def answer(handler, request):
        content = files.get(request.path.rpartition("/")[2])
        (status(404) if content is None else content if callable(content) else send(content))(handler, request)

    return answer


def files_in(folder: Path) -> dict:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fetched(server, out, name="toy_v0.1.0.zip", **options):
    return fetch_bundle(
        f"{server.url}/release/{name}", out, **{"allow_http": True, "quiet": True, "patience": QUICK} | options
    )


def refused(kind, words, server, out, left=(), **options):
    with pytest.raises(kind, match=words) as caught:
        fetched(server, out, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    assert sorted(path.name for path in (out.iterdir() if out.exists() else ())) == sorted(left)
    return sentence


def with_weights(tmp_path, server, **changes):
    """A release whose large_files.yml names two files of weights; ``changes`` goes over each entry."""
    entries = [
        {"path": path, "url": f"{server.url}/{Path(path).name}", "hash_val": sha256(content), "hash_type": "sha256"}
        for path, content in WEIGHTS.items()
    ]
    entries[1] |= changes
    release = listing(tmp_path, json.dumps({"large_files": entries}))
    return release | {Path(path).name: content for path, content in WEIGHTS.items()}


def listing(tmp_path, text) -> dict:
    """A release whose large_files.yml is this text, which `pack` would refuse if it were bad."""
    archive = pack_toy(write_toy(tmp_path)) / "toy_v0.1.0.zip"
    with zipfile.ZipFile(archive) as content:
        members = {name: content.read(name) for name in content.namelist()}
    members["toy/large_files.yml"] = text.encode()
    make_zip(archive, *[(info_of(name), content) for name, content in members.items()])
    return {archive.name: archive.read_bytes(), "SHA256SUMS": listed(archive)}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_bundle_arrives_whole_and_alone(packed, tmp_path):
    with serve(offering(files_in(packed))) as server:
        folder = fetched(server, tmp_path / "new")
    assert folder == tmp_path / "new" / "toy" and os.listdir(folder.parent) == ["toy"]
    assert json.loads((folder / "configs" / "metadata.json").read_text())["version"] == "0.1.0"
    assert (folder / COMPLETE).read_text().strip() == sha256((packed / "toy_v0.1.0.zip").read_bytes())


def test_what_is_there_is_not_fetched_again_and_what_one_changed_in_it_stays(packed, tmp_path):
    with serve(offering(files_in(packed))) as server:
        write(fetched(server, tmp_path) / "models" / "model.pt", "trained on")
        before = len(server.requests)
        folder = fetched(server, tmp_path)
        assert [request.path for request in server.requests[before:]] == ["/release/SHA256SUMS"]
    assert (folder / "models" / "model.pt").read_text() == "trained on"


def test_another_version_and_somebody_elses_folder_are_left_alone(packed, tmp_path):
    toy = write_toy(tmp_path / "newer")
    edit_json(toy / "configs" / "metadata.json", version="0.2.0", changelog={"0.2.0": "x"})
    newer = files_in(pack_toy(toy))
    (tmp_path / "mine" / "toy").mkdir(parents=True)
    (tmp_path / "mine" / "toy" / "notes").touch()
    with serve(offering(files_in(packed))) as server, serve(offering(newer)) as later:
        before = tree(fetched(server, tmp_path / "old"))
        refused(RegInputError, "move it away", later, tmp_path / "old", ["toy"], name="toy_v0.2.0.zip")
        refused(RegInputError, "made from no archive", server, tmp_path / "mine", ["toy"])
    assert tree(tmp_path / "old" / "toy") == before
    assert os.listdir(tmp_path / "mine" / "toy") == ["notes"]


def test_an_empty_folder_of_its_name_is_filled(packed, tmp_path):
    (tmp_path / "toy").mkdir()
    with serve(offering(files_in(packed))) as server:
        assert (fetched(server, tmp_path) / "LICENSE").is_file()


def test_weights_come_with_the_bundle(tmp_path):
    files = {}
    with serve(offering(files)) as server:
        files |= with_weights(tmp_path / "toy", server)
        folder = fetched(server, tmp_path / "out")
    assert {path: content for path, content in tree(folder).items() if path.startswith("models/")} == WEIGHTS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hash_val": "0" * 64}, "SHA-256"),
        ({"hash_val": None}, "no SHA-256"),
        ({"hash_val": hashlib.md5(b"").hexdigest(), "hash_type": "md5"}, "no SHA-256"),
        ({"url": None}, "no address"),
        ({"url": "file:///etc/passwd"}, "https"),
        ({"path": "../evil.pt"}, "leads out"),
        ({"path": "/tmp/evil.pt"}, "absolute"),
        ({"path": "models/./evil.pt"}, "plain path"),
        ({"path": "LICENSE"}, "takes the place"),
        ({"path": "license/model.pt"}, "takes the place"),
        ({"path": "models/MODEL.pt"}, "takes the place"),
        ({"path": COMPLETE}, "takes the place"),
        ({"path": ["models"]}, "not the path of a file"),
    ],
)
def test_weights_that_are_not_what_was_published_or_lead_elsewhere_leave_nothing(tmp_path, change, words):
    files = {}
    with serve(offering(files)) as server:
        files |= with_weights(tmp_path / "toy", server, **change)
        refused(RegInputError, words, server, tmp_path / "out")


@pytest.mark.parametrize("text", ["large_files: 3", "- a", "large_files: [a]", "a: [", "\x07", "[" * 1200])
def test_a_list_of_weights_that_is_none_leaves_nothing(tmp_path, text):
    with serve(offering(listing(tmp_path / "toy", text))) as server:
        refused(RegInputError, "large_files.yml", server, tmp_path / "out")


def listed(archive: Path) -> bytes:
    return f"{sha256(archive.read_bytes())}  {archive.name}\n".encode()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"other/configs/metadata.json": b'{"version": "0.1.0"}'}, "expected one folder toy"),
        ({"toy/configs/metadata.json": b'{"version": "0.1.0"}', "evil.py": b""}, "expected one folder toy"),
        ({"toy/LICENSE": b""}, "expected one folder toy"),
        ({"toy/configs/metadata.json": b'{"version": "0.2.0"}'}, "version '0.2.0', expected 0.1.0"),
        ({"toy/configs/metadata.json": b"[]"}, "version 'None', expected 0.1.0"),
        ({"toy/configs/metadata.json": b"{"}, "is not JSON"),
        ({"toy/configs/metadata.json": b"{}", "../evil": b""}, "leads out"),
    ],
)
def test_a_zip_of_something_else_leaves_nothing(tmp_path, members, words):
    archive = make_zip(tmp_path / "toy_v0.1.0.zip", *[(info_of(name), content) for name, content in members.items()])
    with serve(offering({archive.name: archive.read_bytes(), "SHA256SUMS": listed(archive)})) as server:
        refused(RegInputError, words, server, tmp_path / "out")


def test_what_a_server_that_fails_has_given_is_taken_up_again(tmp_path):
    files = {}
    with serve(offering(files)) as server:
        files |= with_weights(tmp_path / "toy", server)
        good = files["model.safetensors"]
        files["model.safetensors"] = status(500)
        left = [f"toy_v0.1.0.{sha256(files['toy_v0.1.0.zip'])[:12]}.part"]
        refused(RegEnvError, "2 tries .*500", server, tmp_path / "out", left, patience=HASTY)
        files["model.safetensors"] = good
        before = len(server.requests)
        folder = fetched(server, tmp_path / "out")
        asked = [request.path for request in server.requests[before:]]
    assert asked == ["/release/SHA256SUMS", "/model.safetensors"]
    assert WEIGHTS.items() <= tree(folder).items() and os.listdir(tmp_path / "out") == ["toy"]


def test_weights_that_travelled_in_the_zip_are_not_fetched(tmp_path):
    files, licence = {}, (write_toy(tmp_path / "twin") / "LICENSE").read_bytes()
    with serve(offering(files)) as server:
        files |= with_weights(tmp_path / "toy", server, path="LICENSE", hash_val=sha256(licence))
        folder = fetched(server, tmp_path / "out")
        assert "/model.safetensors" not in [request.path for request in server.requests]
    assert (folder / "LICENSE").read_bytes() == licence


def test_what_a_kill_left_beside_a_bundle_that_is_whole_goes_with_the_next_call(packed, tmp_path):
    with serve(offering(files_in(packed))) as server:
        before = tree(fetched(server, tmp_path))
        work = f"toy_v0.1.0.{sha256((packed / 'toy_v0.1.0.zip').read_bytes())[:12]}.part"
        for name in (f"{work}/toy_v0.1.0.zip", f".999999999.gone.{work}/x", "toy.lock"):
            write(tmp_path / name, "x")
        assert tree(fetched(server, tmp_path)) == before
    assert os.listdir(tmp_path) == ["toy"]


def test_half_a_mark_of_a_killed_run_does_not_come_with_the_bundle(packed, tmp_path, monkeypatch):
    def killed(_, path):
        write(path.with_name(f".999999999.{path.name}"), "x")
        raise KeyboardInterrupt

    with serve(offering(files_in(packed))) as server:
        with monkeypatch.context() as patch:
            patch.setattr(module, "save_text", killed)
            with pytest.raises(KeyboardInterrupt):
                fetched(server, tmp_path / "killed")
        assert list((tmp_path / "killed").rglob(".999999999..complete"))
        assert tree(fetched(server, tmp_path / "killed")) == tree(fetched(server, tmp_path / "whole"))


def test_a_full_disk_leaves_nothing(packed, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with serve(offering(files_in(packed))) as server:
        monkeypatch.setattr(module, "publish", full)
        refused(RegEnvError, "free space", server, tmp_path)


def test_the_command_tells_the_folder_and_needs_a_word_for_plain_http(packed, tmp_path):
    with serve(offering(files_in(packed))) as server:
        words = ["fetch", f"{server.url}/toy_v0.1.0.zip", "--out", str(tmp_path), "--quiet", "--timeout", "20"]
        denied = CliRunner().invoke(app, words)
        assert isinstance(denied.exception, RegInputError) and "https" in str(denied.exception)
        done = CliRunner().invoke(app, [*words, "--allow-http"])
    assert done.exit_code == 0 and done.output.strip() == str(tmp_path / "toy")
