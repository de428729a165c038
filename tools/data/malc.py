"""MICCAI 2012 Multi-Atlas Labelling Challenge (MALC): raw brain scans -> one grid + datalist.json.

Source:  http://www.neuromorphometrics.com/2012_MICCAI_Challenge_Data.html (registration there; nothing is downloaded here)
License: CC BY-NC. Scans from OASIS; labels "provided by Neuromorphometrics, Inc. under academic subscription".
Usage:   regbundles data prepare malc --raw /data/raw/malc --out /data/malc
"""

import csv
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import permutations
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
from tqdm import tqdm

from common.affine import register_affine
from common.errors import RegInputError

from .brain import Grid, brain_grid, normalize, resample
from .files import save_json, save_nifti, save_text

__all__ = ["LABELS", "TRAINING_IDS", "VALIDATION_IDS", "prepare"]

TRAINING_IDS = (
    "1000 1001 1002 1006 1007 1008 1009 1010 1011 1012 1013 1014 1015 1017 1036".split()
)  # the official training set
VALIDATION_IDS = ("1013", "1015", "1017")  # held out of it here; the challenge has none
ABSENT_CORTEX = {110, 111, 126, 127, 130, 131, 158, 159, 188, 189}  # numbers of the protocol that no scan has
INNER_LABELS = (4, 11, 23, *range(30, 33), *range(35, 42), *range(44, 53), *range(55, 63), 69, *range(71, 74), 75, 76)
CORTEX_LABELS = tuple(value for value in range(100, 208) if value not in ABSENT_CORTEX)
LABELS = (*INNER_LABELS, *CORTEX_LABELS)  # 36 + 98 = 134


@dataclass(frozen=True)
class Subject:
    name: str
    image: Path
    label: Path


@dataclass(frozen=True)
class Job:
    subject: Subject
    template: Subject
    grid: Grid
    out: Path


def prepare(raw: str, out: str, spacing: float = 1.0, workers: int = 1) -> None:
    subjects = find_subjects(Path(raw))
    template = subjects[0]
    image, label = nib.load(template.image), nib.load(template.label)
    grid = brain_grid(np.asarray(image.dataobj) > 0, image.affine, spacing)
    jobs = [Job(s, template, grid, Path(out)) for s in subjects]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(prepare_subject, job) for job in jobs]
        for future in tqdm(as_completed(futures), total=len(futures)):
            print(future.result(), flush=True)
    names = read_label_table(next(Path(raw).glob("label_information.csv")))
    items = {s.name: {"image": f"images/{s.name}.nii.gz", "label": f"labels/{s.name}.nii.gz"} for s in subjects}
    v = [items[n] for n in VALIDATION_IDS]
    save_json({
        "name": "malc", "modality": "MR T1", "orientation": "LIA", "spacing_mm": [spacing] * 3, "licence": "CC BY-NC",
        "labels": {str(k): names[k] for k in LABELS},
        "training": [items[s.name] for s in subjects if s.name not in VALIDATION_IDS],
        "validation": [{"fixed": f["image"], "moving": m["image"], "fixed_label": f["label"], "moving_label": m["label"]} for f, m in permutations(v, 2)],
    }, Path(out, "datalist.json"))


def find_subjects(raw):
    return [Subject(p.name.split("_")[0], p, p.with_name(p.name.replace("_SS", "_glm"))) for p in sorted(raw.glob("*_SS.nii.gz"))]


def prepare_subject(job: Job) -> dict:
    s = job.subject
    image, label = nib.load(s.image), nib.load(s.label)
    array = np.asarray(image.dataobj).astype(np.float32)
    values = np.asarray(label.dataobj).astype(np.uint8)
    matrix, metric = np.eye(4), 0.0
    if s != job.template:
        t = nib.load(job.template.image)
        r = register_affine((np.asarray(t.dataobj).astype(np.float32), t.affine), (array, image.affine))
        matrix, metric = r.matrix, r.metric
    array, top = normalize(array, array > 0)
    save_nifti(np.clip(resample(array, image.affine, job.grid, matrix, 1), 0, 1), job.grid.affine, job.out / "images" / f"{s.name}.nii.gz")
    lab = resample(values, label.affine, job.grid, matrix, 0)
    save_nifti(lab, job.grid.affine, job.out / "labels" / f"{s.name}.nii.gz")
    save_text("\n".join(" ".join(repr(float(v)) for v in row) for row in matrix) + "\n", job.out / "affines" / f"{s.name}.txt")
    vol = abs(np.linalg.det(matrix[:3, :3]))
    edge = max(float((lab[i] > 0).any()) for i in (0, -1))
    kept = (lab > 0).sum() * np.prod(nib.affines.voxel_sizes(job.grid.affine)) * vol / (values > 0).sum()
    return {"name": s.name, "metric": metric, "top": top, "kept": float(kept), "labels": len(set(np.unique(lab).tolist()) & set(LABELS))}


def read_label_table(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return {int(r[0]): " ".join(r[1].split()) for r in list(csv.reader(file))[1:] if r and r[0].isdigit()}
