"""Whether error maps hold: how many known errors of phantom pairs lie below the length that 95 % of them should.

The calibration half of the pairs gives the exponents of ``common/error_limits.json``, by quantile regression with every
pair and method weighing the same; the held-out half, other subjects on other grids, is what coverage is told of.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor

from common.error_map import LIMITS, PREDICTORS, error_limits, half_width, predictors, voxel_mm
from common.errors import RegInputError
from common.files import save_atomically

from ..repository import commit
from .interval_pairs import HALVES, STARTS, Answer, Case, answer_of, cases_of, is_trained, regions_of
from .measuring import device_name, file_name, write

__all__ = ["SHARE", "benchmark_intervals", "coverage", "fit_exponents"]

SHARE = 0.95
COLUMNS = ("starts", "region", "voxels", "coverage_percent", "spread_alone_percent", "mean_error_mm", "error_p95_mm")
COLUMNS = (*COLUMNS, "mean_half_width_mm", "mean_spread_alone_mm")
SAMPLES = 2000
"""Voxels of the head that a pair gives to the fit."""
FITTED = 4
"""Starts: as many as a map is advised to take."""
ROUNDED = 0.05
"""Of the logarithm of a length: over how much the kink of the quantile's loss is rounded off."""


class Limits(NamedTuple):
    """Two ways to a length."""

    exponents: Mapping[str, float]
    """By predictor, as ``common/error_limits.json`` has them."""
    spread_factor: float
    """Of the spread alone, for comparison."""


def benchmark_intervals(
    out: Path,
    bundles: Sequence[str],
    pairs: int,
    *,
    work: Path,
    weights: Path | None = None,
    fit: bool = False,
    threads: int = 1,
    command: str = "",
    say: Callable[[str], None] = print,
) -> Path:
    """Register the pairs that are not in ``work`` yet, fit if asked to, and write coverage by half, pair and region.

    Args:
        out: folder for the csv.
        bundles: names.
        pairs: of each half and method.
        work: folder that keeps the registrations.
        weights: folder with a folder a bundle, in it ``model.pt`` and ``grid.json`` as its ``train.json`` wrote them.
        fit: write ``common/error_limits.json`` from the calibration half.
        threads: of torch.
        command: for the column of that name.
        say: gets a line after each pair.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: for fewer than two pairs, or weights that are missing; before anything is registered.
    """
    methods = methods_of(bundles, weights, pairs)
    torch.set_num_threads(threads)
    path = out / file_name("intervals", "cpu", threads)
    stack = {"device": device_name("cpu"), "torch": torch.__version__, "threads": threads, "commit": commit()}
    answers = {half: list(answers_of(half, methods, pairs, work)) for half in HALVES}
    samples = [sample_of(answer()) for *_, answer in answers["calibration"]]
    if fit:
        write_limits(fit_exponents(samples), path, command)
    limits = Limits(error_limits()["exponents"], spread_factor(samples))
    rows = []
    for half in HALVES:
        for method, case, answer in answers[half]:
            found = rows_of(answer(), limits)
            pair = {"half": half, "method": method, **case._asdict(), "size": "x".join(map(str, case.size))}
            rows += [{**pair, **row, **stack, "command": command} for row in found]
            say(f"{half} {method} {case.name}: {found[0]['coverage_percent']} %")
    return write(path, rows)


def methods_of(bundles: Sequence[str], weights: Path | None, pairs: int) -> dict[str, Path | None]:
    """The folder of each bundle's weights, None of those that have none; refuses what cannot be measured."""
    if pairs < 2:
        raise RegInputError(f"got {pairs} pairs, expected 2 or more of each half; raise --pairs.")
    methods = {name: Path(weights or "", name) if is_trained(name) else None for name in bundles}
    for folder in methods.values():
        if folder is not None and not (folder / "model.pt").is_file():
            raise RegInputError(
                f"{folder / 'model.pt'} is missing, expected weights; write them there by the bundle's train.json with "
                f"--ckpt_dir {folder}."
            )
    return methods


def answers_of(
    half: str, methods: Mapping[str, Path | None], pairs: int, work: Path
) -> Iterator[tuple[str, Case, Callable[[], Answer]]]:
    """Method, pair and what hands out its registration, made at once and not kept in memory."""
    for bundle, weights in methods.items():
        for case in cases_of(half, pairs):
            answer = partial(answer_of, case, bundle, weights, work)
            answer()
            yield bundle, case, answer


def sample_of(answer: Answer) -> dict[str, np.ndarray]:
    """Some voxels of the head: predictors, error and spread, lengths in voxels."""
    spread = answer.spreads[FITTED]
    body = regions_of(answer)["body"]
    chosen = np.random.default_rng(0).choice(body.sum(), SAMPLES)
    found = predictors(answer.image, answer.ddf, spread, answer.spacing_mm)
    maps = {name: value.expand(1, 1, *body.shape) for name, value in found.items()}
    maps |= {"error": answer.error_mm / voxel_mm(answer.spacing_mm), "alone": length_mm(spread, answer)}
    maps["alone"] = maps["alone"] / voxel_mm(answer.spacing_mm)
    return {name: value[0, 0].numpy()[body][chosen] for name, value in maps.items()}


def length_mm(spread: Tensor, answer: Answer) -> Tensor:
    """(1, 1, *S) of a spread (1, N, *S) in voxels."""
    steps = torch.as_tensor(answer.spacing_mm, dtype=spread.dtype).view(1, -1, *[1] * len(answer.spacing_mm))
    return (spread * steps).norm(dim=1, keepdim=True)


def fit_exponents(samples: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Exponents with which 95 % of all errors stay below the length: quantile regression, its kink rounded off."""
    columns = [np.concatenate([sample[name] for sample in samples]) for name in PREDICTORS]
    design = np.stack([*columns, np.ones_like(columns[0])]).astype(float)
    logarithm = np.log(np.concatenate([sample["error"] for sample in samples]).astype(float) + 1e-6)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        rest = logarithm - weights @ design
        value = SHARE * rest + ROUNDED * np.logaddexp(0, -rest / ROUNDED)
        return value.mean(), -(design * (SHARE - expit(-rest / ROUNDED))).mean(1)

    weights = minimize(loss, np.zeros(len(design)), jac=True, method="BFGS").x
    weights[-1] += np.quantile(logarithm - weights @ design, SHARE)  # what the rounding left
    return {name: round(float(weight), 4) for name, weight in zip((*PREDICTORS, "constant"), weights, strict=True)}


def spread_factor(samples: Sequence[Mapping[str, np.ndarray]]) -> float:
    """How many times the spread alone has to be taken to hold 95 % of all errors."""
    ratios = np.concatenate([sample["error"] / np.maximum(sample["alone"], 1e-6) for sample in samples])
    return float(np.quantile(ratios, SHARE))


def write_limits(exponents: Mapping[str, float], table: Path, command: str) -> None:
    """``common/error_limits.json``, and forget what was read of it."""
    content = {"share": SHARE, "table": f"results/{table.name}", "command": command, "exponents": exponents}
    save_atomically(lambda path: path.write_text(json.dumps(content, indent=4) + "\n"), LIMITS)
    error_limits.cache_clear()


def rows_of(answer: Answer, limits: Limits) -> list[dict[str, str | float]]:
    """Coverage by number of starts and region; the first row is that of the head after the most starts."""
    error, regions = answer.error_mm[0, 0].numpy(), regions_of(answer)
    rows = []
    for starts in sorted(STARTS, reverse=True):
        spread = answer.spreads[starts]
        width = half_width(answer.image, answer.ddf, spread, answer.spacing_mm, limits.exponents)[0, 0].numpy()
        alone = limits.spread_factor * length_mm(spread, answer)[0, 0].numpy()
        for name, region in regions.items():
            values = {"starts": starts, "region": name, "voxels": int(region.sum())}
            rows.append(values | (coverage(error[region], width[region], alone[region]) if region.any() else {}))
    return [{**dict.fromkeys(COLUMNS, ""), **row} for row in rows]


def coverage(error: np.ndarray, width: np.ndarray, alone: np.ndarray) -> dict[str, float]:
    """Percentages of errors below the lengths, and what the lengths are, in mm."""
    return {
        "coverage_percent": round(100 * float((error <= width).mean()), 2),
        "spread_alone_percent": round(100 * float((error <= alone).mean()), 2),
        "mean_error_mm": round(float(error.mean()), 4),
        "error_p95_mm": round(float(np.quantile(error, SHARE)), 4),
        "mean_half_width_mm": round(float(width.mean()), 4),
        "mean_spread_alone_mm": round(float(alone.mean()), 4),
    }
