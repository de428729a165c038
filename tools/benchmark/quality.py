"""What the self-check sees of registrations that worked and of those that did not: a row of signals for each.

Rows are appended as they are made, so that a run that was stopped goes on. ``report_quality`` chooses limits by the
calibration half and counts hits and false alarms on the other one.
"""

import csv
import tempfile
import time
import zlib
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from common.checkpoint import LoadWeights, load_checkpoint, save_checkpoint
from common.datalist import check_datalist
from common.errors import mendable
from common.geometry import transform_points
from common.outputs import SaveRegistrationd, grid_of, scored_labels
from common.points import read_points
from common.quality import SIGNALS, signals_of
from common.quality_view import View, coarse_view
from common.registration import Fields, fields_of, scores_of
from common.volumes import open_volume

from ..repository import REPOSITORY, commit
from .eoir import append
from .measuring import device_name
from .quality_cases import BROKEN, SETTINGS, SPOILED, Case, Setting, Volume, cases_of
from .quality_scans import HALVES, Scan, gather_scans

__all__ = ["KEY", "REFUSED", "TRUTH", "benchmark_quality", "read"]

KEY = ("half", "organ", "kind", "setting", "spoil", "fixed", "moving")
TRUTH = ("dice_before", "dice", "tre_mm_before", "tre_mm")
REFUSED = "refused"
DIGITS = 5  # significant ones of a signal


def benchmark_quality(
    data: Path,
    malc: Path,
    out: Path,
    work: Path,
    *,
    weights: Path | None = None,
    threads: int = 1,
    limit: int | None = None,
    command: str = "",
) -> Path:
    """Register every case and append its signals to ``out/quality-pairs-*.csv``, unless they are there.

    Args:
        data: folder of ``malc``, ``hippocampus_mr``, ``liver_mr``, ``lung_ct`` and ``brain_pair``.
        malc: what ``regbundles data prepare malc --spacing 2`` left.
        out: folder for the csv.
        work: folder for scans that are made on the way; kept.
        weights: ``model.pt`` of an EOIR of ``regbundles benchmark accuracy``; without it no network takes part.
        threads: of torch.
        limit: cases of each half, the first ones; all by default.
        command: for the column of that name.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: if a scan is missing.
    """
    torch.set_num_threads(threads)
    path = out / f"quality-pairs-cpu-{threads}threads-torch{torch.__version__.split('+')[0]}.csv"
    scans = gather_scans(data, malc, work)
    stack = {"device": device_name("cpu"), "torch": torch.__version__, "threads": threads, "commit": commit()}
    done = {tuple(row[key] for key in KEY) for row in read(path)}
    runs = Runs(work, malc, weights)
    for half in HALVES:
        for case in list(cases_of(half, scans[half], weights is not None))[:limit]:
            if case.key not in done:
                started = time.perf_counter()
                row = dict(zip(KEY, case.key, strict=True)) | runs.row(case)
                append(path, row | {**stack, "command": command})
                print(f"{' | '.join(case.key)}: {time.perf_counter() - started:.1f} s", flush=True)
    return path


class Runs:
    """Registers cases in this process, as ``inference.json`` of their bundle does, and keeps what the check looks at.

    Args:
        work: folder for what is kept: with it, signals may be changed without registering again.
        malc: prepared data set; a network that has weights takes its grid from there where they do not tell it.
        weights: of the bundle that is a network.
    """

    def __init__(self, work: Path, malc: Path, weights: Path | None = None) -> None:
        self.work = work / "views"
        self.ids = {} if weights is None else {"ckpt_path": str(weights), "dataset_dir": str(malc)}
        self.bundle = cache(self._bundle)
        self.answer = lru_cache(maxsize=4)(self._answer)  # the broken ones of a pair come one after the other

    def row(self, case: Case) -> dict[str, str]:
        """The scores and signals of a case, empty where there are none; or the sentence with which it is refused."""
        kept = self.work / f"{zlib.crc32('|'.join(case.key).encode()):08x}.pt"
        if not kept.is_file():
            save_checkpoint(packed(self._look(case)), kept)
        found = load_checkpoint(kept)
        signals = {} if found["view"] is None else signals_of(unpacked(found["view"]), found["scores"])
        numbers = {key: found["scores"].get(key) for key in TRUTH} | {key: signals.get(key) for key in SIGNALS}
        written = {key: "" if value is None else f"{value:.{DIGITS}g}" for key, value in numbers.items()}
        return {REFUSED: found[REFUSED], **written}

    def _look(self, case: Case) -> dict:
        """Register a case: its scores and its view, or why it is refused."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                pair, item, pred = self._register(case, Path(folder))
            except Exception as error:  # MONAI wraps ours in its own
                refusal = mendable(error)
                if refusal is None:
                    raise
                return {"view": None, "scores": {}, REFUSED: str(refusal).replace(f"{folder}/", "")}
            return {**look(self.bundle(case.setting).save, pair, item, pred), REFUSED: ""}

    def _register(self, case: Case, folder: Path) -> tuple[dict, dict, dict[str, Tensor]]:
        """The pair's paths, the item that preprocessing makes of it, and the answer, spoiled or broken."""
        if case.kind in BROKEN:
            pair, item, answer = self.answer(case.setting, case.fixed, case.moving)
            other = self.answer(case.setting, *case.other)[2]["ddf"]
            return pair, item, {"ddf": BROKEN[case.kind](answer, other, case.rng)}
        moving = spoiled(case, folder) if case.spoil else case.moving
        return self._answer(case.setting, case.fixed, moving)

    def _answer(self, setting: str, fixed: Scan, moving: Scan) -> tuple[dict, dict, dict[str, Tensor]]:
        pair = pair_of(fixed, moving)
        check_datalist([pair])
        return pair, *self.bundle(setting).answer(pair)

    def _bundle(self, setting: str) -> "Bundle":
        return Bundle(SETTINGS[setting], self.ids)


def packed(found: Mapping) -> dict:
    """What :meth:`Runs._look` returns, as tensors and plain values alone: reading those runs nothing."""
    view = None if found["view"] is None else {key: as_tensor(value) for key, value in vars(found["view"]).items()}
    return {**found, "view": view}


def as_tensor(value: Tensor | np.ndarray | None) -> Tensor | None:
    """An array as a tensor; the others stay."""
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def unpacked(view: Mapping[str, Tensor | None]) -> View:
    """The view of :func:`packed`."""
    matrices = {key: None if view[key] is None else view[key].numpy() for key in ("affine", "initial")}
    return View(**{**view, **matrices})


def look(save: SaveRegistrationd, pair: Mapping[str, str], item: dict, pred: Mapping[str, Tensor]) -> dict:
    """The view and the scores of a registration, as :class:`SaveRegistrationd` forms them, without its files."""
    paths = {key: Path(path) for key, path in pair.items()}
    grids = [grid_of(open_volume(paths[key]), 3) for key in ("fixed", "moving")]
    initial = np.asarray(item["initial"]) if "initial" in item else None
    fields = fields_of(pred, item["network_affine"], *grids, initial)
    images = save._images(fields, paths)
    scores = scores_of(fields, images, scored_labels(images, None))
    if "fixed_points" in paths:
        scores |= landmark_scores(paths, fields)
    return {"view": coarse_view(fields, images, pred, item["network_affine"]), "scores": scores}


def landmark_scores(paths: Mapping[str, Path], fields: Fields) -> dict[str, float]:
    """Mean distance in mm of corresponding landmarks before and after."""
    fixed, moving = (read_points(paths[f"{key}_points"], "LPS").mm for key in ("fixed", "moving"))
    moved = transform_points(fixed, fields.total, fields.fixed.affine)
    found = {"tre_mm_before": fixed, "tre_mm": moved}
    return {key: float(np.linalg.norm(points - moving, axis=1).mean()) for key, points in found.items()}


class Bundle:
    """Reading, network and results of a bundle's ``inference.json``."""

    def __init__(self, setting: Setting, ids: Mapping[str, object]) -> None:
        configs = REPOSITORY / "bundles" / setting.bundle / "configs"
        parser = ConfigParser()
        parser.read_config([str(configs / f"{file}.json") for file in ("inference", *setting.overlays)])
        own = {"bundle_root": str(configs.parent), "device": "cpu", "progress": False}
        named = {"fixed": "fixed", "moving": "moving"}  # two files, though none in particular: no phantom is made
        given = {**own, **named, **ids, **setting.ids}
        parser.update({key: value for key, value in given.items() if key in parser})
        self.prepare, self.network, self.inferer, self.save = (
            parser.get_parsed_content(key) for key in ("preprocessing", "refined_network", "inferer", "save")
        )
        if "ckpt_path" in parser:
            LoadWeights(parser.get_parsed_content("network"), str(ids["ckpt_path"]), "")(None)

    def answer(self, pair: Mapping[str, str]) -> tuple[dict, dict[str, Tensor]]:
        """The item that preprocessing makes of a pair, and what the network answers to it, without batch axes."""
        item = self.prepare(dict(pair))
        with torch.no_grad():
            pred = self.inferer(item["image"].as_tensor()[None], self.network)
        pred = pred if isinstance(pred, Mapping) else {"ddf": pred}
        return item, {key: value[0] for key, value in pred.items()}


def pair_of(fixed: Scan, moving: Scan) -> dict[str, str]:
    """The paths that a registration takes; labels and landmarks too, if both scans show one organ."""
    pair = {"fixed": str(fixed.image), "moving": str(moving.image)}
    for kind in ("label", "points") if fixed.organ == moving.organ else ():
        paths = [getattr(scan, kind) for scan in (fixed, moving)]
        if None not in paths:
            pair |= {f"fixed_{kind}": str(paths[0]), f"moving_{kind}": str(paths[1])}
    return pair


def spoiled(case: Case, folder: Path) -> Scan:
    """The moving scan as the case has it, its labels too; landmarks do not come along."""
    image = open_volume(case.moving.image)
    label = None if case.moving.label is None else np.asarray(open_volume(case.moving.label).dataobj)
    volume = Volume(image.get_fdata(dtype=np.float32), label, image.affine)
    found = SPOILED[case.spoil](volume, case.rng)
    paths = [folder / "moving.nii.gz", folder / "moving_label.nii.gz"]
    nib.save(nib.Nifti1Image(np.ascontiguousarray(found.voxels), found.affine), paths[0])
    if found.label is None:
        return Scan(case.moving.organ, case.moving.name, paths[0])
    nib.save(nib.Nifti1Image(np.ascontiguousarray(found.label).astype(np.int16), found.affine), paths[1])
    return Scan(case.moving.organ, case.moving.name, *paths)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a csv, none without it."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
