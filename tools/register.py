"""Two files in, a transform out: a bundle's inference over one pair or a data set, in this process."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from monai.bundle import ConfigParser
from monai.engines import Evaluator

from common.errors import RegInputError, first_line, mendable
from common.files import require_writable
from common.intensity import modality_of, similarity_for
from common.preflight import check_image

from .repository import REPOSITORY

__all__ = ["bundle_folder", "register", "registration_of"]

LINE = logging.Formatter("%(message)s")


def register(
    bundle: str,
    out: Path,
    ids: Mapping[str, object],
    overlays: Sequence[str] = (),
    similarity: str | None = "auto",
    quiet: bool = False,
) -> None:
    """Run a bundle's ``inference.json`` and write what it finds to ``out``; arguments are :func:`registration_of`'s.

    Raises:
        RegInputError: if the bundle has no such id or config, or the pair cannot be registered.
        RegEnvError: if ``out`` cannot be written.
        RegNumericsError: if a registration leaves the finite numbers.
    """
    evaluator = registration_of(bundle, out, ids, overlays, similarity, quiet)
    require_writable(out)
    say_lines(quiet)
    with told_of_overlays(overlays):
        evaluator().run()


def registration_of(
    bundle: str,
    out: Path,
    ids: Mapping[str, object],
    overlays: Sequence[str] = (),
    similarity: str | None = "auto",
    quiet: bool = False,
) -> Callable[[], Evaluator]:
    """What makes the engine that registers: the bundle's config is read and its ids are checked, nothing is built yet.

    Args:
        bundle: name under ``bundles``, or the folder of a downloaded one.
        out: for one pair the folder of its results, for a data set that of the pairs' folders.
        ids: values by the config's ids; of ``fixed`` and ``moving``, or ``dataset_dir``, and whatever else differs from
            the config. None leaves the config's value.
        overlays: configs over it: names in the bundle's ``configs``, or paths.
        similarity: value of that id; "auto" looks at the pair's modalities and keeps the config's for a data set and
            for bundles that have none.
        quiet: say nothing but errors.

    Raises:
        RegInputError: if the bundle has no such id or config.
    """
    root = bundle_folder(bundle)
    parser = read_configs(root, overlays)
    named = {key: value for key, value in ids.items() if value is not None}
    if similarity != "auto":
        named["similarity"] = similarity
    elif "fixed" in named and "similarity" in parser:
        named["similarity"] = similarity_of(named, str(parser["similarity"]))
    own = {"bundle_root": str(root), "output_dir": str(out), "own_folder": "fixed" in named, "progress": not quiet}
    check_ids(root, parser, named)
    parser.update({**named, **own})
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))  # where a downloaded bundle has its package; the same folder that MONAI adds
    return partial(parser.get_parsed_content, "evaluator")


def bundle_folder(name: str) -> Path:
    """The folder of a bundle: a path, or a name under ``bundles``.

    Raises:
        RegInputError: if there is no such bundle; the message names those that there are.
    """
    for folder in (Path(name).expanduser().absolute(), REPOSITORY / "bundles" / name):
        if (folder / "configs" / "inference.json").is_file():
            return folder
    known = sorted(path.parents[1].name for path in REPOSITORY.glob("bundles/*/configs/inference.json"))
    raise RegInputError(f"the bundle is '{name}', expected one of {', '.join(known)} or a folder of one; correct it.")


def read_configs(root: Path, overlays: Sequence[str]) -> ConfigParser:
    """``inference.json`` under its overlays.

    Raises:
        RegInputError: if one is missing or no config.
    """
    own = root / "configs"
    files = [own / "inference.json"]
    for overlay in overlays:
        candidates = [Path(overlay).expanduser(), own / overlay, own / f"{overlay}.json"]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            raise RegInputError(
                f"{overlay} is no config of {root.name}, expected a file or a name in {own}; correct it."
            )
        files.append(found)
    return merged(files)


def merged(files: Sequence[Path]) -> ConfigParser:
    """Configs one over the other.

    Raises:
        RegInputError: if one is no config: neither JSON nor YAML, no text, or not an object.
    """
    for path in files:
        try:
            content = ConfigParser.load_config_file(str(path))
            if not isinstance(content, dict):
                raise TypeError(f"it holds a {type(content).__name__}")
        except Exception as error:  # of JSON, YAML and Unicode
            raise RegInputError(
                f"{path} is no config ({first_line(error)}), expected an object in JSON or YAML; correct it."
            ) from error
    parser = ConfigParser()
    try:
        parser.read_config([str(path) for path in files])
    except Exception as error:  # an overlay that adds to what is not there
        raise RegInputError(
            f"{', '.join(map(str, files[1:]))} cannot be laid over {files[0]} ({first_line(error)}); correct it."
        ) from error
    return parser


@contextmanager
def told_of_overlays(overlays: Sequence[str]) -> Iterator[None]:
    """Tell in a sentence what a person's own overlay spoils; a fault of the bundle, or of a config in it, stays one.

    Raises:
        RegInputError: for any error that is none of ours, if there are such overlays.
    """
    own = [overlay for overlay in overlays if Path(overlay).expanduser().is_file()]  # the others are the bundle's
    try:
        yield
    except Exception as error:
        if mendable(error) is not None or not own:
            raise
        raise RegInputError(
            f"{', '.join(own)} makes a config that does not work ({first_line(innermost(error))}), expected ids and "
            "values as in inference.json; correct it."
        ) from error


def innermost(error: BaseException) -> BaseException:
    """The first cause: MONAI wraps what a component raises."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def check_ids(root: Path, parser: ConfigParser, ids: Mapping[str, object]) -> None:
    """Refuse what the bundle's config would not read."""
    for key in ids:
        if key not in parser:
            raise RegInputError(f"{root.name} has no '{key}', expected an id of its inference.json; leave it out.")


def similarity_of(ids: Mapping[str, object], usual: str) -> str:
    """``usual`` for two images of one modality, what compares structure for two."""
    kinds = [ids.get("modality")] * 2
    if kinds[0] in (None, "auto"):
        kinds = [modality_of(check_image(str(ids[key])).voxels) for key in ("fixed", "moving")]
    chosen = similarity_for(kinds)
    return usual if kinds[0] == kinds[1] else chosen


def say_lines(quiet: bool) -> None:
    """The steps as plain lines on standard error; MONAI's and ignite's own words only where they warn."""
    handler = logging.StreamHandler()
    handler.setFormatter(LINE)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.ERROR if quiet else logging.WARNING)
    logging.getLogger("common").setLevel(logging.ERROR if quiet else logging.INFO)
    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # it announces each error that we tell ourselves
