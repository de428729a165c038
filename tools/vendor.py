"""A bundle's sources with ``common`` moved inside the bundle's package: ``common.x`` becomes ``<package>.common.x``.

Python is edited at the positions that ``ast`` reports and configs as parsed values, so nothing else changes. What every
statement binds stays the same, so no use of a name needs an edit.
"""

import ast
import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from common.errors import RegInputError

__all__ = ["OURS", "leftover_names", "mask_references", "parse_expression", "vendor_config", "vendor_python"]

OURS = ("common", "tools")
"""Top-level packages of the repository that a packed bundle may not name."""

DOTTED = re.compile(r"(common|tools)(\.[A-Za-z_]\w*)+")
REFERENCE = re.compile(r"@\w*(?:(?:::|#)\w*)*")
FROM = re.compile(r"from\s+common\b")


class Edit(NamedTuple):
    """Replace the characters from ``start`` to ``end`` by ``text``."""

    start: int
    end: int
    text: str


def vendor_python(source: str, package: str, where: str) -> str:
    """The source of a module with its imports of ``common`` taken from ``<package>.common``.

    Args:
        source: text of a Python file, line ends as they are.
        package: the bundle's package, for example ``eoir_bundle``.
        where: name of the file for messages.

    Raises:
        RegInputError: if it is not Python.
    """
    return apply_edits(source, import_edits(parse(source, where), source, package))


def vendor_config(value: Any, name: str, package: str, where: str) -> Any:
    """A parsed config with ``_target_``s and expressions that name ``common`` taken from ``<package>.common``.

    The candidates of ``bundle_root`` gain the unpacked folder, and texts name ``configs/`` instead of
    ``bundles/<name>/configs/``.

    Args:
        value: what the JSON file holds.
        name: the bundle's name, that is its folder's.
        package: the bundle's package.
        where: name of the file for messages.

    Raises:
        RegInputError: if an expression is not Python.
    """
    if isinstance(value, list):
        return [vendor_config(item, name, package, where) for item in value]
    if isinstance(value, dict):
        return {key: vendor_entry(key, item, name, package, where) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    if value.startswith("$"):
        return vendor_expression(value, package, where)
    return value.replace(f"bundles/{name}/configs/", "configs/")


def vendor_entry(key: str, value: Any, name: str, package: str, where: str) -> Any:
    """The vendored value of one key of a config's section."""
    if key == "_target_" and isinstance(value, str) and value.startswith("common."):
        return f"{package}.{value}"
    if key == "bundle_root" and isinstance(value, str) and value.startswith("$"):
        return vendor_expression(add_root_candidate(value, name, where), package, where)
    return vendor_config(value, name, package, where)


def vendor_expression(value: str, package: str, where: str) -> str:
    """A ``$`` expression whose imports of ``common`` come from ``<package>.common``."""
    tree, text = parse_expression(value, where)
    head = value[: len(value) - len(text)]
    return head + apply_edits(text, import_edits(tree, text, package))


def add_root_candidate(value: str, name: str, where: str) -> str:
    """A ``bundle_root`` expression that tries ``<name>`` too, wherever ``bundles/<name>`` is among its candidates."""
    tree, text = parse_expression(value, where)
    head = value[: len(value) - len(text)]
    edits = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List):
            candidates = {item.value: item for item in node.elts if isinstance(item, ast.Constant)}
            if f"bundles/{name}" in candidates and name not in candidates:
                start = position(mask_references(text), candidates[f"bundles/{name}"])
                edits.append(Edit(start, start, f"{name!r}, "))
    return head + apply_edits(text, edits)


def import_edits(tree: ast.AST, text: str, package: str) -> list[Edit]:
    """What to replace in ``text``, whose tree this is, so that ``common`` comes out of ``package``."""
    masked = mask_references(text)
    edits = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and root_of(node.module) == "common":
            start = position(masked, node)
            found = FROM.match(text, start)
            if not found:
                raise RegInputError(
                    f"'{text[start : start + 40]}' is laid out oddly, expected 'from common... import'."
                )
            edits.append(Edit(found.end() - len("common"), found.end(), f"{package}.common"))
        elif isinstance(node, ast.Import):
            edits += [alias_edit(alias, masked, package) for alias in node.names if root_of(alias.name) == "common"]
    return edits


def alias_edit(alias: ast.alias, masked: str, package: str) -> Edit:
    """The edit of one ``common`` or ``common.x``, with or without ``as``, in an import statement."""
    start = position(masked, alias)
    text = f"{package}.{alias.name}"
    if alias.asname is None:  # `import common.x` loads common.x and binds `common`
        text = f"{text}, {package}.common as common" if "." in alias.name else f"{text} as common"
    return Edit(start, start + len(alias.name), text)


def leftover_names(tree: ast.AST, forbidden: set[str]) -> Iterator[str]:
    """What a tree still names of the top-level packages ``forbidden``: imports, and strings that look like modules."""
    docstrings = {id(node) for node in docstring_nodes(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"import {a.name}" for a in node.names if root_of(a.name) in forbidden)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and root_of(node.module) in forbidden:
            yield f"from {node.module} import"
        elif isinstance(node, ast.Call) and dynamic_import(node) in forbidden:
            yield f"a dynamic import of '{dynamic_import(node)}'"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            if DOTTED.fullmatch(node.value) and root_of(node.value) in forbidden:
                yield f"the text '{node.value}'"


def dynamic_import(call: ast.Call) -> str | None:
    """Top-level package that a call of ``import_module`` or ``__import__`` names, ``None`` if it is another call."""
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if called not in ("import_module", "__import__") or not call.args or not isinstance(call.args[0], ast.Constant):
        return None
    return root_of(str(call.args[0].value))


def docstring_nodes(tree: ast.AST) -> Iterator[ast.Constant]:
    """The string statements of a tree: docstrings, and attribute documentation."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def parse(source: str, where: str) -> ast.Module:
    """The tree of a Python text; RegInputError if it is none."""
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise RegInputError(f"{where} is not Python ({error.msg}, line {error.lineno}); correct it.") from error


def parse_expression(value: str, where: str) -> tuple[ast.Module, str]:
    """Tree and text of a config's ``$`` expression, MONAI's references replaced by names of the same length."""
    text = value.removeprefix("$").lstrip()
    return parse(mask_references(text), f"the expression '{value}' in {where}"), text


def mask_references(text: str) -> str:
    """``@train::handlers`` and the like as plain names of the same length, so that positions stay."""
    return REFERENCE.sub(lambda found: "_" * len(found.group()), text)


def position(text: str, node: ast.AST) -> int:
    """Index into ``text`` of a node's first character; ``ast`` counts lines, and columns in UTF-8 bytes."""
    lines = list(io.StringIO(text, newline=""))  # splits where Python does, keeps the ends
    column = len(lines[node.lineno - 1].encode()[: node.col_offset].decode())
    return sum(map(len, lines[: node.lineno - 1])) + column


def apply_edits(text: str, edits: list[Edit]) -> str:
    """``text`` with every edit made."""
    for edit in sorted(edits, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def root_of(module: str | None) -> str:
    """``common`` of ``common.spatial``."""
    return (module or "").split(".")[0]
