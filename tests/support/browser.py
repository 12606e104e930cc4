"""A real Chromium for tests of pages; where there is none, tests that use it are skipped or, in `.ci/run`, fail."""

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

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
    "--disable-features=ScriptStreaming,PaintHolding",
)
"""Script streaming compiles Plotly whenever a page is opened, also if it is compiled already. Naming it replaces
Playwright's list, of which these pages need paint holding."""

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
    end = time.monotonic() + 30
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)


@dataclass
class Watched:
    """What the pages of a context did: complaints on the console, the addresses asked for, and what came back."""

    complaints: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    responses: list[Any] = field(default_factory=list)


@contextmanager
def opened_page(browser: Any, **settings: Any) -> Iterator[tuple[Any, Watched]]:
    """A page in a context of its own, as private as a new user, and what is seen of it."""
    context = new_context(browser, **settings)
    try:
        with watching(context) as watched:
            yield context.new_page(), watched
    finally:
        context.close()


_USED: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
"""The pages of each browser that are used again, by the settings that a page cannot change."""

VIEWPORT = {"width": 1280, "height": 900}


@contextmanager
def used_page(browser: Any, **settings: Any) -> Iterator[tuple[Any, Watched]]:
    """The same for pages that keep nothing in the browser: a page that was used before with these settings.

    It has compiled the scripts already, which takes two thirds of the time that it takes to open a report.
    """
    viewport, scheme = settings.pop("viewport", VIEWPORT), settings.pop("color_scheme", "light")
    used, key = _USED.setdefault(browser, {}), repr(settings)
    if key not in used:
        used[key] = new_context(browser, viewport=viewport, **settings).new_page()
    page = used[key]
    page.goto("about:blank")
    page.mouse.move(0, 0)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(viewport)
    with watching(page.context) as watched:
        yield page, watched


def address(folder: Path) -> str:
    """An address of a folder until the next call, the same for all: what a page has compiled is kept by address."""
    link = _links() / "page"
    link.unlink(missing_ok=True)
    link.symlink_to(folder)
    return link.as_uri()


@cache
def _links() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="links"))
    atexit.register(shutil.rmtree, folder)
    return folder


def new_context(browser: Any, **settings: Any) -> Any:
    context = browser.new_context(**settings)
    context.set_default_timeout(10_000)
    return context


@contextmanager
def watching(context: Any) -> Iterator[Watched]:
    """Write down what every page of the context does."""
    seen = Watched()
    listeners = {
        "console": lambda line: seen.complaints.append(line.text) if line.type in ("error", "warning") else 0,
        "weberror": lambda error: seen.complaints.append(str(error.error)),
        "request": lambda request: seen.addresses.append(request.url),
        "response": lambda response: seen.responses.append(response),
    }
    for event, listener in listeners.items():
        context.on(event, listener)
    try:
        yield seen
    finally:
        for event, listener in listeners.items():
            context.remove_listener(event, listener)
