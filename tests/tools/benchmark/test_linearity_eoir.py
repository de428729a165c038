"""The measure on what is linear, symmetric or flat; the paper's square; a picture of an untrained network."""

import csv

import pytest
import torch

from common.checkpoint import save_checkpoint
from common.errors import RegInputError
from common.phantom import write_phantom
from tools.benchmark.eoir import Sweep
from tools.benchmark.linearity_eoir import linearity_eoir, load, local_linearity, parser_of, square


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_ramp_in_any_direction_is_linear(ndim):
    axes = torch.meshgrid(*[torch.arange(float(n)) for n in (9, 8, 7)[:ndim]], indexing="ij")
    ramp = sum(slope * axis for slope, axis in zip((0.3, -2.0, 1.1), axes, strict=False)) + 5
    found = local_linearity(ramp[None, None])
    assert found.shape == (1, *[n - 2 for n in ramp.shape])
    torch.testing.assert_close(found, torch.ones_like(found))


def test_a_flat_image_and_a_parabola_about_its_top_have_none():
    x = torch.arange(-2.0, 3.0)
    assert float(local_linearity(torch.full((1, 1, 5, 5), 3.7)).max()) == 0
    assert float(local_linearity((x[:, None] ** 2 + 0 * x)[None, None])[0, 1, 1]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("radius", [1, 2])
def test_it_is_the_r_squared_of_a_least_squares_fit(radius):
    features = torch.randn(1, 2, 7, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = local_linearity(features, radius)
    axis = torch.arange(-radius, radius + 1, dtype=torch.float64)
    offsets = torch.cartesian_prod(axis, axis, axis)
    design = torch.cat([torch.ones(len(offsets), 1), offsets], dim=1)
    expected = 0
    for values in features[0, :, : 2 * radius + 1, : 2 * radius + 1, : 2 * radius + 1].flatten(1):
        residual = values - design @ torch.linalg.lstsq(design, values[:, None]).solution[:, 0]
        expected += (1 - residual.square().sum() / (values - values.mean()).square().sum()) / 2
    assert float(found[0, 0, 0, 0]) == pytest.approx(float(expected), abs=1e-12)


def test_a_step_edge_explains_three_quarters():
    """Along the edge's normal 0, 0, 1: slope 1/2, explained 1/2 of a spread of 2/3."""
    step = (torch.arange(8.0) >= 4).double().view(8, 1).expand(8, 8)[None, None]
    heat = local_linearity(step)[0]
    assert heat[2:4].flatten().tolist() == pytest.approx([0.75] * 12) and float(heat[[0, 1, 4, 5]].max()) == 0


def test_blurring_the_square_makes_it_more_linear():
    """The paper's synthetic example, over the image and where there is contrast."""
    heats = [local_linearity(square(sigma)) for sigma in (0, 1, 3)]
    over_all = [float(heat.mean()) for heat in heats]
    on_contrast = [float(heat[heat > 0].mean()) for heat in heats]
    assert over_all == sorted(over_all) and on_contrast == sorted(on_contrast)
    assert over_all[0] < 0.06 < 0.5 < over_all[2] and on_contrast[0] < 0.75 < 0.9 < on_contrast[2]


def test_brightness_and_contrast_do_not_matter():
    image = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(local_linearity(image), local_linearity(1e4 - 3e-3 * image.double()))


def test_table_and_picture_agree(tmp_path):
    dataset = write_phantom(tmp_path / "d", subjects=2, size=(24, 24, 24), validation_pairs=1, testing_pairs=0).parent
    weights = tmp_path / "model.pt"
    network = parser_of(Sweep(str(dataset)), {"channels": 2}).get_parsed_content("network_def")
    torch.save(network.state_dict(), weights)
    table, picture = linearity_eoir(tmp_path, tmp_path, weights, str(dataset), channels=2, command="command")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["representation"], row["channels"]) for row in rows[:3]] == [
        ("intensities", "1"),
        ("untrained", "2"),
        ("trained", "2"),
    ]
    assert len(rows) == 6 and all(0 < float(row["mean_linearity"]) < 1 for row in rows)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_weights_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(RegInputError, match="is missing"):
        load(torch.nn.Linear(1, 1), tmp_path / "no.pt")
    torch.save({}, tmp_path / "other.pt")
    with pytest.raises(RegInputError, match="does not fit the network"):
        load(torch.nn.Linear(1, 1), tmp_path / "other.pt")


def test_weights_with_one_bit_turned_are_refused(tmp_path):
    path, network = tmp_path / "model.pt", torch.nn.Linear(50, 50)
    save_checkpoint(network.state_dict(), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RegInputError, match="damaged"):
        load(network, path)
