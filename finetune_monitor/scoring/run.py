"""Score what the paths hold, once or as files appear, and say what is best."""

import logging
import time
from collections.abc import Mapping, Sequence

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import list_images
from finetune_monitor.base.interrupts import Interrupt, watched_signals
from finetune_monitor.base.text import spoken, visible
from finetune_monitor.models.loading import hide_loading
from finetune_monitor.record.history import RunHistory, read_run
from finetune_monitor.report.page import INDEX, write_page
from finetune_monitor.report.sink import FOLDER as PAGE
from finetune_monitor.scoring.folder import ScoreFolder
from finetune_monitor.scoring.of_images import ImageScores
from finetune_monitor.scoring.of_weights import WeightScores
from finetune_monitor.scoring.settings import Options, model_in
from finetune_monitor.scoring.sources import Sources, find_sources
from finetune_monitor.scoring.verdict import BASE, verdict
from finetune_monitor.sinks.console import print_estimates, print_summary
from finetune_monitor.stats.estimate import NO_ESTIMATE

logger = logging.getLogger(__name__)

POLL = 2.0
"""Seconds between two checks for new files."""


def score(options: Options) -> int:
    """Score everything, print the verdict, and return the exit status.

    Raises:
        UserError: a problem that the user can fix.
    """
    with watched_signals("stopping after this evaluation; everything scored so far is recorded") as interrupt:
        sources = _checked(options)
        hide_loading()
        folder = ScoreFolder(options.output_dir, options.paths, sources.base)
        scores = _scores(options, sources, folder)
        for each in scores:
            each.prepare()
        _rounds(scores, options.watch, interrupt)
        _report(folder, scores)
    return interrupt.exit_status


def _checked(options: Options) -> Sources:
    """What the paths hold, after all quick checks."""
    if options.references is not None:
        list_images(options.references)
    sources = find_sources(options.paths, options.base, model_in(options.config), options.watch)
    if options.strengths is not None and not sources.weights:
        raise UserError(
            "--strengths: found no LoRA file, expected one, because only a LoRA has a strength; leave --strengths out"
        )
    return sources


def _scores(options: Options, sources: Sources, folder: ScoreFolder) -> list[ImageScores | WeightScores]:
    found: list[ImageScores | WeightScores] = [ImageScores(options, path, folder) for path in sources.images]
    if sources.base is not None:
        found.append(WeightScores(options, sources.weights, sources.base, folder))
    return found


def _rounds(scores: Sequence[ImageScores | WeightScores], watch: bool, interrupt: Interrupt) -> None:
    """One look at the files, or one after the other until a signal comes."""
    for each in scores:
        each.score(interrupt)
    if watch and not interrupt.asked():
        print("watching for new files; press Ctrl-C to stop", flush=True)
    while watch and not interrupt.asked():
        _wait(POLL, interrupt)
        for each in scores:
            each.score(interrupt)


def _wait(seconds: float, interrupt: Interrupt) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not interrupt.asked():
        time.sleep(0.1)


def _report(folder: ScoreFolder, scores: Sequence[ImageScores | WeightScores]) -> None:
    """Print the scores, the verdict, and where they are; several runs get a page that shows them together."""
    runs = folder.runs
    if not runs:
        print("nothing was scored")
        return
    if len(runs) == 1:
        print_summary(read_run(next(iter(runs.values()))))
    else:
        write_page(folder.folder / PAGE, list(runs.values()))
    for each in scores:
        own = [(read_run(runs[name]), each.names(name)) for name in each.run_names if name in runs]
        if len(own) > 1:
            _print_scores(own, each.has_base)
        for line in verdict(own, each.has_base):
            print(f"verdict:  {visible(line)}")
    if len(runs) > 1:
        print(f"page:     {(folder.folder / PAGE / INDEX).resolve().as_uri()}")
    for place in runs.values():
        print(f"run:      {visible(str(place))}")


def _print_scores(runs: Sequence[tuple[RunHistory, Mapping[int, str]]], has_base: bool) -> None:
    """Print the scores of every file at every strength."""
    columns = [name for name, column in runs[0][0].main_columns.items() if column.role == "score"]
    rows = {
        BASE if has_base and each.step == 0 else names.get(each.step, f"step {each.step}"): [
            each.scores.get(name, NO_ESTIMATE) for name in columns
        ]
        for history, names in runs
        for each in history.evaluations
    }
    for notice in runs[0][0].notices:
        print(visible(notice))
    print_estimates([spoken(name) for name in columns], rows)
