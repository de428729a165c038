"""The benchmarks' networks are the published ones, built by their bundles' own configurations."""

import pytest
import torch

from common.errors import RegInputError
from tools.benchmark.epoch import synthetic_pair
from tools.benchmark.network_variants import FAST_LNCC, VARIANTS, check_request, training_parts, variants_named

PUBLISHED = {  # without LKU-Net's second head, which its release defines and never uses
    "VoxelMorph-1": 274_387,
    "VoxelMorph-1 diffeomorphic": 274_387,  # integrating has none
    "VoxelMorph-2": 301_411,
    "LKU-Net 8,5": 2_086_342,
    "LKU-Net 16,5": 8_339_702,
    "TransMorph": 46_771_251,
    "SYMNet": 862_351,
    "EOIR 8": 111_208,
    "EOIR 32": 909_232,
    "Patch FCN small": 3 * 1_089_823,  # its paper publishes none: counted by hand, layer by layer
    "Patch FCN small, gradient norm": 3 * 1_089_823,
    "Patch FCN small, whole volume": 3 * 1_089_823,
    "Patch FCN light": 3 * 1_089_823,
    "Patch FCN": 3 * 4_290_351,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_its_published_number_of_parameters(name):
    network = training_parts(name, "cpu").network
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED[name]


def test_a_step_lowers_the_loss_of_its_pair_and_takes_the_backend_asked_for():
    torch.manual_seed(0)
    parts = training_parts("VoxelMorph-1", "cpu", lncc_backend="five_conv", kernel_size=5)
    assert parts.loss.backend == "five_conv"
    pair = synthetic_pair((16, 16, 32), "cpu")
    losses = [float(parts.step(pair)) for _ in range(4)]
    assert losses[-1] < losses[0]


def test_names_hold_commas_and_are_parted_by_semicolons():
    assert variants_named("LKU-Net 8,5; TransMorph", FAST_LNCC) == ("LKU-Net 8,5", "TransMorph")
    assert variants_named(None, FAST_LNCC) == FAST_LNCC


@pytest.mark.parametrize(("networks", "runs", "device"), [(["VGG"], 1, "cpu"), (FAST_LNCC, 0, "cpu"), ([], 1, "tpu")])
def test_a_wrong_request_is_refused(networks, runs, device):
    with pytest.raises(RegInputError, match="expected"):
        check_request(networks, runs, device)
