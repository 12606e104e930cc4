"""Which weights of a run are kept, and the model card of the best ones."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from finetune_monitor.models.export import Label, exports_lora, not_exported
from finetune_monitor.models.pipeline import Pipeline
from finetune_monitor.monitor.evaluator import WarnOnce
from finetune_monitor.monitor.keeping import resolved_keep, steps_to_keep
from finetune_monitor.monitor.stopping import StoppingRule, rejectable_from
from finetune_monitor.monitor.weights_keeper import WeightsKeeper
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import read_run
from finetune_monitor.record.kept_weights import adapters_in_words
from finetune_monitor.sinks.model_card import own_fields, write_card
from finetune_monitor.stats.estimate import MISSING, json_number


class RunWeights:
    """Keeps the weights of evaluated steps in `weights/`, and the best ones with their card in `best/`.

    A failure, as on a full disk, is a warning.

    Args:
        scheduler: what complete pipelines are exported with.
        rules: those that may reject steps.
        best_metric: the column that determines the best step.
        keep: the steps to keep, as `FinetuneMonitor` takes them.
        trigger: words that ask for the subject.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        scheduler: Any,
        output_dir: Path,
        grid: PromptGrid,
        columns: Mapping[str, ScoreColumn],
        rules: Sequence[StoppingRule],
        best_metric: str,
        keep: str,
        trigger: str,
        warn: WarnOnce,
    ) -> None:
        self._pipeline, self._output_dir, self._grid = pipeline, output_dir, grid
        self._columns, self._rules, self._best_metric = columns, rules, best_metric
        self._chosen, self._trigger, self._warn = keep, trigger, warn
        self._keeper = WeightsKeeper(pipeline, scheduler, output_dir, warn)

    def begin(self, steps: Sequence[int]) -> None:
        """Keep the weights that belong to a run resumed with these evaluated steps."""
        self._keeper.begin(steps)

    def has(self, step: int) -> bool:
        """Whether the weights of a step are there, or need not be."""
        return self._keeper.has(step)

    def keep(self, earlier: Sequence[Evaluation], evaluation: Evaluation, rendered: Sequence[Image | None]) -> None:
        """Keep the live weights, those of the evaluation, if they may be wanted, and drop what no longer is."""
        if not self._pipeline.components:
            return
        history = [*(each for each in earlier if each.step < evaluation.step), evaluation]
        try:
            label = Label(self._output_dir.resolve().name, self._trigger, self._best_image(evaluation, rendered))
            self._warn_of_others()
            keep = resolved_keep(self._chosen, exports_lora(self._pipeline))
            rejectable = rejectable_from(self._rules, history, self._columns)
            steps = steps_to_keep(keep, history, self._columns, self._best_metric, rejectable)
            self._keeper.keep(evaluation.step, steps, self._note(evaluation), label)
            own = own_fields(self._keeper.best)
            if self._keeper.choose(evaluation.decision.best_step):
                self._write_card(own)
        except Exception as error:
            self._warn("weights", f"{self._output_dir}: cannot keep the weights: {error!r}")

    def _warn_of_others(self) -> None:
        """Warn that the images have adapters that are not among the weights."""
        if others := not_exported(self._pipeline):
            self._warn(
                "other adapters",
                f"{self._output_dir}: images and scores are made with other active adapters, too, but the kept weights "
                f"are only those that are trained; found {adapters_in_words(others)}; load these beside the kept "
                "weights to get the same images, or activate only what is trained (pipeline.set_adapters)",
            )

    def write_card(self) -> None:
        """Write the model card of the best weights again, with the fields that somebody has set in it."""
        self._write_card(own_fields(self._keeper.best))

    def _write_card(self, own: Mapping[str, Any]) -> None:
        best = self._keeper.best
        if not best.is_dir():
            return
        try:
            write_card(read_run(self._output_dir), best, own)
        except Exception as error:
            self._warn("card", f"{best}: cannot write the model card: {error!r}")

    def _note(self, evaluation: Evaluation) -> dict[str, Any]:
        """What the file beside the weights says of their step."""
        return {
            "step": evaluation.step,
            "metric": self._best_metric,
            "scores": {name: json_number(estimate.mean) for name, estimate in evaluation.scores.items()},
            "grid": self._grid.fingerprint(),
        }

    def _best_image(self, evaluation: Evaluation, rendered: Sequence[Image | None]) -> Image | None:
        """The image with the best score; None where none was measured."""
        sign = 1.0 if self._columns.get(self._best_metric, ScoreColumn()).more_is_better else -1.0
        scored = [
            (sign * score, image)
            for each, image in zip(evaluation.images, rendered, strict=True)
            if image is not None and math.isfinite(score := each.scores.get(self._best_metric, MISSING))
        ]
        return max(scored, key=lambda pair: pair[0], default=(0.0, None))[1]
