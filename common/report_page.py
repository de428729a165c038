"""One HTML file that shows a registration: pictures to drag through, scores, settings; needs no network, no server.

The page is ``assets/report.html`` (jinja2, everything escaped) with ``report.css`` and the scripts written into it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from .files import save_atomically
from .planes import Plane, display_planes
from .quality import RULES, read_limits
from .quality_signals import NAMES
from .report_data import PairView, page_data

__all__ = ["registration_page", "save_page"]

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("volumes.js", "layers.js", "report.js")  # one after the other, as one script
VERDICTS = {
    "ok": "The self-check found nothing unusual.",
    "check": "Look at this registration before you use it.",
    "failed": "Do not use this registration.",
}
LAYERS = {
    "fixed": "fixed",
    "moving": "moving, before",
    "warped": "warped, after",
    "before": "fixed - moving, before",
    "after": "fixed - warped, after",
    "grid": "deformed grid",
    "jacobian": "log Jacobian",
    "displacement": "displacement",
    "error": "error below, 95 %",
}
ROWS = (
    {"name": "images", "title": "Images", "left": "fixed", "right": "warped"},
    {"name": "change", "title": "Difference before and after", "left": "before", "right": "after"},
    {"name": "deformation", "title": "Deformation", "left": "grid", "right": "jacobian"},
)
OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "": ""}
LABEL_COLUMNS = ("dice_per_label_before", "dice_per_label", "hd95_mm_per_label_before", "hd95_mm_per_label")


class Score(NamedTuple):
    """A number of ``metrics.json`` and how it is told; its value before is under ``<key>_before``."""

    key: str
    name: str
    digits: int
    unit: str
    meaning: str


SCORES = (
    Score("dice", "Dice", 3, "", "mean overlap of the labels; 1 is best"),
    Score("hd95_mm", "HD95", 2, "mm", "95th percentile of the distance between surfaces, mean of the labels"),
    Score("tre_mm", "TRE", 2, "mm", "mean distance of the landmarks from their partners"),
    Score("error_limit_mm", "Error limit", 2, "mm", "median length that the error stays below with 95 % probability"),
    Score("sdlogj", "SDlogJ", 3, "", "spread of log det J; 0 changes no volume"),
    Score("folded_percent", "Folds", 4, "%", "voxels where the map turns inside out"),
    Score("ndv_percent", "NDV", 4, "%", "non-diffeomorphic volume"),
    Score("inverse_residual_mm", "Inverse consistency", 3, "mm", "largest way from a voxel, there and back, to itself"),
    Score("inverse_residual_over_percent", "Inverse above 0.05 mm", 4, "%", "voxels that miss themselves by more"),
)


def save_page(path: Path, view: PairView, metrics: Mapping) -> None:
    """Write :func:`registration_page`, whole or not at all."""
    text = registration_page(view, metrics)
    save_atomically(lambda temporary: temporary.write_text(text, encoding="utf-8"), path)


def registration_page(view: PairView, metrics: Mapping) -> str:
    """The HTML of a registration.

    Args:
        view: the pair on the fixed image's grid.
        metrics: what ``metrics.json`` says: "fixed" and "moving" are names; every other key is shown where it is there
            and understood ("verdict", "reasons", "signals", "seconds_by_step", "settings", "label_names", scores).

    Raises:
        RegInputError: if the view's spacing or orientation fit no image.
    """
    planes = display_planes(view.fixed.shape[2:], view.spacing_mm, view.orientation)
    data = page_data(view)
    labels = label_rows(metrics)
    return template().render(
        title=f"{metrics.get('moving', 'moving')} onto {metrics.get('fixed', 'fixed')}",
        style=asset("report.css"),
        script=Markup("\n").join(asset(name) for name in SCRIPTS),
        verdict=metrics.get("verdict") if metrics.get("verdict") in VERDICTS else None,
        verdicts=VERDICTS,
        reasons=metrics.get("reasons") or (),
        tiles=tiles(metrics),
        signals=signal_rows(metrics.get("signals") or {}),
        landmarks=landmark_rows(metrics),
        seconds=step_rows(metrics.get("seconds_by_step") or {"registration": metrics.get("seconds")}),
        settings=[(words(key), told(value)) for key, value in flat(metrics.get("settings") or {})],
        labels=labels,
        disjoint=[label["name"] for label in labels if label["cells"][1]["value"] == 0],
        label_heads=("Label", "Dice before", "Dice", "HD95 before, mm", "HD95, mm"),
        outlined=tuple(data["labels"]),
        folds=data["folds"]["count"] if data["folds"] else 0,
        rows=ROWS,
        layers={key: text for key, text in LAYERS.items() if key != "error" or view.error_mm is not None},
        planes=[frame(plane, view, data["center"]) for plane in planes],
        data=data,
    )


@cache
def template():
    """The page's template; everything that goes into it is escaped."""
    return Environment(loader=FileSystemLoader(ASSETS), autoescape=True).get_template("report.html")


@cache
def asset(name: str) -> Markup:
    """Our own style or a script, as it stands in its file."""
    return Markup((ASSETS / name).read_text(encoding="utf-8"))


def frame(plane: Plane, view: PairView, center: Sequence[int]) -> dict:
    """How a plane's pictures are framed: true proportions, and as many millimeters a pixel as the widest one."""
    planes = display_planes(view.fixed.shape[2:], view.spacing_mm, view.orientation)
    extent = [n * s for n, s in zip(view.fixed.shape[2:], view.spacing_mm, strict=True)]
    return {
        "name": plane.name,
        "left": plane.left,
        "right": OPPOSITE[plane.left],
        "width": f"{extent[plane.columns]:.4f}",
        "height": f"{extent[plane.rows]:.4f}",
        "share": f"{extent[plane.columns] / max(extent[other.columns] for other in planes):.4f}",
        "last": None if plane.axis is None else view.fixed.shape[2 + plane.axis] - 1,
        "first": None if plane.axis is None else center[plane.axis],
    }


def tiles(metrics: Mapping) -> list[dict]:
    """The scores that are there."""
    shown = []
    for score in SCORES:
        value, before = (number(metrics.get(key)) for key in (score.key, f"{score.key}_before"))
        if value is not None:
            shown.append(
                {
                    "name": score.name,
                    "value": f"{value:.{score.digits}f}",
                    "before": None if before is None else f"{before:.{score.digits}f}",
                    "unit": score.unit,
                    "meaning": score.meaning,
                }
            )
    return shown


def label_rows(metrics: Mapping) -> list[dict]:
    """A row a label, the worst overlap first; columns that are not there are empty."""
    columns = [metrics.get(key) or {} for key in LABEL_COLUMNS]
    names = metrics.get("label_names") or {}
    after = columns[1]
    rows = []
    for label in sorted(after, key=lambda key: (number(after[key]) is None, number(after[key]) or 0)):
        values = [number(column.get(label)) for column in columns]
        cells = [
            {"value": "", "text": ""} if value is None else {"value": value, "text": f"{value:.{digits}f}"}
            for value, digits in zip(values, (3, 3, 2, 2), strict=True)
        ]
        rows.append({"value": label, "name": f"{label} {names.get(label, '')}".strip(), "cells": cells})
    return rows


def signal_rows(signals: Mapping[str, float | None]) -> list[dict]:
    """A row a signal of the self-check, with what it is held against; those that have no limits have none to show."""
    worse, known = {rule.signal: rule.worse for rule in RULES}, read_limits()
    rows = []
    for key, value in signals.items():
        row = {"name": NAMES.get(key, words(key)), "value": told(value, "not known"), "limits": ["", ""], "state": ""}
        if key in worse and key in known:
            row["limits"] = [f"{'above' if worse[key] > 0 else 'below'} {bound:.4g}" for bound in known[key]]
            beyond = [number(value) is not None and worse[key] * (value - bound) > 0 for bound in known[key]]
            row["state"] = "failed" if beyond[1] else "check" if beyond[0] else ""
        rows.append(row)
    return rows


def landmark_rows(metrics: Mapping) -> list[dict]:
    """How far landmarks are from their partners, before where it is known, and after: mean and quantiles."""
    rows = []
    for name, when in (("before", "_before"), ("after", "")):
        values = {"mean": metrics.get(f"tre_mm{when}"), **(metrics.get(f"tre_mm_quantiles{when}") or {})}
        known = [number(values.get(key)) for key in ("mean", "p50", "p95", "max")]
        if None not in known:
            rows.append({"name": name, "cells": [f"{value:.2f}" for value in known]})
    return rows


def step_rows(seconds: Mapping[str, float]) -> list[dict]:
    """Steps in their order with bars as long as the longest is to them, and the sum of several without one."""
    known = {words(name): value for name, value in seconds.items() if number(value) is not None}
    longest = max(known.values(), default=0) or 1
    rows = [{"name": name, "text": f"{t:.2f}", "percent": f"{100 * t / longest:.1f}"} for name, t in known.items()]
    total = {"name": "all of it", "text": f"{sum(known.values()):.2f}", "percent": None}
    return [*rows, total] if len(rows) > 1 else rows


def flat(values: Mapping) -> list[tuple[str, object]]:
    """Entries of a mapping, those of inner mappings among them."""
    entries = []
    for key, value in values.items():
        entries += flat(value) if isinstance(value, Mapping) else [(str(key), value)]
    return entries


def words(key: str) -> str:
    """A key as words."""
    return str(key).replace("_", " ")


def told(value: object, unknown: str = "not set") -> str:
    """A setting or signal as text."""
    if value is None:
        return unknown
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value) if isinstance(value, list | tuple) else str(value)


def number(value: object) -> float | None:
    """A finite number, or nothing."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None
