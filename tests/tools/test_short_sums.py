"""Instance normalization by short sums: torch's own result, whatever the layer and wherever it stands."""

import pytest
import torch
from torch import nn

from tools.short_sums import ShortSumInstanceNorm, with_short_sums


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("layer", "size"), [(nn.InstanceNorm3d, (5, 6, 7)), (nn.InstanceNorm2d, (9, 4))])
def test_it_is_torchs_normalization(layer, size, affine):
    origin = layer(3, eps=1e-3, affine=affine).double()
    if affine:
        nn.init.normal_(origin.weight)
        nn.init.normal_(origin.bias)
    image = 5 + torch.rand(2, 3, *size, dtype=torch.float64)
    assert torch.allclose(ShortSumInstanceNorm(origin)(image), origin(image), rtol=0, atol=1e-12)


def test_every_layer_of_a_network_is_replaced_and_the_network_itself_is_not():
    inner = nn.Sequential(nn.Conv3d(2, 3, 1), nn.InstanceNorm3d(3))
    network = nn.Sequential(inner, nn.ModuleList([nn.InstanceNorm3d(3)])[0]).eval()
    image = torch.rand(1, 2, 4, 5, 6)
    changed = with_short_sums(network)
    assert torch.allclose(changed(image), network(image), atol=1e-5)
    assert [type(layer) for layer in changed.modules()].count(ShortSumInstanceNorm) == 2
    assert not any(isinstance(layer, nn.InstanceNorm3d) for layer in changed.modules())
    assert sum(isinstance(layer, nn.InstanceNorm3d) for layer in network.modules()) == 2


def test_running_statistics_are_refused():
    with pytest.raises(ValueError, match="running statistics"):
        ShortSumInstanceNorm(nn.InstanceNorm3d(2, track_running_stats=True))
