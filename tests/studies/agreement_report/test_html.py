"""The page in a real Chromium: it keeps to its own policy, fits a phone, and its words can be read."""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune_monitor.studies.agreement.label_matrix import describe_labelers
from finetune_monitor.studies.agreement.study import ReportSection, study
from finetune_monitor.studies.agreement_report.files import write_report
from support.browser import PHONE, opened_page
from support.worlds import guesses, sample, truth

pytestmark = pytest.mark.slow

LONG = "a_labeler_whose_name_has_no_place_to_break_" * 4


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """Two metrics, one of them refused, with images, many labelers and hostile names."""
    folder, random = tmp_path_factory.mktemp("report"), np.random.default_rng(0)
    labels = np.stack([guesses(truth(images=60), 0.3, random) for _ in range(12)])
    labels[:, 3] = np.nan
    labels[0, 3] = 2
    names = [LONG, "<script>document.title = 'owned'</script>", *(f"person {i}" for i in range(10))]
    image = folder / "image.jpg"
    Image.effect_mandelbrot((300, 200), (-3, -2.5, 2, 2.5), 50).convert("RGB").save(image)
    sections = []
    for metric, sign in (("face_similarity", 1), ("aesthetic", -1)):
        scores = sign * (guesses(truth(images=60), 0.3, random) + 0.01 * random.random(60))
        found = study(sample(labels, scores, 4, labelers=names, metric=metric), rounds=100)
        images = dict.fromkeys(found.sample.table.images, image)
        labelers = describe_labelers(found.sample.table)
        sections.append(ReportSection(found, labelers, ["A note."], images, {"3": "ana, step 300"}))
    write_report(folder, sections, {"file": "/somewhere/" + LONG})
    return folder / "report.html"


SCREENS = {"phone": PHONE, "desktop": {"viewport": {"width": 1280, "height": 900}}}


@pytest.mark.parametrize("screen", SCREENS)
def test_the_page_opens_alone_and_fits_the_screen(chromium, report, tmp_path, screen):
    alone = Path(shutil.copy(report, tmp_path / "moved.html"))
    with opened_page(chromium, java_script_enabled=True, **SCREENS[screen]) as (page, watched):
        page.goto(alone.as_uri())
        assert watched.complaints == []
        assert [address for address in watched.addresses if not address.startswith("data:")] == [alone.as_uri()]
        assert page.title().startswith("Do the scores agree with people?")
        sizes = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert sizes[0] <= sizes[1]
        images = page.locator("img")
        assert images.count() > 12
        assert images.evaluate_all("found => found.every(each => each.naturalWidth > 0 && each.alt)")


def test_the_first_screen_gives_the_answer(chromium, report):
    with opened_page(chromium, viewport={"width": 1280, "height": 900}) as (page, _):
        page.goto(report.as_uri())
        for index in (1, 2):
            box = page.locator(f"#verdict-{index}").bounding_box()
            assert box["y"] + box["height"] < 900
        assert page.locator(".verdict").nth(1).inner_text().count("gets no stars") == 1


def test_headings_are_in_order_and_every_table_has_a_caption(chromium, report):
    with opened_page(chromium) as (page, _):
        page.goto(report.as_uri())
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(each => +each.tagName[1])")
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        assert page.evaluate("[...document.querySelectorAll('table')].every(each => each.caption?.innerText)")
        assert page.evaluate(
            "[...document.querySelectorAll('svg')].every(each => each.ariaLabel || each.ariaHidden === 'true')"
        )
        targets = page.evaluate("[...document.querySelectorAll('a')].map(each => each.getAttribute('href'))")
        assert targets
        for target in targets:
            assert page.locator(target).count() == 1


CONTRASTS = """() => {
  const light = color => {
    const [r, g, b] = color.map(each => each / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const parsed = text => text.match(/[\\d.]+/g).map(Number)
  const behind = element => {
    const layers = []
    for (let each = element; each; each = each.parentElement) {
      const [r, g, b, alpha = 1] = parsed(getComputedStyle(each).backgroundColor)
      layers.push([r, g, b, alpha])
      if (alpha === 1) break
    }
    let found = layers.pop()
    for (const [r, g, b, a] of layers.reverse()) found = [r, g, b].map((c, i) => c * a + found[i] * (1 - a))
    return found.slice(0, 3)
  }
  const low = []
  const words = 'h1,h2,h3,h4,p,th,td,li,dt,dd,a,caption,figcaption,strong,.interval'
  for (const element of document.querySelectorAll(words)) {
    if (!element.innerText?.trim()) continue
    const style = getComputedStyle(element), back = behind(element)
    const front = parsed(style.color).slice(0, 3).map((c, i) => c * style.opacity + back[i] * (1 - style.opacity))
    const [a, b] = [light(front), light(back)]
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    if (contrast < 4.5) low.push(`${element.className} ${element.innerText.slice(0, 30)}: ${contrast.toFixed(2)}`)
  }
  return [...new Set(low)]
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(chromium, report, scheme):
    """The contrast of WCAG 2.1, level AA: 4.5."""
    with opened_page(chromium, color_scheme=scheme) as (page, _):
        page.goto(report.as_uri())
        assert page.evaluate(CONTRASTS) == []


def test_the_page_prints_in_light_colors_with_nothing_cut_off(chromium, report):
    with opened_page(chromium, color_scheme="dark", viewport={"width": 688, "height": 1000}) as (
        page,
        _,
    ):  # A4's inside
        page.goto(report.as_uri())
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        widest = page.evaluate("Math.max(...[...document.querySelectorAll('table')].map(each => each.scrollWidth))")
        assert widest <= 688
        assert page.pdf().startswith(b"%PDF")
