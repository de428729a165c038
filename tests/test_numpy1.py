"""MONAI Label needs numpy 1.26, so everything that a bundle carries runs on it as well as on numpy 2.

``pytest -m slow tests/test_numpy1.py`` builds ``.venv-numpy1`` once, then takes as long as the tests of ``common`` and
the bundles and one short training.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tools.repository import REPOSITORY

NUMPY = "1.26.4"
ENVIRONMENT = REPOSITORY / ".venv-numpy1"
SHORT = ["--dataset_dir::size", "[48,48,48]", "--max_epochs", "1", "--steps_per_epoch", "1", "--val_interval", "1"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of an environment with numpy 1.26 and all else of the one that runs this, as in MONAI Label's."""
    python, ready = ENVIRONMENT / "bin" / "python", ENVIRONMENT / ".ready"
    inherited = sysconfig.get_path("purelib")
    wanted = f"numpy {NUMPY} before {inherited}\n"
    if ready.is_file() and ready.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
    own = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    Path(own.strip(), "inherited.pth").write_text(f"import site; site.addsitedir({inherited!r})\n")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*install, f"numpy=={NUMPY}"], check=True)
    ready.write_text(wanted)
    return python


def run(python: Path, *arguments: str, cwd: Path = REPOSITORY) -> str:
    """What a command of that interpreter prints; the test fails with it if the command does."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([python, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def test_the_environment_has_numpy_1(python):
    assert run(python, "-c", "import numpy; print(numpy.__version__)").strip() == NUMPY


def test_the_tests_of_common_and_the_bundles_pass(python):
    run(python, "-m", "pytest", "tests/common", "tests/bundles", "-k", "not nitransforms", "-p", "no:cacheprovider")


def test_a_bundle_trains_one_step(python, tmp_path):
    config = REPOSITORY / "bundles" / "eoir" / "configs" / "train.json"
    root = ["--bundle_root", str(tmp_path)]
    run(python, "-m", "monai.bundle", "run", "--config_file", str(config), *root, *SHORT, cwd=tmp_path)
    assert (tmp_path / "models" / "model.pt").is_file()
