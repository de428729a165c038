"""The page itself, in a real browser: `open_page` fails a test in which a page says anything on its console."""

import pytest

from common.cohort import FailedPair, write_failures
from common.quality import verdict
from tests.tools.report.folders import write_pair
from tools.report.index import write_index

ODD = ("a b", "per%20cent", "ha#sh", "que?ry", "<script>alert(1)<_script>", "n\u00e9-日本", "c:d", '"q"&\'')
ROW = "#rows .item"
WIDTHS = "() => Promise.all([...document.images].map((image) => image.decode().then(() => image.naturalWidth)))"


@pytest.fixture
def cohort(tmp_path):
    """Four pairs: failed, check and two that are ok, the second of them without any picture."""
    seen = ("report.html", "thumbnail.jpg", "registration.png")
    signals = {"similarity_gain": -0.1}
    write_pair(
        tmp_path / "p3", files=seen, verdict="failed", reasons=["It <b>folds</b>."], dice=0.3, tre_mm=9, signals=signals
    )
    write_pair(tmp_path / "p1", files=seen, verdict="check", reasons=["Look.", "Again."], dice=0.6, dice_before=0.5)
    write_pair(tmp_path / "p2", files=("registration.png",), verdict="ok", reasons=[], dice=0.8, tre_mm=1)
    write_pair(tmp_path / "p10", verdict="ok", reasons=[], dice=0.7, tre_mm=2, seconds=3)
    write_index(tmp_path, tmp_path / "index.html")
    return tmp_path


def shown(page):
    return page.locator(f"{ROW} .name").all_inner_texts()


def test_failed_pairs_stand_first_and_headers_sort(cohort, open_page):
    page = open_page(cohort / "index.html")
    assert shown(page) == ["p3", "p1", "p10", "p2"]
    page.click('th[data-key="dice"] button')
    assert shown(page) == ["p3", "p1", "p10", "p2"]
    assert page.get_attribute('th[data-key="dice"]', "aria-sort") == "ascending"
    page.click('th[data-key="dice"] button')
    assert shown(page) == ["p2", "p10", "p1", "p3"]
    page.click('th[data-key="tre_mm"] button')  # the worse end first, what has no value last
    assert shown(page) == ["p3", "p10", "p2", "p1"]
    page.click('th[data-key="#name"] button')  # numbers in names count as numbers
    assert shown(page) == ["p1", "p2", "p3", "p10"]
    assert page.locator("th[aria-sort]").count() == 1


def test_text_verdicts_and_methods_filter_together(cohort, open_page):
    page = open_page(cohort / "index.html")
    page.fill("#search", "fold")
    assert shown(page) == ["p3"] and page.inner_text("#count") == "1 of 4 pairs"
    page.fill("#search", "P1")
    assert shown(page) == ["p1", "p10"]
    page.click('[data-verdict="ok"]')
    assert shown(page) == ["p10"] and page.get_attribute('[data-verdict="ok"]', "aria-pressed") == "true"
    page.fill("#search", "nothing like it")
    assert shown(page) == [] and page.is_visible("#nothing")
    page.click("#clear")
    assert len(shown(page)) == 4 and page.input_value("#search") == ""
    assert page.locator("#verdicts button").all_inner_texts() == ["failed 1", "check 1", "ok 2"]


def test_bars_filter_and_the_same_bars_again_do_not(cohort, open_page):
    page = open_page(cohort / "index.html")
    box = page.locator('.histogram[data-key="dice"] svg').bounding_box()

    def drag(start, end):
        page.mouse.move(box["x"] + start * box["width"], box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + end * box["width"], box["y"] + 20, steps=4)
        page.mouse.up()

    drag(0.99, 0.45)  # Dice runs from 0.3 to 0.8
    assert shown(page) == ["p1", "p10", "p2"]
    assert [text[:-2] for text in page.locator("#ranges button").all_inner_texts()] == ["Dice: 0.600 to 0.800"]
    drag(0.45, 0.99)
    assert len(shown(page)) == 4
    page.fill('[aria-label="TRE (mm) to"]', "2")
    page.press('[aria-label="TRE (mm) to"]', "Enter")
    assert shown(page) == ["p10", "p2"]  # and nobody without a TRE
    page.click("#ranges button")
    assert len(shown(page)) == 4


def test_pictures_are_the_thumbnail_else_the_large_one_else_a_word(cohort, open_page):
    page = open_page(cohort / "index.html")
    sources = {
        name: page.locator(f'{ROW}[data-pair="{k}"] .thumb img').evaluate_all(
            "all => all.map(i => i.getAttribute('src'))"
        )
        for k, name in enumerate(["p3", "p1", "p10", "p2"])
    }
    assert sources == {
        "p3": ["p3/thumbnail.jpg"], "p1": ["p1/thumbnail.jpg"], "p10": [], "p2": ["p2/registration.png"]
    }  # fmt: skip
    assert set(page.evaluate(WIDTHS)) == {48}
    assert page.inner_text(f'{ROW}[data-pair="2"] .no-picture') == "no picture"
    links = page.locator(f"{ROW} a.report").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert links == ["p3/report.html", "p1/report.html"]


def test_texts_are_shown_and_never_run(cohort, open_page):
    page = open_page(cohort / "index.html")
    assert page.inner_text(f'{ROW}[data-pair="0"] .reason') == "It <b>folds</b>."
    assert page.inner_text(f'{ROW}[data-pair="1"] .reason') == "Look."
    assert page.locator(".more").all_inner_texts() == ["+1"]
    assert page.locator("#rows b").count() == 0


def test_a_pair_that_was_not_registered_is_failed_with_its_sentence(cohort, open_page):
    sentence = "moving.nii.gz has the value 7 in every voxel, expected an image; leave it out."
    write_failures([FailedPair("p4", "fixed.nii.gz", "moving.nii.gz", sentence)], cohort / "failures.csv")
    write_index(cohort, cohort / "index.html")
    page = open_page(cohort / "index.html")
    assert shown(page) == ["p4", "p3", "p1", "p10", "p2"]
    assert page.inner_text(f'{ROW}[data-pair="0"] .badge') == "failed"
    assert page.inner_text(f'{ROW}[data-pair="0"] .reason') == sentence
    assert page.locator("#verdicts button").all_inner_texts()[0] == "failed 2"
    page.click(f'{ROW}[data-pair="0"] .thumb')
    assert sentence in page.inner_text("#look-facts")


def test_a_look_walks_through_what_is_filtered(cohort, open_page):
    page = open_page(cohort / "index.html")
    page.click('[data-verdict="ok"]')
    page.focus("#pane")
    page.keyboard.press("Enter")
    assert page.inner_text("#look-name") == "p10" and page.inner_text("#look-position") == "1 of 2"
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#look-name") == "p2" and page.is_disabled("#look-next")
    assert page.get_attribute("#look-picture img", "src") == "p2/registration.png"
    assert "Dice\n0.800" in page.inner_text("#look-facts")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#look-name") == "p2"
    page.keyboard.press("Escape")
    assert page.is_hidden("#look")
    page.click(f'{ROW}[data-pair="3"] .thumb')
    assert page.inner_text("#look-position") == "2 of 2"
    page.click("#look-close")
    assert page.get_attribute(f"{ROW}[aria-current] .name", "title") == "p2"


def test_keys_move_switch_views_and_find_the_search(cohort, open_page):
    page = open_page(cohort / "index.html")
    current = "[data-pair][aria-current]:visible"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("j")
    assert page.get_attribute(current, "data-pair") == "2"
    page.keyboard.press("g")
    assert page.is_hidden("#table") and page.locator("#gallery .card").count() == 4
    assert page.get_attribute(current, "data-pair") == "2"
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute(current, "data-pair") == "1"
    page.keyboard.press("/")
    page.keyboard.type("p3")
    assert page.locator("#gallery .card .title").all_inner_texts() == ["p3"]
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "pane"


def test_the_report_opens_beside_the_page(cohort, open_page):
    page = open_page(cohort / "index.html")
    with page.expect_popup() as popup:
        page.keyboard.press("o")
    assert popup.value.url == (cohort / "p3" / "report.html").as_uri()


def test_odd_names_are_shown_and_reached(tmp_path, open_page):
    for name in ODD:
        write_pair(tmp_path / "in" / name, files=("report.html", "thumbnail.jpg"), moving=name)
    write_index(tmp_path / "in", tmp_path / "index.html")
    page = open_page(tmp_path / "index.html")
    page.click('th[data-key="#name"] button')
    assert sorted(shown(page)) == sorted(ODD)
    page.fill("#search", "ne\u0301-")  # as macOS writes it
    assert shown(page) == ["n\u00e9-日本"]
    page.fill("#search", "")
    assert set(page.evaluate(WIDTHS)) == {48}
    assert page.locator(f"{ROW} img").count() == len(ODD)
    links = page.locator(f"{ROW} a.report").evaluate_all("all => all.map(a => a.href)")
    assert sorted(links) == sorted((tmp_path / "in" / name / "report.html").as_uri() for name in ODD)


def test_a_phone_shows_cards_that_fit_its_width(cohort, open_page):
    page = open_page(cohort / "index.html", width=390, height=780, touch=True)
    assert shown(page) == ["p3", "p1", "p10", "p2"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.getElementById('pane').scrollWidth") <= 390
    assert page.locator(f'{ROW}[data-pair="1"] td.key:visible').all_inner_texts() == ["0.500", "0.600"]
    page.tap(f'{ROW}[data-pair="1"] .name')
    assert page.inner_text("#look-name") == "p1"


@pytest.mark.parametrize("width", [1280, 390])
def test_the_number_of_further_reasons_is_in_sight_however_long_the_first_is(tmp_path, open_page, width):
    reasons = verdict({"displacement_percent": 25.0, "displacement_mm": 30.0, "volume_factor": 20.0}).reasons
    write_pair(tmp_path / "p", verdict="failed", reasons=[reasons[0] * 4, *reasons[1:]])
    write_index(tmp_path, tmp_path / "index.html")
    page = open_page(tmp_path / "index.html", width=width)
    for view in ("table", "gallery"):
        page.click(f"#as-{view}")
        more, reason = (page.locator(f".{name}:visible") for name in ("more", "reason"))
        inner, outer = more.bounding_box(), page.locator(".stack:visible", has=more).bounding_box()
        assert more.inner_text() == "+1" and inner["width"] > 5
        for start, length in (("x", "width"), ("y", "height")):
            assert outer[start] <= inner[start]
            assert inner[start] + inner[length] <= outer[start] + outer[length] + 0.5
        assert inner["y"] + inner["height"] <= reason.bounding_box()["y"] + 0.5


def test_a_phone_shows_the_similarity_gain_of_pairs_without_labels_and_landmarks(tmp_path, open_page):
    write_pair(tmp_path / "a", verdict="ok", dice=0.7, signals={"similarity_gain": 0.2})
    write_pair(tmp_path / "b", verdict="check", signals={"similarity_gain": 0.1})
    write_pair(tmp_path / "c", verdict="failed")
    write_index(tmp_path, tmp_path / "index.html")
    page = open_page(tmp_path / "index.html", width=390, height=780, touch=True)
    cells = "all => all.map(cell => [cell.dataset.label, cell.textContent])"
    found = {
        name: page.locator(f"{ROW}:has(.name[title='{name}']) td.key:visible").evaluate_all(cells) for name in "abc"
    }
    assert found == {"a": [["Dice", "0.700"]], "b": [["Similarity gain", "0.100"]], "c": []}
    page.click("#as-gallery")
    assert page.locator(".facts").all_inner_texts() == ["failed", "check Similarity gain 0.100", "ok Dice 0.700"]


def test_only_rows_in_sight_are_in_the_page(tmp_path, open_page):
    for k in range(300):
        write_pair(tmp_path / f"p{k:03}", dice=k / 300)
    write_index(tmp_path, tmp_path / "index.html")
    page = open_page(tmp_path / "index.html")
    assert shown(page)[0] == "p000" and page.locator(ROW).count() < 40
    assert page.get_attribute("#table", "aria-rowcount") == "301"
    for _ in range(30):
        page.keyboard.press("ArrowDown")
    row = page.locator(f"{ROW}[aria-current]").bounding_box()  # scrolled no further than it takes
    assert abs(row["y"] + row["height"] - page.locator("footer").bounding_box()["y"]) < 2
    page.keyboard.press("End")
    assert page.get_attribute(f"{ROW}[aria-current] .name", "title") == "p299"
    box = page.locator(f"{ROW}[aria-current]").bounding_box()
    assert box["y"] + box["height"] <= page.locator("footer").bounding_box()["y"] + 1
    assert page.locator(ROW).count() < 40


def test_what_was_left_out_is_named(cohort, open_page):
    write_pair(cohort / "bad<i>")
    (cohort / "bad<i>" / "metrics.json").write_text("{")
    write_index(cohort, cohort / "index.html")
    page = open_page(cohort / "index.html")
    page.click("#left-out summary")
    assert "bad<i>/metrics.json could not be read" in page.inner_text("#left-out")


def test_a_column_of_infinite_and_missing_values_is_drawn(tmp_path, open_page):
    for k, value in enumerate((1.5, float("inf"), None)):
        write_pair(tmp_path / f"p{k}", tre_mm=value, verdict="ok")
    write_index(tmp_path, tmp_path / "index.html")
    page = open_page(tmp_path / "index.html")
    page.click('th[data-key="tre_mm"] button')
    assert page.locator(f"{ROW} td.number").all_inner_texts() == ["∞", "1.50", "\N{EN DASH}"]
