import pytest

from common.errors import RegInputError
from common.pairs import pairs_to_register
from common.phantom import write_phantom

PARTS = ("fixed_label", "moving_label", "fixed_mask", "moving_mask", "fixed_points", "moving_points")
NAMED = {"fixed": "f.nii", "moving": "m.nii", "name": "f__m"}


def test_named_files_win_over_a_data_set():
    assert pairs_to_register("unused", fixed="f.nii", moving="m.nii") == [NAMED]


@pytest.mark.parametrize("part", PARTS)
def test_what_belongs_to_an_image_comes_along_where_it_is_named(part):
    others = dict.fromkeys(set(PARTS) - {part})
    (pair,) = pairs_to_register(fixed="f.nii", moving="m.nii", **{part: "p"}, **others)
    assert pair == NAMED | {part: "p"}


def test_half_a_pair_and_parts_without_one_are_refused():
    with pytest.raises(RegInputError, match="moving is None"):
        pairs_to_register(fixed="f.nii")
    with pytest.raises(RegInputError, match="fixed_label is given without"):
        pairs_to_register("data", fixed_label="l.nii")


def test_a_data_set_gives_the_pairs_of_its_section(tmp_path):
    folder = write_phantom(tmp_path, subjects=2, size=(16, 16, 16), validation_pairs=1, testing_pairs=2).parent
    assert len(pairs_to_register(str(folder), "testing")) == 2
    (pair,) = pairs_to_register(str(folder), "validation")
    assert {"fixed", "moving", "fixed_label", "moving_label"} <= set(pair)
