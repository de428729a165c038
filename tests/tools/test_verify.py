import json
import shutil
import sys

import pytest
import torch

from common.errors import RegInputError
from tools.repository import REPOSITORY
from tools.verify import (
    CHECKS,
    WITHOUT_WEIGHTS,
    Case,
    check_alone,
    check_configs,
    check_files,
    check_initial,
    check_labels,
    check_metadata,
    check_net,
    check_onnx,
    check_packed,
    check_properties,
    check_strays,
    check_torchscript,
    check_untrained,
    check_weights,
    checks_of,
    finding_of,
    liven,
    verify,
    verify_all,
)

from .toy import METADATA, NETWORK, TRAIN, edit_json, write, write_toy


@pytest.fixture
def case(tmp_path):
    """A toy bundle with weights of its own, to be damaged."""
    folder = write_toy(tmp_path)
    torch.save({"weight": torch.full((1,), 3.0)}, folder / "models" / "model.pt")
    (tmp_path / "work").mkdir()
    return Case(folder, tmp_path / "work")


@pytest.fixture
def known_common(monkeypatch):
    """The toy's network imports a constant that the repository's ``common.spatial`` does not have."""
    monkeypatch.setattr("common.spatial.SCALE", 1, raising=False)


QUICK = [
    check_files,
    check_weights,
    check_metadata,
    check_untrained,
    check_labels,
    check_configs,
    check_properties("train"),
]
QUICK += [check_properties("inference"), check_net, check_torchscript]


@pytest.mark.parametrize("look", QUICK)
def test_a_sound_bundle_has_no_finding(case, known_common, look):
    assert finding_of(look, case) is None


@pytest.mark.slow  # 10 s of one core
def test_a_sound_bundle_equals_what_is_exported_as_onnx(case, known_common):
    assert finding_of(check_onnx, case) is None


@pytest.mark.slow
def test_an_onnx_file_that_computes_something_else_is_found(case, known_common):
    replace_network(case, "return self.weight", "return (2.0 if torch.compiler.is_exporting() else 1.0) * self.weight")
    assert "the exported network differs from torch by" in finding_of(check_onnx, case)


@pytest.mark.parametrize("file", ["LICENSE", "large_files.yml", "configs/evaluate.json", "docs/README.md"])
def test_a_missing_file_is_named(case, file):
    (case.folder / file).unlink()
    assert check_files(case) == f"missing: {file}"


def tensor_without(key):
    image = {k: v for k, v in METADATA["network_data_format"]["inputs"]["image"].items() if k != key}
    return {"network_data_format": METADATA["network_data_format"] | {"inputs": {"image": image}}}


def input_as(value):
    return {"network_data_format": METADATA["network_data_format"] | {"inputs": {"image": value}}}


INVALID = [
    ({"required_packages_version": ..., "optional_packages_version": {}}, "'required_packages_version' is a required"),
    ({"authors": ["a", "b"]}, "is not of type 'string'"),
    ({"supported_apps": ["monai-label"]}, "is not of type 'object'"),
    ({"references": "one"}, "is not of type 'array'"),
    ({"numpy_version": ...}, "'numpy_version' is a required"),
    ({"changelog": ...}, "'changelog' is a required"),
    ({"version": "0.10.0"}, "does not match"),
    ({"schema": "https://project-monai.github.io/schema/meta_schema_20220324.json"}, "does not match"),
    ({"network_data_format": {"inputs": {"image": 1}}}, "'outputs' is a required"),
    ({"other_data_format": {"inputs": {"image": 1}}}, "'outputs' is a required"),
    (tensor_without("value_range"), "'value_range' is a required"),
    (tensor_without("dtype"), "'dtype' is a required"),
    (tensor_without("spatial_shape"), "'spatial_shape' is a required"),
    (tensor_without("num_channels"), "'num_channels' is a required"),
    (input_as([1, 2]), "is not of type"),
]


@pytest.mark.parametrize(("changes", "finding"), INVALID)
def test_metadata_that_monai_or_the_zoo_would_refuse_are_found(case, changes, finding):
    """What MONAI's own schema of that date refused when it was tried, and what the zoo asks besides."""
    edit_json(case.folder / "configs" / "metadata.json", **changes)
    assert finding in finding_of(check_metadata, case)


@pytest.mark.parametrize(
    "changes",
    [{"supported_apps": {}}, {"references": ["one"]}, {"eval_metrics": {"dice": 1}}, input_as(1), input_as("a")],
)
def test_metadata_that_monai_takes_pass(case, changes):
    edit_json(case.folder / "configs" / "metadata.json", **changes)
    assert finding_of(check_metadata, case) is None


@pytest.mark.parametrize(
    ("names", "finding"),
    [
        (None, "has no"),
        ({"0": "background"}, "has no"),
        ({"1": "left", "2": "right"}, "has no"),
        ({"0": "background", "1": "left", "2": "left"}, "found ['left']"),
        ({"0": "background", "dx": "left"}, "found ['dx']"),
        ({"0": "background", "1": " "}, "found ['1']"),
    ],
)
def test_unusable_label_names_are_found(case, names, finding):
    formats = dict(METADATA["network_data_format"], post_processed_outputs={"pred": {"channel_def": names or {}}})
    edit_json(case.folder / "configs" / "metadata.json", network_data_format=formats)
    assert finding in check_labels(case)


def test_a_config_finding_names_file_and_place(case):
    edit_json(case.folder / "configs" / "evaluate.json", run=["$map(lambda x: x, [])"])
    assert check_configs(case).startswith("evaluate.json: run::0 has a lambda")


def test_a_lacking_property_is_named(case):
    train = {**TRAIN["train"]}
    train.pop("inferer")
    edit_json(case.folder / "configs" / "train.json", train=train)
    assert "Property 'train_inferer'" in finding_of(check_properties("train"), case)


def replace_network(case, old, new):
    assert old in NETWORK
    write(case.folder / "toy_bundle" / "network.py", NETWORK.replace(old, new))


def test_a_field_on_another_grid_is_found(case, known_common):
    replace_network(case, "repeat(1, 3, 1, 1, 1)", "repeat(1, 3, 1, 1, 2)")
    assert "pred has the size (4, 4, 8) for an image of (4, 4, 4)" in finding_of(check_net, case)


def test_the_least_size_of_the_metadata_is_tried_too(case, known_common):
    replace_network(case, "return self.weight", "assert image.shape[2] > 2, 'too small'\n        return self.weight")
    assert "too small" in finding_of(check_net, case)


def test_a_wrong_number_of_components_is_found(case, known_common):
    replace_network(case, "repeat(1, 3", "repeat(1, 2")
    assert "output channel number `2` doesn't match: `3`" in finding_of(check_net, case)


def test_an_exported_network_that_computes_something_else_is_found(case, known_common):
    replace_network(case, "return self.weight", "return (2.0 if torch.jit.is_scripting() else 1.0) * self.weight")
    assert "the exported network differs from torch by" in finding_of(check_torchscript, case)


def test_a_network_that_cannot_be_scripted_is_found(case, known_common):
    replace_network(case, "return self.weight", "print({}.fromkeys(globals()))\n        return self.weight")
    assert finding_of(check_torchscript, case) is not None


def test_weights_of_another_network_are_found(case, known_common):
    torch.save({"weights": torch.ones(1)}, case.folder / "models" / "model.pt")
    assert finding_of(check_torchscript, case) is not None
    assert finding_of(check_weights, case) == "RuntimeError: Error(s) in loading state_dict for Net:"


def test_the_process_forgets_the_bundle_that_it_looked_at(case, known_common):
    path = list(sys.path)
    assert finding_of(check_net, case) is None
    assert [name for name in sys.modules if name.startswith("toy_bundle")] == []
    assert sys.path == path


def test_a_zip_of_other_bytes_is_found(case, monkeypatch):
    def pack_differently(name, out, bundles_dir, history):
        write(out / "x.zip", str(out))
        return out / "x.zip"

    monkeypatch.setattr("tools.verify.pack", pack_differently)
    assert "other bytes" in check_packed(case)


@pytest.fixture
def after_commands(case, monkeypatch):
    """The toy as if its packed copy had run: what each command failed with, and no file written by it."""
    (case.packed / "eval").mkdir(parents=True)
    (case.work / "elsewhere").mkdir()
    case.alone = {"train": None, "evaluate": "Traceback\n...\nValueError: no", "inference": None}
    return case


def test_a_failed_command_is_found_with_its_last_line(after_commands):
    assert check_alone("evaluate")(after_commands) == "ValueError: no"


@pytest.mark.parametrize(("what", "result"), [("train", "models/model.pt"), ("inference", "eval/pair/warped.nii.gz")])
def test_a_command_that_did_nothing_is_found(after_commands, what, result):
    write(after_commands.packed / "eval" / "phantom" / "images" / "0.nii.gz", "x")
    assert check_alone(what)(after_commands).startswith("it wrote no")
    write(after_commands.packed / result, "x")
    assert check_alone(what)(after_commands) is None


WHY = "it is a toy"


@pytest.fixture
def exempt(after_commands, known_common, monkeypatch):
    """The toy declared to train nothing, without the weight that it has: it ships its initial state."""
    monkeypatch.setitem(WITHOUT_WEIGHTS, "toy", WHY)
    replace_network(after_commands, "nn.Parameter(torch.ones(1))", "1.0")
    edit_json(after_commands.folder / "configs" / "metadata.json", untrained=f"{WHY}, with an initial state")
    torch.save({}, after_commands.folder / "models" / "model.pt")
    write(after_commands.packed / "models" / "model.pt", "")
    shutil.copyfile(after_commands.folder / "models" / "model.pt", after_commands.packed / "models" / "model.pt")
    return after_commands


def test_only_what_is_declared_is_exempt_and_of_exports_alone(exempt):
    said: list[str] = []
    checks = checks_of(exempt, said.append)
    exports = ["TorchScript equals eager (ckpt_export)", "ONNX equals eager (onnxruntime)"]
    assert said == [f"-     {check}: left out, because {WHY}" for check in exports]
    assert set(CHECKS) - set(checks) == set(exports)
    assert checks["initial state"] is check_initial


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda weights: None, None),
        (lambda weights: weights.unlink(), "models/model.pt is missing, expected trained weights"),
        (lambda weights: weights.write_bytes(bytes(5 * 2**20 + 1)), "models/model.pt has 5.0 MiB, expected at most 5"),
    ],
)
def test_weights_that_do_not_travel_are_said_and_no_finding(case, damage, reason):
    said: list[str] = []
    damage(case.folder / "models" / "model.pt")
    checks = checks_of(case, said.append)
    assert set(CHECKS) - set(checks) == ({"weights"} if reason else set())
    told = "-     weights: left out, because the model zoo fails a bundle without models/model.pt, and "
    assert len(said) == bool(reason) and all(line.startswith(told + reason) for line in said)


def test_what_is_exempt_passes_and_has_to_register_where_others_train(exempt):
    assert [finding_of(look, exempt) for look in (check_files, check_untrained, check_initial, check_net)] == [None] * 4
    assert check_alone("train")(exempt) == "it wrote no eval/**/*.nii.gz"
    write(exempt.packed / "eval" / "pair" / "warped.nii.gz", "x")
    assert check_alone("train")(exempt) is None


def test_what_is_exempt_ships_its_initial_state(exempt):
    (exempt.folder / "models" / "model.pt").unlink()
    assert check_files(exempt) == "missing: models/model.pt"


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (lambda case: replace_network(case, "torch.ones(1)", "torch.ones(2)"), "expected the initial state: weight"),
        (lambda case: torch.save({"a": torch.ones(1)}, case.folder / "models" / "model.pt"), "model.pt holds a,"),
        (lambda case: write(case.packed / "models" / "model.pt", "x"), "its commands changed it"),
        (lambda case: edit_json(case.folder / "configs" / "train.json", ckpt_path="x"), "train.json has a ckpt_path"),
    ],
)
def test_another_state_than_the_initial_one_is_found(exempt, damage, finding):
    damage(exempt)
    assert finding in finding_of(check_initial, exempt)


def test_metadata_have_to_say_so_and_alone_exempt_nothing(exempt, monkeypatch):
    edit_json(exempt.folder / "configs" / "metadata.json", untrained="no")
    assert check_untrained(exempt) == f"no 'untrained': {WHY}"
    monkeypatch.delitem(WITHOUT_WEIGHTS, "toy")
    assert "which only ncf, svf are" in check_untrained(exempt)


class Still(torch.nn.Module):
    """Answers near 0, as networks do before training, by a head on features that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Conv3d(2, 4, 3, padding=1)
        self.head = torch.nn.Conv3d(4, 3, 3, padding=1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, image):
        return self.head(self.features(image))


def test_a_network_that_answers_nothing_is_made_to_displace_by_voxels_and_no_other_is_touched():
    network, image = Still(), torch.rand(1, 2, 8, 8, 8)
    before = network.features.weight.clone()
    liven(network, image)
    assert network(image).abs().max().item() == pytest.approx(3, rel=1e-4)
    assert torch.equal(network.features.weight, before)
    trained = network.head.weight.clone()
    liven(network, 2 * image)
    assert torch.equal(network.head.weight, trained)


@pytest.mark.parametrize("stray", ["alone/models/model.pt", "elsewhere/eval/x.csv"])
def test_a_file_outside_the_bundle_is_found(after_commands, stray):
    assert check_strays(after_commands) is None
    write(after_commands.work / stray, "x")
    assert check_strays(after_commands) == f"written outside the bundle: {'/'.join(stray.split('/')[:2])}"


def test_an_unknown_bundle_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="there is no bundle 'nothing'"):
        verify("nothing", tmp_path)


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    """Every check on a fresh checkout's EOIR, which has no weights: lines, findings, and whether anything changed."""
    said: list[str] = []
    folder = tmp_path_factory.mktemp("bundles") / "eoir"
    shutil.copytree(REPOSITORY / "bundles" / "eoir", folder, ignore=shutil.ignore_patterns("eval", "models", "__pyc*"))
    before, imported = content_of(folder), sys.modules.get("eoir_bundle")
    checks = verify("eoir", folder.parent, said.append)
    return said, checks, content_of(folder) == before, sys.modules.get("eoir_bundle") is imported


def content_of(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.slow  # about 40 s of one core
@pytest.mark.parametrize("name", [title for title in CHECKS if title != "weights"])
def test_eoir_is_sound(verified, name):
    """The packed copy alone trains, evaluates and infers, and everything else that verify looks at."""
    assert dict(verified[1])[name] is None


@pytest.mark.slow
def test_each_check_says_one_line(verified):
    titles = [line.split(maxsplit=1)[1].split(":")[0] for line in verified[0]]
    assert titles == ["weights", *(check.name for check in verified[1])]


def test_every_bundle_of_a_folder_is_verified_and_its_seconds_said(tmp_path, monkeypatch):
    for name in ("b", "a"):
        write(tmp_path / name / "configs" / "metadata.json", "{}")
    monkeypatch.setattr("tools.verify.CHECKS", {"one": lambda case: "broken" if case.name == "b" else None})
    said: list[str] = []
    assert verify_all("all", tmp_path, said.append) is False
    assert said == ["ok    one", "a: sound, 0 s", "WRONG one: broken", "b: 1 wrong, 0 s"]
    assert verify_all("a", tmp_path, said.append) is True


@pytest.mark.slow
def test_verify_leaves_the_bundle_and_this_process_as_they_were(verified):
    assert verified[2:] == (True, True)


def test_a_finding_is_said_with_its_check(tmp_path, monkeypatch):
    write_toy(tmp_path)
    said: list[str] = []
    monkeypatch.setattr("tools.verify.CHECKS", {"one": lambda case: None, "two": lambda case: json.loads("{")})
    checks = verify("toy", tmp_path / "bundles", said.append)
    assert said[0] == "ok    one"
    assert said[1].startswith("WRONG two: JSONDecodeError")
    assert [bool(check.finding) for check in checks] == [False, True]
