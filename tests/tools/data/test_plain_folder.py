import pytest

from common.errors import RegInputError
from tools.data.plain_folder import find_plain


def touch(root, *names):
    for name in names:
        (root / name).write_bytes(b"")
    return root


def test_what_belongs_together_has_one_name(tmp_path):
    touch(
        tmp_path,
        "a.nii.gz",
        "a_seg.nii.gz",
        "a_mask.mha",
        "a_landmarks.mrk.json",
        "b_img.mha",
        "b_Label.nrrd",
        "notes.txt",
    )
    scans = find_plain(tmp_path)
    assert [scan.name for scan in scans] == ["a", "b_img"]
    assert [{part: path.name for part, path in scan.files.items()} for scan in scans] == [
        {"image": "a.nii.gz", "label": "a_seg.nii.gz", "mask": "a_mask.mha", "landmarks": "a_landmarks.mrk.json"},
        {"image": "b_img.mha", "label": "b_Label.nrrd"},
    ]


def test_everything_that_does_not_fit_is_told(tmp_path):
    touch(tmp_path, "a.nii.gz", "a.mha", "b_seg.nii.gz", "c_points.vtk")
    with pytest.raises(RegInputError, match="3 findings") as error:
        find_plain(tmp_path)
    for text in ("would all be the image of a", "b_seg.nii.gz belongs to no image", "c_points.vtk belongs to no image"):
        assert text in str(error.value)


@pytest.mark.parametrize("folder", ["", "missing"])
def test_a_folder_without_images_is_refused(tmp_path, folder):
    touch(tmp_path, "notes.txt", ".hidden.nii.gz", "table.csv")
    with pytest.raises(RegInputError, match="holds no image"):
        find_plain(tmp_path / folder)
