"""The sweep on the console: a live table on a terminal, otherwise one line per event."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from finetune_monitor.base.text import spoken, visible
from finetune_monitor.record.progress import in_words
from finetune_monitor.record.sweep_directory import TrialRecord, TrialState
from finetune_monitor.sweep.ledger import Ledger

SHOWN_SCORES = 3

NAME_WIDTH = 28
"""Characters of a trial's name on one line; scores are dropped to make room for them."""

AROUND = 8
"""Lines of the table's frame and of the text around it."""

REFRESH = 1.0
"""Seconds between two updates of the table."""

STATES_IN_WORDS = {TrialState.STOPPED_EARLY: "stopped early because it lagged behind the others"}


@dataclass
class Progress:
    """The progress of a running attempt: where it started, and how far it is."""

    since: float
    max_steps: int
    first_step: int | None = None
    step: int = 0
    scores: Mapping[str, float] | None = None
    first_at: float = 0.0
    at: float = 0.0
    alarms: Sequence[str] = ()

    def left(self, now: float) -> float | None:
        """Seconds until the last step at the speed since this attempt's first evaluation; None if unknown."""
        if self.first_step is None or self.step <= self.first_step:
            return None
        pace = (self.at - self.first_at) / (self.step - self.first_step)
        return max(0.0, (self.max_steps - self.step) * pace - (now - self.at))


class SweepTable:
    """Shows the ledger and the running trials' evaluations; `start` and `stop` show and remove the live table.

    Args:
        names: the scores to show.
        total: the final number of trials; a search creates them as it runs.
        max_steps: returns the number of steps of a trial.
    """

    def __init__(self, ledger: Ledger, names: Sequence[str], total: int, max_steps: Callable[[TrialRecord], int]):
        self._ledger, self._names, self._total = ledger, list(names)[:SHOWN_SCORES], total
        self._max_steps = max_steps
        self._running: dict[str, Progress] = {}
        self._lengths: list[float] = []
        self._failed: set[str] = set()
        self._console = Console(soft_wrap=True, highlight=False)
        self._live: Live | None = None
        self._drawn = 0.0
        self._most = 1

    def start(self) -> None:
        if self._console.is_terminal:
            self._live = Live(self._draw(), console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def begun(self, trial: TrialRecord) -> None:
        self._running[trial.name] = Progress(time.monotonic(), self._max_steps(trial))
        self._most = max(self._most, len(self._running))
        self._say(f"{trial.name}: {'started' if trial.attempts == 1 else f'resumed (attempt {trial.attempts})'}")

    def evaluated(self, trial: TrialRecord, result: Mapping[str, Any]) -> None:
        found = self._running.get(trial.name)
        if found is None:
            return
        found.step, found.scores, found.at = result["step"], result["scores"], time.monotonic()
        found.alarms = result.get("alarms", ())
        if result.get("again"):
            return  # nothing has happened yet, and this does not show the speed
        if found.first_step is None:
            found.first_step, found.first_at = found.step, found.at
        if not result.get("outcome"):
            self._say(f"{trial.name}: step {found.step}, {self._in_words(found)}")

    def ended(self, trial: TrialRecord, error: str | None = None) -> None:
        found = self._running.pop(trial.name, None)
        if trial.state == TrialState.WAITING:
            self._say(
                f"{trial.name}: retrying from its checkpoint: {error}" if error else f"{trial.name}: stopped",
                always=bool(error),
            )
        elif trial.state == TrialState.FAILED:
            self._failed.add(trial.name)
            self._say(f"{trial.name}: failed: {error}", always=True)
        else:
            if found is not None and trial.attempts == 1:
                self._lengths.append(time.monotonic() - found.since)
            last = "" if found is None else self._in_words(found)
            self._say(f"{trial.name}: {STATES_IN_WORDS.get(trial.state, trial.state.value)}{last and f' ({last})'}")

    def refresh(self) -> None:
        if self._live is not None and time.monotonic() - self._drawn > REFRESH:
            self._drawn = time.monotonic()
            self._live.update(self._draw(), refresh=True)

    def _in_words(self, found: Progress) -> str:
        """The scores of the last evaluation, and the columns whose alarm sounds."""
        alarms = f"ALARM: {', '.join(found.alarms)}" if found.alarms else ""
        return "; ".join(filter(None, (in_words(dict(found.scores or {}), self._names), alarms)))

    def _say(self, text: str, always: bool = False) -> None:
        """Print an event; on a terminal, where the table shows most of them, only if it could be missed."""
        if self._live is None or always:
            self._console.print(Text(visible(text)))

    def _draw(self) -> Group:
        names, name_width = self._fitting()
        table = Table(box=box.HEAVY_HEAD)
        for title, width in [("trial", name_width), *_columns(names)]:
            table.add_column(Text(title), width=width, overflow="fold")
        now, room = time.monotonic(), max(3, self._console.height - AROUND)
        shown = 0
        for name, found in self._running.items():
            lines = _heading(name, found)
            room -= sum(math.ceil(len(line) / name_width) for line in lines)
            if room < 0 and shown:
                break
            shown += 1
            scores = found.scores or {}
            numbers = [_number(scores.get(score)) for score in names]
            step = f"{found.step}/{found.max_steps}" if found.scores is not None else "starts"
            attempts = str(self._ledger[name].attempts)
            table.add_row(Text("\n").join(lines), step, *numbers, attempts, duration(found.left(now)))
        return Group(table, Text(self._summary(now, len(self._running) - shown)))

    def _fitting(self) -> tuple[list[str], int]:
        """The scores that fit next to the trials' names, and the width of the names."""
        longest = max((len(line) for running in self._running.items() for line in _heading(*running)), default=5)
        names = list(self._names)
        while True:
            room = self._console.width - 4 - sum(width + 3 for _, width in _columns(names))
            if room >= min(longest, NAME_WIDTH) or not names:
                return names, max(5, min(longest, room))
            names.pop()

    def _summary(self, now: float, more: int) -> str:
        counts = counted(self._ledger, self._total) + (f"; {more} more running" if more > 0 else "")
        left = self._left(now)
        return counts + (f"; about {duration(left)} left" if left is not None else "")

    def _left(self, now: float) -> float | None:
        """Seconds until the end: running trials, then waiting ones, at the pace of the trials so far."""
        lefts = [left for found in self._running.values() if (left := found.left(now)) is not None]
        over = sum(trial.state.is_over or trial.name in self._failed for trial in self._ledger)
        waiting = max(0, self._total - over - len(self._running))
        lengths = self._lengths or [
            now - found.since + left for found in self._running.values() if (left := found.left(now)) is not None
        ]
        if not lengths or (not lefts and not self._lengths):
            return None
        usual = sum(lengths) / len(lengths)
        return max(lefts, default=usual) + waiting * usual / self._most


def _columns(names: Sequence[str]) -> list[tuple[str, int]]:
    """Titles and widths of all columns except the first; titles break between words."""
    scores = [(title, max(6, *map(len, title.split()))) for title in (spoken(name) for name in names)]
    return [("step", 11), *scores, ("attempt", 7), ("left", 8)]


def _heading(name: str, found: Progress) -> list[Text]:
    """A trial's name, with a line for each of its alarms below it."""
    return [Text(visible(name)), *(Text(f"ALARM: {visible(alarm)}", "bold red") for alarm in found.alarms)]


def counted(trials: Ledger | Sequence[TrialRecord], total: int) -> str:
    """`3 of 12 finished, 1 stopped early, 2 running, 6 waiting`."""
    found = Counter(trial.state for trial in trials)
    found[TrialState.WAITING] = max(0, total - sum(n for state, n in found.items() if state != TrialState.WAITING))
    order = [TrialState.STOPPED_EARLY, TrialState.FAILED, TrialState.RUNNING, TrialState.WAITING]
    parts = [f"{found[state]} {state.value.replace('_', ' ')}" for state in order if found[state]]
    return ", ".join([f"{found[TrialState.FINISHED]} of {total} finished", *parts])


def duration(seconds: float | None) -> str:
    """`1:02:03`, `4:05`; `-` if unknown."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"
