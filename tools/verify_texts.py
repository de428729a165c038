"""What a bundle says beside its code: licence, terms of the data, documentation."""

from collections.abc import Iterator
from pathlib import Path

from .data.catalog import sources

__all__ = ["docs_finding", "licence_finding"]

LICENCES = {"Apache-2.0": "Apache License", "MIT": "MIT License", "BSD-3-Clause": "Redistribution and use in source"}
"""Identifiers and what stands in their texts: licences under which bundles can join this collection."""
HEADINGS = (("Description",), ("Training", "Commands"), ("Limits",), ("License",))
"""Of docs/README.md, one of each; a bundle that trains nothing has commands."""


def licence_finding(folder: Path, metadata: dict) -> str | None:
    """What is wrong with LICENSE, the metadata's ``copyright`` or docs/data_license.txt, ``None`` if nothing."""
    return "; ".join([*own_licence(folder, metadata), *data_licence(folder)]) or None


def own_licence(folder: Path, metadata: dict) -> Iterator[str]:
    """A licence is in the bundle, and the metadata name it."""
    path = folder / "LICENSE"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    named = next((name for name, title in LICENCES.items() if title in text), None)
    if named is None:
        yield f"LICENSE is none of {', '.join(LICENCES)}"
    elif named not in metadata.get("copyright", ""):
        yield f"LICENSE is {named}, which the metadata's copyright does not name"


def data_licence(folder: Path) -> Iterator[str]:
    """The terms of the data that weights and configs come from: said for every data set that has an overlay."""
    path = folder / "docs" / "data_license.txt"
    if not path.is_file():
        yield "docs/data_license.txt is missing: say what the data's terms are, or that there are none"
        return
    said = plain(path.read_text(encoding="utf-8"))
    known = {plain(source.name) for source in sources()}
    overlays = sorted(plain(config.stem) for config in (folder / "configs").glob("*.json"))
    unsaid = [name for name in overlays if name in known and name not in said]
    if unsaid:
        yield f"docs/data_license.txt has no terms of {', '.join(unsaid)}, for which there are configs"


def docs_finding(folder: Path) -> str | None:
    """What docs/README.md lacks of a title and the headings under which people look, ``None`` if nothing."""
    text = (folder / "docs" / "README.md").read_text(encoding="utf-8")
    sections = dict(sections_of(text))
    lacking = [" or ".join(names) for names in HEADINGS if not any(name in sections for name in names)]
    empty = [name for names in HEADINGS for name in names if not sections.get(name, name).strip()]
    untitled = [] if text.startswith("# ") else ["docs/README.md does not begin with a title, `# ...`"]
    found = untitled + ([f"docs/README.md has no ## {', ## '.join(lacking)}"] if lacking else [])
    return "; ".join(found + [f"## {name} of docs/README.md is empty" for name in empty]) or None


def sections_of(text: str) -> Iterator[tuple[str, str]]:
    """The second-level headings of a Markdown text, each with what stands below it."""
    for part in text.split("\n## ")[1:]:
        heading, _, content = part.partition("\n")
        yield heading.strip(), content


def plain(name: str) -> str:
    """A name as it is compared: "Lung CT", "lung-ct" and "lung_ct" are one."""
    return " ".join(name.lower().replace("-", " ").replace("_", " ").split())
