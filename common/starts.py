"""What a network answers when it starts elsewhere: the moving image is displaced by a known field, and that undone.

A registration that is right does not depend on where the moving image happened to lie before; where answers from
several starts differ, something else than the images decided. The same input gives the same starts.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .spatial import at_least_float32, compose, identity_grid, upsample, warp
from .velocity import resampled, shrunk

__all__ = ["answer_from", "answers", "start_field", "started_elsewhere"]

Network = Callable[[Tensor], Tensor]

LENGTH = 1.5  # voxels: root mean square of a component of a start
SHARE = 0.025  # of an axis at most, so that axes of fewer than 60 voxels are moved by less and nothing folds
HALF_WAVES = 3  # of the bump's shortest wave along an axis
LEAST_SIDE = 32  # voxels that shrinking leaves along an axis


@torch.no_grad()
def started_elsewhere(
    network: Network,
    image: Tensor,
    ddf: Tensor,
    check_starts: int,
    error_starts: int,
    shrink: float = 1,
) -> dict[str, Tensor]:
    """How a network's answers from perturbed starts compare with its own.

    Args:
        network: maps ``image`` to a ddf (B, N, *S) in voxels.
        image: (B, C, *S), channel 0 moving and 1 fixed.
        ddf: its answer to it.
        check_starts: how many answers are kept.
        error_starts: from how many the spread is taken, memory of one field in all; answers serve for both.
        shrink: as in :func:`answer_from`.

    Returns:
        Of those that were asked for, "starts": ddfs (B, check_starts, N, *S), and "spread": root mean square of their
        components' differences from ``ddf``, (B, N, *S), both in voxels.
    """
    kept, squares = [], torch.zeros_like(at_least_float32(ddf)) if error_starts else None
    for k, answer in enumerate(answers(network, image, max(check_starts, error_starts), shrink)):
        if k < check_starts:
            kept.append(answer)
        if k < error_starts:
            squares += (answer - ddf).square()
    found = {"starts": torch.stack(kept, dim=1)} if kept else {}
    return found if squares is None else found | {"spread": squares.div_(error_starts).sqrt_()}


def answers(network: Network, image: Tensor, count: int, shrink: float = 1) -> Iterator[Tensor]:
    """A network's answers from ``count`` starts that the images decide, (B, N, *S) each; the first are always the same.

    Args:
        network: maps ``image`` to a ddf (B, N, *S) in voxels.
        image: (B, C, *S), channel 0 moving and 1 fixed.
        count: of the starts.
        shrink: as in :func:`answer_from`.
    """
    image = image.as_subclass(Tensor)
    generators = [content_generator(pair) for pair in image]
    for _ in range(count):
        starts = torch.cat([start_field(image.shape[2:], generator) for generator in generators])
        yield answer_from(network, image, starts.to(image.device), shrink)


@torch.no_grad()
def answer_from(network: Network, image: Tensor, start: Tensor, shrink: float = 1) -> Tensor:
    """A network's answer to a pair whose moving image was displaced before, as a ddf to the moving image as it is.

    A mask belongs to the fixed grid and stays.

    Args:
        network: maps (B, C, *S) to a ddf (B, N, *S) in voxels.
        image: (B, C, *S), channel 0 moving, 1 fixed, and perhaps 2 a mask, inside above 0.
        start: ddf (B, N, *S) in voxels: the network sees ``moving(x + start(x))``.
        shrink: by how much the images are made smaller before, for methods that take any resolution.

    Returns:
        ``compose(start, answer)`` (B, N, *S) in voxels.
    """
    size = list(image.shape[2:])
    seen = torch.cat([warp(image[:, :1], start), image[:, 1:]], dim=1)
    small = [max(min(n, LEAST_SIDE), round(n / shrink)) for n in size]
    if small == size:
        return compose(start, network(seen))
    return compose(start, upsample(network(smaller_pair(seen, small)), size))


def smaller_pair(image: Tensor, size: list[int]) -> Tensor:
    """Both images (B, C, *S) on a coarser grid, and the mask where there is one: what touches it is inside."""
    if image.shape[1] == 2:
        return shrunk(image, size)
    mask = resampled((image[:, 2:] > 0).to(image.dtype), size) > 0
    return torch.cat([shrunk(image[:, :2], size), mask.to(image.dtype)], dim=1)


def start_field(size: Sequence[int], generator: torch.Generator) -> Tensor:
    """A smooth random displacement: a shift, a small turn about the center and a bump of a few half waves.

    Args:
        size: S.
        generator: of the CPU; decides the field.

    Returns:
        ddf (1, N, *S) in voxels, float32; a component's root mean square is about 1.5 voxels, less along axes of fewer
        than 60 voxels.
    """
    ndim = len(size)
    shift = torch.randn(1, ndim, *[1] * ndim, generator=generator)
    parts = (shift, turn(size, generator), bump(size, generator))
    longest = torch.tensor([min(LENGTH, SHARE * n) for n in size]).view(1, -1, *[1] * ndim)
    return longest * sum(part / (len(parts) * part.square().mean()).sqrt().clamp(min=1e-6) for part in parts)


def turn(size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Displacement (1, N, *S) of a turn about the center, of any angle: to be scaled down."""
    matrix = torch.randn(len(size), len(size), generator=generator)
    grid = identity_grid(list(size), matrix)
    centered = grid - (torch.tensor(size).view(1, -1, *[1] * len(size)) - 1) / 2
    return torch.einsum("ij,bj...->bi...", matrix - matrix.T, centered)


def bump(size: Sequence[int], generator: torch.Generator) -> Tensor:
    """A random sum of products of cosines, (1, N, *S), without a constant part."""
    ndim = len(size)
    field = torch.randn(ndim, *[HALF_WAVES + 1] * ndim, generator=generator)
    field[(slice(None), *[0] * ndim)] = 0
    waves = torch.arange(HALF_WAVES + 1.0)[:, None]
    for n in size:  # contracts the first axis of waves and appends the voxels: after N turns the order is back
        field = torch.tensordot(field, torch.cos(torch.pi * waves * (torch.arange(n) + 0.5) / n), dims=([1], [0]))
    return field[None]


def content_generator(pair: Tensor) -> torch.Generator:
    """Random numbers that a pair (C, *S) decides."""
    content = pair.detach().float().cpu().contiguous().numpy()
    seed = hashlib.blake2b(content, digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(seed))
