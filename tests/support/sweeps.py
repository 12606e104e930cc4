"""Small sweeps on the tiny pipeline, and the command that runs them, in a process of its own."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from finetune_monitor.record.sweep_directory import SweepState, TrialRecord, read_state
from support import preloaded
from support.places import DEMO, ROOT
from support.tiny import tiny_config

DEMO_AESTHETIC = {"clip": str(DEMO / "clip"), "pretrained": None, "head": str(DEMO / "aesthetic_head.safetensors")}
SET = {
    "monitor.sinks": {},
    "monitor.stopping": [],
    "monitor.metrics.face_similarity": None,
    "monitor.metrics.aesthetic": DEMO_AESTHETIC,
    "monitor.grid.seeds": [0],
}


def write_sweep(folder: Path, model: Path, photos: Path, **keys: Any) -> Path:
    """The YAML file of a sweep into `folder`/sweep over a few steps; `keys` are added, `set` to the usual one."""
    (folder / "base.yaml").write_text(tiny_config(folder, model, photos))
    path = folder / "sweep.yaml"
    content = {"base": str(folder / "base.yaml"), "output_dir": str(folder / "sweep"), **keys}
    content["set"] = {**SET, **keys.get("set", {})}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def start(path: Path, *overrides: str, python: str | None = None) -> subprocess.Popen:
    """The command, in a process group of its own as a shell would start it; its output in `path`'s folder.

    Args:
        python: for the command, Ray's workers, and trials; None: the preloaded one, which has a group of its own.
    """
    command = [python or preloaded.python(), "-m", "finetune_monitor.cli", "sweep", str(path), *overrides]
    with (path.parent / "output.txt").open("w") as output:
        return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)


def sweep(path: Path, *overrides: str) -> tuple[int, str]:
    """Run the command to its end: exit status and output."""
    status = start(path, *overrides).wait(300)
    return status, output(path)


def output(path: Path) -> str:
    return (path.parent / "output.txt").read_text()


def state(path: Path) -> SweepState:
    return read_state(path.parent / "sweep")


def trials(path: Path) -> dict[str, TrialRecord]:
    return {trial.name: trial for trial in state(path).trials}


def steps(path: Path, name: str) -> list[int]:
    lines = (path.parent / "sweep/trials" / name / "evaluations.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def children(path: Path) -> dict[str, int]:
    """The trials' own processes: name to process id."""
    found = {}
    for process in psutil.process_iter(["cmdline", "status"]):
        line = process.info["cmdline"] or []
        if "finetune_monitor.sweep.trials.process" in line and str(path.parent) in line[-1]:
            found[Path(line[-1]).stem] = process.pid
    return found


def wait_for(condition: Callable[[], Any], seconds: float = 200) -> Any:
    """What `condition` gives as soon as that is something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"nothing came of {condition} in {seconds} seconds")


def newest(path: Path, name: str) -> int:
    """The step of a trial's newest checkpoint; 0 where it has none."""
    folders = (path.parent / "sweep/trials" / name / "checkpoints").glob("step-*")
    return max((int(folder.name[5:]) for folder in folders), default=0)


def has_checkpoint(path: Path, name: str, after: int = 0) -> bool:
    return newest(path, name) > after


def log(path: Path, name: str) -> str:
    return (path.parent / "sweep/logs" / f"{name}.log").read_text()


TRAINS = "\ntraining: "
"""What a training prints right before its first step."""


def begun_at(path: Path, name: str) -> list[int]:
    """The step at which each attempt at a trial began to train, by its first lines."""
    attempts = re.split(r"--- \d{4}-\d\d-\d\dT", log(path, name))[1:]  # a killed one leaves half a line
    found = [re.search(r"^output: .*?(?:resuming at step (\d+))?$", text, re.M) for text in attempts if TRAINS in text]
    return [int(match[1] or 0) for match in found if match]


def end(process: subprocess.Popen) -> None:
    """Whatever a test left running."""
    if process.poll() is None:
        os.kill(process.pid, 9)
        process.wait()
