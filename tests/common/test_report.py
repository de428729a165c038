import os

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba

from common import report
from common.errors import RegEnvError, RegInputError
from common.report import (
    SheetRow,
    contact_sheet,
    registration_caption,
    registration_figure,
    save_figure,
)
from common.spatial import identity_grid

SIZE, SPACING = (12, 10, 9), (1.0, 1.5, 2.5)
CENTER = (5, 4, 3)


def ball(size=SIZE, center=CENTER):
    """(1, 1, *size) ball with a gradient along every axis, so that no flip leaves it as it is."""
    offset = identity_grid(size, torch.zeros(1))[0] - torch.tensor(center).view(-1, *[1] * len(size))
    inside = (offset.square().sum(0) < 9).float()
    slope = sum((k + 1) * offset[k] for k in range(len(size)))
    return (inside * (100 + slope))[None, None]


@pytest.fixture(scope="module")
def pair():
    fixed, moving, warped = ball(), 3 * ball(center=(6, 4, 3)), 2 * ball(center=(5, 5, 3))
    ddf = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return fixed, moving, warped, ddf


@pytest.fixture(scope="module")
def figure(pair):
    labels = [(image > 0).long() for image in (pair[0], pair[2])]
    return registration_figure(*pair, SPACING, "RAS", *labels, caption="Dice 0.5")


def axes_of(figure, label):
    return next(axes for axes in figure.axes if axes.get_label() == label)


def image_of(figure, label):
    return np.asarray(axes_of(figure, label).images[0].get_array())


def windowed(volume, window=None):
    volume, window = volume[0, 0].numpy(), (volume if window is None else window)[0, 0].numpy()
    low, high = np.percentile(window, (1, 99))
    return np.clip((volume - low) / (high - low), 0, 1)


# What RAS slices look like on a screen: patient's right on the left, superior and anterior on top, anterior on the left
RAS_VIEWS = {
    "axial": lambda v: v[::-1, ::-1, CENTER[2]].T,
    "coronal": lambda v: v[::-1, CENTER[1], ::-1].T,
    "sagittal": lambda v: v[CENTER[0], ::-1, ::-1].T,
}


@pytest.mark.parametrize("plane", RAS_VIEWS)
def test_panels_hold_the_slices_through_the_center_of_the_foreground(figure, pair, plane):
    fixed, moving, warped, _ = pair
    for name, volume in (
        ("fixed", windowed(fixed)),
        ("moving", windowed(moving)),
        ("warped", windowed(warped, moving)),
        ("deformation", windowed(fixed)),
        ("fixed - moving", windowed(fixed) - windowed(moving)),
        ("fixed - warped", windowed(fixed) - windowed(warped, moving)),
    ):
        assert np.allclose(image_of(figure, f"{name}, {plane}"), RAS_VIEWS[plane](volume), atol=1e-6), name


@pytest.mark.parametrize(("plane", "aspect"), [("axial", 1.5 / 1.0), ("coronal", 2.5 / 1.0), ("sagittal", 2.5 / 1.5)])
def test_pixels_keep_their_true_proportions(figure, plane, aspect):
    for title in ("fixed", "deformation", "fixed - warped"):
        assert axes_of(figure, f"{title}, {plane}").get_aspect() == pytest.approx(aspect)


def test_every_panel_shows_as_many_millimeters_across(figure):
    figure.draw_without_rendering()
    scales = []
    for plane, step in (("axial", 1.0), ("coronal", 1.0), ("sagittal", 1.5)):
        axes = axes_of(figure, f"moving, {plane}")
        width_mm = abs(np.subtract(*axes.get_xlim())) * step
        scales.append(axes.get_window_extent().width / width_mm)
    assert scales == pytest.approx([scales[0]] * 3, rel=0.02)


def test_all_panels_are_equally_wide(figure):
    figure.draw_without_rendering()
    widths = [axes.get_window_extent().width for axes in figure.axes[:18]]
    assert widths == pytest.approx([widths[0]] * 18, rel=0.03)


def test_both_differences_share_one_symmetric_color_scale(figure):
    limits = {axes.images[0].get_clim() for axes in figure.axes if axes.get_label().startswith("fixed - ")}
    assert len(limits) == 1
    low, high = limits.pop()
    assert low == -high < 0
    bar = axes_of(figure, "color scale").get_ylim()
    assert bar == pytest.approx((low, high))


def test_titles_caption_and_key_are_written(figure):
    titles = [axes.get_title() for axes in figure.axes[:6]]
    assert titles == ["fixed", "moving", "warped", "deformation", "fixed - moving", "fixed - warped"]
    assert "Dice 0.5" in [text.get_text() for text in figure.texts]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fixed label", "warped label"]


def lattice(figure, label):
    lines = [c for c in axes_of(figure, label).collections if isinstance(c, LineCollection)]
    return next(c for c in lines if np.allclose(c.get_color()[0], to_rgba(report.GRID_COLOR))).get_segments()


def test_the_lattice_of_a_still_field_is_straight():
    still = torch.zeros(1, 2, 12, 10)
    segments = lattice(registration_figure(*[ball((12, 10), (5, 4))] * 3, still, (1, 1)), "deformation")
    rows, columns = segments[:12], segments[12:]
    assert [np.unique(s[:, 1]).tolist() for s in rows] == [[k] for k in range(12)]
    assert [np.unique(s[:, 0]).tolist() for s in columns] == [[k] for k in range(10)]


def test_the_lattice_is_square_in_millimeters():
    """60 x 60 mm: a line about every 2 mm, so every second row of 1 mm and every column of 2 mm."""
    image = ball((60, 30), (5, 4))
    figure = registration_figure(image, image, image, torch.zeros(1, 2, 60, 30), (1, 2))
    segments = lattice(figure, "deformation")
    assert [s[0, 1] for s in segments[:30]] == list(range(1, 60, 2))
    assert [s[0, 0] for s in segments[30:]] == list(range(30))


def test_the_lattice_moves_by_the_displacement_along_each_axis():
    ddf = torch.zeros(1, 2, 12, 10)
    ddf[0, 0], ddf[0, 1] = 2.0, -0.5
    first = lattice(registration_figure(*[ball((12, 10), (5, 4))] * 3, ddf, (1, 1)), "deformation")[0]
    assert np.array_equal(first, [[k - 0.5, 2.0] for k in range(10)])


def test_the_lattice_moves_against_flipped_axes(pair):
    """In RAS, axial: axis 0 grows to the left of the screen, axis 1 upwards."""
    ddf = torch.zeros(1, 3, *SIZE)
    ddf[0, 0], ddf[0, 1], ddf[0, 2] = 1.0, 2.0, 50.0
    first = lattice(registration_figure(*pair[:3], ddf, SPACING), "deformation, axial")[0]
    assert np.array_equal(first, [[k - 1.0, -2.0] for k in range(12)])


def test_fixed_outlines_are_on_three_panels_and_warped_ones_on_one(figure):
    def colors(title):
        axes = axes_of(figure, f"{title}, axial")
        return [tuple(np.atleast_2d(c.get_edgecolor())[0]) for c in axes.collections]

    fixed, warped = to_rgba(report.FIXED_COLOR), to_rgba(report.WARPED_COLOR)
    assert colors("fixed") == colors("moving") == [fixed]
    assert colors("warped") == [fixed, warped]
    assert colors("fixed - moving") == []


def test_an_outline_runs_half_a_voxel_around_its_label():
    label = torch.zeros(1, 1, 12, 10, dtype=torch.int64)
    label[..., 3:7, 0:5] = 4
    image = ball((12, 10), (5, 4))
    figure = registration_figure(image, image, image, torch.zeros(1, 2, 12, 10), (1, 1), fixed_label=label)
    (contour,) = axes_of(figure, "fixed").collections
    points = np.concatenate([path.vertices for path in contour.get_paths()])
    assert points.min(0).tolist() == [-0.5, 2.5] and points.max(0).tolist() == [4.5, 6.5]


def test_flat_images_can_be_shown():
    flat = torch.full((1, 1, 6, 7), 3.0)
    figure = registration_figure(flat, flat, flat, torch.zeros(1, 2, 6, 7), (1, 1))
    figure.draw_without_rendering()
    assert not image_of(figure, "fixed").any()


def test_the_caption_states_scores_that_are_known():
    """Half of the label's eight voxels shared before, all after; the field is still."""
    fixed, moving = torch.zeros(2, 1, 1, 6, 6, 6, dtype=torch.int64)
    fixed[..., 1:3, 1:3, 1:3], moving[..., 2:4, 1:3, 1:3] = 1, 1
    still = torch.zeros(1, 3, 6, 6, 6)
    text = registration_caption(still, fixed, moving, fixed, [1])
    assert text.split("   ") == ["Dice 0.500 → 1.000 (1 labels)", "SDlogJ 0.0000", "NDV 0.0000 %"]
    assert registration_caption(torch.zeros(1, 2, 6, 6)) == "SDlogJ 0.0000"


# Files


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_figures_are_written_whole_and_nothing_is_left_beside_them(figure, tmp_path, suffix, start):
    path = tmp_path / "new" / f"pair{suffix}"
    save_figure(figure, path, dpi=40)
    assert path.read_bytes().startswith(start)
    assert os.listdir(path.parent) == [path.name]


def test_a_failed_write_keeps_the_old_picture(figure, tmp_path, monkeypatch):
    path = tmp_path / "pair.png"
    path.write_bytes(b"old")

    def fail(temporary, **kwargs):
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(RegEnvError, match="disk full"):
        save_figure(figure, path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["pair.png"]


def sheet_rows(count):
    for k in range(count):
        image = ball()[0, 0].numpy()
        yield SheetRow(f"subject-{k}", image, ball(center=(5 + k, 4, 3))[0, 0].numpy() > 0, SPACING, "RAS")


def test_a_contact_sheet_has_a_page_for_every_so_many_subjects(tmp_path):
    pages = contact_sheet(sheet_rows(5), tmp_path / "sheet.png", rows_per_page=2)
    assert [page.name for page in pages] == ["sheet.png", "sheet-2.png", "sheet-3.png"]
    assert sorted(os.listdir(tmp_path)) == sorted(page.name for page in pages)


def test_a_contact_sheet_outlines_the_mask_over_its_own_slices(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(report, "save_figure", lambda figure, path, dpi: figures.append(figure))
    contact_sheet(sheet_rows(2), tmp_path / "sheet.png")
    (figure,) = figures
    image = ball()[0, 0].numpy()
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["subject-0", "subject-1"]
    assert np.array_equal(image_of(figure, "subject-1, sagittal"), image[6, ::-1, ::-1].T)  # the mask's center
    assert np.array_equal(image_of(figure, "subject-1, axial"), RAS_VIEWS["axial"](image))
    (contour,) = axes_of(figure, "subject-1, axial").collections
    columns = np.concatenate([path.vertices for path in contour.get_paths()])[:, 0]
    assert (columns.min(), columns.max()) == (11 - 6 - 2.5, 11 - 6 + 2.5)
    assert axes_of(figure, "subject-1, coronal").get_aspect() == pytest.approx(2.5)


# Contracts


IMAGE, FIELD = torch.rand(1, 1, 4, 5, 6), torch.zeros(1, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda path: registration_figure(IMAGE, IMAGE[..., 1:], IMAGE, FIELD, SPACING), r"\(1, 1, 4, 5, 5\)"),
        (lambda path: registration_figure(*[IMAGE.expand(2, 1, 4, 5, 6)] * 3, FIELD, SPACING), "one pair"),
        (lambda path: registration_figure(IMAGE, IMAGE, IMAGE, FIELD[:, :2], SPACING), r"\(1, 2, 4, 5, 6\)"),
        (lambda path: registration_figure(IMAGE, IMAGE, IMAGE, FIELD, (1, 1)), "spacing_mm"),
        (lambda path: registration_figure(IMAGE, IMAGE, IMAGE, FIELD, SPACING, "RAP"), '"RAP"'),
        (lambda path: registration_figure(IMAGE, IMAGE, IMAGE, FIELD, SPACING, "RASL"), '"RASL"'),
        (lambda path: contact_sheet([], path / "a.png"), "without any scan"),
        (lambda path: contact_sheet([SheetRow("s1", np.ones((4, 4, 4)), np.ones((4, 4)))], path / "a.png"), "s1"),
        (lambda path: contact_sheet(sheet_rows(1), path / "a.bmp"), '".bmp"'),
    ],
)
def test_errors_say_what_was_found(call, words, tmp_path):
    with pytest.raises(RegInputError, match=words):
        call(tmp_path)
    assert os.listdir(tmp_path) == []
