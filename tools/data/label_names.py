"""What the values of a label map are called: a table or a JSON file of the user's."""

import csv
import json
from pathlib import Path

from common.errors import RegInputError

__all__ = ["read_label_names"]

VALUE_COLUMNS = ("index", "value", "label", "id", "number")  # BIDS says index
NAME_COLUMNS = ("name", "label name", "structure")


def read_label_names(path: Path) -> dict[int, str]:
    """Value -> name, without 0.

    Args:
        path: a .csv or .tsv with a column of values (index, value, label, id or number) and one of names, or with two
            columns and no header; BIDS' ``dseg.tsv`` is one. Or .json: an object {value: name}.

    Raises:
        RegInputError: if it is none of these, a value is no whole number of 0 or more, or is there twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = from_json(text) if path.suffix.lower() == ".json" else from_table(text, path.suffix.lower() == ".tsv")
        names = {int(value): " ".join(str(name).split()) for value, name in rows}
    except (OSError, ValueError, AttributeError, csv.Error) as error:
        raise RegInputError(
            f"{path} does not name labels ({error}), expected a table of index and name, or JSON {{value: name}}."
        ) from error
    if len(names) < len(rows) or not names or min(names) < 0:
        raise RegInputError(
            f"{path} has {len(rows)} rows for {len(names)} values, expected each value of 0 or more once; correct it."
        )
    names.pop(0, None)
    return names


def from_json(text: str) -> list[tuple[str, str]]:
    """Values and names of a JSON object."""
    return list(json.loads(text).items())


def from_table(text: str, tabs: bool) -> list[tuple[str, str]]:
    """Values and names of a table with a header, or of the first two columns."""
    rows = [row for row in csv.reader(text.splitlines(), delimiter="\t" if tabs else ",", strict=True) if any(row)]
    if not rows:
        raise ValueError("it is empty")
    header = [cell.strip().lower() for cell in rows[0]]
    value = next((header.index(name) for name in VALUE_COLUMNS if name in header), None)
    name = next((header.index(name) for name in NAME_COLUMNS if name in header), None)
    if value is None or name is None:
        value, name = 0, 1
        rows = rows if rows[0][0].strip().isdecimal() else rows[1:]
    else:
        rows = rows[1:]
    short = [row for row in rows if len(row) <= max(value, name)]
    if short:
        raise ValueError(f"the row {short[0]} has too few cells")
    return [(row[value], row[name]) for row in rows]
