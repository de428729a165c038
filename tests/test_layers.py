"""common never imports bundles or tools; a bundle never imports tools or another bundle; no tool imports a bundle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUNDLES = {f"{path.name}_bundle" for path in (ROOT / "bundles").iterdir() if path.is_dir()}
FORBIDDEN = {"common": BUNDLES | {"tools", "common"}, "tools": BUNDLES}
FORBIDDEN |= {f"bundles/{name.removesuffix('_bundle')}": BUNDLES - {name} | {"tools"} for name in BUNDLES}


def imported(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)


@pytest.mark.parametrize("folder", sorted(FORBIDDEN))
def test_imports_point_down(folder):
    """In common even `common` is forbidden: its imports are relative, because it is vendored."""
    paths = list((ROOT / folder).rglob("*.py"))
    assert paths
    for path in paths:
        assert not FORBIDDEN[folder] & set(imported(path)), path
