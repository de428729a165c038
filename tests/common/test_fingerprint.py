"""What changes a fingerprint, and what must not."""

import inspect
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from eoir_bundle.network import EOIR
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, RandFlipd, ScaleIntensityRanged, ScaleIntensityRangePercentilesd
from ncf_bundle.network import NCF
from svf_bundle.network import SVF
from torch import nn

from common.errors import RegInputError
from common.fingerprint import file_fingerprint, fingerprint
from common.intensity import NormalizeIntensityd
from common.refine import RefinedNetwork
from common.transforms import ScaleForegroundPercentiled, StackPaird, ToNetworkGridd

EOIR_BASE = {"channels": 4, "levels": 2, "pyramid_factor": (2, 2, 1)}  # a factor where double_all_axes counts
EOIR_CHANGES = {
    "spatial_dims": {"spatial_dims": 2, "pyramid_factor": None},
    "channels": {"channels": 5},
    "encoder_depth": {"encoder_depth": 4},
    "levels": {"levels": 3},
    "estimator_radius": {"estimator_radius": 2},
    "integrate_steps": {"integrate_steps": 0},
    "large_kernel": {"large_kernel": True},
    "half_resolution": {"half_resolution": True},
    "pyramid_factor": {"pyramid_factor": (2, 1, 2)},
    "double_all_axes": {"double_all_axes": True},
}
SVF_BASE = {"similarity": "mind", "patience": 5, "smooth_weight": 0.1}
SVF_CHANGES = {
    "similarity": {"similarity": "mi"},
    "kernel_size": {"similarity": "lncc", "kernel_size": 7},
    "mind_radius": {"mind_radius": 1},
    "mind_dilation": {"mind_dilation": 2},
    "levels": {"levels": ((8, 8, 20), (4, 4, 21))},
    "learning_rate": {"learning_rate": 0.16},
    "momentum": {"momentum": 0.6},
    "force_sigma": {"force_sigma": 1.5},
    "velocity_sigma": {"velocity_sigma": 0.6},
    "divergence_weight": {"divergence_weight": 0.0},
    "smooth_weight": {"smooth_weight": 0.2},
    "patience": {"patience": 6},
    "tolerance": {"tolerance": 1e-3},
}
NCF_BASE = {"widths": (8, 8), "smooth_channels": 4, "activation": "siren", "iterations": 4, "patience": 5}
NCF_CHANGES = {
    "widths": {"widths": (8, 9)},
    "smooth_channels": {"smooth_channels": 5},
    "activation": {"activation": "relu"},
    "omega": {"omega": 20.0},
    "residual_smoothing": {"residual_smoothing": True},
    "iterations": {"iterations": 5},
    "half_resolution_steps": {"half_resolution_steps": 2},
    "learning_rate": {"learning_rate": 2e-3},
    "final_learning_rate": {"final_learning_rate": 1e-5},
    "mse_weight": {"mse_weight": 2.0},
    "ssim_weight": {"ssim_weight": 2.0},
    "occupancy_weight": {"occupancy_weight": 0.0},
    "ssim_window": {"ssim_window": "box"},
    "ssim_kernel_size": {"ssim_kernel_size": 9},
    "ssim_sigma": {"ssim_sigma": 1.0},
    "data_range": {"data_range": 2.0},
    "patience": {"patience": None},
    "tolerance": {"tolerance": 1e-3},
    "chunk": {"chunk": 64},
    "slab": {"slab": 64},
    "deterministic": {"deterministic": True},
    "seed": {"seed": 1},
}
NETWORKS = {
    EOIR: (EOIR_BASE, EOIR_CHANGES),
    SVF: (SVF_BASE, SVF_CHANGES),
    NCF: (NCF_BASE, NCF_CHANGES),
}
NETWORK_CASES = [
    pytest.param(c, b, ch, id=f"{c.__name__}-{n}") for c, (b, t) in NETWORKS.items() for n, ch in t.items()
]


def made(network, **settings):
    """A network of always the same random weights."""
    torch.manual_seed(0)
    return network(**settings)


@pytest.mark.parametrize("network, base, change", NETWORK_CASES)
def test_every_setting_of_a_network_counts(network, base, change):
    if change.keys() & {"kernel_size"}:  # of lncc alone: mind has none
        base = base | {"similarity": "lncc"}
    before = fingerprint(made(network, **base))
    assert fingerprint(made(network, **base)) == before
    assert fingerprint(made(network, **base | change)) != before


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_no_setting_of_a_network_is_forgotten_here(network):
    names = inspect.signature(network).parameters.keys() - {"progress"}
    assert names == NETWORKS[network][1].keys()


@pytest.mark.parametrize("network", [SVF, NCF], ids=lambda n: n.__name__)
def test_a_bar_does_not_count(network):
    assert fingerprint(network(progress=True)) == fingerprint(network(progress=False))


TRANSFORMS = [
    (LoadImaged, {"keys": ["fixed"]}, {"keys": ["moving"]}),
    (LoadImaged, {"keys": ["fixed"]}, {"ensure_channel_first": True}),
    (LoadImaged, {"keys": ["fixed"]}, {"dtype": np.float64}),
    (LoadImaged, {"keys": ["fixed"]}, {"reader": "NibabelReader"}),
    (ToNetworkGridd, {"orientation": None, "spacing_mm": None}, {"orientation": "LIA"}),
    (ToNetworkGridd, {"orientation": None, "spacing_mm": None}, {"spacing_mm": (1, 1, 1)}),
    (ToNetworkGridd, {"orientation": None, "spacing_mm": (1, 1, 2)}, {"spacing_mm": (1, 2, 1)}),
    (ToNetworkGridd, {"orientation": None, "spacing_mm": None}, {"margin_mm": 5.0}),
    (ToNetworkGridd, {"orientation": None, "spacing_mm": None}, {"keys": ("moving", "fixed")}),
    (ToNetworkGridd, {"orientation": None, "spacing_mm": None}, {"initial_key": "start"}),
    (StackPaird, {}, {"keys": ("fixed", "moving")}),
    (StackPaird, {}, {"name": "pair"}),
    (ScaleForegroundPercentiled, {"keys": "a"}, {"upper": 99.0}),
    (ScaleForegroundPercentiled, {"keys": "a"}, {"background": None}),
    (NormalizeIntensityd, {"keys": "a"}, {"percentiles": (1.0, 99.0)}),
    (NormalizeIntensityd, {"keys": "a"}, {"masks": True}),
    (ScaleIntensityRangePercentilesd, {"keys": "a", "lower": 0, "upper": 99, "b_min": 0, "b_max": 1}, {"clip": True}),
    (ScaleIntensityRangePercentilesd, {"keys": "a", "lower": 0, "upper": 99, "b_min": 0, "b_max": 1}, {"upper": 98}),
    (ScaleIntensityRanged, {"keys": "a", "a_min": -1000, "a_max": 500}, {"a_max": 600}),
]


@pytest.mark.parametrize(
    "transform, base, change", TRANSFORMS, ids=[f"{t.__name__}-{next(iter(c))}" for t, _, c in TRANSFORMS]
)
def test_every_setting_of_a_transform_counts(transform, base, change):
    before = fingerprint(Compose([StackPaird(), transform(**base)]))
    assert fingerprint(Compose([StackPaird(), transform(**base)])) == before
    assert fingerprint(Compose([StackPaird(), transform(**base | change)])) != before


def test_order_and_number_of_transforms_count():
    first, second = StackPaird(), ScaleForegroundPercentiled("fixed")
    chains = [[first, second], [second, first], [first], []]
    assert len({fingerprint(Compose(chain)) for chain in chains}) == 4


def test_a_random_state_does_not_count():
    flips = [Compose([RandFlipd("a", prob=0.5)]).set_random_state(seed) for seed in (0, 1)]
    assert fingerprint(flips[0]) == fingerprint(flips[1])
    assert fingerprint(flips[0]) != fingerprint(Compose([RandFlipd("a", prob=0.6)]).set_random_state(0))


@pytest.mark.parametrize(
    "network",
    [
        partial(SVF, levels=[(2, 2, 2)], progress=False),
        partial(NCF, widths=(4,), smooth_channels=2, iterations=2, ssim_kernel_size=5, progress=False),
        partial(EOIR, channels=2, levels=2),
        lambda: RefinedNetwork(EOIR(channels=2, levels=2), steps=1, progress=False),
    ],
    ids=["svf", "ncf", "eoir", "refined"],
)
def test_a_forward_pass_changes_nothing(network):
    network = network()
    before = fingerprint(network)
    with torch.inference_mode():
        network.eval()(torch.rand(1, 2, 9, 10, 11))
    assert fingerprint(network) == before


def test_one_changed_weight_counts():
    network = made(EOIR, channels=4, levels=2)
    before = fingerprint(network)
    with torch.no_grad():
        weight = network.estimators[1][-1].weight.view(-1)
        weight[-1] = torch.nextafter(weight[-1], torch.tensor(9.0))  # by one bit
    assert fingerprint(network) != before


def test_a_saved_buffer_counts_and_a_cache_does_not():
    module = nn.Module()
    module.register_buffer("mean", torch.zeros(2))
    module.register_buffer("grid", torch.zeros(2), persistent=False)
    before = fingerprint(module)
    module.grid += 1
    module._cache = torch.ones(3)
    assert fingerprint(module) == before
    module.mean += 1
    assert fingerprint(module) != before


def test_a_module_used_twice_is_not_one_used_once():
    layer = nn.ReLU()
    assert fingerprint(nn.Sequential(layer, layer)) != fingerprint(nn.Sequential(layer))


def test_devices_and_layout_in_memory_do_not_count():
    assert fingerprint([torch.device("cpu"), 1]) == fingerprint([torch.device("cuda"), 1])
    tensor = torch.arange(24.0).view(2, 3, 4)
    assert fingerprint(tensor) == fingerprint(tensor.permute(2, 1, 0).contiguous().permute(2, 1, 0))
    assert fingerprint(tensor) == fingerprint(nn.Parameter(tensor))
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert fingerprint(array) == fingerprint(np.asfortranarray(array)) == fingerprint(array.astype(">i2"))


def test_order_of_keys_does_not_count_and_order_of_items_does():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint(OrderedDict(b=2, a=1))
    assert fingerprint({"a": 1, "b": 2}) != fingerprint({"a": 2, "b": 1})
    assert fingerprint({0, 8}) == fingerprint({8, 0})  # one slot of the hash table: they keep the order they came in
    assert fingerprint([1, 2]) == fingerprint((1, 2)) != fingerprint((2, 1))


class Slotted:
    __slots__ = ("size",)

    def __init__(self, size):
        self.size = size


def closure(number):
    return lambda x: x + number


def test_different_values_differ():
    values = [
        None,
        True,
        False,
        0,
        1,
        -1,
        1.0,
        0.1,
        np.float32(0.1),
        float("nan"),
        1j,
        "",
        "1",
        b"1",
        Path("1"),
        [],
        {},
    ]
    values += [[1], [[1]], [1, [2]], [[1, 2]], [[1], 2], ["ab"], ["a", "b"], {"a": None}, {"a": {}}, {1}]
    values += [
        torch.zeros(2),
        torch.zeros(2, 1),
        torch.zeros(2, dtype=torch.float64),
        torch.zeros(2, dtype=torch.int32),
    ]
    values += [
        torch.zeros(2, dtype=torch.bfloat16),
        torch.tensor(1.0),
        torch.zeros(2, dtype=torch.bool),
        torch.zeros(0),
    ]
    values += [np.zeros(2), np.zeros((2, 1)), np.zeros(2, np.float32), np.array(["a", None], object), np.zeros(2)[:0]]
    values += [
        np.sin,
        np.float32,
        torch.float32,
        len,
        fingerprint,
        partial(max, 1),
        partial(max, 2),
        slice(1),
        slice(2),
    ]
    values += [
        closure(1),
        closure(2),
        lambda x: x,
        lambda x: x + 1,
        Slotted(1),
        Slotted(2),
        nn.ReLU,
        nn.ReLU(),
    ]
    values += [MetaTensor(torch.zeros(1, 2), affine=np.diag([k, 1, 1, 1])) for k in (1, 2)]
    values += [EOIR.encode, partial(closure, number=1), Slotted(1).__init__, Slotted(2).__init__]
    hashes = [fingerprint(value) for value in values]
    assert len(set(hashes)) == len(values)
    assert [fingerprint(value) for value in values] == hashes


def test_equal_values_agree():
    assert fingerprint(np.float64(0.5), np.int64(2), np.bool_(True)) == fingerprint(0.5, 2, True)
    assert fingerprint(Path("a/b")) == fingerprint(Path("a") / "b")
    assert fingerprint(closure(3)) == fingerprint(closure(3))
    assert fingerprint(Slotted([1])) == fingerprint(Slotted([1]))


def test_a_cycle_is_cut_where_it_closes():
    one, two = [1], [2]
    one.append(one)
    two.append(two)
    assert fingerprint(one) != fingerprint(two)
    module = nn.Module()
    module.owner = [module]
    assert fingerprint(module) == fingerprint(module)


def test_what_has_no_value_is_refused():
    with pytest.raises(RegInputError, match=r"a _thread.lock has no value .* leave it out\.$"):
        fingerprint({"lock": threading.Lock()})


PROGRAM = """
import numpy as np, torch
from eoir_bundle.network import EOIR
from monai.transforms import Compose, LoadImaged
from svf_bundle.network import SVF
from common.fingerprint import fingerprint
torch.manual_seed(3)
chain = Compose([LoadImaged(["fixed", "moving"])])
result = fingerprint(SVF(), EOIR(channels=2, levels=2), chain, {"b": 1, "a": {"x", "y", "z"}}, np.arange(3))
"""


def test_another_process_agrees():
    here = {}
    exec(PROGRAM, here)
    environment = {**os.environ, "PYTHONHASHSEED": "1"}  # another order of sets
    command = [sys.executable, "-c", f"{PROGRAM}\nprint(result)"]
    there = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert there.stdout.strip() == here["result"], there.stderr


def test_a_file_is_its_content(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"x" * 3_000_000)
    (tmp_path / "b.nii").write_bytes(b"x" * 3_000_000)
    assert file_fingerprint(tmp_path / "a.nii") == file_fingerprint(str(tmp_path / "b.nii"))
    (tmp_path / "b.nii").write_bytes(b"x" * 2_999_999 + b"y")
    assert file_fingerprint(tmp_path / "a.nii") != file_fingerprint(tmp_path / "b.nii")


def test_a_folder_is_its_files(tmp_path):
    for folder, names in (("a", "12"), ("b", "12"), ("c", "98")):
        (tmp_path / folder).mkdir()
        for name, content in zip(names, (b"one", b"two"), strict=True):
            (tmp_path / folder / name).write_bytes(content)
    (tmp_path / "b" / ".DS_Store").write_bytes(b"?")
    assert len({file_fingerprint(tmp_path / folder) for folder in "abc"}) == 1
    (tmp_path / "b" / "2").write_bytes(b"three")
    (tmp_path / "c" / "1").write_bytes(b"one")  # a slice twice
    assert len({file_fingerprint(tmp_path / folder) for folder in "abc"}) == 3


def test_series_of_one_folder_differ(tmp_path):
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "1").write_bytes(b"one")
    paths = [tmp_path / "ct", f"{tmp_path}/ct#1.2", f"{tmp_path}/ct#1.3"]
    assert len({file_fingerprint(path) for path in paths}) == 3


@pytest.mark.parametrize(
    "header, text, data",
    [
        ("a.mhd", "NDims = 3\nElementDataFile = a.raw\n", "a.raw"),
        ("a.nhdr", "NRRD0004\ntype: float\ndata file: other.raw.gz\n", "other.raw.gz"),
        ("a.hdr", "348", "a.img"),
        ("a.img", "voxels", "a.hdr"),
    ],
)
def test_voxels_in_a_second_file_count(tmp_path, header, text, data):
    (tmp_path / header).write_text(text)
    (tmp_path / data).write_bytes(b"1")
    before = file_fingerprint(tmp_path / header)
    (tmp_path / data).write_bytes(b"2")
    assert file_fingerprint(tmp_path / header) != before


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(RegInputError, match=r"none\.nii cannot be read \(No such file .*\); check the path\.$"):
        file_fingerprint(tmp_path / "none.nii")
    with pytest.raises(RegInputError, match=r"holds no file"):
        file_fingerprint(tmp_path)
