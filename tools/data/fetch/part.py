"""What has arrived of a file, and of which version: the next try goes on where the last one stopped."""

import json
import os
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path

__all__ = ["Part", "fsync_folder"]


class Part:
    """The file ``<name>.part`` beside a target, with a note of its address and version, ``<name>.part.json``.

    Args:
        target: the file that it becomes.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")

    def size(self) -> int:
        """Bytes that have arrived."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def version(self, url: str) -> str | None:
        """What ``If-Range`` may ask with: the entity tag or date under which the bytes came from ``url``, if known."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return note["version"] if note["url"] == url and isinstance(note["version"], str) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, url: str, version: str | None) -> None:
        """Drop what there is and note what comes; the note is first, so that no bytes lie under another's note."""
        self.remove()
        if version:
            self.note.write_text(json.dumps({"url": url, "version": version}), encoding="utf-8")

    def open(self) -> BufferedWriter:
        """The file for appending; never what a link of that name points to."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        return open(os.open(self.path, flags, 0o666), "ab")

    def remove(self) -> None:
        """Delete the file and its note."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def publish(self) -> None:
        """Rename the file to its target; its bytes, and then its name, are on the disk when this returns."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.path, self.target)
        self.note.unlink(missing_ok=True)
        fsync_folder(self.target.parent)


def fsync_folder(folder: Path) -> None:
    """Put a folder's names on the disk, where the system can."""
    with suppress(OSError):  # Windows, and some network file systems, cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
