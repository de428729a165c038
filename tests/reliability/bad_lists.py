"""Rows 57 to 61 of the table: labels, lists and landmarks; and a folder that cannot be written."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from .bad_case import Bad
from .bad_images import labels
from .study import HEADER, Study

__all__ = ["CASES", "out_in_a_file"]

Change = Callable[[Study, dict[str, list]], object]


def listed(change: Change) -> Callable[[Study], Path]:
    """A datalist whose sections a function changed."""

    def make(study: Study) -> Path:
        sections = study.sections(training=False)
        change(study, sections)
        study.text = json.dumps(HEADER | sections)
        return study.data / "datalist.json"

    return make


def of_text(old: str, new: str) -> Callable[[Study], Path]:
    """A datalist in whose text something stands for something else."""

    def make(study: Study) -> Path:
        study.text = json.dumps(HEADER | study.sections(training=False)).replace(old, new, 1)
        return study.data / "datalist.json"

    return make


def in_both(study: Study, sections: dict[str, list]) -> None:
    """Somebody who is trained on is tested."""
    sections["training"].append(study.item(study.subject))


def with_itself(study: Study, sections: dict[str, list]) -> None:
    """A pair of one image."""
    sections["validation"] = [study.pair(study.subject, study.subject)]


def set_first(section: str, key: str, value: object) -> Change:
    """One entry of the first item of a section."""
    return lambda study, sections: sections[section][0].update({key: value})


def three_findings(study: Study, sections: dict[str, list]) -> None:
    """Wrong in three places."""
    sections["training"][0]["image"] = 3
    sections["training"][1]["color"] = "red"
    del sections["validation"][0]["fixed"]


def tabled(*rows: str, head: str = "image,label") -> Callable[[Study], Path]:
    """A table of these rows for `prepare`."""

    def make(study: Study) -> Path:
        study.table = "\n".join([head, *rows, ""])
        return study.data / "scans.csv"

    return make


def without_bob(study: Study) -> Path:
    """A table with a scan that is not there."""
    return tabled(ANN, "no.nii,bob_seg.nii.gz")(study).with_name("no.nii")


def landmarks(text: str) -> Callable[[Study], Path]:
    """Landmarks of the scan under test, in voxels, and sound ones of the other."""

    def make(study: Study) -> Path:
        study.other["keypoints"] = study.data / "cyd.csv"
        (study.data / "marks.csv").write_text(text)
        return study.use(study.data / "marks.csv", "keypoints")

    return make


def marked(text: str) -> Callable[[Study], Path]:
    """The same for `prepare`, by a column of its table."""

    def make(study: Study) -> Path:
        (study.data / "marks.csv").write_text(text)
        study.table = "image,landmarks\nann.nii.gz,ann_mm.csv\nbob.nii.gz,marks.csv\n"
        return study.data / "marks.csv"

    return make


def points(text: str) -> Callable[[Study], Path]:
    """The same in mm, for a pair of files."""

    def make(study: Study) -> Path:
        (study.data / "marks.csv").write_text(text)
        paths = {"fixed_points": study.data / "cyd_mm.csv", "moving_points": study.data / "marks.csv"}
        study.ids |= paths
        study.register += [f"--{name.replace('_', '-')}={path}" for name, path in paths.items()]
        return study.data / "marks.csv"

    return make


def another_grid(study: Study) -> Path:
    """Labels that are one slice short."""
    return study.save("short_seg.nii.gz", study.voxels("label")[:-1], part="label")


def elsewhere(study: Study) -> Path:
    """Labels of the right size in another place."""
    return study.save("off_seg.nii.gz", study.voxels("label"), np.diag([6.0, 6, 6, 1]), part="label")


def out_in_a_file(study: Study) -> Path:
    """An output folder whose parent is a file."""
    (study.base / "file").write_text("not a folder")
    study.out = study.base / "file" / "out"
    return study.base / "file"


Apart = partial(Bad, alone=False)  # not the image's own fault
Listed = partial(Apart, by=("evaluate", "train", "register list"))
Marked = partial(Apart, by=("evaluate", "train"))
Tabled = partial(Apart, by=("prepare",))
ANN, BOB = "ann.nii.gz,ann_seg.nii.gz", "bob.nii.gz,bob_seg.nii.gz"
TORN = (f"{ANN},ann,training", f"{BOB},ann,testing")
SPLIT = "image,label,subject,section"
Points = partial(Apart, by=("register", "infer"))
CASES = (
    Apart(57, "a label of 1.4999", labels(3, 1.4999, np.float32), "fractional labels"),
    Apart(57, "a label of -0.5", labels(3, -0.5, np.float32), "fractional labels"),
    Apart(59, "labels of another size", another_grid, "has the grid.*expected that of"),
    Apart(59, "labels of another place", elsewhere, "has the grid.*expected that of"),
    Apart(
        60,
        "a missing file",
        listed(set_first("validation", "fixed", "no.nii")),
        "does not exist",
        ("evaluate", "register list"),
    ),
    Listed(60, "a pair twice", listed(lambda s, c: c["validation"].append(c["validation"][0])), "2 times"),
    Listed(60, "a subject twice", listed(lambda s, c: c["training"].append(c["training"][0])), "2 times"),
    Listed(60, "a subject to train and to test on", listed(in_both), "training and validation share"),
    Listed(60, "an image with itself", listed(with_itself), "as fixed and moving, expected two images"),
    Listed(60, "a path above the folder", listed(set_first("validation", "moving", "../x.nii")), "below the"),
    Listed(60, "a number for a path", listed(set_first("training", "image", 3)), "has image 3, expected a path"),
    Listed(60, "an object for a list", listed(lambda s, c: c.update(training={})), "training is a dict"),
    Listed(60, "a key twice", of_text('"name":', '"name": "again", "name":'), "key 'name' is there twice"),
    Listed(60, "NaN", of_text("[6, 6, 6]", "[6, NaN, 6]"), "the number NaN"),
    Listed(60, "a list cut short", of_text('"validation"', ""), "is not a datalist"),
    Listed(60, "three findings", listed(three_findings), "image 3.*unknown key 'color'.*no 'fixed'"),
    Tabled(60, "a missing file", without_bob, r"no\.nii cannot be opened"),
    Tabled(60, "a row twice", tabled(ANN, BOB, ANN), "line 4 has the image .* again"),
    Tabled(60, "a scan for two subjects", tabled(f"{ANN},ann", f"{ANN},bob", head="image,label,subject"), "again"),
    Tabled(60, "a subject to train and to test on", tabled(*TORN, head=SPLIT), "is in training and testing"),
    Tabled(60, "an unknown section", tabled(f"{ANN},ann,study", head=SPLIT), "the section 'study'"),
    Tabled(60, "an unknown column", tabled(f"{ANN},red", head="image,label,color"), "the column 'color'"),
    Tabled(60, "a column twice", tabled(f"{ANN},x", head="image,label,image"), "the column 'image' 2 times"),
    Tabled(60, "no column of images", tabled(ANN, head="scan,label"), "no column 'image'"),
    Tabled(60, "a cell too many", tabled(f"{ANN},x", BOB), "line 2 has more cells"),
    Tabled(60, "an empty cell", tabled(",ann_seg.nii.gz", BOB), "line 2 has no image"),
    Tabled(60, "no row", tabled(), "it has no row"),
    Marked(61, "four columns", landmarks("1,2,3,4\n" * 3), "3 x 4 table"),
    Marked(61, "words", landmarks("x,y,z\n1,2,3\n"), "is not a table of landmarks"),
    Marked(61, "landmarks in mm for voxels", landmarks("-60,20,30\n" * 3), "3 landmarks outside its image"),
    Marked(61, "NaN", landmarks("1,2,3\n4,nan,6\n7,8,9\n"), "finite: False"),
    Marked(61, "none", landmarks(""), "0 x 0 table"),
    Marked(61, "another number of landmarks", landmarks("1,2,3\n"), "expected as many"),
    Points(61, "another number of points", points("# space: LPS mm\nx,y,z\n1,2,3\n"), "as many"),
    Points(61, "points of no space", points("x,y,z\n" + "1,2,3\n" * 3), "LPS or RAS"),
    Points(61, "points of NaN", points("# space: LPS mm\nx,y,z\n1,nan,3\n"), "'nan', expected finite"),
    Tabled(61, "points of no space", marked("x,y,z\n" + "1,2,3\n" * 3), "LPS or RAS"),
    Tabled(61, "points of NaN", marked("# space: LPS mm\nx,y,z\n1,nan,3\n"), "'nan', expected finite"),
    Tabled(61, "points beyond the scan", marked("# space: LPS mm\nx,y,z\n" + "900,2,3\n" * 3), "outside"),
)
