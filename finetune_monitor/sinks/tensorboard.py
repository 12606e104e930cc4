"""Show evaluations in TensorBoard: curves with intervals, a strip of images per prompt, and the hyperparameters."""

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from finetune_monitor.base.redaction import redacted
from finetune_monitor.record.alarms import alarms_of
from finetune_monitor.record.evaluation import Evaluation, RunSummary, measured_means
from finetune_monitor.sinks import RunInfo, front_so_far, scalars
from finetune_monitor.sinks.contact_sheet import TAG as PHOTOS
from finetune_monitor.sinks.contact_sheet import contact_sheet_of
from finetune_monitor.sinks.grid_image import grid_image, prompt_strips

if TYPE_CHECKING:  # the config imports this file for its options, and importing torch takes seconds
    from accelerate.tracking import TensorBoardTracker
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
"""The folder in the run directory."""

PROMPT_CHARACTERS = 60
"""How many characters of a prompt a tag shows."""

LEVELS_IN_WORDS = {"ceiling": "the real photos", "alarm": "its alarm level"}
"""How chart titles name the kinds of `RunInfo.levels`."""


FIRST_SETTINGS = ("train.method", "train.learning_rate", "train.rank", "data.instance_images", "train.max_steps")
"""The first columns of the table of hyperparameters."""

NOT_LEARNED = (
    "monitor.",
    "output_dir",
    "data.class_count",
    "data.workers",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.resume",
    "train.compile",
    "train.gradient_checkpointing",
    "train.cache_latents",
)
"""Settings, or the beginnings of their keys, that do not change what is learned and would fill that table."""


class TensorBoardSink:
    """Writes to `<output_dir>/tensorboard`, or with a given writer.

    It writes these tags: each score's name (its mean; no point if not measured), `interval/NAME/low` and `high`,
    `ceiling/NAME`, `alarm/NAME` (the level), `monitor/seconds_*`, `monitor/overhead`, `prompts/00 PROMPT` and `grid`
    (images), `best/NAME` (the scores of the best step), `run/verdict` (the verdict in words), `run/alarms` (the alarms
    that sounded, in words), and `run/pareto` (the steps that no other step beats in two scores, as a table). The step
    is the training step.

    Args:
        writer: used as is, and stays open at the end; for a resumed run it must have been created with `purge_step`.
    """

    name = "tensorboard"

    @dataclass(frozen=True)
    class Options:
        """The options that a config can set: none."""

    def __init__(self, writer: "SummaryWriter | None" = None):
        self._given = writer

    @classmethod
    def tracker(cls, output_dir: Path, options: Mapping[str, Any], resume_step: int | None) -> "TensorBoardTracker":
        """A tracker that writes to the same place as the sink."""
        from accelerate.tracking import TensorBoardTracker

        return TensorBoardTracker("", output_dir / FOLDER, purge_step=_purge_step(resume_step))

    @classmethod
    def on_tracker(cls, tracker: "TensorBoardTracker", options: Mapping[str, Any]) -> "TensorBoardSink":
        """A sink with the tracker's writer."""
        return cls(tracker.writer)

    def start(self, run: RunInfo) -> None:
        """Open the writer; when resuming, TensorBoard hides anything written after the checkpoint."""
        from torch.utils.tensorboard import SummaryWriter

        folder = str(run.output_dir / FOLDER)
        self._writer = self._given or SummaryWriter(folder, purge_step=_purge_step(run.resume_step))
        self._run, self._history = run, run.evaluations
        self._pareto: tuple[int, ...] = ()
        self._write_texts(run.resume_step or 0)
        self._writer.add_custom_scalars(_charts(run))
        self._write_hparams()
        if run.resume_step is None and (sheet := contact_sheet_of(run.output_dir)) is not None:
            self._add_image(PHOTOS, sheet, 0, time.time())
        self._writer.flush()

    def write(self, evaluation: Evaluation, images: Sequence[Image | None]) -> None:
        """Add one evaluation's curves and images."""
        for tag, value in self._scalars(evaluation).items():
            self._writer.add_scalar(tag, value, evaluation.step, walltime=evaluation.wall_time)
        if alarms := alarms_of(evaluation, self._run.columns):
            self._writer.add_text("run/alarms", "\n\n".join(alarms), evaluation.step)
        self._write_pareto(evaluation)
        if evaluation.images:
            for index, (prompt, strip) in enumerate(self._strips(evaluation, images)):
                self._add_image(
                    f"prompts/{index:02d} {_shortened(prompt)}", strip, evaluation.step, evaluation.wall_time
                )
            grid = grid_image(evaluation, images, self._run.columns, self._run.notices)
            self._add_image("grid", grid, evaluation.step, evaluation.wall_time)
        self._writer.flush()

    def _scalars(self, evaluation: Evaluation) -> dict[str, float]:
        """The curves; where an interval is missing, its ends are the mean.

        TensorBoard's chart of an interval drops the entire run if one of its three curves lacks a point.
        """
        found = scalars(evaluation, self._run)
        means = {name: found[name] for name in self._run.metrics if name in found}
        return {f"interval/{name}/{end}": mean for name, mean in means.items() for end in ("low", "high")} | found

    def _strips(self, evaluation: Evaluation, images: Sequence[Image | None]) -> list[tuple[str, Image]]:
        return prompt_strips(evaluation, images, self._run.columns, self._run.notices)

    def close(self, summary: RunSummary) -> None:
        """Add the best step's scores to the table of hyperparameters."""
        from torch.utils.tensorboard.summary import hparams

        last = summary.evaluations[-1].step if summary.evaluations else 0
        for name, value in measured_means(summary.evaluations, summary.best_step).items():
            if name in self._run.metrics:
                self._writer.add_scalar(f"best/{name}", value, last)
        self._writer.add_text("run/verdict", "\n\n".join(summary.verdict) or summary.why, last)
        self._add_summaries(hparams({}, {})[2:])
        self._writer.flush()
        if self._given is None:
            self._writer.close()

    def _write_texts(self, step: int) -> None:
        if self._run.notices:
            self._writer.add_text("run/notices", "\n\n".join(self._run.notices), step)
        if self._run.hparams:
            self._writer.add_text("run/config", _table(redacted(self._run.hparams)), step)

    def _write_pareto(self, evaluation: Evaluation) -> None:
        """Add the Pareto front as a table if it has changed."""
        self._history = (*self._history, evaluation)
        front = front_so_far(self._history, self._run)
        if front is not None and front.steps != self._pareto:
            self._pareto = front.steps
            rows = [
                f"| {step} | {' | '.join(f'{value:.3f}' for value in front.points[step])} |" for step in front.steps
            ]
            table = [f"| step | {' | '.join(front.columns)} |", "|---|---|---|", *rows]
            self._writer.add_text("run/pareto", "\n".join(table), evaluation.step)

    def _write_hparams(self) -> None:
        """Write the hyperparameters to this run; `add_hparams` would open a second one, named by the time."""
        from torch.utils.tensorboard.summary import hparams

        values = {key: _hparam(value) for key, value in redacted(_settings_of_training(self._run.hparams)).items()}
        tags = [f"best/{name}" for name in self._run.metrics]
        self._add_summaries(hparams(values, dict.fromkeys(tags))[:2])

    def _add_image(self, tag: str, image: Image, step: int, wall_time: float) -> None:
        """Add an image as JPEG, a tenth the size of `add_image`'s PNG; the record keeps the exact pixels."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        content = io.BytesIO()
        image.save(content, "JPEG", quality=90)
        encoded = Summary.Image(
            height=image.height, width=image.width, colorspace=3, encoded_image_string=content.getvalue()
        )
        summary = Summary(value=[Summary.Value(tag=tag, image=encoded)])
        self._writer._get_file_writer().add_summary(summary, step, wall_time)

    def _add_summaries(self, summaries: "Sequence[Summary]") -> None:
        for summary in summaries:
            self._writer._get_file_writer().add_summary(summary)


def _settings_of_training(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what is learned, the most important first; the text `run/config` has all."""
    kept = {key: value for key, value in hparams.items() if not key.startswith(NOT_LEARNED)}
    return {**{key: kept[key] for key in FIRST_SETTINGS if key in kept}, **kept}


def _purge_step(resume_step: int | None) -> int | None:
    """The first step that will be written again."""
    return None if resume_step is None else resume_step + 1


def _charts(run: RunInfo) -> dict[str, dict[str, list[Any]]]:
    """Charts for the custom-scalars page: metrics with intervals as bands, and their levels; tags are patterns."""
    bands = {name: ["Margin", [name, f"interval/{name}/low", f"interval/{name}/high"]] for name in run.metrics}
    beside = {
        f"{name} and {LEVELS_IN_WORDS[kind]}": ["Multiline", [f"^{name}$", f"^{kind}/{name}$"]]
        for kind, levels in run.levels.items()
        for name in levels
    }
    return {"scores": bands | beside}


def _shortened(prompt: str) -> str:
    words = " ".join(prompt.replace("/", " ").split())
    return words if len(words) <= PROMPT_CHARACTERS else words[: PROMPT_CHARACTERS - 3] + "..."


def _table(values: Mapping[str, Any]) -> str:
    """A Markdown table; backticks keep TensorBoard from interpreting Markdown in the values."""
    rows = [f"| {key} | `{str(value).replace('|', '/').replace('`', ' ')}` |" for key, value in values.items()]
    return "\n".join(["| key | value |", "|---|---|", *rows])


def _hparam(value: Any) -> str | float | None:
    """A value that torch accepts: it would write a bool as a number, and it rejects lists."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return None if value is None else str(value)
