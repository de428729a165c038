"""What is this bundle's own; ``test_trained.py`` runs it as its users do."""

import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundles.pairwise import configs


@pytest.mark.parametrize(
    ("files", "settings", "parameters"),
    [
        (["train"], {}, 244_527),
        (["train"], {"variant": "base"}, 46_771_251),
        (["inference"], {"variant": "base"}, 46_771_251),
        (["train", "ixi"], {}, 46_771_251),
        (["train", "oasis"], {}, 108_343_907),
    ],
)
def test_variants_are_one_setting(files, settings, parameters):
    parser = ConfigParser()
    parser.read_config([str(configs("transmorph") / f"{name}.json") for name in files])
    parser.update(settings)
    with torch.device("meta"):
        network = parser.get_parsed_content("network_def")
    assert sum(p.numel() for p in network.parameters()) == parameters
