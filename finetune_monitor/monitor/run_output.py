"""What a monitor leaves and shows: the record, the kept weights, the sinks, and the hooks."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.paths import as_typed
from finetune_monitor.monitor.audience import Audience
from finetune_monitor.monitor.evaluator import WarnOnce
from finetune_monitor.monitor.run_weights import RunWeights
from finetune_monitor.record.evaluation import Decision, Evaluation, RunSummary
from finetune_monitor.record.grid import Cell, PromptGrid
from finetune_monitor.record.history import read_run
from finetune_monitor.record.references import keep_references
from finetune_monitor.record.run_directory import is_held_here
from finetune_monitor.record.run_record import RunRecord, content_of_run, recorded
from finetune_monitor.sinks import RunInfo, Sink
from finetune_monitor.sinks.console import print_summary


class RunOutput:
    """Writes and shows on the first process; on the others it is never opened, and does nothing.

    What cannot be written is warned about, and training continues.

    Attributes:
        record: the writer of the run directory; None until `open`.
    """

    def __init__(
        self, output_dir: Path, grid: PromptGrid, weights: RunWeights, audience: Audience, warn: WarnOnce
    ) -> None:
        self._output_dir, self._grid = output_dir, grid
        self._weights, self.audience, self._warn = weights, audience, warn
        self.record: RunRecord | None = None

    @property
    def is_open(self) -> bool:
        """Whether the record belongs to this monitor, and is not closed."""
        return self._writable is not None

    @property
    def _writable(self) -> RunRecord | None:
        """The record while it is open."""
        return self.record if self.record is not None and self.record.is_open else None

    def open(
        self,
        run: Mapping[str, Any],
        config_yaml: str | None,
        resume_step: int | None,
        thumbnails: Mapping[str, Image],
    ) -> tuple[Evaluation, ...]:
        """Begin or resume the record; returns the evaluations in it.

        Args:
            run: the content of run.json.
            thumbnails: images that the metrics compare with, by hash.

        Raises:
            UserError: the directory cannot be used, or holds another run.
        """
        if is_held_here(self._output_dir):  # a monitor that may not begin must not end the one that runs
            recorded(self._output_dir, content_of_run(run, self._grid), resume_step)
        self.record = RunRecord(self._output_dir, self._grid)
        self.record.begin(run, config_yaml, resume_step)
        keep_references(self._output_dir, thumbnails, self._warn)
        self._weights.begin([evaluation.step for evaluation in self.record.evaluations])
        return self.record.evaluations

    def judge_again(self, decision: Decision) -> None:
        """Record the decision with which a run resumes in place of the one on its newest evaluation."""
        if (record := self._writable) is None:
            return
        try:
            record.judge_again(decision)
        except OSError as error:
            self._warn("decision", f"{self._output_dir}: cannot record the decision of the current rules: {error}")

    def start(self, sinks: Sequence[Sink], info: RunInfo) -> None:
        """Start the sinks; `info.repeated` is filled in."""
        assert self.record is not None
        self.audience.start(sinks, replace(info, repeated=self.record.repeated))

    def log_training(self, step: int, loss: float, learning_rate: float | None) -> None:
        """Record the loss of a step."""
        if (record := self._writable) is None:
            return
        try:
            record.log_training(step, loss, learning_rate)
        except (OSError, TypeError, ValueError) as error:
            text = f"{self._output_dir}: cannot record the loss of step {step}: {error}; its curve will have gaps"
            self._warn("training log", text)

    def encode(self, step: int, cells: Sequence[Cell], images: Sequence[Image | None]) -> None:
        """Begin to encode images of the evaluation in progress, so that writing them takes no time later."""
        if (record := self._writable) is not None:
            record.encode(step, cells, images)

    def write(self, evaluation: Evaluation, rendered: Sequence[Image | None], waited: float | None) -> Evaluation:
        """Record the evaluation; returns it with the files of its images and its cost.

        Args:
            waited: seconds of training since the evaluation before; None for the first.
        """
        assert self.record is not None
        start = time.monotonic()
        try:
            files = self.record.write_images(evaluation.step, list(rendered))
            images = tuple(replace(image, file=file) for image, file in zip(evaluation.images, files, strict=True))
            seconds = {**evaluation.seconds, "write": time.monotonic() - start}
            spent = sum(seconds.values())
            overhead = None if waited is None else spent / (spent + waited)
            evaluation = replace(evaluation, images=images, seconds=seconds, overhead=overhead)
            self.record.append(evaluation)
        except OSError as error:
            self.record.postpone(evaluation)
            self._warn(
                f"record {evaluation.step}",
                f"{self._output_dir}: cannot write the record of step {evaluation.step}: {error}; its scores will be "
                "recorded with the next evaluation",
            )
        return evaluation

    def publish(self, evaluation: Evaluation, earlier: Sequence[Evaluation], rendered: Sequence[Image | None]) -> None:
        """Keep the weights if there are any, and show the evaluation."""
        self._weights.keep(earlier, evaluation, rendered)
        self.audience.show(evaluation, rendered)

    def add_full_quality(self, evaluation: Evaluation, rendered: Sequence[Image | None]) -> None:
        """Record what a step's weights give at full quality."""
        if (record := self._writable) is None:
            return
        try:
            record.add_full_quality(evaluation, rendered)
        except OSError as error:
            text = f"{self._output_dir}: cannot record step {evaluation.step} at full quality: {error}"
            self._warn(f"full quality {evaluation.step}", text)

    def make_up_weights(self, evaluation: Evaluation, earlier: Sequence[Evaluation]) -> None:
        """Keep the weights of the step that the run resumes from if their export failed, as on a full disk."""
        if not self._weights.has(evaluation.step):
            self._weights.keep(earlier, evaluation, [None] * len(evaluation.images))

    def end(self, summary: RunSummary) -> RunSummary:
        """Record how the run ended, and tell the sinks; returns the summary with the verdict."""
        is_ours = self.is_open
        if is_ours:
            summary = self._note_end(summary)  # first, so that a sink that reads the record finds it
            self._weights.write_card()
        self.audience.close(summary)
        if is_ours:
            self._say_postponed()
        return summary

    def close(self) -> None:
        """Close the record."""
        if self.record is not None:
            self.record.close()

    def print_summary(self) -> None:
        """Print the recorded run as a table."""
        try:
            print_summary(read_run(as_typed(self._output_dir)))
        except (OSError, UserError) as error:
            self._warn("summary", f"{self._output_dir}: cannot read the record: {error}")

    def _note_end(self, summary: RunSummary) -> RunSummary:
        assert self.record is not None
        try:
            return self.record.end(summary)
        except (OSError, UserError) as error:
            self._warn("end", f"{self._output_dir}: cannot record how the run ended: {error}")
            return summary

    def _say_postponed(self) -> None:
        assert self.record is not None
        if steps := ", ".join(str(each.step) for each in self.record.postponed):
            self._warn(
                "postponed",
                f"{self._output_dir}: has no record of step {steps}; free some disk space, and resume to repeat it",
            )
