"""What the ACDC archive holds: patients, the two frames of each that are labelled, and the split of EOIR's paper."""

import re
from dataclasses import dataclass
from pathlib import Path

from common.errors import RegInputError
from common.preflight import refuse

__all__ = ["LABELS", "PHASES", "SPLIT", "Frame", "find_frames"]

LAYOUT = "patientNNN/ with Info.cfg, patientNNN_frameXX.nii.gz and patientNNN_frameXX_gt.nii.gz, at any depth"
FOLDER = re.compile(r"patient(\d{3})")
PHASES = ("ED", "ES")  # end-diastole, end-systole
LABELS = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
GROUP = 20  # patients with the same diagnosis follow each other in the training set
SPLIT = {
    "training": tuple(first + k for first in range(1, 101, GROUP) for k in range(17)),
    "validation": tuple(first + k for first in range(1, 101, GROUP) for k in range(17, GROUP)),
    "testing": tuple(range(101, 151)),
}
"""85, 15 and 50 numbers of patients."""


@dataclass(frozen=True)
class Frame:
    """One labelled frame of a patient."""

    patient: int
    phase: str
    """Of ``PHASES``."""
    group: str
    """Diagnosis: DCM, HCM, MINF, NOR or RV; empty if it is not told."""
    image: Path
    label: Path

    @property
    def name(self) -> str:
        """Such as patient001_ED."""
        return f"patient{self.patient:03}_{self.phase}"


def find_frames(raw: Path) -> list[Frame]:
    """Both frames of every patient below ``raw``, by number, end-diastole first.

    Raises:
        RegInputError: if there is no patient (the message names the expected layout), or naming every patient that is
            there twice, that the split does not know, or that lacks a file or a line of ``Info.cfg``.
    """
    folders: dict[int, list[Path]] = {}
    for path in sorted(raw.rglob("patient*")):
        if path.is_dir() and (match := FOLDER.fullmatch(path.name)):
            folders.setdefault(int(match[1]), []).append(path)
    if not folders:
        raise RegInputError(f"no patient found under {raw}, expected {LAYOUT}; unpack the archive there.")
    known = {number for part in SPLIT.values() for number in part}
    sentences: list[str] = []
    frames: list[Frame] = []
    for number, paths in sorted(folders.items()):
        if len(paths) > 1:
            places = ", ".join(map(str, paths))
            sentences.append(
                f"patient {number} is there {len(paths)} times ({places}), expected once; remove the others."
            )
        elif number not in known:
            sentences.append(f"{paths[0]} is in no part of the split, expected patients 1 to 150; move it away.")
        else:
            found, wrong = frames_of(number, paths[0])
            frames, sentences = frames + found, sentences + wrong
    refuse(sentences)
    return frames


def frames_of(number: int, folder: Path) -> tuple[list[Frame], list[str]]:
    """The two frames of a patient, or what is wrong with the folder."""
    info = read_info(folder / "Info.cfg")
    lacking = [phase for phase in PHASES if not info.get(phase, "").isdecimal()]
    if lacking:
        return [], [
            f"{folder / 'Info.cfg'} gives no number of the frame for {' and '.join(lacking)}, expected lines such as "
            "'ED: 1'; fetch it again."
        ]
    stems = {phase: f"{folder.name}_frame{int(info[phase]):02}" for phase in PHASES}
    paths = {phase: [find(folder, f"{stem}{end}") for end in ("", "_gt")] for phase, stem in stems.items()}
    sentences = [
        f"{folder} has no {stems[phase]}{end}.nii.gz, expected the frame that Info.cfg calls {phase} and its labels; "
        "complete the archive."
        for phase in PHASES
        for end, path in zip(("", "_gt"), paths[phase], strict=True)
        if path is None
    ]
    group = info.get("Group", "")
    return ([] if sentences else [Frame(number, p, group, *paths[p]) for p in PHASES]), sentences


def read_info(path: Path) -> dict[str, str]:
    """The lines ``key: value`` of a file; none if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def find(folder: Path, stem: str) -> Path | None:
    """The NIfTI file of this name, compressed or not."""
    return next((path for end in (".nii.gz", ".nii") if (path := folder / f"{stem}{end}").is_file()), None)
