"""The benchmarked networks are compared on equal terms: their bundles differ in the network, and in what is listed."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.bundles.trained import ids
from tools.benchmark import accuracy
from tools.benchmark.accuracy import TRAINED, Method, Terms, training_of
from tools.benchmark.network_variants import FAST_LNCC, VARIANTS

BUNDLES = Path(__file__).parents[2] / "bundles"
COMPARED = sorted({VARIANTS[name].bundle for name in (*FAST_LNCC, *TRAINED)})
REFERENCE = "voxelmorph"
OWN = ("_desc_", "network_def")
PHANTOM = ("learning_rate", "steps_per_epoch", "batch_size")
"""How a bundle trains on the phantom by default: as long as a newcomer waits. Benchmarks set these for all alike."""
ALLOWED = {
    "lku_net": {},
    "transmorph": {},
    "eoir": {
        "its loss compares every level of the pyramid, each in windows of its own, and smooths by the L1 norm": (
            "kernel_size kernel_sizes lncc_backend loss similarity smooth_norm train::view::method"
        ),
        "the phantom by default is larger for the others; a benchmark names a data set": "dataset_dir::subjects",
    },
    "symnet": {
        "its loss is symmetric, and weighs orientation and magnitude too": "loss magnitude_weight orientation_weight",
    },
    "patch_fcn": {
        "its loss is LNCC with the paper's operator, in the paper's windows, and has no labels or landmarks": (
            "alphas dice_weight gradient kernel_size landmark_weight loss num_labels regularizer sigma similarity "
            "similarity_weight smooth_norm smooth_weight"
        ),
        "it is trained in stages on patches, a stage on the earlier ones' kept answers": (
            "cache_limit_mib max_epochs pairing patches patience stage_epochs train::dataset train::handlers "
            "train::prepare_batch train::trainer::prepare_batch train::view val_interval"
        ),
        "the optimizer is the paper's Adam, at one rate": "lr_decay_power lr_scheduler optimizer::amsgrad",
        "layers of stages that are not in use get no gradient": "train::trainer::network::find_unused_parameters",
    },
}
"""By bundle: why it differs from the reference in more than its network, and in which ids, with all below them."""
PATCHES = {"Patch FCN small": 2}
"""Where a batch is not the number of pairs that all have but a number of patches of them."""


def read(bundle: str, name: str) -> dict[str, object]:
    """Every value of a configuration by id, the bundle's own name blanked."""
    text = (BUNDLES / bundle / "configs" / f"{name}.json").read_text()
    return ids(json.loads(text.replace(f"bundles/{bundle}", "bundles/NAME").replace(f"{bundle}_bundle", "NAME_bundle")))


def architecture(config: dict[str, object]) -> set[str]:
    """The settings that ``network_def`` reads: they make the network, and may differ with it."""
    return {str(v)[1:] for k, v in config.items() if k.startswith("network_def::") and str(v).startswith("@")}


def differences(bundle: str, name: str) -> set[str]:
    """The ids in which a configuration is not the reference's, settings of the network left out."""
    mine, theirs = read(bundle, name), read(REFERENCE, name)
    own = {*OWN, *PHANTOM, *architecture(mine), *architecture(theirs)}
    missing = object()
    differing = {k for k in mine.keys() | theirs.keys() if mine.get(k, missing) != theirs.get(k, missing)}
    return {k for k in differing if k.partition("::")[0] not in own}


def lies_below(entry: str, parent: str) -> bool:
    """Whether an id is another one or belongs to it."""
    return f"{entry}::".startswith(f"{parent}::")


@pytest.mark.parametrize("bundle", [name for name in COMPARED if name != REFERENCE])
def test_only_the_network_and_what_is_listed_differ(bundle):
    found = set().union(*(differences(bundle, n) for n in ("train", "evaluate", "inference", "multi_gpu_train")))
    allowed = {entry for entries in ALLOWED[bundle].values() for entry in entries.split()}
    assert not {entry for entry in found if not any(lies_below(entry, parent) for parent in allowed)}
    assert not {parent for parent in allowed if not any(lies_below(entry, parent) for entry in found)}, "no longer so"


@pytest.mark.parametrize("name", FAST_LNCC)
def test_a_variant_of_the_benchmark_sets_nothing_but_its_network(name):
    variant = VARIANTS[name]
    assert set(variant.settings) <= architecture(read(variant.bundle, "train"))


@pytest.mark.parametrize("name", TRAINED)
def test_accuracy_trains_all_on_the_same_terms(name, dataset, tmp_path):
    terms = Terms(str(dataset), learning_rate=0.0007, batch_size=3, roi_size=(16, 24, 32), seed=5)
    parser = training_of(Method(name), terms, str(tmp_path)).parser
    named = ("learning_rate", "batch_size", "seed", "dataset_dir")
    assert [parser.get_parsed_content(key) for key in named] == [0.0007, PATCHES.get(name, 3), 5, str(dataset)]
    assert parser.get_parsed_content("optimizer").param_groups[0]["lr"] == 0.0007
    training, validation = (parser.get(f"{part}::preprocessing::transforms") for part in ("train", "validate"))
    assert training[-1]["_target_"] == "CenterSpatialCropd" and training[-1]["roi_size"] == [16, 24, 32]
    assert validation is None or training[-1] not in validation


def test_accuracy_trains_all_for_the_same_minutes(monkeypatch, tmp_path):
    seconds: list[float] = []
    engine = SimpleNamespace(add_event_handler=lambda *_: None, run=lambda: None, state=SimpleNamespace(iteration=1))
    parts = {"network_def": SimpleNamespace(parameters=list)}
    parser = SimpleNamespace(get_parsed_content=lambda name: parts.get(name, engine))
    monkeypatch.setattr(accuracy, "TimeLimit", seconds.append)
    monkeypatch.setattr(accuracy, "stage_lengths", lambda *_: {})
    monkeypatch.setattr(accuracy, "training_of", lambda *of, **how: SimpleNamespace(parser=parser))
    for name in TRAINED:
        accuracy.train(Method(name), Terms("", minutes=7.5), str(tmp_path))
    assert seconds == [450] * len(TRAINED)
