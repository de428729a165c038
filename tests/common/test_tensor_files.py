import random
import sys

import pytest
import torch
from torch import nn

from common.errors import RegEnvError, RegInputError
from common.tensor_files import from_safetensors, to_safetensors

safetensors = pytest.importorskip("safetensors.torch")


def weights() -> dict[str, torch.Tensor]:
    """Every kind that a network's state has: strided otherwise, shared, halves, counters, a scalar, nothing."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 2, 3, 3, 3, generator=generator)
    return {
        "down.weight": weight.to(memory_format=torch.channels_last_3d),
        "up.weight": weight,
        "tied": weight,
        "turned": torch.randn(5, 7, generator=generator).T,
        "half": torch.randn(9, generator=generator).to(torch.bfloat16),
        "steps": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "odd": torch.tensor([-0.0, 1e-45, torch.inf, torch.nan]),
    }


def equal_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    bits = [tensor.contiguous().flatten().view(torch.uint8) for tensor in (first, second)]
    return (first.dtype, first.shape) == (second.dtype, second.shape) and bits[0].equal(bits[1])


def test_every_bit_comes_back(tmp_path):
    there = weights()
    back = from_safetensors(to_safetensors(there), tmp_path)
    assert back.keys() == there.keys() and all(equal_bits(back[name], value) for name, value in there.items())


def test_the_library_alone_reads_the_same(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(to_safetensors(weights()))
    alone = safetensors.load_file(tmp_path / "model.safetensors")
    assert all(equal_bits(alone[name], value) for name, value in weights().items())


def test_equal_weights_give_equal_bytes_whatever_their_order():
    turned = dict(reversed(weights().items()))
    assert {to_safetensors(weights()) for _ in range(20)} == {to_safetensors(turned)}


def test_what_another_program_wrote_is_read(tmp_path):
    network = nn.Linear(3, 2)
    back = from_safetensors(safetensors.save(network.state_dict()), tmp_path)
    assert back["weight"].equal(network.weight)


def test_every_flipped_bit_is_found_where_the_library_finds_none(tmp_path):
    data = to_safetensors({"weight": torch.arange(1000.0)})
    rng = random.Random(0)
    for _ in range(60):
        place = rng.randrange((len(data) - 4000) * 8, len(data) * 8)  # the values are at the end
        copy = bytearray(data)
        copy[place // 8] ^= 1 << place % 8
        with pytest.raises(RegInputError, match="damaged"):
            from_safetensors(bytes(copy), tmp_path)
        safetensors.load(bytes(copy))  # the library takes it


@pytest.mark.parametrize("content", ["nothing", "page", "cut", "bloated"])
def test_what_is_no_such_file_is_refused_in_one_sentence(content, tmp_path):
    data = to_safetensors({"weight": torch.ones(5)})
    bad = {"nothing": b"", "page": b"<html>not found</html>", "cut": data[:-1], "bloated": b"\xff" * 16}[content]
    with pytest.raises(RegInputError, match="is no safetensors file") as error:
        from_safetensors(bad, tmp_path / "model.safetensors")
    assert "\n" not in str(error.value)


def test_what_is_no_tensor_is_refused():
    with pytest.raises(RegInputError, match="'epoch' is of type int, expected tensors"):
        to_safetensors({"weight": torch.ones(1), "epoch": 3})


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(RegEnvError, match="safetensors is missing"):
        to_safetensors({"weight": torch.ones(1)})
