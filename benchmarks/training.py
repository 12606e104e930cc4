"""Measure training steps per second, compared with diffusers' example script train_dreambooth_lora.py.

python benchmarks/training.py --size demo --script train_dreambooth_lora.py
python benchmarks/training.py --size sd15 --script train_dreambooth_lora.py
"""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from clocked import Clocked, run_clocked
from measure import ROOT, SECONDS, STEPS_PER_SECOND, Rounds, alternate, arguments, comparison, publish

from finetune_monitor.training.config import load_config
from models import Scale, photo_folder, scale

PROMPT = "a photo of sks person"
SCRIPT, CACHED, OURS, COMPILED = "the script", "the script, text encoded once", "finetune_monitor", "compiled"


@dataclass(frozen=True)
class Job:
    """The job that both sides train: after `warmup` steps, `steps` steps are timed."""

    chosen: Scale
    photos: str
    batch: int
    warmup: int
    steps: int
    rank: int
    seed: int = 0

    @property
    def until(self) -> int:
        return self.warmup + self.steps


def diffusers_arguments(job: Job, output: str, *more: str) -> list[str]:
    """Settings with the script's own defaults wherever possible, except for the crop, which affects what is learned."""
    values = {
        "pretrained_model_name_or_path": job.chosen.folder,
        "instance_data_dir": photo_folder(job.photos),
        "instance_prompt": PROMPT,
        "output_dir": output,
        "resolution": job.chosen.pixels,
        "train_batch_size": job.batch,
        "max_train_steps": 2 * job.until,
        "rank": job.rank,
        "seed": job.seed,
        "mixed_precision": job.chosen.precision,
    }
    return [f"--{key}={value}" for key, value in values.items()] + ["--center_crop", *more]


def our_arguments(job: Job, output: str, *more: str) -> list[str]:
    values = {
        "model": job.chosen.folder,
        "output_dir": output,
        "seed": job.seed,
        "data.instance_images": photo_folder(job.photos),
        "data.instance_prompt": PROMPT,
        "data.resolution": job.chosen.pixels,
        "train.rank": job.rank,
        "train.lora_layers": "[attention]",
        "train.prior_loss_weight": 0,
        "train.batch_size": job.batch,
        "train.max_steps": 2 * job.until,
        "train.checkpoint_every": 2 * job.until,
        "train.mixed_precision": job.chosen.precision,
        "train.learning_rate": 1e-4,
        "train.snr_gamma": "null",
        "monitor.enabled": "false",
        "monitor.sinks.wandb": "null",
    }
    return ["--config", str(job.chosen.config), *[f"{key}={value}" for key, value in values.items()], *more]


class Runs:
    """Runs of one job, each in its own process; also records the time to the first step of each side."""

    def __init__(self, job: Job, script: Path, compiler_cache: str) -> None:
        self.job = job
        self.environment = {"TORCHINDUCTOR_CACHE_DIR": compiler_cache}
        self.first_steps: Rounds = {}
        ours = ROOT / "train.py"
        self.sides: dict[str, Callable[[str], Clocked]] = {
            SCRIPT: lambda out: self._clock(script, diffusers_arguments(job, out)),
            CACHED: lambda out: self._clock(script, diffusers_arguments(job, out, "--pre_compute_text_embeddings")),
            OURS: lambda out: self._clock(ours, our_arguments(job, out)),
            COMPILED: lambda out: self._clock(ours, our_arguments(job, out, "train.compile=true")),
        }

    def _clock(self, script: Path, words: list[str]) -> Clocked:
        return run_clocked(script, words, self.job.until, self.job.warmup, self.environment)

    def rate(self, side: str) -> float:
        """Steps per second of one run."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as output:
            found = self.sides[side](output)
        self.first_steps.setdefault(side, []).append(found.first_step)
        return found.rate(self.job.warmup)


def measure(runs: Runs, sides: list[str], rounds: int) -> str:
    """One job's tables: steps per second, and seconds to the first step."""
    cold = None
    if COMPILED in sides:
        runs.rate(COMPILED)
        cold = runs.first_steps.pop(COMPILED)[0]
    values = alternate({side: partial(runs.rate, side) for side in sides}, rounds)
    label = f"{runs.job.photos} photos, batch {runs.job.batch}"
    started = comparison({side: runs.first_steps[side] for side in sides}, SECONDS, f"{label}: start to first step")
    warmup = _compile_time(runs.first_steps, cold) if cold is not None else ""
    return "\n\n".join(filter(None, [comparison(values, STEPS_PER_SECOND, label), started, warmup]))


def _compile_time(first_steps: Mapping[str, list[float]], cold: float) -> str:
    plain = median(first_steps[OURS])
    warm = median(first_steps[COMPILED]) - plain
    return (
        f"Compiling adds {cold - plain:.1f} s before the first step, {warm:.1f} s if torch's compiler cache is warm. "
        "Steps per second exclude this."
    )


def notes(jobs: list[Job], script: Path) -> str:
    job = jobs[0]
    digest = hashlib.sha256(script.read_bytes()).hexdigest()[:12]
    reduced = f" Reduced for the CPU: {job.chosen.pixels} px instead of 512." if job.chosen.reduced else ""
    lines = [
        f"- {job.chosen.pixels} px, precision {job.chosen.precision}, LoRA of rank {job.rank} on attention, AdamW, no "
        f"class images, no evaluations; {job.steps} steps timed after {job.warmup}.{reduced}",
        f"- Each value comes from a new process. The script is {script.name} (sha256 {digest}…) with its defaults: it "
        "decodes and encodes photos and prompt in every step, or the prompt only once with "
        "`--pre_compute_text_embeddings`. finetune_monitor encodes each photo and the prompt once, which is part of "
        "the time to the first step.",
        "- There are twelve photos: the demo's six, each used twice (small), or JPEGs of 4000 x 3000 pixels (phone).",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--script", type=Path, required=True, help="train_dreambooth_lora.py of diffusers' examples")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--photos", nargs="+", choices=["small", "phone"], default=["small", "phone"])
    parser.add_argument("--compile", action="store_true", help="ours with train.compile=true too")
    parser.add_argument("--warmup", type=int, help="steps that are not timed")
    parser.add_argument("--steps", type=int, help="steps that are timed")
    options = parser.parse_args()
    chosen = scale(options.size)
    warmup = options.warmup or (2 if chosen.reduced else 10)
    steps = options.steps or (4 if chosen.reduced else 60)
    rank = load_config(chosen.config).train.rank
    jobs = [Job(chosen, kind, batch, warmup, steps, rank) for kind in options.photos for batch in options.batches]
    tables = []
    for job in jobs:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as compiler_cache:
            runs = Runs(job, options.script.resolve(), compiler_cache)
            tables.append(
                measure(runs, [SCRIPT, CACHED, OURS, *([COMPILED] if options.compile else [])], options.rounds)
            )
    publish("Training", options.size, [*tables, notes(jobs, options.script)])


if __name__ == "__main__":
    main()
