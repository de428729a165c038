"""`index.html`: one file with its style, its program and the pairs' values in it; only pictures lie outside."""

import base64
import hashlib
import json
import math
import os
from collections.abc import Hashable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .columns import columns_of
from .pair import Gathered, Pair, printable

__all__ = ["MARK", "page_text"]

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("data", "filters", "histograms", "visible", "views", "look", "index")  # later ones call earlier ones
MARK = '<meta name="generator" content="regbundles report">'  # by which an older page is known as ours
SHOWN_LEFT_OUT = 50
DIGITS = 5


def page_text(found: Gathered, root: Path, beside: Path) -> str:
    """The page of the pairs, in the order given.

    Args:
        found: what it shows.
        root: the folder that the pairs' folders are relative to.
        beside: the folder that the page will lie in.
    """
    script = "\n".join((ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    style = (ASSETS / "index.css").read_text(encoding="utf-8")
    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("index.html").render(
        mark=Markup(MARK),
        name=printable(Path(os.path.abspath(root)).name) or "/",
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        left_out=found.left_out[:SHOWN_LEFT_OUT],
        left_out_count=len(found.left_out),
        style=Markup(style),
        script=Markup(script),
        style_hash=content_hash(style),
        script_hash=content_hash(script),
        pairs=Markup(as_json(content(found.pairs, base_url(root, beside)))),
    )


def content_hash(text: str) -> str:
    """By which a browser knows the only style and the only program that may run in the page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def base_url(root: Path, beside: Path) -> str:
    """What stands before a pair's folder in an address: empty, or with a slash at its end."""
    try:
        way = Path(os.path.relpath(root, beside)).as_posix()
    except ValueError:  # another drive of Windows
        return f"{Path(os.path.abspath(root)).as_uri()}/"
    return "" if way == "." else f"{url(way)}/"


def url(path: str) -> str:
    """A path with slashes as an address, byte by byte: names may have any character, and need be no UTF-8."""
    return quote(os.fsencode(path))


def as_json(value: object) -> str:
    """JSON that no HTML parser takes for the end of its element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def content(pairs: Sequence[Pair], base: str) -> dict:
    """The pairs as columns: a list for each number, and texts that repeat by their index in a list of them."""
    columns = columns_of([pair.numbers for pair in pairs])
    files = {
        role: coded(url(pair.files.get(role, "")) for pair in pairs) for role in ("report", "thumbnail", "picture")
    }
    return {
        "base": base,
        "columns": [column._asdict() for column in columns],
        "numbers": [[compact(pair.numbers.get(column.key)) for pair in pairs] for column in columns],
        "name": [pair.name for pair in pairs],
        "folder": [folder_code(pair) for pair in pairs],
        "fixed": coded(pair.fixed for pair in pairs),
        "moving": coded(pair.moving for pair in pairs),
        "method": coded(pair.method for pair in pairs),
        "verdict": coded(pair.verdict or "none" for pair in pairs),
        "reasons": coded(pair.reasons for pair in pairs),
        **files,
    }


def folder_code(pair: Pair) -> str | int:
    """The folder's address; 1 where it is the name itself, 0 where there is none."""
    if pair.folder is None:
        return 0
    address = url(pair.folder)
    return 1 if address == pair.name else address


def coded(values: Iterable[Hashable]) -> dict[str, list]:
    """Distinct values, and for each pair the index of its own."""
    index: dict[Hashable, int] = {}
    at = [index.setdefault(value, len(index)) for value in values]
    return {"of": list(index), "at": at}


def compact(value: float | None) -> float | int | str | None:
    """A number of five digits; JSON has no infinity, so that one is a text."""
    if value is None:
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded
