"""Time train.py until its first step and until it rejects a config, and finetune-monitor until it prints its help.

python benchmarks/startup.py --size demo
python benchmarks/startup.py --size sd15
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from clocked import Clocked, run_clocked
from measure import ROOT, SECONDS, TITLES, alternate, arguments, listing, publish, publish_result, seconds, shares

from models import DEMO, Scale, scale

HEAVY = ("torch", "diffusers", "transformers", "open_clip", "facenet_pytorch", "accelerate", "wandb")
BARE = ("monitor.enabled=false", "train.prior_loss_weight=0")
CONFIG_ERROR = (str(ROOT / "train.py"), "--config", str(ROOT / "configs/demo.yaml"), "train.max_stepz=1")
HELP = (str(Path(sys.executable).with_name("finetune-monitor")), "--help")

IMPORTED = {
    "the config's own imports, such as pydantic and numpy": ("finetune_monitor.training.main",),
    "torch": ("torch",),
    "torch._dynamo: every optimizer imports it, and diffusers": ("torch._dynamo",),
    "scipy.stats: diffusers' schedulers, transformers' losses": ("scipy.stats",),
    "torchvision: transformers": ("torchvision.transforms",),
    "transformers: the text encoder, and peft": ("transformers.modeling_utils", "transformers.models.clip"),
    "peft": ("peft",),
    "diffusers": (
        "diffusers.models.unets.unet_2d_condition",
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    ),
    "wandb, the sink": ("wandb",),
    "the rest of train.py": ("finetune_monitor.training.run",),
}
"""What a start imports, in this order; each takes what those before it have left."""

CLOCKED_IMPORTS = """
import gc, importlib, json, sys, time
gc.disable()  # as train.py does
found, before = [], time.process_time()
for names in json.loads(sys.argv[1]):
    for name in names:
        importlib.import_module(name)
    now = time.process_time()
    found.append(now - before)
    before = now
print(json.dumps(found))
"""


def started(chosen: Scale, folder: Path, more: Sequence[str]) -> Clocked:
    """train.py until the end of its first step, in a new output folder."""
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as output:
        words = ["--config", str(chosen.config), f"model={chosen.folder}", f"output_dir={output}"]
        words += [f"data.instance_images={DEMO / 'photos/astronaut'}", f"data.resolution={chosen.pixels}"]
        return run_clocked(ROOT / "train.py", [*words, f"train.mixed_precision={chosen.precision}", *more], 1)


def first_step(chosen: Scale, folder: Path, more: Sequence[str]) -> float:
    """Seconds from the start of train.py to the end of its first step."""
    return started(chosen, folder, more).first_step


def parts_of_a_start(chosen: Scale, folder: Path, rounds: int) -> dict[str, float]:
    """The CPU time of each import, and of everything else until the end of the first step: medians of all rounds."""
    names = json.dumps(list(IMPORTED.values()))
    imports = [json.loads(python("-c", CLOCKED_IMPORTS, names).stdout) for _ in range(rounds)]
    whole = median(started(chosen, folder, BARE).computed for _ in range(rounds))
    parts = dict(zip(IMPORTED, map(median, zip(*imports, strict=True)), strict=True))
    return {**parts, "models, photos, LoRA, sinks, first step": whole - sum(parts.values())}


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)


def heavy_imports(words: Sequence[str]) -> str:
    """The heavy packages that a command imports, as reported by Python itself."""
    report = python("-X", "importtime", *words).stderr
    imported = {line.rpartition("|")[2].strip() for line in report.splitlines() if line.startswith("import time:")}
    return ", ".join(name for name in HEAVY if name in imported) or "none"


def commands() -> dict[str, Callable[[], float]]:
    return {
        "python -c pass": seconds(lambda: python("-c", "pass")),
        "`finetune-monitor --help`": seconds(lambda: python(*HELP)),
        "train.py with an unknown key": seconds(lambda: python(*CONFIG_ERROR)),
    }


def trainings(chosen: Scale, folder: Path, size: str) -> dict[str, Callable[[], float]]:
    """The runs to time; evaluations and class images only with the demo's models, as others take minutes."""
    sides = {"train.py, no class images, no evaluations": lambda: first_step(chosen, folder, BARE)}
    if size == "demo":
        again = f"data.class_images={folder / 'class-images'}"
        sides["train.py, demo config, with class images"] = lambda: first_step(chosen, folder, [again])
        sides["train.py, demo config, first start"] = lambda: _first_start(chosen, folder)
    return sides


def _first_start(chosen: Scale, folder: Path) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as images:
        return first_step(chosen, folder, [f"data.class_images={images}/class"])


def main() -> None:
    options = arguments(__doc__).parse_args()
    chosen = scale(options.size)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        sides = {**commands(), **trainings(chosen, Path(folder), options.size)}
        for side in sides.values():
            side()  # the files come from the disk the first time, and the class images are generated
        values = alternate(sides, options.rounds)
        parts = parts_of_a_start(chosen, Path(folder), options.rounds)
    assert python(*CONFIG_ERROR).returncode == 2
    notes = [
        "- Training is timed from the start of the process to the end of the first optimizer step. "
        + (
            "The demo config evaluates the untouched model before it; its first start also generates its class images."
            if options.size == "demo"
            else f"{chosen.pixels} px, precision {chosen.precision}."
        ),
        f"- Heavy packages imported by `--help`: {heavy_imports(HELP)}; by a config error: "
        f"{heavy_imports(CONFIG_ERROR)} (checked: {', '.join(HEAVY)}).",
    ]
    publish("Starting", options.size, [listing(values, SECONDS, "command"), "\n".join(notes)])
    about = f"- CPU time until the first step, {sum(parts.values()):.2f} s, without class images and evaluations."
    title = f"Where a start goes: {TITLES[options.size]}"
    publish_result(f"startup parts {options.size}", title, [shares(parts, "what is imported, in this order"), about])


if __name__ == "__main__":
    main()
