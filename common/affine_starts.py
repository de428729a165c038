"""Where an affine alignment starts: the best of many rotations about the images' centers, on a coarse grid.

The optimizer finds its way from 20 to 40 degrees off. A scan that was turned further, or whose header gives its axes
wrong names, is out of its reach. So rotations that cover all orientations are tried on voxels of about 8 mm, which
costs less than a second, and the best few are improved where the first start is not clearly better than they are.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from .geometry import mm_to_voxels, voxels_to_mm

__all__ = ["Grid", "Starts", "mutual_information_of", "rotations"]

Grid = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # voxels in [0, 1], their affine, a mask

BINS = 24  # of the joint histogram, per image
MAX_POINTS = 12_000  # of the fixed grid that are looked at
COUNT = {2: 24, 3: 500}  # rotations: 15 degrees apart; none further than about 30 degrees from one of them
CLEAR = 1.2  # how much better than every rotation a start without one has to be to need no other
MARGIN = 1.02  # how much better a turned start has to become than the two without a turn
KEPT = 5  # rotations that are improved where no start is clear
APART_DEG = 25.0  # of the rotations among them
EVALUATIONS = 160  # of each improvement; 120 to 150 reach the optimum
STEP_DEG, STEP_MM = 12.0, 10.0  # of its first simplex
ELSEWHERE_DEG = 60.0  # a rotation that is as far from the result is another orientation


class Starts:
    """The starts of one pair, and how good each is.

    Args:
        fixed: the image on a grid of about 8 mm.
        moving: the other one.
        centers: of the two images, RAS mm, which the rotations bring together.
    """

    def __init__(self, fixed: Grid, moving: Grid, centers: tuple[np.ndarray, np.ndarray]) -> None:
        self.centers = centers
        self.similarity = mutual_information_of(fixed, moving)
        self.turns = rotations(len(centers[0]))

    @cached_property
    def scores(self) -> np.ndarray:
        """Similarity after each of ``turns`` about the centers, in nats."""
        return np.array([self.similarity(self.about_centers(turn)) for turn in self.turns])

    def about_centers(self, turn: np.ndarray) -> np.ndarray:
        """The matrix that brings the centers together and turns about them."""
        matrix = np.eye(len(turn) + 1)
        matrix[:-1, :-1] = turn
        matrix[:-1, -1] = self.centers[1] - turn @ self.centers[0]
        return matrix

    def best(self) -> np.ndarray:
        """The rigid matrix (N + 1, N + 1) to start from, fixed to moving points, RAS mm.

        Starts are the centers brought together, the headers as they are, and, unless one of these two is clearly
        better than every rotation, the best rotations. A simplex search over translation and rotation improves each.
        """
        plain = [self.about_centers(self.turns[0]), np.eye(len(self.centers[0]) + 1)]
        clear = max(map(self.similarity, plain)) >= CLEAR * self.scores[1:].max()
        found = max(map(self.improve, plain), key=self.similarity)
        if clear:
            return found
        turned = max((self.improve(self.about_centers(turn)) for turn in self.promising()), key=self.similarity)
        return turned if self.similarity(turned) > MARGIN * self.similarity(found) else found

    def promising(self) -> list[np.ndarray]:
        """The best rotations, each well away from the better ones."""
        kept: list[np.ndarray] = []
        for index in np.argsort(-self.scores, kind="stable"):
            if all(angle_deg(self.turns[index] @ turn.T) > APART_DEG for turn in kept):
                kept.append(self.turns[index])
            if len(kept) == KEPT:
                break
        return kept

    def improve(self, start: np.ndarray) -> np.ndarray:
        """The rigid matrix that a simplex search finds from another one.

        Source: Nelder and Mead, The Computer Journal 1965, doi:10.1093/comjnl/7.4.308, in scipy's implementation.
        """
        ndim = len(start) - 1
        middle = voxels_to_mm([self.centers[0]], start)[0]
        steps = np.array([STEP_MM] * ndim + [np.radians(STEP_DEG)] * (ndim * (ndim - 1) // 2))

        def moved(parameters: np.ndarray) -> np.ndarray:
            change = np.eye(ndim + 1)
            change[:-1, :-1] = rotation_of(parameters[ndim:] * steps[ndim:])
            change[:-1, -1] = middle + parameters[:ndim] * steps[:ndim] - change[:-1, :-1] @ middle
            return change @ start

        none = np.zeros(len(steps))
        options = {"maxfev": EVALUATIONS, "initial_simplex": np.vstack([none, np.eye(len(none))])}
        return moved(minimize(lambda p: -self.similarity(moved(p)), none, method="Nelder-Mead", options=options).x)

    def lead(self, matrix: np.ndarray) -> float:
        """How much more similar an alignment makes the images than any rotation that is far from it.

        1.2 to 3 for pairs of one anatomy that are aligned; 1 and below where another orientation does as well.
        """
        left, _, right = np.linalg.svd(matrix[:-1, :-1])
        turn = left @ right  # the rotation nearest to the linear part
        far = [angle_deg(other @ turn.T) > ELSEWHERE_DEG for other in self.turns]
        return self.similarity(matrix) / max(float(self.scores[far].max()), np.finfo(float).tiny)


def mutual_information_of(fixed: Grid, moving: Grid) -> Callable[[np.ndarray], float]:
    """The function from a matrix, fixed to moving points in RAS mm, to the images' mutual information in nats.

    What lies outside the moving image or its mask counts as its value 0, so that a small overlap never pays.
    """
    voxels, affine, mask = fixed
    index = np.argwhere(np.ones(voxels.shape, bool) if mask is None else mask)
    index = index[:: -(-len(index) // MAX_POINTS)]
    points = voxels_to_mm(index, affine)
    rows = bins_of(voxels[tuple(index.T)]) * BINS
    other = (moving[0] if moving[2] is None else np.where(moving[2], moving[0], 0)).astype(np.float32)

    def similarity(matrix: np.ndarray) -> float:
        there = mm_to_voxels(voxels_to_mm(points, matrix), moving[1])
        columns = bins_of(map_coordinates(other, there.T, order=1, mode="constant", cval=0.0))
        joint = np.bincount(rows + columns, minlength=BINS**2).reshape(BINS, BINS) / len(rows)
        return entropy(joint.sum(axis=0)) + entropy(joint.sum(axis=1)) - entropy(joint)

    return similarity


def bins_of(values: np.ndarray) -> np.ndarray:
    """The bin of each value in [0, 1]."""
    return np.clip((values * BINS).astype(np.int64), 0, BINS - 1)


def entropy(probabilities: np.ndarray) -> float:
    """In nats."""
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())


def rotations(ndim: int) -> np.ndarray:
    """Rotation matrices (K, N, N) that cover all orientations evenly; the identity first, then the right angles.

    Source: in 3-D super-Fibonacci spirals, Alexa, CVPR 2022, doi:10.1109/CVPR52688.2022.00811.
    """
    count = COUNT[ndim]
    if ndim == 2:
        return np.array([rotation_of(np.array([angle])) for angle in np.arange(count) * 2 * np.pi / count])
    share = (np.arange(count) + 0.5) / count
    alpha = count * share * 2 * np.pi / np.sqrt(2)
    beta = count * share * 2 * np.pi / 1.533751168755204288118041  # root of x^4 = x + 4
    inner, outer = np.sqrt(share), np.sqrt(1 - share)
    spiral = [inner * np.sin(alpha), inner * np.cos(alpha), outer * np.sin(beta), outer * np.cos(beta)]
    right_angles = Rotation.create_group("O").as_matrix()
    order = np.argsort([angle_deg(turn) for turn in right_angles], kind="stable")
    return np.concatenate([right_angles[order], Rotation.from_quat(np.stack(spiral, axis=1)).as_matrix()])


def rotation_of(radians: np.ndarray) -> np.ndarray:
    """The matrix of one angle, (2, 2), or of a rotation vector, (3, 3)."""
    if len(radians) == 3:
        return Rotation.from_rotvec(radians).as_matrix()
    cosine, sine = np.cos(radians[0]), np.sin(radians[0])
    return np.array([[cosine, -sine], [sine, cosine]])


def angle_deg(turn: np.ndarray) -> float:
    """By which a rotation matrix turns, 0 to 180."""
    cosine = np.trace(turn) / 2 if len(turn) == 2 else (np.trace(turn) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
