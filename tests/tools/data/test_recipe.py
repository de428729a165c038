import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, voxel_sizes

from tools.data.brain import Grid
from tools.data.recipe import Recipe, recipe_findings, working_grid

from .own_scans import GRID, SIZE, brain, write

OWN = Grid(SIZE, GRID)
OTHER = Recipe("other")


def middle(grid):
    return apply_affine(grid.affine, (np.array(grid.size) - 1) / 2)


def test_nothing_asked_for_keeps_the_grid():
    assert working_grid(OWN, OTHER) is OWN


def test_orientation_and_spacing_cover_the_same_field_of_view():
    grid = working_grid(OWN, OTHER._replace(orientation="LIA", spacing=(3.0, 4.0, 6.0)))
    assert nib.aff2axcodes(grid.affine) == ("L", "I", "A") and grid.size == (48, 39, 28)
    np.testing.assert_allclose(voxel_sizes(grid.affine), (3, 4, 6))
    np.testing.assert_allclose(middle(grid), middle(OWN))


def test_an_orientation_alone_takes_the_spacing_along():
    own = Grid((4, 5, 6), np.diag([1.0, 2, 3, 1]))
    grid = working_grid(own, OTHER._replace(orientation="SLP"))
    assert grid.size == (6, 4, 5)
    np.testing.assert_allclose(voxel_sizes(grid.affine), (3, 1, 2))


def test_a_size_keeps_the_middle():
    grid = working_grid(OWN, OTHER._replace(size=(10, 40, 26)))
    assert grid.size == (10, 40, 26)
    np.testing.assert_allclose(middle(grid), middle(OWN))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"anatomy": "liver"}, "expected brain, other"),
        ({"modality": "pet"}, "expected auto, mr, ct"),
        ({"align": "bspline"}, "expected header, rigid, affine"),
        ({"points_space": "lps"}, "expected LPS, RAS, voxel"),
        ({"orientation": "LAL"}, "three axis codes"),
        ({"orientation": "XYZ"}, "three axis codes"),
        ({"spacing": (1.0, 0.0, 1.0)}, "above 0 in mm"),
        ({"size": (1, 5, 5)}, "three numbers of voxels"),
        ({"window": (5.0, 5.0)}, "the lower one first"),
        ({"template_head": "x"}, "expected both or none"),
        ({"whole_head": True}, "anatomy other"),
        ({"anatomy": "brain", "whole_head": True, "template_head": "x", "template_mask": "y"}, "expected one of"),
    ],
)
def test_options_that_mean_nothing_are_refused(change, words):
    assert any(words in sentence for sentence in recipe_findings(OTHER._replace(**change)))


def test_a_template_of_brains_is_stripped_and_one_of_heads_is_not(tmp_path):
    (image, labels), (head, _) = brain(), brain(head=True)
    stripped, whole = write(image, tmp_path / "brain.nii.gz"), write(head, tmp_path / "head.nii.gz")
    mask = write((labels > 0).astype(np.uint8), tmp_path / "mask.nii.gz")
    recipe = Recipe("brain", template_head=whole, template_mask=mask, template=stripped)
    assert recipe_findings(recipe) == []
    found = recipe_findings(recipe._replace(template=whole, template_head=stripped))
    assert len(found) == 2 and "not to be skull-stripped" in found[0] and "a head with its skull" in found[1]
    assert recipe_findings(Recipe("brain", whole_head=True, template=whole)) == []
