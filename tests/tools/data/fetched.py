"""From a server on this machine to a prepared data set, as ``regbundles data download --out`` does it."""

import hashlib
import io
import zipfile
from functools import partial
from pathlib import Path

from tools.data.acquire import acquire
from tools.data.source import RemoteFile, Source

from .fetch.loopback import send, serve


def fetch_and_prepare(source: Source, raw: Path, folder: Path, **options) -> Path:
    """Zip ``raw``, offer it as the release's only file, and let it be fetched, unpacked and prepared below ``folder``.

    Args:
        source: the release.
        raw: what its archive holds.
        folder: to work in.
        options: of the release's ``prepare``.

    Returns:
        The prepared data set's folder.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(p for p in raw.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(raw.parent))
    content = stream.getvalue()
    with serve(send(content)) as server:
        known = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        file = RemoteFile(source.files[0].name, f"{server.url}/{source.files[0].name}", **known)
        offered = source._replace(files=(file,), prepare=partial(source.prepare, workers=1, **options))
        return acquire(offered, folder / "raw", folder / "out", accept=True, allow_http=True, quiet=True).parent
