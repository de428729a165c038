"""The golden vectors under tests/data/golden: deterministic weights and inputs, and what reference programs gave for
them. The recipe (hashed weights from shapes, analytic images) lets any framework rebuild the same network.
"""

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "data" / "golden"


@cache
def golden_network(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Facts and arrays (grid0, grid3, warped0) of one reference network."""
    facts = json.loads((FOLDER / "networks.json").read_text())
    with np.load(FOLDER / "networks.npz") as arrays:
        return facts["nets"][name], {key: arrays[f"{name}/{key}"] for key in ("grid0", "grid3", "warped0")}


def golden_pair(facts: dict) -> Tensor:
    """The (1, 2, *S) float32 input of a reference network: moving, fixed."""
    parameters = json.loads((FOLDER / "networks.json").read_text())["input_parameters"]
    p, q, c = parameters["p"], parameters["q"], parameters["c"]
    z, y, x = np.meshgrid(*[np.arange(n, dtype=np.float64) for n in facts["shape"]], indexing="ij")

    def image(z, y, x):
        wave = np.cos(p[3] * x + p[4] * z + p[5] * y + p[6])
        return 0.5 + 0.25 * np.sin(p[0] * z + p[1] * y + p[2]) + 0.25 * wave

    fixed = c[0] + c[1] * image(
        z + q[0] * np.sin(q[1] * y + q[2]), y + q[3] * np.cos(q[4] * x + q[5]), x + q[6] * np.sin(q[7] * z + q[8])
    )
    pair = np.stack([image(z, y, x), fixed]).astype(np.float32)
    np.testing.assert_allclose(
        pair.sum(axis=(1, 2, 3), dtype=np.float64), [facts["moving_sum"], facts["fixed_sum"]], rtol=1e-12
    )
    return torch.from_numpy(pair)[None]


def golden_values(shape: tuple[int, ...]) -> Tensor:
    """The parameter values that belong to a shape, float32."""
    if shape == (1,):
        return torch.tensor([0.25])
    i = np.arange(math.prod(shape), dtype=np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    a = (i * np.uint64(2654435761) + np.uint64(sum(shape) * 2246822519 + len(shape) * 3266489917)) & mask
    a = ((a ^ (a >> np.uint64(15))) * np.uint64(2246822519)) & mask
    a = ((a ^ (a >> np.uint64(13))) * np.uint64(3266489917)) & mask
    a = a ^ (a >> np.uint64(16))
    scale = 0.05 if len(shape) == 1 else 2.4 / math.sqrt(math.prod(shape[1:]))
    values = scale * (2 * a.astype(np.float64) / 2**32 - 1)
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


@torch.no_grad()
def fill(network: nn.Module, heads: list[tuple[nn.Module, float]]) -> nn.Module:
    """Give every parameter its golden values, scale the flow heads, and put the network into evaluation mode.

    Layer normalization keeps weight 1 and bias 0.
    """
    for parameter in network.parameters():
        parameter.copy_(golden_values(tuple(parameter.shape)))
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    for head, factor in heads:
        for parameter in head.parameters():
            parameter.mul_(factor)
    return network.eval()
