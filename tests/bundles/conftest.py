"""What the tests of several bundles read."""

from pathlib import Path

import pytest

from common.phantom import write_phantom


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """Phantoms of 32 voxels a side, read only: one pair to validate, two to test."""
    folder = tmp_path_factory.mktemp("phantom")
    return write_phantom(folder, subjects=2, size=(32, 32, 32), validation_pairs=1, testing_pairs=2).parent
