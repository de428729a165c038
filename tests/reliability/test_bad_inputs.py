"""The 64 bad inputs: one sentence, nothing left, within seconds; and what only looks bad works.

Tables: bad_files.py, bad_images.py, bad_lists.py. Each row goes through one command by default, through all of them in
the slow run.
"""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.checkpoint import load_checkpoint, save_checkpoint

from .bad_alone import is_asked, right_alone
from .bad_case import Bad
from .bad_images import labels, mapped
from .bad_inputs import ROWS
from .bad_lists import out_in_a_file
from .bad_verdict import differences, faults_of
from .study import COMMANDS, Study, answers_of, run, write_scans

SUBJECT = "bad inputs"
LARGE = 2**24 + 1  # the first whole number that float32 does not hold


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    write_scans(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def imported(scans, tmp_path_factory) -> None:
    """The sound study goes through every command; what they import late is imported then."""
    for command in ("register", "register list", "prepare", "evaluate", "train", "infer"):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            assert run(command, fresh(scans, tmp_path_factory.mktemp(command))).status == 0, said.getvalue()


def fresh(scans: Path, folder: Path) -> Study:
    """A sound study of its own."""
    study = Study(folder)
    study.data.mkdir()
    for path in scans.iterdir():
        (study.data / path.name).write_bytes(path.read_bytes())
    return study


@pytest.fixture
def new(scans, tmp_path_factory) -> Callable[[], Study]:
    """Makes sound studies."""
    return lambda: fresh(scans, tmp_path_factory.mktemp("study"))


@pytest.fixture
def heard(capfd) -> Callable[[], str]:
    """What commands have said on standard error since it was last asked for."""
    return lambda: capfd.readouterr().err


def wrong_in(cases, some: Callable[[tuple], tuple], new, heard) -> list[str]:
    """What goes wrong with cases of the table, by some of their commands."""
    wrong = []
    for case in cases:
        for command in some(case.by):
            faults = faults_of(case, command, new(), heard) if isinstance(case, Bad) else None
            wrong += differences(case, command, new, heard) if faults is None else faults
    return wrong


@pytest.mark.parametrize("row", sorted(ROWS))
def test_a_bad_input_is_refused_in_one_sentence_and_an_odd_one_works(row, new, heard, ledger, count):
    wrong = wrong_in(ROWS[row], lambda by: by[: count(len(by), 1)], new, heard)
    ledger.tell(SUBJECT, str(row), not wrong)
    if ledger.kept and (asked := [case for case in ROWS[row] if is_asked(case)]):
        ledger.tell_alone(SUBJECT, str(row), all(right_alone(case, new) for case in asked), "nibabel, MONAI")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("row", sorted(ROWS))
def test_so_it_is_by_every_command(row, new, heard, count):
    if count(1, 0):
        pytest.skip("the test above has done it")
    wrong = wrong_in(ROWS[row], lambda by: by[1:], new, heard)
    assert not wrong, "\n".join(wrong)


def test_31_large_labels_stay_what_they_are_or_are_refused(new, heard, ledger):
    """Atlases number their structures by database keys; float32 would merge them."""
    study = new()
    mapped(lambda values: np.where(values == 7, LARGE, values.astype(np.uint32)), "label")(study)
    assert run("register", study).status == 0, heard()
    warped = np.unique(np.asarray(nib.load(study.out / "warped_label.nii.gz").dataobj)).tolist()
    beyond = Bad(31, "labels beyond int32", labels(3, 2**31, np.uint64), "2147483647")
    wrong = wrong_in([beyond], lambda by: by, new, heard)
    unable = run("train", study)  # whose transforms read float32
    wrong += [] if unable.status == 1 and "expected 0 to 16777215" in heard().splitlines()[-1] else [str(unable)]
    ledger.tell(SUBJECT, "31", not wrong and warped == [0, 3, LARGE])
    assert warped == [0, 3, LARGE] and not wrong, wrong


def test_58_a_label_that_one_image_lacks_is_left_out_and_counted(new, heard, ledger):
    study, sound = new(), new()
    labels(3, 0, np.uint8)(study)
    assert run("evaluate", study).status == 0 == run("evaluate", sound).status, heard()
    row = np.genfromtxt(study.out / "pairs.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    found, expected = answers_of("evaluate", study), answers_of("evaluate", sound)
    assert run("register", study).status == 0, heard()
    registered = json.loads((study.out / "metrics.json").read_text())["dice_per_label"]
    right = np.isnan(found["dice"][1]) and found["dice"][0] == expected["dice"][0] == row["dice"]
    right = right and row["n_missing"] == 1 and registered["7"] is None and registered["3"] > 0.9
    ledger.tell(SUBJECT, "58", right)
    assert right, (row, found, expected, registered)


def test_62_a_loss_of_nan_ends_a_training_and_the_last_good_checkpoint_stays(new, heard, ledger):
    study = new()
    study.ids = {"steps_per_epoch": 3}
    assert run("train", study).status == 0, heard()
    before = contents(study.out / "models")
    study.ids |= {"resume": True, "max_epochs": 3, "smooth_weight": "$float('nan')"}
    outcome, sentence = run("train", study), heard().splitlines()[-1]
    right = outcome.status == 1 and "3 steps in a row had no finite loss, expected finite values; lower" in sentence
    right = right and contents(study.out / "models") == before
    ledger.tell(SUBJECT, "62", right)
    assert right, (outcome, sentence)


def test_63_an_output_that_cannot_be_written_and_a_checkpoint_cut_short(new, heard, ledger):
    commands = ("register", "prepare", "evaluate", "train", "infer")
    blocked = Bad(63, "an output folder below a file", out_in_a_file, "written", commands, status=3)
    wrong = wrong_in([blocked], lambda by: by, new, heard)
    study = new()
    study.ids = {"max_epochs": 2}
    assert run("train", study).status == 0, heard()
    newest = study.out / "models" / "checkpoints" / "epoch_00002.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    study.ids |= {"max_epochs": 3, "resume": True}
    resumed = run("train", study)
    right = not wrong and resumed.status == 0 and (newest.parent / "epoch_00003.pt").is_file()
    ledger.tell(SUBJECT, "63", right)
    assert right, (wrong, resumed)


def test_64_weights_of_another_network_and_displacements_beyond_float16(new, heard, ledger):
    study = new()
    assert run("train", study).status == 0, heard()
    path = study.base / "weights.pt"
    wrong = []
    for name, change in (("another width", {"channels": 8}), ("an extra key", {}), ("a missing key", {})):
        weights = load_checkpoint(study.out / "models" / "model.pt")
        if name == "an extra key":
            weights["another.weight"] = weights[next(iter(weights))]
        if name == "a missing key":
            weights.pop(next(iter(weights)))
        save_checkpoint(weights, path)
        asked = new()
        asked.ids = {"ckpt_path": path, **change}
        refused = Bad(64, name, lambda _: path, "does not hold this network's weights", ("ask network",))
        wrong += faults_of(refused, "ask network", asked, heard)
    error = far_error_mm(new(), new())
    ledger.tell(SUBJECT, "64", not wrong and error < 0.05)
    assert not wrong and error < 0.05, (wrong, error)


def far_error_mm(near: Study, far: Study, distance: float = 70000.0) -> float:
    """By how much a displacement changes if the moving scan is carried 70 m away and an affine says so."""
    start = np.eye(4)
    start[0, 3] = distance
    for part, path in list(far.subject.items()):
        image = nib.load(path)
        far.save(f"far_{part}.nii.gz", np.asarray(image.dataobj), start @ image.affine, part)
    np.savetxt(far.base / "start.txt", start)
    far.register = [f"--affine={far.base / 'start.txt'}"]
    assert run("register", near).status == 0 == run("register", far).status
    fields = [answers_of("register", study)["displacement"] for study in (near, far)]
    fields[0][..., 0] -= distance  # LPS
    return float(np.abs(fields[1] - fields[0]).max())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by its name."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_table_has_every_row_of_the_catalogue():
    assert sorted({*ROWS, 31, 58, 62, 63, 64}) == list(range(1, 65))
    assert {command for row in ROWS.values() for case in row for command in case.by} <= COMMANDS.keys()
