"""How alike two images are, by name: what is compared, and the loss that compares it."""

import torch
from torch import Tensor, nn

from .errors import RegInputError
from .lncc import lncc, lncc_mean
from .mind import mind
from .mutual_information import mutual_information
from .spatial import at_least_float32

__all__ = ["LNCC", "MIND", "MSE", "SIMILARITIES", "MutualInformation", "Similarity", "make_similarity"]

SIMILARITIES = ("lncc", "mi", "mind", "mse")


class Similarity(nn.Module):
    """A loss between a warped and a fixed image that may look at features of them instead.

    Features are formed once and warped along, not formed again of every warped image.
    """

    def features(self, image: Tensor) -> Tensor:
        """What is compared: (B, C, *S) of an image (B, 1, *S); the image itself unless a subclass says otherwise."""
        return image

    def forward(self, warped: Tensor, fixed: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scalar loss of features (B, C, *S), over the voxels of ``mask`` (B or 1, 1, *S) if any."""
        raise NotImplementedError


class LNCC(Similarity):
    """1 - the mean of the squared local correlation, see :func:`common.lncc.lncc`; blind to slowly varying contrast.

    Args:
        kernel_size: odd side of the window in voxels.
    """

    def __init__(self, kernel_size: int = 5) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, warped: Tensor, fixed: Tensor, mask: Tensor | None = None) -> Tensor:
        """A masked loss weighs the map; windows at the mask's border look beyond it."""
        if mask is None:
            return 1 - lncc_mean(fixed, warped, self.kernel_size)
        return 1 - masked_mean(lncc(fixed, warped, self.kernel_size), mask)

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"kernel_size={self.kernel_size}"


class MSE(Similarity):
    """Mean squared difference: for images of one contrast, scaled alike."""

    def forward(self, warped: Tensor, fixed: Tensor, mask: Tensor | None = None) -> Tensor:
        """See :class:`Similarity`."""
        difference = (warped - fixed).square()
        return difference.mean() if mask is None else masked_mean(difference, mask)


class MIND(MSE):
    """Mean squared difference of MIND-SSC descriptors, see :func:`common.mind.mind`: across modalities.

    Args:
        radius: of the patches that are compared, in voxels; 0 compares single voxels: the sharpest, for clean images.
        dilation: how far apart these are.
    """

    def __init__(self, radius: int = 0, dilation: int = 1) -> None:
        super().__init__()
        self.radius = radius
        self.dilation = dilation

    def features(self, image: Tensor) -> Tensor:
        """(B, 12, *S)."""
        return mind(image, self.radius, self.dilation)


class MutualInformation(Similarity):
    """Negative mutual information over the whole image, see :func:`common.mutual_information.mutual_information`.

    Args:
        bins: of each image's intensities.
    """

    def __init__(self, bins: int = 32) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, warped: Tensor, fixed: Tensor, mask: Tensor | None = None) -> Tensor:
        """See :class:`Similarity`."""
        return -mutual_information(fixed, warped, self.bins, mask)


def make_similarity(name: str, kernel_size: int = 5, mind_radius: int = 0, mind_dilation: int = 1) -> Similarity:
    """The similarity of a name.

    Args:
        name: one of ``SIMILARITIES``.
        kernel_size: of "lncc".
        mind_radius: of "mind".
        mind_dilation: of "mind".

    Raises:
        RegInputError: for another name.
    """
    if name not in SIMILARITIES:
        raise RegInputError(f"the similarity is '{name}', expected one of {', '.join(SIMILARITIES)}; choose one.")
    makers = {
        "lncc": lambda: LNCC(kernel_size),
        "mi": MutualInformation,
        "mind": lambda: MIND(mind_radius, mind_dilation),
        "mse": MSE,
    }
    return makers[name]()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B, C, *S) over the voxels of a mask (B or 1, 1, *S), channels alike; 0 for an empty mask."""
    values = at_least_float32(values)  # half precision cannot count voxels
    weight = mask.to(values.dtype).expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=torch.finfo(values.dtype).tiny)
