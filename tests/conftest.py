"""Shared fixtures: small random pipelines, photos, and the demo's real models.

They import what they need: xdist's first process, for which everything else waits, runs no test.
"""

import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import in_memory, preloaded
from support.forked import Child
from support.shapes import begin_test, check_shapes
from support.skips import skipped
from support.streams import Streams, order

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the cores are shared by test processes

check_shapes("finetune_monitor")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a script's background jobs have it, and their children
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Several workers share a preloaded Python, and keep their files in memory if there is room."""
    if getattr(config.option, "numprocesses", None):
        if in_memory.has_room():
            config.add_cleanup(in_memory.use())
        preloaded.share()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: order(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files stay together with `--dist loadfile`, and so do all files that mostly wait."""
    if config.getvalue("dist") == "loadfile":
        return Streams(config, log)
    return None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported stays, so the garbage collector need not look through it, and hardly through the rest."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)  # with Python's own, it takes an eighth of the time
        gc.enable()
        atexit.register(gc.unfreeze)  # otherwise, triton reports leaks at exit


def pytest_runtest_setup() -> None:
    begin_test()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A line for each thing that this machine lacks: how many tests need it, and how to get it."""
    for line in skipped(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line)


@pytest.fixture(scope="module", autouse=True)
def own_wandb_process() -> Iterator[None]:
    """wandb's own process ends with a test file: the next file may have another umask, or start programs."""
    yield
    if "WANDB_SERVICE" in os.environ:
        sys.modules["wandb"].teardown()


@pytest.fixture
def pipeline() -> Any:
    """The tiny Stable Diffusion."""
    from support import tiny

    return tiny.stable_diffusion()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline as a folder in diffusers layout."""
    from support import tiny

    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny.stable_diffusion().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny SDXL as a folder in diffusers layout."""
    from support import tiny

    folder = tmp_path_factory.mktemp("model") / "sdxl"
    tiny.sdxl().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP as a folder in open_clip's layout."""
    from support.heads import write_clip

    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three crops of the astronaut's photo."""
    from PIL import Image
    from skimage.data import astronaut

    folder = tmp_path_factory.mktemp("photos")
    face = Image.fromarray(astronaut()).crop((100, 0, 350, 250))
    for index, box in enumerate([(0, 0, 250, 250), (30, 10, 230, 210), (50, 20, 220, 190)]):
        face.crop(box).reduce(2).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def one_block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pipeline that is compiled quickly."""
    from support import tiny

    folder = tmp_path_factory.mktemp("one-block")
    tiny.stable_diffusion(**tiny.ONE_BLOCK).save_pretrained(folder)
    return folder


@pytest.fixture
def write_config(tmp_path: Path, tiny_model: Path, photos: Path) -> Callable[[], Path]:
    """Writes a config for a few steps on the tiny pipeline."""

    from support.tiny import tiny_config

    def write() -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(tiny_config(tmp_path, tiny_model, photos))
        return path

    return write


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def forked(tmp_path) -> Iterator[Callable[[Callable[[], int]], Child]]:
    children: list[Child] = []

    def fork(action: Callable[[], int]) -> Child:
        children.append(Child(action, tmp_path / f"output-{len(children)}"))
        return children[-1]

    yield fork
    for child in children:
        child.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A real browser, shared by the tests of a file."""
    from support.browser import started_chromium

    with started_chromium() as browser:
        yield browser
