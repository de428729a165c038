"""The report's page in Chromium: what is drawn, and what follows mouse, finger and keys."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from common.planes import display_planes, foreground_center, slice_view, windowed
from common.report_data import PairView
from common.report_page import save_page

SIZE, SPACING, ORIENTATION = (26, 20, 12), (1.0, 1.5, 2.5), "LIA"
FOLD, GRID = (255, 0, 212), (124, 252, 0)
METRICS = {
    "fixed": "fixed.nii.gz",
    "moving": "moving.nii.gz",
    "dice_per_label_before": {"2": 0.5, "7": 0.4, "30": None},
    "dice_per_label": {"2": 0.9, "7": 0.8, "30": None},
    "label_names": {"2": "z", "30": "a"},
}


def blobs(center, size=SIZE) -> torch.Tensor:
    """(1, 1, *size): two soft blobs, unlike under every flip."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in size], indexing="ij"))
    offset = [grid - torch.tensor(c, dtype=torch.float32).view(-1, *[1] * len(size)) for c in center]
    near = [o.square().sum(0) for o in offset]
    return (torch.exp(-near[0] / 40) + 0.6 * torch.exp(-near[1] / 15))[None, None]


def pair() -> PairView:
    """Three unlike images, a fold in one voxel, two labels."""
    fixed, moving, warped = (
        blobs(c) for c in (((10, 8, 5), (17, 12, 7)), ((14, 9, 5), (8, 12, 8)), ((11, 8, 5), (16, 13, 6)))
    )
    determinant = torch.ones(SIZE)
    determinant[6, 15, 3] = -0.5
    labels = [(image > 0.4).int() * 2 for image in (fixed, warped)]
    return PairView(fixed, moving, warped, torch.zeros(1, 3, *SIZE), SPACING, ORIENTATION, *labels, determinant)


@pytest.fixture(scope="module")
def shown() -> PairView:
    return pair()


@pytest.fixture(scope="module")
def path(shown, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "a report.html"
    save_page(path, shown, METRICS)
    return path


@pytest.fixture
def page(open_page, path):
    return ready(open_page(path))


def ready(page):
    page.wait_for_selector("#viewer[aria-busy=false]")
    return page


def canvas_of(page, row: str, plane: int):
    return page.locator(f"[data-row={row}] figure").nth(plane).locator("canvas")


def pixels(canvas) -> np.ndarray:
    """(H, W, 3) as the canvas holds them, after what is due was drawn."""
    canvas.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    url = canvas.evaluate("canvas => canvas.toDataURL()")
    content = base64.b64decode(url.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def show_alone(page, row: str, layer: str, plane: int):
    """Choose a layer for the right side and move the split to the left edge."""
    page.locator(f"[data-row={row}] select[data-side=right]").select_option(layer)
    canvas = canvas_of(page, row, plane)
    canvas.focus()
    page.keyboard.press("Home")
    return canvas


def stretched(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A gray slice in [0, 1] at the size of a canvas, 0 to 255."""
    bigger = Image.fromarray(image.astype(np.float32)).resize(like.shape[1::-1], Image.Resampling.BILINEAR)
    return 255 * np.asarray(bigger)


def grays(view: PairView) -> dict[str, np.ndarray]:
    images = (view.fixed, view.moving, view.warped)
    return dict(zip(("fixed", "moving", "warped"), windowed([image[0, 0].numpy() for image in images]), strict=True))


def test_slices_are_those_of_the_picture(page, shown):
    """``slice_view`` through the same center, in the same window: the panels of registration.png hold these."""
    page.locator("#outlines").uncheck()
    center = foreground_center(shown.fixed[0, 0].numpy())
    for layer, volume in grays(shown).items():
        for number, plane in enumerate(display_planes(SIZE, SPACING, ORIENTATION)):
            found = pixels(show_alone(page, "images", layer, number))
            error = np.abs(found - stretched(slice_view(volume, plane, center), found)[..., None])
            assert error.mean() < 3 and error.max() < 25, (layer, plane.name)


def test_differences_have_the_colors_of_the_picture(page, shown):
    gray, center = grays(shown), foreground_center(shown.fixed[0, 0].numpy())
    change = {"before": gray["fixed"] - gray["moving"], "after": gray["fixed"] - gray["warped"]}
    limit = max(np.percentile(np.abs(part), 99.5) for part in change.values())
    for layer, volume in change.items():
        for number, plane in enumerate(display_planes(SIZE, SPACING, ORIENTATION)):
            found = pixels(show_alone(page, "change", layer, number))
            share = np.clip(slice_view(volume, plane, center) / limit / 2 + 0.5, 0, 1)
            expected = colormaps["RdBu_r"](stretched(share, found) / 255, bytes=True)[..., :3].astype(int)
            assert np.abs(found - expected).mean() < 6, (layer, plane.name)


def test_pixels_have_their_true_proportions(page):
    """LIA: axes run left, down and forward; 26, 30 and 30 mm."""
    ratios = [np.divide(*pixels(canvas_of(page, "images", plane)).shape[:2]) for plane in range(3)]
    assert ratios == pytest.approx([30 / 26, 30 / 26, 30 / 30], rel=0.01)


def test_the_split_follows_the_mouse(page):
    page.locator("#outlines").uncheck()
    canvas = canvas_of(page, "images", 0)
    left, right = (pixels(show_alone(page, "images", layer, 0)) for layer in ("fixed", "warped"))
    box, width = canvas.bounding_box(), left.shape[1]
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 20)
    page.mouse.down()
    for share in (0.3, 0.75):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + 60)
        found, at = pixels(canvas), round(share * width)
        assert np.abs(found[:, : at - 9] - left[:, : at - 9]).max() <= 2
        assert np.abs(found[:, at + 9 :] - right[:, at + 9 :]).max() <= 2
        assert abs(int(canvas.get_attribute("aria-valuenow")) - 100 * share) <= 1
    page.mouse.up()
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 60)
    assert np.array_equal(pixels(canvas), found)
    other = pixels(canvas_of(page, "images", 2))
    white = (other.mean((0, 2)) > 245).nonzero()[0]
    assert abs(white.mean() - 0.75 * other.shape[1]) < 3  # all planes of the row move together


def test_the_split_follows_a_finger(open_page, path):
    page = ready(open_page(path, width=390, height=800, touch=True))
    canvas = canvas_of(page, "change", 1)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.touchscreen.tap(box["x"] + 0.25 * box["width"], box["y"] + 30)
    pixels(canvas)
    assert abs(int(canvas.get_attribute("aria-valuenow")) - 25) <= 1


def test_keys_move_the_split_and_the_slice(page):
    canvas = canvas_of(page, "deformation", 1)
    canvas.focus()
    page.keyboard.press("ArrowRight")
    pixels(canvas)
    assert canvas.get_attribute("aria-valuenow") == "52"
    output = page.locator("[data-row=deformation] figure output").nth(1)
    before = int(output.inner_text().split()[0])
    page.keyboard.press("ArrowUp")
    assert output.inner_text() == f"{before + 1} of 12"


def test_a_slider_changes_the_slice_in_every_row(page, shown):
    page.locator("#outlines").uncheck()
    slider = page.locator("[data-row=change] figure").nth(0).locator("input")
    canvas = show_alone(page, "images", "fixed", 0)
    before = pixels(canvas)
    slider.fill("12")
    found = pixels(canvas)
    plane = display_planes(SIZE, SPACING, ORIENTATION)[0]
    assert plane.axis == 1
    expected = stretched(slice_view(grays(shown)["fixed"], plane, (0, 12, 0)), found)
    assert np.abs(found - expected[..., None]).mean() < 3 < np.abs(found - before).mean()
    assert page.locator("[data-row=deformation] output").nth(0).inner_text() == "13 of 20"
    assert page.locator("[data-row=images] input").nth(0).input_value() == "12"


def test_the_voxel_that_folds_is_marked_where_it_is(page):
    page.get_by_role("button", name="1 folded voxel").click()
    expected = (6, 15, 3)
    for number, plane in enumerate(display_planes(SIZE, SPACING, ORIENTATION)):
        found = pixels(show_alone(page, "deformation", "jacobian", number))
        rows, columns = np.nonzero((found == FOLD).all(-1))
        for where, axis, flip, extent in (
            (rows, plane.rows, plane.flip_rows, found.shape[0]),
            (columns, plane.columns, plane.flip_columns, found.shape[1]),
        ):
            index = SIZE[axis] - 1 - expected[axis] if flip else expected[axis]
            voxel = extent / SIZE[axis]
            assert abs(where.min() - index * voxel) <= 1 and abs(where.max() + 1 - (index + 1) * voxel) <= 1


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_lattice_is_drawn_where_its_points_went(open_page, shown, tmp_path, shift):
    """Lines of the columns' axis at every voxel of 1 mm, all moved by a shift along it."""
    plane = display_planes(SIZE, SPACING, ORIENTATION)[0]
    ddf = torch.zeros(1, 3, *SIZE)
    ddf[0, plane.columns] = shift
    view = PairView(shown.fixed, shown.moving, shown.warped, ddf, SPACING, ORIENTATION)
    save_page(tmp_path / "grid.html", view, METRICS)
    found = pixels(show_alone(ready(open_page(tmp_path / "grid.html")), "deformation", "grid", 0))
    green = (found[..., 1] - found[..., 0]).clip(0).mean(0)
    voxel = found.shape[1] / SIZE[plane.columns]
    at = np.arange(SIZE[plane.columns]) + 0.5 + shift
    expected = voxel * (SIZE[plane.columns] - at if plane.flip_columns else at)
    for place in expected[2:-2]:
        near = np.arange(int(place - voxel / 2), int(place + voxel / 2))
        weight = green[near] - green[near].min()
        assert weight.max() > 20 and abs(np.average(near + 0.5, weights=weight) - place) < 0.7


def test_outlines_can_be_taken_off(page):
    canvas = show_alone(page, "images", "warped", 0)

    def colors() -> tuple[int, int]:
        found = pixels(canvas)
        return tuple(int((np.abs(found - c).sum(-1) < 40).sum()) for c in ((255, 176, 0), (0, 208, 255)))

    with_both = colors()
    page.locator("#outlines").uncheck()
    assert min(with_both) > 50 and colors() == (0, 0)


def test_the_joint_histogram_is_a_diagonal_where_both_images_are_one(open_page, shown, tmp_path):
    view = PairView(shown.fixed, shown.moving, shown.fixed, torch.zeros(1, 3, *SIZE), SPACING, ORIENTATION)
    save_page(tmp_path / "same.html", view, METRICS)
    page = ready(open_page(tmp_path / "same.html"))
    dark = np.array(colormaps["viridis"](0, bytes=True)[:3])
    spread = []
    for name in ("after", "before"):
        filled = np.abs(pixels(page.locator(f"#joint-{name}"))[::-1] - dark).sum(-1) > 10
        rows, columns = np.nonzero(filled)
        spread.append(np.abs(rows - columns).mean())
    assert spread[0] < 1.5 < 5 < spread[1]


def test_the_joint_histogram_is_not_darkened_by_the_background(open_page, tmp_path):
    """Most voxels are black in both images; tissue still reaches the bright end of the colors."""
    image = torch.zeros(1, 1, *SIZE)
    image[..., 8:12, 6:10, 4:8] = 0.2 + torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(0))
    save_page(tmp_path / "dark.html", PairView(*[image] * 3, torch.zeros(1, 3, *SIZE), SPACING, ORIENTATION), METRICS)
    page = ready(open_page(tmp_path / "dark.html"))
    shown = pixels(page.locator("#joint-after")).reshape(-1, 3)
    assert np.abs(shown - np.array(colormaps["viridis"](255, bytes=True)[:3])).sum(-1).min() < 10
    filled = np.abs(shown - np.array(colormaps["viridis"](0, bytes=True)[:3])).sum(-1) > 10
    assert shown[filled].sum(-1).mean() > 250


def test_tables_are_printed_whole(open_page, shown, tmp_path):
    labels = {str(k): k / 100 for k in range(90)}
    save_page(tmp_path / "long.html", shown, {**METRICS, "dice_per_label": labels, "dice_per_label_before": labels})
    page = ready(open_page(tmp_path / "long.html"))
    hidden = "() => [...document.querySelectorAll('.scroll')].map(box => box.scrollHeight - box.clientHeight)"
    assert max(page.evaluate(hidden)) > 500
    page.emulate_media(media="print")
    assert max(page.evaluate(hidden)) == 0
    style = "() => getComputedStyle(document.querySelector('.scroll')).overflow"
    assert page.evaluate(style) == "visible"


def test_the_table_of_labels_sorts_unknown_values_last(page):
    def names() -> list[str]:
        return page.locator("table.sortable tbody th").all_inner_texts()

    head = page.locator("table.sortable thead th")
    assert names() == ["7", "2 z", "30 a"] and head.nth(2).get_attribute("aria-sort") == "ascending"
    head.nth(2).get_by_role("button").click()
    assert names() == ["2 z", "7", "30 a"] and head.nth(2).get_attribute("aria-sort") == "descending"
    head.nth(2).get_by_role("button").click()
    assert names() == ["7", "2 z", "30 a"]
    head.nth(0).get_by_role("button").click()
    assert names() == ["2 z", "7", "30 a"] and head.nth(2).get_attribute("aria-sort") is None


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_the_ground_in_both_schemes(open_page, path, dark):
    page = ready(open_page(path, dark=dark))
    colors = page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    ink, ground = (sum(int(n) for n in color[4:-1].split(",")) for color in colors)
    assert (ink > ground) == dark and abs(ink - ground) > 500


@pytest.mark.parametrize("width", [320, 768])
def test_a_narrow_screen_needs_no_scrolling_sideways(open_page, path, width):
    page = ready(open_page(path, width=width, touch=True))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert canvas_of(page, "images", 0).bounding_box()["width"] > 0.2 * width


def test_a_2d_pair_has_one_picture_a_row_and_no_slider(open_page, tmp_path):
    images = [blobs(((10, 8), (17, 14)), (26, 20)) for _ in range(3)]
    save_page(tmp_path / "flat.html", PairView(*images, torch.zeros(1, 2, 26, 20), (1.0, 1.0)), METRICS)
    page = ready(open_page(tmp_path / "flat.html"))
    assert page.locator("[data-row] canvas").count() == 3 + page.locator(".legend canvas").count()
    assert page.locator("input[type=range]").count() == 0
    found = pixels(show_alone(page, "images", "fixed", 0))
    expected = stretched(windowed([images[0][0, 0].numpy()] * 3)[0], found)
    assert np.abs(found - expected[..., None]).mean() < 3


def test_names_are_written_and_not_run(open_page, shown, tmp_path):
    evil = "</script><script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
    metrics = METRICS | {"fixed": evil, "reasons": [evil], "verdict": "check", "settings": {evil: evil}}
    save_page(tmp_path / "evil.html", shown, metrics | {"signals": {evil: 1.0}, "label_names": {"2": evil}})
    page = ready(open_page(tmp_path / "evil.html"))
    assert page.title() == f"moving.nii.gz onto {evil}"
    assert page.locator(".reasons li").inner_text() == evil


def test_the_map_of_the_error_has_its_own_layer_where_it_is_known(open_page, page, shown, tmp_path):
    """From 1 mm at one end of the first axis to 5 at the other; the bar says what the brightest color is."""
    assert page.locator("option[value=error]").count() == 0
    error_mm = torch.linspace(1, 5, SIZE[0]).view(-1, 1, 1).expand(SIZE)
    save_page(tmp_path / "error.html", replace(shown, error_mm=error_mm), METRICS | {"error_limit_mm": 3.0})
    known, center = ready(open_page(tmp_path / "error.html")), foreground_center(shown.fixed[0, 0].numpy())
    for number, plane in enumerate(display_planes(SIZE, SPACING, ORIENTATION)):
        found = pixels(show_alone(known, "deformation", "error", number))
        share = stretched(slice_view(error_mm.numpy() / 5, plane, center), found) / 255
        expected = colormaps["viridis"](share, bytes=True)[..., :3].astype(int)
        assert np.abs(found - expected).mean() < 6, plane.name
    assert "5.0 mm" in known.locator("[data-row=deformation] .legend").inner_text()
