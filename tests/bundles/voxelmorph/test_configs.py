"""What is this bundle's own; ``test_trained.py`` runs it as its users do."""

import pytest
from monai.bundle import ConfigParser

from tests.bundles.pairwise import configs


@pytest.mark.parametrize("config", ["train", "inference"])
@pytest.mark.parametrize(
    ("overlays", "parameters", "steps"),
    [([], 274_387, 0), (["vxm2"], 301_411, 0), (["vxm2", "diffeomorphic"], 301_411, 7)],
)
def test_variants_are_overlays_for_training_and_inference_alike(config, overlays, parameters, steps):
    parser = ConfigParser()
    parser.read_config([str(configs("voxelmorph") / f"{name}.json") for name in (config, *overlays)])
    network = parser.get_parsed_content("network_def")
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network.integrate_steps == steps and network.half_resolution == (steps > 0)
