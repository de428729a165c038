"""What CONTRIBUTING.md says is done, word for word, in a copy of the checkout: a bundle, a data set and a metric."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from inspect import getsource, signature
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tools import data_commands
from tools.__main__ import app
from tools.data import acdc, catalog, prepared
from tools.repository import REPOSITORY

pytestmark = pytest.mark.slow

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text()
COPIED = ("common", "tools", "tests", "bundles/voxelmorph", "pyproject.toml")
SMALL = {"size": "[32,32,32]", "subjects": "2", "validation_pairs": "1", "testing_pairs": "1"}
"""A phantom that costs less than the one of the text; all else is as a newcomer has it."""
DATA_SET = '''"""Cubes: made up for a test."""

from pathlib import Path

from common.phantom import write_phantom

from .source import Source


def prepare(raw: str, out: str) -> Path:
    """Write the phantom."""
    return write_phantom(Path(out), subjects=2, size=(32, 32, 32), validation_pairs=1, testing_pairs=1)


SOURCES = (
    Source(
        name="cubes",
        title="Cubes",
        license="Apache-2.0",
        citation="Nobody 2026",
        page="https://example.org",
        terms="none",
        files=(),
        prepare=prepare,
    ),
)
'''
COMMAND = '''

@prepare.command()
def cubes(raw: str, out: Out) -> None:
    """Cubes."""
    from .data.cubes import prepare

    print(prepare(raw, out))
'''
COMMANDS_OF_DATA = """
from typer.testing import CliRunner
from tools.__main__ import app
for words, told in {
    ("list",): "cubes ",
    ("info", "cubes"): "Nobody 2026",
    ("prepare", "cubes", "raw", "--out", "cubes"): "datalist.json",
    ("check", "cubes"): "phantom: training 2 scans",
}.items():
    result = CliRunner().invoke(app, ["data", *words])
    assert result.exit_code == 0 and told in result.output, (words, result.output, result.exception)
"""


def blocks(section: str, language: str) -> list[str]:
    """The code of one language in a section of the text."""
    content = TEXT.split(f"## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", content, re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what a newcomer works on."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        if (REPOSITORY / name).is_file():
            shutil.copyfile(REPOSITORY / name, folder / name)
        else:
            left_out = shutil.ignore_patterns("eval", "models", "__pycache__")
            shutil.copytree(REPOSITORY / name, folder / name, ignore=left_out)
    return folder


def run(checkout: Path, *words: str) -> str:
    """A command in the copy, by this environment; what it printed, if it went well."""
    if words[:3] == ("-m", "monai.bundle", "run"):
        words += tuple(f"--dataset_dir::{key}={value}" for key, value in SMALL.items())
    installed = [str(checkout / "bundles" / "toy")] if words[:2] == ("-m", "pytest") else []  # by `make lint test`
    paths = os.pathsep.join([str(checkout), *installed])
    environment = os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


@pytest.fixture(scope="module")
def toy(checkout) -> Path:
    """The bundle that the commands of the text made; make's are told apart, because they install."""
    (commands,) = blocks("Adding a bundle", "bash")
    for line in commands.splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            assert words == ["make", "lint", "test"]
        else:
            run(checkout, *(["-m", "tools", *words[1:]] if words[0] == "regbundles" else words[1:]))
    return checkout / "bundles" / "toy"


def test_the_commands_for_a_bundle_leave_what_they_are_for(toy):
    assert (toy / "models" / "model.pt").is_file() and (toy / "eval" / "metrics.csv").is_file()
    assert list((toy / "eval" / "registrations").glob("*/transform.h5"))
    assert [path.name for path in (toy.parents[1] / "dist").glob("*.zip")] == ["toy_v0.1.0.zip"]


def test_a_new_bundle_passes_lint_and_its_tests(checkout, toy):
    run(checkout, "-m", "ruff", "check", "bundles/toy", "tests/bundles/toy")
    run(checkout, "-m", "ruff", "format", "--check", "bundles/toy", "tests/bundles/toy")
    words = ["-p", "no:cacheprovider", "tests/bundles/toy", "tests/bundles/test_trained.py", "tests/test_layers.py"]
    told = run(checkout, "-m", "pytest", *words, "-k", "toy or layers")
    assert re.search(r"\b[2-9]\d passed", told)


def test_what_the_section_on_data_sets_names_is_there():
    """Files, commands, and what a module of a data set holds, of which ``acdc.py`` is the example."""
    named = set(re.findall(r"`([^`]+)`", TEXT.split("## Adding a data set\n")[1].split("\n## ")[0]))
    files = {name for name in named if re.search(r"\.(py|md)$", name)}
    folders = [REPOSITORY, REPOSITORY / "tools" / "data", REPOSITORY / "tests" / "tools" / "data"]
    lacking = [name for name in files if not any((at / name.replace("<name>", "acdc")).is_file() for at in folders)]
    assert len(files) > 5 and not lacking
    commands = {name for name in named if name.startswith("regbundles ")}
    words = [[word for word in name.split()[1:] if word.islower()] for name in commands]
    assert words and all(CliRunner().invoke(app, [*line, "--help"]).exit_code == 0 for line in words)
    assert list(signature(acdc.prepare).parameters)[:2] == ["raw", "out"]
    held = {"prepare(raw, out)": acdc.prepare, "SOURCES": acdc.SOURCES, "MODULES": catalog.MODULES}
    held |= {
        "prepare": data_commands.prepare.registered_commands,
        "datalist.json": '"datalist.json"' in getsource(prepared),
    }
    assert named - files - commands == set(held) and all(held.values())


def test_a_data_set_that_is_added_as_told_is_listed_prepared_and_sound(checkout):
    data = checkout / "tools" / "data"
    (data / "cubes.py").write_text(DATA_SET)
    listed, commands = data / "catalog.py", checkout / "tools" / "data_commands.py"
    listed.write_text(listed.read_text().replace("MODULES = (\n", 'MODULES = (\n    "cubes",\n'))
    commands.write_text(commands.read_text() + COMMAND)
    run(checkout, "-c", COMMANDS_OF_DATA)


def test_a_metric_that_is_added_as_told_has_its_column(checkout, toy):
    (code,), (overlay,) = blocks("Adding a metric", "python"), blocks("Adding a metric", "json")
    with (checkout / "common" / "scoring.py").open("a") as file:
        file.write(f"\n\n{code}")
    (checkout / "longest.json").write_text(overlay)
    files = [*(f"bundles/toy/configs/{name}.json" for name in ("train", "evaluate")), "longest.json"]
    run(checkout, "-m", "monai.bundle", "run", "--config_file", str(files))
    with (toy / "eval" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 1 and all(float(row["longest"]) > 0 for row in rows)
