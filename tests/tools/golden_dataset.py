"""The golden metric cases as a data set and predictions on disk, in Learn2Reg's and in ITK's layout."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from common.geometry import ddf_to_mm
from common.transform_files import write_displacement

GOLDEN = Path(__file__).parent.parent / "data" / "golden"
EXPECTED = json.loads((GOLDEN / "metrics.json").read_text())
CASES = list(EXPECTED["cases"])


def arrays(case: str) -> dict[str, np.ndarray]:
    """What metrics.npz holds of one case."""
    with np.load(GOLDEN / "metrics.npz") as stored:
        return {key.split("/")[1]: stored[key] for key in stored.files if key.startswith(f"{case}/")}


def affine_of(spacing: np.ndarray) -> np.ndarray:
    """LIA, as prepared brains: no axis is where a mistake would not be seen."""
    affine = np.zeros((4, 4))
    affine[[0, 2, 1], [0, 1, 2]] = spacing * (-1, -1, 1)
    affine[:, 3] = (60, -20, 35, 1)
    return affine


def subject(case: str, image: int) -> str:
    """``golden_0001_0000``: the case's number and 0 for the fixed, 1 for the moving image."""
    return f"golden_{CASES.index(case) + 1:04d}_{image:04d}"


def pair_name(case: str) -> str:
    """As inference names a pair."""
    return f"{subject(case, 0)}__{subject(case, 1)}"


def landmarks_inside(case: str) -> np.ndarray:
    """Which landmarks lie in both images: a few of the moving ones do not, and a data set may not have such."""
    found = arrays(case)
    points = np.stack([found["fixed_lms"], found["moving_lms"]])
    return ((points >= -0.5) & (points <= np.array(found["fixed_seg"].shape) - 0.5)).all(axis=(0, 2))


def save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write a NIfTI file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def write_golden(root: Path) -> Path:
    """Write ``datalist.json`` with every case as a validation pair, and ``voxels`` and ``itk`` with the fields."""
    pairs = [write_case(root, case) for case in CASES]
    labels = {str(k): f"structure {k}" for k in EXPECTED["labels"]}
    header = {"name": "golden", "orientation": "LIA", "spacing_mm": [1, 1, 1], "labels": labels}
    (root / "datalist.json").write_text(json.dumps({**header, "validation": pairs}))
    return root


def write_case(root: Path, case: str) -> dict[str, str]:
    """One pair with labels, landmarks, fixed mask and both forms of its field."""
    found = arrays(case)
    affine, item = affine_of(found["spacing"]), {}
    for image, role in enumerate(("fixed", "moving")):
        name = subject(case, image)
        item |= {role: f"images/{name}.nii.gz", f"{role}_label": f"labels/{name}.nii.gz"}
        item[f"{role}_keypoints"] = f"keypoints/{name}.csv"
        save(root / item[role], found["moving_image"].astype(np.float32), affine)
        save(root / item[f"{role}_label"], found[f"{role}_seg"], affine)
        (root / "keypoints").mkdir(exist_ok=True)
        points = found[f"{role}_lms"][landmarks_inside(case)]
        np.savetxt(root / item[f"{role}_keypoints"], points, delimiter=",", fmt="%.17g")
    item["fixed_mask"] = f"masks/{subject(case, 0)}.nii.gz"
    save(root / item["fixed_mask"], found["fixed_mask"], affine)
    number = f"{CASES.index(case) + 1:04d}"
    save(root / "voxels" / f"disp_{number}_{number}.nii.gz", found["disp"].astype(np.float32), affine)
    ddf = torch.from_numpy(found["disp"].astype(np.float64)).movedim(-1, 0)[None]
    write_displacement(root / "itk" / pair_name(case) / "displacement.nii.gz", ddf_to_mm(ddf, affine), affine)
    return item
