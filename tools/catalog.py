"""``models/model_info.json``: the packed bundles of a release by name, for MONAI's ``download --source github``.

MONAI looks for it at that path of a repository's tag; ``regbundles fetch`` and the model zoo's scripts read it too.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from common.errors import RegInputError
from common.files import save_atomically

from .lint import read_config
from .releases import CATALOG, TAG

__all__ = ["add_release", "check_release"]


def add_release(archives: Iterable[Path], release: str, catalog: Path = CATALOG) -> None:
    """List packed bundles in the catalog, under the addresses that a release on GitHub gives its files.

    Args:
        archives: each a ``<name>_v<version>.zip``.
        release: ``OWNER/REPO/TAG``.
        catalog: the file to write; what it lists already stays.

    Raises:
        RegInputError: if the release is not of that form, or the catalog has one of these versions with another
            SHA-256: people may hold that one. Nothing is written then.
    """
    check_release(release)
    listed = read_config(catalog.read_bytes(), catalog.name) if catalog.is_file() else {}
    for archive in archives:
        entry = entry_of(archive, release)
        known = listed.get(archive.stem, entry)
        if known.get("checksum") != entry["checksum"]:
            raise RegInputError(
                f"{archive.stem} is in {catalog.name} with the SHA-256 {known.get('checksum')}, and was packed with "
                f"{entry['checksum']}; give the bundle a new version, or take the line out if nobody has that file."
            )
        listed[archive.stem] = entry
    text = json.dumps(dict(sorted(listed.items())), indent=4) + "\n"
    save_atomically(lambda path: path.write_text(text, encoding="utf-8"), catalog)


def check_release(release: str) -> None:
    """Raise RegInputError unless a release is ``OWNER/REPO/TAG``."""
    if not TAG.fullmatch(release):
        raise RegInputError(
            f"--release got '{release}', expected OWNER/REPO/TAG, such as me/bundles/v0.1.0; correct it."
        )


def entry_of(archive: Path, release: str) -> dict[str, str]:
    """What the catalog says of a zip."""
    owner, repository, tag = release.split("/")
    return {
        "checksum": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "source": f"https://github.com/{owner}/{repository}/releases/download/{tag}/{archive.name}",
    }
