"""What a person decides by, in a real Chromium: images beside the curves, losses, weights, photos, and settings."""

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.run_directory import CONTACT_SHEET, PHOTOS
from finetune_monitor.report.page import write_page
from support.browser import address, until, used_page
from support.page_folders import PLAIN, Recording, write_run

pytestmark = pytest.mark.slow

ASTRONAUT = "sks person as an astronaut"
GRID = PromptGrid([PLAIN, ASTRONAUT], seeds=(0, 1, 7), steps=3)
OWN_SEEDS = PromptGrid([PLAIN, ASTRONAUT], images_per_prompt=3, steps=3)
LAPTOP = {"viewport": {"width": 1440, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SCORES = {0: 0.1, 50: 0.6, 100: 0.4, 150: 0.5}
PIPELINE = {"class": "StableDiffusionPipeline", "name_or_path": "models/sd15"}
SURVEY = {
    "photos": [
        {"file": "one.jpg", "similarity": 0.71, "outlier": False, "warnings": []},
        {"file": "<b>two</b>.jpg", "similarity": 0.1, "outlier": True, "warnings": ["another person?"]},
    ],
    "warnings": ["another person? <b>two</b>.jpg is 0.10 from the others; remove it"],
}


@pytest.fixture(scope="module")
def page_of_ana(tmp_path_factory):
    """One run with losses, weights of two steps, a contact sheet, and settings."""
    folder = tmp_path_factory.mktemp("it's ana")
    recording = Recording(folder / "ana", GRID, {"train.rank": 16, "train.learning_rate": 1e-4}, pipeline=PIPELINE)
    for step, score in SCORES.items():
        recording.add(step, score, aesthetic=5.0 + 0.5 * score)
    for step in range(1, 151):
        recording.record.log_training(step, 1 / step, 1e-4)
    for step in (50, 100):
        recording.keep(step)
    recording.end()
    (folder / "ana" / PHOTOS).write_text(json.dumps(SURVEY))
    Image.new("RGB", (600, 300), "teal").save(folder / "ana" / CONTACT_SHEET)
    write_page(folder / "ana" / "page", [folder / "ana"])
    return folder / "ana" / "page"


@contextmanager
def opened(browser, folder: Path, choices="", at="", **settings):
    """The page with its charts drawn, which must complain of nothing; `at` is an address of its own for the folder."""
    with used_page(browser, **{**LAPTOP, **settings}) as (page, seen):
        page.goto(f"{at or address(folder)}/index.html{choices}")
        until(page, "page.charts && imagesOf(chosenRun()) !== null")
        yield page
        page.wait_for_timeout(50)
        assert seen.complaints == []


def texts(page, selector):
    return page.locator(selector).all_text_contents()


def is_in_view(page, selector):
    """Whether an element is completely in the window."""
    box, size = page.locator(selector).first.bounding_box(), page.viewport_size
    return box["y"] >= 0 and box["y"] + box["height"] <= size["height"] and box["x"] + box["width"] <= size["width"]


def click_last_point(page, chart):
    """Click the last point of a chart's curve, wherever it is in the window."""
    script = """(chart) => {
      const plot = document.querySelector(`${chart} .plot`);
      const { xaxis, yaxis } = plot._fullLayout;
      const trace = plot.data.find(({ customdata }) => customdata);
      const box = plot.querySelector(".nsewdrag").getBoundingClientRect();
      return [box.left + xaxis.d2p(trace.x.at(-1)), box.top + yaxis.d2p(trace.y.at(-1))];
    }"""
    x, y = page.evaluate(script, chart)
    page.mouse.move(x, y)
    page.mouse.click(x, y)


def test_images_of_the_chosen_step_are_beside_the_curves_without_scrolling(chromium, page_of_ana):
    with opened(chromium, page_of_ana) as page:
        assert page.inner_text("#peek .step-title strong") == "Step 50 ★ best"
        assert is_in_view(page, "#peek .matrix")
        chart, images = (page.locator(part).bounding_box() for part in ("#charts", "#peek"))
        assert chart["x"] + chart["width"] < images["x"]
        page.locator("#training > :last-child").scroll_into_view_if_needed()
        assert page.evaluate("scrollY") > 200
        assert is_in_view(page, "#peek .matrix"), "the images stay while the curves scroll"
        click_last_point(page, "#training > :last-child")
        until(page, "choices.get('step') === '150'")
        assert page.inner_text("#peek .step-title strong") == "Step 150"
        assert page.get_attribute("#peek img", "src").endswith("step-000150/p00-s0.webp")
        assert is_in_view(page, "#peek .matrix")


def test_a_row_is_a_prompt_and_a_column_is_a_seed(chromium, page_of_ana, tmp_path):
    with opened(chromium, page_of_ana) as page:
        assert texts(page, "#peek .seed") == ["seed 0", "seed 1", "seed 7"]
        assert texts(page, "#peek .prompt") == [PLAIN, ASTRONAUT]
        boxes = [page.locator("#peek .shot").nth(index).bounding_box() for index in range(6)]
        assert [round(box["y"]) for box in boxes[:3]] == [round(boxes[0]["y"])] * 3
        assert [box["x"] for box in boxes[:3]] == pytest.approx([box["x"] for box in boxes[3:]], abs=1)
        assert boxes[3]["y"] > boxes[0]["y"]
        cards = [page.locator("#gallery > li").nth(index).bounding_box() for index in (0, 2, 3)]
        assert cards[0]["x"] == cards[2]["x"]
        assert cards[0]["y"] == cards[1]["y"]
        page.locator("#peek .shot").nth(4).click()
        assert page.inner_text("#enlarged-title") == ASTRONAUT
        assert "image 5 of 6" in page.inner_text("#enlarged-place")
    write_page(tmp_path / "page", [write_run(tmp_path / "own", {0: 0.1, 50: 0.4}, OWN_SEEDS)])
    with opened(chromium, tmp_path / "page") as page:
        assert page.locator("#peek .seed").count() == 0, "each prompt has its own"
        assert page.locator("#peek .shot").count() == 6


def test_the_slider_and_the_arrows_go_through_the_steps(chromium, page_of_ana):
    with opened(chromium, page_of_ana) as page:
        page.focus("#step-slider")
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#peek .step-title strong") == "Step 100"
        assert page.get_attribute("#step-slider", "aria-valuetext") == "step 100"
        page.keyboard.press("Home")
        assert page.inner_text("#peek .step-title strong") == "Step 0 (base model)"
        assert page.is_disabled("#step-earlier")
        page.click("#step-later")
        assert page.input_value("#step-slider") == "1"
        assert "#run=" in page.url, "the address keeps the step"


def test_on_a_phone_the_images_stay_below_the_curves(chromium, page_of_ana):
    with opened(chromium, page_of_ana, **PHONE) as page:
        page.locator("#charts > :first-child").evaluate("(chart) => chart.scrollIntoView({block: 'start'})")
        assert is_in_view(page, "#peek .shot")
        panel = page.locator("#step").bounding_box()
        assert panel["y"] + panel["height"] <= 844
        assert panel["y"] > 844 / 2, "the curve above it stays visible"
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_loss_and_learning_rate_are_curves_where_the_loop_recorded_them(chromium, page_of_ana, tmp_path):
    plots = "[...document.querySelectorAll('#training .plot')]"
    with opened(chromium, page_of_ana) as page:
        assert texts(page, "#training strong") == ["Training loss", "Learning rate"]
        steps, losses = page.evaluate(f"[{plots}[0].data[0].x, {plots}[0].data[0].y]")
        assert steps == list(range(10, 151, 10))
        assert losses[0] == pytest.approx(sum(1 / step for step in range(1, 11)) / 10, abs=1e-4)
        assert set(page.evaluate(f"{plots}[1].data[0].y")) == {1e-4}
        page.locator("input[name=x][value=epochs]").check(force=True)
        assert page.evaluate(f"{plots}[0].data[0].x")[0] == pytest.approx(1.0)
    write_page(tmp_path / "page", [write_run(tmp_path / "own", {0: 0.1, 50: 0.4})])
    with opened(chromium, tmp_path / "page") as page:
        assert page.locator("#training > *").count() == 0


def test_a_damaged_loss_file_is_a_remark_and_the_rest_is_shown(chromium, tmp_path):
    run = write_run(tmp_path / "ana", {0: 0.1, 50: 0.4})
    (run / "training.jsonl").write_text("{}\n{}\n")
    (run / PHOTOS).write_text("[")
    write_page(tmp_path / "page", [run])
    with opened(chromium, tmp_path / "page") as page:
        page.click("#remarks summary")
        remarks = texts(page, "#remarks li")
        assert any("training.jsonl:1: damaged row" in each for each in remarks)
        assert any("photos.json" in each for each in remarks)
        assert page.locator("#peek .shot").count() == 4


def test_axes_start_where_the_data_need_it_and_name_their_unit(chromium, page_of_ana):
    with opened(chromium, page_of_ana) as page:
        axis = "document.querySelector('#charts > :nth-child(2) .plot').layout.yaxis"
        assert page.evaluate(f"{axis}.title.text") == "1 to 10"
        low, high = page.evaluate(f"{axis}.range")
        means = page.evaluate("chosenRun().scores.aesthetic.mean")
        assert 1 < low < min(means), "not at the end of the scale"
        assert max(means) < high < 10
        first = "document.querySelector('#charts > :nth-child(1) .plot').layout.yaxis"
        assert page.evaluate(f"{first}.range")[1] > 0.9, "the ceiling is in the picture"
        page.check("#side")
        side = "document.querySelector('#charts > :nth-child(3) .plot').layout.yaxis.title.text"
        assert page.evaluate(side) == "share of images, 0 to 1"


def test_the_curve_of_a_supporting_score_is_shown_if_its_alarm_sounds(chromium, page_of_ana):
    alarm = "{level: 0.5, side: 'below', says: 'no face is left', sounds: {100: 'faces_found is 0.2'}}"
    with opened(chromium, page_of_ana) as page:
        assert "Faces found" not in texts(page, "#charts strong")
        page.evaluate(
            f"page.manifest.written += ' '; page.manifest.runs[0].alarms = {{faces_found: {alarm}}}; redraw()"
        )
        assert "Faces found" in texts(page, "#charts strong")
        assert "Alarm at step 100: no face is left." in texts(page, "#charts .chart-alarm")


def test_intervals_are_explained_by_one_hover_or_key(chromium, page_of_ana):
    with opened(chromium, page_of_ana) as page:
        assert not page.is_visible("#interval-words")
        page.hover(".hint")
        assert page.inner_text("#interval-words").startswith("The 95% intervals show where a mean would lie")
        page.mouse.move(5, 5)
        assert not page.is_visible("#interval-words")
        page.focus(".hint")
        assert page.is_visible("#interval-words")


def test_weights_have_a_path_to_copy_and_the_lines_that_load_them(chromium, page_of_ana):
    with opened(chromium, page_of_ana, at=page_of_ana.as_uri()) as page:
        path, code, kohya, export = texts(page, "#weights pre")
        file = page_of_ana.parent / "weights/step-000050/pytorch_lora_weights.safetensors"
        assert Path(path) == file
        assert file.exists()
        assert 'DiffusionPipeline.from_pretrained("models/sd15")' in code
        assert f"pipe.load_lora_weights({json.dumps(str(file))})" in code
        compile(code, "the page", "exec")
        assert Path(kohya) == file.with_name("ana_kohya.safetensors")
        assert "ComfyUI/models/loras" in page.inner_text("#weights")
        assert export.startswith("finetune-monitor export '")
        page.click("#peek .copy")
        until(page, "document.querySelector('#peek .copy').textContent === 'Copied'")
        page.evaluate("document.body.prepend(Object.assign(document.createElement('textarea'), {id: 'pasted'}))")
        page.focus("#pasted")
        page.keyboard.press("Control+V")
        assert page.input_value("#pasted") == str(file)
        page.select_option("#images-step", "150")
        assert page.inner_text("#weights-place") == "The weights of this step were not kept. Kept steps: 50, 100."


def test_rendering_again_is_offered_only_where_it_can_work(chromium, page_of_ana, tmp_path):
    with opened(chromium, page_of_ana) as page:
        for step, is_offered in {"0": True, "50": True, "150": False}.items():
            page.select_option("#images-step", step)
            page.locator("#peek .shot").first.click()
            assert page.is_visible("#command") == is_offered
            page.keyboard.press("Escape")
    write_page(tmp_path / "page", [write_run(tmp_path / "own", {0: 0.1, 50: 0.4})])
    with opened(chromium, tmp_path / "page") as page:
        page.locator("#peek .shot").first.click()
        assert not page.is_visible("#command"), "the record does not know the model"


def test_side_by_side_opens_on_the_base_model_and_the_best_step(chromium, page_of_ana, tmp_path):
    with opened(chromium, page_of_ana, "#step=100") as page:
        assert [page.input_value(f"#{side}-step") for side in "ab"] == ["0", "50"]
        assert "B is better" in page.inner_text("#differences")
    runs = [write_run(tmp_path / name, {0: 0.5, 50: 0.4, 100: 0.3}) for name in ("one", "two")]
    write_page(tmp_path / "page", runs)
    with opened(chromium, tmp_path / "page") as page:
        assert [page.input_value(f"#{side}-step") for side in "ab"] == ["0", "100"], "nothing is better than the base"


def test_the_best_of_comparable_runs_opens(chromium, tmp_path):
    runs = [write_run(tmp_path / name, {0: 0.1, 50: score}) for name, score in {"one": 0.3, "two": 0.6}.items()]
    runs.append(write_run(tmp_path / "other", {0: 0.1, 50: 0.9}, OWN_SEEDS))
    for place, (name, shown) in enumerate({"two": runs[:2], "one": [runs[0], runs[2]]}.items()):
        write_page(tmp_path / f"page-{place}", shown)
        with opened(chromium, tmp_path / f"page-{place}") as page:
            assert page.evaluate("chosenRun().name") == name


def test_scores_of_entire_evaluations_are_not_listed_as_missing_from_each_image(chromium, page_of_ana):
    remove = """() => {
      const [id, { version, content }] = [...page.images][0];
      const aesthetic = content.scores.aesthetic.map((row) => row.map(() => null));
      page.images.set(id, { version, content: { ...content, scores: { ...content.scores, aesthetic } } });
      choose({ step: 100 });
    }"""
    with opened(chromium, page_of_ana) as page:
        assert "aesthetic" in page.inner_text("#gallery")
        page.evaluate(remove)
        assert "face similarity" in page.inner_text("#gallery")
        assert "aesthetic" not in page.inner_text("#gallery")
        assert "aesthetic" not in page.inner_text("#pair-list")


def test_the_photos_are_shown_with_what_was_found_out_about_them(chromium, page_of_ana, tmp_path):
    with opened(chromium, page_of_ana) as page:
        page.locator(".sheet").scroll_into_view_if_needed()
        until(page, "document.querySelector('.sheet').naturalWidth === 600")
        assert texts(page, "#photos .notes li") == SURVEY["warnings"]
        page.click("#photos summary")
        rows = texts(page, "#photos tbody tr")
        assert rows == ["one.jpg0.71", "<b>two</b>.jpg0.10another person?"]
    write_page(tmp_path / "page", [write_run(tmp_path / "own", {0: 0.1, 50: 0.4})])
    with opened(chromium, tmp_path / "page") as page:
        assert page.inner_text("#photos") == "The run's record does not name its photos."


def test_settings_and_hashes_are_in_a_panel(chromium, page_of_ana):
    with opened(chromium, page_of_ana) as page:
        page.evaluate("document.querySelectorAll('#facts details').forEach((each) => (each.open = true))")
        words = page.inner_text("#facts")
        for expected in ("train.rank\n16", "train.learning_rate\n0.0001", "models/sd15", GRID.fingerprint()):
            assert expected in words
