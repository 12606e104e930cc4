"""Notes on a sweep's verdicts: what their intervals cover, what they do not, and which trials are missing."""

from collections.abc import Iterator, Sequence

from finetune_monitor.base.text import first_line
from finetune_monitor.record.sweep_directory import TrialState
from finetune_monitor.report.sweep_answer.alarms import alarm_notes
from finetune_monitor.report.sweep_answer.results import HELD_OUT_PHOTOS, PHOTOS, TRAINING_PHOTOS, Result, Results

FEW_UNITS = 5

TRIALS_NAMED = 5
"""How many trials a note names before it only counts the rest."""

NO_CAUSE = "unknown reason"


def units_in_words(results: Results) -> str:
    """What the intervals are over, and how many there are."""
    if results.unit == "image":
        return "the images of one training run"
    over, planned = _units(results, _over(results)), _units(results, results.all)
    noun = "people" if results.unit == "person" else "training seeds"
    if over == planned:
        return f"{planned} {noun}"
    return f"{over} of {planned} {noun}" + ("" if results.has_ended else " so far")


def notes_on(results: Results, intervals: int) -> tuple[str, ...]:
    """All notes that apply.

    Args:
        intervals: how many changes the verdicts are based on.
    """
    notes = [*_notices(results), _on_units(results), *_on_photos(results), *_on_steps(results)]
    if intervals > 1:
        notes.append(
            f"each interval has 95% confidence by itself; the verdicts use {intervals} of them, and about 1 in 20 "
            "shows a change where there is none"
        )
    return (*notes, *_on_trials(results))


def _over(results: Results) -> list[Result]:
    return [each for each in results.all if each.trial.state.is_over]


def _units(results: Results, among: Sequence[Result]) -> int:
    """The number of people, or otherwise of training seeds."""
    return len({each.trial.person if results.unit == "person" else each.trial.seed for each in among})


def _notices(results: Results) -> list[str]:
    """The notices of the runs."""
    return list(dict.fromkeys(notice for each in results.all if each.history for notice in each.history.notices))


def _on_units(results: Results) -> str:
    if results.unit == "image":
        return (
            "one training run per setting: intervals are over its images, and changes compare the same prompts "
            "and seeds; they do not cover how another training run on the same photos would turn out"
        )
    if results.unit == "person":
        averaged = ", seeds of a person averaged first" if len({each.trial.seed for each in results.all}) > 1 else ""
        text = f"intervals are over people{averaged}, each compared with itself: they apply to other people like these"
    else:
        text = (
            "intervals are over training seeds, each compared with itself: they cover how much training runs on the "
            "same photos vary, but not other photos or another person"
        )
    few = _units(results, results.all) < FEW_UNITS
    return text + (f"; {units_in_words(results)} are few: only large changes can be detected" if few else "")


def _on_photos(results: Results) -> Iterator[str]:
    """A note that similarity to the photos used is not comparable between numbers of photos."""
    scores = [name for name, column in results.metrics.items() if column.role == "score"]
    compared = [name for name in scores if results.compares_with(name, TRAINING_PHOTOS)]
    if results.axis.key != PHOTOS or not compared:
        return
    used = f"{compared[0]} compares with the photos used, which differ for each number of photos"
    fixed = next((name for name in scores if results.compares_with(name, HELD_OUT_PHOTOS)), None)
    if fixed is None:
        yield f"{used}; with data.held_out, every run would also be compared with the same photos"
        return
    counts = {each.photos_of(fixed, HELD_OUT_PHOTOS) for each in results.all if fixed in each.metrics}
    those = f"the same {max(counts)}" if len(counts) == 1 else "the same held-out photos"
    each = " of a person" if results.unit == "person" else ""
    yield f"{used}; {fixed} compares with {those}{each} for all"


def _on_steps(results: Results) -> Iterator[str]:
    if not results.metrics:
        return
    yield (
        "the best step is chosen by the same images that determine its score, so the score is slightly optimistic; "
        "the last step is not chosen"
    )
    ended = {each.last_step for each in _in_state(results, TrialState.FINISHED) if each.last_step is not None}
    if len(ended) > 1:
        yield "runs ended at different steps; each run has its own last step, and later steps have fewer runs"
    over = [each for each in _over(results) if each.best_step is not None]
    rising = sum(each.best_step == each.last_step for each in over)
    if rising > len(over) / 2:
        yield f"in {rising} of {_trials(len(over))} the best step is the last: more steps may be even better"
    if lagging := [each for each in results.all if results.lags(each)]:
        yield (
            f"{_trials(len(lagging))} stopped early for lagging behind: excluded from the last step's comparison, and "
            "with fewer evaluations to choose the best step from"
        )


def _on_trials(results: Results) -> Iterator[str]:
    """Notes on trials that are not in the comparisons, with the reasons, and on trials with alarms."""
    open_ones = [each for each in results.all if each.trial.state.is_open]
    if open_ones:
        yield (
            f"{len(open_ones)} of {_trials(len(results.all))} have not ended: they appear only in the curves over the "
            "steps"
        )
    if failed := _in_state(results, TrialState.FAILED):
        yield from _listed([f"{each.trial.name} failed: {_cause(each.trial.error or NO_CAUSE)}" for each in failed])
    yield from _listed([f"{each.trial.name}: {problem}" for each in results.all for problem in each.problems])
    yield from _listed(list(_unmeasured(results)))
    yield from _listed(list(alarm_notes(results)))


def _unmeasured(results: Results) -> Iterator[str]:
    for each in results.all:
        over = each.trial.state.is_over and each.evaluations
        missing = [metric for metric in each.metrics if over and results.chosen(each, metric, "best") is None]
        if missing:
            yield f"{each.trial.name}: {', '.join(missing)} could not be measured in enough images of any evaluation"


def _cause(error: str) -> str:
    """The first line of an error, with the first of the problems that it announces."""
    _, _, problems = error.partition(":\n")
    first = first_line(error)
    return f"{first} {first_line(problems.lstrip(' -'))}" if problems and first.endswith(":") else first


def _in_state(results: Results, state: TrialState) -> list[Result]:
    return [each for each in results.all if each.trial.state is state]


def _listed(notes: Sequence[str]) -> list[str]:
    more = len(notes) - TRIALS_NAMED
    return [*notes[:TRIALS_NAMED], *([f"and {_trials(more)} more"] if more > 0 else [])]


def _trials(count: int) -> str:
    return f"{count} trial" + ("" if count == 1 else "s")
