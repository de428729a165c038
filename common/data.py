"""Pairs of images out of a list of subjects.

Pairs are made inside :class:`PairDataset`, because MONAI Label and others replace the datalist's subjects by their own.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import Compose, Randomizable
from torch import Tensor
from torch.utils.data import Dataset

from .datalist import PAIR_KEYS, SUBJECT_KEYS, check_datalist, read_datalist, read_header, read_keypoints, subject_of
from .errors import RegInputError

__all__ = ["PairDataset", "check_datalist", "read_datalist", "read_header", "read_keypoints"]


class PairDataset(Dataset):
    """Pairs of images out of a list of subjects.

    Each subject goes through ``transform`` alone, and what comes before the first random transform in it is kept in
    memory. An item is ``{"fixed", "moving"}`` with ``fixed_label``, ``moving_label``, ``fixed_keypoints`` and so on for
    what the subjects have; the tensors keep their own ``meta``. Keypoints that no transform has read are read here,
    and follow their image through ``transform`` by the affines before and after it.

    Which subjects make item ``index``, and every random transform on it, depends on ``(seed, epoch, index)`` only: not
    on the number of workers nor on what was asked for before.

    Args:
        data: subjects ``{"image", "label"?, "keypoints"?, "mask"?}``, all with the same keys; with pairing "given",
            pairs ``{"fixed", "moving", "fixed_label"?, ...}`` whose further entries go through untouched.
        transform: dictionary transform of a subject; its keys are ``image``, ``label``, ``mask``.
        pairing: "all" ordered pairs i != j; "consecutive" (fixed i, moving i + 1); "random" ordered pairs, new ones
            each epoch; "atlas" (subject ``atlas`` is the moving one of all others); "given".
        pair_transform: dictionary transform of the finished pair, for what both images must share, such as flips.
        cache: keep the subjects decoded. Each worker process has a cache of its own.
        cache_limit_mib: the cache takes no further subject past this; those beyond are decoded each time.
        seed: of the random pairs and transforms.
        length: number of items with pairing "random", by default the number of subjects.
        atlas: index of the atlas in ``data`` with pairing "atlas".

    Raises:
        RegInputError: if there are fewer than two subjects or no pair, their keys differ, or ``pairing`` is unknown.
    """

    def __init__(
        self,
        data: Sequence[dict],
        transform: Callable,
        pairing: str = "all",
        pair_transform: Callable | None = None,
        cache: bool = True,
        cache_limit_mib: float = 8192,
        seed: int = 0,
        length: int | None = None,
        atlas: int = 0,
    ) -> None:
        check_items(data, pairing, atlas)
        self.data = list(data)
        self.transform = transform if isinstance(transform, Compose) else Compose([transform])
        self.pairing = pairing
        self.pair_transform = pair_transform
        self.seed = seed
        self.atlas = atlas
        self.length = count_pairs(len(self.data), pairing, length)
        self.cache_limit = cache_limit_mib * 2**20 if cache else 0
        self._cache: dict[tuple, dict] = {}
        self._cached_bytes = 0
        # shared memory: workers that outlive an epoch (persistent_workers) see set_epoch too
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """Draw the random pairs and transforms of this epoch; call it before the epoch's first item is asked for."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict:
        if not -self.length <= index < self.length:
            raise IndexError(f"pair {index} of {self.length}")
        index %= self.length
        rng = np.random.default_rng([self.seed, int(self._epoch), index])
        pair = dict(self._given_rest(index))
        for role, subject in zip(("fixed", "moving"), self._subjects(index, rng), strict=True):
            item = self._load(subject, rng)
            pair |= {role if key == "image" else f"{role}_{key}": value for key, value in item.items()}
        check_counts(pair)
        return pair if self.pair_transform is None else seeded(self.pair_transform, rng)(pair)

    def _subjects(self, index: int, rng: np.random.Generator) -> tuple[dict, dict]:
        """The fixed and the moving subject of a pair."""
        if self.pairing == "given":
            return tuple(subject_of(self.data[index], role) for role in ("fixed", "moving"))
        fixed, moving = pair_indices(index, len(self.data), self.pairing, rng, self.atlas)
        return self.data[fixed], self.data[moving]

    def _given_rest(self, index: int) -> dict:
        """Entries of a given pair that belong to neither subject."""
        if self.pairing != "given":
            return {}
        return {key: value for key, value in self.data[index].items() if key not in PAIR_KEYS}

    def _load(self, subject: dict, rng: np.random.Generator) -> dict:
        """The subject after ``transform``: the deterministic part from the cache, the random rest anew."""
        # the transforms up to the first random one give the same result each time: MONAI's CacheDataset cuts there too
        cut = self.transform.get_index_of_first(is_random)
        key = tuple(subject.get(k) if isinstance(subject.get(k), str) else id(subject.get(k)) for k in SUBJECT_KEYS)
        if key in self._cache:
            item = unpack(self._cache[key])
        else:
            item = self.transform(dict(subject), end=cut)
            self._remember(key, item)
        if cut is not None:
            item = seeded(self.transform, rng)(item, start=cut)
        return finished(item)

    def _remember(self, key: tuple, item: dict) -> None:
        """Put a decoded subject into the cache unless that is full."""
        if self.cache_limit <= 0:
            return
        packed = pack(copy.deepcopy(item))  # a copy: the caller may write on what it gets
        size = sum(value.nbytes for value, _ in packed.values() if isinstance(value, Tensor))
        if self._cached_bytes + size <= self.cache_limit:
            self._cache[key] = packed
            self._cached_bytes += size


def pair_indices(index: int, count: int, pairing: str, rng: np.random.Generator, atlas: int = 0) -> tuple[int, int]:
    """(fixed, moving) of pair ``index`` among ``count`` subjects; see :class:`PairDataset`."""
    if pairing == "consecutive":
        return index, index + 1
    if pairing == "atlas":
        return index + (index >= atlas), atlas
    if pairing == "random":
        fixed, moving = int(rng.integers(count)), int(rng.integers(count - 1))
    else:
        fixed, moving = divmod(index, count - 1)
    return fixed, moving + (moving >= fixed)


def count_pairs(count: int, pairing: str, length: int | None) -> int:
    """Number of items of a :class:`PairDataset` of ``count`` entries."""
    if length is not None and (pairing != "random" or length < 1):
        raise RegInputError(f"length is {length} with pairing '{pairing}', expected it with 'random' only, 1 or more.")
    lengths = {"all": count * (count - 1), "consecutive": count - 1, "atlas": count - 1, "given": count}
    return lengths.get(pairing, length or count)


def check_items(data: Sequence[dict], pairing: str, atlas: int) -> None:
    """Raise RegInputError unless ``data`` can be paired as asked."""
    pairings = ("all", "consecutive", "random", "atlas", "given")
    if pairing not in pairings:
        raise RegInputError(f"pairing is '{pairing}', expected one of {', '.join(pairings)}.")
    needed, least = (("fixed", "moving"), 1) if pairing == "given" else (("image",), 2)
    if len(data) < least:
        raise RegInputError(f"pairing '{pairing}' got {len(data)} items, expected at least {least}; add images.")
    lacking = [index for index, item in enumerate(data) if not all(key in item for key in needed)]
    if lacking:
        raise RegInputError(
            f"item {lacking[0]} has the keys {sorted(data[lacking[0]])}, expected {' and '.join(needed)} for pairing "
            f"'{pairing}'; use pairing 'given' for pairs and another one for subjects."
        )
    odd = [index for index, item in enumerate(data) if set(item) != set(data[0])]
    if odd:
        raise RegInputError(
            f"item {odd[0]} has the keys {sorted(data[odd[0]])} and item 0 has {sorted(data[0])}, expected the same "
            "for all, because batches need them; add what is missing or leave it out everywhere."
        )
    if pairing == "atlas" and not 0 <= atlas < len(data):
        raise RegInputError(f"atlas is {atlas}, expected the index of one of the {len(data)} subjects.")


def is_random(transform: object) -> bool:
    """Whether a transform may give another result the next time."""
    return isinstance(transform, Randomizable)


def seeded(transform: Callable, rng: np.random.Generator) -> Callable:
    """``transform``, its random state drawn from ``rng``."""
    if isinstance(transform, Randomizable):
        transform.set_random_state(seed=int(rng.integers(2**32)))
    return transform


def finished(item: dict) -> dict:
    """The subject's own entries of a transformed item, keypoints read and moved along with the image."""
    item = {key: item[key] for key in SUBJECT_KEYS if key in item}
    if isinstance(item.get("keypoints"), str):
        points = read_keypoints(item["keypoints"], item["image"].ndim - 1)
        item["keypoints"] = follow_image(points, item["image"])
    return item


def follow_image(points: Tensor, image: Tensor) -> Tensor:
    """Voxels of the file -> voxels of the transformed image, (K, N), through the affine before and after."""
    original = image.meta.get("original_affine") if isinstance(image, MetaTensor) else None
    if original is None:
        return points
    ndim = points.shape[1]
    before, after = (to_affine_nd(ndim, np.asarray(a, dtype=np.float64)) for a in (original, image.affine))
    moved = np.linalg.solve(after, before) @ np.vstack([points.double().numpy().T, np.ones(len(points))])
    return torch.from_numpy(moved[:ndim].T.copy()).float()


def check_counts(pair: dict) -> None:
    """Raise RegInputError if the two sets of landmarks of a pair cannot correspond."""
    if "fixed_keypoints" not in pair or "moving_keypoints" not in pair:
        return
    counts = [len(pair[f"{role}_keypoints"]) for role in ("fixed", "moving")]
    if counts[0] != counts[1]:
        raise RegInputError(
            f"a pair has {counts[0]} fixed and {counts[1]} moving keypoints, expected as many; match them."
        )


def pack(item: dict) -> dict[str, tuple]:
    """(value, dtype) per key, whole-number maps in the smallest of uint8, int16, int32 that holds them."""
    return {
        key: (smallest(value) if key in ("label", "mask") else value, getattr(value, "dtype", None))
        for key, value in item.items()
    }


def unpack(packed: dict[str, tuple]) -> dict:
    """A copy of what :func:`pack` was given."""
    return {
        key: copy.deepcopy(value).to(dtype) if isinstance(value, Tensor) else copy.deepcopy(value)
        for key, (value, dtype) in packed.items()
    }


def smallest(value: object) -> object:
    """A tensor of whole numbers in the smallest integer type that holds them, anything else as it is."""
    if not isinstance(value, Tensor) or value.numel() == 0 or value.dtype == torch.bool:
        return value
    if value.is_floating_point() and not bool((value == value.round()).all()):
        return value
    low, high = float(value.min()), float(value.max())
    for dtype in (torch.uint8, torch.int16, torch.int32):
        if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max:
            return value.to(dtype)
    return value
