import numpy as np

from tools.monai_label.label_figure import COLORS, OPACITY, blend, label_figure


def test_there_is_a_panel_for_each_map_and_plane():
    image = np.random.default_rng(0).random((6, 7, 8))
    maps = {"image": None, "label": (image > 0.5).astype(np.uint8)}
    figure = label_figure(image, maps, (1, 1, 2), "LIA")
    shown = [axes.get_label() for axes in figure.axes]
    assert shown == [f"{name}, {plane}" for plane in ("axial", "coronal", "sagittal") for name in maps]
    assert [axes.get_images()[0].get_array().shape[:2] for axes in figure.axes[::2]] == [(8, 6), (7, 6), (7, 8)]


def test_labels_have_colors_of_their_own_and_background_stays_gray():
    gray, labels = np.full((1, 3), 0.25), np.array([[0, 1, 3]])
    picture = blend(gray, labels)
    np.testing.assert_allclose(picture[0, 0], 0.25)
    for at, label in ((1, 1), (2, 3)):
        np.testing.assert_allclose(picture[0, at], (1 - OPACITY) * 0.25 + OPACITY * np.array(COLORS[label - 1]))
    np.testing.assert_allclose(blend(gray, None), 0.25)
