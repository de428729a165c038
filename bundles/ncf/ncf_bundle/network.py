"""NCF: the weights of a small network of the coordinates, optimised for one pair, are the registration.

Source: L. Zhou et al., "NCF: Neural Correspondence Field for Medical Image Registration", arXiv:2503.00760. The paper
names the parts and little else; docs/README.md lists what is ours.
"""

from collections.abc import Iterator, Sequence

import torch
from monai.networks.layers import gaussian_1d, separable_filtering
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import RegInputError
from common.instance import Plateau, Trace, minimize
from common.occupancy import OccupancyLoss
from common.progress import step_bar
from common.spatial import at_least_float32, warp
from common.ssim import SSIMLoss

from .field import SLAB, CorrespondenceField

__all__ = ["NCF"]


class NCF(nn.Module):
    """Registers each pair that it is given by optimising fresh weights; it has none of its own.

    Gradients are switched on inside, whatever the caller has. Images are expected in [0, ``data_range``]. The same
    seed gives the same field, on one device and number of threads, wherever in a batch the pair stands.

    Args:
        widths: hidden layers on the coordinates; this and the next four as in :class:`.field.CorrespondenceField`.
        smooth_channels: between the two convolutions.
        activation: "relu", "leaky_relu" or "siren".
        omega: frequency of SIREN's sines.
        residual_smoothing: add the convolutions' result to the coarse field.
        iterations: steps of Adam in all.
        half_resolution_steps: how many of them, the first ones, see images of half the size; the weights carry over,
            because coordinates have no resolution.
        learning_rate: at the first step.
        final_learning_rate: at the last one, by half a cosine.
        mse_weight: of the mean squared difference of fixed and warped image.
        ssim_weight: of 1 - mean SSIM.
        occupancy_weight: of the unevenness with which moving voxels are visited. Weights of 0 leave a term out.
        ssim_window: "gaussian" or "box".
        ssim_kernel_size: odd side of its window in voxels.
        ssim_sigma: of the Gaussian in voxels.
        data_range: of the intensities, for SSIM.
        patience: stop, in either stage, once the loss has not fallen for so many steps; ``None`` takes all steps.
        tolerance: smallest relative fall that counts for that.
        chunk: voxels that the linear layers take at a time: memory is bounded at the price of a second evaluation for
            the gradient, and the result is the same. By default 4096 on a CPU, else 65,536; 0 takes all.
        slab: voxels that the convolutions take at a time, likewise; 0 takes all.
        deterministic: fix the order of sums in the occupancy on CUDA too.
        seed: of the weights.
        progress: draw a bar with the terms.

    Raises:
        RegInputError: for settings that make no optimisation.
    """

    def __init__(
        self,
        widths: Sequence[int] = (128, 128, 128, 128),
        smooth_channels: int = 64,
        activation: str = "relu",
        omega: float = 30.0,
        residual_smoothing: bool = False,
        iterations: int = 1000,
        half_resolution_steps: int = 0,
        learning_rate: float = 1e-3,
        final_learning_rate: float = 1e-6,
        mse_weight: float = 1.0,
        ssim_weight: float = 1.0,
        occupancy_weight: float = 0.1,
        ssim_window: str = "gaussian",
        ssim_kernel_size: int = 11,
        ssim_sigma: float = 1.5,
        data_range: float = 1.0,
        patience: int | None = None,
        tolerance: float = 1e-4,
        chunk: int | None = None,
        slab: int = SLAB,
        deterministic: bool = False,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        super().__init__()
        if iterations < 0 or not 0 <= half_resolution_steps <= iterations:
            raise RegInputError(
                f"iterations is {iterations} and half_resolution_steps {half_resolution_steps}, expected numbers of "
                "steps, the second no larger than the first; correct them."
            )
        if not 0 <= final_learning_rate <= learning_rate or learning_rate <= 0:
            raise RegInputError(
                f"learning_rate is {learning_rate} and final_learning_rate {final_learning_rate}, expected the first "
                "above 0 and the second no larger than it; correct them."
            )
        weights = {"mse": mse_weight, "ssim": ssim_weight, "occupancy": occupancy_weight}
        if min(weights.values()) < 0 or mse_weight + ssim_weight == 0:
            raise RegInputError(
                f"the loss has the weights {weights}, expected none below 0 and one of mse and ssim above; raise it."
            )
        self.weights = weights
        self.architecture = {"widths": tuple(widths), "smooth_channels": smooth_channels, "activation": activation}
        self.architecture |= {"omega": omega, "residual": residual_smoothing, "seed": seed}
        self.architecture |= {"chunk": chunk, "slab": slab}
        CorrespondenceField(**self.architecture)  # refuses now what it would refuse with a pair at hand
        self.iterations = iterations
        self.half_resolution_steps = half_resolution_steps
        self.learning_rate = learning_rate
        self.final_learning_rate = final_learning_rate
        self.ssim_kernel_size = ssim_kernel_size
        self.ssim = SSIMLoss(ssim_window, ssim_kernel_size, ssim_sigma, data_range)
        self.occupancy = OccupancyLoss(deterministic)
        self.stop = None if patience is None else Plateau(patience, tolerance)
        self.progress = progress
        self.traces: list[Trace] = []
        """The terms over the steps of the last pair, one trace a stage."""

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 2, *S), channel 0 moving and 1 fixed, to a ddf (B, N, *S) in voxels, one pair after the other.

        Raises:
            RegInputError: if the image is no pair in 2-D or 3-D, or smaller than the window of SSIM.
            RegNumericsError: if the loss is not finite.
        """
        self._check(image)
        with torch.inference_mode(False), torch.autocast(image.device.type, enabled=False):
            pairs = at_least_float32(image.as_subclass(Tensor)).detach().clone()  # inference mode's own have no graph
            return torch.cat([self.register(pair) for pair in pairs.split(1)])

    def register(self, pair: Tensor) -> Tensor:
        """The ddf (1, N, *S) of one pair (1, 2, *S)."""
        with torch.enable_grad():
            field = CorrespondenceField(pair.ndim - 2, **self.architecture).to(pair)
        optimizer = torch.optim.Adam(field.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, max(self.iterations, 1), eta_min=self.final_learning_rate
        )
        self.traces = []
        with step_bar("NCF", self.iterations, self.progress) as report:
            for images, steps in self._stages(pair):
                moving, fixed = images.chunk(2, dim=1)
                rules = {"scheduler": schedule, "stop": self.stop, "report": report}
                trace = minimize(lambda m=moving, f=fixed: self.terms(field, m, f), optimizer, steps, **rules)
                self.traces.append(trace)
        with torch.no_grad():
            return field(pair.shape[2:])

    def terms(self, field: CorrespondenceField, moving: Tensor, fixed: Tensor) -> dict[str, Tensor]:
        """The weighted terms of the loss, those whose weight is 0 left out.

        Args:
            field: with the weights to judge.
            moving: (1, 1, *S).
            fixed: the same shape.
        """
        ddf = field(fixed.shape[2:])
        warped = warp(moving, ddf, padding_mode="border")
        losses = {
            "mse": lambda: F.mse_loss(warped, fixed),
            "ssim": lambda: self.ssim(fixed, warped),
            "occupancy": lambda: self.occupancy(ddf),
        }
        return {name: weight * losses[name]() for name, weight in self.weights.items() if weight > 0}

    def _stages(self, pair: Tensor) -> Iterator[tuple[Tensor, int]]:
        """Images and number of steps of each stage."""
        if self.half_resolution_steps:
            yield halve(pair), self.half_resolution_steps
        if self.iterations > self.half_resolution_steps:
            yield pair, self.iterations - self.half_resolution_steps

    def _check(self, image: Tensor) -> None:
        if image.ndim not in (4, 5) or image.shape[1] != 2:
            raise RegInputError(
                f"NCF got an image of shape {tuple(image.shape)}, expected (B, 2, H, W) or (B, 2, D, H, W), channel 0 "
                "moving and 1 fixed; stack one moving and one fixed image."
            )
        size = [halved(side) if self.half_resolution_steps else side for side in image.shape[2:]]
        if self.weights["ssim"] > 0 and min(size) < self.ssim_kernel_size:
            raise RegInputError(
                f"NCF got images of size {tuple(image.shape[2:])}, optimised at {tuple(size)} first, expected no side "
                f"below {self.ssim_kernel_size}, the window of SSIM; choose a smaller odd ssim_kernel_size, larger "
                "images or no half_resolution_steps."
            )


def halve(image: Tensor) -> Tensor:
    """Blur by a Gaussian of one voxel and resample to half the size, first and last voxel centers kept."""
    kernel = gaussian_1d(torch.ones(()), truncated=2.0, approx="sampled", normalize=True).to(image)
    blurred = separable_filtering(image, [kernel] * (image.ndim - 2), mode="replicate")
    mode = "trilinear" if image.ndim == 5 else "bilinear"
    return F.interpolate(blurred, [halved(side) for side in image.shape[2:]], mode=mode, align_corners=True)


def halved(side: int) -> int:
    """Half of a number of voxels, rounded up."""
    return (side + 1) // 2
