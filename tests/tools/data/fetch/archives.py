"""What the tests of archives share: how to make good and bad ones, and how a refusal has to be."""

import io
import random
import tarfile
import zipfile

import pytest

from common.errors import RegInputError
from tools.data.fetch.archive import extract

FILES = {"data/readme.txt": b"scans\n", "data/a/scan 1.nii": random.Random(0).randbytes(2_500_000), "data/b/empty": b""}


def info_of(name, mode=0, **fields):
    """A zip's entry."""
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def make_zip(path, *members, method=zipfile.ZIP_DEFLATED):
    """A zip of these entries."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for info, content in members:
            archive.writestr(info, content, compress_type=method)
    return path


def tar_info(name, kind=tarfile.REGTYPE, **fields):
    """A tar's entry."""
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def make_tar(path, *members):
    """A tar, in gzip if its name says so."""
    mode = "w" if path.name.endswith(".tar") else "w:gz"
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def ordinary(path):
    """An archive of FILES as a publisher makes it."""
    if path.name.lower().endswith(".zip"):
        return make_zip(path, *[(info_of(name), content) for name, content in FILES.items()])
    return make_tar(path, *[(tar_info(f"./{name}"), content) for name, content in FILES.items()])


def tree(folder):
    """Every file below a folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unpack(archive, folder, **options):
    """The folder with what an archive holds, without a bar."""
    return extract(archive, folder, quiet=True, **options)


def refused(archive, words, kind=RegInputError, **options):
    """The sentence of a failed call, which leaves the archive alone in its folder."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(kind, match=words) as caught:
        unpack(archive, archive.parent / "out", **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.isprintable() and sentence.endswith(".")
    assert sorted(archive.parent.rglob("*")) == before
    return sentence
