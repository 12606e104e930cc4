"""Make the images of README and docs anew, from the package's own commands on the demo.

python docs/images.py                       all: 15 minutes on two cores, or less if runs/ has the demo's runs
python docs/images.py labeling agreement    only these: a minute
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright
from skimage.data import astronaut

from finetune_monitor.studies.labeling.ratings import Rating, to_csv

ROOT = Path(__file__).parents[1]
ASSETS, RUNS = ROOT / "assets", ROOT / "runs"
DEMO, SWEEP = (RUNS / name for name in ("demo", "sweep-photos-demo"))

PORT = 6123
CLI = ("-m", "finetune_monitor.cli")
BROWSERS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)

TO_RATE, ANSWERS = 40, "45344543554"
"""How many images the labeling plan has, half for each question, and the ratings given before its image is taken."""

JUDGED, PEOPLE, LABELERS = 512, 8, 5
"""Images, people in them, and labelers in the agreement study."""

RATED = 250_000
"""Images in the synthetic AVA."""

CHARTS, GRID = (360, 76, 1070, 740), (360, 178, 745, 866)
"""Boxes of TensorBoard's charts and of the image grid in a window of 1440 pixels."""


def run(*command: str) -> None:
    """A command of the package, whose output is shown."""
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def trained(folder: Path, *more: str) -> Path:
    """The demo's run in a folder; a finished one stays."""
    run("train.py", "--config", "configs/demo.yaml", f"output_dir={folder.relative_to(ROOT)}", *more)
    return folder


@contextmanager
def served(*command: str) -> Iterator[str]:
    """The address of a command that serves on `PORT`."""
    address = f"http://localhost:{PORT}"
    server = subprocess.Popen([sys.executable, *command, "--port", str(PORT)], cwd=ROOT)
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


def take_tensorboard(browser: Any) -> None:
    """The demo's charts and its grid in TensorBoard."""
    logs = trained(DEMO) / "tensorboard"
    parts = [RUNS / "charts.png", RUNS / "grid.png"]
    with served("-m", "tensorboard.main", "--logdir", str(logs), "--samples_per_plugin", "images=1000") as address:
        shot(browser, f"{address}/#custom_scalars", parts[0], (1440, 1000), "tf-custom-scalar-dashboard")
        shot(browser, f"{address}/#images", parts[1], (1440, 1000), "tf-image-dashboard")
    charts, grid = (Image.open(part).convert("RGB").crop(box) for part, box in zip(parts, (CHARTS, GRID), strict=True))
    beside(charts, grid).quantize().save(ASSETS / "tensorboard.png", optimize=True)


def take_page(browser: Any) -> None:
    """The top of the demo's page."""
    page = trained(DEMO) / "page"
    run(*CLI, "report", str(DEMO.relative_to(ROOT)), "-o", str(page))
    shot(browser, (page / "index.html").as_uri(), RUNS / "page.png", (1440, 1480), "#peek img")
    Image.open(RUNS / "page.png").convert("RGB").save(ASSETS / "report_page.jpg", quality=88)


def take_sweep(browser: Any) -> None:
    """The answer of the demo's sweep."""
    run(*CLI, "sweep", "configs/sweep_photos_demo.yaml")
    shot(browser, (SWEEP / "page/index.html").as_uri(), RUNS / "sweep.png", (1375, 1130), "svg")
    colors = Image.open(RUNS / "sweep.png").convert("RGB").quantize(kmeans=4)  # or lines are hard to tell apart
    colors.save(ASSETS / "sweep_photos_demo.png", optimize=True)


def take_labeling(browser: Any) -> None:
    """The labeling page, with crops of scikit-image's astronaut as the images and as the photos."""
    with tempfile.TemporaryDirectory() as folder:
        images, photos, plan = (Path(folder) / name for name in ("astronaut", "photos", "plan"))
        write_crops(images, TO_RATE, 512)
        write_crops(photos, 6, 256)
        references = ("--references", f"astronaut={photos}")
        run(*CLI, "label", "plan", str(images), *references, "--per-person", str(TO_RATE), "-o", str(plan))
        with served(*CLI, "label", "serve", str(plan)) as address:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(address)
            page.fill("#name", "Anna")
            page.click(".card")
            for key in ANSWERS:
                page.wait_for_timeout(700)  # the page ignores answers that come too soon
                page.keyboard.press(key)
            page.wait_for_timeout(1500)
            page.hover("#anchors :nth-child(4)")
            page.screenshot(path=ASSETS / "labeling.jpg", type="jpeg", quality=85)
            page.close()


def write_crops(folder: Path, count: int, pixels: int) -> None:
    """Square crops with the face in them, in one size."""
    folder.mkdir()
    random, portrait = np.random.default_rng(pixels), Image.fromarray(astronaut())
    for index in range(count):
        side = random.uniform(190, 420)
        left, top = random.uniform(max(0, 290 - side), min(160, 512 - side)), random.uniform(0, min(30, 512 - side))
        crop = portrait.resize((pixels, pixels), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
        crop.save(folder / f"{index:02d}.png")


def take_agreement(browser: Any) -> None:
    """The top of a report on simulated labels: one metric predicts them well, the other hardly at all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_study(folder)
        run(
            *CLI, "agree", str(folder / "labels.csv"), "--scores", str(folder / "scores.csv"), "-o", str(folder / "out")
        )
        report = (folder / "out/report.html").as_uri()
        shot(browser, report, ASSETS / "agreement_report.png", (1100, 812), ".verdict")


def write_study(folder: Path) -> None:
    """Labels of both questions, and scores that are near the true quality of the images or far from it."""
    random = np.random.default_rng(0)
    ratings, columns = [], {}
    for metric, noise in (("face_similarity", 1.0), ("aesthetic", 4.0)):
        truth = random.integers(1, 6, JUDGED)
        columns[metric] = truth + random.normal(0, noise, JUDGED)
        for labeler in range(LABELERS):
            labels = np.clip(np.round(truth + random.normal(0, 1, JUDGED)), 1, 5).astype(int)
            ratings += [Rating(f"i{i}", f"labeler {labeler + 1}", metric, int(labels[i])) for i in range(JUDGED)]
    (folder / "labels.csv").write_text(to_csv(ratings))
    rows = [
        f"i{i},{columns['face_similarity'][i]},{columns['aesthetic'][i]},person {i % PEOPLE}" for i in range(JUDGED)
    ]
    (folder / "scores.csv").write_text("\n".join(["image,face_similarity,aesthetic,person", *rows]))


def take_aesthetic(browser: Any) -> None:
    """Two figures of the report on an aesthetic head, fitted to the synthetic AVA of benchmarks/aesthetics.py."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from aesthetics import write_ava

    from models import clip_folder

    with tempfile.TemporaryDirectory() as name:
        folder, head, clip = Path(name) / "ava", Path(name) / "head", clip_folder("sd15")
        write_ava(folder, RATED, clip)
        stored = ("--images", str(folder / "images"), "--embeddings", str(folder / "embeddings"), "--clip", str(clip))
        run(*CLI, "aesthetic", "fit", str(folder / "AVA.txt"), *stored, "--output", str(head))
        figures = [Image.open(head / figure).convert("RGB") for figure in ("histograms.png", "errors.png")]
        both = beside(*figures)
        both.thumbnail((1800, 1800))
        both.save(ASSETS / "aesthetic_report.png", optimize=True)


TAKEN: dict[str, Callable[[Any], None]] = {
    "tensorboard": take_tensorboard,
    "page": take_page,
    "sweep": take_sweep,
    "labeling": take_labeling,
    "agreement": take_agreement,
    "aesthetic": take_aesthetic,
}


def main() -> None:
    """Take all images, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to take: {', '.join(TAKEN)}; default: all")
    names = parser.parse_args().names or list(TAKEN)
    if unknown := set(names) - set(TAKEN):
        raise SystemExit(f"found {', '.join(sorted(unknown))}, expected names among {', '.join(TAKEN)}")
    if CHROMIUM is None:
        raise SystemExit("Chromium, which takes the images, was not found; install it and start again")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name in names:
            TAKEN[name](browser)
        browser.close()
    print(f"wrote the images of {', '.join(names)} in {ASSETS}")


if __name__ == "__main__":
    main()
