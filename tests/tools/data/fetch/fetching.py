"""What the tests of downloads share: a file, its hashes, and :func:`fetch` against a server on this machine."""

import hashlib
import random

import pytest

from tools.data.fetch.download import fetch
from tools.data.fetch.web import Patience
from tools.data.source import RemoteFile

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
QUICK = Patience(connect_s=10.0, read_s=20.0, tries=5, pause_s=0.01)  # a busy machine may take seconds
HASTY = QUICK._replace(read_s=0.3, tries=2)


def remote(server, **known):
    """The file, as a server on this machine has it."""
    return RemoteFile("scans.zip", f"{server.url}/scans.zip", **known)


def get(file, folder, **options):
    """The fetched file's path, by way of plain http, without a bar."""
    return fetch(file, folder, **{"allow_http": True, "quiet": True, "patience": QUICK} | options)


def names(folder):
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def refused(kind, words, file, folder, left=(), **options):
    """The one sentence of a failed call, which leaves only ``left`` in the folder."""
    with pytest.raises(kind, match=words) as caught:
        get(file, folder, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    assert names(folder) == sorted(left)
    return sentence


def half(size=100_000, tag='"v1"', **headers):
    """An answer that announces everything and breaks off."""

    def answer(handler, request):
        handler.head(200, {"Content-Length": str(len(CONTENT)), "ETag": tag} | headers)
        handler.body(CONTENT[:size], request)

    return answer
