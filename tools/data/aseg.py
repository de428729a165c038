"""FreeSurfer's segmentation of a brain's inside (aseg): numbers and names."""

__all__ = ["ASEG_NAMES"]

SIDED = {
    **{2: "Cerebral-White-Matter", 3: "Cerebral-Cortex", 4: "Lateral-Ventricle", 5: "Inf-Lat-Vent"},
    **{7: "Cerebellum-White-Matter", 8: "Cerebellum-Cortex", 10: "Thalamus", 11: "Caudate", 12: "Putamen"},
    **{13: "Pallidum", 17: "Hippocampus", 18: "Amygdala", 26: "Accumbens-area", 28: "VentralDC"},
    **{30: "vessel", 31: "choroid-plexus"},
}
"""Numbers of the left side."""
RIGHT = {
    **{2: 41, 3: 42, 4: 43, 5: 44, 7: 46, 8: 47, 10: 49, 11: 50, 12: 51, 13: 52, 17: 53, 18: 54},
    **{26: 58, 28: 60, 30: 62, 31: 63},
}
"""A left number -> the right one."""
MIDDLE = {
    **{14: "3rd-Ventricle", 15: "4th-Ventricle", 16: "Brain-Stem", 24: "CSF", 72: "5th-Ventricle"},
    **{77: "WM-hypointensities", 80: "non-WM-hypointensities", 85: "Optic-Chiasm", 251: "CC_Posterior"},
    **{252: "CC_Mid_Posterior", 253: "CC_Central", 254: "CC_Mid_Anterior", 255: "CC_Anterior"},
}
ASEG_NAMES = dict(
    sorted(
        (
            {value: f"Left-{name}" for value, name in SIDED.items()}
            | {RIGHT[value]: f"Right-{name}" for value, name in SIDED.items()}
            | MIDDLE
        ).items()
    )
)
"""The 45 numbers that TransMorph's IXI and neurite's brains have, by size; the names are FreeSurfer's own."""
