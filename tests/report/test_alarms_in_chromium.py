"""Alarms on the page in a real Chromium: levels and marks in the curves, and the photos beside their copies."""

import json

import pytest

from finetune_monitor.base.files import sha256
from finetune_monitor.metrics.copying import SAYS
from finetune_monitor.record.references import NAME_LENGTH
from finetune_monitor.record.sweep_directory import SweepState, TrialRecord, TrialState
from finetune_monitor.report.page import write_page
from finetune_monitor.report.sweep_answer.answer import find_answer
from support.browser import address, until, used_page
from support.copies import COPIED, write_copying_run, write_photos
from support.page_folders import write_run

pytestmark = pytest.mark.slow

PLOT = "[...document.querySelectorAll('#charts > *')].find((each) => each.textContent.startsWith('Copying'))"
CHARTED = f"({PLOT}).querySelector('.plot').layout"
READY = "page.charts && imagesOf(chosenRun()) !== null"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos") / "ana")


@pytest.fixture(scope="module")
def copying(tmp_path_factory, photos):
    folder = tmp_path_factory.mktemp("copying")
    write_page(folder / "page", [write_copying_run(folder / "ana", photos)])
    return folder / "page"


@pytest.fixture
def page(chromium, copying):
    with used_page(chromium) as (opened, seen):
        opened.goto(f"{address(copying)}/index.html")
        until(opened, READY)
        yield opened
        opened.wait_for_timeout(50)
        assert seen.complaints == []


def thumbnail_of(photo):
    return f"references/{sha256(photo)[:NAME_LENGTH]}.webp"


def pairs(page):
    """By pair below the alarm: the image's address, the photo's address, and what stands below them."""
    script = "(pair) => [...[...pair.querySelectorAll('img')].map((each) => each.src), pair.innerText.trim()]"
    return [page.evaluate(script, each) for each in page.query_selector_all("#alarms .alike li")]


def test_an_enlarged_image_stands_beside_the_photo_that_it_is_nearest_to(page, photos):
    page.locator("#gallery .shot").first.click()
    assert page.get_attribute("#enlarged-photos img", "src").endswith(thumbnail_of(photos[0]))
    assert page.inner_text("#enlarged-photos").startswith("Nearest photo: astronaut.png\nphoto correlation 0.99")
    image, photo = (page.locator(f"{part} img").bounding_box() for part in ("#enlarged-image", "#enlarged-photos"))
    assert (image["y"], image["width"]) == pytest.approx((photo["y"], photo["width"]), abs=1)
    assert image["x"] + image["width"] < photo["x"]
    until(page, "document.querySelector('#enlarged-photos img').naturalWidth > 0")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#enlarged-photos img", "src").endswith(thumbnail_of(photos[1]))


def test_where_the_alarm_sounds_the_images_most_like_a_photo_stand_beside_it(page, photos):
    assert page.inner_text("#alarms p").startswith("Alarm: copying is 0.875 [")
    assert page.inner_text("#alarms h3") == "Image and nearest photo: the 5 most similar of 7"
    found = pairs(page)
    assert [photo.split("/")[-1] for _, photo, _ in found] == [
        thumbnail_of(photos[place]).split("/")[-1] for place in (0, 2, 1, 0, 2)
    ]
    likeness = [float(words.removeprefix("photo correlation ")) for *_, words in found]
    assert likeness == sorted(likeness, reverse=True)
    assert [image.split("/")[-1] for image, *_ in found][:2] == ["p00-s0.webp", "p00-s2.webp"]
    page.locator("#alarms .shot").nth(1).click()
    assert "image 2 of 5" in page.inner_text("#enlarged-place")
    page.keyboard.press("Escape")
    page.select_option("#images-step", "100")
    assert not page.is_visible("#alarms")
    page.locator("#gallery .shot").first.click()
    assert page.is_visible("#enlarged-photos"), "an image has a nearest photo at every step"


def test_the_curve_has_the_level_and_marks_the_steps_at_which_the_alarm_sounds(page):
    shapes = page.evaluate(f"{CHARTED}.shapes.filter(({{ line }}) => line.dash === 'dash').map(({{ y0 }}) => y0)")
    assert shapes == [0.2]
    annotations = page.evaluate(f"{CHARTED}.annotations.map(({{ text, x }}) => [text, x])")
    assert ["alarm above 0.2", 0] in annotations
    assert [x for text, x in annotations if text == "!"] == [200], "where it starts"
    fills = page.evaluate(f"({PLOT}).querySelector('.plot').data.find(({{ text }}) => text).marker.color")
    assert [fill == page.evaluate("color('poor')") for fill in fills] == [False, False, True, True]
    said = page.evaluate(f"({PLOT}).querySelector('.chart-alarm').textContent")
    assert said == f"Alarm in 2 evaluations from step 200 to 300: {SAYS}."
    for shown in (
        "layout.annotations.find(({ text }) => text === '!').hovertext",
        "data.find(({ text }) => text).text[3]",
    ):
        assert SAYS in page.evaluate(f"({PLOT}).querySelector('.plot').{shown}").replace("<br>", " ")
    assert page.inner_text("#peek .chart-alarm").startswith("Alarm: copying is 0.875 [")
    assert page.is_visible("#alarm-words")
    others = page.evaluate("document.querySelector('#charts .plot').layout.annotations.map(({ text }) => text)")
    assert [text for text in others if "alarm" in text or text == "!"] == [], "another metric has none"
    page.evaluate(f"({PLOT}).querySelector('details').open = true")
    until(page, f"({PLOT}).querySelectorAll('tbody tr').length === 4")
    rows = page.evaluate(f"[...({PLOT}).querySelectorAll('tbody tr')].map((row) => row.cells[1].textContent)")
    assert ["alarm above 0.2" in row for row in rows] == [False, False, True, True]
    page.evaluate("choose({ x: 'epochs' })")
    marks = page.evaluate(f"{CHARTED}.annotations.filter(({{ text }}) => text === '!').map(({{ x }}) => x)")
    assert marks == [20]


def test_a_record_from_before_shows_no_photo_and_no_alarm(chromium, tmp_path, photos):
    old = write_copying_run(tmp_path / "old", photos)
    content = json.loads((old / "run.json").read_text())
    del content["columns"]["nearest_photo"]["likeness"]
    del content["columns"]["copying"]["alarm"]
    (old / "run.json").write_text(json.dumps(content))
    write_page(tmp_path / "page", [old, write_run(tmp_path / "ana", {0: 0.1, 50: 0.6})])
    with used_page(chromium) as (page, seen):
        page.goto(f"{address(tmp_path / 'page')}/index.html")
        until(page, READY)
        page.locator("#gallery .shot").first.click()
        assert not page.is_visible("#enlarged-photos")
        assert not page.is_visible("#alarms")
        assert not page.is_visible("#alarm-words")
        assert seen.complaints == []


def test_photos_and_alarms_are_no_wider_than_a_phone(chromium, copying):
    with used_page(chromium, viewport={"width": 320, "height": 640}) as (page, _):
        page.goto(f"{address(copying)}/index.html")
        until(page, READY)
        page.locator("#gallery .shot").first.click()
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        box = page.locator("#close").bounding_box()
        assert box["y"] + box["height"] <= 640, "the dialog can be closed at once"


def test_the_answer_of_a_sweep_names_the_alarms_of_its_trials(chromium, tmp_path, photos):
    names = ("4", "8")
    trials = tuple(TrialRecord(name, {"train.rank": int(name)}, state=TrialState.FINISHED) for name in names)
    state = SweepState(tmp_path, {"axes": {"train.rank": [4, 8]}}, trials)
    shares = ({0: 0.0, 100: 0.05}, COPIED)
    runs = [write_copying_run(state.run_dir(trial), photos, each) for trial, each in zip(trials, shares, strict=True)]
    write_page(tmp_path / "page", runs, find_answer(state).to_json())
    with used_page(chromium) as (page, seen):
        page.goto(f"{address(tmp_path / 'page')}/index.html")
        until(page, READY)
        assert "but alarms sound where it is best (rank 8): copying" in page.inner_text("#verdicts")
        assert "8: alarms: copying" in page.inner_text("#answer-notes")
        page.click("#trials summary")
        assert page.inner_text("#trials thead").splitlines()[-1].endswith("alarms")
        assert [row.split("\t")[-1] for row in page.locator("#trials tbody tr").all_inner_texts()] == ["", "copying"]
        assert page.evaluate("document.querySelector('#charts').textContent").count("floor and alarm of 8") == 1
        assert seen.complaints == []
