"""Measure the CPU time of one evaluation beside rendering: scores, record, weights, TensorBoard, W&B, page.

python benchmarks/beside_rendering.py --size demo
python benchmarks/beside_rendering.py --size sd15
"""

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from measure import ROOT, arguments, publish, table
from PIL.Image import Image, Transpose

from finetune_monitor.metrics import Metric, RunContext
from finetune_monitor.models.clip import ClipEncoder
from finetune_monitor.models.face_reader import FaceReader
from finetune_monitor.models.faces import FaceFinder
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.monitor.evaluator import Evaluator
from finetune_monitor.monitor.judge import Judge
from finetune_monitor.monitor.run_weights import RunWeights
from finetune_monitor.monitor.steering import Steering
from finetune_monitor.record.grid import Cell
from finetune_monitor.record.png import PngEncoder
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.rendering.renderer import Renderer
from finetune_monitor.report.sink import ReportPage
from finetune_monitor.sinks.tensorboard import TensorBoardSink
from finetune_monitor.sinks.wandb import WandbSink
from finetune_monitor.training.config import Config, load_config
from finetune_monitor.training.own import classes_of, make_metric
from finetune_monitor.training.registry import METRICS
from models import RECOGNIZER, aesthetic_head, astronaut_photos, clip_folder, live_pipeline, recognizer_cache, scale

PHOTOS, HELD_OUT, BATCH = 8, 2, 8

Seconds = dict[str, float]
"""CPU seconds by part of an evaluation."""

NETWORKS = {
    "demo": "InceptionResnetV1 with random weights and the demo's CLIP; the model is the demo's",
    "sd15": "InceptionResnetV1 and ViT-L/14, both with random weights; the model has Stable Diffusion v1.5's size",
}

PARTS: Sequence[tuple[str, type, str]] = (
    ("find faces", FaceFinder, "find"),
    ("embed faces", FaceReader, "embed"),
    ("CLIP", ClipEncoder, "embed"),
    ("other work for scores", Evaluator, "measure"),
    ("intervals, alarms, rules", Judge, "judged"),
    ("images for the live view", Steering, "preview"),
    ("PNG files", PngEncoder, "begin"),
    ("writing images", RunRecord, "write_images"),
    ("rows of the record", RunRecord, "append"),
    ("weights", RunWeights, "keep"),
    ("TensorBoard", TensorBoardSink, "write"),
    ("W&B", WandbSink, "write"),
    ("page", ReportPage, "write"),
    ("the rest", FinetuneMonitor, "evaluate"),
)
"""Each part, and the method that does it; time in a part that it calls is not its own."""


class Clock:
    """Measures the parts while it is entered."""

    def __init__(self) -> None:
        self.seconds: Seconds = defaultdict(float)
        self._inner = [0.0]

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as patched:
            patched.enter_context(patch.object(PngEncoder, "begin", at_once))
            for part, kind, name in PARTS:
                patched.enter_context(patch.object(kind, name, self.timed(part, getattr(kind, name))))
            yield

    def timed(self, part: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            start = time.process_time()
            self._inner.append(0.0)
            try:
                return action(*given, **named)
            finally:
                spent = time.process_time() - start
                self.seconds[part] += spent - self._inner.pop()
                self._inner[-1] += spent

        return call


def at_once(encoder: PngEncoder, step: int, cells: Sequence[Cell], images: Sequence[Image | None]) -> None:
    """Encode in the calling thread's time, so that the encoder's threads do not count for another part."""
    begin(encoder, step, cells, images)
    for _, file in list(encoder._begun.values()):
        file.result()


begin = PngEncoder.begin


def prepared(folder: Path, size: str, side: int) -> tuple[Config, list[Path]]:
    """The config with networks that are available, and the photos, which all differ.

    Args:
        side: of the rendered images in pixels.
    """
    own, others = folder / "photos", folder / "others"
    for place in (own, others):
        place.mkdir()
    for index, photo in enumerate(astronaut_photos((512, 512), PHOTOS)):
        photo.save(own / f"{index}.png")
        photo.transpose(Transpose.FLIP_LEFT_RIGHT).save(others / f"{index}.png")
    clip = f"clip: {clip_folder(size)}, pretrained: null"
    changes = {
        "data.instance_images": own,
        "data.class_images": others,
        "data.resolution": side,
        "output_dir": folder / "run",
        "monitor.metrics.face_similarity.recognizer": RECOGNIZER,
        "monitor.metrics.aesthetic": f"{{{clip}, head: {aesthetic_head(size)}}}",
        "monitor.metrics.clip_score": f"{{{clip}}}",
        "monitor.metrics.diversity": f"{{{clip}}}",
        "monitor.metrics.validation_loss": "null",
        "monitor.grid.quality": "full",
    }
    config = load_config(ROOT / "configs/sd15_lora.yaml", [f"{key}={value}" for key, value in changes.items()])
    return config, sorted(own.iterdir())


def metrics_of(config: Config, photos: list[Path]) -> list[Metric]:
    chosen = config.monitor.metrics.chosen
    run = RunContext(
        photos[:-HELD_OUT],
        photos[-HELD_OUT:],
        torch.device("cpu"),
        config.prompt_grid.prompts,
        chosen,
        config.data.class_images,
        config.data.instance_prompt,
    )
    kinds = classes_of(METRICS, config.monitor.metrics)
    found = [make_metric(kind, chosen[name], run) for name, kind in kinds.items()]
    return [metric for metric in found if metric is not None]


def rendered(images: Sequence[Image]) -> Callable[..., list[Image]]:
    """Takes the place of `Renderer.render`: images that are there already, in batches."""

    def render(renderer: Renderer, cells: Sequence[Cell]) -> list[Image]:
        found = [images[cell.index].copy() for cell in cells]
        for start in range(0, len(cells), BATCH):
            renderer.on_rendered(cells[start : start + BATCH], found[start : start + BATCH])
        return found

    return render


def evaluated(folder: Path, size: str, side: int, rounds: int) -> tuple[list[Seconds], int]:
    """The parts of each evaluation after the first, and the number of its images."""
    config, photos = prepared(folder, size, side)
    count = len(config.prompt_grid.cells)
    sinks = [TensorBoardSink(), WandbSink("offline"), ReportPage()]
    with patch.object(Renderer, "render", rendered(astronaut_photos((side, side), count))):
        monitor = FinetuneMonitor(
            live_pipeline(scale(size), "cpu"),
            config.prompt_grid,
            metrics_of(config, photos),
            config.output_dir,
            sinks,
            config.monitor.rules,
        ).start()
        found = []
        for step in range(1, rounds + 1):
            clock = Clock()
            with clock.running():
                monitor.evaluate(step)
            found.append(clock.seconds)
            print(f"evaluation {step}: {sum(clock.seconds.values()):.2f} s", file=sys.stderr, flush=True)
        monitor.close()
    return found, count


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pixels", type=int, default=512)
    options = parser.parse_args()
    cache = str(recognizer_cache())
    os.environ |= {"FINETUNE_MONITOR_CACHE": cache, "TORCH_HOME": cache, "WANDB_SILENT": "true"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found, count = evaluated(Path(folder), options.size, options.pixels, options.rounds)
    total = median(sum(each.values()) for each in found)
    medians = {part: median(each[part] for each in found) for part, *_ in PARTS}
    rows = [(part, f"{spent:.2f}", f"{100 * spent / total:.0f}%") for part, spent in medians.items()]
    notes = [
        f"- CPU time of the process, all threads together: medians of {options.rounds} evaluations after a first one. "
        f"{count} images of {options.pixels} px are there already, so rendering takes no time.",
        "- Metrics and sinks of sd15_lora.yaml, without `validation_loss`, which runs the model, as rendering does: "
        f"{NETWORKS[options.size]}. W&B is offline; its own process is not counted.",
    ]
    rows.append(("all", f"{total:.2f}", "100%"))
    parts = [table(("one evaluation", "CPU s", "share"), rows), "\n".join(notes)]
    publish("An evaluation beside rendering", options.size, parts)


if __name__ == "__main__":
    main()
