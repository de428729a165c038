"""How long a page over many pairs takes: to read and write it, and until a browser has drawn its table.

The pairs are made up: folders with scores, a verdict, a thumbnail each, and a report to link to.
"""

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from common.errors import RegEnvError
from common.quality import verdict

from ..report.index import write_index
from ..repository import commit
from .measuring import device_name, write

__all__ = ["PROGRAMS", "benchmark_index", "make_up_pairs"]

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PICTURES = 32  # thumbnails that differ
LABELS = 35
SIGNALS = {
    "ok": {},
    "check": {"similarity_gain": 0.02},
    "failed": {"folded_percent": 7.1, "starts_percent": 8.4, "starts_mm": 15.0},
}
REASONS = {name: verdict(signals).reasons for name, signals in SIGNALS.items()}
OPEN_MS = """() => new Promise((resolve) => {
  const look = () => {
    const drawn = performance.getEntriesByName('drawn')[0];
    if (drawn) resolve(drawn.startTime);
    else setTimeout(look, 5);
  };
  look();
})"""  # since the navigation began, until the table's first frame
SORT_MS = """() => {
  const started = performance.now();
  document.querySelector('th[data-key="dice"] button').click();
  document.getElementById('rows').getBoundingClientRect();
  return performance.now() - started;
}"""
FILTER_MS = """() => {
  const started = performance.now();
  const search = document.getElementById('search');
  search.value = 'fold';
  search.dispatchEvent(new Event('input'));
  document.getElementById('rows').getBoundingClientRect();
  return performance.now() - started;
}"""


def benchmark_index(out: Path, pairs: int, runs: int, command: str) -> Path:
    """Write a page over made-up pairs and open it in headless Chromium, each some times, and table the seconds.

    Args:
        out: folder for ``index-cpu-chromium<version>.csv``.
        pairs: how many.
        runs: how often.
        command: what stands in the table's last column.

    Returns:
        The csv file: a row of medians and largest values.

    Raises:
        RegEnvError: without Playwright or Chromium.
    """
    with tempfile.TemporaryDirectory() as work:
        root = Path(work) / "pairs"
        make_up_pairs(root, pairs)
        page = root / "index.html"
        writing = [seconds_to_write(root, page) for _ in range(runs)]
        version, opening = opened(page, runs)
        size = page.stat().st_size
    row = {"pairs": pairs, "runs": runs, "page_mb": round(size / 1e6, 2)}
    for seen in (writing, opening):
        for name in seen[0]:
            values = [run[name] for run in seen]
            row[f"{name}_seconds_median"] = round(statistics.median(values), 3)
            row[f"{name}_seconds_max"] = round(max(values), 3)
    row |= {"device": device_name("cpu"), "chromium": version, "commit": commit(), "command": command}
    return write(out / f"index-cpu-chromium{version.split('.')[0]}.csv", [row])


def seconds_to_write(root: Path, page: Path) -> dict[str, float]:
    """Of `regbundles report`, without Python's own start; of the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    write_index(root, page)
    return {"write": time.perf_counter() - clock, "write_cpu": time.process_time() - processor}


def opened(page: Path, runs: int) -> tuple[str, list[dict[str, float]]]:
    """Chromium's version, and for each of some fresh windows the seconds to open, to sort and to filter."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise RegEnvError("playwright is missing; install it with pip install '.[test]'.") from error
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chromium())
        except Error as error:
            raise RegEnvError(f"Chromium did not start ({str(error).splitlines()[0]}); install it.") from error
        seen = []
        for _ in range(runs):
            context = browser.new_context(viewport={"width": 1440, "height": 900}, offline=True)
            window = context.new_page()
            window.goto(page.as_uri())
            steps = {
                "open": window.evaluate(OPEN_MS),
                "sort": window.evaluate(SORT_MS),
                "filter": window.evaluate(FILTER_MS),
            }
            seen.append({name: value / 1000 for name, value in steps.items()})
            context.close()
        version = browser.version
        browser.close()
    return version, seen


def chromium() -> str:
    """The browser's program; RegEnvError if the machine has none."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        raise RegEnvError(
            "no Chromium was found, expected the program chromium; install it (apt-get install chromium)."
        )
    return found


def make_up_pairs(root: Path, count: int, seed: int = 0) -> None:
    """Folders as `register` leaves them, but for the images: scores drawn at random, one verdict in ten not ok."""
    random = np.random.default_rng(seed)
    root.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as shared:
        pictures = list(thumbnails(Path(shared), random))
        for k in range(count):
            folder = root / f"sub-{k % 2500:04}_ses-{k // 2500 + 1}_T1w__atlas"
            folder.mkdir()
            (folder / "metrics.json").write_text(json.dumps(made_up(k, random)))
            (folder / "report.html").write_text("<!DOCTYPE html><title>made up</title>")
            os.link(pictures[k % PICTURES], folder / "thumbnail.jpg")


def made_up(k: int, random: np.random.Generator) -> dict:
    """The content of a `metrics.json`."""
    state = str(random.choice(["ok", "check", "failed"], p=[0.9, 0.07, 0.03]))
    loss = {"ok": 0.0, "check": 0.1, "failed": 0.3}[state]
    before = float(random.normal(0.52, 0.04))
    after = float(np.clip(random.normal(0.79 - loss, 0.03), 0, 1))
    return {
        "fixed": "atlas.nii.gz",
        "moving": f"sub-{k % 2500:04}_ses-{k // 2500 + 1}_T1w.nii.gz",
        **{
            f"{metric}_per_label{when}": per_label(random) for metric in ("dice", "hd95_mm") for when in ("_before", "")
        },
        "dice_before": before,
        "dice": after,
        "tre_mm_before": float(random.gamma(9, 0.7)),
        "tre_mm": float(random.gamma(4, 0.4) * (1 + 9 * loss)),
        "sdlogj": float(random.gamma(20, 0.007)),
        "ndv_percent": float(random.exponential(0.01 + loss)),
        "folded_percent": float(random.exponential(0.02 + loss)),
        "inverse_residual_mm": float(random.exponential(0.03 + loss)),
        "inverse_residual_over_percent": float(random.exponential(0.1 + loss)),
        "seconds": float(random.normal(9, 0.6)),
        "verdict": state,
        "reasons": list(REASONS[state]),
        "signals": {
            "similarity_before": float(random.normal(0.3, 0.04)),
            "similarity": float(random.normal(0.6 - loss, 0.04)),
            "similarity_gain": float(random.normal(0.42 - loss, 0.04)),
            "overlap": float(random.normal(0.9 - loss, 0.02)),
            "inside_percent": float(100 - random.exponential(0.2 + 9 * loss)),
            "displacement_mm": float(random.gamma(9, 1.2)),
            "volume_factor": float(1 + random.gamma(4, 0.3)),
            "starts_mm": None if k % 7 == 0 else float(random.exponential(0.4 + 9 * loss)),
        },
        "seconds_by_step": {"read": 0.8, "align": 6.1, "network": 9.0, "fields": 2.5, "write": 3.9},
        "settings": {"bundle": "svf", "similarity": "lncc"},
        "files": ["metrics.json", "report.html", "thumbnail.jpg"],
    }


def per_label(random: np.random.Generator) -> dict[str, float]:
    """A score for each label, as a data set of brains has them."""
    return {str(label): value for label, value in enumerate(random.uniform(0, 1, LABELS).tolist(), 1)}


def thumbnails(folder: Path, random: np.random.Generator) -> Iterator[Path]:
    """Small JPEG pictures: three noisy ellipses."""
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    for k in range(PICTURES):
        panels = []
        for _ in range(3):
            a, b = random.uniform(0.5, 0.9, 2)
            inside = (x / a) ** 2 + (y / b) ** 2 < 1
            texture = random.normal(0, 18, (20, 20)).repeat(8, 0).repeat(8, 1)
            panels.append(np.where(inside, 120 + 60 * np.cos(6 * x * a) * np.sin(5 * y * b) + texture, 0))
        path = folder / f"{k}.jpg"
        Image.fromarray(np.hstack(panels).clip(0, 255).astype(np.uint8)).save(path, quality=70)
        yield path
