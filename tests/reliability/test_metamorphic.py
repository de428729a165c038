"""What no bundle's result may depend on: the order in which files store their axes, and where the world's origin is.

Bundles run as inference.json has them. What their answer depends on, images on their own grid, is the same numbers
again but for rounding in float32.
"""

import json
from copy import deepcopy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.transform_files import read_displacement
from tests.reliability.networks import GRID, SETTINGS, TRAINED, register, restless, save_weights
from tests.reliability.rewritten import FLIPPED, MIXED, PERMUTED, Order, Scan, blobs, rigid

SUBJECT = "metamorphic"
SIZE, MOVING_SIZE = (18, 22, 20), (20, 19, 21)
FIXED_AFFINE = np.array([[2.0, 0, 0, 5], [0, 2.0, 0, -30], [0, 0, 2.0, 10], [0, 0, 0, 1]])
CENTERS_MM = np.array([[16.0, -12, 22], [26, -4, 34], [30, -16, 28], [18, 0, 36]])
TURN = 12.0  # degrees; less than what would make another axis the nearest to left, inferior or anterior
EXACT = 1e-4  # of mm, or of the image's range: a point 150 mm from the origin, in float32, is rounded by 1e-5 mm
MOVES_MM = 0.3  # at least, in the mean: a field of zeros is the same in every order
QUICK = ("svf", "voxelmorph")


@pytest.fixture(scope="module")
def pair() -> tuple[Scan, Scan]:
    """Two unlike images on two grids, the moving one's oblique."""
    rng = np.random.default_rng(0)
    oblique = rigid(rng, 8)
    oblique[:3, 3] = [4, -31, 9]
    fixed = blobs(SIZE, FIXED_AFFINE, CENTERS_MM, 7)
    moving = blobs(MOVING_SIZE, oblique @ np.diag([2.1, 2.2, 1.9, 1]), CENTERS_MM + rng.normal(0, 2, (4, 3)), 7)
    return fixed, moving


class Runs:
    """A bundle's results on one pair in several files; what was run is not run again."""

    def __init__(self, bundle: str, folder: Path) -> None:
        self.bundle = bundle
        self.folder = folder
        self.ids = {"ckpt_path": str(save_weights(bundle, folder))} if bundle in TRAINED else {}
        if bundle in TRAINED:
            self.ids["dataset_dir"] = str(without_data(folder))

    def __call__(self, name: str, fixed: Scan, moving: Scan) -> tuple[np.ndarray, np.ndarray]:
        """Displacements (*S, 3) in RAS mm and the warped image (*S), on the fixed file's grid."""
        out = self.folder / name
        if not out.exists():
            paths = [scan.save(self.folder / f"{name}_{k}.nii.gz") for k, scan in enumerate((fixed, moving))]
            register(self.bundle, *paths, out, **self.ids)
        field, affine = read_displacement(out / "displacement.nii.gz")
        np.testing.assert_allclose(affine, fixed.affine, atol=1e-4)
        return np.moveaxis(field[0].numpy(), 0, -1), nib.load(out / "warped.nii.gz").get_fdata()


def without_data(folder: Path) -> Path:
    """A data set of nothing, which says what the labels are called."""
    header = GRID | {"modality": "mr", "licence": "", "labels": {}}
    (folder / "datalist.json").write_text(json.dumps(header))
    return folder


@pytest.fixture(
    scope="module",
    params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(SETTINGS)],
)
def runs(request, tmp_path_factory) -> Runs:
    return Runs(request.param, tmp_path_factory.mktemp(request.param))


def orders(kind: str, seed: int) -> tuple[Order, Order]:
    """How both files are stored."""
    rng = np.random.default_rng(seed)
    if kind == "flipped":
        return (FLIPPED[rng.integers(len(FLIPPED))],) * 2
    if kind == "permuted":
        return (PERMUTED[rng.integers(len(PERMUTED))],) * 2
    return tuple(MIXED[k] for k in rng.choice(len(MIXED), 2, replace=False))


def difference(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """The largest one of two fields, mm, and of two warped images, as a share of their range."""
    fields, images = zip(first, second, strict=True)
    assert np.linalg.norm(fields[0], axis=-1).mean() > MOVES_MM
    return float(np.abs(fields[0] - fields[1]).max()), float(np.abs(images[0] - images[1]).max() / np.ptp(images[0]))


@pytest.mark.parametrize("kind", ["flipped", "permuted", "each in its own order"])
def test_the_order_of_axes_in_a_file_changes_nothing(ledger, runs, pair, kind):
    plain = runs("plain", *pair)
    first, second = orders(kind, 1)
    other = runs(kind, first.rewritten(pair[0]), second.rewritten(pair[1]))
    far = difference(plain, tuple(map(first.back, other)))
    ledger.tell(SUBJECT, f"{runs.bundle}: axes {kind}", max(far) <= EXACT)
    assert max(far) <= EXACT, far


@pytest.mark.parametrize("degrees", [0, TURN])
def test_another_world_turns_the_field_with_it(ledger, runs, pair, degrees):
    plain = runs("plain", *pair)
    world = rigid(np.random.default_rng(2), degrees)
    field, image = runs(f"world {degrees:g}", *(scan.moved(world) for scan in pair))
    far = difference(plain, (field @ world[:3, :3], image))
    ledger.tell(SUBJECT, f"{runs.bundle}: a world turned by {degrees:g} degrees and moved", max(far) <= EXACT)
    assert max(far) <= EXACT, far


def test_exchanged_roles_give_the_inverse_of_the_symmetric_network(ledger):
    """SYMNet's two heads are each other's mirror: with them and its input exchanged, there is back again."""
    network = restless("symnet")
    mirrored = deepcopy(network)
    mirrored.start[0].weight.data = mirrored.start[0].weight.flip(1)
    mirrored.moving_head, mirrored.fixed_head = mirrored.fixed_head, mirrored.moving_head
    image = torch.rand(1, 2, 16, 20, 18, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ddf, inverse = network.with_inverse(image)
        back, forth = mirrored.with_inverse(image.flip(1))
    assert ddf.norm(dim=1).mean() > MOVES_MM
    far = max(float((back - inverse).abs().max()), float((forth - ddf).abs().max()))
    ledger.tell(SUBJECT, "symnet: roles exchanged", far <= EXACT)
    assert far <= EXACT
