"""Measure the peak memory of training alone and with evaluations, at the same batch size.

python benchmarks/memory.py --size demo
python benchmarks/memory.py --size sd15
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field

from clocked import Clocked, run_clocked
from measure import GIB, ROOT, Rounds, alternate, arguments, comparison, gpu, publish

from models import DEMO, RECOGNIZER, Scale, aesthetic_head, clip_folder, recognizer_cache, scale

BYTES_IN_GIB = 2**30


@dataclass(frozen=True)
class Runs:
    """Training runs in separate processes; `resident` and `gpu` collect the peak memory of the last runs, in GiB."""

    chosen: Scale
    size: str
    batch: int
    steps: int
    gpu: Rounds = field(default_factory=dict)

    def resident(self, side: str, more: Sequence[str]) -> float:
        """Peak RAM in GiB; also records that of the GPU."""
        found = self.run(more)
        self.gpu.setdefault(side, []).append(found.gpu / BYTES_IN_GIB)
        return found.resident / BYTES_IN_GIB

    def run(self, more: Sequence[str]) -> Clocked:
        settings = {
            "model": self.chosen.folder,
            "data.instance_images": DEMO / "photos/astronaut",
            "data.resolution": self.chosen.pixels,
            "train.batch_size": self.batch,
            "train.max_steps": self.steps,
            "train.checkpoint_every": self.steps,
            "train.prior_loss_weight": 0,
            "train.mixed_precision": self.chosen.precision,
            "monitor.every": self.steps,
            "monitor.sinks.wandb": "null",
        }
        words = [f"{key}={value}" for key, value in settings.items()]
        cache = str(recognizer_cache())
        environment = {"FINETUNE_MONITOR_CACHE": cache, "TORCH_HOME": cache}
        with tempfile.TemporaryDirectory() as output:
            everything = ["--config", str(self.chosen.config), *words, *more, f"output_dir={output}"]
            return run_clocked(ROOT / "train.py", everything, environment=environment)

    def evaluations(self) -> list[str]:
        """The config's metrics on available networks, and fewer scheduler steps, which do not affect memory."""
        clip, head = clip_folder(self.size), aesthetic_head(self.size)
        recognizer = "dlib" if self.size == "demo" else RECOGNIZER
        return [
            f"monitor.metrics.face_similarity.recognizer={recognizer}",
            f"monitor.metrics.aesthetic={{clip: {clip}, pretrained: null, head: {head}}}",
            "monitor.metrics.recognized=null",  # it needs class images
            "monitor.grid.steps=2",
        ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, help="3 for the demo, 1 for sd15, as the configs have it")
    parser.add_argument("--steps", type=int, default=4, help="evaluated before the first and after the last")
    options = parser.parse_args()
    batch = options.batch or (3 if options.size == "demo" else 1)
    runs = Runs(scale(options.size), options.size, batch, options.steps)
    more = {"training alone": ["monitor.enabled=false"], "with evaluations": runs.evaluations()}
    sides = {side: lambda side=side: runs.resident(side, more[side]) for side in more}
    tables = [comparison(alternate(sides, options.rounds), GIB, "peak RAM of the process")]
    if gpu():
        tables.append(comparison(runs.gpu, GIB, "peak memory of the GPU, as torch counts it"))
    reduced = f" Reduced for the CPU: {runs.chosen.pixels} px instead of 512." if runs.chosen.reduced else ""
    networks = (
        "dlib's ResNet and the demo's CLIP"
        if options.size == "demo"
        else "InceptionResnetV1 and CLIP ViT-L/14, random weights"
    )
    tables.append(
        f"- LoRA as in {runs.chosen.config.name}, batch {batch}, {runs.chosen.pixels} px, precision "
        f"{runs.chosen.precision}, {options.steps} steps; evaluations render the config's grid with 2 steps and "
        f"score it with {networks}.{reduced}"
    )
    publish("Memory", options.size, tables)


if __name__ == "__main__":
    main()
