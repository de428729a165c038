import os
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, ScaleIntensityRanged, ScaleIntensityRangePercentilesd

from common.errors import RegInputError
from common.intensity import CheckHounsfieldd, NormalizeIntensityd, modality_of, similarity_for
from common.phantom import phantom_subject
from common.volumes import VolumeReader, open_volume, read_voxels

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
    found = NormalizeIntensityd("fixed", "mr", (0, 100), masks=True)(
        {"fixed": image, "fixed_mask": mask.to(torch.uint8)}
    )["fixed"]
    torch.testing.assert_close(found, ((image - 200) / 200).clamp(0, 1))


def test_each_image_has_its_own_scale_and_one_without_a_mask_counts_whole():
    images = {"fixed": torch.linspace(0, 1, 101)[None], "moving": torch.linspace(-5, 5, 101)[None]}
    found = NormalizeIntensityd(["fixed", "moving"], "mr", (10, 90), masks=True)(
        images | {"moving_mask": "mask.nii.gz"}
    )
    torch.testing.assert_close(found["fixed"], found["moving"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found["fixed"], ((images["fixed"] - 0.1) / 0.8).clamp(0, 1), atol=1e-5, rtol=0)


def test_what_lies_outside_the_mask_does_not_change_the_scale():
    image, mask = torch.rand(1, 8, 8, 8), torch.zeros(1, 8, 8, 8)
    mask[:, 2:6, 2:6, 2:6] = 1
    spoilt = torch.where(mask > 0, image, 1e6)
    scale = NormalizeIntensityd("fixed", "mr", (0.5, 99.5), masks=True)
    found = [scale({"fixed": i, "fixed_mask": mask})["fixed"] for i in (image, spoilt)]
    assert torch.equal(found[0][mask > 0], found[1][mask > 0]) and (found[1][mask == 0] == 1).all()


def test_the_geometry_stays():
    image = MetaTensor(torch.rand(1, 4, 4, 4), affine=2 * torch.eye(4))
    assert torch.equal(NormalizeIntensityd("fixed")({"fixed": image})["fixed"].affine, image.affine)


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
        NormalizeIntensityd("fixed", masks=True)({"fixed": torch.rand(1, 4, 4)} | item)


@pytest.mark.parametrize("percentiles", [(5, 5), (-1, 50), (50, 101)])
def test_percentiles_out_of_order_are_refused(percentiles):
    with pytest.raises(RegInputError, match="expected 0 <= lower"):
        NormalizeIntensityd("fixed", percentiles=percentiles)


def test_mr_is_scaled_as_monai_scales_it_bit_for_bit():
    image = phantom_subject(0, (24, 24, 24)).image
    found = NormalizeIntensityd("fixed")({"fixed": image, "fixed_mask": torch.zeros(1, 24, 24, 24)})
    monais = ScaleIntensityRangePercentilesd("fixed", 0, 99.9, 0, 1, clip=True)({"fixed": image})["fixed"]
    assert found["fixed_modality"] == "mr"
    assert torch.equal(found["fixed"], monais)


@pytest.mark.parametrize(
    "change", [lambda hu: hu, lambda hu: torch.where(torch.arange(20) < 3, -2000, hu), lambda hu: hu + 1024]
)
def test_ct_is_windowed_whatever_pads_it_and_with_or_without_an_offset(change):
    image = chest()
    modality = "ct" if change(image).min() >= 0 else "auto"
    found = NormalizeIntensityd("fixed", modality)({"fixed": change(image)})
    expected = ((image + 1000) / 2000).clamp(0, 1)
    same = change(image) > -1500
    torch.testing.assert_close(found["fixed"][same], expected[same])
    assert found["fixed_modality"] == "ct" and (found["fixed"][~same] == 0).all()


def abdomen() -> np.ndarray:
    """Inside the body: organs about 50 HU and a tenth of fat, no air."""
    image = np.random.default_rng(0).normal(50, 25, (20, 20, 20))
    image[:2] -= 150
    return image


@pytest.mark.parametrize(
    ("image", "modality"),
    [
        (chest().numpy(), "ct"),
        (np.where(np.arange(20) < 9, -3024, chest().numpy()), "ct"),
        (abdomen(), "ct"),
        (np.append(abdomen(), 30000), "ct"),
        (chest().numpy() + 1024, "mr"),
        (phantom_subject(1, (24, 24, 24)).image.numpy(), "mr"),
        (np.random.default_rng(0).normal(0, 1, 9000), "mr"),
        (np.random.default_rng(0).uniform(-4096, 4095, 9000), "mr"),
        (np.random.default_rng(0).uniform(-1000, 0, 9000), "mr"),
        (chest().numpy() * 1000, "mr"),
    ],
    ids=[
        "chest",
        "padded",
        "abdomen",
        "metal",
        "offset",
        "brain",
        "standardized",
        "phase",
        "negative",
        "other scale",
    ],
)
def test_the_modality_is_told_by_the_values(image, modality):
    assert modality_of(image) == modality


def test_the_log_says_what_was_taken_in_one_line_an_image(caplog):
    images = {"fixed": MetaTensor(chest(), meta={"filename_or_obj": "ct.mha"}), "moving": torch.rand(1, 9, 9, 9)}
    with caplog.at_level("INFO", "common.intensity"):
        found = NormalizeIntensityd(["fixed", "moving"])(images)
    assert caplog.messages[0] == "ct.mha is taken for ct: -1000 to 1000 become 0 to 1."
    assert len(caplog.messages) == 2 and "taken for mr" in caplog.messages[1]
    assert similarity_for([found["fixed_modality"], found["moving_modality"]]) == "mind"


@pytest.mark.parametrize(
    ("modalities", "name"), [(("mr", "mr"), "lncc"), (("ct", "ct"), "lncc"), (("mr", "ct"), "mind")]
)
def test_one_modality_is_compared_by_lncc_and_two_by_mind(modalities, name):
    assert similarity_for(modalities) == name


def test_an_unknown_modality_is_refused():
    with pytest.raises(RegInputError, match="expected auto, mr or ct"):
        NormalizeIntensityd("fixed", "pet")


@pytest.mark.skipif(not DATA, reason="REGBUNDLES_TEST_DATA names no folder of scans")
@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("lung_ct/baseline.mha", "ct"),
        ("lung_ct/followup.mha", "ct"),
        ("malc/1000_SS.nii.gz", "mr"),
        ("liver_mr/dataset19_exhMaster_unmasked.force_direction.mha", "mr"),
        ("liver_mr/dataset26_cyc_1_6.force_direction.mha", "mr"),
        ("hippocampus_mr/images_001.nii.gz", "mr"),
    ],
)
def test_the_modality_of_real_scans_is_told(name, modality):
    assert modality_of(read_voxels(open_volume(Path(DATA, name)))) == modality


@pytest.mark.skipif(not DATA, reason="REGBUNDLES_TEST_DATA names no folder of scans")
@pytest.mark.parametrize("name", ["baseline", "followup"])
def test_a_real_chest_scan_is_windowed(name):
    folder = Path(DATA, "lung_ct")
    keys = {"fixed": folder / f"{name}.mha", "fixed_mask": folder / f"{name}_mask.mha"}
    window = ScaleIntensityRanged("fixed", a_min=-1000, a_max=500, b_min=0, b_max=1, clip=True)
    item = Compose(
        [LoadImaged(list(keys), VolumeReader(), ensure_channel_first=True), CheckHounsfieldd("fixed"), window]
    )(keys)
    lung, rest = (np.median(item["fixed"][where]) for where in (item["fixed_mask"] > 0, item["fixed_mask"] == 0))
    assert 0 < lung < 0.2 < 0.5 < rest < 0.8
    with pytest.raises(RegInputError, match="Hounsfield"):
        CheckHounsfieldd("fixed")(item)
