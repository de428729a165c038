import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import LoadImaged
from scipy.ndimage import gaussian_filter
from torch import nn

from common.errors import RegInputError
from common.fingerprint import fingerprint
from common.inference import AlignAffined, ExtractBraind, PairInferer
from tests.common.scan_pair import anatomy, grid
from tests.common.test_brain import phantom_head


@pytest.fixture(scope="module")
def shifted(tmp_path_factory) -> dict:
    """Two loaded scans of one texture whose headers lie 12 mm apart."""
    folder, size = tmp_path_factory.mktemp("shifted"), (40, 36, 32)
    affine = grid((5, 0, 10), (2.0, 2.0, 2.0), size)
    texture = gaussian_filter(np.random.default_rng(0).random(size), 2) * (anatomy(affine, size) > 0.02)
    item = {}
    for role, offset in (("fixed", 0.0), ("moving", 12.0)):
        placed = affine.copy()
        placed[0, 3] += offset
        item[role] = str(folder / f"{role}.nii.gz")
        nib.save(nib.Nifti1Image(texture.astype(np.float32), placed), item[role])
    return LoadImaged(["fixed", "moving"], ensure_channel_first=True)(item)


def test_alignment_by_content_recovers_a_shift(shifted):
    assert "initial" not in AlignAffined("none")(shifted)
    np.testing.assert_allclose(AlignAffined("rigid")(shifted)["initial"][:3, 3], [12, 0, 0], atol=0.5)


def test_a_mask_leaves_the_rest_out_of_the_alignment(shifted):
    """Half of the moving image is another one; without a mask over the other half the alignment follows neither."""
    moving = shifted["moving"].clone()
    moving[:, :, 18:] = moving[:, :, 18:].flip(1)
    mask = torch.ones_like(moving)
    mask[:, :, 18:] = 0
    found = AlignAffined("rigid")({**shifted, "moving": moving, "moving_mask": mask})["initial"]
    np.testing.assert_allclose(found[:3, 3], [12, 0, 0], atol=1.5)


def test_a_file_is_taken_as_it_is(shifted, tmp_path):
    matrix = np.eye(4)
    matrix[:3, 3] = (1, 2, 3)
    np.savetxt(tmp_path / "matrix.txt", matrix)
    np.testing.assert_allclose(AlignAffined(str(tmp_path / "matrix.txt"))(shifted)["initial"], matrix)


def test_an_unknown_alignment_is_a_missing_file():
    with pytest.raises(RegInputError, match="warp"):
        AlignAffined("warp")


class Answer(nn.Module):
    def forward(self, image):
        return image[:, :2] + 1


class Invertible(Answer):
    def with_inverse(self, image):
        return self(image), -self(image)


class NotNow(Answer):
    def with_inverse(self, image):
        return self(image), None


def test_the_inverse_comes_along_where_the_network_knows_it():
    image = torch.rand(1, 2, 4, 4)
    for network in (Answer(), NotNow()):
        assert torch.equal(PairInferer()(image, network), image + 1)
    found = PairInferer()(image, Invertible())
    assert torch.equal(found["ddf"], image + 1) and torch.equal(found["inverse"], -(image + 1))
    assert torch.equal(PairInferer(inverse=False)(image, Invertible()), image + 1)


def test_a_fingerprint_sees_the_settings_and_not_the_pairs_before():
    inferer = PairInferer(check_starts=1)
    inferer(torch.rand(1, 2, 8, 8), Answer())
    assert inferer.starts_seconds > 0
    assert fingerprint(inferer) == fingerprint(PairInferer(check_starts=1)) != fingerprint(PairInferer(check_starts=2))


def test_brains_of_raw_heads_are_cut_out(tmp_path):
    """The template itself as a scan, 10 mm away: its brain stays as it is, the scalp goes."""
    head, affine, brain = phantom_head()
    moved = affine.copy()
    moved[:3, 3] += 10
    paths = {name: str(tmp_path / f"{name}.nii.gz") for name in ("head", "brain", "scan")}
    for name, voxels, grid_ in (("head", head, affine), ("brain", brain, affine), ("scan", head, moved)):
        nib.save(nib.Nifti1Image(voxels.astype(np.float32), grid_), paths[name])
    item = LoadImaged("scan", ensure_channel_first=True)({"scan": paths["scan"]})
    assert ExtractBraind(keys=("scan",))(item) == item
    found = np.asarray(ExtractBraind(paths["head"], paths["brain"], ("scan",))(item)["scan"][0])
    inside, scalp = brain & (head > 0), ~brain & (head > 0)
    assert (found[inside] == head[inside]).mean() > 0.98 and (found[scalp] == 0).mean() > 0.98


def test_a_template_without_its_mask_is_refused():
    with pytest.raises(RegInputError, match="template_mask is None"):
        ExtractBraind("head.nii.gz")
