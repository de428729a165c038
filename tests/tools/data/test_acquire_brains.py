"""IXI and OASIS come from a server on this machine to prepared data sets by one call, as their tiny copies."""

import io
import tarfile
import zipfile
from functools import partial

import pytest

from common.datalist import read_datalist
from tools.data import ixi, ixi_raw, oasis, oasis_pickles
from tools.data import prepared as prepared_module
from tools.data.acquire import acquire
from tools.data.catalog import find_source
from tools.data.source import RemoteFile

from . import test_ixi, test_ixi_raw, test_oasis
from .brain_labels import SIZE
from .fetch.loopback import send, serve
from .test_oasis_pickles import raw as oasis_pickles_raw  # noqa: F401

TINY = {"partial": True, "workers": 1, "size": SIZE}


def archive(folder, tar):
    """The folder's files, packed as a zip or a tar."""
    stream = io.BytesIO()
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    if tar:
        with tarfile.open(fileobj=stream, mode="w") as packed:
            for name, path in files.items():
                packed.add(path, name)
    else:
        with zipfile.ZipFile(stream, "w") as packed:
            for name, path in files.items():
                packed.write(path, name)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["ixi", "ixi-raw", "oasis", "oasis-transmorph"])
def test_one_call_fetches_unpacks_and_prepares(name, tmp_path, monkeypatch, request):
    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)
    monkeypatch.setattr(ixi_raw, "SPACINGS", (4.0,))
    monkeypatch.setattr("tools.data.align.register_affine", lambda *images, **options: test_ixi_raw.SAME_PLACE)
    raw, prepare = {
        "ixi": lambda: (test_ixi.release(tmp_path / "published"), partial(ixi.prepare, **TINY)),
        "ixi-raw": lambda: (
            test_ixi_raw.freesurfer(tmp_path / "published"),
            partial(ixi_raw.prepare, spacing=4.0, workers=1),
        ),
        "oasis": lambda: (test_oasis.release(tmp_path / "published"), partial(oasis.prepare, **TINY)),
        "oasis-transmorph": lambda: (
            request.getfixturevalue("oasis_pickles_raw"),
            partial(oasis_pickles.prepare, **TINY),
        ),
    }[name]()
    source = find_source(name)
    (file,) = source.files
    content = archive(raw, tar=file.name.endswith(".tar"))
    with serve(send(content)) as server:
        files = (RemoteFile(file.name, f"{server.url}/{file.name}", size=len(content)),)
        offered = source._replace(files=files, prepare=prepare)
        path = acquire(offered, tmp_path / "raw", tmp_path / "out", accept=True, allow_http=True, quiet=True)
    assert path == tmp_path / "out/datalist.json"
    assert read_datalist(str(tmp_path / "out"), "validation", check_files=True)
