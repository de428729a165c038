import ast
import sys
import types

import pytest

from common.errors import RegInputError
from tools.vendor import leftover_names, vendor_config, vendor_python

# statement -> the names that it binds and the module of the object behind each
IMPORTS = [
    ("from common.spatial import warp", {"warp": "p.common.spatial"}),
    ("from common.spatial import warp as w, compose", {"w": "p.common.spatial", "compose": "p.common.spatial"}),
    ("from common import spatial", {"spatial": "p.common.spatial"}),
    ("from  common.spatial import (\n    warp,\n    compose,\n)", {"warp": "p.common.spatial"}),
    ("import common", {"common": "p.common"}),
    ("import common.spatial", {"common": "p.common"}),
    ("import common.spatial as s", {"s": "p.common.spatial"}),
    ("import math, common.spatial, json", {"common": "p.common", "math": "math", "json": "json"}),
    ("def f():\n    from common.spatial import warp\n    return warp\nwarp = f()", {"warp": "p.common.spatial"}),
    ("été = 'é'; from common.spatial import warp", {"warp": "p.common.spatial"}),
]


@pytest.fixture
def fake_package(monkeypatch):
    """Modules ``p.common.spatial`` and, as the trap, ``common.spatial``, whose objects know where they come from."""
    for root in ("common", "p.common"):
        package, spatial = types.ModuleType(root), types.ModuleType(f"{root}.spatial")
        package.__path__, package.spatial = [], spatial
        for name in ("warp", "compose"):
            setattr(spatial, name, types.SimpleNamespace(__name__=f"{root}.spatial"))
        monkeypatch.setitem(sys.modules, root, package)
        monkeypatch.setitem(sys.modules, f"{root}.spatial", spatial)
    parent = types.ModuleType("p")
    parent.__path__, parent.common = [], sys.modules["p.common"]
    monkeypatch.setitem(sys.modules, "p", parent)


@pytest.mark.parametrize(("source", "bound"), IMPORTS)
def test_every_import_binds_the_same_names_to_the_vendored_modules(fake_package, source, bound):
    namespace: dict = {}
    exec(vendor_python(source, "p", "x.py"), namespace)
    assert {name: namespace[name].__name__ for name in bound} == bound


def test_an_import_of_a_submodule_makes_its_attributes_reachable(fake_package):
    namespace: dict = {}
    exec(vendor_python("import common.spatial\nfound = common.spatial.warp.__name__", "p", "x.py"), namespace)
    assert namespace["found"] == "p.common.spatial"


UNTOUCHED = '''"""See common.spatial; `from common.spatial import warp`."""
from . import common
from .common.spatial import warp
from commonplace import book
import uncommon.common  # import common
TEXT = "from common.spatial import warp"
common = common.x
'''


def test_nothing_but_imports_of_common_changes():
    assert vendor_python(UNTOUCHED, "p", "x.py") == UNTOUCHED


def test_line_ends_and_layout_stay():
    source = "# é\r\nx = 1\r\nfrom common.spatial import (  # why\r\n    warp,\r\n)\r\n"
    assert vendor_python(source, "p", "x.py") == source.replace("common.spatial", "p.common.spatial")


def test_two_imports_on_a_line_are_both_rewritten():
    source = "from common.a import b; from common.c import d"
    assert vendor_python(source, "p", "x.py") == "from p.common.a import b; from p.common.c import d"


def test_a_broken_module_is_named():
    with pytest.raises(RegInputError, match=r"toy_bundle/network\.py is not Python .*line 2"):
        vendor_python("x = 1\ndef (:\n", "p", "toy_bundle/network.py")


CONFIGS = [
    ({"_target_": "common.losses.LNCCLoss"}, {"_target_": "p.common.losses.LNCCLoss"}),
    ({"_target_": "commonplace.Book"}, {"_target_": "commonplace.Book"}),
    ({"_target_": "toy_bundle.network.Net"}, {"_target_": "toy_bundle.network.Net"}),
    (
        {"a": [1, True, None, 1e-4, {"_target_": "common.x.Y"}]},
        {"a": [1, True, None, 1e-4, {"_target_": "p.common.x.Y"}]},
    ),
    ({"+a::b": [{"_target_": "common.x.Y"}]}, {"+a::b": [{"_target_": "p.common.x.Y"}]}),
    ({"a": "common.x.Y in a text"}, {"a": "common.x.Y in a text"}),
    ({"a": "$import common.x as y"}, {"a": "$import p.common.x as y"}),
    ({"a": "$from common.x import y"}, {"a": "$from p.common.x import y"}),
    ({"a": "$ import common"}, {"a": "$ import p.common as common"}),
    ({"a": "$@train::common.x(@b#1) + 'common'"}, {"a": "$@train::common.x(@b#1) + 'common'"}),
    (
        {"_desc_": ["run --config_file bundles/toy/configs/train.json"]},
        {"_desc_": ["run --config_file configs/train.json"]},
    ),
    ({"a": "bundles/toys/configs/train.json"}, {"a": "bundles/toys/configs/train.json"}),
]


@pytest.mark.parametrize(("config", "expected"), CONFIGS)
def test_configs_name_the_vendored_modules_where_they_name_modules(config, expected):
    assert vendor_config(config, "toy", "p", "train.json") == expected


@pytest.mark.parametrize("candidates", ["('.', 'bundles/toy')", "['.', 'é', 'bundles/toy']"])
def test_bundle_root_also_looks_into_the_unpacked_folder(candidates, tmp_path, monkeypatch):
    text = f"$next((p for p in {candidates} if __import__('os').path.isdir(p + '/configs')), 'none')"
    vendored = vendor_config({"bundle_root": text}, "toy", "p", "x.json")["bundle_root"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy" / "configs").mkdir(parents=True)
    assert (eval(text[1:]), eval(vendored[1:])) == ("none", "toy")


def test_references_before_a_candidate_do_not_shift_it():
    config = {"bundle_root": "$pick([@train::root, @a#b, 'bundles/toy'])"}
    vendored = {"bundle_root": "$pick([@train::root, @a#b, 'toy', 'bundles/toy'])"}
    assert vendor_config(config, "toy", "p", "x.json") == vendored


def test_other_lists_keep_their_paths():
    config = {"roots": "$['bundles/toy']", "bundle_root": "$('.', 'toy', 'bundles/toy')[0]"}
    assert vendor_config(config, "toy", "p", "x.json") == config


LEFTOVERS = [
    ("import tools.pack", ["import tools.pack"]),
    ("from common.x import y", ["from common.x import"]),
    ("from other_bundle import y", ["from other_bundle import"]),
    ("import importlib\nimportlib.import_module('common')", ["a dynamic import of 'common'"]),
    ("x = __import__('tools.pack')", ["a dynamic import of 'tools'", "the text 'tools.pack'"]),
    ("TARGET = 'common.losses.LNCCLoss'", ["the text 'common.losses.LNCCLoss'"]),
    ('"""common.losses"""\nfrom .common import x\nWORD = "common"\nFILE = "tools for common.x"', []),
]


@pytest.mark.parametrize(("source", "expected"), LEFTOVERS)
def test_leftovers_are_found(source, expected):
    assert list(leftover_names(ast.parse(source), {"common", "tools", "other_bundle"})) == expected
