"""What the model zoo's continuous integration asks of a bundle, offline, and what we ask besides.

The bundle's folder is only read: commands run on copies in a temporary folder. No weights are in git, so a short
training on the phantom, in the packed copy and without the repository, makes those that the export needs; the model
zoo fails a bundle without weights, which is said here and is no finding.
"""

import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from monai.bundle import ConfigWorkflow, verify_metadata, verify_net_in_out
from monai.utils import set_determinism
from torch import nn

from common.errors import RegInputError
from common.weights import large_files

from .bundle_import import importable
from .export import SIDE_FACTOR, example_image, network_of, require_onnx, written
from .lint import lint_configs
from .pack import UNTRAINED, WEIGHTS, check_version, names_of, pack, read_weights
from .repository import REPOSITORY
from .verify_case import Case, short_overrides
from .verify_texts import docs_finding, licence_finding

__all__ = ["WITHOUT_WEIGHTS", "Check", "verify", "verify_all"]

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
RESULTS = {
    "download": "configs/metadata.json",
    "train": WEIGHTS,
    "evaluate": "eval/**/*.csv",
    "inference": "eval/**/*.nii.gz",
}
"""What each command is for; the phantom's own images do not count."""
WITHOUT_WEIGHTS = {
    "ncf": "its network is made and optimised anew for every pair",
    "svf": "its velocity is optimised anew for every pair",
}
"""Bundles that train nothing, and why: their "training" registers pairs, and there is nothing to export. What is left
out of their checks is said. That their models/model.pt is an initial state, and their metadata say so, is checked."""
QUIET = 1e-3  # standard deviation of the weights that keep a network at the identity before training
LIVELY = 3.0  # voxels that it displaces by for the comparison of exports


class Check(NamedTuple):
    """One line of the report: what was looked at, and what was found wrong, ``None`` if nothing."""

    name: str
    finding: str | None


def verify_all(
    asked: str, bundles_dir: Path = REPOSITORY / "bundles", say: Callable[[str], None] | None = None
) -> bool:
    """Check one bundle or, for "all", every one, and say the seconds of each; see :func:`verify`.

    Returns:
        Whether no check of any had a finding.
    """
    say = say or logging.getLogger(__name__).info
    sound = True
    for name in names_of(asked, bundles_dir):
        start = time.perf_counter()
        wrong = sum(check.finding is not None for check in verify(name, bundles_dir, say))
        sound &= not wrong
        say(f"{name}: {f'{wrong} wrong' if wrong else 'sound'}, {time.perf_counter() - start:.0f} s")
    return sound


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
        for title, look in checks_of(case, say).items():
            checks.append(Check(title, finding_of(look, case)))
            say(f"WRONG {title}: {checks[-1].finding}" if checks[-1].finding else f"ok    {title}")
    return checks


def checks_of(case: Case, say: Callable[[str], None]) -> dict[str, Callable[[Case], str | None]]:
    """The checks that a bundle has to pass; what is left out is said with the reason."""
    why = {look: WITHOUT_WEIGHTS.get(case.name) for look in EXPORTS} | {check_weights: weights_lacking(case.folder)}
    left_out = {title: why[look] for title, look in CHECKS.items() if why.get(look)}
    for title, reason in left_out.items():
        say(f"-     {title}: left out, because {reason}")
    checks = {title: look for title, look in CHECKS.items() if title not in left_out}
    return checks | ({"initial state": check_initial} if case.name in WITHOUT_WEIGHTS else {})


def weights_lacking(folder: Path) -> str | None:
    """Why a bundle has no weights that ``pack --weights`` would take, which the model zoo fails it for; or ``None``."""
    try:
        read_weights(folder)
    except RegInputError as error:
        lacking = str(error).removeprefix(f"{folder}/").rstrip(".")
        return f"the model zoo fails a bundle without {WEIGHTS}, and {lacking}"
    return None


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
    necessary = [file.format(name=case.name) for file in NECESSARY]
    necessary += [WEIGHTS] if case.name in WITHOUT_WEIGHTS else []  # of others the train command makes them
    missing = [file for file in necessary if not (case.folder / file).is_file()]
    large_files(case.folder)
    return f"missing: {', '.join(missing)}" if missing else None


def check_weights(case: Case) -> str | None:
    """The weights that would travel fit the network of inference.json."""
    with importable(case.copy):
        network_of(case.copy, case.folder / WEIGHTS)
    return None


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
    archives = [pack(case.name, case.work / f"again{k}", case.folder.parent, history=False) for k in range(2)]
    sums = {hashlib.sha256(path.read_bytes()).hexdigest() for path in archives}
    return None if len(sums) == 1 else "packed twice, the zip had other bytes"


def check_strays(case: Case) -> str | None:
    """The packed copy wrote nothing outside its own folder."""
    _ = case.alone  # the commands have run
    allowed = {case.packed, case.packed.with_name(f"{case.name}.zip")}  # MONAI keeps what it downloaded
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
    """MONAI's ``verify_net_in_out``, and a field on the grid of the image, which that one does not look at.

    Once for the least size that the metadata allow too, with which the model zoo calls it.
    """
    with importable(case.copy):
        for n in (1, SIDE_FACTOR):
            verify_net_in_out(
                net_id="network_def",
                meta_file=case.config("metadata.json"),
                config_file=case.config("inference.json"),
                device="cpu",
                n=n,
                **short_network(case),
            )
        image = example_image(case.metadata)
        ddf = load_network(case)(image)
    if ddf.shape[2:] != image.shape[2:]:
        return f"pred has the size {tuple(ddf.shape[2:])} for an image of {tuple(image.shape[2:])}, expected the same"
    return None


def check_torchscript(case: Case) -> str | None:
    """MONAI's ``ckpt_export`` by script, its result equal to torch's at two sizes."""
    return check_export(case, "torchscript", "model.ts")


def check_onnx(case: Case) -> str | None:
    """Written by torch's exporter, run by onnxruntime, its result equal to torch's, at two sizes if it takes any."""
    require_onnx()
    return check_export(case, "onnx", "model.onnx")


def check_export(case: Case, form: str, file: str) -> str | None:
    """Export a network that displaces by voxels; the comparison raises what is wrong."""
    image = example_image(case.metadata)
    with importable(case.copy):
        network = load_network(case)
        liven(network, image)
        torch.save(network.state_dict(), case.work / "lively.pt")
        written(form, case.copy, case.work / "lively.pt", network, image, case.work / file)
    return None


def liven(network: nn.Module, image: torch.Tensor) -> None:
    """Draw anew the weights that begin near 0, so that an untrained network displaces an image by voxels.

    Exports of a network that answers 0 are equal whatever they do. Trained weights stay as they are.
    """
    quiet = [w for w in network.parameters() if w.numel() > 1 and float(w.detach().std()) < QUIET and w.ndim > 1]
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in quiet:
            weight.normal_(std=0.01, generator=draws)
        scale = LIVELY / float(network(image).abs().max()) if quiet else 1.0
        for weight in quiet:
            weight.mul_(scale)


def check_initial(case: Case) -> str | None:
    """What trains nothing ships the state that its network begins with, says so, and its commands write no other."""
    with importable(case.copy):
        begun = load_network(case).state_dict()
    held = torch.load(case.folder / WEIGHTS, map_location="cpu", weights_only=True)
    if begun.keys() != held.keys() or not all(torch.equal(held[key], begun[key]) for key in begun):
        found, expected = (", ".join(state) or "nothing" for state in (held, begun))
        return f"{WEIGHTS} holds {found}, expected the initial state: {expected}"
    _ = case.alone  # the commands have run
    shipped, after = ((root / WEIGHTS).read_bytes() for root in (case.folder, case.packed))
    if shipped != after:
        return f"the packed copy has another {WEIGHTS}, or its commands changed it"
    named = [path.name for path in (case.copy / "configs").glob("*.json") if "ckpt_path" in path.read_text()]
    return f"there is nothing to load, but {', '.join(named)} has a ckpt_path" if named else None


def check_untrained(case: Case) -> str | None:
    """The metadata say of the bundles in ``WITHOUT_WEIGHTS``, and of no other, that nothing is trained, and why."""
    said = case.metadata.get(UNTRAINED)
    if case.name in WITHOUT_WEIGHTS:
        return None if WITHOUT_WEIGHTS[case.name] in str(said) else f"no '{UNTRAINED}': {WITHOUT_WEIGHTS[case.name]}"
    return f"'{UNTRAINED}' exempts it from export, which only {', '.join(WITHOUT_WEIGHTS)} are" if said else None


def load_network(case: Case) -> nn.Module:
    """``network_def`` of inference.json with the weights; the bundle must be importable."""
    return network_of(case.copy, None if case.name in WITHOUT_WEIGHTS else case.weights, **short_network(case))


def short_network(case: Case) -> dict:
    """The entries of ``SHORT`` that are the inference config's own, for a network that optimises inside."""
    return {
        key: value for key, value in short_overrides([Path(case.config("inference.json"))]).items() if "::" not in key
    }


CHECKS: dict[str, Callable[[Case], str | None]] = {
    "necessary files": check_files,
    "weights": check_weights,
    "metadata schema (verify_metadata)": check_metadata,
    "metadata of what is untrained": check_untrained,
    "version and changelog": lambda case: check_version(case.folder, REPOSITORY / "common"),
    "license and data license": lambda case: licence_finding(case.folder, case.metadata),
    "docs headings": lambda case: docs_finding(case.folder),
    "label names": check_labels,
    "configs": check_configs,
    "packed twice, same bytes": check_packed,
    "MONAI downloads the packed copy": check_alone("download"),
    "packed copy alone trains": check_alone("train"),
    "packed copy alone evaluates": check_alone("evaluate"),
    "packed copy alone infers": check_alone("inference"),
    "nothing written outside the bundle": check_strays,
    "properties for training": check_properties("train"),
    "properties for inference": check_properties("inference"),
    "network in and out (verify_net_in_out)": check_net,
    "TorchScript equals eager (ckpt_export)": check_torchscript,
    "ONNX equals eager (onnxruntime)": check_onnx,
}
EXPORTS = (check_torchscript, check_onnx)
