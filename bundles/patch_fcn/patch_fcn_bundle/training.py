"""Training stage after stage: which one an epoch trains, what it sees of a pair, and patches of that.

A stage that is not trained takes part in no gradient: that alone freezes it, and one optimizer serves all stages.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn import functional as F

from common.engine import PreparePair
from common.errors import RegInputError
from common.fingerprint import fingerprint
from common.spatial import warp

from .loss import PatchFields
from .network import PatchFCN

__all__ = ["PatchView", "PrepareStage", "StageByStage", "draw_patches"]

logger = logging.getLogger(__name__)

CANDIDATES = 1024  # places that are looked at for one in the foreground, or outside
SAMPLED = 4  # every so many voxels along each axis are what an image is recognized by


class StageByStage:
    """Handler of a trainer: gives every stage of the network the same number of epochs, one stage after the other.

    Which stage an epoch trains is a function of its number, so that a resumed run needs to know no more.

    Args:
        network: whose ``stages_in_use`` it sets to the stage in training and those before.
        stage_epochs: epochs of each stage; the last one keeps what is left.
    """

    def __init__(self, network: PatchFCN, stage_epochs: int) -> None:
        if stage_epochs < 1:
            raise RegInputError(f"stage_epochs is {stage_epochs}, expected at least 1; raise it.")
        self.network = network
        self.stage_epochs = stage_epochs

    def attach(self, engine: Engine) -> None:
        """Before each epoch's first batch is asked for."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the stage of the engine's epoch."""
        stage = min((engine.state.epoch - 1) // self.stage_epochs, len(self.network.stages) - 1)
        if engine.state.epoch == stage * self.stage_epochs + 1:
            logger.info("stage %d of %d begins.", stage + 1, len(self.network.stages))
        self.network.stages_in_use = stage + 1


class PrepareStage(PreparePair):
    """``prepare_batch`` of the trainer: the moving image as the stages before the one in training warp it.

    These are asked once for each pair as long as a stage is trained: the warped image is kept, in memory.

    Args:
        network: whose stages before the last one in use are asked.
        cache_limit_mib: no further image is kept past this; those beyond are warped anew each time.
    """

    def __init__(self, network: PatchFCN, cache_limit_mib: float = 8192) -> None:
        self.network = network
        self.cache_limit = cache_limit_mib * 2**20
        self._stages = 0
        self._cache: dict[str, Tensor] = {}
        self._cached_bytes = 0

    def __call__(
        self, batch: dict, device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As :class:`common.engine.PreparePair`; labels and landmarks stay those of the image that was not warped."""
        image, pair = super().__call__(batch, device, non_blocking)
        stages = self.network.stages_in_use - 1
        if stages == 0:
            return image, pair
        self._forget_other(stages)
        moving, fixed = (batch[role].as_subclass(Tensor) for role in ("moving", "fixed"))
        names = [pair_name(*images) for images in zip(moving, fixed, strict=True)]
        warped = [self._warped(name, item[None], stages) for name, item in zip(names, image, strict=True)]
        return torch.cat([torch.cat(warped).to(image), pair["fixed"]], dim=1), pair

    def _forget_other(self, stages: int) -> None:
        """Empty the cache once another stage is trained."""
        if stages != self._stages:
            self._stages = stages
            self._cache.clear()
            self._cached_bytes = 0

    @torch.no_grad()
    def _warped(self, name: str, image: Tensor, stages: int) -> Tensor:
        """The moving image (1, 1, *S) of a pair (1, 2, *S), warped; the cache is in the CPU's memory."""
        if name in self._cache:
            return self._cache[name].to(image.device)
        warped = warp(image[:, :1], self.network.register_pair(image, stages, False)[0])
        size = warped.numel() * warped.element_size()
        if self._cached_bytes + size <= self.cache_limit:
            self._cache[name] = warped.cpu()
            self._cached_bytes += size
        return warped


def pair_name(moving: Tensor, fixed: Tensor) -> str:
    """What tells a pair of images (1, *S) from every other: a hash of some of their voxels."""
    sampled = [slice(None, None, SAMPLED)] * (moving.ndim - 1)
    return fingerprint(*(image[(..., *sampled)] for image in (moving, fixed)))


class PatchView(nn.Module):
    """The network as its training sees it: the stage in training on random patches of the images.

    Args:
        network: whose last stage in use is trained.
        alphas: of the operator of each stage.
        patches: drawn from every pair at each step.

    Raises:
        RegInputError: unless there is an alpha for each stage.
    """

    def __init__(self, network: PatchFCN, alphas: Sequence[float] = (0.01, 0.005, 0.001), patches: int = 16) -> None:
        super().__init__()
        if len(alphas) != len(network.stages) or patches < 1:
            raise RegInputError(
                f"got {len(alphas)} alphas and {patches} patches a pair for a network of {len(network.stages)} stages, "
                "expected an alpha for each stage and 1 patch or more; change them."
            )
        self.network = network
        self.alphas = [float(alpha) for alpha in alphas]
        self.patches = patches

    def forward(self, image: Tensor) -> PatchFields:
        """Draw patches of pairs (B, 2, *S) and ask the stage for their velocities."""
        stage = self.network.stages_in_use - 1
        windows = self.network.stages[stage]
        patches = draw_patches(image, self.patches, windows.patch_size, windows.core_size)
        moving, fixed = patches.chunk(2, dim=1)
        return PatchFields(windows.fcn(patches), moving, fixed, self.alphas[stage])


def draw_patches(image: Tensor, count: int, patch_size: int, core_size: int) -> Tensor:
    """Random patches of pairs, every other one around a voxel of the foreground, the rest around one outside.

    Patches reach as far beyond the image, into zeros, as a volume's windows do at inference, and no further. The
    foreground is where the fixed image is above 0; a kind of voxel that an image (nearly) lacks is replaced by any.

    Args:
        image: pairs (B, 2, *S), channel 0 moving and 1 fixed.
        count: patches of each pair.
        patch_size: voxels along every axis.
        core_size: the middle of a patch, with which windows tile the image.

    Returns:
        (B * count, 2, *P), both images from the same place.

    Source: the dense training of arXiv 2404.04244, section II-D.
    """
    margin = (patch_size - core_size) // 2
    size = image.shape[2:]
    beyond = [-n % core_size + margin for n in size]
    padded = F.pad(image, [k for after in reversed(beyond) for k in (margin, after)])
    last = torch.tensor(padded.shape[2:]) - patch_size
    patches = []
    for k, pair in enumerate(image):
        for i in range(count):
            center = draw_voxel(pair[1] > 0, wanted=(k * count + i) % 2 == 0)
            corner = torch.minimum((center + margin - patch_size // 2).clamp(min=0), last)
            patches.append(padded[k][(slice(None), *(slice(c, c + patch_size) for c in corner.tolist()))])
    return torch.stack(patches)


def draw_voxel(mask: Tensor, wanted: bool) -> Tensor:
    """A random voxel (N,) where ``mask`` (*S) is as wanted, or any if a thousand drawn ones are not."""
    size = torch.tensor(mask.shape)
    places = (torch.rand(CANDIDATES, len(size)) * size).long()
    found = (mask[tuple(places.to(mask.device).unbind(dim=1))] == wanted).cpu().nonzero()
    return places[int(found[0]) if len(found) else 0]
