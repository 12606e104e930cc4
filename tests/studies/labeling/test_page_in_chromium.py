"""The labeling page in a real Chromium: rating, undoing, resuming, and never losing an answer."""

import csv
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from skimage.data import astronaut

from finetune_monitor.base.csv_files import plain_cell
from finetune_monitor.base.files import sha256
from finetune_monitor.serving.access import Access
from finetune_monitor.studies.labeling.images import open_gallery
from finetune_monitor.studies.labeling.questions import ordered
from finetune_monitor.studies.labeling.ratings import RATING_COLUMNS, Rating
from finetune_monitor.studies.labeling.serving import make_app
from finetune_monitor.studies.labeling.standalone import write_standalone
from finetune_monitor.studies.labeling.storage import RATINGS, RatingStore
from finetune_monitor.studies.labeling.tasks import LabelingPlan, Task, write_plan
from support.browser import PHONE, opened_page
from support.label_plans import AESTHETIC, SECRETS, SIMILARITY, opaque, write_small_plan
from support.served import served_app

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)>"

READY = "shownAt !== null && performance.now() - shownAt > 160"


class Ratings:
    """What a server has stored."""

    def __init__(self, folder):
        self.folder, self.store = folder, RatingStore(folder / RATINGS)

    def labels(self, labeler="anna"):
        return [(rating.image_id, rating.label) for rating in self.store.all() if rating.labeler == labeler]

    def wait_for(self, count):
        until(lambda: len(self.store.all()) >= count)
        return self.store.all()


class Server(Ratings):
    """The command `label serve` on one port, which may be killed and started again."""

    def __init__(self, folder, *arguments):
        super().__init__(folder)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.arguments, self.process = arguments, None
        self.url = f"http://127.0.0.1:{self.port}/"

    def start(self):
        command = [sys.executable, "-m", "finetune_monitor.cli", "label", "serve", str(self.folder)]
        command += ["--port", str(self.port), *self.arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return "".join(self.process.stdout.readline() for _ in range(3))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@contextmanager
def serving(folder):
    """The real server, which is not to be killed."""
    ratings = Ratings(folder)
    ratings.store.create()
    app = make_app(open_gallery(folder), ratings.store, Access(("127.0.0.1",)))
    with served_app(app) as port:
        ratings.url = f"http://127.0.0.1:{port}/"
        yield ratings


@pytest.fixture
def plan(tmp_path):
    return write_small_plan(tmp_path / "plan", images=5)


@pytest.fixture
def server(plan, tmp_path):
    with serving(tmp_path / "plan") as started:
        yield started


@pytest.fixture
def mortal(plan, tmp_path):
    """The command as a process of its own."""
    server = Server(tmp_path / "plan")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def page(chromium, server):
    """A page of its own; at the end nobody has complained, and nobody else was asked for anything."""
    with opened_page(chromium) as (opened, watched):
        yield opened
        assert watched.complaints == []
        assert {address for address in watched.addresses if not address.startswith(server.url)} == set()


def until(is_so, seconds=30):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.03)


def begin(page, url, name="anna", question=0):
    page.goto(url)
    page.locator(".card").nth(question).wait_for()
    page.fill("#name", name)
    page.locator(".card").nth(question).click()
    ready(page)


def ready(page):
    until(lambda: page.evaluate(READY))


def current(page):
    return page.evaluate("page.session.task.image_id")


def rate(page, *labels):
    """Answers by keys; what was shown, with its answer."""
    given = []
    for label in labels:
        ready(page)
        given.append((current(page), label))
        page.keyboard.press(str(label))
    return given


def text(page, selector):
    return page.locator(selector).inner_text()


def restart_page(page, url):
    page.goto(url)
    page.locator(".card").first.wait_for()


# ---- Rating


def test_keys_and_buttons_answer_and_the_end_leads_on(page, server, plan):
    begin(page, server.url)
    given = rate(page, 5, 1, 3)
    assert text(page, "#count") == "3 of 5"
    for label in (2, 4):
        ready(page)
        given.append((current(page), label))
        page.locator(".anchor").nth(label - 1).click()
    assert text(page, "#thanks") == "Thank you"
    until(lambda: text(page, "#saved") == "Saved")
    server.wait_for(5)
    assert server.labels() == given
    assert {image_id for image_id, _ in given} == {task.image_id for task in plan.tasks if task.metric == SIMILARITY}
    page.get_by_role("button", name="Continue with: Image quality").click()
    rate(page, 1, 2, 3, 4, 5)
    until(lambda: page.locator("#finished").is_visible())
    assert Counter(rating.metric for rating in server.wait_for(10)) == {SIMILARITY: 5, AESTHETIC: 5}
    page.locator("#home").click()
    until(lambda: page.locator(".figures").all_inner_texts() == ["5 of 5", "5 of 5"])


def test_a_finger_answers_on_a_phone(chromium, server):
    with opened_page(chromium, **PHONE) as (page, watched):
        page.goto(server.url)
        page.locator(".card").first.wait_for()
        page.fill("#name", "anna")
        page.locator(".card").first.tap()
        ready(page)
        given = [(current(page), 4)]
        page.locator(".anchor").nth(3).tap()
        server.wait_for(1)
        ready(page)
        page.locator(".photo").first.tap()
        assert page.locator("#enlarged img").is_visible()
        page.locator("#enlarged").tap()
        assert not page.locator("#enlarged img").is_visible()
        assert server.labels() == given
        assert watched.complaints == []


def test_undo_shows_the_former_answer_and_the_new_one_is_a_new_row(page, server):
    begin(page, server.url)
    first, second = rate(page, 5, 2)
    ready(page)
    front = current(page)
    page.keyboard.press("Backspace")
    ready(page)
    assert current(page) == second[0]
    assert page.locator('.anchor[aria-pressed="true"]').inner_text().startswith("2")
    assert "Your answer was 2" in text(page, "#hint")
    page.keyboard.press("ArrowLeft")
    ready(page)
    assert current(page) == first[0]
    assert page.locator("#undo").is_disabled()
    page.keyboard.press("ArrowRight")
    ready(page)
    assert current(page) == second[0]
    page.locator("#forward").click()
    ready(page)
    assert current(page) == front
    page.keyboard.press("u")
    assert rate(page, 4) == [(second[0], 4)]
    ready(page)
    assert current(page) == front
    assert text(page, "#count") == "2 of 5"
    server.wait_for(3)
    assert server.labels() == [first, second, (second[0], 4)]


def test_undo_goes_back_to_the_answer_given_last_and_the_arrows_walk_the_order(page, server):
    begin(page, server.url)
    skipped = current(page)
    page.evaluate("page.session.skip(); showTask()")
    first, second = rate(page, 5, 2)
    ready(page)
    page.evaluate("page.session.unskip(); showTask()")
    [last] = rate(page, 3)
    assert last == (skipped, 3)
    shown = []
    for key in ("u", "u", "u", "ArrowLeft", "ArrowRight", "ArrowRight"):
        ready(page)
        page.keyboard.press(key)
        ready(page)
        shown.append(current(page))
    assert shown == [skipped, second[0], first[0], skipped, first[0], second[0]]


def test_only_keys_of_the_page_are_held_back_while_they_repeat(page, server):
    begin(page, server.url)
    page.evaluate("taken = {}; addEventListener('keydown', event => taken[event.key] = event.defaultPrevented)")
    page.locator(".anchor").nth(1).focus()
    for key in ("Tab", "ArrowDown", "PageDown", "Enter", " ", "ArrowLeft", "u", "3"):
        page.evaluate(
            "key => document.activeElement.dispatchEvent("
            "new KeyboardEvent('keydown', {key, repeat: true, bubbles: true, cancelable: true}))",
            key,
        )
    taken = page.evaluate("taken")
    assert [key for key, is_taken in taken.items() if not is_taken] == ["Tab", "ArrowDown", "PageDown"]
    assert text(page, "#count") == "0 of 5"


def test_an_answer_counts_once_and_only_when_the_image_is_seen(page, server):
    begin(page, server.url)
    box = page.locator(".anchor").nth(2).bounding_box()
    page.mouse.dblclick(box["x"] + 20, box["y"] + 20, delay=170)
    ready(page)
    for _ in range(50):
        page.keyboard.down("4")  # as a held key repeats
    page.keyboard.up("4")
    ready(page)
    page.evaluate("showTask(); answer(1, SOON)")
    for key in ("6", "Control+1", "Alt+2"):
        ready(page)
        page.keyboard.press(key)
    rate(page, 5)
    server.wait_for(3)
    assert [label for _, label in server.labels()] == [3, 4, 5]


def test_time_counts_while_the_tab_is_visible(page, server):
    begin(page, server.url)
    started = time.monotonic()
    turn = (
        "hidden => {Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))}"
    )
    page.evaluate(turn, True)
    time.sleep(0.5)
    page.evaluate(turn, False)
    seen = time.monotonic() - started - 0.5
    rate(page, 3)
    [rating] = server.wait_for(1)
    assert 100 <= rating.duration_ms < (seen + 0.4) * 1000


def test_likeness_shows_photos_and_quality_none(page, server):
    begin(page, server.url)
    assert page.locator(".photo img").count() == 3
    assert page.locator("#stage img").count() == 1
    assert page.locator(".anchor").all_inner_texts()[4].split("\n")[-1] == "The same person"
    page.locator(".photo").nth(1).click()
    page.keyboard.press("3")
    assert text(page, "#count") == "0 of 5"  # an answer would be counted at once
    page.keyboard.press("Escape")
    assert not page.locator("#enlarged").is_visible()
    page.go_back()
    page.locator(".card").nth(1).click()
    ready(page)
    assert page.locator(".photo").count() == 0
    assert not page.locator("#photos").is_visible()
    assert text(page, "#ask") == "How good is this image?"


def test_two_labelers_have_orders_of_their_own_and_keep_them(chromium, server):
    orders = []
    for name in ("anna", "ben", "anna"):
        with opened_page(chromium) as (page, _):
            begin(page, server.url, name, question=1)
            orders.append(page.evaluate("page.session.tasks.map(task => task.image_id)"))
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_a_name_is_needed_first_and_remembered_after(page, server):
    page.goto(server.url)
    page.locator(".card").first.click()
    assert text(page, "#complaint") == "Please enter your name first."
    page.fill("#name", "x" * 61)
    page.keyboard.press("Enter")
    assert "at most 60" in text(page, "#complaint")
    page.fill("#name", "  Zoë   W ")
    page.keyboard.press("Enter")
    rate(page, 3)
    assert server.wait_for(1)[0].labeler == "Zoë W"
    page.evaluate("history.replaceState(null, '')")
    restart_page(page, server.url)
    assert page.input_value("#name") == "Zoë W"
    until(lambda: page.locator(".figures").first.inner_text() == "1 of 5")
    assert page.locator(".action").all_inner_texts() == ["Continue", "Start"]


def test_who_enters_the_name_of_another_is_told(chromium, server, plan):
    task = next(task for task in plan.tasks if task.metric == SIMILARITY)
    server.store.add("elsewhere", Rating(task.image_id, "ann", SIMILARITY, 4, "2026-01-02T03:04:05.678+00:00"))
    with opened_page(chromium) as (page, _):
        page.goto(server.url)
        page.fill("#name", "anna")
        until(lambda: page.evaluate("page.name") == "anna")
        assert text(page, "#known") == ""
        page.fill("#name", "Ann")
        until(lambda: text(page, "#known").startswith("Continue as ann, who has rated 1 image."))
        page.locator(".card").first.click()
        rate(page, 2)
        assert text(page, "#count") == "2 of 5"
        assert server.wait_for(2)[-1].labeler == "ann"
        page.locator("#home").click()
        until(lambda: text(page, "#known") == "")  # now they are known here
        until(lambda: page.locator(".figures").first.inner_text() == "2 of 5")


def test_a_start_that_fails_is_told_and_tried_again(chromium, server):
    with opened_page(chromium) as (page, _):
        portal = {"body": "<h1>Log in</h1>", "content_type": "text/html"}
        page.context.route("**/api/questions*", lambda route: route.fulfill(**portal), times=1)
        page.goto(server.url)
        alert = page.locator("#questions").get_by_role("alert")
        alert.wait_for()
        assert "Something else responds" in alert.inner_text()
        assert page.evaluate("[...at('questions').children].map(each => each.tagName)") == ["LI"]
        page.get_by_role("button", name="Try again").click()
        page.locator(".card").first.wait_for()


def test_a_name_typed_again_does_not_ask_anew_in_the_midst(page, server):
    begin(page, server.url)
    page.reload()
    ready(page)
    page.go_back()
    begin(page, server.url)
    time.sleep(0.45)
    rate(page, 3)
    assert page.evaluate("page.questions.includes(page.session.question)")


def test_the_time_left_is_told_after_ten_answers(chromium, tmp_path):
    write_small_plan(tmp_path / "plan", images=13, metrics=(AESTHETIC,))
    with serving(tmp_path / "plan") as server, opened_page(chromium) as (page, _):
        begin(page, server.url)
        rate(page, *[3] * 9)
        assert text(page, "#left") == ""
        rate(page, 3)
        assert text(page, "#left") == "under a minute left"


# ---- Nothing is lost


def test_a_reload_goes_on_where_it_was(page, server):
    begin(page, server.url)
    given = rate(page, 2, 5)
    ready(page)
    shown = current(page)
    page.reload()
    ready(page)
    assert current(page) == shown
    assert text(page, "#count") == "2 of 5"
    server.wait_for(2)
    assert server.labels() == given


@pytest.fixture
def cut_off(chromium, mortal):
    """A page whose server was killed after the first of three answers, and the answers."""
    with opened_page(chromium) as (page, _):
        begin(page, mortal.url)
        given = rate(page, 1)
        mortal.wait_for(1)
        ready(page)
        mortal.kill()
        yield page, [*given, *rate(page, 2, 3)]


def test_a_killed_server_gets_every_answer_once(cut_off, mortal):
    page, given = cut_off
    until(lambda: text(page, "#saved") == "2 waiting, retrying")
    assert "does not respond" in text(page, "#notice")
    mortal.start()
    until(lambda: text(page, "#saved") == "Saved")
    assert not page.locator("#notice").is_visible()
    given += rate(page, 4)
    mortal.wait_for(4)
    assert mortal.labels() == given


def test_a_closed_tab_sends_its_answers_when_it_is_opened_again(cut_off, mortal):
    page, given = cut_off
    again = page.context.new_page()
    page.close()
    mortal.start()
    restart_page(again, mortal.url)
    until(lambda: again.locator(".figures").first.inner_text() == "3 of 5")
    mortal.wait_for(3)
    assert mortal.labels() == given


def test_an_answer_whose_receipt_got_lost_is_stored_once(chromium, server):
    with opened_page(chromium) as (page, _):
        begin(page, server.url)
        sent = []

        def lose(route):
            sent.append(route.fetch().status)  # the server has it
            route.abort()

        page.context.route("**/api/ratings", lose, times=1)
        given = rate(page, 4)
        until(lambda: text(page, "#saved") == "1 waiting, retrying")
        page.evaluate("page.source.send()")  # sooner than by itself
        until(lambda: text(page, "#saved") == "Saved")
        assert server.labels() == given
        assert sent == [204]


def test_what_the_server_cannot_keep_is_kept_in_the_browser(chromium, server):
    with opened_page(chromium) as (page, _):
        begin(page, server.url)
        given = rate(page, 4)
        server.wait_for(1)
        content = server.store.file.read_bytes()
        server.store.file.write_bytes(b"no database at all" * 100)
        given += rate(page, 2)
        until(lambda: "waiting" in text(page, "#saved"))
        assert "Contact whoever runs" in text(page, "#notice")
        server.store.file.write_bytes(content)
        page.evaluate("page.source.send()")  # sooner than by itself
        until(lambda: text(page, "#saved") == "Saved")
        assert server.labels() == given


STRANGERS = [
    {"status": 200, "body": "<h1>Log in to our network</h1>", "content_type": "text/html"},
    {"status": 400, "body": "Bad Request", "content_type": "text/html"},
    {"status": 403, "body": "Forbidden", "content_type": "text/html"},
]


def test_what_a_stranger_answers_is_no_receipt(chromium, server):
    with opened_page(chromium) as (page, _):
        begin(page, server.url)
        answered, stranger = [], STRANGERS[0]

        def answer(route):
            answered.append(stranger)
            route.fulfill(**stranger)

        page.context.route("**/api/ratings", answer)
        given = rate(page, 4)
        for stranger in STRANGERS:
            page.evaluate("page.source.send()")  # sooner than by itself
            until(lambda each=stranger: each in answered and text(page, "#saved") == "1 waiting, retrying")
            assert text(page, "#notice").startswith("Something else responds in the server's place.")
        page.context.unroute("**/api/ratings")
        page.evaluate("page.source.send()")
        until(lambda: text(page, "#saved") == "Saved")
        assert server.labels() == given
        assert not page.locator("#notice").is_visible()


def test_at_the_end_saved_is_only_said_when_all_is_saved(chromium, server):
    with opened_page(chromium) as (page, _):
        begin(page, server.url)
        given = rate(page, 1, 2, 3, 4)
        until(lambda: text(page, "#saved") == "Saved")
        ready(page)
        given.append((current(page), 5))
        sent = []
        page.context.route("**/api/ratings", lambda route: sent.append(route), times=1)
        said = page.evaluate("[answer(5, 0), document.body.dataset.screen, at('saved').textContent]")
        assert said[1:] == ["finished", "Saving"]
        until(lambda: page.title() and sent)  # Playwright hands a request over only when it is called
        sent[0].continue_()
        until(lambda: text(page, "#saved") == "Saved")
        assert server.labels() == given


def test_a_refused_answer_is_asked_again_and_holds_up_no_other(chromium, server):
    with opened_page(chromium) as (page, _):
        begin(page, server.url)
        refusal = {"status": 422, "body": "No such image.", "content_type": "text/plain"}
        page.context.route("**/api/ratings", lambda route: route.fulfill(**refusal), times=1)
        [(refused, _)] = rate(page, 4)
        until(lambda: "will be shown again. No such image." in text(page, "#notice"))
        assert text(page, "#count") == "0 of 5"
        given = rate(page, 5)
        until(lambda: not page.locator("#notice").is_visible())
        given += rate(page, 1, 2, 3, 4)
        until(lambda: page.locator("#finished").is_visible())
        assert refused in dict(given)
        assert len(given) == len(dict(given)) == 5
        assert len(server.wait_for(5)) == 5
        assert server.labels() == given


def test_answers_to_another_plan_are_kept_until_it_is_back(chromium, server):
    with opened_page(chromium) as (page, _):
        begin(page, server.url)
        asked = page.evaluate("[page.source.plan, page.source.plan = 'other'][0]")
        given = rate(page, 4)
        until(lambda: "serves a different plan" in text(page, "#notice"))
        assert "reload it" in text(page, "#notice")
        assert text(page, "#saved") == "1 waiting, retrying"
        page.evaluate("asked => { page.source.plan = asked; page.source.send() }", asked)
        until(lambda: text(page, "#saved") == "Saved")
        assert server.labels() == given


def test_an_answer_that_waited_has_the_time_when_it_was_given(chromium, server):
    with opened_page(chromium) as (page, _):
        begin(page, server.url)
        page.context.set_offline(True)
        [(again, _)] = rate(page, 4)
        page.evaluate("page.source.journal.moments.forEach((_, key, all) => all.set(key, all.get(key) - 3600e3))")
        page.evaluate("Date.now = () => 0")  # the clock of the tab is not asked
        half_an_hour_ago = (datetime.now(timezone.utc) - timedelta(minutes=30)).isoformat(timespec="milliseconds")
        server.store.add("from-elsewhere", Rating(again, "anna", SIMILARITY, 5, half_an_hour_ago))
        page.context.set_offline(False)
        found = server.wait_for(2)[-1]
        age = datetime.now(timezone.utc) - datetime.fromisoformat(found.timestamp)
        assert 3600 <= age.total_seconds() < 3630
        assert server.store.latest("anna") == {(SIMILARITY, again): 5}


def test_two_tabs_of_one_labeler_lose_nothing(chromium, server):
    with opened_page(chromium) as (one, _):
        begin(one, server.url)
        two = one.context.new_page()
        begin(two, server.url)
        one.context.set_offline(True)
        given = []
        for page, *labels in ((one, 1), (two, 2, 3), (one, 4)):
            page.bring_to_front()
            given += rate(page, *labels)
        until(lambda: "waiting" in text(one, "#saved"))
        one.context.set_offline(False)
        server.wait_for(4)
        for page in (one, two):
            until(lambda page=page: text(page, "#saved") == "Saved")
        assert sorted(server.labels()) == sorted(given)
        assert [label for _, label in server.labels()] == [1, 2, 3, 4]


def test_an_answer_in_another_tab_is_seen_in_this_one(chromium, server):
    with opened_page(chromium) as (one, _):
        begin(one, server.url)
        two = one.context.new_page()
        begin(two, server.url)
        [(first, _)] = rate(two, 2)
        until(lambda: current(one) != first)
        assert current(one) == current(two)
        assert text(one, "#count") == "1 of 5"
        one.keyboard.press("ArrowLeft")
        ready(one)
        two.keyboard.press("u")
        assert rate(two, 5) == [(first, 5)]
        until(lambda: "Your answer was 5." in text(one, "#hint"))
        assert current(one) == first
        assert one.locator('.anchor[aria-pressed="true"]').inner_text().startswith("5")


FORBIDDEN = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }})"

FULL = """
for (let size = 1 << 22; size >= 1; size >>= 1) {
  try { for (;;) localStorage.setItem("x" + Math.random(), "x".repeat(size)) } catch { continue }
}
"""


@pytest.mark.parametrize("trouble", [FORBIDDEN, FULL], ids=["forbidden", "full"])
def test_without_the_browsers_storage_it_works_with_a_warning(chromium, server, trouble):
    with opened_page(chromium) as (page, _):
        page.add_init_script(trouble)
        begin(page, server.url)
        given = rate(page, 3)
        server.wait_for(1)
        ready(page)
        page.context.set_offline(True)
        given += rate(page, 5, 1)
        until(lambda: "leave the page open" in text(page, "#notice"))
        assert text(page, "#saved") == "2 waiting, retrying"
        page.context.set_offline(False)
        server.wait_for(3)
        assert server.labels() == given


def test_an_image_that_does_not_load_is_tried_again_or_skipped(chromium, server):
    with opened_page(chromium) as (page, _):
        page.context.route("**/images/**", lambda route: route.abort())
        page.goto(server.url)
        page.fill("#name", "anna")
        page.locator(".card").nth(1).click()
        page.get_by_text("Cannot load").wait_for()
        page.keyboard.press("3")
        skipped = current(page)
        page.context.unroute("**/images/**")
        page.context.route(f"**/{skipped}", lambda route: route.abort())
        page.get_by_role("button", name="Try again").click()
        page.get_by_text("Cannot load").wait_for()
        page.get_by_role("button", name="Skip").click()
        for _ in range(4):
            until(lambda: page.evaluate(READY) or page.locator(".failure").is_visible())
            if page.locator(".failure").is_visible():
                page.get_by_role("button", name="Try again").click()
            rate(page, 2)
        until(lambda: "1 of 5 images cannot be shown" in text(page, "#summary"))
        page.context.unroute(f"**/{skipped}")
        page.get_by_role("button", name="Try them again").click()
        assert rate(page, 4) == [(skipped, 4)]
        server.wait_for(5)
        assert Counter(label for _, label in server.labels()) == {2: 4, 4: 1}
        assert "All 5 images" in text(page, "#summary")


# ---- What it looks like, and what it tells


@pytest.mark.parametrize("size", [(320, 480), (360, 640), (640, 360), (768, 1024), (1280, 800), (1920, 1080)])
def test_everything_to_answer_with_is_in_view(chromium, server, size):
    settings = PHONE if size[0] < 700 else {}
    viewport = {"width": size[0], "height": size[1]}
    with opened_page(chromium, **{**settings, "viewport": viewport}) as (page, _):
        begin(page, server.url)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.evaluate("document.documentElement.scrollHeight") <= size[1]
        shown = [*page.locator(".anchor").all(), *page.locator(".photo").all(), page.locator("#undo")]
        shown += [page.locator(each) for each in ("#stage img", "#ask", "#hint", "#saved")]
        for each in shown:
            assert each.is_visible()
            box = each.bounding_box()
            assert box["x"] >= 0
            assert box["y"] >= 0
            assert box["x"] + box["width"] <= size[0]
            assert box["y"] + box["height"] <= size[1]
        assert all(each.bounding_box()["height"] >= 36 for each in page.locator(".anchor").all())
        assert page.locator("#stage img").bounding_box()["height"] >= (200 if size[0] > 320 else 170)


def test_a_window_too_low_for_everything_scrolls(chromium, server):
    size = {"width": 320, "height": 256}
    with opened_page(chromium, **{**PHONE, "viewport": size}) as (page, _):
        begin(page, server.url)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        for each in [*page.locator("#stage img, #ask, #hint, .anchor").all(), page.locator("#undo")]:
            each.scroll_into_view_if_needed()
            box = each.bounding_box()
            assert box["height"] >= (100 if each.evaluate("each => each.tagName") == "IMG" else 16)
            assert 0 <= box["y"] <= size["height"] - box["height"]
        page.locator(".anchor").nth(2).tap()
        ready(page)
        assert page.locator("#stage img").bounding_box()["y"] >= 0  # the next image is in view


def test_everything_has_a_name_for_who_cannot_see_it(page, server):
    begin(page, server.url)
    names = page.evaluate(
        "[...document.querySelectorAll('button')].filter(each => each.checkVisibility())"
        ".map(each => each.getAttribute('aria-label') ?? each.textContent.trim())"
    )
    assert len(names) == 10
    assert all(names)
    assert page.get_by_role("button", name="5 The same person").is_visible()
    assert page.locator("#stage img").get_attribute("alt") == "The image to rate"
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_hostile_names_and_questions_are_only_words(chromium, tmp_path):
    write_small_plan(tmp_path / "plan", images=1, metrics=(HOSTILE,))
    with serving(tmp_path / "plan") as server, opened_page(chromium) as (page, watched):
        alerts = []
        page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
        begin(page, server.url, HOSTILE)
        assert HOSTILE in text(page, "#ask")
        assert text(page, "#me") == HOSTILE
        rate(page, 5)
        until(lambda: page.locator("#finished").is_visible())
        [rating] = server.wait_for(1)
        assert (rating.labeler, rating.metric) == (HOSTILE, HOSTILE)
        page.locator("#home").click()
        assert HOSTILE in text(page, ".card")
        assert page.locator('img[src="x"]').count() == 0
        assert alerts == watched.complaints == []


def test_nothing_that_reaches_the_browser_tells_anything(chromium, tmp_path):
    plan = write_small_plan(tmp_path / "plan", images=4, repeats=1)
    with serving(tmp_path / "plan") as server, opened_page(chromium) as (page, watched):
        bodies = []
        page.context.on("requestfinished", lambda request: bodies.append(request.response()))
        begin(page, server.url)
        rate(page, 1, 2, 3, 4, 5)
        until(lambda: page.locator("#finished").is_visible())
        server.wait_for(5)
        everything = [page.content().encode(), page.evaluate("JSON.stringify(localStorage)").encode()]
        for response in bodies:
            body = response.body() if response.status == 200 else b""
            everything += [response.url.encode(), json.dumps(response.all_headers()).encode(), body]
            if body.startswith(b"\xff\xd8"):
                assert not Image.open(io.BytesIO(body)).getexif()
        assert len(bodies) > 20
        secrets = [*SECRETS, str(tmp_path), *(task.file.name for task in plan.tasks), "repeat_of", "sha256"]
        assert not [secret for secret in secrets for each in everything if secret.encode() in each]
        assert watched.complaints == []


def test_the_key_leaves_the_address_and_the_page_stays_open(chromium, plan, tmp_path):
    with opened_page(chromium) as (page, watched):
        server = Server(tmp_path / "plan", "--host", "0.0.0.0")
        key = re.search(r"\?key=\S+", server.start())[0]
        try:
            begin(page, f"{server.url}{key}")
            assert page.url == server.url
            given = rate(page, 2)
            page.reload()
            ready(page)
            given += rate(page, 3)
            server.wait_for(2)
            assert server.labels() == given
            assert "key" not in page.evaluate("document.cookie")
            assert watched.complaints == []
            with pytest.raises(urllib.error.HTTPError, match="403"):  # it is the cookie that keeps it open
                urllib.request.urlopen(server.url, timeout=5)
        finally:
            server.kill()


def photograph(chromium, file):
    """The README's image: the question of likeness, in the midst of it, with crops of one public photo."""
    folder = file.parent / "astronaut"
    write_plan(folder / "plan", astronaut_plan(folder))
    size = {"width": 1280, "height": 800}
    with serving(folder / "plan") as server, opened_page(chromium, viewport=size) as (page, watched):
        begin(page, server.url, "Anna")
        rate(page, *[4, 5, 3] * 5)
        ready(page)
        page.evaluate("page.session.durations.fill(4500); showProgress()")  # as a person takes
        page.locator(".anchor").nth(3).hover()
        until(lambda: text(page, "#saved") == "Saved")
        time.sleep(0.5)  # the last answer's flash is over
        page.screenshot(path=file)
        assert watched.complaints == []


def astronaut_plan(folder):
    """64 images that look alike, and six photos."""
    folder.mkdir(parents=True)
    whole = Image.fromarray(astronaut())
    boxes = [(110, 0, 340, 230), (60, 0, 410, 350), (130, 20, 310, 200), (90, 0, 350, 260), (0, 0, 512, 512)]
    photos = [whole.crop(box).resize((512, 512), Image.Resampling.LANCZOS) for box in boxes]
    photos.append(ImageOps.grayscale(photos[0]).convert("RGB"))
    painted = ImageOps.mirror(whole.crop((30, 0, 430, 400))).resize((512, 512), Image.Resampling.LANCZOS)
    painted = ImageEnhance.Color(painted.filter(ImageFilter.ModeFilter(5))).enhance(1.15)
    for name, image in [*((f"photo {number}", photo) for number, photo in enumerate(photos)), ("painted", painted)]:
        image.save(folder / f"{name}.png")
    file, digest = folder / "painted.png", sha256(folder / "painted.png")
    tasks = tuple(Task(opaque(str(number)), SIMILARITY, "astronaut", file, digest) for number in range(64))
    return LabelingPlan(tasks, {"astronaut": tuple(sorted(folder.glob("photo *.png")))}, 0)


def test_the_readmes_image_can_be_made(chromium, tmp_path):
    photograph(chromium, tmp_path / "label_page.png")
    with Image.open(tmp_path / "label_page.png") as found:
        assert found.size == (1280, 800)


# ---- The page as a file


@pytest.fixture
def standalone(tmp_path):
    plan = write_small_plan(tmp_path / "plan", images=5, repeats=1)
    write_standalone(tmp_path / "page with spaces.html", open_gallery(tmp_path / "plan"), [SIMILARITY, AESTHETIC])
    return plan, (tmp_path / "page with spaces.html").as_uri()


def downloaded(page, selector):
    with page.expect_download() as waiting:
        page.locator(selector).click()
    read = csv.DictReader(io.StringIO(Path(waiting.value.path()).read_bytes().decode()))
    rows = [{name: plain_cell(cell) for name, cell in row.items()} for row in read]
    assert tuple(rows[0]) == RATING_COLUMNS
    return [Rating(**{**row, "label": int(row["label"]), "duration_ms": int(row["duration_ms"])}) for row in rows]


def test_the_file_alone_gives_what_was_pressed(chromium, standalone):
    plan, url = standalone
    with opened_page(chromium, offline=True) as (page, watched):
        begin(page, url)
        given = rate(page, 5, 4)
        page.keyboard.press("Backspace")
        given += rate(page, 1)
        early = downloaded(page, "#bar .download")
        assert [(rating.image_id, rating.label) for rating in early] == given
        page.reload()
        given += rate(page, 1, 2, 3, 4)
        until(lambda: page.locator("#finished").is_visible())
        page.get_by_role("button", name="Continue with").click()
        given += rate(page, 5, 4, 3, 2, 1, 5)
        found = downloaded(page, "#onward .main")
        assert [(rating.image_id, rating.label) for rating in found] == given
        assert {rating.labeler for rating in found} == {"anna"}
        assert all(rating.metric == plan.by_id[rating.image_id].metric for rating in found)
        times = [rating.timestamp for rating in found]
        assert times == sorted(times)
        assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", each) for each in times)
        assert watched.complaints == []
        assert {address.split(":")[0] for address in watched.addresses} <= {"file", "data", "blob"}


def test_the_file_works_where_a_page_has_no_address(chromium, standalone):
    """In a sandbox, as a mail program or a chat shows it, nothing is stored, and no history can be written."""
    with opened_page(chromium, offline=True) as (page, watched):
        page.goto("about:blank")
        content = Path(url2pathname(urlsplit(standalone[1]).path)).read_text(encoding="utf-8")
        page.evaluate(
            """content => {
              const frame = document.createElement("iframe");
              frame.sandbox = "allow-scripts";
              frame.srcdoc = content;
              document.body.append(frame);
            }""",
            content,
        )
        frame = page.frame_locator("iframe")
        frame.locator("#name").fill("anna")
        frame.locator(".card").first.click()
        frame.locator("#stage img").wait_for()
        frame.locator("#home").click()
        frame.locator(".card").first.wait_for()
        assert watched.complaints == []


def test_the_file_takes_a_name_in_other_letters_for_the_same(chromium, standalone):
    with opened_page(chromium, offline=True) as (page, _):
        begin(page, standalone[1], "anna")
        given = rate(page, 5)
        page.go_back()
        page.fill("#name", "ANNA")
        page.locator(".card").first.click()
        given += rate(page, 4)
        found = downloaded(page, "#bar .download")
        assert [(each.labeler, each.image_id, each.label) for each in found] == [("anna", *each) for each in given]


@pytest.mark.parametrize("name", ['=HYPERLINK("x"), "Zoë" 写真', HOSTILE])
def test_any_name_survives_the_csv(chromium, standalone, name):
    with opened_page(chromium, offline=True) as (page, watched):
        begin(page, standalone[1], name)
        given = rate(page, 2)
        [found] = downloaded(page, "#bar .download")
        assert (found.labeler, found.image_id, found.label) == (name, *given[0])
        assert watched.complaints == []


def test_the_file_asks_in_the_same_order_as_the_server(chromium, standalone):
    plan, url = standalone
    names = ["anna", "ben", "Zoë 写真 🙂", HOSTILE, ""]
    with opened_page(chromium, offline=True) as (page, _):
        page.goto(url)
        for name in names:
            for metric in plan.metrics:
                expected = [t.image_id for t in ordered([t for t in plan.tasks if t.metric == metric], plan.seed, name)]
                ask = (
                    "async ([name, metric]) => (await page.source.load(name)).questions"
                    ".find(each => each.metric === metric).tasks.map(task => task.image_id)"
                )
                assert page.evaluate(ask, [name, metric]) == expected
        for images, repeats in [(1, 0), (1, 1), (2, 2), (3, 1), (9, 9), (30, 0), (40, 40), (200, 10)]:
            names = [*map(str, range(images)), *(f"{number} again" for number in range(repeats))]
            tasks = [task_of(name) for name in names]
            plain = [{"image_id": task.image_id, "image": task.repeat_of or task.image_id} for task in tasks]
            ask = "tasks => ordered(tasks, 7, 'aesthetic', 'anna').map(task => task.image_id)"
            assert page.evaluate(ask, plain) == [task.image_id for task in ordered(tasks, 7, "anna")]


def task_of(name):
    original, _, again = name.partition(" ")
    return Task(name, AESTHETIC, "p", Path("f"), "s", repeat_of=original if again else None)


def test_the_file_keeps_plans_and_labelers_apart(chromium, standalone, tmp_path):
    _, url = standalone
    write_small_plan(tmp_path / "other" / "plan", images=5, repeats=1, seed=1)
    write_standalone(tmp_path / "other.html", open_gallery(tmp_path / "other" / "plan"), [AESTHETIC])
    with opened_page(chromium, offline=True) as (page, _):
        begin(page, url)
        rate(page, 5, 4)
        page.go_back()
        page.fill("#name", "ben")
        until(lambda: page.locator(".figures").first.inner_text() == "0 of 6")
        assert not page.locator("#start .download").is_visible()
        begin(page, (tmp_path / "other.html").as_uri())
        assert text(page, "#count") == "0 of 6"
        restart_page(page, url)
        until(lambda: page.locator(".figures").first.inner_text() == "2 of 6")


def test_the_file_warns_where_the_browser_keeps_nothing(chromium, standalone):
    with opened_page(chromium, offline=True) as (page, _):
        page.add_init_script(FORBIDDEN)
        begin(page, standalone[1])
        given = rate(page, 5, 4)
        assert "download them before you leave" in text(page, "#notice")
        assert [(rating.image_id, rating.label) for rating in downloaded(page, "#bar .download")] == given
