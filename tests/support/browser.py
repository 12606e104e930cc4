"""A real Chromium for tests of pages; where there is none, tests that use it are skipped or, in `.ci/run`, fail."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from support import needs

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first one has no user interface to draw, and takes two thirds of the time."""

REQUIRED = "REQUIRE_CHROMIUM"
"""The environment variable by which a missing browser is a failure."""

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

PHONE = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


@contextmanager
def started_chromium() -> Iterator[Any]:
    """Playwright's `Browser`; every test opens contexts of its own in it."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        missing = pytest.fail if os.environ.get(REQUIRED) else pytest.skip
        missing(needs.CHROMIUM)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(QUIET))
        try:
            yield browser
        finally:
            browser.close()


def until(page: Any, condition: str) -> None:
    """Wait for an expression; Playwright's own way of waiting needs an eval, which the page's policy forbids."""
    for _ in range(500):
        if page.evaluate(f"Boolean({condition})"):
            return
        page.wait_for_timeout(20)
    raise AssertionError(condition)


@dataclass
class Watched:
    """What the pages of a context did: complaints on the console, the addresses asked for, and what came back."""

    complaints: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    responses: list[Any] = field(default_factory=list)


@contextmanager
def opened_page(browser: Any, **settings: Any) -> Iterator[tuple[Any, Watched]]:
    """A page in a context of its own, as private as a new user, and what is seen of it."""
    context = browser.new_context(**settings)
    context.set_default_timeout(10_000)
    watched = Watched()
    watch(context, watched)
    try:
        yield context.new_page(), watched
    finally:
        context.close()


def watch(context: Any, watched: Watched) -> None:
    """Write down what every page of the context does from now on."""
    context.on("console", lambda line: watched.complaints.append(line.text) if line.type in ("error", "warning") else 0)
    context.on("weberror", lambda error: watched.complaints.append(str(error.error)))
    context.on("request", lambda request: watched.addresses.append(request.url))
    context.on("response", lambda response: watched.responses.append(response))
