"""A bundle as one file that runs where nothing of this repository is installed, the same bytes each time.

``common`` is copied into the bundle's package (``tools/vendor.py`` says how names follow), because two downloaded
bundles that both owned a top-level ``common`` would get each other's code in one process.
"""

import ast
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from common.datalist import GRID_NAME
from common.errors import RegInputError
from common.files import save_atomically
from common.weights import large_files

from .history import changed_since_version
from .lint import absolute_paths, read_config
from .private import private_parts
from .repository import REPOSITORY
from .vendor import OURS, leftover_names, parse_expression, vendor_config, vendor_python

__all__ = ["bundle_names", "check_version", "names_of", "pack", "pack_all", "packed_files"]

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
WEIGHTS = "models/model.pt"
BESIDE_WEIGHTS = ("models/model.safetensors", f"models/{GRID_NAME}")
WEIGHTS_LIMIT = 5 * 2**20  # bytes; larger ones are published apart and named in large_files.yml
WRITTEN_BY_RUNS = ("eval", "models")
UNTRAINED = "untrained"  # key of metadata by which a bundle says that its weights are an initial state, and why
VERSION = re.compile(r"\d\.\d\.\d")  # MONAI sorts versions as strings, so 0.10.0 would come before 0.9.0


def pack(
    name: str,
    out: Path,
    bundles_dir: Path = REPOSITORY / "bundles",
    weights: bool = False,
    common_dir: Path = REPOSITORY / "common",
    history: bool = True,
) -> Path:
    """Write ``<name>_v<version>.zip``, with one folder ``<name>/`` in it, and its line in ``SHA256SUMS``.

    Args:
        name: the bundle's folder in ``bundles_dir``.
        out: folder for the two files; made when needed.
        bundles_dir: folder of the bundles.
        weights: put ``models/model.pt`` into it, and ``model.safetensors`` and ``grid.json`` where they lie beside it.
            A bundle that nothing is trained for has its initial state there always.
        common_dir: the ``common`` to vendor.
        history: refuse a bundle that is not what its version was, see :mod:`tools.history`.

    Returns:
        Path of the zip.

    Raises:
        RegInputError: if the bundle cannot travel: the message lists every reason.
    """
    return pack_all([name], out, bundles_dir, weights, common_dir, history)[0]


def pack_all(
    names: Iterable[str],
    out: Path,
    bundles_dir: Path = REPOSITORY / "bundles",
    weights: bool = False,
    common_dir: Path = REPOSITORY / "common",
    history: bool = True,
) -> list[Path]:
    """Pack several bundles, all or, if one of them cannot travel, none; see :func:`pack`."""
    packed = {name: packed_files(name, Path(bundles_dir), weights, Path(common_dir), history) for name in names}
    targets = []
    for name, files in packed.items():
        version = json.loads(files["configs/metadata.json"])["version"]
        targets.append(Path(out) / f"{name}_v{version}.zip")
        save_atomically(lambda path, name=name, files=files: write_zip(path, name, files), targets[-1])
        add_checksum(targets[-1])
    return targets


def packed_files(
    name: str, bundles_dir: Path, weights: bool, common_dir: Path, history: bool = False
) -> dict[str, bytes]:
    """What the packed bundle's folder holds, by path relative to it; see :func:`pack`."""
    folder = find_bundle(name, bundles_dir)
    package = f"{name}_bundle"
    sources = read_folder(folder, WRITTEN_BY_RUNS)
    problems = [f"{package}/common exists already"] if any(f.startswith(f"{package}/common/") for f in sources) else []
    problems += [problem for problem in [check_version(folder, common_dir if history else None)] if problem]
    files = {path: vendored(path, content, name) for path, content in sources.items()}
    files |= {f"{package}/common/{path}": content for path, content in read_folder(common_dir).items()}
    problems += list(leftovers(files, bundle_names(bundles_dir) - {package}))
    problems += [part for path, content in files.items() for part in private_parts(content, path)]
    if problems:
        raise RegInputError(f"{name} cannot be packed: {'; '.join(dict.fromkeys(problems))}; mend this and pack again.")
    files |= read_weights(folder) if weights or is_untrained(folder) else {}
    check_listed(folder, files)
    return files


def find_bundle(name: str, bundles_dir: Path) -> Path:
    """The bundle's folder; RegInputError unless it holds metadata and the licence under which it travels."""
    folder = bundles_dir / name
    if not (folder / "configs" / "metadata.json").is_file():
        known = ", ".join(names_of("all", bundles_dir)) or "none"
        raise RegInputError(f"there is no bundle '{name}' in {bundles_dir}, expected one of: {known}.")
    if not (folder / "LICENSE").is_file():
        raise RegInputError(f"{folder} has no LICENSE, expected the text that its users need; add it.")
    return folder


def names_of(asked: str, bundles_dir: Path = REPOSITORY / "bundles") -> list[str]:
    """The bundle that a person asks for, or the names of all in a folder for "all"."""
    if asked != "all":
        return [asked]
    return sorted(path.parent.parent.name for path in Path(bundles_dir).glob("*/configs/metadata.json"))


def bundle_names(bundles_dir: Path) -> set[str]:
    """The packages of all bundles in a folder, such as ``eoir_bundle``."""
    return {f"{name}_bundle" for name in names_of("all", bundles_dir)}


def is_untrained(folder: Path) -> bool:
    """Whether a bundle's metadata say that nothing is trained, so that its weights are an initial state."""
    return UNTRAINED in read_metadata(folder)


def read_metadata(folder: Path) -> dict:
    """A bundle's metadata; RegInputError if they are no object."""
    metadata = read_config((folder / "configs" / "metadata.json").read_bytes(), "configs/metadata.json")
    if not isinstance(metadata, dict):
        raise RegInputError(f"configs/metadata.json holds {type(metadata).__name__}, expected an object; correct it.")
    return metadata


def read_folder(folder: Path, skip: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Content of every file that belongs to a folder's sources, by path; what runs and tools leave behind is not read.

    Args:
        folder: where to look.
        skip: names of folders in it to leave out.

    Raises:
        RegInputError: for a link, which does not travel.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if parts[0] in skip or any(part.startswith(".") or part == "__pycache__" for part in parts):
            continue
        if path.is_symlink():
            raise RegInputError(f"{path} is a link, expected a file; put its content there.")
        if path.is_file() and path.name != "monailabel_train.json":  # MONAI Label writes that one
            files["/".join(parts)] = path.read_bytes()
    return files


def vendored(path: str, content: bytes, name: str) -> bytes:
    """One file of the bundle as it is packed."""
    if path.endswith(".py"):
        return vendor_python(content.decode(), f"{name}_bundle", path).encode()
    if is_config(path):
        config = vendor_config(read_config(content, path), name, f"{name}_bundle", path)
        return (json.dumps(config, indent=4, ensure_ascii=False) + "\n").encode()
    return content


def is_config(path: str) -> bool:
    """Whether a path of a bundle is one of its configs."""
    return path.startswith("configs/") and path.endswith(".json")


def check_version(folder: Path, common_dir: Path | None = None) -> str | None:
    """What is wrong with the version in a bundle's metadata, ``None`` if nothing is.

    Args:
        folder: the bundle's.
        common_dir: the ``common`` to pack with it: the content has to be the version's too, see :mod:`tools.history`.
    """
    metadata = read_metadata(folder)
    version, changelog = metadata.get("version"), metadata.get("changelog", {})
    if not isinstance(changelog, dict):
        return f"changelog is {changelog!r}, expected an object of versions and what is new in each"
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        return f"version is {version!r}, expected three digits such as '0.1.0', because MONAI sorts versions as text"
    if version not in changelog:
        return f"version {version} is not in the changelog, which has {', '.join(changelog) or 'no entry'}"
    return changed_since_version(folder, common_dir) if common_dir else None


def leftovers(files: dict[str, bytes], other_bundles: set[str]) -> Iterator[str]:
    """What still points out of the packed bundle."""
    forbidden = set(OURS) | other_bundles
    for path, content in files.items():
        if path.endswith(".py"):
            yield from (f"{path} has '{found}'" for found in leftover_names(ast.parse(content.decode()), forbidden))
        elif path.startswith("configs/") and path.endswith((".yaml", ".yml")):
            yield f"{path} is YAML, and only JSON is vendored"
        elif is_config(path):
            config = json.loads(content)
            yield from (f"{path}: {problem}" for problem in absolute_paths(config))
            yield from (f"{path} names '{found}'" for found in config_leftovers(config, forbidden, path))


def config_leftovers(value: object, forbidden: set[str], path: str) -> Iterator[str]:
    """Modules of ``forbidden`` that a parsed config names in a target, a text or an expression."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from config_leftovers(item, forbidden, path)
    elif isinstance(value, str) and value.startswith("$"):
        yield from leftover_names(parse_expression(value, path)[0], forbidden)
    elif isinstance(value, str) and re.fullmatch(r"\w+(\.\w+)+", value) and value.split(".")[0] in forbidden:
        yield value


def read_weights(folder: Path) -> dict[str, bytes]:
    """``models/model.pt`` by its path, and what belongs beside it: the same tensors once more, their grid.

    Raises:
        RegInputError: if the weights are missing, or too large and not in large_files.yml.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise RegInputError(f"{path} is missing, expected trained weights; run the bundle's train.json first.")
    size = path.stat().st_size
    if size > WEIGHTS_LIMIT and WEIGHTS not in large_files(folder):
        raise RegInputError(
            f"{path} has {size / 2**20:.1f} MiB, expected at most {WEIGHTS_LIMIT // 2**20} or an entry in "
            "large_files.yml; publish it apart and name it there."
        )
    beside = [file for file in BESIDE_WEIGHTS if (folder / file).is_file()]
    return {file: (folder / file).read_bytes() for file in (WEIGHTS, *beside)}


def check_listed(folder: Path, files: dict[str, bytes]) -> None:
    """Raise RegInputError if a file to pack has another hash than large_files.yml states for it."""
    for path, entry in large_files(folder).items():
        if path in files and entry.get("hash_val") != hashlib.sha256(files[path]).hexdigest():
            raise RegInputError(
                f"{folder / path} has another sha256 than large_files.yml; publish it and renew the entry."
            )


def write_zip(path: Path, name: str, files: dict[str, bytes]) -> None:
    """Write the files under ``<name>/``, sorted, not compressed (zlib's bytes differ by version), one time and mode."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for member in sorted(files):
            info = zipfile.ZipInfo(f"{name}/{member}", EPOCH)
            info.create_system = 3  # Unix, wherever this runs, so that the mode counts
            info.external_attr = 0o100644 << 16
            archive.writestr(info, files[member])
    path.write_bytes(buffer.getvalue())


def add_checksum(target: Path) -> None:
    """Put the file's line into SHA256SUMS beside it, in the form that ``sha256sum --check`` reads."""
    sums = target.with_name("SHA256SUMS")
    lines = sums.read_text().splitlines() if sums.is_file() else []
    kept = {line.split("  ", 1)[1]: line for line in lines if "  " in line}
    kept[target.name] = f"{hashlib.sha256(target.read_bytes()).hexdigest()}  {target.name}"
    save_atomically(lambda path: path.write_text("".join(f"{kept[key]}\n" for key in sorted(kept))), sums)
