"""The benchmarked networks are compared on equal terms: their bundles' configurations differ in the network alone."""

import json
from pathlib import Path

import pytest

from tests.bundles.trained import ids
from tools.benchmark.accuracy import Method, Terms, training_of
from tools.benchmark.network_variants import FAST_LNCC, VARIANTS

BUNDLES = Path(__file__).parents[2] / "bundles"
COMPARED = sorted({VARIANTS[name].bundle for name in FAST_LNCC})
REFERENCE = "voxelmorph"
OWN = ("_desc_", "network_def")
PHANTOM = ("learning_rate", "steps_per_epoch", "batch_size")
"""How a bundle trains on the phantom by default: as long as a newcomer waits. Benchmarks set these for all alike."""


def read(bundle: str, name: str) -> dict[str, object]:
    """Every value of a configuration by id, the bundle's own name blanked."""
    text = (BUNDLES / bundle / "configs" / f"{name}.json").read_text()
    return ids(json.loads(text.replace(f"bundles/{bundle}", "bundles/NAME").replace(f"{bundle}_bundle", "NAME_bundle")))


def architecture(config: dict[str, object]) -> set[str]:
    """The settings that ``network_def`` reads: they make the network, and may differ with it."""
    return {str(v)[1:] for k, v in config.items() if k.startswith("network_def::") and str(v).startswith("@")}


@pytest.mark.parametrize("bundle", [name for name in COMPARED if name != REFERENCE])
@pytest.mark.parametrize("name", ["train", "evaluate", "inference", "multi_gpu_train"])
def test_only_the_network_differs(bundle, name):
    mine, theirs = read(bundle, name), read(REFERENCE, name)
    free = architecture(mine) | architecture(theirs)

    def compared(config: dict[str, object]) -> dict[str, object]:
        own = {*OWN, *PHANTOM, *free}
        return {k: v for k, v in config.items() if k.partition("::")[0] not in own}

    assert compared(mine) == compared(theirs)


@pytest.mark.parametrize("name", FAST_LNCC)
def test_a_variant_of_the_benchmark_sets_nothing_but_its_network(name):
    variant = VARIANTS[name]
    assert set(variant.settings) <= architecture(read(variant.bundle, "train"))


@pytest.mark.parametrize("bundle", COMPARED)
def test_accuracy_trains_all_on_the_same_terms(bundle, dataset, tmp_path):
    method = next(Method(name, None) for name in FAST_LNCC if VARIANTS[name].bundle == bundle)
    parser = training_of(method, Terms(str(dataset), learning_rate=0.0004), str(tmp_path)).parser
    assert [parser.get_parsed_content(name) for name in ("learning_rate", "batch_size")] == [0.0004, 1]
