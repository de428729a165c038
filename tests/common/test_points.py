"""Files of landmarks: whose space a point is in, and that it comes back where it was."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from common.errors import RegEnvError, RegInputError
from common.points import Points, read_points, write_points

DATA = os.environ.get("REGBUNDLES_TEST_DATA")
RAS = [[-1.0, -2.0, 3.0], [4.5, -50.0, 6.0]]  # what every file below says, (1, 2, 3) and (-4.5, 50, 6) in LPS

SLICER_5 = """\
# Markups fiducial file version = 4.13
# CoordinateSystem = {space}
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
0,{a},0,0,0,1,1,1,0,"tip, left",,
vtkMRMLMarkupsFiducialNode_1,{b},0,0,0,1,1,1,0,base,,
"""
LPS_ROWS, RAS_ROWS = {"a": "1,2,3", "b": "-4.5,50,6"}, {"a": "-1,-2,3", "b": "4.5,-50,6"}
VTK = "# vtk DataFile Version 3.0\n{title}\nASCII\nDATASET POLYDATA\nPOINTS 2 float\n1 2 3 -4.5 \n5e1 6\nVERTICES 1 3 1"


def markups(space="LPS", points=((1, 2, 3), (-4.5, 50, 6)), **more):
    control = [{"label": f"F-{k}", "position": list(point)} for k, point in enumerate(points, 1)]
    stated = {"coordinateSystem": space} if space is not None else {}
    return json.dumps({"@schema": "s", "markups": [{"type": "Fiducial", **stated, "controlPoints": control, **more}]})


STATED = {
    "comment.csv": "# space: LPS mm\nx,y,z\n1,2,3\n-4.5,50,6\n",
    "ras.csv": "# coordinate system = RAS, by hand\nx, y, z\n-1, -2, 3\n4.5, -50, 6",
    "columns.csv": "label,x_lps,y_lps,z_lps\na,1,2,3\nb,-4.5,50,6\n",
    "unit.csv": "z_ras_mm,y_ras_mm,x_ras_mm\n3,-2,-1\n6,-50,4.5\n",
    "slicer.csv": "label,l,p,s,defined,selected\nF-1,1,2,3,1,1\nF-2,-4.5,50,6,1,1\n",
    "slicer_ras.csv": "label,r,a,s,defined,selected\nF-1,-1,-2,3,1,1\nF-2,4.5,-50,6,1,1\n",
    "bom.csv": "\ufeff# space: lps\r\nX,Y,Z\r\n1,2,3\r\n\r\n-4.5,50,6\r\n",
    "slicer_5.fcsv": SLICER_5.format(space="LPS", **LPS_ROWS),
    "slicer_5_ras.fcsv": SLICER_5.format(space="RAS", **RAS_ROWS),
    "slicer_4.fcsv": SLICER_5.format(space="0", **RAS_ROWS),
    "slicer_4_lps.fcsv": SLICER_5.format(space="1", **LPS_ROWS),
    "f.mrk.json": markups(),
    "ras.mrk.json": markups("RAS", RAS, coordinateUnits="mm"),
    "slicer.vtk": VTK.format(title="3D Slicer output. SPACE=LPS"),
}


@pytest.mark.parametrize("name", STATED)
def test_a_stated_space_is_kept(tmp_path, name):
    (tmp_path / name).write_text(STATED[name], encoding="utf-8", newline="")
    points = read_points(tmp_path / name)
    assert points.mm.tolist() == RAS
    assert points.mm.dtype == np.float64


SILENT = {
    "a.csv": "x,y,z\n1,2,3\n-4.5,50,6\n",
    "bare.csv": "1,2,3\n-4.5,50,6\n",
    "ants.csv": "x,y,z,t,label\n1,2,3,0,1\n-4.5,50,6,0,2\n",
    "old.fcsv": "# columns = label,x,y,z,sel,vis\nF1,1,2,3,1,1\nF2,-4.5,50,6,1,1\n",
    "f.mrk.json": markups(None),
    "p.vtk": VTK.format(title="vtk output"),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_silent_file_is_read_only_with_its_space_named(tmp_path, name):
    (tmp_path / name).write_text(SILENT[name])
    assert read_points(tmp_path / name, "LPS").mm.tolist() == RAS
    assert read_points(str(tmp_path / name), "ras").mm.tolist() == [[1, 2, 3], [-4.5, 50, 6]]
    with pytest.raises(RegInputError, match=r"does not say whether its points are in LPS or RAS mm, .* table\.$"):
        read_points(tmp_path / name)


@pytest.mark.parametrize("name", STATED)
def test_another_space_than_the_stated_one_is_refused(tmp_path, name):
    (tmp_path / name).write_text(STATED[name], encoding="utf-8")
    other = "LPS" if "ras" in name or name == "unit.csv" or name == "slicer_4.fcsv" else "RAS"
    with pytest.raises(RegInputError, match=rf"states \w+, but {other} was named, expected the same; correct one\.$"):
        read_points(tmp_path / name, other)


def test_names_come_along(tmp_path):
    expected = {"slicer_5.fcsv": ("tip, left", "base"), "columns.csv": ("a", "b"), "comment.csv": ()}
    for name, names in expected.items():
        (tmp_path / name).write_text(STATED[name])
        assert read_points(tmp_path / name).names == names
    (tmp_path / "ants.csv").write_text(SILENT["ants.csv"])
    assert read_points(tmp_path / "ants.csv", "LPS").names == ("1", "2")


def test_a_voxel_of_itk_lies_where_nibabel_has_it(tmp_path):
    """SimpleITK says where voxels are in LPS; a table of that is what nibabel's affine says in RAS."""
    affine = np.array([[-1.1, 0.2, 0.1, 30], [0.3, 0.9, -0.4, -20], [0.1, 0.5, 2.0, 7], [0, 0, 0, 1]])
    affine[:3, :3] = np.linalg.qr(affine[:3, :3])[0] * [1.1, 0.9, 2.0]
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), affine), tmp_path / "image.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "image.nii.gz"))
    voxels = [(0, 0, 0), (3, 1, 5), (2, 4, 3)]
    rows = [",".join(map(repr, image.TransformIndexToPhysicalPoint(voxel))) for voxel in voxels]
    (tmp_path / "p.csv").write_text("\n".join(["# space: LPS mm", "x,y,z", *rows]))
    expected = nib.affines.apply_affine(affine, voxels)
    np.testing.assert_allclose(read_points(tmp_path / "p.csv").mm, expected, atol=1e-5)  # ITK's header is float32


@pytest.mark.parametrize("space", ["LPS", "RAS"])
@pytest.mark.parametrize("name", ["p.csv", "p.fcsv", "p.mrk.json", "P.CSV"])
@pytest.mark.parametrize("names", [(), ("tip", 'ä, "b"', "3")], ids=["anonymous", "named"])
def test_round_trip_keeps_every_digit(tmp_path, name, space, names):
    mm = np.array([[1 / 3, -2e-7, 1234.56789012345], [0.0, -1e3, 1e-12], [-0.1, 0.2, 0.3]])
    write_points(tmp_path / name, Points(mm, names), space)
    again = read_points(tmp_path / name)
    assert again.mm.tolist() == mm.tolist()
    assert again.names == names
    assert list(tmp_path.iterdir()) == [tmp_path / name]


@pytest.mark.parametrize("name", ["p.csv", "p.fcsv", "p.mrk.json"])
def test_two_dimensions(tmp_path, name):
    mm = np.array([[1.5, -2.0], [3.0, 4.25]])
    write_points(tmp_path / name, Points(mm), "LPS")
    assert read_points(tmp_path / name, ndim=2).mm.tolist() == mm.tolist()


@pytest.mark.parametrize("z", [[0.0, 0.5], [np.pi, np.pi]])
def test_points_off_the_plane_are_not_flattened(tmp_path, z):
    write_points(tmp_path / "p.csv", Points(np.array([[1.0, 2.0, z[0]], [1.0, 2.0, z[1]]])))
    with pytest.raises(RegInputError, match="has points of 3 coordinates, expected 2"):
        read_points(tmp_path / "p.csv", ndim=2)


def test_flat_points_are_no_points_of_a_volume(tmp_path):
    write_points(tmp_path / "p.csv", Points(np.array([[1.0, 2.0]])))
    with pytest.raises(RegInputError, match="has points of 2 coordinates, expected 3"):
        read_points(tmp_path / "p.csv", ndim=3)


def test_a_written_table_is_plain(tmp_path):
    """As numpy reads it, and as a person does."""
    write_points(tmp_path / "p.csv", Points(np.array(RAS)), "LPS")
    assert (tmp_path / "p.csv").read_bytes() == b"# space: LPS mm\nx,y,z\n1.0,2.0,3.0\n-4.5,50.0,6.0\n"
    assert np.loadtxt(tmp_path / "p.csv", delimiter=",", skiprows=2).tolist() == [[1, 2, 3], [-4.5, 50, 6]]


def test_slicers_files_have_what_slicer_reads(tmp_path):
    for name in ("p.fcsv", "p.mrk.json"):
        write_points(tmp_path / name, Points(np.array(RAS), ("tip, left", "base")), "LPS")
    lines = (tmp_path / "p.fcsv").read_text().splitlines()
    assert lines[1] == "# CoordinateSystem = LPS"
    assert lines[3] == '0,1.0,2.0,3.0,0,0,0,1,1,1,0,"tip, left",,'
    markup = json.loads((tmp_path / "p.mrk.json").read_text())["markups"][0]
    assert (markup["type"], markup["coordinateSystem"], markup["coordinateUnits"]) == ("Fiducial", "LPS", "mm")
    assert markup["controlPoints"][1]["position"] == [-4.5, 50, 6]


HEAD = "# space: LPS mm\n"
BAD = {
    "a.txt": ("x", "is no file of points, expected one of .csv, .fcsv, .mrk.json, .vtk"),
    "a.json": ("{}", "is no file of points"),
    "empty.csv": ("", "holds no point"),
    "header.csv": (HEAD + "x,y,z\n", "holds no point"),
    "ragged.csv": (HEAD + "x,y,z\n1,2,3\n1,2\n", "point 2 of .* has 2 cells, its header 3"),
    "bare.csv": (HEAD + "1,2,3\n1,2\n", "point 2 of .* has 2 cells"),
    "wide.csv": (HEAD + "1,2,3,4\n", "has the columns 1,2,3,4, expected x,y,z"),
    "text.csv": (HEAD + "x,y,z\n1,2,3\n1,two,3\n", "point 2 of .* has 'two', expected finite numbers"),
    "nan.csv": (HEAD + "x,y,z\nnan,2,3\n", "point 1 of .* has 'nan'"),
    "inf.csv": (HEAD + "x,y,z\n1,2,-inf\n", "point 1 of .* has '-inf'"),
    "gap.csv": (HEAD + "x,y,z\n1,,3\n", "point 1 of .* has ''"),
    "semicolons.csv": (HEAD + "x;y;z\n1;2;3\n", "has the columns x;y;z"),
    "ijk.csv": (HEAD + "i,j,k\n1,2,3\n", "has the columns i,j,k"),
    "twice.csv": (HEAD + "x,x,y\n1,2,3\n", "has the columns x,x,y"),
    "mixed.csv": ("x_lps,y_ras,z\n1,2,3\n", "states LPS and RAS, expected one space"),
    "both.csv": (HEAD + "x_ras,y_ras,z_ras\n1,2,3\n", "states LPS and RAS"),
    "cm.csv": ("# space: LPS cm\nx,y,z\n1,2,3\n", "says '# space: LPS cm', expected mm"),
    "voxel.csv": ("# space: voxel\nx,y,z\n1,2,3\n", "is 'VOXEL', expected LPS or RAS"),
    "quote.csv": (HEAD + 'x,y,z\n1,2,"3\n', "is no table"),
    "ijk.fcsv": (SLICER_5.format(space="2", **LPS_ROWS), "is '2', expected LPS or RAS"),
    "cut.fcsv": (SLICER_5.format(space="LPS", **LPS_ROWS)[:-6], "point 2 of .* cells"),
    "a.mrk.json": ("{", "is no markups file of 3D Slicer"),
    "b.mrk.json": ("[1]", "is no markups file of 3D Slicer"),
    "c.mrk.json": ('{"markups": []}', "holds 0 lists of points, expected one"),
    "d.mrk.json": (markups(points=[]), "holds no point"),
    "e.mrk.json": (markups(points=[(1, 2, 3), (1, 2)]), "point 2 of .* has 2 coordinates, the first 3"),
    "f.mrk.json": (markups(points=[(1, 2, None)]), "point 1 of .* has None"),
    "g.mrk.json": (markups(coordinateUnits="cm"), "is in cm, expected mm"),
    "h.mrk.json": (
        '{"markups": [{"controlPoints": [{"position": [0, 0, 0], "positionStatus": "undefined"}]}]}',
        "point 1 of .* was never placed",
    ),
    "a.vtk": ("# vtk DataFile Version 3.0\nx\nBINARY\nDATASET POLYDATA\nPOINTS 1 float\n?", "in ASCII"),
    "b.vtk": (VTK.format(title="SPACE=LPS").partition("3 -4.5")[0], "has 2 coordinates, its header claims 6"),
    "c.vtk": ("# vtk DataFile Version 3.0\nx\nASCII\nDATASET POLYDATA\n", "holds no point"),
    "d.vtk": ("POINTS 1 float\n1 2 3", "is no legacy VTK file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path, name):
    (tmp_path / name).write_text(BAD[name][0])
    with pytest.raises(RegInputError, match=BAD[name][1]) as error:
        read_points(tmp_path / name)
    assert "\n" not in str(error.value)


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(RegInputError, match=r"cannot be opened \(No such file"):
        read_points(tmp_path / "a.csv", "LPS")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe1\x00")
    with pytest.raises(RegInputError, match=r"is no text \(byte 0\)"):
        read_points(tmp_path / "a.csv", "LPS")
    (tmp_path / "b.csv").write_text("1,2,3\n")
    with pytest.raises(RegInputError, match="is 'XYZ', expected LPS or RAS"):
        read_points(tmp_path / "b.csv", "XYZ")


@pytest.mark.parametrize(
    "name, mm, names, space, message",
    [
        ("a.vtk", [[1, 2, 3]], (), "LPS", "expected one of .csv, .fcsv, .mrk.json"),
        ("a.csv", [[1, 2, 3]], ("a", "b"), "LPS", "2 names came with 1 points"),
        ("a.csv", [[1, 2, np.nan]], (), "LPS", "expected finite"),
        ("a.csv", [[1, 2, 3, 4]], (), "LPS", r"shape \(1, 4\)"),
        ("a.csv", np.zeros((0, 3)), (), "LPS", r"shape \(0, 3\)"),
        ("a.csv", [[1, 2, 3]], (), "ITK", "is 'ITK', expected LPS or RAS"),
    ],
)
def test_what_is_no_set_of_points_is_not_written(tmp_path, name, mm, names, space, message):
    with pytest.raises(RegInputError, match=message):
        write_points(tmp_path / name, Points(np.array(mm, dtype=float), names), space)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(RegEnvError, match="could not be written"):
        write_points(tmp_path / "a" / "p.csv", Points(np.zeros((1, 3))))


@pytest.mark.skipif(not DATA, reason="REGBUNDLES_TEST_DATA names no folder of scans")
def test_landmarks_of_a_liver_lie_inside_its_scan():
    folder = Path(DATA) / "liver_mr"
    points = read_points(folder / "dataset19_exhMasterLMliver.vtk", "LPS")
    image = sitk.ReadImage(str(folder / "dataset19_exhMaster_unmasked.force_direction.mha"))
    voxels = np.array([image.TransformPhysicalPointToContinuousIndex(p) for p in points.mm * [-1, -1, 1]])
    assert len(points.mm) == 36
    assert ((voxels > 0) & (voxels < np.array(image.GetSize()) - 1)).all()
