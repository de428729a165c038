"""Weights are held against the hash that their bundle states, and against the network that they are for."""

import hashlib

import pytest
import torch
from torch import nn

from common.errors import RegInputError
from common.weights import check_published, fill, large_files

CONTENT = b"weights"
ENTRY = "large_files:\n- path: models/model.pt\n  url: https://example.org/model.pt\n"


def bundle(folder, text: str):
    """A bundle's folder with weights and a list of large files; the weights' path."""
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").write_bytes(CONTENT)
    (folder / "large_files.yml").write_text(text)
    return folder / "models" / "model.pt"


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256", "sha512"])
@pytest.mark.parametrize("named", [True, False])
def test_the_stated_hash_is_compared_whatever_its_kind(tmp_path, kind, named):
    digest = hashlib.new(kind, CONTENT).hexdigest().upper()
    path = bundle(tmp_path, f"{ENTRY}  hash_val: {digest}\n" + (f"  hash_type: {kind}\n" if named else ""))
    check_published(path)
    path.write_bytes(CONTENT + b".")
    with pytest.raises(RegInputError, match=rf"model\.pt has the {kind} .* states {digest.lower()}; fetch it again"):
        check_published(path)


@pytest.mark.parametrize("text", ["", "large_files: []", ENTRY, ENTRY.replace("model.pt", "other.pt", 1)])
def test_weights_that_no_hash_is_stated_for_pass(tmp_path, text):
    check_published(bundle(tmp_path, text))


@pytest.mark.parametrize("text", ["large_files: 3", "- a", "large_files: [a]", "a: [", "large_files: [{url: b}]"])
def test_a_list_that_is_none_is_refused_in_one_line(tmp_path, text):
    bundle(tmp_path, text)
    with pytest.raises(RegInputError, match="is no list of large files") as caught:
        large_files(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_hash_of_no_known_kind_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="has the hash_type 'crc32'"):
        check_published(bundle(tmp_path, f"{ENTRY}  hash_val: abc\n  hash_type: crc32\n"))


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda state: state | {"more": torch.ones(1)}, "lacks nothing and has besides more"),
        (lambda state: {"weight": state["weight"]}, "lacks bias and has besides nothing"),
        (lambda state: {f"module.{key}": value for key, value in state.items()}, "lacks weight, bias and has besides"),
        (lambda state: state | {"bias": torch.ones(3)}, r"other shapes: bias \(3,\) for \(2,\)"),
        (lambda state: state | {"bias": torch.tensor([1, torch.nan])}, "NaN or infinite values in bias"),
        (lambda state: state | {"bias": torch.tensor([1, -torch.inf])}, "NaN or infinite values in bias"),
        (lambda state: state | {"bias": 3}, "Dict, expected tensors by name"),
        (lambda state: list(state.values()), "a list, expected tensors by name"),
    ],
)
def test_what_is_not_the_network_s_is_told_and_nothing_is_filled(change, finding):
    network = nn.Linear(2, 2)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(RegInputError, match=finding) as caught:
        fill(network, change(nn.Linear(2, 2).state_dict()))
    assert "\n" not in str(caught.value)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_what_fits_is_filled():
    network, other = nn.BatchNorm3d(4), nn.BatchNorm3d(4)  # with a buffer of integers
    nn.init.normal_(other.weight)
    fill(network, other.state_dict())
    torch.testing.assert_close(network.weight, other.weight, rtol=0, atol=0)
