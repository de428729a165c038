import hashlib
import os
import random
import sys
from types import ModuleType

import pytest
import requests

from common.errors import RegEnvError, RegInputError
from tools.data.fetch.download import fetch
from tools.data.source import RemoteFile

CONTENT = random.Random(0).randbytes(50_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = RemoteFile("scans.zip", "drive:1-VQ", sha256=SHA256)


class DownloadError(Exception):
    """As gdown's."""


@pytest.fixture
def drive(monkeypatch):
    """Let `gdown.download` be a function of the test; its arguments are kept."""

    def install(download):
        calls = []

        def called(**arguments):
            calls.append(arguments)
            return download(**arguments)

        gdown, exceptions = ModuleType("gdown"), ModuleType("gdown.exceptions")
        gdown.download, exceptions.DownloadError = called, DownloadError
        monkeypatch.setitem(sys.modules, "gdown", gdown)
        monkeypatch.setitem(sys.modules, "gdown.exceptions", exceptions)
        return calls

    return install


def give(content=CONTENT):
    """gdown when all goes well: a temporary file, calls of the bar, a rename."""

    def download(output, progress, **options):
        with open(f"{output}12345678.part", "wb") as file:
            for start in range(0, len(content), 10_000):
                file.write(content[start : start + 10_000])
                progress(min(start + 10_000, len(content)), None)
        os.replace(f"{output}12345678.part", output)
        return output

    return download


def get(folder, file=FILE, **options):
    return fetch(file, folder, quiet=True, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(kind, words, folder, left=(), **options):
    with pytest.raises(kind, match=words) as caught:
        get(folder, **options)
    assert "\n" not in str(caught.value)
    assert names(folder) == sorted(left)


def test_a_file_on_drive_comes_through_gdown_by_the_same_way(tmp_path, drive):
    calls = drive(give())
    assert get(tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == ["scans.zip"]
    get(tmp_path)
    assert len(calls) == 1
    assert calls[0]["id"] == "1-VQ" and calls[0]["timeout"] and calls[0]["use_cookies"] is False


def test_without_gdown_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    refused(RegEnvError, r"pip install '.\[drive\]'", tmp_path)


@pytest.mark.parametrize(
    ("content", "words"), [(b"other", "SHA-256"), (b"<!doctype html><title>Quota exceeded", "is a web page")]
)
def test_what_is_not_the_file_is_refused(tmp_path, drive, content, words):
    drive(give(content))
    refused(RegInputError, words, tmp_path)


def test_a_file_that_is_too_large_is_stopped_on_the_way(tmp_path, drive):
    drive(give())
    refused(RegInputError, "at most 20000 bytes", tmp_path, file=FILE._replace(size=20_000))
    refused(RegInputError, "at most 20000 bytes", tmp_path, max_bytes=20_000)


@pytest.mark.parametrize(
    "error",
    [
        DownloadError("Failed to retrieve file url:\n\n\tToo many users"),
        requests.ConnectionError("reset"),
        KeyError("a"),
    ],
)
def test_a_failure_is_told_in_one_sentence_and_what_came_is_kept_for_a_file_with_a_hash(tmp_path, drive, error):
    def fail(output, **options):
        with open(f"{output}12345678.part", "wb") as file:
            file.write(CONTENT[:100])
        raise error

    drive(fail)
    refused(RegEnvError, "Google Drive did not give scans.zip", tmp_path, ["scans.zip.part12345678.part"])


@pytest.mark.parametrize(("known", "resume"), [(SHA256, True), (None, False)])
def test_only_what_a_hash_will_judge_is_taken_up_again(tmp_path, drive, known, resume):
    half = tmp_path / "scans.zip.part12345678.part"
    half.write_bytes(b"half")
    seen = []

    def download(**arguments):
        seen.append((arguments["resume"], half.exists()))
        half.unlink(missing_ok=True)
        return give()(**arguments)

    drive(download)
    get(tmp_path, FILE._replace(sha256=known))
    assert seen == [(resume, resume)]


def test_a_full_disk_leaves_nothing(tmp_path, drive):
    def fail(output, **options):
        with open(f"{output}12345678.part", "wb") as file:
            file.write(CONTENT[:100])
        raise OSError(28, "No space left on device")

    drive(fail)
    refused(RegEnvError, "No space left", tmp_path)
