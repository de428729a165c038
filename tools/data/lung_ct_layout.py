"""What the LungCT archives hold: cases, phases and the two ways in which their files are named."""

import re
from dataclasses import dataclass
from pathlib import Path

from common.errors import RegInputError
from common.preflight import refuse

__all__ = ["CASES", "EXPIRATION", "INSPIRATION", "Scan", "find_scans"]

LAYOUT = (
    "imagesTr/LungCT_<case>_<phase>.nii.gz and masksTr/ with the same names (Learn2Reg; phase 0000 expiration, 0001 "
    "inspiration), or scans/case_<case>_exp.nii.gz, _insp.nii.gz and lungMasks/ with the same names (Zenodo)"
)
KINDS = {
    **{f"images{part}": "image" for part in ("Tr", "Ts")},
    **{f"masks{part}": "mask" for part in ("Tr", "Ts")},
    **{f"keypoints{part}": "keypoints" for part in ("Tr", "Ts")},
    "scans": "image",
    "lungMasks": "mask",
}
"""What a file is, by the name of its folder: scan and mask are named alike."""
NAME = re.compile(r"(?:LungCT_(\d{4})_000([01])|case_(\d{3})_(exp|insp))\.(?:nii(?:\.gz)?|csv)")
EXPIRATION, INSPIRATION = "0000", "0001"
PHASES = {"0": EXPIRATION, "1": INSPIRATION, "exp": EXPIRATION, "insp": INSPIRATION}
CASES = tuple(f"{case:04}" for case in range(1, 9))
"""The first eight of the training archive's twenty."""


@dataclass(frozen=True)
class Scan:
    """One scan of a case, its lung mask and, perhaps, its keypoints."""

    case: str
    phase: str
    image: Path
    mask: Path
    keypoints: Path | None = None

    @property
    def name(self) -> str:
        """As Learn2Reg names it, whichever archive it came from."""
        return f"LungCT_{self.case}_{self.phase}"


def find_scans(raw: Path, cases: tuple[str, ...] = CASES) -> list[Scan]:
    """Both scans of every case below ``raw``, by case and phase; other cases are passed over.

    Raises:
        RegInputError: naming every file that is missing (and the expected layout) or there twice.
    """
    found: dict[tuple[str, str, str], list[Path]] = {}
    for path in sorted(raw.rglob("*")):
        kind, match = KINDS.get(path.parent.name), NAME.fullmatch(path.name)
        if kind and match:
            case, phase = (match[1], match[2]) if match[1] else (f"0{match[3]}", match[4])
            found.setdefault((case, PHASES[phase], kind), []).append(path)
    if not found:
        raise RegInputError(f"no LungCT scan found under {raw}, expected {LAYOUT}; unpack the archive there.")
    sentences = []
    for case in cases:
        for phase in (EXPIRATION, INSPIRATION):
            files = {kind: found.get((case, phase, kind), []) for kind in ("image", "mask", "keypoints")}
            sentences += file_findings(raw, f"LungCT_{case}_{phase}", files)
    refuse(sentences)

    def one(*key: str) -> Path | None:
        return found.get(key, [None])[0]

    scans = [(case, phase) for case in cases for phase in (EXPIRATION, INSPIRATION)]
    return [Scan(*scan, one(*scan, "image"), one(*scan, "mask"), one(*scan, "keypoints")) for scan in scans]


def file_findings(raw: Path, name: str, files: dict[str, list[Path]]) -> list[str]:
    """What is missing or there twice of one scan; keypoints may be missing."""
    missing = [
        f"{raw} has no {kind} of {name}, expected {LAYOUT}; complete the archive."
        for kind in ("image", "mask")
        if not files[kind]
    ]
    return missing + [
        f"the {kind} of {name} is there {len(paths)} times ({', '.join(map(str, paths))}), expected once; remove the "
        "others."
        for kind, paths in files.items()
        if len(paths) > 1
    ]
