"""Everything that the model zoo's continuous integration asks of a bundle, offline, and what we ask besides.

The bundle's folder is only read: commands run on copies in a temporary folder. No weights are in git, so a short
training on the phantom, in the packed copy and without the repository, makes those that the export needs.
"""

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out
from monai.utils import set_determinism
from torch import nn

from common.errors import RegInputError

from .data.fetch.archive import COMPLETE
from .lint import lint_configs
from .pack import WEIGHTS, check_version, large_files, pack
from .repository import REPOSITORY
from .verify_case import Case, importable, short_overrides

__all__ = ["WITHOUT_WEIGHTS", "Check", "verify"]

SCHEMA = Path(__file__).parent / "schema" / "metadata_20240725.json"
NECESSARY = (
    "LICENSE",
    "large_files.yml",
    "configs/metadata.json",
    "configs/train.json",
    "configs/inference.json",
    "configs/evaluate.json",
    "configs/logging.conf",
    "docs/README.md",
    "{name}_bundle/__init__.py",
    "{name}_bundle/network.py",
)
RESULTS = {"train": WEIGHTS, "evaluate": "eval/**/*.csv", "inference": "eval/**/*.nii.gz"}
"""What each command is for; the phantom's own images do not count."""
WITHOUT_WEIGHTS = {
    "ncf": "its network is made and optimised anew for every pair",
    "svf": "its velocity is optimised anew for every pair",
}
"""Bundles that train nothing, and why: their "training" registers pairs, and there is nothing to export. What is left
out of their checks is said, and that they hold no weights is checked instead."""
SIDE_FACTOR = 2  # n of "16*n": two coarse voxels along each axis
EXPORT_TOLERANCE = 1e-4  # voxels between the exported network and the eager one


class Check(NamedTuple):
    """One line of the report: what was looked at, and what was found wrong, ``None`` if nothing."""

    name: str
    finding: str | None


def verify(
    name: str, bundles_dir: Path = REPOSITORY / "bundles", say: Callable[[str], None] | None = None
) -> list[Check]:
    """Check a bundle, one line at a time; it is sound if no check has a finding.

    Args:
        name: the bundle's folder in ``bundles_dir``.
        bundles_dir: folder of the bundles.
        say: is handed each line, ``ok    <check>`` or ``WRONG <check>: <finding>``, as soon as it is known, and first
            ``-     <check>: left out, because <reason>`` for each exemption; by default lines go to the log.

    Returns:
        Every check in the order of the work.

    Raises:
        RegInputError: if there is no such bundle.
    """
    folder = Path(bundles_dir) / name
    if not folder.is_dir():
        raise RegInputError(f"there is no bundle '{name}' in {bundles_dir}; see what `ls {bundles_dir}` offers.")
    say = say or logging.getLogger(__name__).info
    checks = []
    with tempfile.TemporaryDirectory(prefix="verify_") as work:
        case = Case(folder, Path(work))
        for title, look in checks_of(name, say).items():
            checks.append(Check(title, finding_of(look, case)))
            say(f"WRONG {title}: {checks[-1].finding}" if checks[-1].finding else f"ok    {title}")
    return checks


def checks_of(name: str, say: Callable[[str], None]) -> dict[str, Callable[[Case], str | None]]:
    """The checks that a bundle has to pass; what it is exempt from is said with the reason."""
    if name not in WITHOUT_WEIGHTS:
        return CHECKS
    exempt = [title for title, look in CHECKS.items() if look is check_torchscript]
    for title in exempt:
        say(f"-     {title}: left out, because {WITHOUT_WEIGHTS[name]}")
    return {title: look for title, look in CHECKS.items() if title not in exempt} | {"no weights": check_no_weights}


def finding_of(look: Callable[[Case], str | None], case: Case) -> str | None:
    """What ``look`` returns, or the error that it raises, in one line."""
    try:
        return look(case)
    except Exception as error:  # whatever a bundle's code raises is a finding about the bundle
        causes = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        return " <- ".join(f"{type(e).__name__}: {(str(e).splitlines() or [''])[0]}" for e in causes)


def check_files(case: Case) -> str | None:
    """Files that a bundle needs, and large_files.yml readable."""
    missing = [file for file in (f.format(name=case.name) for f in NECESSARY) if not (case.folder / file).is_file()]
    large_files(case.folder)
    return f"missing: {', '.join(missing)}" if missing else None


def check_metadata(case: Case) -> str | None:
    """MONAI's ``verify_metadata`` against the schema kept here, placed where it would download one to."""
    schema = case.work / "schema.json"
    shutil.copyfile(SCHEMA, schema)
    verify_metadata(meta_file=case.config("metadata.json"), filepath=str(schema))
    return None


def check_labels(case: Case) -> str | None:
    """Names of the labels that the bundle can carry over, which viewers show: whole numbers -> distinct names."""
    outputs = case.metadata["network_data_format"].get("post_processed_outputs", {})
    names = outputs.get("pred", {}).get("channel_def", {})
    if len(names) < 2 or names.get("0", "").lower() != "background":
        return "network_data_format::post_processed_outputs::pred::channel_def has no {'0': 'background', '1': ...}"
    odd = [key for key in names if not key.isdecimal() or not names[key].strip()]
    twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    if odd or twice:
        return f"label names must be distinct and stand beside whole numbers, found {odd + twice}"
    return None


def check_configs(case: Case) -> str | None:
    """The lint of ``tools/lint.py``."""
    return "; ".join(lint_configs(case.folder)) or None


def check_packed(case: Case) -> str | None:
    """Packed twice, the same bytes."""
    archives = [pack(case.name, case.work / f"again{k}", case.folder.parent) for k in range(2)]
    sums = {hashlib.sha256(path.read_bytes()).hexdigest() for path in archives}
    return None if len(sums) == 1 else "packed twice, the zip had other bytes"


def check_strays(case: Case) -> str | None:
    """The packed copy wrote nothing outside its own folder."""
    _ = case.alone  # the commands have run
    allowed = {case.packed, case.work / "alone" / COMPLETE, case.work / "elsewhere"}
    strays = [path for folder in ("alone", "elsewhere") for path in (case.work / folder).iterdir()]
    outside = [str(path.relative_to(case.work)) for path in strays if path not in allowed]
    return f"written outside the bundle: {', '.join(outside)}" if outside else None


def check_alone(what: str) -> Callable[[Case], str | None]:
    """A check of one command of the packed copy: it ended well, and what it is for lies on disk."""

    def look(case: Case) -> str | None:
        failure = case.alone[what]
        if failure:
            return failure.strip().splitlines()[-1]
        pattern = RESULTS["inference" if what == "train" and case.name in WITHOUT_WEIGHTS else what]
        written = [path for path in case.packed.glob(pattern) if "phantom" not in path.parts]
        return None if written else f"it wrote no {pattern}"

    return look


def check_properties(workflow_type: str) -> Callable[[Case], str | None]:
    """A check that MONAI's ConfigWorkflow finds all that a workflow of this type must have."""

    def look(case: Case) -> str | None:
        file = case.config(f"{workflow_type}.json")
        with importable(case.copy):
            workflow = ConfigWorkflow(
                config_file=file,
                workflow_type=workflow_type,
                logging_file=False,
                bundle_root=str(case.copy),
                **short_overrides([Path(file)]),
            )
            try:
                workflow.initialize()
                lacking = workflow.check_properties()
            finally:
                set_determinism(None)  # `initialize` seeds and switches this process
        return f"missing or misnamed: {', '.join(lacking)}" if lacking else None

    return look


def check_net(case: Case) -> str | None:
    """MONAI's ``verify_net_in_out``, and a field on the grid of the image, which that one does not look at."""
    with importable(case.copy):
        verify_net_in_out(
            net_id="network_def",
            meta_file=case.config("metadata.json"),
            config_file=case.config("inference.json"),
            device="cpu",
            n=SIDE_FACTOR,
            **short_network(case),
        )
        image = example_image(case.metadata)
        ddf = load_network(case)(image)
    if ddf.shape[2:] != image.shape[2:]:
        return f"pred has the size {tuple(ddf.shape[2:])} for an image of {tuple(image.shape[2:])}, expected the same"
    return None


def check_torchscript(case: Case) -> str | None:
    """MONAI's ``ckpt_export`` by script, its result equal to the eager network's."""
    exported = case.work / "model.ts"
    with importable(case.copy):
        ckpt_export(
            net_id="network_def",
            filepath=str(exported),
            ckpt_file=str(case.weights),
            meta_file=case.config("metadata.json"),
            config_file=case.config("inference.json"),
            bundle_root=str(case.copy),
        )
        image = example_image(case.metadata)
        with torch.no_grad():
            eager = load_network(case)(image)
            scripted = torch.jit.load(str(exported)).eval()(image)
    worst = float((eager - scripted).abs().max())
    return None if worst <= EXPORT_TOLERANCE else f"exported and eager fields differ by {worst:.2e} voxel"


def check_no_weights(case: Case) -> str | None:
    """What is exempt because it has no weights has none: not in the network, a config, or what its commands wrote."""
    with importable(case.copy):
        held = list(load_network(case).state_dict())
    _ = case.alone  # the commands have run
    left = [str(folder / "models") for folder in (case.folder, case.packed) if (folder / "models").is_dir()]
    named = [path.name for path in (case.copy / "configs").glob("*.json") if "ckpt_path" in path.read_text()]
    found = held + left + named
    return f"declared to have no weights, but found {', '.join(found)}" if found else None


def load_network(case: Case) -> nn.Module:
    """``network_def`` of inference.json with the weights; the bundle must be importable."""
    parser = ConfigParser()
    parser.read_config(case.config("inference.json"))
    parser["bundle_root"] = str(case.copy)
    for key, value in short_network(case).items():
        parser[key] = value
    network = parser.get_parsed_content("network_def")
    if case.name not in WITHOUT_WEIGHTS:
        network.load_state_dict(torch.load(case.weights, map_location="cpu", weights_only=True))
    return network.eval()


def short_network(case: Case) -> dict:
    """The entries of ``SHORT`` that are the inference config's own, for a network that optimises inside."""
    return {
        key: value for key, value in short_overrides([Path(case.config("inference.json"))]).items() if "::" not in key
    }


def example_image(metadata: dict) -> torch.Tensor:
    """A random pair (1, 2, *S) in [0, 1] of a size that the metadata allow."""
    shape = metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
    size = [side if isinstance(side, int) else int(side.split("*")[0]) * SIDE_FACTOR for side in shape]
    return torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0))


CHECKS: dict[str, Callable[[Case], str | None]] = {
    "necessary files": check_files,
    "metadata schema (verify_metadata)": check_metadata,
    "version and changelog": lambda case: check_version(case.folder),
    "label names": check_labels,
    "configs": check_configs,
    "packed twice, same bytes": check_packed,
    "packed copy alone trains": check_alone("train"),
    "packed copy alone evaluates": check_alone("evaluate"),
    "packed copy alone infers": check_alone("inference"),
    "nothing written outside the bundle": check_strays,
    "properties for training": check_properties("train"),
    "properties for inference": check_properties("inference"),
    "network in and out (verify_net_in_out)": check_net,
    "TorchScript equals eager (ckpt_export)": check_torchscript,
}
