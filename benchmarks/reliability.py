"""Inject faults, damage files, flip bits, kill processes, and count what is lost; writes benchmarks/RELIABILITY.md.

python -m benchmarks.reliability
"""

import argparse
import ast
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.text import counted, table
from finetune_monitor.studies.labeling.ratings import Rating
from finetune_monitor.studies.labeling.storage import RATINGS, RatingStore
from finetune_monitor.training import checkpoints
from finetune_monitor.training.config import TrainConfig
from finetune_monitor.training.loop import make_optimizer
from finetune_monitor.training.manifest import MANIFEST
from finetune_monitor.training.trainable import Trainable, average, make_trainable

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import tiny
from support.fuzz import Outcome, fuzz, targets

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("RELIABILITY.md")
FAULTS = ROOT / "tests/faults"

SEED, EACH = 1, 400
BITS = 2000
KILLS = 40
ROUNDS = 7

LORA, LARGE = 797_184, 12_754_944
"""Parameters of a LoRA for the attention layers of Stable Diffusion v1.5's UNet, of rank 4 and of rank 64."""


def fault_rows() -> Iterator[list[str]]:
    """Each file of tests/faults: the fault, and how many of its cases pass."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", str(FAULTS)]
        subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT)
        cases = list(ElementTree.parse(report).iter("testcase"))
    injected: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for case in cases:
        name = str(case.get("classname")).rpartition(".")[2]
        outcome = {child.tag for child in case}
        if "skipped" in outcome:
            skipped[name] += 1
        else:
            injected[name] += 1
            survived[name] += not outcome & {"failure", "error"}
    for path in sorted(FAULTS.glob("test_*.py")):
        name = path.stem
        fault = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
        link = f"[`{path.name}`](../tests/faults/{path.name})"
        more = f" ({skipped[name]} skipped)" if skipped[name] else ""
        yield [fault, link, f"{injected[name]}{more}", str(survived[name])]


def input_rows() -> Iterator[list[str]]:
    """Each area: the files, the mutations tried, refused, and read, and the exceptions that are no `UserError`."""
    areas: dict[str, list[tuple[str, Outcome]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, target in enumerate(tqdm(targets(Path(folder) / "files"), desc="files")):
            with redirect_stdout(StringIO()):
                outcome = fuzz(target, SEED + number, EACH)
            areas.setdefault(target.area, []).append((target.path.name, outcome))
            for foreign in outcome.foreign:
                tqdm.write(foreign)
    everything = [outcome for found in areas.values() for _, outcome in found]
    for area, found in areas.items():
        names = ", ".join(dict.fromkeys(f"`{name}`" for name, _ in found))
        yield [area, names, *_sums([outcome for _, outcome in found])]
    yield ["all", "", *_sums(everything)]


def _sums(outcomes: list[Outcome]) -> list[str]:
    tried, refused = sum(each.tried for each in outcomes), sum(each.refused for each in outcomes)
    foreign = sum(len(each.foreign) for each in outcomes)
    return [f"{number:,}" for number in (tried, refused, tried - refused - foreign, foreign)]


def bit_rows() -> Iterator[list[str]]:
    """Each file of a checkpoint: its bits, those flipped, and what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = _small_checkpoint(Path(folder))
        expected = checkpoints.read(checkpoint)
        for path in sorted(checkpoint.iterdir()):
            whole = path.read_bytes()
            bits = range(8 * len(whole))
            chosen = bits if path.name == MANIFEST else sorted(random.Random(SEED).sample(bits, min(BITS, len(bits))))
            found = Counter(_flipped(path, whole, bit, expected) for bit in tqdm(chosen, desc=path.name))
            path.write_bytes(whole)
            counts = [len(bits), len(chosen), found["refused"], found["without effect"], found["other content"]]
            yield [f"`{path.name}`", *(f"{count:,}" for count in counts)]


def _small_checkpoint(folder: Path) -> Path:
    config = TrainConfig(rank=1)
    trainable = make_trainable(tiny.stable_diffusion(), config, 0)
    trainable.ema = average(trainable, 0.9)
    optimizer = make_optimizer(trainable, config)
    for parameter in trainable.parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    checkpoints.save(folder, 10, trainable, optimizer, {"model": "x", "train.rank": 1}, {"scale": 2.0}, keep=1)
    return folder / "step-000010"


def _flipped(path: Path, whole: bytes, bit: int, expected: checkpoints.Checkpoint) -> str:
    changed = bytearray(whole)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    try:
        return "without effect" if checkpoints.read(path.parent) == expected else "other content"
    except UserError:
        return "refused"


class Layers(nn.Module):
    """As many parameters as a LoRA has, in as many tensors."""

    def __init__(self, count: int, tensors: int = 256):
        super().__init__()
        self.layers = nn.ParameterList(torch.randn(count // tensors) for _ in range(tensors))


def checkpoint_rows(folder: Path) -> Iterator[list[str]]:
    """Each size: what a checkpoint takes to write and to verify, in ms, and on the disk, in MB."""
    for name, count in (("rank 4", LORA), ("rank 64", LARGE)):
        trainable = Trainable({"unet": Layers(count)})
        optimizer = torch.optim.AdamW(trainable.parameters.values())
        for parameter in trainable.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        written, read = [], []
        for step in range(1, ROUNDS + 1):
            start = time.perf_counter()
            checkpoints.save(folder, step, trainable, optimizer, {}, {}, keep=2)
            middle = time.perf_counter()
            found = checkpoints.find(folder, "auto")
            written.append(1000 * (middle - start))
            read.append(1000 * (time.perf_counter() - middle))
        assert found is not None
        size = sum(path.stat().st_size for path in found.folder.iterdir()) / 1e6
        shutil.rmtree(folder)
        yield [f"LoRA, {name}, AdamW", f"{count:,}", f"{size:.1f}", _median(written), _median(read)]


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} [{min(values):.0f}, {max(values):.0f}]"


def ratings_lost() -> tuple[int, int]:
    """Ratings whose writer was told that they are on disk, and those of them that are not there after it was killed."""
    acknowledged: set[str] = set()
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        store = RatingStore(Path(folder) / RATINGS)
        store.create()
        for number in tqdm(range(KILLS), desc="kills"):
            acknowledged |= _rated_until_killed(store, f"labeler-{number}", rng.uniform(0.02, 0.4))
        there = {f"{rating.labeler} {rating.image_id}" for rating in store.all()}
    return len(acknowledged), len(acknowledged - there)


def _rated_until_killed(store: RatingStore, labeler: str, seconds: float) -> set[str]:
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        for number in range(1_000_000):
            rating = Rating(f"image-{number}", labeler, "m", 1 + number % 5, "2026-01-02T03:04:05.678Z", 900)
            store.add(f"{labeler}-{number}", rating)
            os.write(theirs, f"{labeler} {rating.image_id}\n".encode())
    os.close(theirs)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open(ours) as stream:
        return set(stream.read().split("\n")[:-1])


def report() -> str:
    """The text of RELIABILITY.md."""
    faults, inputs, bits = list(fault_rows()), list(input_rows()), list(bit_rows())
    with tempfile.TemporaryDirectory() as folder:
        costs = list(checkpoint_rows(Path(folder) / "checkpoints"))
    acknowledged, lost = ratings_lost()
    injected = sum(int(re.match(r"\d+", row[2])[0]) for row in faults)
    survived = sum(int(row[3]) for row in faults)
    fault_columns = ["fault", "test", "cases", "passed"]
    input_columns = ["what", "files", "mutations", "refused", "read", "unexpected exceptions"]
    bit_columns = ["file", "bits", "flipped", "refused", "without effect", "other content"]
    cost_columns = ["checkpoint", "parameters", "MB", "written in ms", "verified in ms"]
    left, many = ["---", "---"], ["---:"] * 5
    return f"""# Faults, damage, and loss, measured

Written by `python -m benchmarks.reliability`, with fixed seeds. Processes, signals, disks, and file systems are real
wherever they can be: child processes are killed, small file systems fill up, and mounts refuse operations.

## Faults

{injected:,} cases inject faults, and {survived:,} of them pass: nothing is lost, and a message says what happened.

{table(fault_columns, faults, [*left, "---:", "---:"])}

## Damaged files

Values, lines, and bytes of small intact files were replaced, cut, repeated, or overwritten. A damaged file is either
refused with a message for the user, or read. Any other exception is unexpected.

{table(input_columns, inputs, [*left, *many[:4]])}

## Flipped bits of a checkpoint

All bits of the manifest, and up to {BITS:,} of each other file, were flipped one at a time.

{table(bit_columns, bits, ["---", *many])}

## The cost of a checkpoint

Writing includes hashes and flushing to the disk. Medians and ranges of {ROUNDS} checkpoints, on {_cores()}.

{table(cost_columns, costs, ["---", *many[:4]])}

## Ratings

Processes that add ratings were killed {counted(KILLS, "time")} with SIGKILL: {acknowledged:,} ratings were
acknowledged, {lost:,} of them lost.
"""


def _cores() -> str:
    return f"{counted(os.cpu_count() or 1, 'CPU core')} shared with other programs"


def main() -> None:
    """Measure everything, which takes two minutes, and write the tables."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    RESULTS.write_text(report())
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
