"""What is this bundle's own; ``test_trained.py`` runs it as its users do."""

import pytest
from monai.bundle import ConfigParser

from tests.bundles.pairwise import configs


@pytest.mark.parametrize(
    ("files", "channels", "steps"),
    [
        (["train"], 4, 0),
        (["inference"], 4, 0),
        (["train", "diffeomorphic"], 4, 7),
        (["inference", "diffeomorphic"], 4, 7),
        (["train", "ixi", "diffeomorphic"], 8, 7),
    ],
)
def test_variants_are_overlays(files, channels, steps):
    parser = ConfigParser()
    parser.read_config([str(configs("lku_net") / f"{name}.json") for name in files])
    network = parser.get_parsed_content("network_def")
    assert network.head[0].in_channels == 2 * channels and network.integrate_steps == steps


def test_published_schedules_train_with_plain_adam():
    for overlay in ("ixi", "oasis"):
        parser = ConfigParser()
        parser.read_config([str(configs("lku_net") / f"{name}.json") for name in ("train", overlay)])
        assert parser.get("optimizer")["amsgrad"] is False
