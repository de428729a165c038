import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from common.errors import RegInputError
from common.report_page import SCRIPTS
from tools.alone import alone_environment
from tools.pack import names_of, pack, pack_all, packed_files
from tools.repository import REPOSITORY

from .toy import edit_json, renamed_bundle, write, write_toy


@pytest.fixture
def toy(tmp_path):
    return write_toy(tmp_path)


def pack_toy(toy: Path, **arguments) -> Path:
    root = toy.parent.parent
    return pack("toy", root / "out", toy.parent, common_dir=root / "common", **arguments)


def names_in(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as content:
        return content.namelist()


def read_in(archive: Path, name: str) -> str:
    with zipfile.ZipFile(archive) as content:
        return content.read(name).decode()


def test_the_zip_holds_the_sources_and_common_under_one_folder(toy):
    archive = pack_toy(toy)
    assert archive.name == "toy_v0.1.0.zip"
    assert names_in(archive) == [
        "toy/LICENSE",
        "toy/configs/evaluate.json",
        "toy/configs/inference.json",
        "toy/configs/logging.conf",
        "toy/configs/metadata.json",
        "toy/configs/train.json",
        "toy/docs/README.md",
        "toy/docs/data_license.txt",
        "toy/large_files.yml",
        "toy/toy_bundle/__init__.py",
        "toy/toy_bundle/common/__init__.py",
        "toy/toy_bundle/common/spatial.py",
        "toy/toy_bundle/network.py",
    ]


def test_imports_and_targets_name_the_vendored_common(toy):
    archive = pack_toy(toy)
    assert "\nfrom toy_bundle.common.spatial import SCALE\n" in read_in(archive, "toy/toy_bundle/network.py")
    assert (
        json.loads(read_in(archive, "toy/configs/train.json"))["loss"]["_target_"] == "toy_bundle.common.spatial.Loss"
    )


def test_other_times_modes_folders_and_order_give_the_same_bytes(toy, tmp_path):
    """A second checkout, made later and backwards, with other permissions."""
    first = pack_toy(toy).read_bytes()
    again = tmp_path / "again"
    for path in sorted((p for p in tmp_path.rglob("*") if p.is_file()), reverse=True):
        if "out" not in path.relative_to(tmp_path).parts:
            copy = again / path.relative_to(tmp_path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            copy.chmod(0o600)
            os.utime(copy, (1, 1))
    assert pack_toy(again / "bundles" / "toy").read_bytes() == first


def test_every_member_has_the_same_time_mode_and_no_compression(toy):
    """Whatever the clock says, and whatever zlib is at hand."""
    with zipfile.ZipFile(pack_toy(toy)) as content:
        facts = {
            (i.date_time, oct(i.external_attr >> 16), i.create_system, i.compress_type) for i in content.infolist()
        }
    assert facts == {((1980, 1, 1, 0, 0, 0), "0o100644", 3, zipfile.ZIP_STORED)}


def test_the_checksum_list_passes_sha256sum_and_keeps_other_lines(toy, tmp_path):
    write(tmp_path / "out" / "other_v0.1.0.zip", "x")
    line = hashlib.sha256(b"x").hexdigest() + "  other_v0.1.0.zip\n"
    stale = "0" * 64 + "  toy_v0.1.0.zip\n"
    write(tmp_path / "out" / "SHA256SUMS", line + stale)
    pack_toy(toy)
    checked = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path / "out", capture_output=True, text=True
    )
    assert checked.stdout == "other_v0.1.0.zip: OK\ntoy_v0.1.0.zip: OK\n"


def break_version(toy):
    edit_json(toy / "configs" / "metadata.json", version="0.1.1")


def break_version_part(toy):
    edit_json(toy / "configs" / "metadata.json", version="0.10.0", changelog={"0.10.0": "x"})


def break_changelog(toy):
    edit_json(toy / "configs" / "metadata.json", changelog=-1)


def break_metadata(toy):
    (toy / "configs" / "metadata.json").write_text("[]")


def break_path(toy):
    edit_json(toy / "configs" / "train.json", dataset_dir="/data/oasis")


def break_home(toy):
    edit_json(toy / "configs" / "evaluate.json", dataset_dir="~/oasis")


def break_tools(toy):
    write(toy / "toy_bundle" / "network.py", "from tools.pack import pack")


def break_text(toy):
    edit_json(toy / "configs" / "train.json", metric="common.metrics.dice")


def break_target(toy):
    edit_json(toy / "configs" / "train.json", loss={"_target_": "tools.verify.verify"})


def break_dynamic(toy):
    edit_json(toy / "configs" / "train.json", loss="$__import__('common.losses')")


def break_other_bundle(toy):
    renamed_bundle(toy, toy.parent / "other")
    write(toy / "toy_bundle" / "network.py", "from other_bundle.network import Net")


def break_common(toy):
    write(toy.parent.parent / "common" / "spatial.py", "from common import errors")


def break_taken(toy):
    write(toy / "toy_bundle" / "common" / "x.py", "")


def break_yaml(toy):
    write(toy / "configs" / "train.yaml", "a: 1")


def break_secret(toy):
    write(toy / "docs" / "notes.md", "first line\nhf_" + "a" * 34)


def break_folder(toy):
    write(toy / "toy_bundle" / "paths.py", "DATA = '/home/" + "someone/data'")


def break_license(toy):
    (toy / "LICENSE").unlink()


def break_link(toy):
    (toy / "docs" / "more.md").symlink_to(toy / "docs" / "README.md")


BROKEN = [
    (break_version, r"0\.1\.1 is not in the changelog"),
    (break_version_part, r"'0\.10\.0', expected three digits"),
    (break_changelog, "changelog is -1, expected an object"),
    (break_metadata, "metadata.json holds list, expected an object"),
    (break_path, r"configs/train\.json: dataset_dir has the path '/data/oasis'"),
    (break_home, r"configs/evaluate\.json: dataset_dir has the path"),
    (break_tools, r"network\.py has 'from tools\.pack import'"),
    (break_text, r"train\.json names 'common\.metrics\.dice'"),
    (break_target, r"train\.json names 'tools\.verify\.verify'"),
    (break_dynamic, r"train\.json names 'a dynamic import of 'common''"),
    (break_other_bundle, r"network\.py has 'from other_bundle\.network import'"),
    (break_common, r"toy_bundle/common/spatial\.py has 'from common import'"),
    (break_taken, r"toy_bundle/common exists already"),
    (break_yaml, r"train\.yaml is YAML"),
    (break_secret, r"docs/notes\.md, line 2, holds a Hugging Face token"),
    (break_folder, r"toy_bundle/paths\.py, line 1, holds a home folder"),
    (break_license, "no LICENSE"),
    (break_link, r"more\.md is a link"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN)
def test_what_cannot_travel_is_refused_and_nothing_is_written(toy, damage, message):
    damage(toy)
    with pytest.raises(RegInputError, match=message):
        pack_toy(toy)
    assert not (toy.parent.parent / "out").exists()


def test_all_reasons_are_told_at_once(toy):
    break_version(toy)
    break_path(toy)
    with pytest.raises(RegInputError, match=r"changelog.*/data/oasis"):
        pack_toy(toy)


def test_an_unknown_bundle_is_answered_with_the_known_ones(toy):
    with pytest.raises(RegInputError, match=r"no bundle 'nothing' in .*expected one of: toy"):
        pack("nothing", toy.parent / "out", toy.parent)


def test_weights_travel_only_on_request(toy):
    assert "toy/models/model.pt" not in names_in(pack_toy(toy))
    archive = pack_toy(toy, weights=True)
    assert read_in(archive, "toy/models/model.pt") == "written by a run"
    assert "toy/models/last.pt" not in names_in(archive)


def test_the_grid_of_the_weights_travels_with_them(toy):
    grid = toy / "models" / "grid.json"
    grid.write_text("{}")
    assert "toy/models/grid.json" in names_in(pack_toy(toy, weights=True))
    assert "toy/models/grid.json" not in names_in(pack_toy(toy))


@pytest.mark.parametrize(("size", "fits"), [(5 * 2**20, True), (5 * 2**20 + 1, False)])
def test_weights_above_five_mib_need_an_entry_in_large_files(toy, size, fits):
    (toy / "models" / "model.pt").write_bytes(bytes(size))
    if not fits:
        with pytest.raises(RegInputError, match=r"5\.0 MiB, expected at most 5 or an entry"):
            pack_toy(toy, weights=True)
        digest = hashlib.sha256(bytes(size)).hexdigest()
        write(toy / "large_files.yml", f"large_files:\n- {{path: models/model.pt, url: x, hash_val: {digest}}}\n")
    assert "toy/models/model.pt" in names_in(pack_toy(toy, weights=True))


def test_weights_of_another_hash_than_published_are_refused(toy):
    write(toy / "large_files.yml", f"large_files:\n- {{path: models/model.pt, url: x, hash_val: '{'0' * 64}'}}\n")
    with pytest.raises(RegInputError, match="another sha256 than large_files"):
        pack_toy(toy, weights=True)


def test_any_file_of_another_hash_than_listed_is_refused(toy):
    write(toy / "docs" / "table.csv", "x")
    write(toy / "large_files.yml", f"large_files:\n- {{path: docs/table.csv, url: x, hash_val: '{'0' * 64}'}}\n")
    with pytest.raises(RegInputError, match=r"table\.csv has another sha256 than large_files"):
        pack_toy(toy)


def test_safetensors_travel_with_the_weights(toy):
    write(toy / "models" / "model.safetensors", "the same")
    assert "toy/models/model.safetensors" in names_in(pack_toy(toy, weights=True))
    assert "toy/models/model.safetensors" not in names_in(pack_toy(toy))


def test_the_initial_state_of_what_is_not_trained_travels_always(toy):
    edit_json(toy / "configs" / "metadata.json", untrained="it is a toy")
    assert "toy/models/model.pt" in names_in(pack_toy(toy))


def test_several_are_packed_or_none(toy):
    other = renamed_bundle(toy, toy.parent / "other")
    out = toy.parent.parent / "out"
    assert names_of("all", toy.parent) == ["other", "toy"] and names_of("toy", toy.parent) == ["toy"]
    arguments = {"bundles_dir": toy.parent, "common_dir": toy.parent.parent / "common"}
    break_version(toy)
    with pytest.raises(RegInputError, match="toy cannot be packed"):
        pack_all(["other", "toy"], out, **arguments)
    assert not out.exists()
    edit_json(toy / "configs" / "metadata.json", version="0.1.0")
    archives = pack_all(["other", "toy"], out, **arguments)
    assert [path.name for path in archives] == ["other_v0.1.0.zip", "toy_v0.1.0.zip"]
    assert [line.split()[1] for line in (out / "SHA256SUMS").read_text().splitlines()] == [p.name for p in archives]
    assert other.is_dir()


def test_missing_weights_are_refused_on_request(toy):
    (toy / "models" / "model.pt").unlink()
    with pytest.raises(RegInputError, match="expected trained weights"):
        pack_toy(toy, weights=True)


TWO = """
import json, sys
import torch
from monai.bundle import ConfigWorkflow

def networks(root):
    flow = ConfigWorkflow(config_file=f"{root}/configs/train.json", workflow_type="train", logging_file=False)
    flow.initialize()
    torch.manual_seed(0)
    return flow.parser.get_parsed_content("network_def").eval(), flow.parser.get_parsed_content("loss")

roots = sys.argv[1:]
sys.path[:0] = roots
built = {root: networks(root) for root in roots}
image = torch.rand(1, 2, 48, 48, 48, generator=torch.Generator().manual_seed(1))
said = {}
for root, (network, loss) in built.items():
    package = type(network).__module__.split(".")[0]
    flow = sys.modules[f"{package}.common.flow"]
    with torch.no_grad():
        levels = network.pyramid(image)
        pair = {"moving": image[:, :1], "fixed": image[:, 1:]}
        ddf = network(image)
        said[package] = {
            "file": flow.__file__,
            "shift": float(flow.integrate(torch.ones(1, 3, 8, 8, 8))[0, 0, 4, 4, 4]),
            "ddf": float(ddf.abs().max()),
            "loss": float(loss(levels, pair)),
        }
said["ours"] = sorted(m for m in sys.modules if m.split(".")[0] in ("common", "tools"))
print(json.dumps(said))
"""
DOUBLED = """

_one = integrate
def integrate(*args, **kwargs):
    return 2 * _one(*args, **kwargs)
"""


@pytest.fixture(scope="module")
def two_in_one_process(tmp_path_factory):
    """EOIR and a twin whose ``common.flow.integrate`` doubles, packed and loaded one after the other."""
    work = tmp_path_factory.mktemp("two")
    shutil.copytree(REPOSITORY / "common", work / "common", ignore=shutil.ignore_patterns("__pycache__"))
    with (work / "common" / "flow.py").open("a") as file:
        file.write(DOUBLED)
    twin = renamed_bundle(REPOSITORY / "bundles" / "eoir", work / "bundles" / "twin")
    archives = [pack("eoir", work, history=False), pack("twin", work, twin.parent, common_dir=work / "common")]
    for archive in archives:
        zipfile.ZipFile(archive).extractall(work / "alone")
    roots = [str(work / "alone" / name) for name in ("eoir", "twin")]
    command = [sys.executable, "-c", TWO, *roots]
    done = subprocess.run(command, cwd=work, env=alone_environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), roots


def test_two_packed_bundles_in_one_process_each_use_their_own_common(two_in_one_process):
    said, roots = two_in_one_process
    files = [said[f"{name}_bundle"]["file"] for name in ("eoir", "twin")]
    assert files == [f"{root}/{Path(root).name}_bundle/common/flow.py" for root in roots]
    assert [said[f"{name}_bundle"]["shift"] for name in ("eoir", "twin")] == pytest.approx([1, 2], abs=1e-3)


def test_their_networks_and_losses_follow_their_own_common(two_in_one_process):
    """Same weights and image: the twin's doubled integration must show in its field and, through it, in its loss."""
    said, _ = two_in_one_process
    assert said["twin_bundle"]["ddf"] > 1.5 * said["eoir_bundle"]["ddf"] > 0
    assert said["twin_bundle"]["loss"] != pytest.approx(said["eoir_bundle"]["loss"], rel=1e-6)


def test_no_module_of_the_repository_is_loaded_there(two_in_one_process):
    assert two_in_one_process[0]["ours"] == []


def test_what_the_report_is_made_of_travels_with_every_bundle():
    """In the zip, and with an installed `common`."""
    files = packed_files("svf", REPOSITORY / "bundles", False, REPOSITORY / "common")
    for name in ("report.html", "report.css", *SCRIPTS):
        assert files[f"svf_bundle/common/assets/{name}"] == (REPOSITORY / "common" / "assets" / name).read_bytes()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert "assets/*" in project["tool"]["setuptools"]["package-data"]["common"]
