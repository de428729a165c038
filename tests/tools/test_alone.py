import json
import subprocess
import sys

import pytest

from tools.alone import Command, alone_environment, modules_beside, run_alone
from tools.repository import REPOSITORY


@pytest.mark.parametrize("module", ["common", "tools", "common.spatial", "eoir_bundle"])
def test_nothing_of_the_repository_can_be_imported_alone(module, tmp_path):
    """Here the same line works, through the editable install."""
    line = f"import {module}"
    ours = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; assert u.find_spec('common')"], cwd=tmp_path
    )
    alone = subprocess.run(
        [sys.executable, "-c", line], cwd=tmp_path, env=alone_environment(), capture_output=True, text=True
    )
    assert ours.returncode == 0
    assert "ModuleNotFoundError" in alone.stderr


def test_common_stays_shut_out_with_the_repository_as_working_directory():
    done = subprocess.run(
        [sys.executable, "-c", "import common"], cwd=REPOSITORY, env=alone_environment(), capture_output=True, text=True
    )
    assert "No module named 'common'" in done.stderr


def test_each_command_fails_or_passes_by_itself(tmp_path):
    """The unpacked sources need `common` and fail even in the repository; what needs nothing of ours passes after.

    And what is hidden cannot be imported by that command, and can by the next.
    """
    (tmp_path / "fine.json").write_text(json.dumps({"run": ["$print('fine')"]}))
    (tmp_path / "ends.json").write_text(json.dumps({"run": ["$exit(3)"]}))
    (tmp_path / "needs.json").write_text(json.dumps({"run": ["$__import__('safetensors')"]}))
    run = ["run", "--logging_file", "False", "--config_file"]
    outcomes = run_alone(
        [
            Command(str(REPOSITORY), ["run", "--config_file", "bundles/eoir/configs/train.json", "--max_epochs", "1"]),
            Command(str(tmp_path), [*run, "fine.json", "--meta_file", "fine.json"]),
            Command(str(tmp_path), [*run, "ends.json", "--meta_file", "fine.json"]),
            Command(str(tmp_path), [*run, "missing.json"]),
            Command(str(tmp_path), [*run, "needs.json", "--meta_file", "fine.json"], ["safetensors"]),
            Command(str(tmp_path), [*run, "needs.json", "--meta_file", "fine.json"]),
        ]
    )
    assert "common" in outcomes[0]
    assert outcomes[1] is None
    assert "exited with 3" in outcomes[2]
    assert "missing.json" in outcomes[3]
    assert "No module named 'safetensors'" in outcomes[4]
    assert outcomes[5] is None


def test_what_was_not_asked_for_is_beside_it_and_what_that_needs_is_not():
    """SciPy needs numpy; MONAI's requirements ask for torch; a bundle's own package is never hidden."""
    beside = set(modules_beside(["scipy"]))
    assert {"torch", "monai", "nibabel", "numba", "typer"} <= beside
    assert not {"scipy", "numpy", "common", "eoir_bundle"} & beside
    assert not {"torch", "sympy", "numpy"} & set(modules_beside(["MONAI"]))
