import itertools
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.tools.data.brain_labels import brain
from tools.data.label_orientation import ASEG, SEG35, Structures, label_orientation, reorient

DATA = os.environ.get("REGBUNDLES_TEST_DATA")
DIRECTIONS = {
    **{"R": (1, 0, 0), "A": (0, 1, 0), "S": (0, 0, 1)},
    **{"L": (-1, 0, 0), "P": (0, -1, 0), "I": (0, 0, -1)},
}
ALL_CODES = [
    "".join(codes) for axes in itertools.permutations(("LR", "PA", "IS")) for codes in itertools.product(*axes)
]


@pytest.mark.parametrize("structures", [ASEG, SEG35])
@pytest.mark.parametrize("codes", ALL_CODES)
def test_all_48_ways_to_lie_are_told_apart(structures, codes):
    assert label_orientation(brain(structures, codes=codes)[1], structures) == codes


@pytest.mark.parametrize("codes", ALL_CODES)
def test_reorienting_agrees_with_nibabel(codes):
    voxels = np.arange(24).reshape(2, 3, 4)
    affine = np.eye(4)
    affine[:3, :3] = np.array([DIRECTIONS[code] for code in codes]).T
    image = nib.Nifti1Image(voxels.astype(np.int16), affine)
    assert "".join(nib.aff2axcodes(affine)) == codes
    for target in ("LIA", "RAS"):
        turn = nib.orientations.ornt_transform(*(nib.orientations.axcodes2ornt(c) for c in (codes, target)))
        np.testing.assert_array_equal(reorient(voxels, codes, target), image.as_reoriented(turn).dataobj)


def test_a_missing_structure_tells_nothing():
    labels = brain(ASEG)[1]
    labels[labels == 16] = 0
    assert label_orientation(labels, ASEG) is None


@pytest.mark.skipif(not DATA, reason="REGBUNDLES_TEST_DATA names no folder of scans")
@pytest.mark.parametrize(
    ("pattern", "structures"),
    [
        ("malc/*_glm.nii.gz", Structures(left=(45,), right=(44,), brain_stem=(35,), cerebellum=(38, 39, 40, 41))),
        ("brain_pair/*_seg.nii.gz", ASEG),
    ],
)
def test_real_brains_are_read_as_their_headers_say(pattern, structures):
    paths = sorted(Path(DATA).glob(pattern))[:2]
    assert paths
    for path in paths:
        image = nib.load(path)
        assert label_orientation(np.asarray(image.dataobj), structures) == "".join(nib.aff2axcodes(image.affine))
