"""The commands `regbundles benchmark ...`: they parse, the modules that they name measure."""

from pathlib import Path
from typing import Annotated

import typer

from ..arguments import Out, command_line, decimals, numbers
from .quality_commands import limits, quality, quality_cost
from .report_commands import report
from .speed_commands import COMMANDS as SPEED

__all__ = ["benchmark"]

benchmark = typer.Typer(no_args_is_help=True, help="Measure speed and memory; csv files whose names carry the device.")
benchmark.add_typer(report, name="report")
for speed in SPEED:
    benchmark.command()(speed)
benchmark.command()(quality)
benchmark.command()(limits)
benchmark.command()(quality_cost)


@benchmark.command()
def defaults(
    work: Annotated[str, typer.Option(help="folder for phantoms, weights and scores, kept")],
    out: Out = "results",
    bundles: Annotated[str, typer.Option(help="of trained networks, with commas")] = "voxelmorph,lku_net,transmorph",
    threads: Annotated[int, typer.Option(help="of torch and numba")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Every bundle's train.json as it is, on the phantom: seconds, and Dice before and after."""
    from .defaults import benchmark_defaults

    stack = {"threads": threads, "device": device, "command": command_line()}
    print(benchmark_defaults(Path(out), bundles.split(","), work=Path(work), **stack))


@benchmark.command()
def windows(
    out: Out = "results",
    sizes: Annotated[str, typer.Option(help="grids")] = "160x160x160,256x256x256,384x384x384",
    in_flight: Annotated[str, typer.Option(help="windows that pass the network at once")] = "4,16",
    network: Annotated[str, typer.Option(help="a network of patch_fcn's")] = "Patch FCN light",
    threads: Annotated[int, typer.Option(help="of torch")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Peak memory of a network of windows over whole volumes, by size and by windows in flight."""
    from .windows import benchmark_windows

    grids = [tuple(numbers(size, "x", "--sizes")) for size in sizes.split(",")]
    stack = {"threads": threads, "device": device, "command": command_line()}
    print(benchmark_windows(Path(out), grids, numbers(in_flight, ",", "--in-flight"), network, **stack))


@benchmark.command()
def export(
    out: Out = "results",
    bundles: Annotated[str | None, typer.Option(help="names, with commas; default all that can be exported")] = None,
    formats: Annotated[str, typer.Option(help="with commas")] = "onnx,torchscript",
    size: Annotated[str | None, typer.Option(help="of the pair; default twice the least of each metadata")] = None,
    threads: Annotated[int, typer.Option(help="of torch and onnxruntime")] = 2,
) -> None:
    """Every network as ONNX and TorchScript: megabytes, seconds, and the difference from torch, on one pair."""
    from .exports import benchmark_exports

    grid, names = None if size is None else numbers(size, "x", "--size"), bundles.split(",") if bundles else None
    stack = {"threads": threads, "command": command_line()}
    print(benchmark_exports(Path(out), names, formats.split(","), grid, **stack))


@benchmark.command()
def accuracy(
    dataset_dir: Annotated[str, typer.Option(help="prepared data set whose test pairs have labels")],
    work: Annotated[str, typer.Option(help="folder for weights and registrations, kept")],
    out: Out = "results",
    methods: Annotated[str | None, typer.Option(help="as 'SVF;VoxelMorph-1;EOIR 8'; all by default")] = None,
    section: Annotated[str, typer.Option(help="whose pairs are scored: validation or testing")] = "testing",
    minutes: Annotated[float, typer.Option(help="of every training")] = 30.0,
    smooth_weights: Annotated[str | None, typer.Option(help="a training for each; the configurations' own")] = None,
    svf_weights: Annotated[str | None, typer.Option(help="of SVF's divergence, as 0.1,0.4; its own")] = None,
    learning_rate: Annotated[float, typer.Option(help="of every training")] = 0.0004,
    roi: Annotated[str | None, typer.Option(help="center of the grid to train on, as 80x80x96; default all")] = None,
    threads: Annotated[int, typer.Option(help="of torch")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Every bundle on the same test pairs, each trained for the same time; what is finished is not done again."""
    from .accuracy import METHODS, Terms, benchmark_accuracy, methods_of
    from .network_variants import variants_named

    size = None if roi is None else tuple(numbers(roi, "x", "--roi"))
    weights, own = (
        (None,) if text is None else decimals(text, flag)
        for text, flag in ((smooth_weights, "--smooth-weights"), (svf_weights, "--svf-weights"))
    )
    terms = Terms(
        str(Path(dataset_dir).absolute()), section, minutes=minutes, learning_rate=learning_rate, roi_size=size
    )
    chosen = methods_of(variants_named(methods, METHODS), weights, own)
    places = {"work": Path(work).absolute(), "command": command_line()}
    print(benchmark_accuracy(Path(out), terms._replace(threads=threads, device=device), chosen, **places))


@benchmark.command()
def pairs(
    data: Annotated[str, typer.Option(help="folder of native <id>_SS.nii.gz and <id>_glm.nii.gz of MALC")],
    out: Out = "results",
    methods: Annotated[str, typer.Option(help="of svf, greedy and syn, with commas")] = "svf,greedy,syn",
    threads: Annotated[int, typer.Option(help="of every method")] = 2,
    limit: Annotated[int | None, typer.Option(help="number of pairs; all by default")] = None,
) -> None:
    """SVF beside picsl-greedy and SyN on native pairs: overlap, smoothness, time. A stopped run goes on."""
    from .pairs import benchmark_pairs

    print(benchmark_pairs(Path(data), Path(out), methods.split(","), threads, limit))


@benchmark.command()
def liver(
    data: Annotated[str, typer.Option(help="folder of the scans")],
    out: Out = "results",
    threads: Annotated[int, typer.Option(help="of torch")] = 2,
) -> None:
    """SVF on respiratory liver MR: mean landmark error inside and outside the liver."""
    from .scans import benchmark_liver

    print(benchmark_liver(Path(data), Path(out), threads=threads))


@benchmark.command()
def lung(
    data: Annotated[str, typer.Option(help="folder of the scans")],
    out: Out = "results",
    bundles: Annotated[str, typer.Option(help="with an overlay lung_ct, with commas")] = "svf,ncf",
    threads: Annotated[int, typer.Option(help="of torch")] = 2,
) -> None:
    """Bundles without training data on a lung CT pair: mask Dice, folds, seconds."""
    from .scans import benchmark_lung

    print(benchmark_lung(Path(data), Path(out), bundles.split(","), threads=threads))


@benchmark.command()
def contrast(
    data: Annotated[str, typer.Option(help="folder of the scans")],
    out: Out = "results",
    threads: Annotated[int, typer.Option(help="of torch")] = 2,
) -> None:
    """SVF on a MALC pair whose moving scan is T1, inverted and T2-like, by lncc, mi and mind."""
    from .scans import benchmark_contrast

    print(benchmark_contrast(Path(data), Path(out), threads=threads))


@benchmark.command()
def force(
    data: Annotated[str, typer.Option(help="folder of native MALC scans and labels")],
    out: Out = "results",
    threads: Annotated[int, typer.Option(help="of torch")] = 2,
) -> None:
    """SVF by the force at the end point and by the gradient through every squaring, on one MALC pair."""
    from .scans import benchmark_force

    print(benchmark_force(Path(data), Path(out), threads=threads))


@benchmark.command()
def dice(
    out: Out = "results",
    size: Annotated[str, typer.Option(help="grid, as 160x192x224")] = "160x192x224",
    labels: Annotated[str, typer.Option(help="numbers of labels, as 4,36")] = "36",
    runs: Annotated[int, typer.Option(help="timed runs of each case")] = 1,
    warmup: Annotated[int, typer.Option(help="runs before them")] = 0,
    threads: Annotated[int | None, typer.Option(help="of torch; its own choice by default")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Soft Dice of many labels without one-hot maps, beside MONAI's DiceLoss on them."""
    from .dice import benchmark_dice

    grid, counts = tuple(numbers(size, "x", "--size")), numbers(labels, ",", "--labels")
    stack = {"warmup": warmup, "threads": threads, "device": device}
    print(benchmark_dice(Path(out), grid, counts, runs, **stack, command=command_line()))


@benchmark.command()
def eoir(
    out: Out = "results",
    dataset_dir: Annotated[str | None, typer.Option(help="prepared data set; default the bundle's phantom")] = None,
    depths: Annotated[str, typer.Option(help="encoder layers, 0 to 6")] = "0,1,2,3",
    widths: Annotated[str, typer.Option(help="start channels")] = "4,8,16",
    smooth_weights: Annotated[str, typer.Option(help="tried at the last depth and width named")] = "0.1,0.5,1,2",
    steps: Annotated[int | None, typer.Option(help="of each training; default the configuration's")] = None,
    seed: Annotated[int, typer.Option(help="of weights and pairs")] = 0,
    overlay: Annotated[list[str] | None, typer.Option(help="over train.json, as malc.json; may be repeated")] = None,
    threads: Annotated[int, typer.Option(help="of torch")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    work: Annotated[str | None, typer.Option(help="folder for the weights; default bundles/eoir/eval/sweep")] = None,
) -> None:
    """Dice, smoothness and cost of EOIR by encoder depth, width and smoothness weight; continues where it stopped."""
    from .eoir import Sweep, benchmark_eoir

    sweep = Sweep(dataset_dir, tuple(overlay or ()), steps, seed, threads, device)
    sweep = sweep._replace(work=str(Path(work).absolute())) if work else sweep
    weights = decimals(smooth_weights, "--smooth-weights")
    depth, width = numbers(depths, ",", "--depths"), numbers(widths, ",", "--widths")
    print(benchmark_eoir(Path(out), sweep, depth, width, weights, command=command_line()))


@benchmark.command()
def ncf(
    out: Out = "results",
    sizes: Annotated[str, typer.Option(help="grids, as 192x192x208,96x96x104")] = "192x192x208",
    parts: Annotated[str, typer.Option(help="whole, auto or voxels at a time, as whole,auto,2048")] = "whole,auto",
    steps: Annotated[int, typer.Option(help="timed steps of each case")] = 3,
    threads: Annotated[int, typer.Option(help="of torch")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Peak memory and seconds of a step of NCF, whole and in parts."""
    from .ncf import benchmark_ncf

    grids = [tuple(numbers(size, "x", "--sizes")) for size in sizes.split(",")]
    stack = {"threads": threads, "device": device, "command": command_line()}
    print(benchmark_ncf(Path(out), grids, parts.split(","), steps, **stack))


@benchmark.command()
def register(
    out: Out = "results",
    sizes: Annotated[str, typer.Option(help="grids")] = "160x192x224,256x256x256,512x512x300",
    bundles: Annotated[str, typer.Option(help="names, with commas")] = "svf",
    threads: Annotated[int, typer.Option(help="of the command")] = 2,
) -> None:
    """`regbundles register` from raw files to the last result: seconds and peak memory by size."""
    from .register import benchmark_register

    grids = [tuple(numbers(size, "x", "--sizes")) for size in sizes.split(",")]
    print(benchmark_register(Path(out), grids, bundles.split(","), threads=threads))


@benchmark.command()
def raw(
    data: Annotated[str, typer.Option(help="folder of lung_ct, malc and mni152, of which each pair reads its own")],
    out: Out = "results",
    pairs: Annotated[str | None, typer.Option(help="names, as lung,thick-fixed; default all")] = None,
    threads: Annotated[int, typer.Option(help="of the command")] = 2,
    work: Annotated[str | None, typer.Option(help="folder where results and pictures stay; default none")] = None,
) -> None:
    """`regbundles register` on raw scans, with labels to score by and no other flag: Dice, error, seconds, memory."""
    from .raw import benchmark_raw
    from .raw_cases import CASES

    names, kept = pairs.split(",") if pairs else tuple(CASES), None if work is None else Path(work).absolute()
    print(benchmark_raw(Path(data), Path(out), names, threads=threads, work=kept, command=command_line()))


@benchmark.command()
def intervals(
    work: Annotated[str, typer.Option(help="folder for registrations, kept")],
    out: Out = "results",
    methods: Annotated[str, typer.Option(help="bundles, with commas")] = "svf,transmorph",
    weights: Annotated[str | None, typer.Option(help="folder with <bundle>/model.pt of those that are trained")] = None,
    pairs: Annotated[int, typer.Option(help="of each half and method")] = 16,
    fit: Annotated[bool, typer.Option(help="write common/error_limits.json from the calibration half")] = False,
    threads: Annotated[int, typer.Option(help="of torch")] = 1,
) -> None:
    """Error maps on phantom pairs with known deformation: how many errors lie within their 95 % lengths, and where."""
    from .intervals import benchmark_intervals

    options = {"weights": None if weights is None else Path(weights).absolute(), "fit": fit, "threads": threads}
    places = {"work": Path(work).absolute(), "command": command_line()}
    print(benchmark_intervals(Path(out), methods.split(","), pairs, **options, **places))


@benchmark.command()
def training(
    out: Out = "results",
    kills: Annotated[int, typer.Option(help="SIGKILLs at random moments, each resumed")] = 50,
    damages: Annotated[int, typer.Option(help="damaged copies of a checkpoint")] = 305,
    seed: Annotated[int, typer.Option(help="of moments and bits")] = 0,
    threads: Annotated[int, typer.Option(help="of torch")] = 1,
) -> None:
    """What a training run survives: kills, damaged checkpoints; and whether it repeats itself."""
    from .training import benchmark_training

    print(benchmark_training(Path(out), kills, damages, seed, threads=threads, command=command_line()))


@benchmark.command()
def memory(
    out: Out = "results",
    bundle: Annotated[str, typer.Option(help="folder under bundles/")] = "eoir",
    size: Annotated[str, typer.Option(help="of the large pair")] = "160x192x224",
    overlay: Annotated[list[str] | None, typer.Option(help="over inference.json; may be repeated")] = None,
    repeats: Annotated[int, typer.Option(help="registrations of a small pair; 0 for none")] = 500,
    steps: Annotated[int, typer.Option(help="of a small training; 0 for none")] = 2000,
    threads: Annotated[int, typer.Option(help="of torch")] = 1,
) -> None:
    """Peak memory of one registration; what many registrations and training steps leave behind."""
    from .memory import benchmark_memory

    grid, overlays = tuple(numbers(size, "x", "--size")), ("", *(overlay or ()))
    line = command_line()
    print(benchmark_memory(Path(out), bundle, grid, overlays, repeats, steps, threads=threads, command=line))


@benchmark.command()
def index(
    out: Out = "results",
    pairs: Annotated[int, typer.Option(help="made up")] = 10000,
    runs: Annotated[int, typer.Option(help="times that the page is written and opened")] = 5,
) -> None:
    """Seconds until `regbundles report` has written a page over many pairs, and headless Chromium drawn its table."""
    from .index import benchmark_index

    print(benchmark_index(Path(out), pairs, runs, command_line()))


@benchmark.command()
def linearity(
    weights: Annotated[str, typer.Option(help="model.pt of a trained EOIR")],
    dataset_dir: Annotated[str | None, typer.Option(help="prepared data set; default the bundle's phantom")] = None,
    overlay: Annotated[list[str] | None, typer.Option(help="over train.json, as in training; may be repeated")] = None,
    depth: Annotated[int | None, typer.Option(help="encoder layers; default the configuration's")] = None,
    channels: Annotated[int | None, typer.Option(help="start channels; default the configuration's")] = None,
    seed: Annotated[int, typer.Option(help="of the untrained network")] = 0,
    results: Annotated[str, typer.Option(help="folder for the csv")] = "results",
    out: Annotated[str, typer.Option(help="folder for the picture")] = "bundles/eoir/docs",
) -> None:
    """How locally linear EOIR's features are before and after training: a heat map and its numbers."""
    from .linearity_eoir import linearity_eoir

    network = {"dataset_dir": dataset_dir, "overlays": overlay or (), "depth": depth, "channels": channels}
    folders = Path(results), Path(out)
    for path in linearity_eoir(*folders, Path(weights), **network, seed=seed, command=command_line()):
        print(path)
