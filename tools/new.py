"""A new bundle's folder, ready to run: the configs of another bundle around a network of its own, with tests.

``voxelmorph`` is the one whose configs are taken, to the letter but for names and network, because the others are held
to it (``tests/bundles/test_equal_terms.py``): what changes there is in the next new bundle. The network, its tests and
the texts are those of ``tools/template``.
"""

import json
import keyword
import re
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from common.errors import RegInputError
from common.files import save_atomically, whole_folder

from .repository import REPOSITORY

__all__ = ["new"]

SOURCE, SOURCE_CLASS = "voxelmorph", re.compile(r"VoxelMorph(-1)?")
TEMPLATE = Path(__file__).parent / "template"
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LONGEST = 40
METHODS = ("all", "elastix", "none", "syn", "template")  # by which the commands here mean something else
VIEWERS = ("classification", "deepedit", "deepgrow", "detection", "segmentation")  # MONAI Label takes them for a kind
SETTINGS: dict[str, Any] = {"channels": [8, 16, 16], "integrate_steps": 7}
"""Of the template's network, by the ids that the configs give them."""
DESCRIPTION = "A small U-Net reads both images and gives a velocity that is integrated: the network to begin with."


def new(name: str, root: Path = REPOSITORY) -> list[Path]:
    """Write ``bundles/<name>`` and ``tests/bundles/<name>``, and enter the package in ``pyproject.toml``.

    Args:
        name: of the bundle: small letters, digits and single underscores.
        root: of the checkout.

    Returns:
        What was written: the two folders and the file.

    Raises:
        RegInputError: before anything is written, if the name is odd or taken, or pyproject.toml has another form.
        RegEnvError: if the checkout cannot be written.
    """
    folders = [root / "bundles" / name, root / "tests" / "bundles" / name]
    check_name(name, folders)
    project = root / "pyproject.toml"
    entered = with_package(project.read_text(encoding="utf-8"), name)
    contents = [bundle_files(name, root / "bundles" / SOURCE), test_files(name)]
    with ExitStack() as stack:  # all of it or nothing
        for folder, files in zip(folders, contents, strict=True):
            write_files(stack.enter_context(whole_folder(folder)), files)
        save_atomically(lambda path: path.write_text(entered, encoding="utf-8"), project)
    return [*folders, project]


def check_name(name: str, folders: list[Path]) -> None:
    """Refuse a name that is odd, means something else, or is taken."""
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise RegInputError(
            f"the name is '{name}', expected at most {LONGEST} small letters, digits and single underscores, a letter "
            "first, such as lku_net; choose another."
        )
    if name in METHODS or keyword.iskeyword(name) or any(word in name for word in VIEWERS):
        raise RegInputError(
            f"the name is '{name}', expected no word of Python's, none of {', '.join(METHODS)} and no "
            f"{', '.join(VIEWERS)} in it, which `regbundles` and MONAI Label read otherwise; choose another."
        )
    taken = next((folder for folder in folders if folder.exists()), None)
    if taken is not None:
        raise RegInputError(f"{taken} exists already, expected a new name; choose another or remove it.")


def bundle_files(name: str, source: Path) -> dict[str, str]:
    """The bundle's files by their path in its folder."""
    texts = {f"configs/{path.name}": path.read_text(encoding="utf-8") for path in own_configs(source)}
    texts |= {file: (source / file).read_text(encoding="utf-8") for file in ("LICENSE", "configs/logging.conf")}
    files = {path: renamed(text, name) for path, text in texts.items()}
    for config in ("configs/train.json", "configs/inference.json"):
        files[config] = with_network(files[config], f"{name}_bundle.network.{class_name(name)}")
    files["configs/metadata.json"] = metadata((source / "configs" / "metadata.json").read_text(encoding="utf-8"), name)
    files |= {f"docs/{file}": template(file, name) for file in ("README.md", "data_license.txt")}
    files["large_files.yml"] = template("large_files.yml", name)
    files[f"{name}_bundle/__init__.py"] = f'"""{class_name(name)}: a small U-Net to begin with."""\n'
    files[f"{name}_bundle/network.py"] = template("network.py", name)
    return files


def test_files(name: str) -> dict[str, str]:
    """The tests' files by their path in their folder."""
    return {"__init__.py": "", "test_network.py": template("test_network.py", name)}


def own_configs(source: Path) -> list[Path]:
    """The configs that every bundle has, of those that train; data sets' and variants' are the source's alone."""
    return [source / "configs" / f"{config}.json" for config in ("train", "inference", "evaluate", "multi_gpu_train")]


def class_name(name: str) -> str:
    """The network's class, which no import of its file is called like: ``lku_net`` -> ``LkuNet``, ``tensor`` ->
    ``TensorNet``."""
    return "".join(part.capitalize() for part in name.removesuffix("_net").split("_")) + "Net"


def renamed(text: str, name: str) -> str:
    """A text of the source bundle as one of the new bundle."""
    return SOURCE_CLASS.sub(class_name(name), text.replace(SOURCE, name))


def template(file: str, name: str) -> str:
    """A file of ``tools/template`` under the new names."""
    text = (TEMPLATE / file).read_text(encoding="utf-8").replace("TemplateNet", class_name(name))
    return text.replace("template_bundle", f"{name}_bundle").replace("bundles/template", f"bundles/{name}")


def with_network(text: str, target: str) -> str:
    """A config with another ``network_def`` and its settings; the rest as it was, to the letter."""
    for setting in json.loads(text)["network_def"].keys() - {"_target_"}:
        text = replace_one(rf'^    "{setting}": [^\n]*\n', "", text)
    entries = [f'"_target_": "{target}"', *(f'"{key}": "@{key}"' for key in SETTINGS)]
    settings = "".join(f'    "{key}": {json.dumps(value)},\n' for key, value in SETTINGS.items())
    block = settings + '    "network_def": {\n        ' + ",\n        ".join(entries) + "\n    },\n"
    return replace_one(r'^    "network_def": \{\n.*?^    \},\n', block, text)


def replace_one(pattern: str, replacement: str, text: str) -> str:
    """Replace the one place where a pattern of lines is found; ValueError if there is none or another."""
    changed, count = re.subn(pattern, lambda _: replacement, text, flags=re.MULTILINE | re.DOTALL)
    if count != 1:
        raise ValueError(f"{pattern!r} is found {count} times in a config of {SOURCE}, expected once.")
    return changed


def metadata(text: str, name: str) -> str:
    """The source's metadata for a first version."""
    content = json.loads(text) | {
        "version": "0.1.0",
        "changelog": {"0.1.0": "first version"},
        "name": f"{class_name(name)} deformable registration",
        "description": DESCRIPTION,
        "references": [],
    }
    return json.dumps(content, indent=4, ensure_ascii=False) + "\n"


def with_package(text: str, name: str) -> str:
    """pyproject.toml with the new bundle's package.

    Raises:
        RegInputError: if it is not written as this expects; the message says what to add.
    """
    package = f"{name}_bundle"
    mapping = f'{package} = "bundles/{name}/{package}"'
    packages, folders = packages_of(text)
    wanted = packages | {package}, folders | {package: f"bundles/{name}/{package}"}
    if (packages, folders) == wanted:  # its folder was there before
        return text
    changed = re.sub(r"(?ms)(^packages = \[\n.*?)(^\]\n)", rf'\1    "{package}",\n\2', text, count=1)
    changed = re.sub(
        r"(?m)(^\[tool\.setuptools\.package-dir\]\n)((?:^\w[^\n]*\n)+)",
        lambda found: found[1] + "".join(f"{line}\n" for line in sorted([*found[2].splitlines(), mapping])),
        changed,
    )
    if packages_of(changed) != wanted:
        raise RegInputError(
            f"pyproject.toml has another form than expected; add '{package}' to packages and `{mapping}` to "
            "package-dir of tool.setuptools by hand."
        )
    return changed


def packages_of(text: str) -> tuple[set[str], dict[str, str]]:
    """The packages of a pyproject.toml, and where they lie."""
    settings = tomllib.loads(text)["tool"]["setuptools"]
    return set(settings["packages"]), settings["package-dir"]


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write texts by their path in a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
