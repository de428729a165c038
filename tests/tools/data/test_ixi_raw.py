"""Tiny copies of IXI's T1 scans and of FreeSurfer's output of them go the whole way."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from common.affine import AffineResult
from common.datalist import check_datalist, read_datalist, read_header
from common.errors import RegInputError
from tests.tools.data.brain_labels import brain
from tools.__main__ import app
from tools.data import align, ixi_raw
from tools.data import prepared as prepared_module
from tools.data.aseg import ASEG_NAMES
from tools.data.brain import outside_fraction
from tools.data.ixi_layout import NUMBERS, SCORED
from tools.data.ixi_raw import find_scans, prepare, section_of
from tools.data.label_orientation import ASEG

NAMES = ("IXI002-Guys-0828", "IXI012-HH-1211", "IXI017-Guys-0698", "IXI028-Guys-1038")
PIR = np.array([[0, 0, 5.0, -60], [-5, 0, 0, 70], [0, -5, 0, 66], [0, 0, 0, 1]])  # IXI's axes, voxels of 5 mm
SAME_PLACE = AffineResult(np.eye(4), -0.5, 1, overlap=1.0, lead=2.0)


def write(array, path, affine=PIR, kind=nib.Nifti1Image):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(kind(array, affine), path)


def scan(number):
    """A brain's intensities up to 800 and its labels, in IXI's axes."""
    image, labels = brain(ASEG, ASEG_NAMES, "PIR", seed=number)
    return (800 * image).astype(np.int16), labels


def heads(raw):
    """T1 scans in which what surrounds the brain is brighter."""
    for number, name in enumerate(NAMES):
        image, _ = scan(number)
        around = 900 + 40 * (np.indices(image.shape).sum(0) % 2)
        write(np.where(image > 0, image, around).astype(np.int16), raw / "IXI-T1" / f"{name}-T1.nii.gz")
    return raw


def masks(folder):
    for number, name in enumerate(NAMES):
        write((scan(number)[0] > 0).astype(np.uint8), folder / f"{name}_brain.nii.gz")
    return str(folder / "{id}_brain.nii.gz")


def freesurfer(raw):
    for number, name in enumerate(NAMES):
        image, labels = scan(number)
        write((image // 4).astype(np.uint8), raw / f"{name}-T1" / "mri" / "norm.mgz", kind=nib.MGHImage)
        write(labels.astype(np.int32), raw / f"{name}-T1" / "mri" / "aseg.mgz", kind=nib.MGHImage)
    return raw


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def quick(monkeypatch):
    """No alignment, no pictures, and 4 mm allowed, where a test is about something else: these take the time."""
    monkeypatch.setattr(align, "register_affine", lambda *images, **options: SAME_PLACE)
    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: list(rows))
    monkeypatch.setattr(ixi_raw, "SPACINGS", (1.0, 2.0, 4.0))


def run(raw, out, **options):
    return prepare(str(raw), str(out), **{"spacing": 4.0, "workers": 1} | options).parent


def test_the_sections_follow_the_number_alone():
    names = [f"IXI{number:03}-HH-{number:04}" for number in range(2, 662)]
    counts = [sum(section_of(name) == part for name in names) for part in ("training", "validation", "testing")]
    assert counts == [462, 66, 132]  # 7 : 1 : 2
    assert section_of("IXI017-Guys-0698") == "validation" and section_of("IXI170-HH-1788") == "training"


@pytest.mark.usefixtures("quick")
def test_heads_under_masks_come_out_as_brains(tmp_path):
    out = run(heads(tmp_path / "raw"), tmp_path / "out", mask=masks(tmp_path / "masks"))
    header = read_header(str(out))
    assert (header["name"], header["orientation"], header["labels"]) == ("ixi_raw", "LIA", {})
    assert header["brain_mask"] == "from files given with the scans"
    image = nib.load(out / f"images/{NAMES[1]}.nii.gz")
    assert image.shape == (40, 48, 56) and nib.aff2axcodes(image.affine) == ("L", "I", "A")
    volume = np.count_nonzero(image.get_fdata() > 0.1) * 64
    assert abs(volume / (np.count_nonzero(scan(1)[0]) * 125) - 1) < 0.15  # the skull would fill the grid


@pytest.mark.usefixtures("quick")
def test_the_first_training_subject_is_the_atlas_of_every_pair(tmp_path):
    out = run(heads(tmp_path / "raw"), tmp_path / "out", mask=masks(tmp_path / "masks"))
    content = json.loads((out / "datalist.json").read_text())
    assert content["atlas"] == content["training"][0]["image"] == f"images/{NAMES[0]}.nii.gz"
    assert [item["image"] for item in content["training"]] == [f"images/{name}.nii.gz" for name in NAMES[:2]]
    for section, name in (("validation", NAMES[2]), ("testing", NAMES[3])):
        assert content[section] == [{"fixed": f"images/{name}.nii.gz", "moving": f"images/{NAMES[0]}.nii.gz"}]
        check_datalist(read_datalist(str(out), section))


@pytest.mark.usefixtures("quick")
def test_freesurfers_output_brings_brains_and_labels(tmp_path):
    """Preferred to the heads beside it; other numbers than the 46 become 0."""
    raw = freesurfer(heads(tmp_path / "raw"))
    path = raw / f"{NAMES[1]}-T1/mri/aseg.mgz"
    labels = np.asarray(nib.load(path).dataobj).astype(np.int32)
    write(np.where(labels == 62, 1001, labels), path, kind=nib.MGHImage)
    out = run(raw, tmp_path / "out")
    assert sorted(read_header(str(out))["labels"]) == list(SCORED)
    for section in ("training", "validation", "testing"):
        check_datalist(read_datalist(str(out), section))
    values = nib.load(out / f"labels/{NAMES[1]}.nii.gz")
    assert values.get_data_dtype() == np.uint8 and NUMBERS.index(62) not in np.asarray(values.dataobj)
    image = nib.load(out / f"images/{NAMES[1]}.nii.gz").get_fdata()
    assert outside_fraction(image > 0.1, np.asarray(values.dataobj)) < 0.15
    rows = {row["id"]: row for row in csv.DictReader(open(out / "report.csv"))}
    assert rows[NAMES[0]]["raw_orientation"] == "PIR" and int(rows[NAMES[0]]["labels_found"]) > 10


@pytest.mark.usefixtures("quick")
def test_a_second_run_writes_the_same_bytes_in_place_and_anew(tmp_path):
    raw = freesurfer(tmp_path / "raw")
    first = contents(run(raw, tmp_path / "first"))
    assert contents(run(raw, tmp_path / "first")) == first == contents(run(raw, tmp_path / "second"))


@pytest.mark.usefixtures("quick")
def test_heads_without_a_mask_are_refused_all_at_once(tmp_path):
    with pytest.raises(RegInputError, match=r"4 findings.*is not skull-stripped.*--mask a path with \{id\}") as caught:
        run(heads(tmp_path / "raw"), tmp_path / "out")
    assert all(f"{name}-T1.nii.gz" in str(caught.value) for name in NAMES)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("quick")
def test_bad_input_is_refused_before_any_work(tmp_path):
    raw, mask = heads(tmp_path / "raw"), masks(tmp_path / "masks")
    (tmp_path / f"masks/{NAMES[0]}_brain.nii.gz").unlink()
    write(np.ones((4, 4, 4), np.uint8), tmp_path / f"masks/{NAMES[1]}_brain.nii.gz")
    path = raw / f"IXI-T1/{NAMES[2]}-T1.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RegInputError, match=r"3 findings.*cannot be opened.*has the grid"):
        run(raw, tmp_path / "out", mask=mask)
    shutil.copy(raw / f"IXI-T1/{NAMES[0]}-T1.nii.gz", raw)
    with pytest.raises(RegInputError, match=f"{NAMES[0]} is there 2 times"):
        find_scans(raw)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"spacing": 1.5}, "spacing is 1.5"),
        ({"mask": "brains"}, r"mask is 'brains', expected none or a path with \{id\}"),
        ({"mask": "{id}.nii.gz"}, "expected none beside FreeSurfer files"),
        ({"template": "nowhere.nii.gz"}, "nowhere.nii.gz cannot be opened"),
    ],
)
def test_bad_options_are_refused(tmp_path, option, text):
    with pytest.raises(RegInputError, match=text):
        run(freesurfer(tmp_path / "raw"), tmp_path / "out", **option)


def test_a_folder_without_scans_says_what_is_expected(tmp_path):
    with pytest.raises(RegInputError, match=r"has 0 scans.*expected IXI<number>-<site>-<number>-T1.nii.gz"):
        find_scans(tmp_path)


def test_the_command_takes_masks_or_a_template_head(tmp_path):
    raw = heads(tmp_path / "raw")
    command = ["data", "prepare", "ixi-raw", "--raw", str(raw), "--out", str(tmp_path / "out")]
    error = CliRunner().invoke(app, command).exception
    assert isinstance(error, RegInputError) and "--template-head" in str(error)
    error = CliRunner().invoke(app, [*command, "--template-head", "head.nii.gz"]).exception
    assert isinstance(error, RegInputError) and "name both" in str(error)


@pytest.mark.slow
def test_the_command_aligns_shifted_brains(tmp_path):
    """FreeSurfer's files at wrong places: after alignment the labels lie on the atlas's."""
    raw = freesurfer(tmp_path / "raw")
    for number, name in enumerate(NAMES):
        for path in (raw / f"{name}-T1" / "mri").iterdir():
            affine = PIR.copy()
            affine[:3, 3] += 20 * number
            write(np.asarray(nib.load(path).dataobj), path, affine, nib.MGHImage)
    command = ["data", "prepare", "ixi-raw", "--raw", str(raw), "--out", str(tmp_path / "out"), "--spacing", "2"]
    result = CliRunner().invoke(app, [*command, "--workers", "1"])
    assert result.exit_code == 0, result.output
    labels = [np.asarray(nib.load(tmp_path / f"out/labels/{name}.nii.gz").dataobj) > 0 for name in NAMES]
    for other in labels[1:]:
        assert 2 * (labels[0] & other).sum() / (labels[0].sum() + other.sum()) > 0.85
