import os
import re
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.phantom import phantom_subject
from common.quality import RULES, read_limits
from common.quality_signals import NAMES
from common.report_data import PairView
from common.report_page import registration_page, save_page

SIZE = (8, 9, 10)
GAIN = read_limits()["similarity_gain"]
FULL = {
    "fixed": "a.nii.gz",
    "moving": "b.nii.gz",
    "dice_before": 0.4,
    "dice": 0.81234,
    "dice_per_label_before": {"2": 0.3},
    "dice_per_label": {"2": 0.8},
    "hd95_mm_before": 7.0,
    "hd95_mm": 2.345,
    "hd95_mm_per_label": {"2": 2.345},
    "tre_mm_before": 6.1,
    "tre_mm": 1.23,
    "tre_mm_quantiles_before": {"p50": 5.0, "p95": 12.0, "max": 13.456},
    "tre_mm_quantiles": {"p50": 1.0, "p95": 3.0, "max": 4.5},
    "sdlogj": 0.1,
    "folded_percent": 0.0,
    "inverse_residual_mm": 0.02,
    "verdict": "check",
    "reasons": ["the images are less alike than before."],
    "signals": {"similarity_gain": -0.25, "overlap": None, "displacement_percent": 12.0, "starts_mm": 2.0},
    "seconds_by_step": {"read": 1.0, "network": 3.0},
    "settings": {"bundle": "svf", "affine": "auto", "mask": None, "versions": {"torch": "2.13.0"}},
    "label_names": {"2": "left putamen"},
}


class Text(HTMLParser):
    """The text of a page without styles and scripts, a line a table's row, and every address in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.lines, self.addresses, self.hidden = [""], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.hidden = tag in ("script", "style", "select")
        self.lines += [""] if tag in ("tr", "div", "p", "li", "h1", "h2") else []
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "data", "srcset")]

    def handle_endtag(self, tag):
        self.hidden = self.hidden and tag not in ("script", "style", "select")

    def handle_data(self, data):
        if not self.hidden:
            self.lines[-1] = " ".join(f"{self.lines[-1]} {data}".split())


def view(size=SIZE) -> PairView:
    images = torch.rand(3, 1, 1, *size, generator=torch.Generator().manual_seed(0))
    return PairView(*images, torch.zeros(1, 3, *size), (1.0, 1.0, 1.0))


def lines_of(metrics: dict) -> list[str]:
    return Text(registration_page(view(), metrics)).lines


@pytest.mark.parametrize(
    "line",
    [
        "b.nii.gz onto a.nii.gz",
        "check Look at this registration before you use it.",
        "the images are less alike than before.",
        "2 left putamen 0.300 0.800 2.35",  # no HD95 before
        "Signal Value Check Failed",
        f"Similarity gain -0.25 below {GAIN.check:.4g} below {GAIN.failed:.4g}",
        "Displacement (%) 12 above 20 above 40",
        "Starts apart (mm) 2",  # nothing is held against it
        "TRE, mm mean median 95 % below largest",
        "before 6.10 5.00 12.00 13.46",
        "after 1.23 1.00 3.00 4.50",
        "read 1.00",
        "all of it 4.00",
        "bundle svf",
        "mask not set",
        "torch 2.13.0",
    ],
)
def test_what_metrics_say_is_on_the_page(line):
    assert line in lines_of(FULL)


def test_seconds_of_the_registration_alone_are_told_where_no_steps_are():
    lines = lines_of({"seconds": 2.5})
    assert "registration 2.50" in lines and not any(line.startswith("all of it") for line in lines)


def test_a_signal_beyond_a_limit_is_marked():
    signals = {"similarity_gain": GAIN.check + 1, "overlap": 0.0, "displacement_percent": 30.0, "starts_mm": 99.0}
    page = registration_page(view(), {"signals": signals})
    marked = re.findall(r'<th scope="row">([^<]+)</th><td class="(check|failed)">', page)
    assert marked == [("Overlap", "failed"), ("Displacement (%)", "check")]


def test_every_signal_that_is_held_against_limits_has_a_name():
    assert {rule.signal for rule in RULES} < set(NAMES)
    assert any(line.startswith("Overlap not known below") for line in lines_of(FULL))


def test_labels_without_overlap_are_named_and_their_hd95_explained():
    lost = FULL | {"dice_per_label": {"2": 0.0, "3": 0.1}, "hd95_mm_per_label": {"2": 83.1, "3": 9.0}}
    told = [line for line in lines_of(lost) if line.startswith("No overlap")]
    assert len(told) == 1 and told[0].startswith("No overlap after the warp: 2 left putamen. ")
    assert not any(line.startswith("No overlap") for line in lines_of(FULL))


@pytest.mark.parametrize("text", ["Dice 0.400 → 0.812", "HD95 7.00 → 2.35 mm", "TRE 6.10 → 1.23 mm", "Folds 0.0000 %"])
def test_scores_are_told_before_and_after(text):
    assert any(line.startswith(text) for line in lines_of(FULL))


@pytest.mark.parametrize("text", ["Signal", "Landmarks", "Seconds", "Settings", "Labels", "Dice 0", "check", "TRE"])
def test_what_is_not_known_is_not_on_the_page(text):
    bare = {"fixed": "a.nii.gz", "moving": "b.nii.gz", "verdict": None, "signals": {}, "dice": None}
    lines = lines_of(bare)
    assert lines[1:3] != [] and not any(line.startswith(text) for line in lines)


def test_numbers_that_are_none_are_left_out():
    lines = lines_of({"dice": float("nan"), "sdlogj": float("inf"), "tre_mm": True, "ndv_percent": "much"})
    assert not any(line.startswith(("Dice", "SDlogJ", "TRE", "NDV")) for line in lines)


def test_a_page_asks_for_nothing_and_says_so():
    """No address but those of data, none in styles or scripts, and a policy that forbids the rest."""
    page = registration_page(view(), FULL)
    assert all(address.startswith("data:") for address in Text(page).addresses)
    assert not re.search(r"https?://|//[a-z]+\.|url\(|@import|import\(|fetch\(|XMLHttp", page)
    assert "default-src 'none'; img-src data:" in page


def test_a_page_is_a_file_of_its_own(tmp_path):
    save_page(tmp_path / "report.html", view(), FULL)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == registration_page(view(), FULL)


def check_size(page: str) -> None:
    """Below 5 MB, with all its pictures."""
    assert 10**6 < len(page.encode()) < 5 * 10**6


@pytest.mark.slow
def test_a_page_of_a_whole_brain_has_less_than_five_megabytes():
    """160 x 192 x 224: anatomy with the noise of a scan, 45 labels, a rough field that folds in many places."""
    subject = phantom_subject(0, (160, 192, 224), deformation_mm=0.0)
    noise = torch.Generator().manual_seed(0)
    scale = 0.05 * subject.image.max()
    images = [subject.image[None] + scale * torch.randn(1, 1, 160, 192, 224, generator=noise) for _ in range(3)]
    coarse = torch.randn(1, 3, 20, 24, 28, generator=noise)
    ddf = 3 * torch.nn.functional.interpolate(coarse, (160, 192, 224), mode="trilinear", align_corners=True)
    page = registration_page(PairView(*images, ddf, (1.0, 1.0, 1.0), "LIA", *[subject.label[None]] * 2), FULL)
    check_size(page)
    assert int(re.search(r"most of the (\d+) folded voxels", page)[1]) > 10**4


@pytest.mark.slow
def test_a_page_of_real_brains_has_less_than_five_megabytes():
    root = os.environ.get("REGBUNDLES_TEST_DATA")
    if root is None:
        pytest.skip("REGBUNDLES_TEST_DATA is not set: it names the folder of real scans")
    names = [f"{who}_{kind}.nii.gz" for kind in ("img", "seg") for who in ("l2r_subject_1", "vxm_test_scan")]
    fixed, moving, fixed_label, moving_label = (
        torch.from_numpy(nib.load(Path(root, "brain_pair", name)).get_fdata(dtype=np.float32))[None, None]
        for name in names
    )
    still, labels = torch.zeros(1, 3, *fixed.shape[2:]), (fixed_label.int(), moving_label.int())
    check_size(registration_page(PairView(fixed, moving, moving, still, (1.0,) * 3, "LIA", *labels), FULL))
