"""Render the best and the last step of a fast run once more at full quality, from the weights that were kept."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from PIL.Image import Image

from finetune_monitor.base import distributed
from finetune_monitor.metrics import OfModel, unwrapped
from finetune_monitor.models.exported import put_weights
from finetune_monitor.monitor.evaluator import Evaluator, FoundImages
from finetune_monitor.record.evaluation import Evaluation, StopReason, summarize
from finetune_monitor.record.kept_weights import kept_weights, weights_at
from finetune_monitor.rendering.isolation import isolated
from finetune_monitor.rendering.renderer import Renderer

NO_RESULT = (StopReason.INTERRUPTED, StopReason.FAILED, StopReason.NOT_FINITE)
"""Reasons after which a run has no result to show, or goes on later."""

Found = tuple[Evaluation, Sequence[Image | None]]


class FullQuality:
    """Measures steps at full quality; its scores are kept apart from those of the run's own evaluations.

    Scores that `metrics.Derives` makes of the history are left out: they compare with evaluations of another quality.

    Args:
        evaluator: of the run.
        interrupted: whether the training loop was told to end; no further step is rendered then.
    """

    def __init__(self, output_dir: Path, evaluator: Evaluator, interrupted: Callable[[], bool]) -> None:
        self._output_dir, self._evaluator, self._interrupted = output_dir, evaluator, interrupted

    def of(
        self, history: Sequence[Evaluation], best_step: int | None, reason: object, say: Callable[[str], object]
    ) -> Iterator[Found]:
        """The best and the last step, with their images; nothing if the run was not fast, or has no result.

        Every process must ask for all of them.

        Args:
            reason: why the run ended.
            say: shows what is about to be rendered.
        """
        fast = self._evaluator.renderer
        steps = [step for step in dict.fromkeys((best_step, history[-1].step if history else None)) if step]
        if isinstance(fast, FoundImages) or reason in NO_RESULT or not steps:
            return
        if (grid := fast.grid.at_full_quality).steps == fast.grid.steps:
            return
        renderer = Renderer(fast.pipeline, grid, fast.autocast)
        by_step = {evaluation.step: evaluation for evaluation in history}
        for step in steps:
            if any(distributed.gather(self._interrupted())):  # also waits until the first process has kept the weights
                say(f"step {step}: not rendered at full quality, because the run was told to end")
                return
            found = self._measured(renderer, by_step[step], say)
            if found is not None:
                yield found

    def _measured(self, renderer: Renderer, evaluation: Evaluation, say: Callable[[str], object]) -> Found | None:
        """None if the step's weights are not there, or do not fit the modules."""
        metrics = [metric for metric in self._evaluator.metrics if not isinstance(unwrapped(metric), OfModel)]
        evaluator = replace(self._evaluator, renderer=renderer, metrics=metrics)
        evaluator.code.begin()
        with isolated(renderer.pipeline):
            if not all(distributed.gather(self._put(renderer, evaluation.step))):
                return None
            steps = f"{renderer.grid.steps} steps instead of {self._evaluator.renderer.grid.steps}"
            say(f"step {evaluation.step}: rendering at full quality, {steps}")
            found = evaluator.measure()
        scores = summarize(found.images, evaluator.columns)
        step, epoch = evaluation.step, evaluation.epoch
        return Evaluation(step, epoch, time.time(), scores, found.images, found.seconds), found.rendered

    def _put(self, renderer: Renderer, step: int) -> bool:
        """Whether this process could give the modules the weights of a step."""
        try:
            return put_weights(renderer.pipeline, weights_at(self._output_dir, step, kept_weights(self._output_dir)))
        except Exception as error:
            text = f"{self._output_dir}: cannot render step {step} at full quality: cannot load its weights: {error!r}"
            self._evaluator.warn(f"weights {step}", text)
            return False
