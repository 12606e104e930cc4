"""Measure the alarms over training runs with and without prior preservation; writes the last part of SIGNALS.md.

python -m benchmarks.alarms        (six trainings of 600 steps: a quarter of an hour on two cores)
"""

import argparse
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image
from skimage import data
from tqdm import tqdm

from benchmarks.signals import ALARMS, RESULTS
from finetune_monitor.base.images import list_images, read_image, read_images
from finetune_monitor.base.text import table
from finetune_monitor.metrics.copying import Copying
from finetune_monitor.models.clip import ClipEncoder
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.record.history import RunHistory, read_run
from finetune_monitor.training.class_images import class_images
from finetune_monitor.training.config import load_config
from finetune_monitor.training.trainable import load_pipeline

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "benchmarks/alarms.yaml"
PHOTOS = ROOT / "assets/demo/photos/astronaut"
CLIP = str(ROOT / "assets/demo/clip")

SEEDS = (0, 1, 2)
PRIORS = {"off": 0.0, "on": 0.5}
"""`train.prior_loss_weight`."""

STEPS = (0, 100, 200, 300, 600)

HELD_OUT = ((224, 110, 180, -8), (224, 115, 200, 6), (230, 105, 150, 0))
"""More crops of the astronaut's portrait: center, side, degrees."""

GRAY = 0.04
"""Mean difference between the largest and the smallest channel below which an image counts as gray."""


@dataclass(frozen=True)
class Run:
    """One training run; prior preservation is `off` or `on`."""

    prior: str
    seed: int
    folder: Path

    @property
    def overrides(self) -> list[str]:
        settings = {"output_dir": self.folder, "seed": self.seed, "train.prior_loss_weight": PRIORS[self.prior]}
        places = {"data.class_images": "class-images", "data.held_out": "held-out"}
        shared = {key: self.folder.parent / name for key, name in places.items()}
        return [f"{key}={value}" for key, value in {**settings, **shared}.items()]


@dataclass(frozen=True)
class Row:
    """A row of the table: a column of the record, or an independent measurement of its images.

    alarm: whether the column has an alarm to count.
    """

    words: str
    value: Callable[[RunHistory, Evaluation], float]
    alarm: str = ""


def column(name: str) -> Callable[[RunHistory, Evaluation], float]:
    """The mean of a column; NaN if it is undefined."""

    def value(history: RunHistory, evaluation: Evaluation) -> float:
        found = evaluation.scores.get(name)
        return math.nan if found is None else found.mean

    return value


def shown(history: RunHistory, evaluation: Evaluation, probes: bool, words: str = "") -> list[Image.Image]:
    """An evaluation's images of the probes or of the subject, for prompts with these words."""
    chosen = [each for each in evaluation.images if each.cell.is_probe is probes and words in each.cell.prompt]
    return [read_image(history.output_dir / str(each.file)) for each in chosen]


def gray(history: RunHistory, evaluation: Evaluation) -> float:
    """The share of gray images among those whose prompt asks for black and white."""
    images = np.stack([np.asarray(each, float) / 255 for each in shown(history, evaluation, False, "black and white")])
    return float(((images.max(-1) - images.min(-1)).mean((1, 2)) < GRAY).mean())


def leakage_by_clip(history: RunHistory, evaluation: Evaluation) -> float:
    """The rise of the probes' cosine to the photos by the demo's CLIP, as a share of the subject's."""
    if evaluation.step == 0:
        return math.nan
    encoder = ClipEncoder(CLIP)
    photos = encoder.embed(read_images(list_images(PHOTOS)))
    first = history.evaluations[0]

    def rise(probes: bool) -> float:
        now, then = (float((encoder.embed(shown(history, e, probes)) @ photos.T).mean()) for e in (evaluation, first))
        return now - then

    return rise(True) / rise(False)


def copies_by_hash(history: RunHistory, evaluation: Evaluation) -> float:
    """The share of images whose difference hash is closer to a photo's than the photos' are to each other."""
    photos = difference_hash(read_images(list_images(PHOTOS)))
    among = (photos[:, None] != photos).sum(-1) + 64 * np.eye(len(photos), dtype=int)
    images = difference_hash(shown(history, evaluation, False))
    return float(((images[:, None] != photos).sum(-1).min(1) < among.min()).mean())


def difference_hash(images: Sequence[Image.Image]) -> Float[np.ndarray, "n 64"]:
    """Whether each of 8 x 8 pixels is lighter than its left neighbor (Krawetz 2013)."""
    small = np.stack([np.asarray(each.convert("L").resize((9, 8)), float) for each in images])
    return (small[:, :, 1:] > small[:, :, :-1]).reshape(len(images), -1).astype(float)


def spread_of_pixels(history: RunHistory, evaluation: Evaluation) -> float:
    """The mean distance of the probes' pixels within a prompt, as a share of that at step 0."""
    if evaluation.step == 0:
        return math.nan
    return _spread(history, evaluation) / _spread(history, history.evaluations[0])


def _spread(history: RunHistory, evaluation: Evaluation) -> float:
    distances = []
    for prompt in history.grid.probe_prompts:
        images = np.stack(
            [np.asarray(each.resize((16, 16)), float) for each in shown(history, evaluation, True, prompt)]
        )
        pairs = np.triu_indices(len(images), 1)
        distances.append(np.sqrt(((images[:, None] - images) ** 2).mean((2, 3, 4)))[pairs].mean())
    return float(np.mean(distances))


ROWS = (
    Row("`face_similarity`", column("face_similarity")),
    Row("`recognized`", column("recognized")),
    Row("**`leakage`**", column("leakage"), "leakage"),
    Row("`leakage`, measured with the demo's CLIP", leakage_by_clip),
    Row("**`copying`**", column("copying"), "copying"),
    Row("`copying`, measured with a difference hash", copies_by_hash),
    Row("**`probe_diversity`**", column("probe_diversity"), "probe_diversity"),
    Row("`probe_clip_diversity`", column("probe_clip_diversity"), "probe_clip_diversity"),
    Row("`probe_diversity`, measured in pixels", spread_of_pixels),
    Row("**`worst_prompt_margin`**", column("worst_prompt_margin"), "worst_prompt_margin"),
    Row('`worst_prompt_margin`, measured as gray images of "black and white"', gray),
    Row("`clip_score` / 100", lambda history, evaluation: column("clip_score")(history, evaluation) / 100),
    Row("`validation_loss`", column("validation_loss")),
    Row("**`validation_rise`**", column("validation_rise"), "validation_rise"),
)


def cell(row: Row, histories: Sequence[RunHistory], step: int) -> str:
    """Mean, minimum, and maximum over the training runs, and in how many of them the alarm sounds."""
    found = [(history, evaluation) for history in histories if (evaluation := history.at(step)) is not None]
    values = np.array([row.value(*each) for each in found])
    known = values[~np.isnan(values)]
    if not len(known):
        return "—"
    ends = f" ({known.min():.2f} to {known.max():.2f})" if known.min() < known.max() else ""
    sounds = sum(row.alarm in evaluation.alarms for _, evaluation in found)
    return f"{known.mean():.2f}{ends}{f', **{sounds}**' if sounds else ''}"


def rows(histories: Mapping[str, Sequence[RunHistory]]) -> list[list[str]]:
    """The rows of the table, with prior preservation off and on below each other."""
    return [
        [row.words, prior, *(cell(row, found, step) for step in STEPS)]
        for row in ROWS
        for prior, found in histories.items()
    ]


def strangers(folder: Path) -> str:
    """The share of the base model's images of other people that count as copies."""
    images = read_images(list_images(folder))
    found = Copying(PHOTOS).score(images, [])["copying"]
    return f"{int(found.sum())} of {len(images)}"


def report(histories: Mapping[str, Sequence[RunHistory]], others: Path) -> str:
    """The section of SIGNALS.md."""
    config = load_config(CONFIG)
    grid, train = config.prompt_grid, config.train
    header = ["signal", "prior", *(f"step {step}" for step in STEPS)]
    subjects, probes = (sum(each.is_probe is kind for each in grid.cells) for kind in (False, True))
    return f"""{ALARMS}

Written by `python -m benchmarks.alarms` ([config](alarms.yaml)): the demo's models, {train.max_steps} steps with
prior preservation off and on (weight {PRIORS["on"]:g}), with {len(SEEDS)} runs each. An evaluation has {subjects}
images of the subject's prompts and {probes} of probe prompts. Each cell shows the mean over the runs, the range in
parentheses, and in **bold** the number of runs in which the alarm sounds. Rows that say *measured* check the metric
above them in an independent way. `validation_loss` is measured on three other crops of the subject's portrait:
rotated, lighter, and darker. These are results of the demo: they show that the alarms sound when something is wrong
and stay silent when nothing is. They say nothing about suitable levels for Stable Diffusion v1.5.

{table(header, rows(histories), ["---", "---", *["---:"] * len(STEPS)])}

Of the base model's images of other people, {strangers(others)} count as copies.

- Without prior preservation, everyone turns into the subject: `leakage` exceeds 1, and the faces generated from probe
  prompts become alike. With prior preservation, neither alarm sounds. A comparison of pixels misses this, because light
  and background still differ when faces are alike.
- Copies appear with and without prior preservation: from six crops of one portrait, there is nothing else to learn.
- In both cases, the model ignores "black and white" in the prompt, and `clip_score` does not reveal it.
- The loss on photos that the model has never seen rises from the first evaluation on, even while similarity rises:
  the model is memorizing its training photos.
"""


def train(run: Run) -> None:
    """Run the training unless it is complete; an interrupted run is resumed."""
    if (run.folder / "run.json").exists() and read_run(run.folder).has_ended:
        return
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(CONFIG), *run.overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{run.folder}: training ended with {done.returncode}\n{done.stderr[-2000:]}")


def prepare(folder: Path, *overrides: str) -> None:
    """Write the gallery of other people and the held-out photos."""
    config = load_config(CONFIG, [f"data.class_images={folder / 'class-images'}", *overrides])
    class_images(load_pipeline(ROOT / config.model, config.base_model), config.data, config.prompt_grid, None)
    (folder / "held-out").mkdir(exist_ok=True)
    portrait = Image.fromarray(data.astronaut())
    for index, (x, y, side, degrees) in enumerate(HELD_OUT):
        turned = portrait.rotate(degrees, Image.Resampling.BICUBIC, center=(x, y))
        cut = turned.crop((x - side // 2, y - side // 2, x + side // 2, y + side // 2))
        cut.point([255 * (level / 255) ** (0.8 + 0.2 * index) for level in range(256)] * 3).save(
            folder / f"held-out/{index}.png"
        )


def main() -> None:
    """Train, two at a time, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/alarms", help="where the trainings are kept")
    folder = parser.parse_args().runs.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder)
    runs = [Run(prior, seed, folder / f"{prior}-{seed}") for seed in SEEDS for prior in PRIORS]
    with ThreadPoolExecutor(2) as pool:
        list(tqdm(pool.map(train, runs), total=len(runs), desc="training", unit="run"))
    histories = {prior: [read_run(run.folder) for run in runs if run.prior == prior] for prior in PRIORS}
    before = RESULTS.read_text().partition(ALARMS)[0]
    RESULTS.write_text(before + report(histories, folder / "class-images"))
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
