import csv
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from common.cohort import FailedPair, write_failures
from common.datalist import read_datalist
from common.errors import RegInputError
from common.phantom import ensure_phantom
from tools.__main__ import app
from tools.register import register
from tools.report.gather import gather
from tools.report.index import write_index

from .folders import write_pair


def test_the_command_writes_the_page_and_the_table_worst_first(tmp_path):
    write_pair(tmp_path / "good", verdict="ok", dice=0.9)
    write_pair(tmp_path / "bad", verdict="failed", reasons=["It folds."])
    (tmp_path / "metrics.json").write_text("{")
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 0
    assert "2 pairs (1 failed, 1 ok); 1 file left out" in done.output
    with (tmp_path / "index.csv").open(newline="") as file:
        assert [row["pair"] for row in csv.DictReader(file)] == ["bad", "good"]
    text = (tmp_path / "index.html").read_text()
    assert text.index('"bad"') < text.index('"good"') and "It folds." in text


def test_pairs_that_were_not_registered_are_counted_and_stand_first_with_their_sentence(tmp_path):
    write_pair(tmp_path / "f__m", verdict="failed", dice=0.1, reasons=["it folds"])
    write_failures(
        [FailedPair("f__n", "f.nii", "n.nii", "n.nii has one value, expected two.")], tmp_path / "failures.csv"
    )
    assert "2 pairs (2 failed)" in write_index(tmp_path, tmp_path / "index.html")
    with (tmp_path / "index.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["pair"], first["verdict"], first["reasons"]) == (
        "f__n",
        "failed",
        "n.nii has one value, expected two.",
    )
    assert (first["fixed"], first["moving"], first["folder"]) == ("f.nii", "n.nii", "") and second["pair"] == "f__m"


def test_the_page_may_lie_elsewhere(tmp_path):
    write_pair(tmp_path / "in" / "p", files=("thumbnail.jpg",))
    write_index(tmp_path / "in", tmp_path / "out" / "page.html")
    assert '"base":"../in/"' in (tmp_path / "out" / "page.html").read_text()
    assert (tmp_path / "out" / "page.csv").is_file()
    assert sorted(os.listdir(tmp_path / "in")) == ["p"]


def test_its_own_page_is_replaced_and_a_foreign_one_is_not(tmp_path):
    write_pair(tmp_path / "p")
    write_index(tmp_path, tmp_path / "index.html")
    write_pair(tmp_path / "q")
    write_index(tmp_path, tmp_path / "index.html")
    assert '"q"' in (tmp_path / "index.html").read_text()
    for name in ("index.html", "index.csv"):
        kept = (tmp_path / name).read_text()
        (tmp_path / name).write_text("mine")
        with pytest.raises(RegInputError, match=f"{name} is not from"):
            write_index(tmp_path, tmp_path / "index.html")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).write_text(kept)


def test_a_failure_leaves_the_old_page_and_nothing_else(tmp_path, monkeypatch):
    write_pair(tmp_path / "p")
    write_index(tmp_path, tmp_path / "index.html")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("index.*")}
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError):
        write_index(tmp_path, tmp_path / "index.html")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("out", ["page.txt", "page", "."])
def test_the_page_has_to_end_in_html(tmp_path, out):
    write_pair(tmp_path / "p")
    with pytest.raises(RegInputError, match=r"ends in \.html"):
        write_index(tmp_path, tmp_path / out)


def test_nothing_is_written_without_a_pair(tmp_path):
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert isinstance(done.exception, RegInputError) and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_register_writes_is_on_the_page(tmp_path):
    data = ensure_phantom(tmp_path / "data", subjects=2, size=(24, 24, 24), validation_pairs=1, testing_pairs=2)
    register("svf", tmp_path / "out", {"dataset_dir": data, "section": "testing"}, quiet=True)
    found = gather(tmp_path / "out")
    assert len(found.pairs) == 2 and not found.left_out
    for pair in found.pairs:
        assert pair.method == "svf" and set(pair.files) == {"report", "thumbnail", "picture"}
        assert {"dice_before", "dice", "sdlogj", "inverse_residual_mm", "seconds", "seconds_total"} <= set(pair.numbers)
        assert pair.numbers["seconds_total"] > pair.numbers["seconds"] > 0


@pytest.mark.slow
def test_a_pair_that_register_refuses_is_on_the_page(tmp_path):
    data = ensure_phantom(tmp_path / "data", subjects=2, size=(24, 24, 24), validation_pairs=1, testing_pairs=2)
    spoiled = Path(read_datalist(data, "testing")[1]["moving"])
    image = nib.load(spoiled)
    nib.save(nib.Nifti1Image(np.full(image.shape, 7, np.float32), image.affine), spoiled)
    with pytest.raises(RegInputError, match="1 of 2 pairs failed"):
        register("svf", tmp_path / "out", {"dataset_dir": data, "section": "testing"}, quiet=True)
    assert "2 pairs (1 failed, 1 " in write_index(tmp_path / "out", tmp_path / "out" / "index.html")
    (pair,) = (pair for pair in gather(tmp_path / "out").pairs if pair.folder is None)
    assert pair.moving == spoiled.name and spoiled.name in pair.reasons[0]
