import nibabel as nib
import numpy as np
import pytest

from common.phantom import phantom_subject
from tools.monai_label.similar import likeness, most_similar

SIZE = (24, 24, 30)


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> dict:
    folder, paths = tmp_path_factory.mktemp("studies"), {}
    for seed in range(3):
        phantom = phantom_subject(seed, SIZE)
        paths[f"p{seed}"] = folder / f"p{seed}.nii.gz"
        nib.save(nib.Nifti1Image(phantom.image[0].numpy(), phantom.affine), paths[f"p{seed}"])
    return paths


def test_likeness_is_two_for_the_same_and_one_for_independent_arrays():
    image = np.random.default_rng(0).random((20, 20, 20))
    assert likeness(image, image) == pytest.approx(2)
    assert likeness(image, np.zeros_like(image)) == pytest.approx(1)


def test_likeness_does_not_depend_on_contrast():
    image = np.random.default_rng(0).random((20, 20, 20))
    assert likeness(image, 5 - 3 * image) == pytest.approx(2)


@pytest.mark.parametrize("orientation", ["LIA", "RAS", "PSR"])
def test_the_same_head_in_another_orientation_place_and_contrast_comes_first(studies, tmp_path, orientation):
    scan = nib.load(studies["p1"])
    padded = np.pad(500 - 0.5 * np.asarray(scan.dataobj), 4, constant_values=500)
    inverted = nib.Nifti1Image(500 - padded, scan.affine)  # darker by half, and the field of view is larger
    ornt = nib.orientations.ornt_transform(nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt(orientation))
    nib.save(inverted.as_reoriented(ornt), tmp_path / "scan.nii.gz")
    assert most_similar(tmp_path / "scan.nii.gz", studies)[0] == "p1"


def test_all_candidates_are_ranked_and_a_changed_file_is_read_again(studies, tmp_path):
    names = most_similar(studies["p0"], studies)
    assert names[0] == "p0" and sorted(names) == ["p0", "p1", "p2"]
    copy = tmp_path / "copy.nii.gz"
    candidates = {"copy": copy, "p1": studies["p1"]}
    copy.write_bytes(studies["p2"].read_bytes())
    assert most_similar(studies["p1"], candidates) == ["p1", "copy"]
    copy.write_bytes(studies["p0"].read_bytes())
    assert most_similar(studies["p0"], candidates) == ["copy", "p1"]
