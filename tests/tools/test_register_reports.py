"""Reports of real scans in Chromium: a brain, a lung, a liver, and a brain upside down."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.naming import Names
from tools.benchmark.quality_cases import SPOILED, Volume
from tools.benchmark.quality_scans import Scan, livers, lungs, other_brains
from tools.register import register

DATA = os.environ.get("REGBUNDLES_TEST_DATA")
COARSE = {"levels": [[4, 4, 20], [2, 2, 10]], "check_starts": 0, "picture": False, "inverse": False}
LOOKS = "canvas => canvas.toDataURL()"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA, reason="REGBUNDLES_TEST_DATA names no folder of scans"),
]


def upside_down(scan: Scan, work: Path) -> Scan:
    """The scan and its labels, mirrored from head to foot."""
    image, label = (nib.load(path) for path in (scan.image, scan.label))
    volume = Volume(image.get_fdata(dtype=np.float32), np.asarray(label.dataobj), image.affine)
    spoiled = SPOILED["flip up-down"](volume, np.random.default_rng(0))
    paths = work / "flipped.nii.gz", work / "flipped_label.nii.gz"
    for voxels, path in zip((spoiled.voxels, spoiled.label), paths, strict=True):
        nib.save(nib.Nifti1Image(voxels, spoiled.affine), path)
    return scan._replace(image=paths[0], label=paths[1])


def brain(work: Path) -> tuple[Scan, Scan, dict]:
    """Two brains with labels, whose headers about align them."""
    fixed, moving = other_brains(Path(DATA, "brain_pair"), work)
    return fixed, moving, {"affine": "none"}


def failed(work: Path) -> tuple[Scan, Scan, dict]:
    """The second of them upside down."""
    fixed, moving, ids = brain(work)
    return fixed, upside_down(moving, work), ids


def lung(work: Path) -> tuple[Scan, Scan, dict]:
    """One patient's CT twice, without labels."""
    fixed, moving = (scan._replace(label=None) for scan in lungs(Path(DATA, "lung_ct"), work))
    return fixed, moving, {"affine": "auto"}


def liver(work: Path) -> tuple[Scan, Scan, dict]:
    """Two states of a breath, with landmarks."""
    return *livers(Path(DATA, "liver_mr"), "19", ("cyc_1_6",), work), {"affine": "none", "points_space": "LPS"}


def registered(pair: Callable[[Path], tuple[Scan, Scan, dict]], work: Path) -> Path:
    """The folder of a coarse registration."""
    fixed, moving, ids = pair(work)
    for role, scan in (("fixed", fixed), ("moving", moving)):
        parts = {role: scan.image, f"{role}_label": scan.label, f"{role}_points": scan.points}
        ids = ids | {key: str(path) for key, path in parts.items() if path is not None}
    register("svf", work / "out", ids | COARSE, quiet=True)
    return work / "out"


@pytest.mark.parametrize(("pair", "verdict"), [(brain, "ok"), (lung, "ok"), (liver, "ok"), (failed, "failed")])
def test_a_report_of_real_scans_follows_the_mouse_and_the_slider(open_page, tmp_path, pair, verdict):
    folder = registered(pair, tmp_path)
    assert json.loads((folder / Names("").metrics).read_text())["verdict"] == verdict
    page = open_page(folder / Names("").report)
    page.wait_for_selector("#viewer[aria-busy=false]")
    assert page.inner_text(".verdict strong").lower() == verdict
    canvas = page.locator("[data-row=images] figure").first.locator("canvas")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.5 * box["height"], steps=3)
    page.mouse.up()
    assert int(canvas.get_attribute("aria-valuenow")) == pytest.approx(20, abs=1)
    figure = page.locator("[data-row=images] figure").first
    before, slider = canvas.evaluate(LOOKS), figure.locator("input")
    slice_before = int(slider.input_value())
    slider.fill(str(slice_before + 5))
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert figure.locator("output").inner_text().startswith(f"{slice_before + 6} of ")
    assert canvas.evaluate(LOOKS) != before
