"""The report page in a real Chromium: points, steps, pairs, filters, keys, phones, hostile names, live runs."""

import itertools
import math
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, ScoredImage, summarize
from finetune_monitor.report.page import write_page
from finetune_monitor.stats.estimate import Estimate, shown
from finetune_monitor.stats.intervals import share_change, t_change
from support.browser import PHONE, address, until, used_page
from support.page_folders import GRID, HOSTILE, NAME, OTHER_GRID, PLAIN, Recording, color, sweep_of, write_run
from support.runs import COLUMNS, RUN

pytestmark = pytest.mark.slow

WATCH = """
  window.flashes = [];
  new MutationObserver(() => {
    const text = document.querySelector("#gallery").textContent + document.querySelector("#images-state").textContent;
    if (/not measured|Loading/.test(text)) flashes.push(text);
  }).observe(document.querySelector("#images"), { childList: true, subtree: true });
"""
NARROWEST = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True}
STEPS = {0: 0.1, 50: 0.6, 100: 0.4}
SECOND = {0: 0.1, 50: 0.3, 100: 0.5}
MANY = 50
LONG_NAMES = """
  sweep.axis = {...sweep.axis, key: "data.instance_images", scale: "category"};
  sweep.axis.values = ["/a/long/folder/of a person with a long name", "/a/long/folder/short", "/a/long/other"];
  const named = (entry) => (entry.value = sweep.axis.values[entry.value - 1]);
  const { best, last, steps } = sweep.curves.face_similarity;
  [...best, ...last, ...steps].forEach(named);
"""
LONG_TICKS = ["folder/of a p…", "folder/short", "other"]
SEVEN = """
  const [first] = sweep.curves.face_similarity.best;
  sweep.axis.values = [1, 2, 3, 4, 5, 6, 7];
  sweep.curves.face_similarity.best = sweep.axis.values.map((value) => ({...first, value, points: [first.points[0]]}));
"""
TWO_GROUPS = """
  sweep.groups = ["rank=4", "rank=8"];
  const other = (entry) => ({...entry, group: 1});
  for (const at of ["best", "last", "steps"]) {
    sweep.curves.face_similarity[at].push(...sweep.curves.face_similarity[at].map(other));
  }
  sweep.verdicts.push({...sweep.verdicts[0], group: 1, text: "it falls", tone: "fall"});
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two runs, the second one with a hostile name; cells without a face, without an image and without a score."""
    folder = tmp_path_factory.mktemp("pair")
    first = Recording(folder / "ana", hparams={"train.rank": 4})
    first.add(0, 0.1)
    first.add(50, 0.6, faceless=[1], missing=[2])
    first.add(100, 0.4)
    first.end()
    second = write_run(folder / NAME, SECOND, OTHER_GRID, {"train.rank": 8})
    write_page(folder / "page", [folder / "ana", second])
    return folder / "page"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two numbers of photos, two seeds each, and a trial that failed before it wrote anything."""
    folder = tmp_path_factory.mktemp("sweep")
    trials = {folder / f"t{value}{seed}": (value, seed) for value in (1, 2) for seed in (0, 1)}
    for place, (value, seed) in trials.items():
        write_run(place, {0: 0.1, 50: 0.1 * value}, hparams={"data.instance_count": value, "seed": seed})
    write_page(folder / "page", list(trials), sweep_of(trials, [0, 50]))
    return folder / "page"


PAIRED = "!document.querySelector('#pairs-state').textContent.startsWith('Loading')"
"""The scores of both sides have been loaded."""


@contextmanager
def opened(browser, folder: Path, choices="", **settings):
    """The page with its charts drawn; it must complain of nothing and ask for nothing outside its folder."""
    shown = address(folder)
    with used_page(browser, **settings) as (page, seen):
        page.goto(f"{shown}/index.html{choices}")
        until(page, "page.charts && !document.querySelector('#gallery .no-image:empty')")
        yield page
        page.wait_for_timeout(50)
        assert seen.complaints == []
        assert [each for each in seen.addresses if not each.startswith(shown)] == []


def choices(page):
    return page.evaluate("Object.fromEntries(choices)")


def click_point(page, chart, customdata):
    """Click where the point that hands on this customdata is drawn."""
    script = """([chart, wanted]) => {
      const plot = document.querySelector(`${chart} .plot`);
      plot.scrollIntoView({block: "center"});
      const { xaxis, yaxis } = plot._fullLayout;
      for (const trace of plot.data) {
        const place = (trace.customdata ?? []).findIndex((each) => JSON.stringify(each) === JSON.stringify(wanted));
        if (place >= 0) {
          const box = plot.querySelector(".nsewdrag").getBoundingClientRect();
          return [box.left + xaxis.d2p(trace.x[place]), box.top + yaxis.d2p(trace.y[place])];
        }
      }
    }"""
    x, y = page.evaluate(script, [chart, customdata])
    page.mouse.move(x, y)
    page.mouse.click(x, y)


def open_numbers(page, chart):
    """Open the table under a chart; the browser reports the opening, which fills it, after the click has returned."""
    page.click(f"{chart} summary")
    until(page, f"document.querySelector('{chart} tbody tr')")


def changed(page, change):
    """Draw the page anew as after a look for news, with something changed in the manifest."""
    page.evaluate(
        f"{{const {{ runs, sweep, cells }} = page.manifest; page.manifest.written += ' '; {change}; redraw()}}"
    )


def run_id(page, name):
    return page.evaluate("(name) => page.manifest.runs.find((run) => run.name === name).id", name)


def texts(page, selector):
    return page.locator(selector).all_text_contents()


def width(page):
    return page.evaluate("document.documentElement.scrollWidth")


def contrast(one, other):
    """WCAG 2.2's contrast ratio of two colors of 0 to 255."""
    light = [np.dot([0.2126, 0.7152, 0.0722], linear(np.array(ink) / 255)) + 0.05 for ink in (one, other)]
    return max(light) / min(light)


def linear(share):
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def is_drawn(page, selector):
    return page.evaluate("(selector) => document.querySelector(selector).naturalWidth > 0", selector)


def test_a_point_shows_the_images_of_its_evaluation(chromium, pair):
    with opened(chromium, pair) as page:
        assert "ana, step 50" in page.inner_text("#images-state")
        ana = run_id(page, "ana")
        click_point(page, "#charts > :nth-child(1)", [ana, 100])
        until(page, "choices.get('step') === '100'")
        assert choices(page)["run"] == ana
        assert "ana, step 100: face similarity 0.415 [" in page.inner_text("#images-state")
        assert "The run: ended at step 100: the score stopped improving." in page.inner_text("#images-state")
        hovers = page.evaluate("document.querySelector('#charts .plot').data.find(({ text }) => text).text")
        assert ["stopped improving" in text for text in hovers] == [False, False, True]
        assert "ana, step 100" in page.inner_text("#peek")
        page.locator("#gallery").scroll_into_view_if_needed()
        until(page, "document.querySelector('#gallery img').naturalWidth > 0")
        source = page.get_attribute("#gallery img", "src")
        assert source == f"thumbnails/{ana}/step-000100/p00-s0.webp"
        assert page.get_attribute("#gallery img", "alt") == f"{PLAIN}, seed 0, step 100"


def test_each_of_a_few_runs_has_its_verdict_at_the_top(chromium, pair):
    with opened(chromium, pair) as page:
        first, second = texts(page, "#overview li")
        assert first.startswith("ana: Step 50 is the best: ")
        assert second.startswith(f"{NAME}: Step 100 is the best: ")


def test_every_chart_marks_best_step_floor_and_ceiling_and_has_its_numbers(chromium, pair):
    with opened(chromium, pair) as page:
        plot = "document.querySelector('#charts .plot')"
        symbols = page.evaluate(f"{plot}.data.map((trace) => trace.marker?.symbol)")
        assert symbols.count("star") == 2
        names = page.evaluate(f"{plot}.layout.annotations.map((each) => each.text)")
        assert names == ["floor 0.115", "ceiling 0.900"]
        assert page.evaluate(f"{plot}._fullLayout.xaxis._vals.map(({{ x }}) => x).every((x) => x >= 0)")
        assert "★ marks the best step by face similarity: there, the dotted curve" in page.inner_text("#curves > p")
        assert texts(page, "#runs thead th") == ["run", "best step", "state", "rank"]
        assert page.get_attribute("#runs thead .setting", "title") == "train.rank"
        open_numbers(page, "#charts > :nth-child(1)")
        rows = texts(page, "#charts > :nth-child(1) tbody tr")
        assert len(rows) == 3
        assert rows[1].startswith("500.615 [")
        assert "(2 of 4 images)" in rows[1]


def test_faceless_missing_and_unmeasured_are_said_and_never_zero(chromium, pair):
    with opened(chromium, pair) as page:
        cards = texts(page, "#gallery > li")
        assert len(cards) == 4
        assert "no face" in cards[1]
        assert "face similaritynot measured" in cards[1]
        assert "no image" in cards[2]
        assert "no face" not in cards[2]
        assert "aestheticnot measured" in cards[2]
        assert texts(page, "#gallery .badge") == texts(page, "#peek .badge") == ["no face"]
        assert page.locator("#film .badge").count() == 0
        page.select_option("#timeline-cell", index=1)
        assert texts(page, "#film .badge") == ["no face"]
        assert page.get_attribute("#film li:nth-child(2) button", "aria-label").endswith(", no face")
        assert "1 image missing; 1 with no face" in page.inner_text("#images-state")
        assert "1 of 4 images" in page.text_content("#remarks")


def test_two_scores_are_drawn_against_each_other_with_the_weights_of_each_step(chromium, tmp_path):
    recording = Recording(tmp_path / "ana")
    for step, (score, aesthetic) in {0: (0.1, 6.0), 50: (0.5, 5.9), 100: (0.9, 5.0), 150: (0.3, 4.5)}.items():
        recording.add(step, score, aesthetic=aesthetic)
    for step in (50, 150):
        recording.keep(step)
    recording.end()
    write_page(tmp_path / "page", [tmp_path / "ana"])
    with opened(chromium, tmp_path / "page") as page:
        names = page.evaluate("document.querySelector('#pareto .plot').layout.annotations.map((each) => each.text)")
        assert names == ["0", "50", "100"]
        open_numbers(page, "#pareto")
        rows = texts(page, "#pareto tbody tr")
        assert rows[1].endswith("yesweights/step-000050/pytorch_lora_weights.safetensors")
        assert rows[2].endswith("yesnone")
        assert rows[3].startswith("1500.315 [")
        assert rows[3].endswith("noweights/step-000150/pytorch_lora_weights.safetensors")
        assert page.inner_text("#weights-place") == "The weights of this step were not kept. Kept steps: 50, 150."
        assert page.locator("#weights .copyable").count() == 0
        click_point(page, "#pareto", [run_id(page, "ana"), 50])
        until(page, "document.querySelector('#images-state').textContent.includes('step 50:')")
        place = "Weights: weights/step-000050/pytorch_lora_weights.safetensors"
        assert page.inner_text("#weights-place") == f"{place}."
        assert page.inner_text("#peek .weights") == place
        command = f"finetune-monitor export {tmp_path / 'ana'} --step 50 --to ana-step-50.safetensors"
        assert texts(page, "#weights pre")[-1] == command
        page.select_option("#images-step", "0")
        assert "Step 0 is the base model" in page.inner_text("#weights-place")


def test_images_are_filtered_and_sorted_with_the_unmeasured_last(chromium, pair):
    with opened(chromium, pair) as page:
        page.select_option("#images-order", "face_similarity:down")
        assert [text.split("seed ")[1][:1] for text in texts(page, "#gallery > li")] == ["7", "0", "7", "0"]
        assert "no image" in texts(page, "#gallery > li")[-1]
        page.select_option("#images-order", "aesthetic:up")
        assert [text.split("aesthetic")[1] for text in texts(page, "#gallery > li")] == [
            *("2.00", "4.00", "5.00"),
            "not measured",
        ]
        page.select_option("#images-prompt", label=PLAIN)
        assert page.locator("#gallery > li").count() == 2
        page.reload()
        until(page, "page.charts")
        assert page.locator("#gallery > li").count() == 2
        assert page.input_value("#images-order") == "aesthetic:up"


def test_the_slider_goes_through_the_steps_of_one_cell_and_playing_stops_at_the_last(chromium, pair):
    with opened(chromium, pair, "#cell=1") as page:
        page.focus("#slider")
        assert "step 50 (epoch 5), the best" in page.inner_text("#moment")
        assert "not measured" in page.inner_text("#moment-scores")
        page.keyboard.press("ArrowRight")
        assert "step 100" in page.inner_text("#moment")
        assert page.get_attribute("#slider", "aria-valuetext") == "step 100 (epoch 10)"
        assert page.get_attribute("#frame img", "src").endswith("step-000100/p00-s7.webp")
        assert "ana, step 50" in page.inner_text("#images-state")
        page.keyboard.press("Home")
        assert page.inner_text("#moment") == "step 0, the base model"
        assert page.locator("#film [aria-current=true]").inner_text() == "0"
        click_point(page, "#course > :nth-child(2)", 100)
        until(page, "document.querySelector('#moment').textContent.startsWith('step 100')")
        page.click("#play")
        assert page.inner_text("#play") == "Pause"
        page.evaluate("clearInterval(playing), playOn(), playOn(), playOn()")
        assert page.inner_text("#play") == "Play"
        assert "step 100" in page.inner_text("#moment")
        leakage = (
            "{ name: 'leakage', main: true, unit: '', zero: '', bounds: null, higher_is_better: false, over: 'run' }"
        )
        of_run = "{ mean: [0, 1, 1], low: [], high: [], n: [], missing: [] }"
        changed(page, f"page.manifest.metrics.push({leakage}); runs.forEach((run) => (run.scores.leakage = {of_run}))")
        until(page, "imagesOf(chosenRun()) !== null")
        until(page, "document.querySelector('#course').dataset.names.includes('face_similarity')")
        assert "leakage" not in page.inner_text("#course"), "no image has one"


def test_pairs_compare_shared_cells_only_and_say_so(chromium, pair):
    with opened(chromium, pair) as page:
        page.select_option("#a-run", label="ana")
        page.select_option("#a-step", "0")
        page.select_option("#b-run", label=NAME)
        page.select_option("#b-step", "100")
        until(page, PAIRED)
        assert page.inner_text("#pairs-state").startswith(
            "2 pairs with the same prompt and seed. 2 of A and 4 of B have no counterpart"
        )
        assert page.locator("#pair-list > li").count() == 2
        row = texts(page, "#differences tbody tr")[0]
        # the second shared cell is at position 1 of A and 2 of B: (0.5 + 0.52) / 2 - (0.1 + 0.11) / 2
        assert row.startswith("face similarity0.1050.510+0.405 [+0.341, +0.469]B is better2 of 2")
        assert "0.110 → 0.520 (+0.410)" in page.inner_text("#pair-list")
        changed(page, "runs[0].probes = [1]; runs[0].scales = {a: 'drawn anew'}")
        assert texts(page, "#differences tbody tr")[0].endswith("1 of 1"), "a probe is none of the subject's images"
        changed(page, "page.manifest.metrics[0].over = 'run'; runs[0].scales = {}")
        assert "face similarity" not in page.inner_text("#differences tbody"), "no image has a score of its own"
        changed(page, "page.manifest.metrics[0].over = 'prompts'; runs[0].probes = []")
        changed(
            page, "runs[0].scales = {face_similarity: 'x'}; runs[1].scales = {face_similarity: 'x', aesthetic: 'y'}"
        )
        assert "B is better" in page.inner_text("#differences")
        changed(page, "runs[0].scales = {face_similarity: 'other'}")
        row = page.locator("#differences tbody tr").first
        assert "not on the same scale: measured with different photos or models" in row.inner_text()
        assert "better" not in row.inner_text()
        assert row.locator(".better, .worse").count() == 0
        assert page.locator("#differences tbody").inner_text().count("not on the same scale") == 1
        page.click("#swap")
        assert "\u22120.405 [\u22120.469, \u22120.341]" in page.inner_text("#differences")


def test_stars_have_as_many_decimals_as_on_the_console(chromium, tmp_path):
    column = ScoreColumn(True, (1.0, 5.0), metric="face_similarity", role="stars", of="face_similarity")
    found = {"columns": column.to_json(), "metrics": column.direction_json()}
    more = {key: {**RUN[key], "face_similarity_stars": content} for key, content in found.items()}
    run = Recording(tmp_path / "ana", **more)
    run.add(0, 0.4, more={"face_similarity_stars": Estimate(3.25, 2.75, 3.75, 4, 0)})
    run.end()
    write_page(tmp_path / "page", [tmp_path / "ana"])
    with opened(chromium, tmp_path / "page") as page:
        assert "face similarity stars 3.25 [2.75, 3.75]" in page.inner_text("#images-state")


def test_the_page_gives_the_interval_that_the_command_gives(chromium, pair):
    with used_page(chromium) as (page, _):
        page.goto(f"{address(pair)}/index.html")
        for count, is_own in itertools.product((2, 3, 6, 7, 12, 64), (True, False)):
            values = np.random.default_rng(count).normal(0.1, 0.3, count)
            seeds = np.arange(count) if is_own else np.arange(count) % 2
            assert_same_interval(page, values, seeds, t_change(values, seeds), is_share=False)
            for shares in (np.sign(values), np.ones(count), np.zeros(count)):
                assert_same_interval(page, shares, seeds, share_change(shares, seeds), is_share=True)
        for values in (np.full(5, 0.2), np.full(6, 0.2), np.array([0.9 - 0.7, 0.8 - 0.6]), np.zeros(2), np.zeros(1)):
            seeds = np.arange(len(values))
            assert_same_interval(page, values, seeds, t_change(values, seeds), is_share=False)


def assert_same_interval(page, values, seeds, expected, is_share):
    found = page.evaluate(f"changeInterval({values.tolist()}, {seeds.tolist()}, {str(is_share).lower()})")
    width = 0.0 if math.isnan(expected.low) else expected.high - expected.low
    ends = [math.nan if found[key] is None else found[key] for key in ("mean", "low", "high")]
    assert ends == pytest.approx([expected.mean, expected.low, expected.high], abs=5e-5 * width + 1e-12, nan_ok=True)


def test_the_page_shows_as_many_decimals_as_the_command(chromium, pair):
    with used_page(chromium) as (page, _):
        page.goto(f"{address(pair)}/index.html")
        for scale in (1e-10, 2e-9, 3e-6, 1e-4, 4e-4, 9.9e-4, 1e-3, 1.6e-3, 0.02, 0.5):
            mean, low, high = (scale * share for share in (-0.3, -1, 0.4))
            found = page.evaluate(f"withInterval({{ mean: {mean!r}, low: {low!r}, high: {high!r} }}, null)")
            assert found.replace("\u2212", "-") == shown(Estimate(mean, low, high, 8, 0))
        assert page.evaluate("withInterval({ mean: 0.0004, low: null, high: null }, null, signed)") == "+0.00040"


def test_pairs_without_a_score_are_left_out_of_the_difference(chromium, pair):
    with opened(chromium, pair) as page:
        ana = run_id(page, "ana")
        page.goto(f"{address(pair)}/index.html#a={ana}&as=0&b={ana}&bs=50")
        until(page, "document.querySelector('#differences td')")
        row = texts(page, "#differences tbody tr")[0]
        assert row.startswith("face similarity0.1150.615+0.500")
        assert row.endswith("2 of 4")
        assert "0.110 → not measured" in page.inner_text("#pair-list")
        page.select_option("#pairs-prompt", label=PLAIN)
        assert page.locator("#pair-list > li").count() == 2
        until(page, PAIRED)
        assert "4 pairs with the same prompt and seed. 2 of them are shown" in page.inner_text("#pairs-state")


@pytest.fixture
def probed(tmp_path):
    """A run with two probes, which have one score of their own, and a score that only whole evaluations have."""
    grid = replace(GRID, probe_prompts=("a cat",), images_per_probe=2)
    columns = {**COLUMNS, "leakage": ScoreColumn(False, over="run"), "probe_similarity": ScoreColumn(over="probes")}
    run = {"columns": {name: column.to_json() for name, column in columns.items()}}
    recording = Recording(tmp_path / "ana", grid, **run)
    for step in (0, 50):
        recording.add(step, 0.3, faceless=[0], more={"leakage": Estimate(0.2, 0.1, 0.3, 6, 0)})
    recording.end()
    write_page(tmp_path / "page", [tmp_path / "ana"])
    return tmp_path / "page"


def test_an_image_is_said_to_lack_only_scores_that_cover_it(chromium, probed):
    with opened(chromium, probed) as page:
        cards = [text.split("seed ")[1] for text in texts(page, "#gallery li")]
        assert cards[0] == "0face similaritynot measuredaesthetic5.00"
        assert cards[-1].endswith("probe similarity0.350")
        assert "leakage" not in "".join(texts(page, "#images-order option"))
        assert [text.split("'s ")[1] for text in texts(page, "#course strong")] == ["face similarity", "aesthetic"]
        page.select_option("#timeline-cell", label="a cat, seed 1000000")
        assert [text.split("'s ")[1] for text in texts(page, "#course strong")] == ["probe similarity"]
        until(page, PAIRED)
        rows = page.locator("#differences tbody tr").evaluate_all(
            "(rows) => rows.map((row) => [row.firstChild.textContent, row.lastChild.textContent])"
        )
        assert rows == [
            ["face similarity", "3 of 4"],
            ["aesthetic", "4 of 4"],
            ["faces found", "4 of 4"],
            ["probe similarity", "2 of 2"],
        ]
        assert texts(page, "#pair-list dt")[-1] == "probe similarity"


def test_an_image_is_enlarged_and_turned_by_keys(chromium, pair):
    with opened(chromium, pair) as page:
        first = page.locator("#gallery .shot").first
        first.focus()
        page.keyboard.press("Enter")
        assert page.inner_text("#enlarged-title") == PLAIN
        page.keyboard.press("ArrowRight")
        assert "image 2 of 4" in page.inner_text("#enlarged-place")
        assert "no face" in page.inner_text("#enlarged-image")
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#enlarged-title") == HOSTILE
        command = page.input_value("#command")
        assert command.startswith("finetune-monitor render ")
        assert command.endswith("/ana --step 50 --cell p01-s0")
        page.keyboard.press("Escape")
        assert not page.evaluate("document.querySelector('#enlarged').open")
        assert page.evaluate("document.activeElement === document.querySelector('#gallery .shot')")


def test_hostile_names_are_text_everywhere(chromium, sweep, pair):
    with opened(chromium, pair, color_scheme="dark") as page:
        page.select_option("#images-run", label=NAME)
        assert NAME in page.inner_text("#runs")
        page.check("#side")
        page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        assert page.locator("img[src=x], [onerror]").count() == 0
        texts = "document.querySelector('#charts .plot').data.flatMap((trace) => trace.text ?? []).join()"
        assert "&lt;img src=x" in page.evaluate(texts)
        assert "<img" not in page.evaluate(texts)
        ana = run_id(page, NAME)
        click_point(page, "#charts > :nth-child(1)", [ana, 50])
        hover = page.locator("#charts .hoverlayer text").first
        assert NAME in hover.text_content()
        page.locator("#gallery .shot").first.click()
        assert f"/{NAME}' --step" in page.input_value("#command"), "one word of the command"
        assert "render '/" in page.input_value("#command")
    with opened(chromium, sweep) as page:
        assert HOSTILE in page.inner_text("#verdicts")
        assert HOSTILE in page.inner_text("h1")
        assert page.locator("img[src=x], [onerror]").count() == 0


def test_all_by_keyboard(chromium, pair):
    with opened(chromium, pair) as page:
        reached = set()
        for _ in range(90):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
        wanted = {"images-run", "images-step", "earlier", "later", "images-prompt", "images-order", "shot"}
        wanted |= {"timeline-cell", "slider", "play", "a-run", "b-step", "swap", "pairs-prompt"}
        assert wanted <= reached
        page.focus("#later")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        page.keyboard.press("Enter")
        assert "ana, step 100" in page.inner_text("#images-state")
        assert page.evaluate(
            "document.activeElement.closest('.steppers') !== null || document.activeElement === document.body"
        )
        unnamed = page.evaluate(
            "[...document.querySelectorAll('button, select, input')].filter((each) => !each.closest('[hidden]')"
            " && !(each.textContent.trim() || each.labels?.length || each.getAttribute('aria-label')"
            " || each.querySelector('img')?.alt)).length"
        )
        assert unnamed == 0


@pytest.mark.parametrize("kind", ["pair", "sweep"])
def test_nothing_is_wider_than_a_phone(chromium, pair, sweep, kind):
    with opened(chromium, {"pair": pair, "sweep": sweep}[kind], **NARROWEST) as page:
        assert width(page) == 320
        page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        if kind == "sweep":
            changed(page, LONG_NAMES)
            assert page.evaluate("document.querySelector('#answer-values .plot').layout.xaxis.ticktext") == LONG_TICKS
        changed(page, "cells[0].prompt = 'a long prompt '.repeat(200)")
        page.evaluate("openEnlarged(chosenRun(), 0, [0, 1], 0)")
        for size in (NARROWEST["viewport"], PHONE["viewport"]):
            page.set_viewport_size(size)
            assert width(page) == size["width"]
            box = page.locator("#close").bounding_box()
            assert 0 < box["y"] < size["height"] - box["height"], "the dialog can be closed at once"
        page.click("#close")
        assert width(page) == 360


def test_charts_follow_light_and_dark_while_open(chromium, pair):
    with opened(chromium, pair, color_scheme="light") as page:
        color = "document.querySelector('#charts .plot')._fullLayout.font.color"
        light = page.evaluate(color)
        page.emulate_media(color_scheme="dark")
        until(page, f"{color} !== '{light}'")
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            inks = page.evaluate("['control', 'row0', 'row3', 'card', 'page'].map((name) => channels(color(name)))")
            assert min(contrast(ink, ground) for ink in inks[:3] for ground in inks[3:]) >= 3, theme


def test_a_sweep_answers_first_and_its_points_open_trials(chromium, sweep):
    with opened(chromium, sweep) as page:
        assert page.inner_text("#answer-title") == "How many photos?"
        assert page.inner_text("#answer-units") == "The intervals are over 2 training seeds."
        assert page.inner_text("#verdicts").strip().endswith(HOSTILE)
        click_point(page, "#answer-values", [1, 50])
        until(page, "choices.get('step') === '50'")
        assert page.evaluate("chosenRun().name") == "t11"
        assert "t11, step 50" in page.inner_text("#answer-peek")
        click_point(page, "#answer-steps", [2, 0, 0])
        until(page, "choices.get('step') === '0'")
        assert page.evaluate("chosenRun().name") == "t21", "the same seed as the run that was shown"
        assert texts(page, "#ladder li > button > strong") == ["1", "2"]
        assert texts(page, "#ladder li .soft") == ["step 50", "step 50"], "best by the metric, not by the run"
        open_numbers(page, "#answer-values")
        assert texts(page, "#answer-values tbody tr:first-child > *")[2] == "2", "runs, not images"
        page.focus("#ladder select")
        page.keyboard.press("ArrowDown")
        until(page, "choices.has('cell')")
        assert page.evaluate("document.activeElement.matches('#ladder select')")
        page.focus("#ladder li:first-child button")
        page.keyboard.press("Enter")
        assert page.evaluate("chosenRun().name") == "t11"
        assert page.evaluate("document.activeElement.matches('#ladder li:first-child button[aria-pressed=true]')")
        page.locator("input[name=at][value=last]").check(force=True)
        assert page.inner_text("#verdicts").strip().endswith(f"it rises {HOSTILE}")
        assert "Last: it rises" in page.inner_text("#verdicts")
        assert page.locator(".verdict.none").bounding_box()["height"] < 150


def test_a_search_a_group_and_a_sweep_without_an_axis_are_drawn_as_what_they_are(chromium, sweep):
    lines = "document.querySelector('#answer-values .plot').data.filter(({ mode }) => mode.includes('lines')).length"
    with opened(chromium, sweep) as page:
        assert not page.is_visible("#answer-group")
        changed(page, TWO_GROUPS)
        assert page.input_value("#answer-group") == "rank=4"
        assert page.locator(".verdict").inner_text().endswith(f"rank=4: Best: it rises {HOSTILE}")
        page.select_option("#answer-group", "rank=8")
        assert page.locator(".verdict").inner_text().endswith("rank=8: It falls")
        for higher, classes in (("true", "verdict fall"), ("false", "verdict rise"), ("null", "verdict none")):
            changed(page, f"page.manifest.metrics.forEach((each) => (each.higher_is_better = {higher}))")
            assert page.get_attribute(".verdict", "class") == classes
        changed(page, "page.manifest.metrics.forEach((each) => (each.higher_is_better = true))")
        assert page.evaluate("document.querySelector('#answer-steps .plot').data.length") == 4, "two bands, two lines"
        changed(page, "sweep.groups = ['']")
        changed(page, SEVEN)
        assert page.evaluate(lines) == 1, "seven values with one training each are no search"
        changed(page, "sweep.search = true; sweep.trials.forEach((each) => (each.settings['train.rank'] = 8))")
        assert page.evaluate(lines) == 0
        assert page.inner_text("#verdicts .sign") == "★"
        assert "for each trial of the search" in page.inner_text("#ladder")
        assert "instance count 1, rank 8" in page.inner_text("#ladder li:first-child")
        assert texts(page, "#trials thead th")[:3] == ["trial", "instance count", "rank"]
        hover = page.evaluate("document.querySelector('#answer-values .plot').data[0].text[0]")
        assert "rank: 8" in hover
        changed(page, "sweep.axis = {...sweep.axis, key: ''}")
        assert page.inner_text("#answer-title") == "All trials together"
        assert not page.is_visible("#answer-values")


def test_failed_trials_stand_first_with_their_error(chromium, sweep):
    with opened(chromium, sweep) as page:
        assert "5 trials: 4 finished, 1 failed" in page.inner_text("#trials summary")
        first = texts(page, "#trials tbody tr")[0]
        assert "failed" in first
        assert f"RuntimeError: {HOSTILE}" in first
        assert "none" in first
        assert page.locator("#trials tbody tr").first.locator("button").count() == 0
        page.click("#trials summary")
        changed(page, "")
        assert not page.evaluate("document.querySelector('#trials').open"), "closed by the reader"


def test_the_address_brings_everything_back(chromium, pair):
    with opened(chromium, pair) as page:
        page.select_option("#images-run", label=NAME)
        page.select_option("#images-step", "0")
        page.locator("input[name=x][value=epochs]").check(force=True)
        page.get_by_label("ana in the charts").uncheck()
        page.select_option("#b-step", "0")
        url, before = page.url, choices(page)
    with opened(chromium, pair, url[url.index("#") :]) as page:
        assert choices(page) == before
        assert page.inner_text("#images-state").startswith(f"{NAME}, step 0")
        assert not page.get_by_label("ana in the charts").is_checked()
        assert page.evaluate("document.querySelector('#charts .plot').layout.xaxis.title.text") == "epoch"
        assert page.input_value("#b-step") == "0"
        page.click("nav a[href='#timeline']")
        assert choices(page) == before


def test_a_link_to_what_is_gone_shows_what_is_there(chromium, pair):
    with opened(chromium, pair, "#run=00000000&step=7") as page:
        for choice in ("", "#cell=99&moment=x&a=1&b=2&bs=9", "#order=x&prompt=%3Dno&metric=no&group=no"):
            if choice:
                page.evaluate("(choice) => (location.hash = choice)", choice)
                until(page, f"choices.has('{choice[1:].split('=')[0]}')")
            assert "step" in page.inner_text("#images-state")
            assert page.locator("#gallery > li").count() == 4


def test_a_live_page_shows_a_new_evaluation_and_keeps_the_choices(chromium, tmp_path):
    recording = Recording(tmp_path / "ana")
    recording.add(0, 0.1)
    recording.add(50, 0.2)
    write_page(tmp_path / "page", [tmp_path / "ana"])
    with opened(chromium, tmp_path / "page") as page:
        until(page, "document.querySelectorAll('#gallery > li').length === 4")
        assert page.inner_text("#state") == "Live"
        assert "step 50" in page.inner_text("#images-state")
        page.select_option("#images-step", "0")
        page.select_option("#images-order", "aesthetic:up")
        page.focus("#gallery .shot")
        time.sleep(1.1)  # the page's time is in seconds
        recording.add(100, 0.9)
        recording.end()
        write_page(tmp_path / "page", [tmp_path / "ana"])
        until(page, "page.manifest.runs[0].steps.length === 3")
        until(page, "document.querySelectorAll('#film li').length === 3")
        assert page.input_value("#images-step") == "0"
        assert page.input_value("#images-order") == "aesthetic:up"
        assert page.evaluate("document.activeElement.matches('#gallery .shot')")
        assert page.inner_text("#state") == ""
        assert "the score stopped improving" in page.inner_text("#overview")
        page.select_option("#images-step", "100")
        until(page, "document.querySelector('#gallery').textContent.includes('0.900')")


def test_a_live_page_follows_the_newest_step_and_a_run_begun_again(chromium, tmp_path):
    recording = Recording(tmp_path / "ana")
    recording.add(50, 0.2)
    write_page(tmp_path / "page", [tmp_path / "ana"])
    with opened(chromium, tmp_path / "page") as page:
        until(page, "document.querySelector('#gallery').textContent.includes('0.200')")
        page.evaluate(WATCH)
        page.locator("#gallery .shot").first.click()
        recording.add(100, 0.9)
        news(page, tmp_path)
        until(page, "document.querySelector('#gallery').textContent.includes('0.900')")
        assert page.evaluate("flashes") == []
        assert "ana, step 50" in page.inner_text("#enlarged-place"), "the image that was opened"
        assert "0.200" in page.inner_text("#enlarged-scores")
        page.keyboard.press("Escape")
        recording.record.close()
        shutil.rmtree(tmp_path / "ana")
        again = Recording(tmp_path / "ana")
        again.add(50, 0.3)
        again.add(100, 0.7)
        news(page, tmp_path)
        until(page, "document.querySelector('#gallery').textContent.includes('0.700')")
        assert "?t=" in page.get_attribute("#gallery img", "src"), "images of the run before are not shown"
        again.record.close()


def news(page, folder):
    """The page written anew and looked for, in another second, as its time is in seconds."""
    time.sleep(1.1)
    write_page(folder / "page", [folder / "ana"])
    page.evaluate("lookForNews()")


def test_a_page_that_is_being_written_waits_for_its_runs(chromium, tmp_path):
    folder = write_run(tmp_path / "ana", STEPS)
    page_folder = tmp_path / "page"
    write_page(page_folder, [folder])
    whole = (page_folder / "data" / "runs.js").read_text()
    (page_folder / "data" / "runs.js").write_text(
        'finetuneMonitor.manifest({"format":1,"written":"","title":"","live":true,"metrics":[],"cells":[],'
        '"notes":["the page is being written"],"unreadable":[],"runs":[],"sweep":null});'
    )
    with opened(chromium, page_folder) as page:
        assert page.inner_text("#overview") == "The page is being written."
        assert not page.is_visible("#images")
        (page_folder / "data" / "runs.js").write_text(whole)
        until(page, "document.querySelectorAll('#gallery > li').length === 4")
        assert page.is_visible("#images")


def test_a_run_s_data_that_is_missing_is_said(chromium, tmp_path):
    write_page(tmp_path / "page", [write_run(tmp_path / "ana", STEPS)])
    for path in (tmp_path / "page" / "data").glob("*.js"):
        if path.name != "runs.js":
            path.unlink()
    with used_page(chromium) as (page, _):
        page.goto(f"{address(tmp_path / 'page')}/index.html")
        until(page, "page.charts")
        until(page, "document.querySelector('#images-state').textContent.includes('Cannot load')")
        assert page.locator("#gallery > li").count() == 4


def test_without_its_manifest_the_page_says_what_is_missing(chromium, tmp_path):
    write_page(tmp_path / "page", [write_run(tmp_path / "ana", STEPS)])
    (tmp_path / "page" / "data" / "runs.js").unlink()
    with used_page(chromium) as (page, _):
        page.goto(f"{address(tmp_path / 'page')}/index.html")
        page.wait_for_selector("#trouble:not([hidden])")
        assert "data/runs.js is missing" in page.inner_text("#trouble")


def test_without_the_charts_the_numbers_remain(chromium, tmp_path):
    write_page(tmp_path / "page", [write_run(tmp_path / "ana", STEPS)])
    (tmp_path / "page" / "plotly.min.js").unlink()
    with used_page(chromium) as (page, _):
        page.goto(f"{address(tmp_path / 'page')}/index.html")
        until(page, "document.querySelector('#charts').textContent.includes('Cannot draw')")
        assert "0.615" in page.inner_text("#charts tbody")


def test_an_unreadable_run_stands_beside_the_others(chromium, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    assert GRID.cells[0].prompt == OTHER_GRID.cells[0].prompt
    folders = [write_run(tmp_path / name, STEPS) for name in ("a", "b")]
    write_page(tmp_path / "page", [*folders, tmp_path / "broken"])
    with opened(chromium, tmp_path / "page") as page:
        until(page, PAIRED)
        assert page.inner_text("#pairs-state") == "4 pairs with the same prompt and seed."
        assert "broken could not be read" in page.inner_text("#remarks")


def test_fifty_runs_stay_legible_and_quick(chromium, tmp_path):
    small = OTHER_GRID.__class__([PLAIN], seeds=(0,), steps=3)
    folders = [
        write_run(tmp_path / f"run{n:02d}", {0: 0.1, 50: 0.2 + n / 100}, small, {"seed": n}) for n in range(MANY)
    ]
    write_page(tmp_path / "page", folders)
    with opened(chromium, tmp_path / "page") as page:
        traces = "document.querySelector('#charts .plot').data"
        assert page.evaluate(f"{traces}.filter((trace) => trace.fill).length") == 1
        assert page.evaluate(f"{traces}.filter((trace) => trace.customdata).length") == MANY
        page.fill("#runs input[type=search]", "run1")
        assert page.locator("#runs tbody tr:visible").count() == 10
        page.click("text=Show none")
        assert page.evaluate(f"{traces}.filter((trace) => trace.customdata).length") == MANY - 10
        changed(page, "")
        assert page.evaluate("document.activeElement.matches('#runs button')")
        page.fill("#runs input[type=search]", "")
        box = "document.querySelector('#runs .runs')"
        page.evaluate(f"{box}.scrollTop = 200")
        changed(page, "")
        assert page.evaluate("document.activeElement.type") == "search"
        assert page.evaluate(f"{box}.scrollTop") == 200
        page.get_by_label("run07 in the charts").focus()
        scrolled = page.evaluate(f"{box}.scrollTop")
        changed(page, "")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "run07 in the charts"
        assert page.evaluate(f"{box}.scrollTop") == scrolled
        page.click("text=Show none")
        assert choices(page)["hidden"] == "all"
        page.click("text=Show all")
        started = time.monotonic()
        page.evaluate("chooseEvaluation(page.manifest.runs[30], 0)")
        assert time.monotonic() - started < 2
        until(page, "document.querySelector('#images-state').textContent.startsWith('run30, step 0')")
        loaded = page.evaluate("page.loading.size")
        assert loaded <= 4, "a run's images are loaded when they are needed"


def test_images_at_full_quality_stand_below_those_of_their_step(chromium, tmp_path):
    run = Recording(tmp_path / "ana")
    for step, score in STEPS.items():
        run.add(step, score)
    images = tuple(ScoredImage(cell, None, {"face_similarity": 0.52}) for cell in run.record.grid.cells)
    full = Evaluation(50, None, 0.0, summarize(images, {}), images)
    run.record.add_full_quality(full, [color(1, cell.index) for cell in run.record.grid.cells])
    run.end()
    write_page(tmp_path / "page", [tmp_path / "ana"])
    with opened(chromium, tmp_path / "page") as page:
        shown = page.locator("#peek .full-quality")
        shown.locator("img").nth(3).wait_for()
        assert "face similarity 0.520" in shown.inner_text()
        page.locator("#step-later").click()
        shown.wait_for(state="detached")
