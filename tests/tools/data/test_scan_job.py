import numpy as np

from tools.data.brain import Grid
from tools.data.recipe import Recipe
from tools.data.scan_job import Reference, job_for, parts_of
from tools.data.scans import Scan

from .own_scans import GRID, SIZE


def test_a_job_is_another_one_where_anything_that_it_depends_on_differs(tmp_path):
    files = {name: tmp_path / name for name in ("image", "other", "mask", "head", "head_mask", "reference")}
    for name, path in files.items():
        path.write_text(name)
    scan, recipe, grid = Scan(files["image"], name="a"), Recipe("other"), Grid(SIZE, GRID)
    heads = Recipe("brain", template_head=files["head"], template_mask=files["head_mask"])
    jobs = [
        (scan, recipe, grid, None),
        (Scan(files["other"], name="a"), recipe, grid, None),
        (Scan(files["image"], label=files["mask"], name="a"), recipe, grid, None),
        (Scan(files["image"], mask=files["mask"], name="a"), recipe, grid, None),
        (scan, recipe._replace(window=(0.0, 1.0)), grid, None),
        (scan, recipe._replace(modality="ct"), grid, None),
        (scan, recipe._replace(points_space="LPS"), grid, None),
        (scan, Recipe("brain"), grid, None),
        (scan, heads, grid, None),
        (scan, heads._replace(template_mask=files["mask"]), grid, None),
        (scan, recipe, Grid((3, 4, 5), GRID), None),
        (scan, recipe, Grid(SIZE, GRID @ np.diag([2, 1, 1, 1])), None),
        (scan, recipe, grid, Reference(files["reference"])),
        (scan, recipe, grid, Reference(files["other"])),
        (scan, recipe, grid, Reference(files["reference"], files["mask"])),
        (scan, recipe._replace(align="rigid"), grid, Reference(files["reference"])),
    ]

    def digests():
        return [job_for(scan, recipe, grid, tmp_path, reference).settings for scan, recipe, grid, reference in jobs]

    first = digests()
    assert len(set(first)) == len(jobs) and digests() == first
    files["reference"].write_text("changed")
    assert [k for k, (old, new) in enumerate(zip(first, digests(), strict=True)) if old != new] == [12, 14, 15]


def test_a_brain_always_has_a_mask_and_other_scans_the_users(tmp_path):
    scan, path = Scan(tmp_path / "a"), tmp_path / "m"
    assert parts_of(scan, Recipe("brain")) == ("mask",)
    assert parts_of(scan, Recipe("brain", whole_head=True)) == parts_of(scan, Recipe("other")) == ()
    assert parts_of(Scan(tmp_path / "a", "", path, path, path), Recipe("other")) == ("label", "keypoints", "mask")
