"""Score what the paths hold, once or as files appear, and say what is best."""

import logging
import time
from collections.abc import Sequence

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import list_images
from finetune_monitor.base.interrupts import Interrupt, watched_signals
from finetune_monitor.base.text import visible
from finetune_monitor.models.loading import hide_loading
from finetune_monitor.record.history import read_run
from finetune_monitor.report.page import INDEX, write_page
from finetune_monitor.report.sink import FOLDER as PAGE
from finetune_monitor.scoring.folder import ScoreFolder
from finetune_monitor.scoring.of_images import ImageScores
from finetune_monitor.scoring.of_weights import WeightScores
from finetune_monitor.scoring.settings import Options
from finetune_monitor.scoring.sources import Sources, find_sources
from finetune_monitor.scoring.verdict import verdict

logger = logging.getLogger(__name__)

POLL = 2.0
"""Seconds between two looks for new files."""


def score(options: Options) -> int:
    """Score everything, print the verdict, and return the exit status.

    Raises:
        UserError: a problem that the user can fix.
    """
    with watched_signals("stopping after this evaluation; everything scored so far is recorded") as interrupt:
        sources = _checked(options)
        hide_loading()
        folder = ScoreFolder(options.output_dir, options.paths, options.base or sources.base)
        scores = _scores(options, sources, folder)
        for each in scores:
            each.prepare()
        _rounds(scores, options.watch, interrupt)
        _report(folder, scores)
    return interrupt.exit_status


def _checked(options: Options) -> Sources:
    """What the paths hold, after everything that can be checked in a moment."""
    if options.references is not None:
        list_images(options.references)
    sources = find_sources(options.paths, options.base, options.watch)
    if options.strengths is not None and not sources.weights:
        raise UserError(
            "--strengths: found no LoRA file, expected one, because only a LoRA has a strength; leave it out"
        )
    return sources


def _scores(options: Options, sources: Sources, folder: ScoreFolder) -> list[ImageScores | WeightScores]:
    found: list[ImageScores | WeightScores] = [ImageScores(options, path, folder) for path in sources.images]
    if sources.weights or sources.base:
        found.append(WeightScores(options, sources.weights, options.base or str(sources.base), folder))
    return found


def _rounds(scores: Sequence[ImageScores | WeightScores], watch: bool, interrupt: Interrupt) -> None:
    """One look at the files, or one after the other until a signal comes."""
    for each in scores:
        each.score(interrupt)
    if watch and not interrupt.asked():
        print("watching for new files; Ctrl-C ends", flush=True)
    while watch and not interrupt.asked():
        _wait(POLL, interrupt)
        for each in scores:
            each.score(interrupt)


def _wait(seconds: float, interrupt: Interrupt) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not interrupt.asked():
        time.sleep(0.1)


def _report(folder: ScoreFolder, scores: Sequence[ImageScores | WeightScores]) -> None:
    """Print where the scores are and what they say; several runs get a page that shows them together."""
    runs = folder.runs
    if not runs:
        print("nothing was scored")
        return
    if len(runs) > 1:
        write_page(folder.folder / PAGE, list(runs.values()))
    print()
    for each in scores:
        own = [(read_run(runs[name]), each.names(name)) for name in each.run_names if name in runs]
        for line in verdict(own, each.has_base):
            print(f"verdict:  {visible(line)}")
    if (page := folder.folder / PAGE / INDEX).exists():
        print(f"page:     {page.resolve().as_uri()}")
    for place in runs.values():
        print(f"run:      {visible(str(place))}")
