"""Makes the images of README and docs anew, from real runs of the demo that it trains where they are missing.

python docs/images.py        (about ten minutes on two cores where nothing is there yet)
"""

import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
ASSETS, RUNS = ROOT / "assets", ROOT / "runs"
DEMO, NO_PRIOR, SWEEP, PAGE = (RUNS / name for name in ("demo", "demo-no-prior", "sweep-photos-demo", "demo-page"))

PORT = 6123
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

CHARTS, GRID = (360, 76, 1070, 956), (360, 134, 745, 830)
"""Boxes of TensorBoard's charts and of the image grid in a window of 1440 pixels."""


def run(*command: str) -> None:
    """A command of the package, whose output is shown."""
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def make_runs() -> None:
    """The demo with and without prior preservation, one page of both, and the demo's sweep; finished ones stay."""
    for folder, more in ((DEMO, []), (NO_PRIOR, ["train.prior_loss_weight=0"])):
        run("train.py", "--config", "configs/demo.yaml", f"output_dir={folder.relative_to(ROOT)}", *more)
    monitor = ["-m", "finetune_monitor.cli"]
    run(*monitor, "report", str(DEMO.relative_to(ROOT)), str(NO_PRIOR.relative_to(ROOT)), "-o", str(PAGE))
    run(*monitor, "sweep", "configs/sweep_photos_demo.yaml")


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """Its address while it serves a folder."""
    address = f"http://localhost:{PORT}"
    command = ["-m", "tensorboard.main", "--logdir", str(folder), "--port", str(PORT)]
    server = subprocess.Popen([sys.executable, *command, "--samples_per_plugin", "images=1000"])
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(address, timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait()


def shot(browser: Any, address: str, file: Path, size: tuple[int, int], until: str, theme: str = "light") -> None:
    """The window's content once an element is there and all images are loaded."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(until, timeout=60_000)
    page.wait_for_timeout(4000)
    page.screenshot(path=file)
    context.close()


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two images of one height on white."""
    height = max(left.height, right.height)
    both = Image.new("RGB", (left.width + right.width, height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


def main() -> None:
    """Train what is missing, then take every image."""
    if CHROMIUM is None:
        raise SystemExit("found no Chromium, which takes the images; install it and start again")
    make_runs()
    parts = [RUNS / "charts.png", RUNS / "grid.png"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with tensorboard(DEMO / "tensorboard") as address:
            shot(browser, f"{address}/#custom_scalars", parts[0], (1440, 1000), "tf-custom-scalar-dashboard")
            shot(browser, f"{address}/#images", parts[1], (1440, 1000), "tf-image-dashboard")
        shot(browser, (PAGE / "index.html").as_uri(), RUNS / "page.png", (1375, 1125), "#curves svg")
        shot(browser, (SWEEP / "page/index.html").as_uri(), ASSETS / "sweep_photos_demo.png", (1375, 1130), "svg")
        browser.close()
    charts, grid = (Image.open(part).convert("RGB").crop(box) for part, box in zip(parts, (CHARTS, GRID), strict=True))
    beside(charts, grid).save(ASSETS / "tensorboard.png", optimize=True)
    Image.open(RUNS / "page.png").convert("RGB").save(ASSETS / "report_page.jpg", quality=88)
    print(f"wrote tensorboard.png, report_page.jpg and sweep_photos_demo.png in {ASSETS}")


if __name__ == "__main__":
    main()
