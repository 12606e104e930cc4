"""The live view in a real browser: a training is watched, held, evaluated, and stopped from its page."""

import re
import time
from collections.abc import Callable

import pytest

from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.history import read_run
from finetune_monitor.record.live import read_status
from support.browser import PHONE, opened_page
from support.runs import write_run
from support.watching import served, slow_training

pytestmark = pytest.mark.slow


def until(is_so: Callable[[], object], seconds: float = 30) -> float:
    """Wait for something; the seconds that it took."""
    start = time.monotonic()
    while not is_so():
        assert time.monotonic() - start < seconds
        time.sleep(0.02)
    return time.monotonic() - start


def test_a_training_is_watched_held_evaluated_and_stopped(chromium, forked, tmp_path):
    run = tmp_path / "runs/ana"
    write_run(tmp_path / "runs/ben", {0: 0.1, 300: 0.6, 600: 0.5}, StopReason.PLATEAU)
    training = forked(lambda: slow_training(run, seconds_an_image=1.0, every=40))
    training.until(lambda: (status := read_status(run)) and status.step > 0)
    with served(tmp_path / "runs", tmp_path / "pages") as link, opened_page(chromium) as (page, seen):
        page.goto(link)
        until(lambda: page.locator(".run").count() == 2)
        assert "key" not in page.url
        assert page.locator(".run .state").all_inner_texts() == ["Training", "Finished"]
        assert "Best: step 300: face_similarity 0.615" in page.locator(".run").nth(1).inner_text()
        page.get_by_role("link", name="ana").click()
        page.wait_for_selector("#title:not(:empty)")
        steps = "page.manifest.runs[0].steps"
        assert page.evaluate(steps)[0] == 0

        page.wait_for_selector(".strip-images li:nth-child(2) img", timeout=30_000)  # as they are rendered
        shown = re.match(r"Evaluating step (\d+): ", page.locator(".strip-evaluation").inner_text())
        assert shown
        step = int(shown[1])
        is_shown = "all => all.some((each) => each.naturalWidth === 32)"
        until(lambda: page.locator(".strip-images img").evaluate_all(is_shown))
        training.until(lambda: read_run(run).evaluations[-1].step == step)
        assert until(lambda: page.evaluate(steps)[-1] == step) < 2.5  # two seconds, on a busy machine
        until(lambda: page.locator(".strip-evaluation").is_hidden())

        page.get_by_role("button", name="Pause").click()
        until(lambda: page.locator(".strip-state").inner_text() == "Paused")
        held = read_status(run).step
        assert f"Step {held} of 3000" in page.locator(".strip").inner_text()
        page.get_by_role("button", name="Evaluate now").click()
        until(lambda: page.evaluate(steps)[-2:] == [step, held])
        until(lambda: page.locator(".strip-state").inner_text() == "Paused")
        assert page.get_by_role("button", name="Pause").count() == 0
        page.get_by_role("button", name="Resume").click()
        until(lambda: page.locator(".strip-state").inner_text() == "Training")
        training.until(lambda: read_status(run).step > held)

        page.once("dialog", lambda dialog: dialog.dismiss())
        page.get_by_role("button", name="Stop after this step").click()
        time.sleep(0.5)
        assert read_status(run) is not None
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Stop after this step").click()
        assert training.ends(20) == 0
        until(lambda: page.locator(".strip-state").inner_text() == "Finished")
        assert page.get_by_role("button", name="Stop after this step").count() == 0
        assert "It was stopped by request" in page.locator(".strip-note").inner_text()
        until(lambda: "it was stopped by request" in page.locator("#overview").inner_text())
        gone = [response.url for response in seen.responses if response.status == 404]
        assert all("/in_progress/" in url for url in gone), gone  # the evaluation ended while its images were fetched
        assert len(seen.complaints) == len(gone), seen.complaints
        page.get_by_role("link", name="All runs").click()
        until(lambda: page.locator(".run .state").all_inner_texts() == ["Finished", "Finished"])
    history = read_run(run)
    assert (history.reason, history.evaluations[-1].on_request) == (StopReason.REQUESTED, True)
    assert all(each.startswith(link.partition("?")[0]) for each in seen.addresses)


def test_a_single_run_opens_at_once_and_says_when_the_server_is_gone(chromium, tmp_path):
    write_run(tmp_path / "ben", {0: 0.1, 300: 0.6}, StopReason.PLATEAU)
    with served(tmp_path / "ben", tmp_path / "pages") as link, opened_page(chromium, **PHONE) as (page, seen):
        page.goto(link)
        page.wait_for_selector("#title:not(:empty)")
        assert "/runs/" in page.url
        assert page.get_by_role("link", name="All runs").count() == 0
        assert "The score no longer rises." in page.locator(".strip").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert seen.complaints == []
        page.context.set_offline(True)
        until(lambda: "No connection" in page.locator(".strip-trouble").inner_text())
        page.context.set_offline(False)
        until(lambda: page.locator(".strip-trouble").is_hidden())
