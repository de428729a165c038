"""What stands behind ``--method NAME=SOURCE``: headers alone, a folder of predictions, a bundle, SyN, or elastix."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from common.errors import RegInputError

from .bundle_run import BundleRun
from .elastix import Elastix
from .predictions import Folder, Identity, Pair, Predictions
from .syn import SyN

__all__ = ["Source", "check_sources", "device_type", "parse_methods", "predictions_of"]

Source = Identity | Folder | BundleRun | SyN | Elastix
PROGRAMS = {"none": Identity, "syn": SyN, "elastix": Elastix}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")  # of a column and of a folder


def parse_methods(
    methods: Sequence[str], overlays: Sequence[str] = (), overrides: Sequence[str] = ()
) -> dict[str, Source]:
    """Sources by the names of their methods, in the order given.

    Args:
        methods: ``NAME=SOURCE`` each; SOURCE is ``none``, ``syn``, ``elastix``, a bundle's folder or a folder of
            predictions.
        overlays: ``NAME=FILE`` each, for a method that is a bundle.
        overrides: ``NAME:ID=VALUE`` each, likewise.

    Raises:
        RegInputError: for no method, a name given twice or not fit for a file, an unknown source, or an overlay or
            override of a method that is no bundle.
    """
    named = [split(text, "=", "--method NAME=SOURCE") for text in methods]
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if twice or not named:
        raise RegInputError(
            f"the methods are {[name for name, _ in named]}, expected at least one and none twice; give each its name."
        )
    files = [split(text, "=", "--overlay NAME=FILE") for text in overlays]
    values = [split(text, ":", "--override NAME:ID=VALUE") for text in overrides]
    sources = {}
    for name, source in named:
        if not NAME.fullmatch(name):
            raise RegInputError(f"the method is called '{name}', expected letters, digits and . _ + -; rename it.")
        settings = [split(value, "=", "--override NAME:ID=VALUE") for other, value in values if other == name]
        sources[name] = source_of(source, [file for other, file in files if other == name], dict(settings))
    bundles = {name for name, source in sources.items() if isinstance(source, BundleRun)}
    strangers = sorted({name for name, _ in files + values} - bundles)
    if strangers:
        raise RegInputError(
            f"overlays or overrides are given for {strangers}, expected names of methods that are bundles "
            f"({sorted(bundles)}); correct the names."
        )
    return sources


def source_of(text: str, overlays: list[str], overrides: dict[str, str]) -> Source:
    """What one SOURCE means; a folder called like a method is written ./none."""
    if text in PROGRAMS:
        return PROGRAMS[text]()
    path = Path(text).expanduser()
    if not path.is_dir():
        raise RegInputError(
            f"there is no folder '{text}', expected {', '.join(PROGRAMS)}, a bundle or a folder of predictions; "
            "correct the source."
        )
    if (path / "configs").is_dir():
        return BundleRun(path, tuple(overlays), overrides)
    return Folder(path)


def check_sources(sources: dict[str, Source], pairs: Sequence[Pair]) -> None:
    """Raise before any work what can be known of all sources: missing files, weights, packages."""
    for source in sources.values():
        if isinstance(source, Identity | Folder):
            source.check(pairs)
        else:
            source.check()


def device_type(source: Source) -> str:
    """Where a source registers: "cpu" or "cuda"; empty if it does not, or that is not known."""
    if isinstance(source, BundleRun):
        return source.device_type
    return "cpu" if isinstance(source, SyN | Elastix) else ""


def predictions_of(source: Source, pairs: Sequence[Pair], dataset_dir: str, section: str, out: Path) -> Predictions:
    """The predictions of a source, registering into ``out`` first where there are none yet."""
    if isinstance(source, BundleRun):
        source = source.run(dataset_dir, section, out)
    elif isinstance(source, SyN | Elastix):
        source = source.run(pairs, out)
    source.check(pairs)
    return source


def split(text: str, separator: str, form: str) -> tuple[str, str]:
    """The two parts of an argument, neither empty."""
    first, found, second = text.partition(separator)
    if not (first and found and second):
        raise RegInputError(f"'{text}' was given, expected {form}; complete it.")
    return first, second
