"""What a bundle's configs may compute and build: a list of what is allowed, because a config is code.

MONAI evaluates texts that begin with ``$`` and calls whatever ``_target_`` names. The list holds what the bundles use;
whoever needs more adds it here, where it is seen. What a bundle's own Python does is not looked at.
"""

import ast
from collections.abc import Iterator
from functools import cache
from typing import Any

from .vendor import parse_expression

__all__ = ["forbidden"]

MODULES = ("logging", "os")  # that ``imports`` may name
FUNCTIONS = (
    "logging.WARNING",
    "logging.disable",
    "monai.handlers.from_engine",
    "monai.utils.set_determinism",
    "os.environ",
    "os.path.isdir",
    "os.path.isfile",
    "os.path.join",
    "torch.channels_last_3d",
    "torch.cuda.is_available",
    "torch.cuda.set_device",
    "torch.device",
    "torch.distributed.get_rank",
    "torch.distributed.get_world_size",
    "torch.distributed.init_process_group",
)
"""What expressions may name of modules; of ``os.environ`` values alone, which are read by a subscript."""
BUILTINS = (
    "bool",
    "dict",
    "float",
    "int",
    "len",
    "list",
    "max",
    "min",
    "next",
    "range",
    "round",
    "str",
    "sum",
    "tuple",
)
ATTRIBUTES = ("flow", "parameters", "run", "to")  # of what a config refers to
NODES = (
    *(ast.Module, ast.Expr, ast.Name, ast.Load, ast.Store, ast.Constant, ast.Attribute, ast.Subscript, ast.Slice),
    *(ast.Call, ast.keyword, ast.IfExp, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop, ast.BinOp, ast.operator),
    *(ast.Compare, ast.cmpop, ast.List, ast.Tuple, ast.Dict, ast.GeneratorExp, ast.ListComp, ast.comprehension),
)
PACKAGES = (
    *("monai.data.", "monai.engines.", "monai.handlers.", "monai.inferers.", "monai.losses.", "monai.metrics."),
    *("monai.networks.", "monai.optimizers.", "monai.transforms.", "ignite.engine.", "ignite.handlers."),
    *("ignite.metrics.", "torch.nn.", "torch.optim.", "torch.utils.data.", "torch.utils.tensorboard."),
)
"""Whose classes a ``_target_`` may name; of ``common`` and the bundle's own package everything."""
MODES = ("default", "callable")  # MONAI's third starts a debugger


def forbidden(config: Any, package: str) -> Iterator[str]:
    """Findings in a parsed config of the bundle whose package this is: what is not on the lists above."""
    for where, value in leaves(config):
        key = where.replace("#", "::").split("::")[-1].lstrip("+")
        if key == "_target_":
            yield from target_findings(where, value, package)
        elif key == "_mode_" and value not in MODES:
            yield f"{where} is {value!r}, expected one of {', '.join(MODES)}"
        elif isinstance(value, str) and value.startswith("$"):
            yield from expression_findings(where, value, package)
        elif isinstance(value, str) and value.startswith("%"):
            yield f"{where} is '{value}', which may be out of another file, expected an id of this config by @"


def leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a parsed config that holds no others, with its id."""
    if not isinstance(value, dict | list):
        yield where, value
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(item, f"{where}::{key}" if where else str(key))


def target_findings(where: str, target: object, package: str) -> Iterator[str]:
    """What is wrong with a ``_target_``."""
    if not isinstance(target, str) or target.startswith(("$", "@", "%")):
        yield f"{where} is {target!r}, which is computed, expected the name of a class or function"
        return
    path = target if "." in target else f"{module_of(target)}.{target}"
    inside = (
        path.removeprefix(f"{package}.common.") if path.startswith(f"{package}.common.") else path.partition(".")[2]
    )
    own = path.startswith(("common.", f"{package}.")) and inside.count(".") == 1  # nothing that a module imports
    if "." not in target and module_of(target) is None:
        yield f"{where} is '{target}', which MONAI does not know; write the full path"
    elif not own and not (path.startswith(PACKAGES) and path.split(".")[-1][:1].isupper()):
        yield f"{where} is '{target}', expected a class that tools/allowed.py allows, or one of common or {package}"


@cache
def module_of(name: str) -> str | None:
    """Where MONAI finds a class or function by its name alone; of several places the first that is not allowed."""
    found = locator().get_component_module_name(name)
    places = [found] if isinstance(found, str) else list(found or ())
    outside = [place for place in places if not f"{place}.".startswith(PACKAGES)]
    return next(iter(outside or places), None)


@cache
def locator() -> Any:
    """MONAI's table of its components; making it takes a second and more."""
    from monai.bundle.config_item import ComponentLocator  # seconds to import, and packing does not need it

    return ComponentLocator()


def expression_findings(where: str, text: str, package: str) -> Iterator[str]:
    """What in an expression is not allowed; a lambda is the lint's own finding."""
    tree = parse_expression(text, where)[0]
    nodes = list(ast.walk(tree))
    if any(isinstance(node, ast.Lambda) for node in nodes):
        return
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.Import | ast.ImportFrom):
        yield from import_findings(where, tree.body[0], package)
        return
    yield from sorted({f"{where} has '{part}', which is not allowed in a config" for part in not_allowed(nodes)})


def import_findings(where: str, statement: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
    """Modules that may not be imported; that our own come too early is the lint's own finding."""
    named = [a.name for a in statement.names] if isinstance(statement, ast.Import) else [statement.module or ""]
    plain = isinstance(statement, ast.Import) and not any(alias.asname for alias in statement.names)
    for name in named:
        if name.split(".")[0] not in ("common", package) and not (plain and name in MODULES):
            yield f"{where} imports from {name}, expected `import {'` or `import '.join(MODULES)}`"


def not_allowed(nodes: list[ast.AST]) -> Iterator[str]:
    """The parts of an expression that no list holds."""
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    indexed = {id(node.value) for node in nodes if isinstance(node, ast.Subscript)}
    for node in nodes:
        if not isinstance(node, NODES):
            yield type(node).__name__
        elif isinstance(node, ast.Attribute) and id(node) not in inner:
            whole = ast.unparse(node) == "os.environ" and id(node) not in indexed
            yield from ("os.environ",) if whole else chain_findings(node, bound)
        elif isinstance(node, ast.Name) and id(node) not in inner and not is_value(node.id, bound):
            yield node.id


def chain_findings(node: ast.Attribute, bound: set[str]) -> Iterator[str]:
    """A chain such as ``torch.cuda.is_available`` that is not allowed as it is."""
    names, root = [], node
    while isinstance(root, ast.Attribute):
        names.insert(0, root.attr)
        root = root.value
    if isinstance(root, ast.Name) and not is_value(root.id, bound):
        path = ".".join([root.id, *names])
        yield from () if path in FUNCTIONS else (path,)
        return
    yield from (f".{name}" for name in names if name not in ATTRIBUTES)


def is_value(name: str, bound: set[str]) -> bool:
    """Whether a name stands for a reference (see :func:`tools.vendor.mask_references`), a variable or a builtin."""
    return not name.strip("_") or name in bound or name in BUILTINS
