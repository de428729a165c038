import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from common.error_map import LEAST, LIMITS, PREDICTORS, error_limits, error_on, half_width, predictors
from common.outputs import SaveRegistrationd
from common.registration import Grid
from tests.common.scan_pair import write_pair
from tests.common.test_outputs import answered, registered

EVEN = (1.0, 1.0, 1.0)


def uniform(value: float, size=(12, 14, 10), channels: int = 3) -> Tensor:
    return torch.full((1, channels, *size), value)


def ramp(size=(12, 14, 10)) -> Tensor:
    """A pair whose intensities rise by a tenth a voxel along the first axis: the structure is the same everywhere."""
    image = 0.1 * torch.arange(float(size[0])).view(1, 1, -1, 1, 1).expand(1, 2, *size)
    return image.contiguous()


def raised(name: str, value: float) -> float:
    """A predictor's logarithm."""
    return math.log(value + LEAST[name])


def test_predictors_are_what_they_are_called():
    """Of a ramp, a displacement that grows by a fifth a voxel along one axis, and a spread of 3, 4 and 0 voxels."""
    image, ddf, spread = ramp(), uniform(0.0), uniform(0.0)
    ddf[:, 1] = 0.2 * torch.arange(14.0).view(1, -1, 1)
    spread[:, 0], spread[:, 1] = 3, 4
    found = predictors(image, ddf, spread, EVEN)
    assert tuple(found) == PREDICTORS
    for name, value in (("spread", 5.0), ("structure", 1.0), ("strain", 0.2)):
        torch.testing.assert_close(found[name], torch.full_like(found[name], raised(name, value)))
    assert found["length"][0, 0, 3, 5, 2] == pytest.approx(raised("length", 1.0))


def test_lengths_are_relative_to_the_voxel_and_components_to_its_sides():
    """A spread along voxels that are eight times as long counts as much more; cubes of any size are all alike."""
    spread = uniform(0.0)
    spread[:, 0] = 1.0
    flat = predictors(ramp(), uniform(1.0), spread, (8.0, 1.0, 1.0))["spread"]
    torch.testing.assert_close(flat, torch.full_like(flat, raised("spread", 4.0)))  # 8 mm, of voxels of 2 mm
    ddf = uniform(0.0)
    ddf[:, 0] = 0.2 * torch.arange(14.0).view(-1, 1)  # 1.6 mm more with every millimeter along the second axis
    sheared = predictors(ramp(), ddf, spread, (8.0, 1.0, 1.0))["strain"]
    torch.testing.assert_close(sheared, torch.full_like(sheared, raised("strain", 1.6)))
    small, large = (predictors(ramp(), uniform(1.0), spread, (s, s, s)) for s in (1.0, 3.0))
    for name in PREDICTORS:
        torch.testing.assert_close(small[name], large[name])


def test_the_length_is_the_product_of_powers_in_mm():
    exponents = dict.fromkeys(PREDICTORS, 0.0) | {"spread": 2.0, "constant": math.log(3.0)}
    spread = uniform(0.0)
    spread[:, 2] = 0.45
    found = half_width(ramp(), uniform(0.0), spread, (2.0, 2.0, 2.0), exponents)
    torch.testing.assert_close(found, torch.full_like(found, 3 * 0.5**2 * 2))


@pytest.mark.parametrize("size", [(20, 24), (12, 14, 10)], ids=["2-D", "3-D"])
def test_flat_images_and_answers_without_a_spread_have_finite_lengths(size):
    channels = len(size)
    found = half_width(torch.zeros(1, 2, *size), *[uniform(0.0, size, channels)] * 2, (1.0,) * channels)
    assert found.isfinite().all() and (found > 0).all()


def test_the_calibration_raises_the_length_where_starts_differ():
    few, many = (half_width(ramp(), uniform(0.5), uniform(value), EVEN) for value in (0.1, 1.0))
    assert (many > 1.5 * few).all()


def test_the_calibration_names_every_predictor_and_its_table():
    content = json.loads(LIMITS.read_text())
    assert content == error_limits()
    assert set(content["exponents"]) == {*PREDICTORS, "constant"} and content["share"] == 0.95
    assert (LIMITS.parents[1] / content["table"]).is_file()


def item_of(image: Tensor, ddf: Tensor, spread: Tensor, affine: np.ndarray) -> dict:
    return {"image": image[0], "pred": {"ddf": ddf[0], "spread": spread[0]}, "network_affine": affine}


def test_the_map_lies_on_the_fixed_grid():
    """The network's voxels are half as long as the fixed image's, and begin three of them later."""
    image, ddf, spread = torch.rand(1, 2, 16, 16, 16), uniform(0.3, (16,) * 3), torch.rand(1, 3, 16, 16, 16)
    affine, fixed = np.diag([1.0, 1, 1, 1]), np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = 6
    found = error_on(item_of(image, ddf, spread, affine), Grid((10, 10, 10), fixed))
    expected = half_width(image, ddf, spread, EVEN)
    torch.testing.assert_close(found[:, :, 3:, 3:, 3:], expected[:, :, ::2, ::2, ::2][:, :, :7, :7, :7])


def test_the_file_is_written_where_a_spread_is_known(tmp_path):
    pair = write_pair(tmp_path)
    item = answered(pair)
    item["pred"] = {"ddf": item["pred"], "spread": torch.rand(item["pred"].shape)}
    SaveRegistrationd(str(tmp_path / "out"), picture=False, report=False)(item)
    folder = tmp_path / "out" / "fixed__moving"
    fixed, error = nib.load(pair["fixed"]), nib.load(folder / "error.nii.gz")
    assert error.shape == fixed.shape and np.allclose(error.affine, fixed.affine, atol=1e-4)
    metrics = json.loads((folder / "metrics.json").read_text())
    bright = fixed.get_fdata() >= fixed.get_fdata().mean()
    assert metrics["error_limit_mm"] == pytest.approx(np.median(error.get_fdata()[bright]), rel=0.02)
    assert "error.nii.gz" in metrics["files"]
    plain = registered(pair, tmp_path / "plain", report=False)
    assert not (plain / "error.nii.gz").exists()
