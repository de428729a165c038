"""The commands `regbundles benchmark ...` of speed: they parse, the modules that they name measure."""

from pathlib import Path
from typing import Annotated

import typer

from common.errors import RegInputError

from ..arguments import Out, command_line, numbers

__all__ = ["COMMANDS"]


def lncc(
    out: Out = "results",
    sizes: Annotated[str, typer.Option(help="grids, as 160x192x224,80x96x112")] = "160x192x224",
    windows: Annotated[str, typer.Option(help="odd window widths in voxels, as 5,7,9")] = "9",
    runs: Annotated[int, typer.Option(help="timed runs of each case")] = 5,
    warmup: Annotated[int, typer.Option(help="runs before them")] = 1,
    threads: Annotated[int | None, typer.Option(help="of torch; its own choice by default")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    backends: Annotated[str | None, typer.Option(help="as five_conv,separable,compiled_monai; by device")] = None,
    batch: Annotated[str, typer.Option(help="batch and channels")] = "1x1",
) -> None:
    """Forward and backward of every LNCC backend, of MONAI's loss and others, beside the memory's own pace."""
    from .lncc import benchmark_lncc

    grids = [tuple(numbers(size, "x", "--sizes")) for size in sizes.split(",")]
    names = tuple(backends.split(",")) if backends else None
    widths, leading = numbers(windows, ",", "--windows"), tuple(numbers(batch, "x", "--batch"))
    stack = {"warmup": warmup, "threads": threads, "device": device, "backends": names, "batch": leading}
    print(benchmark_lncc(Path(out), grids, widths, runs, **stack))


def epoch(
    out: Out = "results",
    size: Annotated[str | None, typer.Option(help="grid; on a GPU 160x192x224, else 80x96x112")] = None,
    networks: Annotated[str | None, typer.Option(help="as 'VoxelMorph-1;TransMorph'; the paper's five")] = None,
    backends: Annotated[str, typer.Option(help="of LNCC, with commas")] = "five_conv,group_conv,auto",
    runs: Annotated[int, typer.Option(help="timed steps of each case")] = 5,
    warmup: Annotated[int, typer.Option(help="steps before them")] = 1,
    threads: Annotated[int, typer.Option(help="of torch")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """The fast LNCC paper's Table 1: seconds of a step and of an epoch by network and form of the loss."""
    from .epoch import benchmark_epoch
    from .measuring import usual_size
    from .network_variants import FAST_LNCC, variants_named

    grid, names = tuple(numbers(size or usual_size(device), "x", "--size")), variants_named(networks, FAST_LNCC)
    stack = {"threads": threads, "device": device, "command": command_line()}
    print(benchmark_epoch(Path(out), grid, runs, warmup, networks=names, backends=backends.split(","), **stack))


def network(
    out: Out = "results",
    size: Annotated[str | None, typer.Option(help="grid; on a GPU 160x192x224, else 80x96x112")] = None,
    networks: Annotated[str | None, typer.Option(help="as 'VoxelMorph-1;EOIR 8'; all by default")] = None,
    runs: Annotated[int, typer.Option(help="timed runs of each case")] = 5,
    warmup: Annotated[int, typer.Option(help="runs before them")] = 1,
    threads: Annotated[int, typer.Option(help="of torch")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Parameters, latency of a registration, time of a training step and peak memory of every network."""
    from .measuring import usual_size
    from .network import benchmark_network
    from .network_variants import VARIANTS, variants_named

    grid, names = tuple(numbers(size or usual_size(device), "x", "--size")), variants_named(networks, tuple(VARIANTS))
    stack = {"threads": threads, "device": device, "command": command_line()}
    print(benchmark_network(Path(out), grid, runs, warmup, networks=names, **stack))


def profile(
    out: Out = "results",
    size: Annotated[str | None, typer.Option(help="grid; on a GPU 160x192x224, else 80x96x112")] = None,
    networks: Annotated[str | None, typer.Option(help="as 'VoxelMorph-1;TransMorph'; the LNCC note's five")] = None,
    variants: Annotated[str | None, typer.Option(help="as 'plain;fused Adam'; all by default")] = None,
    runs: Annotated[int, typer.Option(help="timed steps of each case")] = 5,
    warmup: Annotated[int, typer.Option(help="steps before them")] = 2,
    threads: Annotated[int, typer.Option(help="of torch")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """The dearest operators of a training step, and that step by bf16, torch.compile, a fused optimizer and others."""
    from .measuring import usual_size
    from .network_variants import FAST_LNCC, variants_named
    from .profile import STEP_VARIANTS, benchmark_profile

    grid, names = tuple(numbers(size or usual_size(device), "x", "--size")), variants_named(networks, FAST_LNCC)
    chosen = variants_named(variants, ()) or None
    if unknown := set(chosen or ()) - set(STEP_VARIANTS):
        raise RegInputError(f"--variants got {sorted(unknown)}, expected some of {'; '.join(STEP_VARIANTS)}.")
    stack = {"threads": threads, "device": device, "command": command_line()}
    print(benchmark_profile(Path(out), grid, runs, warmup, networks=names, variants=chosen, **stack))


def curves(
    out: Out = "results",
    steps: Annotated[int, typer.Option(help="of each training, a multiple of 8")] = 200,
    dataset_dir: Annotated[str | None, typer.Option(help="prepared data set; default the bundle's phantom")] = None,
    threads: Annotated[int, typer.Option(help="of torch")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """VoxelMorph-1's loss from one seed by each form of LNCC, step by step."""
    import tempfile

    from .curves import benchmark_curves

    with tempfile.TemporaryDirectory() as work:
        options = {"dataset_dir": dataset_dir, "threads": threads, "device": device, "command": command_line()}
        print(benchmark_curves(Path(out), steps, work=Path(work), **options))


def kernels(
    out: Out = "results",
    size: Annotated[str, typer.Option(help="grid")] = "160x192x224",
    runs: Annotated[int, typer.Option(help="timed runs of each case")] = 5,
    threads: Annotated[int, typer.Option(help="of torch and of the loops")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Compiled loops, on a GPU kernels, beside torch: composition, warp, LNCC, Gaussian, forward and backward."""
    from .kernels import benchmark_kernels

    grid = tuple(numbers(size, "x", "--size"))
    print(benchmark_kernels(Path(out), grid, runs, threads=threads, device=device, command=command_line()))


def gpu(
    out: Out = "results",
    minutes: Annotated[float, typer.Option(help="after which it stops and says what is left")] = 9.0,
    parts: Annotated[str | None, typer.Option(help="as lncc,epoch; all by default, by importance")] = None,
    sizes: Annotated[str, typer.Option(help="full, or small to try it out")] = "full",
    commit: Annotated[str | None, typer.Option(help="of the code, where there is no .git to ask")] = None,
    threads: Annotated[int, typer.Option(help="of torch")] = 8,
    device: Annotated[str, typer.Option(help="cuda, or cpu to try it out")] = "cuda",
) -> None:
    """All that a GPU has to show, in one command that goes on where it stopped: tests, LNCC, networks, profiles."""
    from .gpu import benchmark_gpu

    chosen = parts.split(",") if parts else None
    stack = {"threads": threads, "device": device, "commit": commit, "command": command_line()}
    for line in benchmark_gpu(Path(out), minutes, parts=chosen, sizes=sizes, **stack):
        print(line)


COMMANDS = (lncc, epoch, network, profile, curves, kernels, gpu)
