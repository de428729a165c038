"""What the bundles' configs may say: what is allowed, no lambda, no place on one machine, nothing too early."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import RegInputError

from .allowed import forbidden
from .vendor import parse_expression

__all__ = ["absolute_paths", "lint_config", "lint_configs", "read_config", "strings_of"]

NO_CONFIGS = ("metadata.json", "monailabel_train.json")  # the second is what MONAI Label writes while it trains

# at a text's start or after a blank, quote, `=` or bracket: /word, ~, C:\; not the // of a URL
PLACE = re.compile(r"""(?:^|[\s'"=\[(,])(~(?:[/\w]|$)|/\w[\w./-]*|[A-Za-z]:[\\/])""")


def lint_configs(folder: Path) -> list[str]:
    """Findings over all configs of a bundle's folder, each beginning with the file's name; empty if all is well."""
    others = sorted(path.name for path in (folder / "configs").glob("*") if path.suffix in (".yaml", ".yml"))
    findings = [f"{name}: not looked at, expected JSON" for name in others]
    for path in sorted((folder / "configs").glob("*.json")):
        if path.name not in NO_CONFIGS:
            config = read_config(path.read_bytes(), path.name)
            findings += [f"{path.name}: {finding}" for finding in lint_config(config, f"{folder.name}_bundle")]
    return findings


def lint_config(config: dict, package: str) -> Iterator[str]:
    """Findings in one parsed config of the bundle whose package this is."""
    yield from absolute_paths(config)
    yield from forbidden(config, package)
    yield from lambdas(config)
    yield from too_early(config, package)


def read_config(content: bytes, where: str) -> Any:
    """A JSON file's values; RegInputError if it is not JSON or says a key twice, where JSON would keep the last."""

    def unique(pairs: list[tuple[str, Any]]) -> dict:
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise RegInputError(f"{where} says '{twice[0]}' twice in one section, expected it once; remove one.")
        return dict(pairs)

    try:
        values = json.loads(content, object_pairs_hook=unique)
        json.dumps(values, ensure_ascii=False).encode()  # half a character, as "\ud800", can be written nowhere
        return values
    except (json.JSONDecodeError, UnicodeError, RecursionError) as error:
        raise RegInputError(f"{where} is not JSON ({error}); correct it.") from error


def strings_of(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a parsed config with its id, ``train::handlers::0::_target_``."""
    if isinstance(value, str):
        yield where, value
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from strings_of(item, f"{where}::{key}" if where else str(key))


def absolute_paths(config: Any) -> Iterator[str]:
    """Texts that name a place on one machine: absolute, or in somebody's home."""
    for where, text in strings_of(config):
        for part in literals(text, where):
            found = PLACE.search(part)
            if found:
                yield f"{where} has the path '{found.group(1)}', expected one relative to bundle_root or an argument"


def literals(text: str, where: str) -> list[str]:
    """A text itself, or the texts within it if it is an expression (there a slash may divide)."""
    if not text.startswith("$"):
        return [text]
    tree = parse_expression(text, where)[0]
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def lambdas(config: Any) -> Iterator[str]:
    """Expressions that define a function."""
    for where, text in strings_of(config):
        if text.startswith("$"):
            tree = parse_expression(text, where)[0]
            if any(isinstance(node, ast.Lambda) for node in ast.walk(tree)):
                yield f"{where} has a lambda, expected a function of common or of the bundle"


def too_early(config: dict, package: str) -> Iterator[str]:
    """Our code in ``imports`` or ``initialize``: MONAI adds the bundle to the path later, in ``run``."""
    for where, text in strings_of({key: config[key] for key in ("imports", "initialize") if key in config}):
        if re.search(rf"\b(common|{re.escape(package)})\b", text):
            yield f"{where} is '{text}', but the bundle's code can be imported from `run` on only; move it there"
