import os
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, ScaleIntensityRanged

from common.errors import RegInputError
from common.intensity import CheckHounsfieldd, ScaleMaskPercentilesd

DATA = os.environ.get("REGBUNDLES_TEST_DATA")


def chest() -> torch.Tensor:
    """(1, 20, 20, 20) in HU: a third of lung at -850, the rest soft tissue about 40."""
    image = 40 + 20 * torch.randn(1, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    image[:, :, :, :7] -= 890
    return image


def test_hounsfield_units_pass_unchanged():
    image = chest()
    assert CheckHounsfieldd(["fixed", "moving"], allow_missing_keys=True)({"fixed": image})["fixed"] is image


@pytest.mark.parametrize(
    "spoil",
    [
        lambda hu: hu + 1024,
        lambda hu: (hu + 1000) / 1500,
        lambda hu: ((hu + 1000) / 6).clamp(0, 255),
        lambda hu: (hu - hu.mean()) / hu.std(),
        lambda hu: hu - 1000,
        lambda hu: hu * torch.nan,
    ],
    ids=["offset", "unit range", "8 bit", "z-score", "too low", "nan"],
)
def test_what_is_not_in_hounsfield_units_is_refused(spoil):
    with pytest.raises(RegInputError, match=r"expected at least 5% and 1% as in CT in Hounsfield units"):
        CheckHounsfieldd("fixed")({"fixed": spoil(chest())})


def test_the_refusal_names_the_file():
    image = MetaTensor(chest() + 1024, meta={"filename_or_obj": "scan.nii.gz"})
    with pytest.raises(RegInputError, match=r"^scan\.nii\.gz has 0\.0% of its voxels below -500"):
        CheckHounsfieldd("fixed")({"fixed": image})


def test_percentiles_are_those_of_the_mask():
    image = torch.arange(1000.0).reshape(1, 10, 10, 10)
    mask = (image >= 200) & (image <= 400)
    found = ScaleMaskPercentilesd("fixed", 0, 100)({"fixed": image, "fixed_mask": mask.to(torch.uint8)})["fixed"]
    torch.testing.assert_close(found, ((image - 200) / 200).clamp(0, 1))


def test_each_image_has_its_own_scale_and_one_without_a_mask_counts_whole():
    images = {"fixed": torch.linspace(0, 1, 101)[None], "moving": torch.linspace(-5, 5, 101)[None]}
    found = ScaleMaskPercentilesd(["fixed", "moving"], 10, 90)(images | {"moving_mask": "mask.nii.gz"})
    torch.testing.assert_close(found["fixed"], found["moving"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found["fixed"], ((images["fixed"] - 0.1) / 0.8).clamp(0, 1), atol=1e-5, rtol=0)


def test_what_lies_outside_the_mask_does_not_change_the_scale():
    image, mask = torch.rand(1, 8, 8, 8), torch.zeros(1, 8, 8, 8)
    mask[:, 2:6, 2:6, 2:6] = 1
    spoilt = torch.where(mask > 0, image, 1e6)
    scale = ScaleMaskPercentilesd("fixed")
    found = [scale({"fixed": i, "fixed_mask": mask})["fixed"] for i in (image, spoilt)]
    assert torch.equal(found[0][mask > 0], found[1][mask > 0]) and (found[1][mask == 0] == 1).all()


def test_the_geometry_stays():
    image = MetaTensor(torch.rand(1, 4, 4, 4), affine=2 * torch.eye(4))
    assert torch.equal(ScaleMaskPercentilesd("fixed")({"fixed": image})["fixed"].affine, image.affine)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"fixed_mask": torch.ones(1, 4, 5)}, "mask on the image's grid"),
        ({"fixed_mask": torch.zeros(1, 4, 4)}, "no voxel above 0"),
        ({"fixed": torch.ones(1, 4, 4)}, "expected an image with contrast"),
    ],
)
def test_what_cannot_be_scaled_is_refused(item, message):
    with pytest.raises(RegInputError, match=message):
        ScaleMaskPercentilesd("fixed")({"fixed": torch.rand(1, 4, 4)} | item)


@pytest.mark.parametrize("percentiles", [(5, 5), (-1, 50), (50, 101)])
def test_percentiles_out_of_order_are_refused(percentiles):
    with pytest.raises(RegInputError, match="expected 0 <= lower"):
        ScaleMaskPercentilesd("fixed", *percentiles)


@pytest.mark.skipif(not DATA, reason="REGBUNDLES_TEST_DATA names no folder of scans")
@pytest.mark.parametrize("name", ["baseline", "followup"])
def test_a_real_chest_scan_is_windowed(name):
    folder = Path(DATA, "lung_ct")
    keys = {"fixed": folder / f"{name}.mha", "fixed_mask": folder / f"{name}_mask.mha"}
    window = ScaleIntensityRanged("fixed", a_min=-1000, a_max=500, b_min=0, b_max=1, clip=True)
    item = Compose([LoadImaged(list(keys), ensure_channel_first=True), CheckHounsfieldd("fixed"), window])(keys)
    lung, rest = (np.median(item["fixed"][where]) for where in (item["fixed_mask"] > 0, item["fixed_mask"] == 0))
    assert 0 < lung < 0.2 < 0.5 < rest < 0.8
    with pytest.raises(RegInputError, match="Hounsfield"):
        CheckHounsfieldd("fixed")(item)
