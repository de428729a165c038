"""What a person reads about a data set before getting it."""

from collections.abc import Sequence

from .fetch.links import Link
from .source import RemoteFile, Source

__all__ = ["describe", "link_line", "prepare_command", "table"]

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def describe(source: Source) -> str:
    """All that is known of a release, for a person to read."""
    lines = [
        source.title,
        f"page      {source.page}",
        f"license   {source.license}",
        f"cite      {source.citation}",
        f"terms     {source.terms or 'none beyond the license'}",
        f"splits    {source.splits or 'as its documentation says'}",
        f"size      {source.about or size_text(source.files)}",
    ]
    if source.files:
        get = f"regbundles data download {source.name} --raw FOLDER --out FOLDER{' --accept' * bool(source.terms)}"
    else:
        get = f"log in at the page; then {prepare_command(source)}"
    return "\n".join([*lines, f"get       {get}", *(line for file in source.files for line in file_lines(file))])


def prepare_command(source: Source) -> str:
    """What prepares a release from a folder."""
    return f"regbundles data prepare {source.command or source.name} --raw FOLDER --out FOLDER"


def file_lines(file: RemoteFile) -> list[str]:
    """Where a file is, its size and its hashes."""
    known = [f"sha256 {file.sha256}"] * bool(file.sha256) + [f"md5 {file.md5}"] * bool(file.md5)
    hashes = known or ["no hash is published: the first download records one"]
    return [f"file      {file.name}, {size_text([file])}, {file.url}", *(f"          {text}" for text in hashes)]


def table(sources: Sequence[Source]) -> str:
    """A line a release: name, size, access, license, title."""
    rows = [("name", "size", "access", "license", "what")]
    rows += [(s.name, s.about or size_text(s.files), access(s), s.license.split(";")[0], s.title) for s in sources]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )


def access(source: Source) -> str:
    """What a person has to do before the download."""
    if not source.files:
        return "login"
    return "accept" if source.terms else "open"


def size_text(files: Sequence[RemoteFile]) -> str:
    """The sum of the published sizes; "?" if one is not published or there are no files."""
    sizes = [file.size for file in files]
    if not sizes or None in sizes:
        return "?"
    total = sum(filter(None, sizes))
    scale, unit = next(((scale, unit) for scale, unit in UNITS if total >= scale), (1, "B"))
    return f"{total / scale:.3g} {unit}"


def link_line(link: Link) -> str:
    """What a server answered for one file, or what is wrong with it."""
    if link.finding:
        return f"{link.file.url} {link.finding}."
    size = "it states no size" if link.size is None else f"{link.size} bytes"
    return f"{link.file.url} is there: {size}"
