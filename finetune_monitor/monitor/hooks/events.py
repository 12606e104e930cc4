"""What happens in a run, as JSON for those who want to know: an evaluation, an alarm, a new best step, the end."""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from finetune_monitor.base.redaction import redacted
from finetune_monitor.record.alarms import alarms_by_column, without_prompts
from finetune_monitor.record.evaluation import Evaluation, RunSummary
from finetune_monitor.sinks import RunInfo
from finetune_monitor.stats.estimate import Estimate, json_number, shown

EventName = Literal["evaluation", "alarm", "best", "end"]

EVENTS: tuple[EventName, ...] = ("evaluation", "alarm", "best", "end")

USUAL: tuple[EventName, ...] = ("alarm", "best", "end")


def check_events(events: Sequence[str]) -> None:
    """Check that all of these are known.

    Raises:
        ValueError: there are none, or one is not.
    """
    if not events or not set(events) <= set(EVENTS):
        raise ValueError(f"events: found {', '.join(events) or 'none'}, expected some of {', '.join(EVENTS)}")


class Events:
    """The events of a run, without its prompts; what was told before an interruption is not told again.

    Args:
        wanted: the names of the events.
    """

    def __init__(self, run: RunInfo, wanted: Sequence[str]) -> None:
        self._run, self._wanted = run, frozenset(wanted)
        self._sounding = run.sounding

    def of_evaluation(self, evaluation: Evaluation) -> Iterator[dict[str, Any]]:
        """The events that an evaluation is."""
        step, decision = evaluation.step, evaluation.decision
        found = alarms_by_column(evaluation, self._run.columns)
        said = {name: without_prompts(words, [evaluation]) for name, words in found.items()}
        new = {name: said[name] for name in self._run.new_alarms(evaluation, self._sounding)}
        self._sounding = evaluation.alarms
        about = {
            "step": step,
            "scores": {name: _score(each) for name, each in evaluation.scores.items()},
            "alarms": said,
            "best": {"metric": self._run.best_metric, "step": decision.best_step, "score": decision.best_score},
        }
        score = evaluation.scores.get(self._run.best_metric)
        reached = f"{self._run.best_metric} {shown(score)}" if score is not None else "nothing measured"
        yield from self._event("evaluation", f"step {step}: {reached}", about)
        if new:
            yield from self._event("alarm", f"step {step}: alarm: {'; '.join(new.values())}", {**about, "new": new})
        if step and decision.best_step == step and not self._run.was_told(evaluation):
            yield from self._event("best", f"step {step} is the best so far: {reached}", about)

    def of_end(self, summary: RunSummary) -> Iterator[dict[str, Any]]:
        """The event that the end of the run is."""
        verdict = [without_prompts(sentence, summary.evaluations) for sentence in summary.verdict]
        about = {
            "step": summary.step,
            "reason": None if summary.reason is None else str(summary.reason),
            "why": summary.why,
            "verdict": verdict,
            "best": {"metric": summary.best_metric, "step": summary.best_step, "score": summary.best_score},
        }
        yield from self._event("end", " ".join(verdict) or f"the run ended: {summary.why}", about)

    def _event(self, name: str, words: str, about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if name in self._wanted:
            place = self._run.output_dir.resolve()
            head = {"event": name, "id": secrets.token_hex(8), "time": time.time()}
            yield redacted(
                {**head, "run": place.name, "output_dir": str(place), "text": f"{place.name}: {words}", **about}
            )


def _score(found: Estimate) -> dict[str, Any]:
    numbers = {"mean": found.mean, "low": found.low, "high": found.high}
    return {**{name: json_number(value) for name, value in numbers.items()}, "n": found.n, "missing": found.missing}
