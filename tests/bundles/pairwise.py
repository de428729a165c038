"""Running the bundles that optimise every pair anew, for their tests; copies and results of any bundle."""

import shutil
from pathlib import Path

from monai.bundle import ConfigWorkflow

BUNDLES = Path(__file__).parents[2] / "bundles"
SHORT = {
    "ncf": {"iterations": 2, "half_resolution_steps": 1, "network_def::widths": [16, 16]},
    "svf": {"levels": [[4, 4, 5], [2, 1, 2]]},
}
"""Overrides by bundle that leave a few steps."""
RESULTS = {"displacement.nii.gz", "inverse_displacement.nii.gz", "jacobian.nii.gz", "transform.h5", "warped.nii.gz"}
RESULTS |= {"warped_label.nii.gz", "registration.png", "report.html", "thumbnail.jpg", "metrics.json"}
PAGES = {"report.html", "thumbnail.jpg", "metrics.json"}


def configs(name: str) -> Path:
    """The folder of a bundle's configs."""
    return BUNDLES / name / "configs"


def copy_of_bundle(name: str, folder: Path) -> Path:
    """A copy into which tests may write: without weights that somebody trained, with an initial state that it ships."""
    copy = folder / name
    ships = '"untrained"' in (configs(name) / "metadata.json").read_text()
    written_by_runs = ["eval", "__pycache__"] if ships else ["eval", "models", "__pycache__"]
    shutil.copytree(BUNDLES / name, copy, ignore=shutil.ignore_patterns(*written_by_runs))
    return copy


def run(bundle: Path, dataset: Path, *files: str, kind: str = "train", **overrides) -> ConfigWorkflow:
    """Run some of a copy's configs, in few steps, and return the finished workflow."""
    settings = {"bundle_root": str(bundle), "dataset_dir": str(dataset), "device": "$torch.device('cpu')"}
    workflow = ConfigWorkflow(
        [str(bundle / "configs" / f"{name}.json") for name in files],
        workflow_type=kind,
        meta_file=str(bundle / "configs" / "metadata.json"),
        **settings | SHORT[bundle.name] | overrides,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


def written(folder: Path) -> set[str]:
    """The names in a folder."""
    return {path.name for path in folder.iterdir()}
