"""Writes tiny Learn2Reg archives: scans in the usual folders and the json that names them."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

GRID = np.array([[-1.75, 0, 0, 20], [0, -1.25, 0, 15], [0, 0, 1.75, -30], [0, 0, 0, 1]])  # LPS
FOLDERS = {"image": "imagesTr", "label": "labelsTr", "mask": "masksTr", "keypoints": "keypointsTr"}
FOLDERS |= {"landmarks": "landmarksTr"}


def brain(seed, size=(12, 10, 9), labels=3):
    """An image of waves and as many slabs of labels, both shifted by the seed."""
    points = np.indices(size)
    inside = (((points - (np.array(size).reshape(3, 1, 1, 1) - 1) / 2) / np.reshape(size, (3, 1, 1, 1))) ** 2).sum(0)
    image = 100 + 60 * np.cos(points[0] / 2 + seed / 5) * np.sin(points[1] / 3) + 20 * np.cos(points[2] + seed)
    slabs = 1 + (points[0] * labels // size[0])
    return np.where(inside < 0.2, image, 0).astype(np.int16), np.where(inside < 0.2, slabs, 0).astype(np.uint8)


def write(array, path, affine=GRID):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def contents(folder):
    """Every file but the contact sheet, whose bytes the tests of MALC and LungCT compare."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".png"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def write_part(root: Path, part: str, name: str, value, affine) -> str:
    """Write one file; its path as the json has it."""
    path = f"{FOLDERS[part]}/{name}.{'csv' if isinstance(value, str) else 'nii.gz'}"
    if isinstance(value, str):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(value)
    else:
        write(value, root / path, affine)
    return f"./{path}"


def write_archive(raw: Path, name: str, scans: dict, labels: dict, affine=GRID, modality="MR", **pairs) -> Path:
    """``<raw>/<name>`` with every scan under "training" and pairs of names under their keys."""
    root = raw / name
    training = [{p: write_part(root, p, scan, v, affine) for p, v in parts.items()} for scan, parts in scans.items()]
    shape = next(iter(scans.values()))["image"].shape
    lists = {
        key: [{"fixed": f"./imagesTr/{f}.nii.gz", "moving": f"./imagesTr/{m}.nii.gz"} for f, m in items]
        for key, items in pairs.items()
    }
    content = {"name": name, "licence": "CC BY 4.0,\ncite us", "modality": {"0": modality, "1": modality}}
    content |= {"labels": labels, "tensorImageShape": {"0": list(shape)}, "numTraining": len(training)}
    (root / f"{name}_dataset.json").write_text(json.dumps(content | {"training": training} | lists))
    return raw


def write_lungs(raw: Path) -> Path:
    """Four patients, two of them to validate on with landmarks besides their keypoints; one hidden test pair."""
    scans = {}
    for case in (1, 2, 3, 4):
        for phase in (0, 1):
            image, label = brain(case + phase)
            parts = {"image": image * 4 - np.int16(900), "mask": label.clip(0, 2)}
            parts["keypoints"] = f"5.5,6.25,{4 + phase}\n7,8,5\n2,3,4\n"
            if case < 3:
                parts["landmarks"] = "5.5,6.25,2.5\n7,8,6.5\n4,4,4\n"
            scans[f"LungCT_{case:04}_{phase:04}"] = parts
    intra = [(f"LungCT_{case:04}_0000", f"LungCT_{case:04}_0001") for case in (1, 2, 3, 4)]
    hidden = [("LungCT_0021_0000", "LungCT_0021_0001")]
    lists = {"training_paired_images": intra, "registration_val": intra[:2], "registration_test": hidden}
    return write_archive(raw, "LungCT", scans, labels={}, modality="CT", **lists)
