"""Time several sides in turn, compare their medians, and save the results in benchmarks/RESULTS.md or GPU.md."""

import argparse
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from finetune_monitor.base.text import counted

ROOT = Path(__file__).parents[1]
RESULTS = "BENCHMARK_RESULTS"
"""The variable that names another file for the results."""

ABOUT = """Each section names the command that wrote it. Run the command again to replace the section. A command runs
all methods in turn, in an order that changes from round to round. Medians and ranges are over the rounds. *Times as
fast* is the ratio of the medians. *Paired* is the median of the ratios within each round, so a machine that slows down
does not distort it.
"""

ON_CPU, ON_GPU = ("RESULTS.md", "Speed and memory, measured"), ("GPU.md", "Checks, speed, and memory on a GPU")
"""File and title of the results."""

TITLES = {"demo": "the demo's models", "sd15": "Stable Diffusion v1.5's size, random weights"}


@dataclass(frozen=True)
class Quantity:
    """A measured quantity, and how a side is compared with the first one.

    ratio: the meaning of the ratio, such as "times as fast".
    smaller_is_faster: the ratio is the first side's value over the other's; otherwise the other's over the first's.
    """

    unit: str
    ratio: str
    smaller_is_faster: bool
    digits: int = 2

    def over(self, first: float, other: float) -> float:
        return first / other if self.smaller_is_faster else other / first


SECONDS = Quantity("s", "times as fast", smaller_is_faster=True)
STEPS_PER_SECOND = Quantity("steps/s", "times as fast", smaller_is_faster=False)
GIB = Quantity("GiB", "times as much", smaller_is_faster=False)

LOAD = os.getloadavg()[0]
"""The load of the previous minute: with other work on the machine, the numbers are meaningless."""

Rounds = dict[str, list[float]]


def arguments(description: str, rounds: int = 3) -> argparse.ArgumentParser:
    """The options shared by all benchmarks."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", choices=list(TITLES), default="demo", help="which models")
    parser.add_argument("--rounds", type=int, default=rounds, help="how often every side runs")
    return parser


def seconds(action: Callable[[], Any]) -> Callable[[], float]:
    """A side that is measured by the time the action takes, including its pending GPU work."""

    def timed() -> float:
        wait_for_gpu()
        start = time.perf_counter()
        action()
        wait_for_gpu()
        return time.perf_counter() - start

    return timed


def alternate(sides: Mapping[str, Callable[[], float]], rounds: int) -> Rounds:
    """Every side's value in every round; each round starts one side later than the previous one."""
    names = list(sides)
    values: Rounds = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            values[name].append(sides[name]())
            print(f"round {number + 1} of {rounds}: {name}: {values[name][-1]:.4g}", file=sys.stderr, flush=True)
    return values


def comparison(values: Rounds, quantity: Quantity, label: str = "") -> str:
    """A Markdown table of sides; the others are compared with the first one."""
    first = next(iter(values.values()))
    rows = []
    for index, (name, found) in enumerate(values.items()):
        ratio = quantity.over(median(first), median(found))
        paired = median(quantity.over(a, b) for a, b in zip(first, found, strict=True))
        compared = (f"{ratio:.2f}", f"{paired:.2f}") if index else ("1", "1")
        rows.append((name, *_spread(found, quantity.digits), *compared))
    return table((label, f"median {quantity.unit}", "min to max", quantity.ratio, "paired"), rows)


def listing(values: Rounds, quantity: Quantity, label: str = "") -> str:
    """A Markdown table of quantities that are not compared with each other."""
    rows = [(name, *_spread(found, quantity.digits)) for name, found in values.items()]
    return table((label, f"median {quantity.unit}", "min to max"), rows)


def shares(parts: Mapping[str, float], label: str) -> str:
    """A Markdown table of seconds and their shares of the sum."""
    total = sum(parts.values())
    rows = [(name, f"{found:.2f}", f"{100 * found / total:.0f}%") for name, found in parts.items()]
    return table((label, "s", "share"), rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _spread(found: Sequence[float], digits: int) -> tuple[str, str]:
    return f"{median(found):.{digits}f}", f"{min(found):.{digits}f} to {max(found):.{digits}f}"


def publish(title: str, size: str, parts: Sequence[str]) -> None:
    """Print tables and notes, and replace this benchmark's section of the results."""
    publish_result(f"{Path(sys.argv[0]).stem} {size}", f"{title}: {TITLES[size]}", parts)


def publish_result(key: str, title: str, parts: Sequence[str]) -> None:
    """Print tables and notes, and replace a section of RESULTS.md, or of GPU.md on a machine with one."""
    name, heading = ON_GPU if gpu() else ON_CPU
    file = Path(os.environ.get(RESULTS) or Path(__file__).with_name(name))
    publish_section(file, f"# {heading}\n\n{ABOUT}", key, title, parts)


def publish_section(file: Path, preamble: str, key: str, title: str, parts: Sequence[str]) -> None:
    """Print tables and notes with the command and the machine, and replace a section of a file with them."""
    body = "\n\n".join([f"## {title}", f"`{_command()}`", machine(), *parts])
    print(f"\n{body}")
    sections = _sections(file.read_text(encoding="utf-8")) if file.exists() else {}
    sections[key] = body
    marked = [f"<!-- {name} -->\n{sections[name]}\n<!-- end -->\n" for name in sorted(sections)]
    file.write_text("\n".join([preamble, *marked]), encoding="utf-8")


def _sections(text: str) -> dict[str, str]:
    return dict(re.findall(r"<!-- (?!end)([^\n]+) -->\n(.*?)\n<!-- end -->", text, re.DOTALL))


def _command() -> str:
    """The command; paths outside the repository are reduced to their names."""
    words = [re.sub(r"(^|=)/.*/", r"\1", word) for word in sys.argv[1:]]
    spec = sys.modules["__main__"].__spec__
    program = f"-m {spec.name}" if spec else f"benchmarks/{Path(sys.argv[0]).name}"
    return " ".join(["python", program, *words])


def machine() -> str:
    """One line with GPU and processor, versions, date, and the machine's load when the benchmark started."""
    import torch

    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers"))
    threads = f"{counted(os.cpu_count() or 1, 'core')}, {counted(torch.get_num_threads(), 'thread')}"
    where = ", ".join(filter(None, [gpu(), _processor(), threads]))
    return f"{where}; Python {platform.python_version()}, {versions}; {date.today()}; load {LOAD:.1f} at the start"


def wait_for_gpu() -> None:
    """Wait until the GPU has finished its work; do nothing if torch is not in use."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def gpu() -> str | None:
    """The name of the GPU; None if there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _processor() -> str:
    """The processor's name; on Linux, `platform` only knows its family."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found.group(1) if found else platform.processor() or platform.machine()
