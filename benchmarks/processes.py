"""Measure an evaluation whose images are shared by one, two, or more processes; writes a section of SCALING.md.

python benchmarks/processes.py
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import RESULTS as OTHER_FILE
from measure import ROOT, SECONDS, Rounds, alternate, comparison, publish_section
from scaling import PREAMBLE, RESULTS

PARTS = ("render", "score")


def evaluated(processes: int, images: int) -> dict[str, float]:
    """Wall-clock seconds of the second evaluation, by its parts; the slowest process counts."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [*launcher, __file__, "--images", str(images), "--into", folder]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        found: dict[str, float] = json.loads((Path(folder) / "seconds.json").read_text())
        return found


def evaluate(images: int, folder: Path) -> None:
    """Evaluate twice, as one of the processes."""
    from accelerate import PartialState

    from finetune_monitor import FinetuneMonitor, PromptGrid
    from finetune_monitor.metrics.face_similarity import FaceSimilarity
    from models import DEMO, live_pipeline, scale

    state = PartialState(cpu=True)
    grid = PromptGrid(["a photo of sks person"], range(images), steps=8, guidance=3.0)
    metric = FaceSimilarity(DEMO / "photos/astronaut", recognizer="dlib")
    with FinetuneMonitor(live_pipeline(scale("demo"), "cpu"), grid, [metric], folder / "run", every=1) as monitor:
        monitor.on_step_end(1)
        found = monitor.evaluations[-1].seconds
    if state.is_main_process:
        (folder / "seconds.json").write_text(json.dumps(found))


def measure(processes: list[int], images: int, rounds: int) -> None:
    parts: dict[str, Rounds] = {part: {} for part in PARTS}

    def side(count: int) -> float:
        found = evaluated(count, images)
        for part in PARTS:
            parts[part].setdefault(name(count), []).append(found[part])
        return sum(found[part] for part in PARTS)

    total = alternate({name(count): lambda count=count: side(count) for count in processes}, rounds)
    tables = {"rendering and scoring": total, "rendering": parts["render"], "scoring": parts["score"]}
    publish_section(
        Path(os.environ.get(OTHER_FILE) or RESULTS),
        PREAMBLE,
        "processes",
        f"{images} images and more processes",
        [
            *(comparison(found, SECONDS, label) for label, found in tables.items()),
            "- Wall-clock seconds of the slowest process, of the second evaluation of a run; one thread per process.",
        ],
    )


def name(processes: int) -> str:
    return f"{processes} process{'es' if processes > 1 else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="numbers of processes to compare")
    parser.add_argument("--images", type=int, default=32, help="images of an evaluation")
    parser.add_argument("--rounds", type=int, default=5, help="how often every number is measured")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.into:
        evaluate(options.images, options.into)
    else:
        measure(options.processes, options.images, options.rounds)


if __name__ == "__main__":
    main()
