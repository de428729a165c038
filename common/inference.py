"""The joints between a pair and MONAI's evaluator: brains, initial alignment, a network's answer with its inverse."""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from monai.inferers import Inferer
from monai.transforms import Transform
from torch import Tensor, nn

from .affine import register_affine
from .brain import extract_brain
from .errors import RegInputError
from .map_files import read_affine
from .preflight import check_image, check_label
from .starts import started_elsewhere
from .stopwatch import now

__all__ = ["AlignAffined", "ExtractBraind", "PairInferer"]

logger = logging.getLogger(__name__)


class AlignAffined(Transform):
    """Adds ``initial``, fixed world -> moving world in RAS mm, found from the images' content or read from a file.

    Args:
        mode: "none" trusts the headers' world and adds nothing; "auto" finds twelve parameters (six in 2-D), "rigid"
            six (three); anything else is the path of an ITK transform or of a text file with a matrix in RAS mm.
        seed: of the sampled voxels.

    Raises:
        RegInputError: if the file cannot be read.
    """

    def __init__(self, mode: str = "none", seed: int = 0) -> None:
        self.mode = mode
        self.seed = seed
        self.matrix = None if mode in ("none", "auto", "rigid") else read_affine(Path(mode))

    def __call__(self, data: Mapping) -> dict:
        """Align ``data["moving"]`` to ``data["fixed"]``, MetaTensors (1, *S) on their own grids; masks are heeded."""
        if self.mode == "none":
            return dict(data)
        if self.matrix is not None:
            return {**data, "initial": self.matrix}
        started = time.perf_counter()
        images = [(np.asarray(data[key][0]), np.asarray(data[key].affine)) for key in ("fixed", "moving")]
        masks = {
            f"{key}_mask": np.asarray(data[f"{key}_mask"][0]) > 0
            for key in ("fixed", "moving")
            if isinstance(data.get(f"{key}_mask"), Tensor)
        }
        result = register_affine(*images, rigid=self.mode == "rigid", seed=self.seed, **masks)
        seconds = time.perf_counter() - started
        logger.info("initial alignment (%s): mutual information %.3f, %.1f s", self.mode, -result.metric, seconds)
        return {**data, "initial": result.matrix}


class ExtractBraind(Transform):
    """Sets what lies outside the brain to the image's minimum, by a template's mask: for raw heads.

    Args:
        template: path of a head with its skull; None leaves the images as they are.
        template_mask: path of its brain's mask, on its grid.
        keys: of the images, MetaTensors (1, *S).

    Raises:
        RegInputError: if only one of the two is named, or a file cannot be used.
    """

    def __init__(
        self,
        template: str | None = None,
        template_mask: str | None = None,
        keys: Sequence[str] = ("fixed", "moving"),
    ) -> None:
        if (template is None) != (template_mask is None):
            raise RegInputError(
                f"template is {template} and template_mask is {template_mask}, expected both or none; name the other."
            )
        self.keys = tuple(keys)
        self.template = None
        if template is not None:
            volume = check_image(template, 3)
            self.template = (volume.voxels, volume.affine)
            self.mask = check_label(template_mask, volume).voxels

    def __call__(self, data: Mapping) -> dict:
        """Extract each image's brain."""
        item = dict(data)
        for key in self.keys if self.template is not None else ():
            image = item[key]
            mask = extract_brain((np.asarray(image[0]), np.asarray(image.affine)), self.template, self.mask)
            logger.info("%s: brain of %.0f ml", key, mask.sum() * abs(np.linalg.det(image.affine[:3, :3])) / 1000)
            inside = torch.from_numpy(mask)[None]
            item[key] = torch.where(inside, image, image.min())
        return item


class PairInferer(Inferer):
    """Asks a network for its ddf and, where it knows a velocity, for the inverse too; and again from other starts.

    Args:
        inverse: whether to ask for it.
        check_starts: how many answers from perturbed starts to keep, see :mod:`common.starts`.
        error_starts: from how many to take the spread; 0 takes none.
        start_shrink: by how much the images are made smaller for these, for methods that take any resolution.

    Raises:
        RegInputError: for a number of starts below 0 or a shrink below 1.
    """

    def __init__(
        self, inverse: bool = True, check_starts: int = 0, error_starts: int = 0, start_shrink: float = 1
    ) -> None:
        super().__init__()
        counts = (check_starts, error_starts)
        if min(counts) < 0 or any(int(n) != n for n in counts) or start_shrink < 1:
            raise RegInputError(
                f"check_starts is {check_starts}, error_starts {error_starts} and start_shrink {start_shrink}, "
                "expected whole numbers of starts, 0 for none, and a shrink of 1 or more; correct them."
            )
        self.inverse = inverse
        self.check_starts = int(check_starts)
        self.error_starts = int(error_starts)
        self.start_shrink = start_shrink
        self.starts_seconds = 0.0
        """What the last call spent on perturbed starts."""

    def __getstate__(self) -> dict:
        """The settings alone: what a pair's fingerprint sees, whichever pairs came before."""
        return {name: value for name, value in vars(self).items() if name != "starts_seconds"}

    def __call__(self, inputs: Tensor, network: nn.Module, *args, **kwargs) -> Tensor | dict[str, Tensor]:
        """``network(inputs)`` (B, N, *S), or what there is of "ddf", "inverse", "starts" (B, K, N, *S), "spread".

        The inverse comes from the network's ``with_inverse``; starts and spread are those of
        :func:`common.starts.started_elsewhere`.
        """
        ask = partial(network, *args, **kwargs)
        found = self._own(inputs, network, *args, **kwargs)
        if self.check_starts or self.error_starts:
            started = now()
            counts = (self.check_starts, self.error_starts, self.start_shrink)
            found |= started_elsewhere(ask, inputs, found["ddf"], *counts)
            self.starts_seconds = now() - started
        return found if len(found) > 1 else found["ddf"]

    def _own(self, inputs: Tensor, network: nn.Module, *args, **kwargs) -> dict[str, Tensor]:
        """The answer to the images as they are, with its inverse where there is one and it was asked for."""
        if not self.inverse or not hasattr(network, "with_inverse"):
            return {"ddf": network(inputs, *args, **kwargs)}
        ddf, inverse = network.with_inverse(inputs, *args, **kwargs)
        return {"ddf": ddf} if inverse is None else {"ddf": ddf, "inverse": inverse}
