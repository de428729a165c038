"""A scan of thick slices and one of cubes, in other orientations, with a known deformation between them."""

import pytest

from tools.benchmark.thick_phantom import deformed_pair, errors_mm, write_cubes, write_thick
from tools.register import register


@pytest.fixture(scope="module")
def scans():
    return deformed_pair()


@pytest.mark.slow
@pytest.mark.parametrize("thick", ["fixed", "moving"])
def test_a_known_deformation_is_found_to_less_than_a_millimeter(scans, tmp_path, thick):
    writers = {"fixed": (write_thick, write_cubes), "moving": (write_cubes, write_thick)}[thick]
    paths = {
        role: str(write(scan, tmp_path / f"{role}.nii.gz"))
        for role, write, scan in zip(("fixed", "moving"), writers, scans, strict=True)
    }
    ids = {**paths, "affine": "auto", "picture": False, "report": False, "inverse": False}
    register("svf", tmp_path / "out", ids, quiet=True)
    before, after = errors_mm(scans[0], tmp_path / "out" / "displacement.nii.gz")
    assert before > 4 and after < 1
