"""Show evaluations in TensorBoard: curves with intervals, a strip of images per prompt, and the hyperparameters."""

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.redaction import redacted
from finetune_monitor.record.alarms import alarms_of
from finetune_monitor.record.evaluation import Evaluation, RunSummary
from finetune_monitor.sinks import RunInfo, front_so_far, scalars
from finetune_monitor.sinks.console import TENSORBOARD
from finetune_monitor.sinks.contact_sheet import TAG as PHOTOS
from finetune_monitor.sinks.contact_sheet import contact_sheet_of
from finetune_monitor.sinks.grid_image import grid_image, prompt_strips
from finetune_monitor.stats.estimate import shown_value

if TYPE_CHECKING:  # the config imports this file for its options, and importing torch takes seconds
    from accelerate.tracking import TensorBoardTracker
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

PROMPT_CHARACTERS = 60
"""How many characters of a prompt a tag shows."""

UNSET = (None, "None")
"""Values of settings without a value; those of a config are text."""

EVENTS = "events.out.tfevents*"
"""The names of TensorBoard's files."""

BEST = "best"
"""The run with the best step's scores, in the folder of the run itself."""

LEVELS_IN_WORDS = {"ceiling": "the real photos", "alarm": "its alarm level"}
"""How chart titles name the kinds of `RunInfo.levels`."""


FIRST_SETTINGS = ("train.method", "train.learning_rate", "train.rank", "data.instance_images", "train.max_steps")
"""The columns of the table of hyperparameters that TensorBoard shows without being asked: it shows five."""

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
    """Writes to a folder named after the run in `<output_dir>/tensorboard`, or with a given writer.

    It writes these tags: each score's name (its mean; no point if not measured), `interval/NAME/low` and `high`,
    `ceiling/NAME`, `alarm/NAME` (the level), `monitor/seconds_*`, `monitor/overhead`, `prompts/00 PROMPT` and `grid`
    (images), `run/verdict` (the verdict in words), `run/alarms` (the alarms that sounded, in words), `run/pareto` (the
    steps that no other step beats in two scores, as a table), and `settings/config`. The step is the training step.
    The scores and intervals of the best step are a second run, `RUN/best`: one point in each chart, and the scores in
    the table of hyperparameters. The contact sheet of a training's photos is the image `photos` at step 0.

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

        return TensorBoardTracker("", event_folder(output_dir), purge_step=_purge_step(resume_step))

    @classmethod
    def on_tracker(cls, tracker: "TensorBoardTracker", options: Mapping[str, Any]) -> "TensorBoardSink":
        """A sink with the tracker's writer."""
        return cls(tracker.writer)

    def start(self, run: RunInfo) -> None:
        """Open the writer; when resuming, TensorBoard hides anything written after the checkpoint."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = self._given or SummaryWriter(
            str(event_folder(run.output_dir)), purge_step=_purge_step(run.resume_step)
        )
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
            run = self._run
            grid = grid_image(evaluation, images, run.columns, run.notices, run.best_metric)
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
        run = self._run
        notes = [f"large numbers: {run.best_metric}", *run.notices]
        return prompt_strips(evaluation, images, run.columns, notes, metric=run.best_metric)

    def close(self, summary: RunSummary) -> None:
        """Add the verdict, and the best step as a run of its own."""
        from torch.utils.tensorboard.summary import hparams

        last = summary.evaluations[-1].step if summary.evaluations else 0
        self._write_best(next((each for each in summary.evaluations if each.step == summary.best_step), None))
        self._writer.add_text("run/verdict", "\n\n".join(summary.verdict) or summary.why, last)
        self._add_summaries(hparams({}, {})[2:])
        self._writer.flush()
        if self._given is None:
            self._writer.close()

    def _write_best(self, best: Evaluation | None) -> None:
        """Write the best step's scores and intervals, instead of those that an earlier end of this run has written."""
        from torch.utils.tensorboard import SummaryWriter

        folder = _own(Path(self._writer.log_dir) / BEST)
        for earlier in folder.glob(EVENTS):
            earlier.unlink()
        if best is None:
            return
        writer = SummaryWriter(str(folder))
        for tag, value in self._scalars(best).items():
            if tag in self._run.metrics or tag.startswith("interval/"):
                writer.add_scalar(tag, value, best.step, walltime=best.wall_time)
        writer.close()

    def _write_texts(self, step: int) -> None:
        if self._run.notices:
            self._writer.add_text("run/notices", "\n\n".join(self._run.notices), step)
        if self._run.hparams:
            self._writer.add_text("settings/config", _table(redacted(self._run.hparams)), step)

    def _write_pareto(self, evaluation: Evaluation) -> None:
        """Add the Pareto front as a table if it has changed."""
        self._history = (*self._history, evaluation)
        front = front_so_far(self._history, self._run)
        if front is not None and front.steps != self._pareto:
            self._pareto = front.steps
            rows = [
                f"| {step} | {' | '.join(shown_value(value) for value in front.points[step])} |" for step in front.steps
            ]
            table = [f"| step | {' | '.join(front.columns)} |", "|---|---|---|", *rows]
            self._writer.add_text("run/pareto", "\n".join(table), evaluation.step)

    def _write_hparams(self) -> None:
        """Write the hyperparameters to this run; `add_hparams` would open a second one, named by the time."""
        from torch.utils.tensorboard.summary import hparams

        values = {key: _hparam(value) for key, value in redacted(_settings_of_training(self._run.hparams)).items()}
        experiment, session = hparams(values, dict.fromkeys(self._run.metrics))[:2]
        self._add_summaries([_arranged(experiment), session])

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


def event_folder(output_dir: Path) -> Path:
    """Where a run's events are: TensorBoard shows the folder's name, so a new run has one with its own name.

    A run that resumes goes on where its events are, even if it has been renamed, or an earlier version wrote them.

    Raises:
        UserError: the folder is a link, so that its events would be elsewhere.
    """
    parent = output_dir / TENSORBOARD
    found = sorted(parent.rglob(EVENTS), key=lambda path: (len(path.parts), path))
    return _own(found[0].parent if found else parent / output_dir.resolve().name)


def _own(folder: Path) -> Path:
    if folder.is_symlink():
        raise UserError(f"{folder}: found a link, expected a folder of the run itself; remove it")
    return folder


def _settings_of_training(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what is learned, as far as they are set; the text `settings/config` has all."""
    kept = {key: value for key, value in hparams.items() if not key.startswith(NOT_LEARNED)}
    return {key: value for key, value in kept.items() if value not in UNSET}


def _arranged(summary: "Summary") -> "Summary":
    """The summary of an experiment in which the first settings come first, and scores are those of the best step.

    TensorBoard sorts the settings by name, those that differ between runs first. It shows the first five.
    """
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    plugin_data = summary.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin_data.content)
    for setting in content.experiment.hparam_infos:
        setting.differs = setting.name in FIRST_SETTINGS
    for metric in content.experiment.metric_infos:
        metric.name.group = BEST
    plugin_data.content = content.SerializeToString()
    return summary


def _purge_step(resume_step: int | None) -> int | None:
    """The first step that will be written again."""
    return None if resume_step is None else resume_step + 1


def _charts(run: RunInfo) -> dict[str, dict[str, list[Any]]]:
    """Charts for the custom-scalars page: metrics with intervals as bands, and their levels; tags are patterns.

    TensorBoard shows bands in the reverse order.
    """
    shown = reversed(run.metrics)
    bands = {name: ["Margin", [name, f"interval/{name}/low", f"interval/{name}/high"]] for name in shown}
    beside = {
        f"{name} and {LEVELS_IN_WORDS[kind]}": ["Multiline", [f"^{name}$", f"^{kind}/{name}$"]]
        for kind, levels in run.levels.items()
        for name in levels
    }
    return {"scores with their 95% intervals": bands, "scores beside their levels": beside}


def _shortened(prompt: str) -> str:
    words = " ".join(prompt.replace("/", " ").split())
    return words if len(words) <= PROMPT_CHARACTERS else words[: PROMPT_CHARACTERS - 3] + "..."


def _table(values: Mapping[str, Any]) -> str:
    """A Markdown table; backticks keep TensorBoard from interpreting Markdown in the values."""
    rows = [f"| {key} | `{str(value).replace('|', '/').replace('`', ' ')}` |" for key, value in values.items()]
    return "\n".join(["| key | value |", "|---|---|", *rows])


def _hparam(value: Any) -> str | float:
    """A value that torch accepts: it would write a bool as a number, and it rejects lists."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
